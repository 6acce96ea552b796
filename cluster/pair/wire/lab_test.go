package wire

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster/lease/guard"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
	"github.com/keepbeat/keepbeat/resources/vip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is a network namespace; this one asks, that one answers, and a third
// looks on.
//
//	eth0  10.99.0.N/24 fd99::N/64  all on one switch
type machine struct {
	nstest.NS
	n int
}

// prefix begins the names of namespaces.
const prefix = "kbwire"

// network makes a switch and three machines on it.
func network(t testing.TB) (this, that, third machine) {
	t.Helper()
	fabric := nstest.New(t, prefix)
	fabric.IP("link add switch type bridge mcast_snooping 0\nlink set switch up")
	var all []machine
	for n := 1; n <= 3; n++ {
		m := machine{nstest.New(t, prefix), n}
		m.Sysctl("net/ipv6/conf/default/accept_dad", "0")
		m.port(fabric, "eth0")
		m.IP(fmt.Sprintf(`addr add 10.99.0.%d/24 dev eth0
			addr add fd99::%[1]d/64 dev eth0`, n))
		all = append(all, m)
	}
	// A second foot of this one on the same switch, so that its own kernel hears its questions.
	all[0].port(fabric, "eth1")
	return all[0], all[1], all[2]
}

// port gives the machine an interface on the switch, up and with a carrier.
func (m machine) port(fabric nstest.NS, dev string) {
	m.T.Helper()
	end := fmt.Sprintf("p%d%s", m.n, dev)
	fabric.IP(fmt.Sprintf("link add %s type veth peer name %s netns %s\nlink set %[1]s master switch up", end, dev, m.Name))
	m.IP("link set " + dev + " up")
	nstest.Eventually(m.T, dev+" is up", func() bool {
		return strings.Contains(fabric.IP("link show dev "+end+" up"), "state UP") && strings.Contains(m.IP("link show dev "+dev+" up"), "state UP")
	})
}

// asker is a Wire in a machine.
type asker struct {
	machine
	w *Wire
}

func (m machine) wire() asker {
	maker := vip.NewMaker(vip.Config{Namespace: m.Path()})
	a := asker{m, New(Config{Vips: maker})}
	m.T.Cleanup(func() {
		a.w.Close()
		if err := maker.Close(); err != nil {
			m.T.Error(err)
		}
	})
	return a
}

// round is what Probe is called with by a pair of the profile default.
const round = 100 * time.Millisecond

// seen is what a round has told, as text: one line for each address of which
// something is known.
func (a asker) probe(places ...string) string {
	a.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), round)
	defer cancel()
	return a.probeIn(ctx, places...)
}

