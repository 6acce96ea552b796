package vip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
)

const plain = "ip addr add 10.0.0.1/24 dev eth0\nip addr add fd00::1/64 dev eth0 nodad"

func TestAddressComesAndGoes(t *testing.T) {
	for _, c := range []struct{ vip, up string }{
		{"10.0.0.5", "ip addr add 10.0.0.5/24 brd 10.0.0.255 dev eth0"},
		{"10.0.0.5/32/eth0:web", "ip addr add 10.0.0.5/32 dev eth0 label eth0:web"},
		{"fd00::5", "ip addr add fd00::5/64 dev eth0 preferred_lft 0 nodad"},
		{"fd00::5/128/eth0", "ip addr add fd00::5/128 dev eth0 preferred_lft 0 nodad"},
	} {
		t.Run(c.vip, func(t *testing.T) {
			a, b := pair(t)
			tap := b.Tap("eth0")
			v := make1(t, a.maker(), written(c.vip))
			if err := v.Ready(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // ownership comes and goes
				first := string(recorded(t, v))
				for range 2 { // Start is idempotent
					if err := v.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if again := string(recorded(t, v)); again != first {
					t.Errorf("the record of the started address is %s, before it was %s", again, first)
				}
				if !strings.Contains(a.Shown("eth0"), c.up) {
					t.Errorf("started, and eth0 has\n%s", a.Shown("eth0"))
				}
				announced(tap, strings.Split(c.vip, "/")[0])
				if err := v.Monitor(t.Context()); err != nil {
					t.Error(err)
				}
				if d := v.Detail().(Detail); !d.Carrier || d.Announcements == 0 || d.Interface != "eth0" {
					t.Errorf("detail %+v", d)
				}
				for range 2 { // Stop too
					stop(t, v)
				}
				nstest.Same(t, "after stop", a.Shown("eth0"), plain)
				if err := v.Monitor(t.Context()); err == nil {
					t.Error("a stopped address passes for started")
				}
			}
		})
	}
}

func TestIPv6AddressIsUsableAtOnceAndNotChosenAsSource(t *testing.T) {
	a, _ := pair(t)
	a.Sysctl("net/ipv6/conf/eth0/accept_dad", "1")
	started(t, a.maker(), written("fd00::5"))
	dial := func(from, to string) (local string, err error) {
		s := unix.SockaddrInet6{Port: 9, Addr: netip.MustParseAddr(to).As16()}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		if from != "" {
			// A tentative address cannot be bound.
			if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.MustParseAddr(from).As16()}); err != nil {
				return "", fmt.Errorf("bind: %w", err)
			}
		}
		if err := unix.Connect(fd, &s); err != nil {
			return "", err
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return "", err
		}
		return netip.AddrFrom16(sa.(*unix.SockaddrInet6).Addr).String(), nil
	}
	a.Inside(func() error {
		if _, err := dial("fd00::5", "fd00::2"); err != nil {
			t.Error("at once after Start:", err)
		}
		if got, err := dial("", "fd00::2"); err != nil || got != "fd00::1" {
			t.Errorf("a connection of the director's own leaves from %s, %v", got, err)
		}
		return nil
	})
}

// A queue of no length refuses a packet with the same error as the guard.
func TestAnnouncementsThatDoNotGoOut(t *testing.T) {
	var log bytes.Buffer
	a, b := pair(t)
	tap := b.Tap("eth0")
	spec := written("10.0.0.5")
	spec.ARPCount = 0
	e := env(t, owned())
	e.Logger = slog.New(slog.NewTextHandler(&log, nil))
	r, err := a.maker().New(e, conf.Spec{}, conf.Resource{Kind: conf.KindVIP, Name: "vip", VIP: &spec})
	if err != nil {
		t.Fatal(err)
	}
	v := r.(*vip)
	t.Cleanup(func() { _ = v.Close() })
	full := func(said int, what string) {
		t.Helper()
		if n := strings.Count(log.String(), "announcement not sent"); n != said {
			t.Errorf("%s: %d lines say that an announcement was not sent, want %d:\n%s", what, n, said, &log)
		}
	}
	a.Run("tc", "qdisc", "add", "dev", "eth0", "root", "pfifo", "limit", "0")
	recorded(t, v)
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	full(0, "while the group is started the guard drops it: nobody has to do anything")
	v.Opened()
	full(1, "afterwards it is worth a word")
	a.Run("tc", "qdisc", "del", "dev", "eth0", "root")
	v.Opened()
	announced(tap, "10.0.0.5")
	full(1, "when it goes out")
}

