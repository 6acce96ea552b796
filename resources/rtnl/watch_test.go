package rtnl_test

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
)

// standing is a picture of the addresses of a namespace.
type standing struct {
	mu     sync.Mutex // the Watch's lock; guards the rest
	all    map[netip.Addr]bool
	reads  int
	lost   int
	failed int
}

func watched(t *testing.T, k *rtnl.Kernel) (*standing, *rtnl.Watch) {
	s := &standing{}
	w := &rtnl.Watch{Kernel: k, Groups: []uint{unix.RTNLGRP_IPV4_IFADDR}, Lock: &s.mu,
		Read: func() error {
			s.all = map[netip.Addr]bool{}
			s.reads++
			return k.Addresses(func(a rtnl.Address) { s.all[a.Prefix.Addr()] = true })
		},
		Apply: func(m rtnl.Message) {
			if a, ok, err := rtnl.ParseAddress(m.Body); ok && err == nil {
				s.all[a.Prefix.Addr()] = m.Type == unix.RTM_NEWADDR
			}
		},
		Lost:   func() { s.lost++ },
		Failed: func(err error) { s.failed++ },
	}
	t.Cleanup(w.Close)
	return s, w
}

// add puts so many addresses on lo.
func add(t *testing.T, k *rtnl.Kernel, many int) {
	for n := range many {
		a := rtnl.Address{Index: 1, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}), 32), Valid: rtnl.Forever, Preferred: rtnl.Forever}
		if err := k.Add(a); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPictureIsAsFreshAsAQuestion(t *testing.T) {
	n := nstest.New(t, "kbrtnl")
	s, w := watched(t, n.Kernel())
	has := func(ip string) bool { return s.all[netip.MustParseAddr(ip)] }
	n.IP("addr add 10.0.0.1/32 dev lo")
	take := func() {
		t.Helper()
		if err := w.Take(); err != nil {
			t.Error(err)
		}
	}
	s.mu.Lock()
	take()
	if !has("10.0.0.1") {
		t.Error("what stood before is not seen")
	}
	n.IP("addr add 10.0.0.2/32 dev lo\naddr del 10.0.0.1/32 dev lo")
	take()
	if has("10.0.0.1") || !has("10.0.0.2") {
		t.Errorf("after two changes: %v", s.all)
	}
	s.mu.Unlock()
	n.IP("addr add 10.0.0.3/32 dev lo")
	nstest.Eventually(t, "a change that nobody asked for is seen", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return has("10.0.0.3") })
	if s.reads != 1 || s.lost != 0 {
		t.Errorf("read %d times, lost %d times", s.reads, s.lost)
	}
}

func TestAfterALossNothingStandsThatIsGone(t *testing.T) {
	n := nstest.New(t, "kbrtnl")
	k := n.Kernel()
	s, w := watched(t, k)
	s.mu.Lock() // nobody reads meanwhile
	defer s.mu.Unlock()
	if err := w.Take(); err != nil {
		t.Fatal(err)
	}
	n.IP("addr add 10.0.0.7/32 dev lo") // the kernel tells it
	w.Shrink(t)
	add(t, k, 500)
	n.IP("addr del 10.0.0.7/32 dev lo\naddr add 10.0.0.8/32 dev lo") // and has no room for this
	if err := w.Take(); err != nil {
		t.Fatal(err)
	}
	if s.lost == 0 {
		t.Error("nothing was lost")
	}
	if gone, new := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.8"); s.all[gone] || !s.all[new] || len(s.all) < 500 {
		t.Errorf("%d addresses, the one that went %v, the new one %v", len(s.all), s.all[gone], s.all[new])
	}
	// And goes on.
	n.IP("addr del 10.0.0.8/32 dev lo")
	if err := w.Take(); err != nil || s.all[netip.MustParseAddr("10.0.0.8")] {
		t.Errorf("the next change is not seen, %v", err)
	}
}

func TestASubscriptionThatFailedIsOpenedAgain(t *testing.T) {
	n := nstest.New(t, "kbrtnl")
	s, w := watched(t, n.Kernel())
	for round := range 3 {
		s.mu.Lock()
		err := w.Take()
		w.Break()
		failed := s.failed
		s.mu.Unlock()
		if err != nil || failed != round {
			t.Fatalf("round %d: failed %d times, %v", round, failed, err)
		}
		n.IP("addr add 10.0.0.1/32 dev lo\naddr del 10.0.0.1/32 dev lo")
		nstest.Eventually(t, "the failure is told", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.failed == round+1 })
	}
	w.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := w.Take(); !errors.Is(err, os.ErrClosed) || s.failed != 3 {
		t.Errorf("after its end: %v, failed %d times", err, s.failed)
	}
}

func TestNothingThatComesByTheThousandAllocates(t *testing.T) {
	n := nstest.New(t, "kbrtnl")
	n.IP("link add eth0 type veth peer name eth1\nlink set eth0 up\nlink set eth1 up")
	k := n.Kernel()
	var eth0 rtnl.Link
	if err := k.Links(func(l rtnl.Link) {
		if l.Name == "eth0" {
			eth0 = l
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, ip := range []string{"10.0.0.5", "fd00::5"} {
		a := netip.MustParseAddr(ip)
		if got := testing.AllocsPerRun(100, func() {
			if err := k.Tell(eth0, a, false); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("announcing %s allocates %v times", ip, got)
		}
	}
}