func (a asker) probeIn(ctx context.Context, places ...string) string {
	a.T.Helper()
	var lines []string
	a.Inside(func() error {
		answered, asked, unasked := a.w.Probe(ctx, placesOf(places))
		for _, p := range answered {
			lines = append(lines, p.Addr.String()+" answered")
		}
		for _, p := range asked {
			lines = append(lines, p.Addr.String()+" asked")
		}
		for p, err := range unasked {
			why, _, _ := strings.Cut(err.Error(), "; this node has") // kernels make interfaces of their own
			lines = append(lines, p.Addr.String()+" unasked: "+why)
		}
		return nil
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// tells probes until a round was long enough on this machine, and compares.
func (a asker) tells(want string, places ...string) {
	a.T.Helper()
	a.tellsOf(func() {}, want, places...)
}

// tellsOf is tells of what is done before the round, before each again: a round
// that is not long enough takes out of the notes what came once only.
func (a asker) tellsOf(do func(), want string, places ...string) {
	a.T.Helper()
	var got string
	for range 20 {
		do()
		if got = a.probe(places...); !strings.Contains(got, errStarved.Error()) {
			break
		}
	}
	if got != want {
		a.T.Errorf("probing %v tells:\n%s\nwant:\n%s", places, got, want)
	}
}

func TestWhoAnswers(t *testing.T) {
	this, that, _ := network(t)
	that.IP(`addr add 10.99.0.200/32 dev eth0
		addr add fd99::200/128 dev eth0
		link add link eth0 name virtual type macvlan mode bridge
		link set virtual up
		addr add 10.99.0.201/32 dev virtual`)
	this.IP(`addr add 10.99.0.210/32 dev eth1
		addr add fd99::210/128 dev eth1`)
	a := this.wire()
	for _, c := range []struct {
		name   string
		places []string
		want   string
	}{
		{"nobody", []string{"10.99.0.250", "fd99::250"}, ""},
		{"another machine", []string{"10.99.0.200", "10.99.0.250"}, "10.99.0.200 answered"},
		{"another machine, by its interface's name", []string{"10.99.0.200/eth0"}, "10.99.0.200 answered"},
		{"another machine, IPv6", []string{"fd99::200", "fd99::250"}, "fd99::200 answered"},
		{"a virtual interface of another machine", []string{"10.99.0.201"}, "10.99.0.201 answered"},
		{"this very machine, by another interface", []string{"10.99.0.210", "fd99::210"}, ""},
		{"all of them at once", []string{"10.99.0.200", "fd99::200", "10.99.0.210", "10.99.0.250"}, "10.99.0.200 answered\nfd99::200 answered"},
		{"nothing", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := a
			a.T = t
			a.tells(c.want, c.places...)
		})
	}
	t.Run("and the other machine sees this one's", func(t *testing.T) {
		b := that.wire()
		b.tells("10.99.0.210 answered\nfd99::210 answered", "10.99.0.210", "fd99::210", "10.99.0.200")
	})
}

func TestWhatCannotBeAsked(t *testing.T) {
	this, that, _ := network(t)
	fabric := nstest.New(t, prefix)
	fabric.IP("link add switch type bridge\nlink set switch up")
	this.port(fabric, "eth3")
	this.IP("addr add 10.97.0.1/24 dev eth3")
	a := this.wire()
	for _, c := range []struct{ name, place, want string }{
		{"no route", "172.31.0.1", "172.31.0.1 unasked: vip 172.31.0.1/32: no interface has a connected route that contains it; write the interface: 172.31.0.1/32/INTERFACE"},
		{"no such interface", "10.99.0.200/eth9", "10.99.0.200 unasked: vip 10.99.0.200/32: eth9: no such interface"},
		{"an interface without neighbours", "10.99.0.200/lo", "10.99.0.200 unasked: vip 10.99.0.200/32: lo is no Ethernet interface: its neighbours cannot be asked"},
		{"an address of no machine", "224.0.0.1", "224.0.0.1 unasked: vip 224.0.0.1: not the address of one machine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := a
			a.T = t
			a.tells(c.want, c.place)
		})
	}
	a.tells("", "10.97.0.200")
	fabric.IP("link set p1eth3 down")
	for !strings.Contains(this.IP("link show dev eth3"), "NO-CARRIER") { // linkwatch takes up to a second
		time.Sleep(time.Millisecond)
	}
	a.tells("10.97.0.200 unasked: vip 10.97.0.200/32: eth3: no carrier", "10.97.0.200/eth3", "10.99.0.200")
	this.IP("link set eth3 down")
	a.tells("10.97.0.200 unasked: vip 10.97.0.200/32: eth3: the interface is down", "10.97.0.200/eth3", "10.99.0.200")

	// What comes in its place is asked without more ado.
	this.IP("link del eth3")
	this.port(fabric, "eth3")
	this.IP("addr add 10.97.0.1/24 dev eth3")
	a.tells("", "10.97.0.200")

	t.Run("when the call has ended before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if got := a.probeIn(ctx, "10.99.0.250"); got != "10.99.0.250 unasked: "+errStarved.Error() {
			t.Error(got)
		}
	})
	t.Run("but a call that is too short lasts a moment longer", func(t *testing.T) {
		that.IP("addr add 10.99.0.200/32 dev eth0")
		for range 10 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			got := a.probeIn(ctx, "10.99.0.200", "10.99.0.250")
			cancel()
			if strings.Contains(got, errStarved.Error()) {
				continue // it began too late
			}
			if got != "10.99.0.200 answered" {
				t.Error(got)
			}
			return
		}
		t.Error("it never got to ask")
	})
	t.Run("after Close", func(t *testing.T) {
		a.w.Close()
		if got := a.probe("10.99.0.250"); got != "10.99.0.250 unasked: closed" {
			t.Error(got)
		}
	})
}

