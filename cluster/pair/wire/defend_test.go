package wire

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster/lease/guard"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
)

func always() bool { return true }

// defends has the machine defend addresses from now on.
func (a asker) defends(while func() bool, places ...string) (stop func()) {
	a.T.Helper()
	var err error
	a.Inside(func() error {
		stop, err = a.w.Defend(placesOf(places), while)
		return nil
	})
	if err != nil {
		a.T.Fatal(err)
	}
	return stop
}

func placesOf(texts []string) []pair.Place {
	var all []pair.Place
	for _, p := range texts {
		addr, dev, _ := strings.Cut(p, "/")
		all = append(all, pair.Place{Addr: netip.MustParseAddr(addr), Interface: dev})
	}
	return all
}

// ear hears all ARP and IPv6 that comes in by an interface, as text.
type ear struct {
	machine
	fd  int
	own mac
}

func (m machine) ear(dev string) ear {
	m.T.Helper()
	e := ear{machine: m}
	m.Inside(func() (err error) {
		if e.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(networkOrder(unix.ETH_P_ALL))); err != nil {
			return err
		}
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		e.own = mac(i.HardwareAddr)
		return unix.Bind(e.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: i.Index})
	})
	m.T.Cleanup(func() { _ = unix.Close(e.fd) })
	return e
}

// heard adds the questions and answers about addresses that have come in to
// lines, each kind once, with names for link-layer addresses.
func (e ear) heard(lines []string, names map[mac]string, about ...string) []string {
	e.T.Helper()
	var b [maxPacket]byte
	for {
		n, sa, err := unix.Recvfrom(e.fd, b[:], unix.MSG_DONTWAIT)
		if err != nil {
			break
		}
		if l, ok := sa.(*unix.SockaddrLinklayer); !ok || l.Pkttype == unix.PACKET_OUTGOING || n < 14 {
			continue
		}
		to, from := mac(b[0:6]), mac(b[6:12])
		var s sighting
		var ok bool
		switch {
		case b[12] == 8 && b[13] == 6:
			s, ok = readARP(b[14:n])
		case b[12] == 0x86 && b[13] == 0xdd:
			s, ok = readND(b[14:n], from)
		}
		if !ok || !slices.Contains(about, s.addr.String()) {
			continue
		}
		name := func(m mac) string {
			if t := names[m]; t != "" {
				return t
			}
			return "everybody"
		}
		line := fmt.Sprintf("%s to %s: %s %v", name(from), name(to), map[sign]string{inUse: "has", askedFor: "asks for"}[s.sign], s.addr)
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

func TestAnAddressOnItsWayUpIsDefended(t *testing.T) {
	this, that, third := network(t)
	addrs := []string{"10.99.0.200", "fd99::200"}
	const both = "10.99.0.200 answered\nfd99::200 answered"
	a, b := this.wire(), that.wire()
	a.tells("", addrs...)

	ears := map[string]ear{"this": this.ear("eth0"), "that": that.ear("eth0"), "third": third.ear("eth0")}
	names := map[mac]string{}
	for name, e := range ears {
		names[e.own] = name
	}
	stop := b.defends(always, addrs...)
	a.tells(both, append(slices.Clone(addrs), "10.99.0.201", "fd99::201")...)
	time.Sleep(answerIn)
	for who, want := range map[string]string{
		"this":  "that to this: asks for 10.99.0.200\nthat to this: asks for fd99::200", // the answers, to it alone
		"that":  "this to everybody: asks for 10.99.0.200\nthis to everybody: asks for fd99::200",
		"third": "this to everybody: asks for 10.99.0.200\nthis to everybody: asks for fd99::200",
	} {
		var got []string
		for end := time.Now().Add(nstest.Patience); ; time.Sleep(time.Millisecond) {
			if got = ears[who].heard(got, names, addrs...); strings.Join(got, "\n") == want || time.Now().After(end) {
				break
			}
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%s hears\n%s\nwant\n%s", who, strings.Join(got, "\n"), want)
		}
	}

	t.Run("against one that has a table entry, and keeps it", func(t *testing.T) {
		this.IP("neigh replace 10.99.0.200 lladdr 02:00:00:00:00:77 dev eth0 nud reachable\nneigh replace fd99::200 lladdr 02:00:00:00:00:77 dev eth0 nud reachable")
		a.tells(both, addrs...)
		for _, addr := range addrs {
			if got := this.IP("neigh show " + addr + " dev eth0"); !strings.Contains(got, "02:00:00:00:00:77") {
				t.Errorf("its entry has become %q", got)
			}
		}
		this.IP("neigh flush dev eth0")
	})
	t.Run("until that is over", func(t *testing.T) {
		twice := b.defends(always, addrs[0])
		stop()
		stop()
		a.probe(addrs...)
		a.tells("10.99.0.200 answered", addrs...)
		twice()
		a.probe(addrs...)
		a.tells("", addrs...)
	})
	t.Run("as long as the machine may", func(t *testing.T) {
		may := true
		var mu sync.Mutex
		set := func(v bool) {
			mu.Lock()
			defer mu.Unlock()
			may = v
		}
		defer b.defends(func() bool { mu.Lock(); defer mu.Unlock(); return may }, addrs...)()
		a.tells(both, addrs...)
		set(false)
		a.probe(addrs...)
		a.tells("", addrs...)
	})
	t.Run("not against this machine itself, by another interface", func(t *testing.T) {
		defer a.defends(always, addrs...)()
		a.tells("", addrs...)
	})
	t.Run("though nobody has looked here for long", func(t *testing.T) {
		defer b.defends(always, addrs...)()
		b.w.idle()
		a.tells(both, addrs...)
	})
	t.Run("and then its own kernel answers", func(t *testing.T) {
		over := b.defends(always, addrs...)
		that.IP("addr add 10.99.0.200/32 dev eth0\naddr add fd99::200/128 dev eth0")
		over()
		a.tells(both, addrs...)
		that.IP("addr del 10.99.0.200/32 dev eth0\naddr del fd99::200/128 dev eth0")
	})
	t.Run("also by two at once, who do not answer each other for ever", func(t *testing.T) {
		defer b.defends(always, addrs...)()
		c := third.wire()
		defer c.defends(always, addrs...)()
		a.tells(both, addrs...)
		e := third.ear("eth0")
		time.Sleep(20 * echoPause)
		n := 0
		var buf [maxPacket]byte
		for {
			if _, _, err := unix.Recvfrom(e.fd, buf[:], unix.MSG_DONTWAIT); err != nil {
				break
			}
			n++
		}
		if n > 100 {
			t.Errorf("%d packets came while nobody asked", n)
		}
	})
	b.w.idle()
	b.w.mu.Lock()
	if b.w.sock != nil || len(b.w.groups.fds) > 0 {
		t.Error("sockets are open though nothing is defended any more")
	}
	b.w.mu.Unlock()
}

func TestTheGuardLetsADefencePassWhileTheGroupIsClosed(t *testing.T) {
	this, that, _ := network(t)
	addrs := []string{"10.99.0.200", "fd99::200"}
	a, b := this.wire(), that.wire()
	that.Inside(func() error {
		g, err := guard.Open(context.Background(), guard.Config{Owner: "kbwiredefend"})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = g.Close() })
		return g.Cut(netip.MustParseAddr(addrs[0]), netip.MustParseAddr(addrs[1]))
	})
	that.IP("addr add 10.99.0.200/32 dev eth0\naddr add fd99::200/128 dev eth0")
	a.tells("", addrs...)
	stop := b.defends(always, addrs...)
	a.tells("10.99.0.200 answered\nfd99::200 answered", addrs...)
	stop()
	a.probe(addrs...)
	a.tells("", addrs...)
}

