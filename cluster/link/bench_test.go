package link_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/conf"
)

// loopback is a port on 127.0.0.1 that broadcasts to two others: for the cost
// of the system calls without root.
type loopback struct {
	conn *net.UDPConn
	all  []netip.AddrPort
}

func (l *loopback) Broadcast(b []byte) error {
	for _, to := range l.all {
		if err := l.Send(b, to); err != nil {
			return err
		}
	}
	return nil
}

func (l *loopback) Send(b []byte, to netip.AddrPort) error {
	_, err := l.conn.WriteToUDPAddrPort(b, to)
	return err
}

func (l *loopback) Receive(b []byte) (int, netip.AddrPort, error) {
	n, from, err := l.conn.ReadFromUDPAddrPort(b)
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

func (l *loopback) Close() error { return l.conn.Close() }

// loopbackMeshes are three meshes with two links each, that know each other.
func loopbackMeshes(b *testing.B, k time.Duration) (meshes []*link.Mesh, stop func()) {
	names := []string{"a", "b", "c"}
	ports := map[string]map[string]*loopback{}
	for _, eth := range []string{"eth1", "eth2"} {
		ports[eth] = map[string]*loopback{}
		for _, n := range names {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				b.Fatal(err)
			}
			ports[eth][n] = &loopback{conn: c}
		}
		for _, n := range names {
			for _, o := range names {
				if o != n {
					ports[eth][n].all = append(ports[eth][n].all, ports[eth][o].conn.LocalAddr().(*net.UDPAddr).AddrPort())
				}
			}
		}
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	for _, n := range names {
		m, err := link.New(link.Config{
			Cluster: "bench", Self: n, Nodes: names, Keys: []link.Key{key1}, Active: 1, Keepalive: k,
			Links: []conf.Link{eth1, eth2},
			Open:  func(l conf.Link) (link.Port, error) { return ports[l.Interface][n], nil },
		})
		if err != nil {
			b.Fatal(err)
		}
		meshes = append(meshes, m)
		wg.Go(func() {
			if err := m.Run(ctx); err != nil {
				b.Error(err)
			}
		})
	}
	for _, m := range meshes {
		for _, p := range m.Peers() {
			for p.State != link.Up || p.Links[0].State != link.Up || p.Links[1].State != link.Up {
				time.Sleep(k)
				for _, q := range m.Peers() {
					if q.Node == p.Node {
						p = q
					}
				}
			}
		}
	}
	return meshes, func() { cancel(); wg.Wait() }
}

func cpu() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// One datagram on two links through real sockets, there and received.
func BenchmarkSendAndReceiveTwoLinks(b *testing.B) {
	meshes, stop := loopbackMeshes(b, 100*time.Millisecond)
	defer stop()
	got := make(chan struct{}, 1)
	meshes[1].Handle(link.ChannelQUIC, func(string, link.Boot, []byte) { got <- struct{}{} })
	payload := make([]byte, 1200)
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		if err := meshes[0].Send("b", link.ChannelQUIC, payload); err != nil {
			b.Fatal(err)
		}
		<-got
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// Hellos of a cluster of three at rest: percent of a core for one node.
func BenchmarkIdle(b *testing.B) {
	for _, k := range []time.Duration{100 * time.Millisecond, 40 * time.Millisecond} {
		b.Run(k.String(), func(b *testing.B) {
			_, stop := loopbackMeshes(b, k)
			defer stop()
			const span = 5 * time.Second
			used, ran := time.Duration(0), 0
			for range b.N {
				before := cpu()
				time.Sleep(span)
				used += cpu() - before
				ran++
			}
			b.ReportMetric(100*float64(used)/float64(ran)/float64(span)/3, "%core/node")
		})
	}
}