func TestTwoThatAskSeeEachOther(t *testing.T) {
	this, _, third := network(t)
	a, b := this.wire(), third.wire()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan string)
	go func() { ended <- b.probeIn(ctx, "10.99.0.200", "fd99::200") }()
	want := "10.99.0.200 asked\nfd99::200 asked"
	got := ""
	for range 50 { // until the other one has begun
		if got = a.probe("10.99.0.200", "fd99::200", "10.99.0.201"); got == want {
			break
		}
	}
	if got != want {
		t.Errorf("this one sees\n%s\nwant\n%s", got, want)
	}
	cancel()
	if got := <-ended; got != want {
		t.Errorf("the third sees\n%s\nwant\n%s", got, want)
	}
	// What the other one asked before it ended, and then no more.
	a.probe("10.99.0.200")
	a.tells("", "10.99.0.200", "fd99::200")
}

func TestWhatComesBetweenTwoCallsCounts(t *testing.T) {
	this, _, third := network(t)
	a := this.wire()
	for _, c := range []struct {
		name, address string
		send          func(s *socket, index int, own mac) error
	}{
		{"a gratuitous ARP", "10.99.0.200", func(s *socket, index int, own mac) error {
			return gratuitous(s, index, own, "10.99.0.200")
		}},
		{"an unsolicited advertisement", "fd99::200", func(s *socket, index int, _ mac) error {
			all := netip.MustParseAddr("ff02::1")
			return s.send(unix.ETH_P_IPV6, index, groupMAC(all), nd(announcement, other6, all, netip.MustParseAddr("fd99::200"), nil))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := a
			a.T = t
			a.tells("", c.address, "10.99.0.201")
			a.tellsOf(func() { third.sends(c.send) }, c.address+" answered", c.address, "10.99.0.201")
			a.tells("", c.address, "10.99.0.201")
		})
	}
}

// sends sends by eth0 of the machine.
func (m machine) sends(f func(s *socket, index int, own mac) error) {
	m.T.Helper()
	m.Inside(func() error {
		s, err := openSocket()
		if err != nil {
			return err
		}
		defer s.f.Close()
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		return f(s, eth0.Index, mac(eth0.HardwareAddr))
	})
}

func gratuitous(s *socket, index int, own mac, address string) error {
	b := arpProbe(own, netip.MustParseAddr(address))
	copy(b[14:], b[24:])
	return s.send(unix.ETH_P_ARP, index, broadcast, b)
}

