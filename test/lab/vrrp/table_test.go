package vrrp

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// wires are the ways in which VRRP is spoken: versions, families, multicast and
// unicast, with a password and without, by the owner, and with a MAC address of its own.
func wires() []instance {
	second, quarter := [2]time.Duration{time.Second, time.Second}, [2]time.Duration{time.Second / 4, time.Second / 4}
	priority, password := [2]int{150, 100}, [2]string{"password", "password"}
	return []instance{
		{name: "v2-multicast", vrid: 51, version: 2, interval: second, priority: priority},
		{name: "v2-unicast", vrid: 52, version: 2, unicast: true, interval: second, priority: priority},
		{name: "v2-multicast-PASS", vrid: 53, version: 2, interval: second, priority: priority, password: password},
		{name: "v2-unicast-PASS", vrid: 54, version: 2, unicast: true, interval: second, priority: priority, password: [2]string{"abc", "abc"}},
		{name: "v3-multicast", vrid: 61, version: 3, interval: quarter, priority: priority},
		{name: "v3-unicast", vrid: 62, version: 3, unicast: true, interval: quarter, priority: priority},
		{name: "v3-unicast-TTL", vrid: 67, version: 3, unicast: true, interval: quarter, minTTL: 64, ttl: [2]int{64, 64}, priority: priority},
		{name: "v3-owner", vrid: 64, version: 3, interval: quarter, priority: [2]int{255, 100}},
		{name: "v3-excluded", vrid: 68, version: 3, beyond: true, interval: quarter, priority: priority},
		{name: "v2-VMAC", vrid: 55, version: 2, vmac: true, interval: second, priority: priority},
		{name: "v3-VMAC", vrid: 65, version: 3, vmac: true, interval: quarter, priority: priority},
		{name: "v3-IPv6-VMAC", vrid: 75, version: 3, six: true, vmac: true, interval: quarter, priority: priority},
		{name: "v3-IPv6-multicast", vrid: 71, version: 3, six: true, interval: quarter, priority: priority},
		{name: "v3-IPv6-unicast", vrid: 72, version: 3, six: true, unicast: true, interval: quarter, priority: priority},
	}
}

// Events befall two routers, the first of which has the higher priority.
func TestTwoRoutersOfAnyMakeShareAddressesAsTwoKeepalivedsDo(t *testing.T) {
	t.Parallel()
	instances := func(cast [2]program) []instance {
		all := wires()
		if !slices.Contains(cast[:], keepalived) {
			like := all[4]
			for vrid, plain := range map[uint8][2]bool{63: {true, true}, 66: {true, false}} {
				like.name, like.vrid, like.plain = fmt.Sprintf("v3-plain-checksum-%d", vrid), vrid, plain
				all = append(all, like)
			}
		}
		return all
	}
	scenes := stage(t, casts, instances, func(s *scene) {
		play(s)
		// The second never resigns: it is stopped as a backup.
		if zero := dissect(s); s.cast[0] == keepbeat && zero < len(s.all) {
			s.t.Errorf("%d advertisements of priority 0; want one of each instance at least", zero)
		}
	})
	if scenes == nil {
		return
	}
	for n, s := range scenes[1:] {
		for r, p := range casts[n+1] {
			if p == keepbeat {
				sameMessages(t, scenes[0], s, r)
			}
		}
	}
}

func play(s *scene) {
	const first, second = 0, 1
	all := s.named()
	event := func(happens func()) time.Time {
		at := time.Now()
		happens()
		return at
	}

	at := event(func() { s.start(first) })
	s.takesOver("the first starts alone", first, at, false, all)
	at = event(func() { s.start(second) })
	s.becomes("the second starts after it", first, at, false, all)
	s.staysQuiet("the second starts after it", second, at, all)
	at = event(func() { s.routers[first].Die() })
	s.takesOver("the first loses power", second, at, false, all)
	at = event(func() { s.routers[first].Revive(); s.start(first) })
	s.takesOver("it comes back", first, at, false, all)
	at = event(func() { s.stop(first) })
	s.takesOver("it is stopped", second, at, false, all)
	at = event(func() { s.start(first) })
	s.takesOver("the first starts after the second", first, at, false, all)
	cable := s.port(first, false)
	at = event(cable.Down)
	s.takesOver("its cable is pulled", second, at, false, all)
	at = event(cable.Up)
	s.takesOver("the cable is back", first, at, false, all)
	at = event(cable.Block)
	s.takesOver("the switch in between loses all", second, at, true, all)
	at = event(cable.Heal)
	s.becomes("and carries again", first, at, false, all)
	s.stop(second)
	at = event(func() { s.stop(first) })
	for _, i := range all {
		for _, ip := range i.addresses() {
			for r, h := range s.routers {
				if h.HasAddress(ip.String()) {
					s.t.Errorf("router%d (%s) has been stopped, and has %s", r, s.cast[r], ip)
				}
			}
		}
	}
	s.Eventually(limit, "the last word of the first", func() bool {
		return !slices.ContainsFunc(all, func(i *instance) bool {
			by, _ := s.sent(i)
			last := by[first][len(by[first])-1]
			return last.priority() != 0 || last.at.Before(at)
		})
	})
}

