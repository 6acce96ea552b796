package checks

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"math/bits"
	"time"
)

const (
	// grace is what a checker gets to return after its deadline before its
	// failure is counted without it.
	grace = 50 * time.Millisecond
	// lookAgain bounds the loop's sleep while checks run, so that it finds out
	// that the process was stopped.
	lookAgain = 100 * time.Millisecond
	// tooLate is the part of its interval by which a run may be late and still be
	// made. More would let a pause end in a larger burst; less would drop runs
	// on a machine that is merely busy.
	tooLate = 4
	// stalled is how late the loop must wake for that.
	stalled = 150 * time.Millisecond
)

// loop is the one goroutine that waits for time to pass.
func (s *Scheduler) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(s.step(time.Now())))
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// step does all that is due and returns when to be called again.
func (s *Scheduler) step(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look(now)
	s.sweep(now)
	for len(s.heap) > 0 && !s.heap[0].at.After(now) {
		e := s.heap[0]
		s.heap.remove(e)
		if e.run != nil {
			s.overran(e, now)
		} else {
			s.start(e, now)
		}
	}
	next := now.Add(time.Hour)
	if s.running > 0 {
		next = now.Add(lookAgain)
	}
	if len(s.heap) > 0 && s.heap[0].at.Before(next) {
		next = s.heap[0].at
	}
	s.nextWake = next
	return next
}

// look finds out whether the loop should have run long ago: then this process
// was stopped or starved. s.mu is held.
func (s *Scheduler) look(now time.Time) {
	if !s.nextWake.IsZero() && now.Sub(s.nextWake) > stalled {
		s.stallEnd, s.nextWake = now, now
	}
}