func TestAnnouncementsEndWithOwnership(t *testing.T) {
	a, b := pair(t)
	tap, e := b.Tap("eth0"), owned()
	spec := written("10.0.0.5")
	spec.ARPCount, spec.ARPInterval = 1000, time.Millisecond
	v := makeOwned(t, a.maker(), spec, e)
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		announced(tap, "10.0.0.5")
	}
	e.Store(8)
	nstest.Eventually(t, "the burst is over", func() bool {
		v.burst.mu.Lock() // no round is under way
		defer v.burst.mu.Unlock()
		before := v.Detail().(Detail).Announcements
		return !v.announce() && v.Detail().(Detail).Announcements == before
	})
	e.Store(0)
	a.IP("addr del 10.0.0.5/24 dev eth0")
	if err := v.Monitor(t.Context()); err == nil {
		t.Error("put back although the group is not owned")
	}
	nstest.Same(t, "not owned", a.Shown("eth0"), plain)
	stop(t, v)
	if err := v.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "group web is not owned by this node") {
		t.Error("started without ownership:", err)
	}
}

func TestDeletedAddressIsPutBackByTheEvent(t *testing.T) {
	for _, ip := range []string{"10.0.0.5", "fd00::5"} {
		t.Run(ip, func(t *testing.T) {
			a, b := pair(t)
			spec := written(ip)
			spec.ARPCount = 0
			v := started(t, a.maker(), spec)
			up := a.Shown("eth0")
			tap := b.Tap("eth0")
			for n := range uint64(5) {
				a.IP("addr del " + recordOf(v).Address.String() + " dev eth0")
				// Not by Monitor, which nobody calls here.
				nstest.Eventually(t, "address is back", func() bool { return v.Detail().(Detail).Restored == n+1 })
				announced(tap, ip)
			}
			nstest.Same(t, "as before", a.Shown("eth0"), up)
			stop(t, v)
			nstest.Same(t, "stopped", a.Shown("eth0"), plain)
		})
	}
}

func recordOf(v *vip) record { r, _ := v.settled(); return r }

func TestWhoeverDeletesItWithoutEndIsNotFoughtWithoutEnd(t *testing.T) {
	a, _ := pair(t)
	v := started(t, a.maker(), written("10.0.0.5/32/eth0"))
	for range 3 * fightLimit {
		_, _ = a.Try("addr del 10.0.0.5/32 dev eth0")
	}
	nstest.Eventually(t, "it is there in the end", func() bool { return strings.Contains(a.Shown("eth0"), "10.0.0.5/32") })
	stop(t, v)
	nstest.Same(t, "stopped", a.Shown("eth0"), plain)
}

func TestEveryAddressIsBackAfterEventsWereLost(t *testing.T) {
	for _, failing := range []bool{false, true} {
		a, _ := pair(t)
		m := a.maker()
		m.mu.Lock()
		err := m.open()
		// A buffer this small overflows: what is dropped comes back by the resync only.
		m.watch.Buffer = 1
		m.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		var vips []*vip
		for i := range 50 {
			vips = append(vips, started(t, m, written(fmt.Sprintf("10.0.0.%d/32/eth0", 100+i))))
		}
		up := a.Shown("eth0")
		m.mu.Lock()
		if read := m.watch.Read; failing {
			m.watch.Read = func() error {
				m.watch.Read = read
				return errors.New("interrupted")
			}
		}
		a.IP("addr flush dev eth0 to 10.0.0.128/25")
		m.mu.Unlock()
		nstest.Eventually(t, "all are back", func() bool { return len(a.Shown("eth0")) == len(up) })
		for _, v := range vips {
			stop(t, v)
		}
		nstest.Same(t, "stopped", a.Shown("eth0"), plain)
	}
}

