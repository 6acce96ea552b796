package vrrp

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// cases are instances that differ in what their two routers agree about.
func cases() []instance {
	second, quarter := [2]time.Duration{time.Second, time.Second}, [2]time.Duration{time.Second / 4, time.Second / 4}
	return []instance{
		{name: "script", vrid: 81, version: 3, script: true, interval: quarter, priority: [2]int{105, 100}},
		{name: "file", vrid: 92, version: 3, file: true, interval: quarter, priority: [2]int{105, 100}},
		{name: "port", vrid: 93, version: 3, port: true, interval: quarter, priority: [2]int{105, 100}},
		{name: "nopreempt", vrid: 82, version: 3, fixed: true, interval: quarter, priority: [2]int{150, 100}},
		{name: "equal", vrid: 83, version: 3, interval: quarter, priority: [2]int{100, 100}},
		{name: "interval-v3", vrid: 84, version: 3, interval: [2]time.Duration{time.Second / 2, time.Second / 4}, priority: [2]int{150, 100}},
		{name: "interval-v2", vrid: 85, version: 2, interval: [2]time.Duration{time.Second, 2 * time.Second}, priority: [2]int{150, 100}},
		{name: "password", vrid: 86, version: 2, interval: second, password: [2]string{"jwXq71", "Vz90pk"}, priority: [2]int{150, 100}},
		{name: "ttl", vrid: 89, version: 3, unicast: true, interval: quarter, minTTL: 255, ttl: [2]int{254, 254}, priority: [2]int{150, 100}},
		{name: "version", vrid: 90, version: 3, older: true, interval: second, priority: [2]int{150, 100}},
		{name: "equal-IPv6", vrid: 91, version: 3, six: true, interval: quarter, priority: [2]int{100, 100}},
		{name: "group-eth0", vrid: 87, version: 3, synced: true, interval: quarter, priority: [2]int{150, 100}},
		{name: "group-eth1", vrid: 88, version: 3, synced: true, eth1: true, interval: quarter, priority: [2]int{150, 100}},
	}
}

func TestScriptsNopreemptEqualPrioritiesMistakesAndSyncGroupsAreAsWithTwoKeepaliveds(t *testing.T) {
	t.Parallel()
	stage(t, casts, func([2]program) []instance { return cases() }, func(s *scene) {
		bend(s)
		dissect(s)
	})
}

func bend(s *scene) {
	const first, second = 0, 1
	agreed := s.named("script", "file", "port", "nopreempt", "equal", "equal-IPv6", "interval-v3", "group-eth0", "group-eth1")
	group := s.named("group-eth0", "group-eth1")
	const since = "the second starts after the first"

	at := time.Now()
	s.start(first)
	s.takesOver("the first starts alone", first, at, false, s.named())
	at = time.Now()
	s.start(second)
	s.becomes(since, first, at, false, agreed)
	s.staysQuiet(since, second, at, agreed)
	mistakes(s, at)

	at = time.Now()
	s.routers[first].WriteFile(downFile, "", 0o644)
	s.takesOver("its script fails", second, at, false, s.named("script"))
	at = time.Now()
	s.routers[first].Run("rm", downFile)
	s.takesOver("its script succeeds", first, at, false, s.named("script"))
	s.staysQuiet("no script is of others", second, at, s.named("nopreempt", "equal", "equal-IPv6", "interval-v3", "group-eth0", "group-eth1"))

	at = time.Now()
	s.routers[first].WriteFile(numberFile, "-10\n", 0o644)
	s.takesOver("the number in its file falls", second, at, false, s.named("file"))
	at = time.Now()
	s.routers[first].WriteFile(numberFile, "0\n", 0o644)
	s.takesOver("the number is what it was", first, at, false, s.named("file"))

	group = append(group, s.named("port")...)
	at = time.Now()
	s.port(first, true).Down()
	s.takesOver("the cable of one of a group is pulled", second, at, false, group)
	at = time.Now()
	s.port(first, true).Up()
	s.takesOver("the cable is back", first, at, false, group)

	at = time.Now()
	s.port(first, false).Block()
	s.takesOver("the switch in between loses all", second, at, true, s.named("script", "file", "port", "nopreempt", "equal", "equal-IPv6", "interval-v3"))
	at = time.Now()
	s.port(first, false).Heal()
	s.becomes("and carries again", first, at, false, s.named("script", "file", "port", "nopreempt", "interval-v3"))
	s.becomes("of equals the higher address stays", second, at, false, s.named("equal", "equal-IPv6"))

	at = time.Now()
	s.stop(first)
	s.becomes("the first is stopped", second, at, false, agreed)
	at = time.Now()
	s.start(first)
	s.takesOver("it starts again", first, at, false, s.named("script", "file", "port", "interval-v3", "group-eth0", "group-eth1"))
	s.becomes("and lets others go on", second, at, false, s.named("nopreempt", "equal", "equal-IPv6"))
	s.staysQuiet("and lets others go on", first, at, s.named("nopreempt", "equal", "equal-IPv6"))
	s.stop(first)
	s.stop(second)
}