func TestWhatCannotBeDefended(t *testing.T) {
	this, _, _ := network(t)
	a := this.wire()
	defends := func(places ...string) string {
		var err error
		a.Inside(func() error {
			_, err = a.w.Defend(placesOf(places), always)
			return nil
		})
		if err == nil {
			return ""
		}
		why, _, _ := strings.Cut(err.Error(), "; this node has")
		return why
	}
	const no = "an address cannot be defended while it comes up: "
	this.IP("link add name idle type veth peer name other")
	for _, c := range []struct{ name, place, want string }{
		{"no such interface", "10.99.0.200/eth9", no + "vip 10.99.0.200/32: eth9: no such interface"},
		{"no route", "172.31.0.1", no + "vip 172.31.0.1/32: no interface has a connected route that contains it; write the interface: 172.31.0.1/32/INTERFACE"},
		{"an interface that is down", "10.99.0.200/idle", no + "vip 10.99.0.200/32: idle: the interface is down"},
		{"an interface without neighbours", "10.99.0.200/lo", no + "vip 10.99.0.200/32: lo is no Ethernet interface: its neighbours cannot be asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := defends("10.99.0.201", c.place); got != c.want {
				t.Errorf("%s\nwant\n%s", got, c.want)
			}
		})
	}
	if len(a.w.defended) > 0 {
		t.Error("some of it is defended")
	}
	a.w.Close()
	if got := defends("10.99.0.200"); got != "closed" {
		t.Error(got)
	}
}