func TestLostCarrierIsAnAlarm(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(a, b host)
		mend func(a, b host)
		want string
	}{
		{"carrier", func(_, b host) { b.IP("link set eth0 down") }, func(_, b host) { b.IP("link set eth0 up") }, "no carrier"},
		{"interface down", func(a, _ host) { a.IP("link set eth0 down") }, func(a, _ host) { a.IP("link set eth0 up") }, "the interface is down"},
		{"interface gone", func(a, _ host) { a.IP("link del eth0") }, nil, "the interface is gone"},
	} {
		for _, ip := range []string{"10.0.0.5", "fd00::5"} {
			t.Run(c.name+" "+ip, func(t *testing.T) {
				a, b := pair(t)
				spec := written(ip)
				spec.ARPCount = 0
				v := started(t, a.maker(), spec)
				if err := v.Monitor(t.Context()); err != nil {
					t.Fatal(err)
				}
				c.cut(a, b)
				alarmed(t, v)
				nstest.Refused(t, v.Monitor(t.Context()), "vip "+ip+": eth0: "+c.want)
				if v.Detail().(Detail).Carrier {
					t.Error("status shows a carrier")
				}
				if n := v.Detail().(Detail).Restored; n != 0 {
					t.Errorf("blamed somebody for %d deletions", n)
				}
				if c.mend == nil {
					stop(t, v)
					if err := v.Ready(); err == nil {
						t.Error("ready without the interface")
					}
					return
				}
				if err := v.Ready(); err == nil {
					t.Error("ready in spite of it")
				}
				before := v.Detail().(Detail).Announcements
				c.mend(a, b)
				nstest.Eventually(t, "announced again", func() bool { return v.Detail().(Detail).Announcements > before })
				if err := v.Monitor(t.Context()); err != nil {
					t.Error(err)
				}
				stop(t, v)
			})
		}
	}
}

func TestStartWithoutCarrierIsRefused(t *testing.T) {
	a, b := pair(t)
	b.IP("link set eth0 down")
	v := make1(t, a.maker(), written("10.0.0.5/24/eth0"))
	nstest.Refused(t, v.Ready(), "vip 10.0.0.5/24: eth0: no carrier")
	nstest.Refused(t, v.Start(t.Context()), "vip 10.0.0.5/24: eth0: no carrier")
	stop(t, v)
	nstest.Same(t, "untouched", a.Shown("eth0"), plain)
}

func TestDirectorThatIsARealServerSwapsItsLoopbackAddress(t *testing.T) {
	for _, c := range []struct{ vip, lo, shown string }{
		{"10.0.0.5", "10.0.0.5/32 scope host dev lo label lo:web", "ip addr add 10.0.0.5/32 dev lo label lo:web scope host"},
		{"10.0.0.5", "10.0.0.5/32 brd 10.0.0.5 dev lo", "ip addr add 10.0.0.5/32 brd 10.0.0.5 dev lo"},
		{"fd00::5", "fd00::5/128 dev lo preferred_lft 0", "ip addr add fd00::5/128 dev lo preferred_lft 0"},
	} {
		t.Run(c.lo, func(t *testing.T) {
			a, _ := pair(t)
			a.IP("addr add " + c.lo)
			nstest.Same(t, "the lab", a.Shown("lo"), c.shown)

			spec := written(c.vip)
			refusedStart := make1(t, a.maker(), spec)
			if err := refusedStart.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "lvs_support: yes") {
				t.Error("without lvs_support:", err)
			}
			stop(t, refusedStart)

			spec.LVSSupport = true
			up := func(what string) {
				t.Helper()
				nstest.Same(t, what+", lo", a.Shown("lo"), "")
				if !strings.Contains(a.Shown("eth0"), c.vip) {
					t.Errorf("%s: eth0 lacks it", what)
				}
			}
			down := func(what string) {
				t.Helper()
				nstest.Same(t, what+", lo", a.Shown("lo"), c.shown)
				nstest.Same(t, what+", eth0", a.Shown("eth0"), plain)
			}
			m := a.maker()
			v := started(t, m, spec)
			up("started")
			stop(t, v)
			down("stopped")

			// A crash while started: released by the record alone.
			journal := recorded(t, v)
			if err := v.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			_ = m.Close()
			up("crashed")
			r, err := a.maker().Recover(resources.Env{}, journal)
			if err != nil {
				t.Fatal(err)
			}
			stop(t, r)
			down("released")
			stop(t, r)
			down("released twice")

			// A crash while started, and the next daemon goes on with it.
			m = a.maker()
			v = started(t, m, spec)
			journal = recorded(t, v)
			_ = m.Close()
			m = a.maker()
			v = make1(t, m, spec)
			if err := v.Adopt(journal); err != nil {
				t.Fatal(err)
			}
			if again := recorded(t, v); string(again) != string(journal) {
				t.Errorf("adopted %s, before the crash %s", again, journal)
			}
			if err := v.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			up("adopted")
			_ = m.Close()

			// The next is told to stop what it adopted and never started.
			v = make1(t, a.maker(), spec)
			if err := v.Adopt(journal); err != nil {
				t.Fatal(err)
			}
			stop(t, v)
			down("adopted and stopped")
		})
	}
}

