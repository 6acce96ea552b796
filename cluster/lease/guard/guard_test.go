package guard

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func constProgram(name string, verdict int32) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()}})
}

func (l *lab) wantHeld(want []netip.Addr) {
	l.t.Helper()
	if got := l.inspect().Addrs; !slices.Equal(got, want) {
		l.t.Fatalf("held: %v, want %v", got, want)
	}
}

func TestAddressesGoSilentAtTheDeadlineAndStaySoWithoutTheDaemon(t *testing.T) {
	l := newLab(t)
	w := l.wire(l.client, cliName)
	l.wantOpen(w) // no guard yet

	d := l.daemon()
	l.wantStopped(w) // held, and never renewed
	d.renew(5 * time.Minute)
	l.wantOpen(w)
	passed(d.renew(200 * time.Millisecond))
	l.wantStopped(w)
	d.renew(5 * time.Minute)
	l.wantOpen(w)

	// A hang.
	last := d.renew(500 * time.Millisecond)
	if err := d.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	passed(last)
	l.wantStopped(w)
	if err := d.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	l.wantStopped(w) // waking up is not a renewal

	// A crash.
	d.renew(5 * time.Minute)
	l.wantOpen(w)
	last = d.renew(time.Second)
	d.kill()
	passed(last)
	l.wantStopped(w)
	run(t, "ip", "netns", "exec", l.director, "nft", "flush", "ruleset")
	l.wantStopped(w)

	// The next daemon.
	g, _ := l.open()
	if g.Deadline() != last {
		t.Errorf("deadline of the next daemon %v, want the dead one's %v", g.Deadline(), last)
	}
	if got := g.Held(); !slices.Equal(got, vips()) {
		t.Errorf("held by the next daemon: %v", got)
	}
	l.wantStopped(w)
	if err := g.SetDeadline(BootNow() + 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	l.wantOpen(w)
	if err := g.SetDeadline(0); err != nil {
		t.Fatal(err)
	}
	l.wantStopped(w)
	if err := g.Drop(vips()...); err != nil {
		t.Fatal(err)
	}
	l.wantOpen(w)
}

func TestConnectionsOfUsersGoSilentAndGoOn(t *testing.T) {
	l := newLab(t)
	g, _ := l.open()
	if err := errors.Join(g.Hold(vips()...), g.SetDeadline(BootNow()+5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, vip := range []string{vip4, vip6} {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(network+" "+vip, func(t *testing.T) {
				l.serve(t, network, vip)
				c := l.dial(t, network, vip)
				if !c.answers(patience) {
					t.Fatal("no answer with a live lease")
				}
				if err := g.SetDeadline(BootNow()); err != nil {
					t.Fatal(err)
				}
				if c.answers(100 * time.Millisecond) {
					t.Error("an answer without a lease")
				}
				if err := g.SetDeadline(BootNow() + 5*time.Minute); err != nil {
					t.Fatal(err)
				}
				if !c.answers(patience) {
					t.Error("no answer after the renewal")
				}
			})
		}
	}
}

func TestRawPacketSocketsAreStopped(t *testing.T) {
	l := newLab(t)
	g, _ := l.open()
	if err := g.Hold(vips()...); err != nil {
		t.Fatal(err)
	}
	if err := g.HoldVRID(VRID{ID: 51}); err != nil {
		t.Fatal(err)
	}
	from, at := l.wire(l.director, dirName), l.wire(l.client, cliName)
	head := func(typ int) []byte { return cat(l.cmac, l.dmac, be16(typ)) }
	ends := func(p []byte) func([]byte) bool {
		// The receiver takes a tag off; what follows is the same.
		return func(f []byte) bool { return strings.Contains(string(f), string(p)) }
	}
	frame := func(name string, before, p []byte) probe { return probe{name, cat(before, p), ends(p)} }
	open := frame("echo reply of an own address", head(ethPIP), echo4(dir4, cli4, 0))
	probes := []probe{
		frame("echo reply of a held address", head(ethPIP), echo4(vip4, cli4, 0)),
		frame("the same in a VLAN", cat(head(ethP8021Q), tag(ethPIP)), echo4(vip4, cli4, 0)),
		frame("the same in two VLANs", cat(head(ethP8021AD), tag(ethP8021Q), tag(ethPIP)), echo4(vip4, cli4, 0)),
		frame("gratuitous ARP", head(ethPARP), arpMsg(6, vip4, vip4)),
		frame("neighbour advertisement", head(ethPIPv6), icmp6(dir6, "ff02::1", neighbour(136, vip6))),
		frame("VRRP advertisement", head(ethPIP), packet4(dir4, "224.0.0.18", 112, vrrp(51))),
	}
	for _, p := range probes {
		l.stopped(from, at, p, open)
	}
	l.reaches(from, at, frame("another VRID", head(ethPIP), packet4(dir4, "224.0.0.18", 112, vrrp(52))))
	if err := g.SetDeadline(BootNow() + 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, p := range probes {
		l.reaches(from, at, p)
	}
	if err := errors.Join(g.SetDeadline(0), g.DropVRID(VRID{ID: 51}, VRID{ID: 99})); err != nil {
		t.Fatal(err)
	}
	l.reaches(from, at, probes[5])
	// What belongs to a group that would not stop is silent with a live lease.
	if err := errors.Join(g.SetDeadline(BootNow()+5*time.Minute), g.CutVRID(VRID{ID: 51})); err != nil {
		t.Fatal(err)
	}
	l.stopped(from, at, probes[5], frame("another VRID", head(ethPIP), packet4(dir4, "224.0.0.18", 112, vrrp(52))))
	if err := g.HoldVRID(VRID{ID: 51}); err != nil {
		t.Fatal(err)
	}
	l.reaches(from, at, probes[5])
	if err := errors.Join(g.CutVRID(VRID{ID: 51}), g.DropVRID(VRID{ID: 51})); err != nil {
		t.Fatal(err)
	}
	l.reaches(from, at, probes[5])
}

func TestNewInterfaceIsGuardedBeforeItCanCarry(t *testing.T) {
	l := newLab(t)
	g, a := l.open()
	if err := g.Hold(vips()...); err != nil {
		t.Fatal(err)
	}
	l.run(g)
	l.veth("kbgd2", "kbgc2") // down
	eventually(t, "the new interface is guarded", func() bool { return l.guarded("kbgd2") })
	l.ip(l.director, "link set kbgd2 up")
	l.ip(l.client, "link set kbgc2 up")
	l.ip(l.director, "addr add 10.77.0.3/32 dev kbgd2")

	// Linux answers on every interface for every address it has.
	w := l.wire(l.client, "kbgc2")
	l.stopped(w, w, l.arp(vip4), l.arp("10.77.0.3"))

	l.ip(l.director, "link del kbgd2")
	l.veth("kbgd2", "kbgc2")
	eventually(t, "the interface that came back is guarded", func() bool { return l.guarded("kbgd2") })
	if a.all() != "" {
		t.Errorf("alarm for an interface that came and went: %s", a.all())
	}
}

func (l *lab) guarded(name string) bool {
	l.t.Helper()
	return l.onInterface(name).Guarded()
}

// onInterface is what status says of an interface; empty when it is not there.
func (l *lab) onInterface(name string) Interface {
	l.t.Helper()
	for _, i := range l.inspect().Interfaces {
		if i.Name == name {
			return i
		}
	}
	return Interface{}
}

func TestInterfacesWithoutEthernetHeaders(t *testing.T) {
	l := newLab(t)
	w := l.tun("kbgtun")
	l.ip(l.director, "addr add 10.78.0.1/24 dev kbgtun")
	l.ip(l.director, "addr add fd78::1/64 dev kbgtun nodad")
	l.ip(l.director, "link set kbgtun up")
	g, _ := l.open()
	if err := g.Hold(vips()...); err != nil {
		t.Fatal(err)
	}
	ask4 := func(dst string) probe {
		return probe{"ping " + dst + " by tun", echo4("10.78.0.2", dst, 8), func(f []byte) bool {
			return len(f) >= 20 && f[0]>>4 == 4 && string(f[12:16]) == string(addr(dst))
		}}
	}
	ask6 := func(dst string) probe {
		m := []byte{128, 0, 0, 0, 0, 7, 0, 1, 'k', 'b', 'g', 'u', 'a', 'r', 'd', '.'}
		return probe{"ping " + dst + " by tun", icmp6("fd78::2", dst, m), func(f []byte) bool {
			return len(f) >= 41 && f[0]>>4 == 6 && f[40] == 129 && string(f[8:24]) == string(addr(dst))
		}}
	}
	l.stopped(w, w, ask4(vip4), ask4("10.78.0.1"))
	l.stopped(w, w, ask6(vip6), ask6("fd78::1"))
	if err := g.SetDeadline(BootNow() + 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	l.reaches(w, w, ask4(vip4))
	l.reaches(w, w, ask6(vip6))

	// What leaves: from a raw socket on the tun, to its far end.
	if err := g.SetDeadline(0); err != nil {
		t.Fatal(err)
	}
	from := l.wire(l.director, "kbgtun")
	from.tun = true // no padding
	say := func(src string) probe {
		return probe{"packet from " + src + " by tun", echo4(src, "10.78.0.2", 0), ask4(src).effect}
	}
	l.stopped(from, w, say(vip4), say("10.78.0.1"))
}

func TestHoldCoversInterfacesThatNobodySpokeOf(t *testing.T) {
	l := newLab(t)
	g, _ := l.open() // no Run
	l.veth("kbgd2", "kbgc2")
	if err := g.Hold(vips()...); err != nil {
		t.Fatal(err)
	}
	if !l.guarded("kbgd2") || !l.guarded(dirName) {
		t.Errorf("after Hold: %+v", l.inspect().Interfaces)
	}
}

func TestRemovedGuardComesBackWithAnAlarm(t *testing.T) {
	l := newLab(t)
	g, a := l.open()
	if err := g.Hold(vips()...); err != nil {
		t.Fatal(err)
	}
	l.run(g)
	w := l.wire(l.client, cliName)
	l.wantStopped(w)
	for i, cmd := range []string{
		"qdisc del dev kbgd clsact",
		"filter del dev kbgd ingress",
		"filter del dev kbgd egress pref 1",
		"qdisc del dev kbgd clsact",
	} {
		run(t, "tc", append([]string{"-n", l.director}, strings.Fields(cmd)...)...)
		eventually(t, "an alarm for tc "+cmd, func() bool {
			return strings.Count(a.all(), "somebody removed the guard from interface kbgd; it is back") == i+1
		})
		if !l.guarded(dirName) {
			t.Fatalf("tc %s: alarm, but the guard is not back", cmd)
		}
		l.wantStopped(w)
	}
}

func TestLostSubscriptionIsMadeAgain(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l := newLab(t)
	g, _ := l.open()
	w, err := g.watch()
	if err != nil {
		t.Fatal(err)
	}
	w.socket.Close() // as the kernel's ENOBUFS does: the reader ends with an error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.follow(context.Background(), w)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("following a broken subscription does not end")
	}
	w.close()
}

func TestTakingOverOpensNoWindow(t *testing.T) {
	l := newLab(t)
	g, _ := l.open()
	if err := g.Hold(vips()...); err != nil {
		t.Fatal(err)
	}
	g.Close()
	w := l.wire(l.client, cliName)
	l.wantStopped(w)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // questions all the time
		defer close(done)
		p := l.ping4(vip4).frame
		for {
			select {
			case <-stop:
				return
			default:
				w.send(p)
			}
		}
	}()
	for range 10 {
		next, _ := l.open()
		if got := next.Held(); !slices.Equal(got, vips()) {
			t.Errorf("held: %v", got)
		}
		next.Close()
	}
	close(stop)
	<-done
	l.stopped(w, w, l.ping4(vip4), l.ping4(dir4)) // no answer to any of them
}

func TestTwoSetsOfMapsBecomeOne(t *testing.T) {
	l := newLab(t)
	l.veth("kbgd2", "kbgc2")
	first, _ := l.open()
	if err := errors.Join(first.Hold(vips()[0]), first.HoldVRID(VRID{ID: 7}), first.SetDeadline(BootNow()+5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	// A second set, as of a daemon that knew nothing of the first.
	m, err := newMaps()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	early := BootNow() + time.Minute
	if err := errors.Join(m.state.Put(uint32(slotDeadline), uint64(early)),
		m.addrs.Put(addrKey(vips()[1].As16()), uint32(1)), m.vrids.Put(VRID{ID: 8}.key(), uint32(1))); err != nil {
		t.Fatal(err)
	}
	ps, err := loadPrograms(m)
	if err != nil {
		t.Fatal(err)
	}
	defer ps.close()
	links, err := first.tc.links()
	if err != nil {
		t.Fatal(err)
	}
	for _, li := range links {
		if li.name != "kbgd2" {
			continue
		}
		for _, d := range []direction{ingress, egress} {
			fs, err := first.tc.filters(li.index, d)
			if err != nil || len(fs) != 1 {
				t.Fatalf("%v, %v", fs, err)
			}
			if err := first.tc.replaceFilter(li.index, d, fs[0], ps[variant{d, framedEthernet}].FD()); err != nil {
				t.Fatal(err)
			}
		}
	}
	first.Close()
	g, _ := l.open()
	if got := g.Held(); !slices.Equal(got, vips()) {
		t.Errorf("held: %v", got)
	}
	if got := g.HeldVRIDs(); !slices.Equal(got, []VRID{{ID: 7}, {ID: 8}}) {
		t.Errorf("held: %v", got)
	}
	if g.Deadline() != early {
		t.Errorf("deadline %v, want the earlier %v", g.Deadline(), early)
	}
}

func TestOwnersDoNotDisturbEachOther(t *testing.T) {
	l := newLab(t)
	g, a := l.open()
	stop := l.run(g)
	var (
		other *Guard
		err   error
	)
	l.in(l.director, func() { other, err = Open(context.Background(), Config{Owner: "kbguardtwo", Alarm: a.add}) })
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := errors.Join(g.Hold(vips()[0]), other.Hold(vips()[1])); err != nil {
		t.Fatal(err)
	}
	w := l.wire(l.client, cliName)
	l.wantStopped(w)
	if err := other.SetDeadline(BootNow() + 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	l.reaches(w, w, l.ping6(vip6))
	l.stopped(w, w, l.ping4(vip4), l.ping4(dir4))
	stop()
	l.clear()
	l.reaches(w, w, l.ping4(vip4))
	l.wantOtherStands()
	if a.all() != "" {
		t.Errorf("alarm: %s", a.all())
	}
}

func (l *lab) wantOtherStands() {
	l.t.Helper()
	var (
		st  Status
		err error
	)
	l.in(l.director, func() { st, err = Inspect(context.Background(), Config{Owner: "kbguardtwo"}) })
	if err != nil || !st.Standing || !st.Live || !slices.Equal(st.Addrs, vips()[1:]) {
		l.t.Errorf("the other owner's: %+v, %v", st, err)
	}
}

func TestRefusals(t *testing.T) {
	l := newLab(t)
	g, _ := l.open()
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"invalid", "an invalid address", g.Hold(netip.Addr{})},
		{"unspecified", "not the address of one node", g.Hold(netip.MustParseAddr("::"))},
		{"unspecified, mapped", "not the address of one node", g.Hold(netip.MustParseAddr("::ffff:0.0.0.0"))},
		{"multicast", "not the address of one node", g.Hold(netip.MustParseAddr("224.0.0.18"))},
		{"broadcast", "not the address of one node", g.Hold(netip.MustParseAddr("255.255.255.255"))},
		{"loopback", "lo is not guarded", g.Hold(netip.MustParseAddr("127.0.0.2"))},
		{"VRID 0", "a VRID is 1 to 255", g.HoldVRID(VRID{})},
		{"deadline of the wall clock", "by which clock is it?", g.SetDeadline(time.Duration(time.Now().UnixNano()))},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, c.err, c.want)
		}
	}
	if err := g.Drop(netip.Addr{}, netip.MustParseAddr("192.0.2.77")); err != nil {
		t.Errorf("dropping what is not held: %v", err)
	}
	if err := g.Hold(netip.MustParseAddr("::ffff:192.0.2.5"), netip.MustParseAddr("fe80::5%kbgd")); err != nil {
		t.Error(err)
	}
	l.wantHeld([]netip.Addr{netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("fe80::5")})
	if err := errors.Join(g.Close(), g.Close()); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	for _, err := range []error{g.Hold(vips()...), g.Drop(vips()...), g.SetDeadline(0), g.HoldVRID(VRID{ID: 1}), g.DropVRID(VRID{ID: 1})} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	l.wantHeld([]netip.Addr{netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("fe80::5")})
}

func TestNeededProgramsAreThere(t *testing.T) {
	for _, p := range []string{"ip", "tc", "nft"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Errorf("the tests of this package need %s: apt-get install iproute2 nftables", p)
		}
	}
}
