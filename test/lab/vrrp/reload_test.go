package vrrp

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAReloadDisturbsWhatHasChangedAloneAsWithTwoKeepaliveds(t *testing.T) {
	t.Parallel()
	second, priority := [2]time.Duration{time.Second, time.Second}, [2]int{150, 100}
	stage(t, casts[:3], func([2]program) []instance {
		return []instance{
			{name: "changes", vrid: 31, version: 2, interval: second, priority: priority},
			{name: "stays", vrid: 32, version: 2, interval: second, priority: priority, password: [2]string{"same", "same"}},
			{name: "stays-unicast", vrid: 33, version: 2, unicast: true, interval: second, priority: priority},
		}
	}, func(s *scene) {
		reloads(s)
		dissect(s)
	})
}

func reloads(s *scene) {
	const first, second = 0, 1
	changes, stay, all := s.named("changes"), s.named("stays", "stays-unicast"), s.named()
	one := changes[0]

	at := time.Now()
	s.start(first)
	s.takesOver("the first starts alone", first, at, false, all)
	at = time.Now()
	s.start(second)
	s.becomes("the second starts after it", first, at, false, all)

	for _, r := range []int{second, first} {
		at = time.Now()
		s.reload(r)
		s.becomes("nothing has changed", first, at, false, all)
		s.staysQuiet("nothing has changed", second, at, all)
	}

	// A keepalived takes no advertisement with other addresses than its own:
	// both are told within the time that a backup waits.
	at = time.Now()
	one.more = true
	s.reload(second)
	s.reload(first)
	s.takesOver("an address more", first, at, false, changes)
	s.staysQuiet("an address more", second, at, all)
	at = time.Now()
	one.more = false
	s.reload(second)
	s.reload(first)
	s.Eventually(limit, "the address to be taken away", func() bool { return !s.routers[first].HasAddress(one.address(2, false).String()) })
	s.becomes("an address less", first, at, false, changes)
	s.staysQuiet("an address less", second, at, all)

	at = time.Now()
	one.priority[first] = 90
	s.reload(first)
	s.takesOver("the priority falls", second, at, false, changes)
	s.staysQuiet("the priority of another falls", second, at, stay)
	at = time.Now()
	one.priority[first] = 150
	s.reload(first)
	s.takesOver("the priority rises", first, at, false, changes)
	s.staysQuiet("the priority of another rises", second, at, stay)
	at = time.Now()
	one.priority[second] = 200
	s.reload(second)
	s.takesOver("the priority of the backup rises", second, at, false, changes)
	s.staysQuiet("the priority of another rises", second, at, stay)
	s.stop(first)
	s.stop(second)
}

// reload has a router read its files, as the instances are now. keepbeat is
// told by a signal and by `keepbeat restart` in turn: alone they are the same.
func (s *scene) reload(router int) {
	s.t.Helper()
	s.configure(router)
	p := s.processes[router]
	word := map[program]string{keepbeat: "vrrp.yaml was read", keepalived: "Reload complete"}[s.cast[router]]
	before := strings.Count(p.Log(), word)
	if s.cast[router] == keepbeat && before%2 == 1 {
		out, err := s.routers[router].Keepbeat("restart", "--config", directory+"ha.yaml")
		if err != nil || !strings.Contains(out, "vrrp.yaml was read") {
			s.t.Errorf("keepbeat restart of router%d: %v\n%s", router, err, out)
		}
	} else {
		p.Signal(syscall.SIGHUP)
	}
	s.Eventually(limit, fmt.Sprintf("router%d to have read its file", router), func() bool { return strings.Count(p.Log(), word) > before })
}
