package vrrp

import (
	"testing"
	"time"
)

// delays are instances whose routers both leave a master of lower priority the
// time of preempt_delay. What is long does not end within the test.
func delays() []instance {
	second, quarter := [2]time.Duration{time.Second, time.Second}, [2]time.Duration{time.Second / 4, time.Second / 4}
	// Each longer than a backup waits without it.
	const short, more, long = 3 * time.Second, 5 * time.Second, 15 * time.Minute
	return []instance{
		{name: "short", vrid: 55, version: 3, script: true, delay: short, interval: quarter, priority: [2]int{110, 100}},
		{name: "short-v2", vrid: 56, version: 2, script: true, delay: more, interval: second, priority: [2]int{110, 100}},
		{name: "short-IPv6", vrid: 57, version: 3, six: true, script: true, delay: short, interval: quarter, priority: [2]int{110, 100}},
		{name: "long", vrid: 58, version: 2, delay: long, interval: second, priority: [2]int{110, 100}},
	}
}

func TestAMasterOfLowerPriorityIsLeftThePreemptDelayAsWithTwoKeepaliveds(t *testing.T) {
	t.Parallel()
	stage(t, casts[:3], func([2]program) []instance { return delays() }, func(s *scene) {
		linger(s)
		dissect(s)
	})
}

func linger(s *scene) {
	const first, second = 0, 1
	short, long := s.named("short", "short-v2", "short-IPv6"), s.named("long")

	s.start(second)
	at := time.Now()
	s.takesOver("the lower starts alone", second, at, false, s.named())
	at = time.Now()
	s.start(first)
	s.takesOverLate("the higher starts", first, at, short)
	s.becomes("and waits", second, at, false, long)
	s.staysQuiet("and waits", first, at, long)
	at = time.Now()
	s.stop(second)
	s.becomes("the lower is stopped", first, at, false, short)
	s.takesOver("the lower is stopped: nobody is left to be waited for", first, at, false, long)
	at = time.Now()
	s.start(second)
	s.becomes("the lower comes back", first, at, false, s.named())

	at = time.Now()
	s.routers[first].WriteFile(downFile, "", 0o644)
	s.takesOverLate("the higher is the lower now", second, at, short)
	at = time.Now()
	s.routers[first].Run("rm", downFile)
	s.takesOverLate("and the higher again", first, at, short)

	at = time.Now()
	s.routers[first].Die()
	s.takesOver("death leaves nobody to be waited for", second, at, false, s.named())
	at = time.Now()
	s.routers[first].Revive()
	s.start(first)
	s.takesOverLate("it comes back", first, at, short)
	s.becomes("it comes back", second, at, false, long)
	s.stop(first)
	s.stop(second)
}

// takesOverLate is takesOver of a router that has to leave the other one its
// time: it is not master before preempt_delay is over, and the other one goes
// on until then, if the machine lets it.
func (s *scene) takesOverLate(event string, router int, since time.Time, some []*instance) {
	s.t.Helper()
	s.takesOver(event, router, since, false, some)
	for n, i := range some {
		by, _ := s.sent(i)
		masters := within(spans(by[router], i.interval[router]), since)
		took := masters[0].from.Sub(since)
		s.results[len(s.results)-len(some)+n].took = took
		if late, starved := s.starved(i, since); took < i.delay && starved {
			s.Logf("%s: router%d is master of %s after %v; the machine was late by %v", event, router, i.name, took, late)
		} else if took < i.delay {
			s.t.Errorf("%s: router%d (%s) is master of %s after %v; preempt_delay is %v; heard:\n%s",
				event, router, s.cast[router], i.name, took, i.delay, s.story(i, since))
		}
	}
}