// hiccup is an interval with which a takeover more is chance: a keepalived is now
// and then silent for the time of four advertisements, while it programs.
const hiccup = 100 * time.Millisecond

// compare holds each scene against the first, in which keepalived plays with
// itself: against the longest that an event led to with any of the instances that
// have the same version and interval.
//
// An advertisement interval and twice the machine's lateness are the margin: the
// lengths are told by advertisements, of which one more or less is chance; and
// both routers may get the processor late.
func compare(t *testing.T, scenes []*scene, late time.Duration) {
	t.Helper()
	type key struct {
		event    string
		version  int
		interval [2]time.Duration
	}
	of := func(r result) key { return key{r.event, r.instance.version, r.instance.interval} }
	measure := map[key]result{}
	for _, r := range scenes[0].results {
		m := measure[of(r)]
		measure[of(r)] = result{both: max(m.both, r.both), nobody: max(m.nobody, r.nobody), took: max(m.took, r.took)}
	}
	for _, s := range scenes {
		text, event := "", ""
		for _, r := range s.results {
			if r.event != event {
				event = r.event
				text += "\n  " + event + ":"
			}
			text += fmt.Sprintf("  %s %s", r.instance.name, ms(r.nobody))
			if r.both > 0 {
				text += fmt.Sprintf(" (two: %s)", ms(r.both))
			}
			if r.took > 0 {
				text += fmt.Sprintf(" (after %s)", ms(r.took))
			}
			m, ok := measure[of(r)]
			margin := max(r.instance.interval[0], r.instance.interval[1]) + 2*late
			if ok && r.both > m.both+margin {
				t.Errorf("%s, %s, %s: two were master for %v, with keepalived alone %v", s, r.event, r.instance.name, r.both, m.both)
			}
			if ok && r.took > m.took+r.instance.delay+2*late {
				said := t.Errorf
				if r.instance.shaken(late) { // each other master meanwhile is left its time anew
					said = t.Logf
				}
				said("%s, %s, %s: master after %v, keepalived after %v", s, r.event, r.instance.name, r.took, m.took)
			}
			silence := margin
			if i := r.instance; i.interval[0] <= hiccup {
				silence = 4*i.interval[0] + 2*late
			}
			if ok && r.nobody > m.nobody+silence {
				t.Errorf("%s, %s, %s: nobody was master for %v, with keepalived alone %v", s, r.event, r.instance.name, r.nobody, m.nobody)
			}
		}
		t.Logf("%s: ms without a master (and with two); processes came late by up to %s ms%s", s, ms(late), text)
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d.Microseconds())/1000) }

// sameMessages says that a router of the scene sent nothing that keepalived did
// not send in its place, byte by byte, destination, TTL and precedence included.
func sameMessages(t *testing.T, measure, s *scene, router int) {
	t.Helper()
	for n := range measure.all {
		theirs, ours := messages(measure, &measure.all[n], router), messages(s, &measure.all[n], router)
		if !maps.Equal(theirs, ours) {
			t.Errorf("%s of %s: router%d sent\n  %s\nkeepalived in its place\n  %s", measure.all[n].name, s, router,
				strings.Join(slices.Sorted(maps.Keys(ours)), "\n  "), strings.Join(slices.Sorted(maps.Keys(theirs)), "\n  "))
		}
	}
}

func messages(s *scene, i *instance, router int) map[string]bool {
	all := map[string]bool{}
	by, _ := s.sent(i)
	for _, a := range by[router] {
		if i.six && i.unicast {
			a.ttl = 255 // keepalived 2.2.7 has 64 there, the kernel's own; keepbeat 255, as everywhere
		}
		all[a.String()] = true
	}
	return all
}
