package link

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// These tests use real interfaces in network namespaces of their own. They need
// root and fail without.

// lab is a switch with one bridge per link, and a namespace per node.
type lab struct {
	t      *testing.T
	prefix string
	nodes  []string
}

var labs atomic.Int32

func newLab(t *testing.T, nodes ...string) *lab {
	t.Helper()
	l := &lab{t: t, prefix: fmt.Sprintf("kblink-%d-%d-", os.Getpid(), labs.Add(1)), nodes: nodes}
	for _, name := range append([]string{"sw"}, nodes...) {
		ns := l.prefix + name
		l.ip("netns add " + ns)
		t.Cleanup(func() {
			if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
				t.Errorf("ip netns del %s: %v: %s", ns, err, out)
			}
		})
		l.in(name, "link set lo up")
	}
	for _, eth := range []string{"eth1", "eth2"} {
		l.in("sw", "link add br-"+eth+" type bridge mcast_snooping 0")
		l.in("sw", "link set br-"+eth+" up")
		for _, n := range nodes {
			l.plug(n, eth)
		}
	}
	return l
}

// ip runs ip(8).
func (l *lab) ip(args string) {
	l.t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// in runs ip(8) in a namespace.
func (l *lab) in(name, args string) {
	l.t.Helper()
	l.ip("-n " + l.prefix + name + " " + args)
}

// plug makes an interface of a node and connects it.
func (l *lab) plug(node, eth string) {
	l.t.Helper()
	l.in("sw", fmt.Sprintf("link add %s-%s type veth peer name %s netns %s%s", node, eth, eth, l.prefix, node))
	l.in("sw", fmt.Sprintf("link set %s-%s master br-%s up", node, eth, eth))
	l.in(node, fmt.Sprintf("addr add %v/24 brd + dev %s", l.addr(node, eth), eth))
	l.in(node, fmt.Sprintf("addr add %v/64 dev %s nodad", l.addr6(node, eth), eth))
	l.in(node, "link set "+eth+" up")
}

func (l *lab) number(node string) int {
	for i, n := range l.nodes {
		if n == node {
			return i + 1
		}
	}
	l.t.Fatalf("no node %s", node)
	return 0
}

func (l *lab) addr(node, eth string) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("10.77.%s.%d", eth[3:], l.number(node)))
}

func (l *lab) addr6(node, eth string) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd77:%s::%d", eth[3:], l.number(node)))
}

// real is a mesh on real sockets in a namespace.
type real struct {
	*Mesh
	t    *testing.T
	name string
	got  chan string
}

