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

// alarm is how the loop sleeps.
type alarm interface {
	// wait returns at a moment (zero: at once), or sooner when it was rung or when
	// there are tasks whose sockets can go on. They are valid until the next call.
	wait(until time.Time) ([]*task, error)
	// ring ends a wait, now or the next one. Scheduler.mu is held.
	ring()
	close()
}

// sleeper is the alarm of tests with a fake clock, which has no sockets.
type sleeper struct {
	timer *time.Timer
	bell  chan struct{} // capacity 1
}

func (s *sleeper) wait(until time.Time) ([]*task, error) { // never zero: it has no tasks
	s.timer.Reset(time.Until(until))
	select {
	case <-s.bell:
	case <-s.timer.C:
	}
	return nil, nil
}

func (s *sleeper) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

func (s *sleeper) close() { s.timer.Stop() }

func (s *Scheduler) newAlarm() (alarm, error) {
	if s.polls {
		return newPoller()
	}
	return &sleeper{timer: time.NewTimer(0), bell: make(chan struct{}, 1)}, nil
}

// ring has the loop look at what is to be done now. s.mu is held.
func (s *Scheduler) ring() {
	if s.alarm != nil && !s.awake {
		s.awake = true
		s.alarm.ring()
	}
}

// loop is the one goroutine that waits for time to pass, and in which tasks
// run. Its error means that it could not go on; then it ends ctx, of all runs, by
// cancel.
func (s *Scheduler) loop(ctx context.Context, cancel func(), alarm alarm) (err error) {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ring()
	})
	defer stop()
	var pool workers
	defer pool.close()
	for err == nil && ctx.Err() == nil {
		until, ready := s.step(time.Now())
		if len(ready) > 0 {
			pool.resume(ready)
			// More may be due, or has only paused: sockets get a look in between.
			until = time.Time{}
		}
		var woken []*task
		woken, err = alarm.wait(until)
		s.woke(woken)
	}
	// No task begins any more, and those under way are told that they have to end.
	cancel()
	pool.resume(s.tasks())
	return err
}

// together is how many tasks begin before those that can go on have their turn:
// when thousands are due at once, answered ones end before all have begun, and
// so fewer connections, stacks and buffers are in use.
const together = 32

// step does what is due. It returns the tasks that are to be resumed at
// once, or when to be called again.
func (s *Scheduler) step(now time.Time) (until time.Time, ready []*task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look(now)
	s.sweep(now)
	for len(s.heap) > 0 && !s.heap[0].at.After(now) && len(s.ready) < together {
		e := s.heap[0]
		s.heap.remove(e)
		switch {
		case e.run == nil:
			s.start(e, now)
		case e.run.task != nil:
			s.ready = append(s.ready, e.run.task) // it looks at the time
		default:
			s.overran(e, now)
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
	ready, s.ready = s.ready, nil
	s.awake = len(ready) > 0
	return next, ready
}

// woke takes over what an alarm has found.
func (s *Scheduler) woke(tasks []*task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awake = true
	s.ready = append(s.ready, tasks...)
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
		s.ring()
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
	}
	e.skipped = false
	s.inUse += e.cost
	s.running++
	s.stats.Runs++
	if e.inLoop {
		s.launchTask(e, now, deadline)
		return
	}
	if !e.chase {
		s.countLate(now.Sub(e.due))
	}
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
		c, err := s.make(*e.check)
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