// schedule sets the time of the entry's next event. s.mu is held.
func (s *Scheduler) schedule(e *entry, at time.Time) {
	s.heap.remove(e)
	e.at = at
	heap.Push(&s.heap, e)
	if at.Before(s.nextWake) {
		s.nextWake = at
		// A run that is made up for was due long ago: the loop is not late for that.
		if now := time.Now(); now.After(at) {
			s.nextWake = now
		}
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// start runs an entry that is due. s.mu is held.
func (s *Scheduler) start(e *entry, now time.Time) {
	if s.runCtx == nil || s.runCtx.Err() != nil {
		return
	}
	late := now.Sub(e.due)
	if !e.chase && e.status.Known && !e.skipped && late > max(e.interval()/tooLate, lookAgain) {
		e.skipped = true
		s.stats.Missed++
		s.next(e, now)
		s.schedule(e, e.due)
		return
	}
	if s.inUse+e.cost > s.limit || len(s.waiting) > 0 {
		e.queued = true
		s.waiting = append(s.waiting, e)
		s.stats.Waits++
		s.say(slog.LevelWarn, &s.saidFull, now,
			"checks wait for descriptors: raise LimitNOFILE, or check less often or with shorter time-outs",
			"waiting", len(s.waiting), "in use", s.inUse, "limit", s.limit, "waits so far", s.stats.Waits)
		return
	}
	s.launch(e, now)
}

// launch runs an entry now. s.mu is held.
func (s *Scheduler) launch(e *entry, now time.Time) {
	deadline := now.Add(e.check.Timeout)
	if e.chase {
		deadline = e.due.Add(e.check.Timeout)
	} else {
		s.countLate(now.Sub(e.due))
	}
	e.skipped = false
	s.inUse += e.cost
	s.running++
	s.stats.Runs++
	ctx, cancel := context.WithDeadline(s.runCtx, deadline)
	r := &run{start: now, cancel: cancel}
	e.run = r
	s.schedule(e, deadline.Add(grace))
	s.wg.Go(func() {
		defer cancel()
		s.finish(e, r, s.check(ctx, e))
	})
}

func (s *Scheduler) countLate(late time.Duration) {
	late = max(late, 0)
	s.stats.MaxLate = max(s.stats.MaxLate, late)
	s.stats.Late[min(bits.Len64(uint64(late/(64*time.Microsecond))), len(s.stats.Late)-1)]++
}

// check asks the server. Only the goroutine of the run touches e.checker.
func (s *Scheduler) check(ctx context.Context, e *entry) (r result) {
	defer func() {
		// A fault in one protocol must not take the director down.
		if p := recover(); p != nil {
			r = result{err: fmt.Errorf("fault in the checker: %v", p)}
			s.log.Error("fault in a checker", "server", e.name(), "fault", p)
		}
	}()
	if e.checker == nil {
		c, err := s.make(e.check)
		if err != nil {
			return result{err: err} // tried again at the next run
		}
		e.checker = c
	}
	r.detail, r.err = e.checker.Check(ctx)
	if w, ok := e.checker.(Weigher); ok && r.err == nil {
		if n, said := w.Weight(); said {
			r.weighed, r.weight = true, n
		}
	}
	return r
}

// overran counts failures of a run that has not returned in time. s.mu is held.
func (s *Scheduler) overran(e *entry, now time.Time) {
	r := e.run
	if len(e.subs) == 0 {
		return
	}
	if s.stallEnd.After(r.start) && !e.excused && r.counted == 0 {
		// We were stopped, not the server: see what the run says.
		e.excused, r.excused = true, true
		s.schedule(e, now.Add(e.check.Timeout+grace))
		return
	}
	r.excused = false
	r.counted++
	s.stats.Overran++
	s.record(e, result{err: timeoutError{after: e.check.Timeout}}, now, now.Sub(r.start))
	s.schedule(e, now.Add(e.interval()))
}

// finish takes the result of a run.
func (s *Scheduler) finish(e *entry, r *run, res result) {
	end := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e.run = nil
	s.inUse -= e.cost
	s.running--
	s.heap.remove(e)
	defer s.admit(end)
	if len(e.subs) == 0 {
		s.forget(e)
		return
	}
	s.look(end)
	if s.runCtx == nil || s.runCtx.Err() != nil {
		return // ended by Run: no verdict
	}
	e.chase = false
	switch timedOut := res.err != nil && isTimeout(res.err); {
	case r.dropped: // and subscribed again meanwhile
		e.extra(end)
	case timedOut && r.counted == 0 && (r.excused || (s.stallEnd.After(r.start) && !e.excused)):
		e.excused = true
		s.stats.Excused++
		e.extra(end)
	default:
		if r.counted == 0 {
			e.excused = false
			s.record(e, res, end, end.Sub(r.start))
		} else {
			e.verdict = end // the failure that was counted held until now
		}
		next := e.due.Add(time.Duration(1+r.counted) * e.check.Interval)
		switch {
		case e.again:
			e.extra(end)
		case timedOut && e.health.Up && e.check.Timeout > e.check.Interval &&
			next.Add(e.check.Timeout).After(end.Add(e.check.Interval/2)):
			// The runs that were due during this one are made up for at once, each
			// with the deadline that it would have had, until it is decided.
			e.slot, e.due, e.chase = next, next, true
		default:
			s.following(e, end)
		}
	}
	e.again = false
	s.schedule(e, e.due)
}

// admit starts waiting entries while there is room. s.mu is held.
func (s *Scheduler) admit(now time.Time) {
	for len(s.waiting) > 0 && s.runCtx != nil && s.runCtx.Err() == nil {
		e := s.waiting[0]
		if s.inUse+e.cost > s.limit {
			return
		}
		s.waiting = s.waiting[1:]
		e.queued = false
		s.launch(e, now)
	}
}

// eventHeap orders entries by the time of their next event (container/heap).
type eventHeap []*entry

func (h eventHeap) Len() int           { return len(h) }
func (h eventHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h eventHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *eventHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop is for container/heap.
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = -1
	return e
}

func (h *eventHeap) remove(e *entry) {
	if e.index >= 0 {
		heap.Remove(h, e.index)
	}
}
