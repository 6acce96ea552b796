package fault

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// numbers reads what a helper was given; helpers are started by this package alone.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}

// pages serves pages that say who serves them: NAME.
func pages(args []string) error {
	server := probe.HTTPServer{Name: args[0], Listen: []string{":80"}}
	return server.Serve(context.Background(), func() {})
}

// hogs starts processes that only compute: NUMBER DURATION.
func hogs(args []string) error {
	var wg sync.WaitGroup
	errs := make(chan error, number(args[0]))
	for range number(args[0]) {
		wg.Go(func() {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{helperVariable + "=hog\n" + args[1]}
			errs <- cmd.Run()
		})
	}
	wg.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	return all
}

func hog(args []string) error {
	runtime.GOMAXPROCS(1)
	end := time.Now().Add(duration(args[0]))
	for n := uint64(1); n != 0; n += 2 {
		if n&0xfffff == 1 && time.Now().After(end) {
			return nil
		}
	}
	return nil
}

// paced calls send so many times a second for a while, or longer on a machine that has
// no time for it, and says what came of it. It is an error when not even half could be
// sent and the processor was this program's: nothing was flooded then.
func paced(perSecond int, last time.Duration, send func(n int) error) error {
	const grace = 10 * time.Second // arena.end waits longer
	all, began := int(last.Seconds()*float64(perSecond)), time.Now()
	tried, sent := 0, 0
	var why error
	for tried < all && time.Since(began) < last+grace {
		if tried >= int(time.Since(began).Seconds()*float64(perSecond)) {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if err := send(tried); err != nil {
			why = err
		} else {
			sent++
		}
		tried++
	}
	took, worked := time.Since(began), processorTime()
	fmt.Printf("%d of %d sent, %d tried, in %v with %v of a processor; the last error: %v\n", sent, all, tried, took, worked, why)
	if starved := tried < all && worked < took/2; sent < all/2 && !starved {
		return errors.New("not even half was sent: nothing was flooded")
	}
	return nil
}

// processorTime is what this program has used.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // there is always one of oneself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const heartbeatPort = 694

// garbage sends what no node has sent: PER-SECOND DURATION SEED NODES.
func garbage(args []string) error {
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(seed, 0))
	var sockets []*net.UDPConn
	for link := 1; link <= 2; link++ {
		for _, last := range []byte{255, 1, 2, 3} {
			c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(10, 0, byte(link), last), Port: heartbeatPort})
			if err != nil {
				return err
			}
			// More than what waits for the hardware address of a node that is dead, or the flood would wait for it too.
			if err := c.SetWriteBuffer(1 << 20); err != nil {
				return err
			}
			sockets = append(sockets, c)
		}
	}
	b := make([]byte, 1449)
	nodes := strings.Split(args[3], ",")
	return paced(number(args[0]), duration(args[1]), func(n int) error {
		size := 1 + r.IntN(len(b))
		fillRandom(r, b[:size])
		if n%4 != 0 && size >= 32 { // three of four are plausible from the outside
			header(b, nodes[r.IntN(len(nodes))], r)
		}
		_, err := sockets[r.IntN(len(sockets))].Write(b[:size])
		return err
	})
}

func fillRandom(r *rand.Rand, b []byte) {
	for i := 0; i+8 <= len(b); i += 8 {
		binary.NativeEndian.PutUint64(b[i:], r.Uint64())
	}
}

// header writes the header of docs/protocol.md: all is right but the seal.
func header(b []byte, node string, r *rand.Rand) {
	copy(b, "KB\x01\x01")
	copy(b[4:8], hash("cluster", "lab"))
	copy(b[8:12], hash("node", node))
	if r.IntN(2) == 0 {
		binary.BigEndian.PutUint32(b[12:], 0)
	}
}

func hash(kind, name string) []byte {
	sum := sha256.Sum256([]byte(kind + "\x00" + name))
	return sum[:4]
}