func (l *lab) run(node, cluster string, links []conf.Link, mod ...func(*Config)) *real {
	l.t.Helper()
	r := &real{t: l.t, name: node, got: make(chan string, 1000)}
	cfg := Config{
		Cluster: cluster, Self: node, Nodes: l.nodes, Links: links, Keepalive: 50 * time.Millisecond,
		Keys: []Key{{Index: 1, Secret: []byte("0123456789abcdef")}}, Active: 1,
		Logger: slog.New(slog.NewTextHandler(l.t.Output(), nil)).With("node", node),
	}
	for _, f := range mod {
		f(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	s := &sockets{ns: l.prefix + node}
	m.open, m.watch = s.open, s.watch
	m.Handle(ChannelLease, func(from string, _ Boot, b []byte) { r.got <- from + ": " + string(b) })
	r.Mesh = m
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	return r
}

// await waits until the links to a peer are in these states.
func (r *real) await(peer, states string) {
	r.t.Helper()
	r.until(func() (string, bool) {
		for _, p := range r.Peers() {
			if p.Node != peer {
				continue
			}
			var s []string
			for _, l := range p.Links {
				s = append(s, l.State.String())
			}
			return fmt.Sprintf("%+v", p), strings.Join(s, " ") == states
		}
		return "no such peer", false
	})
}

// awaitWhy waits until a link to a peer is down for a reason.
func (r *real) awaitWhy(peer string, link int, why string) {
	r.t.Helper()
	r.until(func() (string, bool) {
		for _, p := range r.Peers() {
			if p.Node == peer {
				return fmt.Sprintf("%+v", p), p.Links[link].State == Down && p.Links[link].Why == why
			}
		}
		return "no such peer", false
	})
}

func (r *real) until(ok func() (string, bool)) {
	r.t.Helper()
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		what, is := ok()
		if is {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			r.t.Fatalf("%s: waited in vain: %s", r.name, what)
		}
	}
}

// tell sends datagrams and wants each to arrive once.
func (r *real) tell(to *real, sizes ...int) {
	r.t.Helper()
	for i, size := range sizes {
		text := fmt.Sprintf("%s %d %s", r.name, i, strings.Repeat("x", size))
		text = text[:max(size, 4)]
		if err := r.Send(to.name, ChannelLease, []byte(text)); err != nil {
			r.t.Fatal(err)
		}
		select {
		case got := <-to.got:
			if got != r.name+": "+text {
				r.t.Fatalf("%s got %.30q, want %.30q", to.name, got, text)
			}
		case <-time.After(30 * time.Second):
			r.t.Fatalf("%s: nothing of %d bytes arrives from %s; %+v", to.name, size, r.name, to.Stats())
		}
	}
}

func TestKernelEveryKindOfLink(t *testing.T) {
	l := newLab(t, "a", "b", "c")
	all := func(eth string, addr func(node, eth string) netip.Addr) (out []netip.Addr) {
		for _, n := range l.nodes {
			out = append(out, addr(n, eth))
		}
		return out
	}
	for _, c := range []struct {
		name  string
		links []conf.Link
	}{
		{"bcast and bcast", []conf.Link{{Type: conf.Bcast, Interface: "eth1", Port: 694}, {Type: conf.Bcast, Interface: "eth2", Port: 7000}}},
		{"mcast and mcast6", []conf.Link{{Type: conf.Mcast, Interface: "eth1"}, {Type: conf.Mcast, Interface: "eth2", Group: netip.MustParseAddr("ff02::694"), TTL: 1}}},
		{"ucast and ucast6", []conf.Link{
			{Type: conf.Ucast, Interface: "eth1", Addresses: all("eth1", l.addr)},
			{Type: conf.Ucast, Interface: "eth2", Addresses: all("eth2", l.addr6)}}},
		{"ucast of both families, and two links on one interface", []conf.Link{
			{Type: conf.Ucast, Interface: "eth1", Addresses: []netip.Addr{l.addr("a", "eth1"), l.addr6("b", "eth1"), l.addr("c", "eth1")}},
			{Type: conf.Bcast, Interface: "eth1", Port: 695}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &lab{t: t, prefix: l.prefix, nodes: l.nodes}
			a, b, d := l.run("a", "test", c.links), l.run("b", "test", c.links), l.run("c", "test", c.links)
			for _, n := range []*real{a, b, d} {
				for _, p := range l.nodes {
					if p != n.name {
						n.await(p, "up up")
					}
				}
			}
			a.tell(b, 10, MaxPayload, 0)
			b.tell(a, 10, MaxPayload)
			d.tell(a, 10)
			for _, n := range []*real{a, b, d} {
				for _, s := range n.Stats().Links {
					if s.AuthFailed+s.Malformed+s.Replayed+s.Foreign+s.OwnName != 0 {
						t.Errorf("%s: %+v", n.name, s)
					}
				}
			}
			if extra := len(a.got) + len(b.got) + len(d.got); extra != 0 {
				t.Errorf("%d datagrams too many arrived", extra)
			}
		})
	}
}

func bothBcast() []conf.Link {
	return []conf.Link{{Type: conf.Bcast, Interface: "eth1"}, {Type: conf.Bcast, Interface: "eth2"}}
}

func TestKernelTwoClustersOnOneWire(t *testing.T) {
	l := newLab(t, "a", "b", "c", "d")
	a, b := l.run("a", "one", bothBcast()), l.run("b", "one", bothBcast())
	c, d := l.run("c", "two", bothBcast()), l.run("d", "two", bothBcast())
	a.await("b", "up up")
	d.await("c", "up up")
	a.tell(b, 10)
	c.tell(d, 10)
	a.until(func() (string, bool) {
		return fmt.Sprintf("%+v", a.Stats()), a.Stats().Links[0].Foreign > 10
	})
	a.await("c", "down down")
	c.await("a", "down down")
}

func TestKernelInterfaceIsDeletedAndMadeAgain(t *testing.T) {
	l := newLab(t, "a", "b")
	a, b := l.run("a", "test", bothBcast()), l.run("b", "test", bothBcast())
	a.await("b", "up up")
	b.await("a", "up up")
	l.in("a", "link del eth1")
	a.awaitWhy("b", 0, "eth1: no such interface")
	b.await("a", "down up")
	a.tell(b, 10, MaxPayload)
	l.plug("a", "eth1")
	a.await("b", "up up")
	b.await("a", "up up")
	a.tell(b, 10)
}

func TestKernelInterfaceThatIsNotThereAtTheStart(t *testing.T) {
	l := newLab(t, "a", "b")
	l.in("a", "link del eth1")
	l.in("a", "link del eth2")
	a, b := l.run("a", "test", bothBcast()), l.run("b", "test", bothBcast())
	a.awaitWhy("b", 0, "eth1: no such interface")
	a.awaitWhy("b", 1, "eth2: no such interface")
	err := a.Send("b", ChannelLease, nil)
	if want := "send to b: no link took it: link bcast eth1: eth1: no such interface; link bcast eth2: eth2: no such interface"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	l.plug("a", "eth2")
	a.await("b", "down up")
	b.await("a", "down up")
	l.plug("a", "eth1")
	b.await("a", "up up")
	b.tell(a, 10)
}

func TestKernelCarrierAddressAndState(t *testing.T) {
	l := newLab(t, "a", "b")
	a, b := l.run("a", "test", bothBcast()), l.run("b", "test", bothBcast())
	a.await("b", "up up")
	for _, c := range []struct{ off, on, where, why string }{
		{"link set a-eth1 down", "link set a-eth1 up", "sw", "eth1: no carrier"},
		{"link set eth1 down", "link set eth1 up", "a", "eth1: interface is down"},
		{"addr flush dev eth1 scope global", "addr add 10.77.1.1/24 brd + dev eth1", "a", "eth1: no IPv4 address"},
	} {
		l.in(c.where, c.off)
		a.awaitWhy("b", 0, c.why)
		b.await("a", "down up")
		a.tell(b, 10)
		l.in(c.where, c.on)
		a.await("b", "up up")
		b.await("a", "up up")
		b.tell(a, 10)
	}
	// Another address on a heartbeat interface, as a VIP would be, disturbs nothing; another broadcast address is followed.
	l.in("a", "addr add 10.77.1.200/32 dev eth1")
	a.tell(b, 10)
	l.in("a", "addr flush dev eth1 scope global")
	l.in("a", "addr add 10.77.9.1/16 brd + dev eth1")
	a.await("b", "down up") // they broadcast to different addresses
	l.in("b", "addr flush dev eth1 scope global")
	l.in("b", "addr add 10.77.9.2/16 brd + dev eth1")
	a.await("b", "up up")
	b.await("a", "up up")
}

func TestKernelNewAddressOfAPeerIsLearned(t *testing.T) {
	l := newLab(t, "a", "b")
	a, b := l.run("a", "test", bothBcast()), l.run("b", "test", bothBcast())
	a.await("b", "up up")
	for _, eth := range []string{"eth1", "eth2"} {
		l.in("b", "addr del 10.77."+eth[3:]+".2/24 dev "+eth)
		l.in("b", "addr add 10.77."+eth[3:]+".99/24 brd + dev "+eth)
	}
	learned := func() (string, bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		links := a.roster.Load().byName["b"].links
		s := fmt.Sprint(links[0].addr, links[1].addr)
		return s, s == "10.77.1.99:694 10.77.2.99:694"
	}
	a.until(learned)
	a.await("b", "up up")
	b.await("a", "up up")
	a.tell(b, 10)
}

func TestKernelSocketsAreMarked(t *testing.T) {
	l := newLab(t, "a")
	for _, c := range []struct {
		link               conf.Link
		level, name, value int
	}{
		{conf.Link{Type: conf.Bcast, Interface: "eth1", Port: 694}, unix.IPPROTO_IP, unix.IP_TOS, 0xc0},
		{conf.Link{Type: conf.Bcast, Interface: "eth1", Port: 694}, unix.SOL_SOCKET, unix.SO_PRIORITY, 6},
		{conf.Link{Type: conf.Mcast, Interface: "eth1", Port: 694, Group: netip.MustParseAddr("225.0.0.1"), TTL: 3}, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 3},
		{conf.Link{Type: conf.Mcast, Interface: "eth1", Port: 694, Group: netip.MustParseAddr("ff02::5"), TTL: 1}, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0xc0},
		{conf.Link{Type: conf.Mcast, Interface: "eth1", Port: 694, Group: netip.MustParseAddr("ff02::5"), TTL: 1}, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0},
	} {
		port, err := (&sockets{ns: l.prefix + "a"}).open(c.link)
		if err != nil {
			t.Fatal(err)
		}
		var got int
		if err := port.(*udpPort).raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), c.level, c.name) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || got != c.value {
			t.Errorf("%s: option %d is %d, %v; want %d", c.link.Name(), c.name, got, err, c.value)
		}
		b, to := make([]byte, 500), port.(*udpPort).way.all[0]
		if n := testing.AllocsPerRun(100, func() {
			if err := port.Send(b, to); err != nil {
				t.Error(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations for a datagram", c.link.Name(), n)
		}
		if err := port.Close(); err != nil {
			t.Error(err)
		}
		if err := port.Broadcast([]byte("x")); err == nil {
			t.Error("a closed port sends")
		}
	}
}