// mistakes are two routers that do not believe each other: both are masters. That
// shows in their addresses alone: a keepalived 2.2.7 begins its interval anew with
// every advertisement that it refuses, and a master is silent while others send
// more often. keepbeat is not, and says once why.
func mistakes(s *scene, since time.Time) {
	s.t.Helper()
	for name, reason := range map[string]string{"interval-v2": "interval", "password": "password", "ttl": "ttl", "version": "version"} {
		i := s.named(name)[0]
		s.Eventually(limit, "two masters of "+name, func() bool {
			a := i.addresses()[0].String()
			return s.routers[0].HasAddress(a) && s.routers[1].HasAddress(a)
		})
		for r, p := range s.cast {
			if p != keepbeat {
				continue
			}
			mine := func() []span {
				by, _ := s.sent(i)
				return within(spans(by[r], i.interval[r]+clock.Worst(since)), since)
			}
			s.Eventually(limit, "five advertisements beside another master", func() bool {
				m := mine()
				return len(m) > 0 && m[len(m)-1].to.Sub(later(since, m[len(m)-1].from)) > 4*i.interval[r]
			})
			if m := mine(); len(m) != 1 {
				s.t.Errorf("%s: router%d stopped to advertise:\n%s", name, r, s.story(i, since))
			}
			s.Eventually(limit, "a refusal in the status", func() bool { return refused(s, r, name, reason) > 0 })
			said := 0
			for line := range strings.Lines(s.processes[r].Log()) {
				if strings.Contains(line, "refused") && strings.Contains(line, "instance="+name) {
					said++
				}
			}
			if said != 1 {
				s.t.Errorf("%s: router%d said %d times that it refuses; want once:\n%s", name, r, said, s.processes[r].Log())
			}
			for _, word := range i.password {
				if word != "" && strings.Contains(s.processes[r].Log(), word) {
					s.t.Errorf("the password is in the log of router%d", r)
				}
			}
		}
	}
}

// refused is how many advertisements keepbeat counted for a reason with this word in it.
func refused(s *scene, router int, name, reason string) (count uint64) {
	s.t.Helper()
	out, err := s.routers[router].Keepbeat("status", "--json", "--config", directory+"ha.yaml")
	if err != nil {
		s.t.Fatalf("status of router%d: %v\n%s", router, err, out)
	}
	var status struct {
		VRRP struct {
			Instances []struct {
				Name  string
				Notes []struct {
					Why     string
					Refused bool
					Count   uint64
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		s.t.Fatalf("status of router%d: %v\n%s", router, err, out)
	}
	for _, i := range status.VRRP.Instances {
		for _, n := range i.Notes {
			if i.Name == name && n.Refused && strings.Contains(n.Why, reason) {
				count += n.Count
			}
		}
	}
	return count
}