func TestAGuardThatIsClosedKeepsAMachineFromAnswering(t *testing.T) {
	this, that, third := network(t)
	a := this.wire()
	addrs := []string{"10.99.0.200", "fd99::200"}
	hold := func(m machine) (g *guard.Guard) {
		t.Helper()
		m.Inside(func() (err error) {
			if g, err = guard.Open(context.Background(), guard.Config{Owner: "kbwiretest"}); err != nil {
				return err
			}
			return g.Hold(netip.MustParseAddr(addrs[0]), netip.MustParseAddr(addrs[1]))
		})
		t.Cleanup(func() { _ = g.Close() })
		return g
	}
	open := func(g *guard.Guard, d time.Duration) {
		t.Helper()
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			t.Fatal(err)
		}
		if err := g.SetDeadline(time.Duration(ts.Nano()) + d); err != nil {
			t.Fatal(err)
		}
	}
	that.IP("addr add 10.99.0.200/32 dev eth0\naddr add fd99::200/128 dev eth0")
	const both = "10.99.0.200 answered\nfd99::200 answered"
	a.tells(both, addrs...)
	theirs := hold(that)
	a.tells("", addrs...)
	open(theirs, time.Minute)
	a.tells(both, addrs...)
	open(theirs, -time.Second)
	a.tells("", addrs...)

	// This machine's own guard lets the questions pass, and what others say is
	// heard in front of it: so one that is about to start is seen.
	ours := hold(this)
	a.tells("", addrs...)
	a.tellsOf(func() {
		third.sends(func(s *socket, index int, own mac) error { return gratuitous(s, index, own, addrs[0]) })
	}, addrs[0]+" answered", addrs...)
	open(theirs, time.Minute)
	a.tells(both, addrs...)
	open(theirs, -time.Second)
	this.Inside(func() error { return ours.Cut(netip.MustParseAddr(addrs[0]), netip.MustParseAddr(addrs[1])) })
	open(ours, time.Minute)
	b, ctx := third.wire(), t.Context()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan string)
	go func() { ended <- b.probeIn(ctx, addrs...) }()
	const seen = "10.99.0.200 asked\nfd99::200 asked"
	got := ""
	for range 50 { // until the third has begun
		if got = a.probe(addrs...); got == seen {
			break
		}
	}
	cancel()
	if others := <-ended; got != seen || others != seen {
		t.Errorf("one whose addresses are cut sees\n%s\nand is seen\n%s", got, others)
	}
}

func TestTheTieBreaker(t *testing.T) {
	this, _, _ := network(t)
	this.IP("addr add 10.99.0.210/32 dev lo")
	a := this.wire()
	for _, c := range []struct {
		name, addr string
		want       bool
	}{
		{"answers", "10.99.0.2", true},
		{"answers, IPv6", "fd99::2", true},
		{"does not", "10.99.0.77", false},
		{"is out of reach", "172.31.0.1", false},
		{"is this machine", "10.99.0.1", false},
		{"is this machine, IPv6", "fd99::1", false},
		{"is this machine, by lo", "10.99.0.210", false},
		{"is every machine", "127.0.0.5", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			limit := 5 * time.Second
			if !c.want {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			a.Inside(func() error {
				if got := a.w.Ping(ctx, netip.MustParseAddr(c.addr)); got != c.want {
					t.Errorf("%s answers: %v", c.addr, got)
				}
				return nil
			})
		})
	}
}

func TestNothingIsListenedToWhenNobodyAsks(t *testing.T) {
	this, _, _ := network(t)
	a := this.wire()
	a.tells("", "10.99.0.200", "fd99::200")
	a.w.idle()
	a.w.mu.Lock()
	if a.w.sock != nil || len(a.w.watched) > 0 || len(a.w.groups.fds) > 0 {
		t.Error("sockets are open still")
	}
	a.w.mu.Unlock()
	a.tells("", "10.99.0.200", "fd99::200")
}

// BenchmarkRound is what a round of several hundred addresses costs; those of
// the first half answer.
func BenchmarkRound(b *testing.B) {
	this, that, _ := network(b)
	const n = 500
	var places []pair.Place
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, 95, byte(i >> 8), byte(i)})
		if i%2 == 1 {
			a = netip.MustParseAddr(fmt.Sprintf("fd99::1:%x", i))
		}
		places = append(places, pair.Place{Addr: a, Interface: "eth0"})
		if i < n/2 {
			that.IP(fmt.Sprintf("addr add %v/%d dev eth0", a, a.BitLen()))
		}
	}
	a := this.wire()
	var before, after unix.Rusage
	b.ResetTimer()
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	good := 0
	a.Inside(func() error {
		for range b.N {
			ctx, cancel := context.WithTimeout(context.Background(), round)
			answered, _, unasked := a.w.Probe(ctx, places)
			cancel()
			if len(answered) == n/2 && len(unasked) == 0 {
				good++
			}
		}
		return nil
	})
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "µs-cpu/round")
	b.ReportMetric(float64(good)/float64(b.N), "complete")
}