func TestAddressOfTheMachineItselfIsRefusedAndLeftAlone(t *testing.T) {
	a, _ := pair(t)
	for _, c := range []struct{ vip, want string }{
		{"10.0.0.1", "vip 10.0.0.1: 10.0.0.1/24 is already on eth0 and keepbeat did not put it there; take it out of this machine's network configuration (ip addr del 10.0.0.1/24 dev eth0)"},
		{"10.0.0.1/32/eth0", "vip 10.0.0.1/32: 10.0.0.1/24 is already on eth0 and keepbeat did not put it there; take it out of this machine's network configuration (ip addr del 10.0.0.1/24 dev eth0)"},
		{"fd00::1", "vip fd00::1: fd00::1/64 is already on eth0 and keepbeat did not put it there; take it out of this machine's network configuration (ip addr del fd00::1/64 dev eth0)"},
	} {
		v := make1(t, a.maker(), written(c.vip))
		nstest.Refused(t, v.Ready(), c.want)
		_, err := v.Record()
		nstest.Refused(t, err, c.want)
		nstest.Refused(t, v.Start(t.Context()), c.want)
		stop(t, v)
		nstest.Same(t, "left alone", a.Shown("eth0"), plain)
	}
}

func TestWhatACrashLeftIsAdopted(t *testing.T) {
	a, _ := pair(t)
	for _, ip := range []string{"10.0.0.5", "fd00::5"} {
		m := a.maker()
		started(t, m, written(ip))
		_ = m.Close()
		up := a.Shown("eth0")

		m = a.maker()
		v := make1(t, m, written(ip)) // without the journal: known by its mark
		if err := v.Ready(); err != nil {
			t.Error(err)
		}
		if err := v.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		nstest.Same(t, "as it was", a.Shown("eth0"), up)
		_ = m.Close()

		// The administrator wrote another prefix meanwhile.
		v = started(t, a.maker(), written(ip+"/30/eth0"))
		if s := a.Shown("eth0"); strings.Count(s, ip+"/") != 1 || !strings.Contains(s, ip+"/30") {
			t.Errorf("eth0 has\n%s", s)
		}
		if n := v.Detail().(Detail).Restored; n != 0 {
			t.Errorf("took it away itself and put it back %d times", n)
		}
		stop(t, v)
		nstest.Same(t, "stopped", a.Shown("eth0"), plain)
	}
}

func TestKernelWithoutMarksAdoptsByTheJournal(t *testing.T) {
	a, _ := pair(t)
	m := a.maker()
	v := make1(t, m, written("10.0.0.5"))
	journal := recorded(t, v)
	m.mu.Lock()
	m.k.Marks = false
	m.mu.Unlock()
	a.IP("addr add 10.0.0.5/24 brd 10.0.0.255 dev eth0") // as such a kernel shows one of ours
	if err := v.Start(t.Context()); err == nil {
		t.Error("adopted without a journal")
	}
	stop(t, v)
	if !strings.Contains(a.Shown("eth0"), "10.0.0.5/24") {
		t.Error("removed without a journal")
	}
	if err := v.Adopt(journal); err != nil {
		t.Fatal(err)
	}
	if err := v.Start(t.Context()); err != nil {
		t.Error(err)
	}
	stop(t, v)
	nstest.Same(t, "stopped", a.Shown("eth0"), plain)
}

func TestRecordAloneIsEnoughToStop(t *testing.T) {
	for _, c := range []struct {
		name string
		then string
		dev  string
	}{
		{"as it was", "", "eth0"},
		{"somebody deleted it", "addr del 10.0.0.5/24 dev eth0", "eth0"},
		{"interface renamed", "link set eth0 name wan0", "wan0"},
		{"interface gone", "link del eth0", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := pair(t)
			m := a.maker()
			v := started(t, m, written("10.0.0.5"))
			journal := recorded(t, v)
			_ = m.Close()
			if c.then != "" {
				a.IP(c.then)
			}
			r, err := a.maker().Recover(resources.Env{}, journal)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Start(t.Context()); err == nil {
				t.Error("a record was started")
			}
			stop(t, r)
			if c.dev != "" {
				nstest.Same(t, "released", a.Shown(c.dev), strings.ReplaceAll(plain, "eth0", c.dev))
			}
		})
	}
}

