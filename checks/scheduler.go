package checks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/checks/icmp"
	"github.com/keepbeat/keepbeat/conf"
)

// Status is what is known about one check.
type Status struct {
	Known     bool          `json:"known"`             // there has been a result
	Up        bool          `json:"up"`                // by rise and fall
	OK        bool          `json:"ok"`                // the last single result
	Detail    string        `json:"detail"`            // the last answer or error in words: at most 200 bytes, UTF-8, printable
	Last      time.Time     `json:"last"`              // end of the last check
	Duration  time.Duration `json:"duration"`          // of the last check
	Since     time.Time     `json:"since"`             // of Up
	Fails     int           `json:"fails"`             // in a row
	Successes int           `json:"successes"`         // in a row
	Weighed   bool          `json:"weighed,omitempty"` // the last success gave a weight
	Weight    int           `json:"weight,omitempty"`  // with Weighed: 0 to 65535
	// Overdue: the last verdict is older than interval, jitter and time-out
	// allow: how the server is now is not known. Set by Scheduler.Status.
	Overdue bool `json:"overdue,omitempty"`
}

// Config is what a Scheduler needs.
type Config struct {
	Logger *slog.Logger // nil: nothing is logged

	// Concurrency is how many descriptors checks may use at once: one for most,
	// four for external. Checks beyond it wait, which is counted and logged.
	// Default (0): Descriptors().
	Concurrency int

	// NewChecker makes checkers. Default (nil): those of this package. For tests,
	// with a fake clock too: none of them runs in the goroutine of the loop.
	NewChecker func(conf.Check) (Checker, error)
}

// Scheduler runs checks. Each starts once per Interval, or IntervalDown while
// its server is down, at a phase of its own that follows from what it checks, so
// that the work is even and stays so; Jitter puts each start off by a part of it.
// The first run comes within a tenth of the interval.
//
// A check that hangs costs others nothing, is never run twice at once, and
// counts as a failure when its time-out has passed even if it does not return.
// With a time-out longer than the interval, failures are counted as if runs
// overlapped: the n-th comes no later than the n-th interval plus jitter and time-out.
//
// When this process was stopped or starved, runs that became due meanwhile are
// left out instead of run in a burst, and a time-out that fell into that time
// is not held against the server: the check is run again.
type Scheduler struct {
	log   *slog.Logger
	make  func(conf.Check) (Checker, error)
	ping  *icmp.Pinger
	limit int
	polls bool // Run makes a poller: there are sockets, and no fake clock
	wg    sync.WaitGroup

	mu                  sync.Mutex // guards all below, and the fields of entries and subscribers
	entries             book
	heap                eventHeap
	waiting             []*entry // due, and no descriptor free; first come, first served
	inUse               int      // descriptors in use
	running             int
	alarm               alarm           // nil: not in Run
	ready               []*task         // that the loop is to begin or to go on with
	awake               bool            // the loop looks at ready and heap before it sleeps
	runCtx              context.Context // nil: not in Run
	started             bool
	ended               bool      // no more goroutines are started
	epoch               time.Time // phases count from here
	nextWake            time.Time // when the loop means to run again
	stallEnd            time.Time // when the loop last found that it had not been run for a while
	swept               time.Time // when overdue checks were last looked for
	saidFull, saidLocal time.Time
	saidOverdue         time.Time
	saidCaughtUp        time.Time
	stats               Stats
}

// entry is one distinct check.
type entry struct {
	check   *conf.Check // with defaults filled in; read only
	inLoop  bool        // its runs are tasks
	key     *conf.Check // as subscribed; mostly the same one
	next    *entry      // of Scheduler.entries
	checker Checker
	subs    []*subscriber
	cost    int    // descriptors a run needs
	place   uint64 // phases follow from it

	health  Health
	status  Status
	verdict time.Time // when health was last found; before that, when this was begun

	slot    time.Time // place in the schedule that due follows from
	due     time.Time // start of the next run; of the present one while it runs
	at      time.Time // of the next event; heap order
	index   int       // in the heap; -1: not there
	run     *run      // nil: not running
	queued  bool      // in Scheduler.waiting
	chase   bool      // the next run follows a time-out at once, and keeps its own deadline
	skipped bool      // the run before was left out because it was late
	excused bool      // the result before was not counted because of a stall
	again   bool      // Now was called while it ran
}

// run is one execution.
type run struct {
	start   time.Time
	cancel  context.CancelFunc // s.mu is held
	task    *task              // nil: a goroutine of its own
	counted int                // failures counted already because it overran
	dropped bool               // its subscribers went away: no verdict
	excused bool               // it overran in a stall: no verdict
}

