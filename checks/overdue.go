package checks

import (
	"log/slog"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	// sweepEvery is how often the loop looks for overdue checks: often enough for
	// an alarm, rare enough to cost nothing with tens of thousands of them.
	sweepEvery = time.Second
	// overdueLeast and a tenth of the interval are what a busy machine may add.
	overdueLeast = time.Second
)

// overdueAfter is how old the last verdict may become: the run after it starts
// an interval (and the jitter) later and takes the whole time-out.
func (e *entry) overdueAfter() time.Duration {
	i := e.interval()
	return i + e.jitterMax() + e.check.Timeout + grace + max(i/10, overdueLeast)
}

// overdue says whether the last verdict of a check is older than its schedule
// allows: nobody knows any more how the server is. s.mu is held.
func (s *Scheduler) overdue(e *entry, now time.Time) bool {
	return s.runCtx != nil && e.check.Type != conf.On && e.check.Type != conf.Off && now.Sub(e.verdict) > e.overdueAfter()
}

// sweep counts the overdue checks and says it when there are some, and when
// there are none any more: once, not for each. s.mu is held.
func (s *Scheduler) sweep(now time.Time) {
	if now.Sub(s.swept) < sweepEvery {
		return
	}
	s.swept = now
	n, oldest := 0, (*entry)(nil)
	for e := range s.entries.all() {
		if len(e.subs) == 0 || !s.overdue(e, now) {
			continue
		}
		n++
		if oldest == nil || e.verdict.Before(oldest.verdict) {
			oldest = e
		}
	}
	switch before := s.stats.Overdue; {
	case n > 0 && before == 0:
		s.say(slog.LevelError, &s.saidOverdue, now,
			"checks have no result for longer than their schedule allows; the servers' last known states are kept",
			"checks", n, "oldest", oldest.name(), "age", now.Sub(oldest.verdict).Round(time.Millisecond), "last", oldest.status.Detail,
			"waiting for descriptors", len(s.waiting))
	case n == 0 && before > 0:
		s.say(slog.LevelInfo, &s.saidCaughtUp, now, "all checks have results within their schedules again")
	}
	s.stats.Overdue = n
}
