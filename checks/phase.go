package checks

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// placeOf is a number that follows from what is checked, the same in every run
// of the program. Modulo an interval it is the check's phase, which spreads
// checks evenly, whichever interval is in force.
func placeOf(c conf.Check) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, c.Type, c.Target, "\x00", c.Service, "\x00", c.VirtualHost, "\x00", c.Request, "\x00", c.Command, "\x00", c.Args,
		"\x00", c.Path, "\x00", c.Payload, "\x00", c.Database, "\x00", c.Receive)
	return mix(h.Sum64())
}

// mix spreads what differs in a few bits over all: FNV's high bits move little
// for inputs that differ at the end.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// interval is the one in force: IntervalDown, where there is one, while the
// server is down.
func (e *entry) interval() time.Duration {
	if e.check.IntervalDown > 0 && e.health.Known && !e.health.Up {
		return e.check.IntervalDown
	}
	return e.check.Interval
}

// togetherMost bounds how far apart the places of an interval are.
const togetherMost = 50 * time.Millisecond

// phaseIn is where in an interval a check has its place. An interval has fifty
// places or more, and the checks of one start together: a process that wakes for
// a handful of them, and again for their answers, spends a third less processor
// time on each than one that wakes for every single one (1,000 checks a second).
func phaseIn(i time.Duration, place uint64) time.Duration {
	p := time.Duration(place % uint64(i))
	return p - p%min(i/50, togetherMost)
}

func (e *entry) phase() time.Duration { return phaseIn(e.interval(), e.place) }

// jitterMax is below how much a start may be put off. A whole interval at most:
// more would put a start behind the next one.
func (e *entry) jitterMax() time.Duration { return min(e.check.Jitter, e.interval()) }

// after is the first place of the entry's schedule that is later than t.
func (s *Scheduler) after(e *entry, t time.Time) time.Time {
	i, first := e.interval(), s.epoch.Add(e.phase())
	if t.Before(first) {
		return first
	}
	return first.Add((t.Sub(first)/i + 1) * i)
}

// next sets the start of the entry's next run: its first place after t, put off
// by a part of Jitter that follows from what is checked and from the place, so
// that nothing has to be remembered and a test sees the same in every run.
func (s *Scheduler) next(e *entry, t time.Time) {
	e.slot = s.after(e, t)
	e.due = e.slot
	if j := e.jitterMax(); j > 0 {
		e.due = e.due.Add(time.Duration(mix(e.place^mix(uint64(e.slot.Sub(s.epoch)))) % uint64(j)))
	}
}

// following is next for an entry whose run has ended at end: no place is left
// out as long as its run can still begin within its jitter, and none is run twice.
func (s *Scheduler) following(e *entry, end time.Time) {
	t := end.Add(-e.jitterMax() - 1)
	if e.slot.After(t) {
		t = e.slot
	}
	s.next(e, t)
	if e.due.Before(end) {
		e.due = end
	}
}

// extra plans a run at once, outside the schedule, which stays as it is.
func (e *entry) extra(now time.Time) { e.slot, e.due = now, now }