// initials takes a node's place with its own key and files, and begins QUIC
// connections with the other nodes that it never finishes: PER-SECOND DURATION NODES
// ANSWERED. With true as the last it is an error when none of them answers.
func initials(args []string) error {
	self, err := os.Hostname()
	if err != nil {
		return err
	}
	local, _, err := conf.LoadLocal("/etc/keepbeat/ha.yaml")
	if err != nil {
		return err
	}
	keys, active, err := conf.LoadAuthKeys(local.AuthKeys)
	if err != nil {
		return err
	}
	nodes := strings.Split(args[2], ",")
	cfg := link.Config{Cluster: local.Cluster, Self: self, Nodes: nodes, Active: active, Links: local.Links, Keepalive: local.Profile.Keepalive}
	for _, k := range keys {
		cfg.Keys = append(cfg.Keys, link.Key{Index: k.Index, Secret: k.Secret.Bytes()})
	}
	mesh, err := link.New(cfg)
	if err != nil {
		return err
	}
	var answers atomic.Int64
	mesh.Handle(link.ChannelQUIC, func(string, link.Boot, []byte) { answers.Add(1) })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	running := make(chan error, 1)
	go func() { running <- mesh.Run(ctx) }()

	first := make([][]byte, 64)
	for i := range first {
		if first[i], err = initial(); err != nil {
			return err
		}
	}
	// Nobody looks at the packets of a machine that is not believed yet.
	heard := func() bool {
		return slices.ContainsFunc(mesh.Peers(), func(p link.Peer) bool { return p.State == link.Up })
	}
	within(5*time.Second, heard)
	err = paced(number(args[0]), duration(args[1]), func(i int) (err error) {
		// Another connection id is another connection; its keys follow from the id
		// (RFC 9001, 5.2), so only the prepared ones can be decrypted. Both kinds are sent.
		packet := append([]byte(nil), first[i%len(first)]...)
		if i >= len(first) && i%2 == 0 {
			binary.BigEndian.PutUint32(packet[6:], rand.Uint32())
		}
		for _, to := range nodes {
			if to != self {
				err = errors.Join(err, mesh.Send(to, link.ChannelQUIC, packet))
			}
		}
		return err
	})
	if !within(5*time.Second, func() bool { return answers.Load() > 0 }) && args[3] == "true" {
		err = errors.Join(err, fmt.Errorf("nobody answers what begins a connection; the links: %+v", mesh.Peers()))
	}
	fmt.Println(answers.Load(), "answers")
	cancel()
	return errors.Join(err, <-running)
}

// within waits for something, and says whether it came.
func within(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// initial returns the first packet of a connection that is then given up.
func initial() ([]byte, error) {
	sink := &sinkConn{sent: make(chan []byte, 1), closed: make(chan struct{})}
	tr := &quic.Transport{Conn: sink}
	defer tr.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		// It is given up: the error says so.
		_, _ = tr.Dial(ctx, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"keepbeat"}},
			&quic.Config{InitialPacketSize: 1200, DisablePathMTUDiscovery: true})
	}()
	select {
	case b := <-sink.sent:
		return b, nil
	case <-time.After(5 * time.Second):
		return nil, errors.New("no first packet")
	}
}

// sinkConn keeps the first packet written, and never receives any.
type sinkConn struct {
	sent   chan []byte
	once   sync.Once
	closed chan struct{}
}

func (s *sinkConn) ReadFrom([]byte) (int, net.Addr, error) {
	<-s.closed
	return 0, nil, net.ErrClosed
}

func (s *sinkConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case s.sent <- append([]byte(nil), b...):
	default:
	}
	return len(b), nil
}

func (s *sinkConn) Close() error                     { s.once.Do(func() { close(s.closed) }); return nil }
func (s *sinkConn) LocalAddr() net.Addr              { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 2} }
func (s *sinkConn) SetDeadline(time.Time) error      { return nil }
func (s *sinkConn) SetReadDeadline(time.Time) error  { return s.Close() } // the transport ends so
func (s *sinkConn) SetWriteDeadline(time.Time) error { return nil }

// halfOpen holds connections to the control socket, each in the middle of something: NUMBER DURATION.
func halfOpen(args []string) error {
	beginnings := []string{
		"", "G", "GET /v1/status HTTP/1.1\r\nHost: k\r\n", "POST /v1/apply HTTP/1.1\r\nHost: k\r\nContent-Length: 60000\r\n\r\n{",
		"POST /v1/standby HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n", "\x00\x01\x02\x03",
		"GET /v1/status HTTP/1.1\r\nHost: k\r\nX: " + strings.Repeat("x", 10_000),
	}
	var open []net.Conn
	refused := 0
	var why error
	end := time.Now().Add(duration(args[1]))
	for i := range number(args[0]) {
		c, err := net.Dial("unix", "/run/keepbeat/control.sock")
		if err != nil {
			why = err
			refused++ // the backlog is full, or the daemon has died of something else
			continue
		}
		open = append(open, c)
		if _, err := io.WriteString(c, beginnings[i%len(beginnings)]); err != nil {
			why = err
			refused++
		}
	}
	fmt.Printf("%d connections half-open, %d refused; the last error: %v\n", len(open), refused, why)
	if len(open) == 0 {
		return errors.New("not a connection was half-open")
	}
	time.Sleep(time.Until(end))
	for _, c := range open {
		c.Close()
	}
	return nil
}