// NewScheduler makes a Scheduler; Run makes it work.
func NewScheduler(cfg Config) *Scheduler {
	s := &Scheduler{
		log:     cfg.Logger,
		make:    cfg.NewChecker,
		limit:   cfg.Concurrency,
		ping:    icmp.NewPinger(),
		polls:   cfg.NewChecker == nil,
		entries: newBook(),
		epoch:   time.Now(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.limit <= 0 {
		s.limit = Descriptors()
	}
	if s.make == nil {
		e := newEnv(s.ping)
		s.make = func(c conf.Check) (Checker, error) { return newChecker(c, e) }
	}
	return s
}

// shortest is the least interval: a mistake must not become an attack.
const shortest = 10 * time.Millisecond

// withDefaults fills in what a hand-made Check may lack. conf fills in all.
func withDefaults(c conf.Check) conf.Check {
	if c.Interval <= 0 {
		c.Interval = 10 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	c.Interval = max(c.Interval, shortest)
	if c.IntervalDown > 0 {
		c.IntervalDown = max(c.IntervalDown, shortest)
	}
	c.Jitter = max(c.Jitter, 0)
	c.Fall, c.Rise = max(c.Fall, 1), max(c.Rise, 1)
	return c
}

// Subscribe adds a holder of a check. Equal checks are run once whatever the
// number of holders; a check that somebody holds already keeps its history.
//
// notify, which may be nil, is called whenever Known, Up or the weight changes,
// and at first when the state is already known. Calls come one at a time, outside all
// locks, and may block: then only the latest state is kept for that subscriber,
// and nobody else is held up. cancel ends the subscription; a call under way may
// still finish after it, and no other begins. The last cancel ends the check.
func (s *Scheduler) Subscribe(c conf.Check, notify func(Status)) (cancel func()) {
	sub := &subscriber{notify: notify}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries.find(c)
	if e == nil {
		own := c
		e = &entry{key: &own, check: &own, index: -1, cost: min(cost(c), s.limit), place: placeOf(c), inLoop: s.polls && runsInLoop(c)}
		if full := withDefaults(c); full != c {
			e.check = &full
		}
		s.entries.add(e)
		s.begin(e)
	} else if e.run != nil && e.run.dropped {
		// The run that the last cancel ended has not returned yet. If it never
		// does, the new subscribers are to hear of it.
		e.verdict = time.Now()
		s.schedule(e, e.verdict.Add(e.check.Timeout+grace))
	}
	e.subs = append(e.subs, sub)
	if e.status.Known {
		s.tell(sub, e.status)
	}
	return func() { s.unsubscribe(e, sub) }
}

func (s *Scheduler) unsubscribe(e *entry, sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.gone {
		return
	}
	sub.gone, sub.pending = true, nil
	for i, x := range e.subs {
		if x == sub {
			e.subs = append(e.subs[:i:i], e.subs[i+1:]...)
			break
		}
	}
	if len(e.subs) > 0 {
		return
	}
	if e.run != nil {
		// It stays until the run has ended, so that a new subscription cannot
		// start a second one beside it.
		e.run.dropped = true
		e.run.cancel()
		return
	}
	s.forget(e)
}

// forget removes an entry that does not run.
func (s *Scheduler) forget(e *entry) {
	s.heap.remove(e)
	if e.queued {
		for i, x := range s.waiting {
			if x == e {
				s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
				break
			}
		}
		e.queued = false
	}
	s.entries.remove(e)
}

// begin gives a new entry its first event.
func (s *Scheduler) begin(e *entry) {
	now := time.Now()
	switch e.check.Type {
	case conf.On, conf.Off: // decided without asking anybody
		detail, err := constant{up: e.check.Type == conf.On}.Check(context.Background())
		s.record(e, result{detail: detail, err: err}, now, 0)
		return
	}
	s.first(e, now)
}

// first plans an entry's first run: after a tenth of the phase, and from then
// on at the phase itself.
func (s *Scheduler) first(e *entry, now time.Time) {
	e.verdict = now
	e.extra(now.Add(e.phase() / 10))
	s.schedule(e, e.due)
}

// Status returns what is known about a check; false: nobody holds it.
func (s *Scheduler) Status(c conf.Check) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries.find(c)
	if e == nil || len(e.subs) == 0 {
		return Status{}, false
	}
	st, now := e.status, time.Now()
	if c.Type == conf.On || c.Type == conf.Off {
		st.Last = now // true at any time, never stale
	}
	st.Overdue = s.overdue(e, now)
	return st, true
}

// Now runs a check at once, or once more at once when it is running. Its
// schedule stays as it is.
func (s *Scheduler) Now(c conf.Check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries.find(c)
	switch {
	case e == nil || e.queued || c.Type == conf.On || c.Type == conf.Off:
	case e.run != nil:
		e.again = true
	default:
		e.extra(time.Now())
		s.schedule(e, e.due)
	}
}

// result is what one run came to.
type result struct {
	detail  string
	err     error
	weighed bool
	weight  int
}

// record takes a result into the entry and tells its subscribers. s.mu is held.
func (s *Scheduler) record(e *entry, r result, end time.Time, took time.Duration) {
	st, detail, err := &e.status, r.detail, r.err
	if err != nil {
		detail = err.Error()
	}
	st.OK, st.Last, st.Duration = err == nil, end, took
	if st.Detail != detail {
		st.Detail = words(detail)
	}
	if err != nil && Local(err) {
		// No verdict: a director short of descriptors must not take every
		// server down.
		s.stats.Local++
		s.say(slog.LevelError, &s.saidLocal, end,
			"a check could not be made for want of something on this node; the server's state is kept",
			"server", e.name(), "error", st.Detail, "so far", s.stats.Local)
		return
	}
	e.verdict = end
	weight := err == nil && (r.weighed != st.Weighed || r.weight != st.Weight)
	if weight {
		st.Weighed, st.Weight = r.weighed, r.weight
	}
	before := e.health
	e.health = before.Next(err == nil, e.check.Fall, e.check.Rise)
	st.Known, st.Up, st.Fails, st.Successes = true, e.health.Up, e.health.Fails, e.health.Successes
	changed := !before.Known || before.Up != st.Up
	if changed {
		st.Since = end
	}
	if !changed && !weight {
		return
	}
	for _, sub := range e.subs {
		s.tell(sub, *st)
	}
}

// name is how logs call a check.
func (e *entry) name() string {
	n := e.check.Target.String()
	if !e.check.Target.IsValid() {
		n = e.check.Args
	}
	return n + " " + cmp.Or(e.check.Service, e.check.Type.String())
}

const sayEvery = 10 * time.Second

// say logs, now and then, and in a goroutine: whoever reads the log may be slow.
// s.mu is held.
func (s *Scheduler) say(level slog.Level, last *time.Time, now time.Time, msg string, args ...any) {
	if now.Sub(*last) < sayEvery || s.ended {
		return
	}
	*last = now
	s.wg.Go(func() { s.log.Log(context.Background(), level, msg, args...) })
}

// Stats counts since the start.
type Stats struct {
	Checks  int // distinct checks held now
	Running int // of them running now
	Runs    uint64
	Waits   uint64 // runs that had to wait for descriptors
	Missed  uint64 // runs left out because this process was stopped or starved
	Excused uint64 // time-outs not counted for the same reason
	Overran uint64 // failures counted of checks that overran their time-out
	Overdue int    // checks whose last verdict is older than their schedule allows, when last looked for
	Local   uint64 // runs without a verdict: this machine lacked something
	MaxLate time.Duration
	// Late counts runs by how late they started: Late[0] below 64 µs, Late[i]
	// below 64 µs << i.
	Late [24]uint64
}

// Stats returns the counters.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Checks, st.Running = s.entries.n, s.running
	return st
}

// Run runs the checks until ctx ends, then waits for those under way. It
// returns nil, or an error that says how many had not ended after five seconds.
// It can be called once.
func (s *Scheduler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.started {
		s.mu.Unlock()
		return errors.New("checks: Run was called twice")
	}
	s.started = true
	alarm, err := s.newAlarm()
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("checks: %w", err)
	}
	s.runCtx, s.alarm = ctx, alarm
	now := time.Now()
	for e := range s.entries.all() { // those that were subscribed before
		if e.index >= 0 {
			s.first(e, now)
		}
	}
	s.mu.Unlock()

	err = s.loop(ctx, cancel, alarm)

	s.mu.Lock()
	s.runCtx, s.alarm, s.ended = nil, nil, true
	alarm.close()
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.wg.Wait()
		s.ping.Close()
	}()
	patience := time.NewTimer(5 * time.Second)
	defer patience.Stop()
	select {
	case <-done:
		return err
	case <-patience.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		return errors.New("checks: " + strconv.Itoa(s.running) + " checks, or callbacks of subscribers, did not end")
	}
}
