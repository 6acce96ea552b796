package checks

import (
	"context"
	"iter"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// task is a run of a check in the goroutine of the loop: a coroutine, which
// gives way whenever its socket would make it wait. Its code is that of a run in
// a goroutine of its own; poller says what is saved. All of it belongs to the
// goroutine of the loop, but for dropped.
type task struct {
	s        *Scheduler
	p        *poller
	e        *entry
	r        *run
	ctx      context.Context // of the scheduler's Run
	due      time.Time       // for Stats.Late; zero: not counted
	deadline time.Time
	dropped  atomic.Bool // its subscribers went away

	on      *worker // nil: it has not begun
	done    bool
	giveWay func(struct{}) bool
}

// runsInLoop says whether runs of a check are tasks: of checks that do nothing
// but to wait for a server and to look once at a bounded number of bytes. TLS, and
// expressions with choices, can take processor time that others would wait for.
func runsInLoop(c conf.Check) bool {
	switch c.Type {
	case conf.Connect:
		return c.Service != "udp"
	case conf.Negotiate:
		return (c.Service == "http" || c.Service == "http_proxy") && c.Connects == 0 && c.HTTPVersion != "2" &&
			c.Digest == "" && regexp.QuoteMeta(c.Receive) == c.Receive
	}
	return false
}

// launchTask begins a run of an entry as a task. s.mu is held.
func (s *Scheduler) launchTask(e *entry, now, deadline time.Time) {
	t := &task{s: s, p: s.alarm.(*poller), e: e, ctx: s.runCtx, deadline: deadline}
	if !e.chase {
		t.due = e.due
	}
	t.r = &run{start: now, task: t, cancel: func() {
		t.dropped.Store(true)
		s.ready = append(s.ready, t)
		s.ring()
	}}
	e.run = t.r
	s.schedule(e, deadline)
	s.ready = append(s.ready, t)
	s.ring()
}

// tasks are those under way.
func (s *Scheduler) tasks() (all []*task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.entries.all() {
		if e.run != nil && e.run.task != nil {
			all = append(all, e.run.task)
		}
	}
	return all
}

// taskContext is the context of a task: with the deadline, and for dialCheck the
// task. That the deadline has passed is told where the task waits, and not by
// Done, which would take a timer for each.
type taskContext struct {
	context.Context
	t *task
}

type taskKey struct{}

func (c taskContext) Deadline() (time.Time, bool) { return c.t.deadline, true }

func (c taskContext) Value(key any) any {
	if key == (taskKey{}) {
		return c.t
	}
	return c.Context.Value(key)
}

// taskOf is the task that runs with a context; nil: a goroutine does.
func taskOf(ctx context.Context) *task {
	t, _ := ctx.Value(taskKey{}).(*task)
	return t
}

// run is all of a task.
func (t *task) run() {
	s, now := t.s, time.Now()
	s.mu.Lock()
	if !t.due.IsZero() {
		s.countLate(now.Sub(t.due))
	}
	t.r.start = now
	s.mu.Unlock()
	s.finish(t.e, t.r, s.check(taskContext{t.ctx, t}, t.e))
	t.done = true
}

// ended is why a task can wait no longer; nil: it may.
func (t *task) ended(until time.Time) error {
	switch {
	case t.dropped.Load() || t.ctx.Err() != nil:
		return context.Canceled
	case !time.Now().Before(until):
		return context.DeadlineExceeded
	}
	return nil
}

// wait gives way until something has happened to a descriptor that the poller
// knows, until a moment (at most the deadline), or until the task has to end.
// It may return too early.
func (t *task) wait(fd int, until time.Time) error {
	if err := t.ended(until); err != nil {
		return err
	}
	t.s.mu.Lock()
	if t.e.index < 0 || until.Before(t.e.at) {
		t.s.schedule(t.e, until)
	}
	t.s.mu.Unlock()
	t.p.waiting[int32(fd)] = t
	t.giveWay(struct{}{})
	delete(t.p.waiting, int32(fd))
	return nil
}

// pause gives way to others that can go on.
func (t *task) pause(until time.Time) error {
	if err := t.ended(until); err != nil {
		return err
	}
	t.s.woke([]*task{t})
	t.giveWay(struct{}{})
	return nil
}

// worker is a coroutine that runs one task after the other.
type worker struct {
	next func() (struct{}, bool)
	stop func()
	job  *task
}

func newWorker() *worker {
	w := &worker{}
	w.next, w.stop = iter.Pull(func(yield func(struct{}) bool) {
		for more := true; more; more = yield(struct{}{}) {
			w.job.giveWay = yield
			w.job.run()
		}
	})
	return w
}

// workers are those of a loop that have no task.
type workers []*worker

// idleWorkers is how many are kept: as many as have a task at once, as long as
// servers answer, of some thousand checks a second. Each keeps its stack.
const idleWorkers = 64

// resume has each of the tasks go on until it waits or has ended. One that has
// ended already is left alone.
func (pool *workers) resume(tasks []*task) {
	for _, t := range tasks {
		if t.done {
			continue
		}
		if t.on == nil {
			if n := len(*pool); n > 0 {
				t.on, *pool = (*pool)[n-1], (*pool)[:n-1]
			} else {
				t.on = newWorker()
			}
			t.on.job = t
		}
		w := t.on
		w.next()
		if !t.done {
			continue
		}
		if t.on, w.job = nil, nil; len(*pool) < idleWorkers {
			*pool = append(*pool, w)
		} else {
			w.stop()
		}
	}
}

func (pool *workers) close() {
	for _, w := range *pool {
		w.stop()
	}
}