func TestOthersOfItsNetworkSurviveTheStop(t *testing.T) {
	for _, c := range []struct{ name, readOnly string }{{"promoted by the kernel", ""}, {"put back", "yes"}} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := pair(t)
			m := a.maker()
			v := started(t, m, written("192.168.7.5/24/eth0")) // first of its network: primary
			a.IP("addr add 192.168.7.6/24 dev eth0\naddr add 192.168.7.7/24 dev eth0 label eth0:x")
			w := started(t, m, written("192.168.7.8/24/eth0"))
			if c.readOnly != "" {
				m.mu.Lock()
				m.k.Namespace = "/nonexistent" // sysctls cannot be reached
				m.mu.Unlock()
			}
			stop(t, v)
			nstest.Same(t, "first stopped", strings.Join(sorted(a.Shown("eth0")), "\n"), strings.Join(sorted(plain+`
				ip addr add 192.168.7.6/24 dev eth0
				ip addr add 192.168.7.7/24 dev eth0 label eth0:x
				ip addr add 192.168.7.8/24 brd 192.168.7.255 dev eth0`), "\n"))
			stop(t, w)
			if n := w.Detail().(Detail).Restored; n > 1 {
				t.Errorf("the other VIP was put back %d times", n)
			}
			if got := a.Sysctl("net/ipv4/conf/eth0/promote_secondaries", ""); got != "0" {
				t.Errorf("promote_secondaries is left at %s", got)
			}
		})
	}
}

func TestAnnouncementCountsChangeInPlace(t *testing.T) {
	a, _ := pair(t)
	spec := written("10.0.0.5")
	v := started(t, a.maker(), spec)
	changed := spec
	changed.ARPCount, changed.ARPInterval = 10, 2*time.Second
	if err := v.Update(t.Context(), conf.Spec{}, conf.Resource{VIP: &changed}); err != nil {
		t.Error(err)
	}
	changed.Prefix = 32
	if err := v.Update(t.Context(), conf.Spec{}, conf.Resource{VIP: &changed}); !errors.Is(err, resources.ErrNeedsRestart) {
		t.Error(err)
	}
}

func TestLoopbackAddressIsNotAnnounced(t *testing.T) {
	a, _ := pair(t)
	v := started(t, a.maker(), written("10.0.0.5/32/lo"))
	if n := v.Detail().(Detail).Announcements; n != 0 {
		t.Errorf("%d announcements on lo", n)
	}
	stop(t, v)
	nstest.Same(t, "lo", a.Shown("lo"), "")
}

func TestLinkLocalAddressStandsOnSeveralInterfaces(t *testing.T) {
	a, _ := pair(t)
	a.IP("link add eth1 type veth peer name eth2\nlink set eth1 up\nlink set eth2 up")
	m := a.maker()
	eth1 := make1(t, m, written("fe80::99//eth1"))
	nstest.Eventually(t, "the carrier of eth1", func() bool { return eth1.Ready() == nil })
	v, w := started(t, m, written("fe80::99//eth0")), started(t, m, written("fe80::99//eth1"))
	stop(t, v)
	if err := w.Monitor(t.Context()); err != nil {
		t.Error(err)
	}
	if n := w.Detail().(Detail).Restored; n != 0 {
		t.Errorf("stopping one took the other away %d times", n)
	}
	stop(t, w)
}

func TestHundredGroupsStartAtOnce(t *testing.T) {
	a, _ := pair(t)
	m := a.maker()
	var wg sync.WaitGroup
	vips := make([]*vip, 100)
	for i := range vips {
		vips[i] = make1(t, m, written(fmt.Sprintf("10.0.0.%d", 100+i)))
	}
	begin := time.Now()
	for _, v := range vips {
		wg.Go(func() {
			if _, err := v.Record(); err != nil {
				t.Error(err)
			}
			if err := v.Start(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("100 addresses started in %v", time.Since(begin))
	begin = time.Now()
	for _, v := range vips {
		wg.Go(func() {
			if err := v.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("and stopped in %v", time.Since(begin))
	nstest.Same(t, "stopped", a.Shown("eth0"), plain)
}

func TestEndedContextChangesNothing(t *testing.T) {
	a, _ := pair(t)
	v := make1(t, a.maker(), written("10.0.0.5"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nstest.Same(t, "untouched", a.Shown("eth0"), plain)
}

func TestMissingNamespaceIsNamed(t *testing.T) {
	m := NewMaker(Config{Namespace: "/run/netns/kbvip-missing"})
	defer m.Close()
	v := make1(t, m, written("10.0.0.5"))
	nstest.Refused(t, v.Ready(), "vip 10.0.0.5: network namespace /run/netns/kbvip-missing: no such file or directory")
}

func sorted(s string) []string {
	var all []string
	for line := range strings.Lines(s) {
		all = append(all, strings.TrimSpace(line))
	}
	slices.Sort(all)
	return all
}
