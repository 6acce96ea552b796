package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// shorts are instances with the intervals that version 3 is used for.
func shorts() (all []instance) {
	for n, interval := range []time.Duration{100 * time.Millisecond, 10 * time.Millisecond} {
		for m, like := range []instance{{name: "multicast"}, {name: "unicast", unicast: true}, {name: "IPv6", six: true}} {
			like.name = fmt.Sprintf("%v-%s", interval, like.name)
			like.vrid, like.version, like.priority = uint8(40+3*n+m), 3, [2]int{150, 100}
			like.interval = [2]time.Duration{interval, interval}
			all = append(all, like)
		}
	}
	return all
}

// That a backup stays quiet is not asked here: a machine that is busy for the
// time of four advertisements makes another master, of any make.
func TestRoutersWithShortIntervalsShareAddressesAsTwoKeepalivedsDo(t *testing.T) {
	t.Parallel()
	stage(t, casts[:3], func([2]program) []instance { return shorts() }, func(s *scene) {
		hurry(s)
		dissect(s)
	})
}

func hurry(s *scene) {
	const first, second = 0, 1
	all := s.named()
	at := time.Now()
	s.start(first)
	s.takesOver("the first starts alone", first, at, false, all)
	at = time.Now()
	s.start(second)
	s.becomes("the second starts after it", first, at, false, all)
	at = time.Now()
	s.routers[first].Die()
	s.takesOver("the first loses power", second, at, false, all)
	at = time.Now()
	s.routers[first].Revive()
	s.start(first)
	s.takesOver("it comes back", first, at, false, all)
	at = time.Now()
	s.port(second, false).Down()
	s.becomes("the cable of the second is pulled", first, at, true, all)
	at = time.Now()
	s.port(second, false).Up()
	s.becomes("the cable is back", first, at, false, all)
	at = time.Now()
	s.stop(first)
	s.takesOver("the first is stopped", second, at, false, all)
	s.port(second, false).Down()
	s.lets("the cable of the second is pulled, and it is alone", second, all)
	at = time.Now()
	s.port(second, false).Up()
	s.takesOver("the cable is back, and it is alone", second, at, false, all)
	at = time.Now()
	s.start(first)
	s.takesOver("the first starts after the second", first, at, false, all)
	at = time.Now()
	s.stop(second)
	s.becomes("the second is stopped", first, at, false, all)
	s.stop(first)
}

// lets waits until a router has given back the addresses of the instances, and
// been silent for so long that what it does next is told apart from it.
func (s *scene) lets(event string, router int, some []*instance) {
	s.t.Helper()
	for _, i := range some {
		what := fmt.Sprintf("%s: router%d (%s) to be without %s, and silent", event, router, s.cast[router], i.name)
		s.Eventually(limit, what, func() bool {
			by, _ := s.sent(i)
			last := by[router][len(by[router])-1]
			return time.Since(last.at) > 3*i.interval[router] &&
				!slices.ContainsFunc(i.addresses(), func(ip netip.Addr) bool { return s.routers[router].HasAddress(ip.String()) })
		})
	}
}
