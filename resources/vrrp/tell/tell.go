// Package tell runs an administrator's programs and writes mails when a virtual
// router or a sync group has changed its state.
package tell

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	// runTime is how long a program may run before it is ended.
	runTime = time.Minute
	// lastTime is how long programs may still run when keepbeat stops: notify_stop
	// is worth waiting for, and not for ever.
	lastTime = 10 * time.Second
	// patience is how much of that one may take behind which another waits: a
	// program that hangs does not keep notify_stop from running.
	patience = lastTime / 2
	// most programs of an instance or group may wait. What a router that flaps
	// has been is not worth more; behind one that hung only what it is now is.
	most = 100
)

// Change is what has changed.
type Change struct {
	Group    bool   // a sync group, otherwise an instance
	Name     string // as the file has it
	State    string // MASTER, BACKUP, FAULT, STOP
	Priority uint8  // 0 for a group
}

// String is the line of a mail, in keepalived's words.
func (c Change) String() string {
	what := "VRRP Instance"
	if c.Group {
		what = "VRRP Group"
	}
	if c.State == "STOP" {
		return fmt.Sprintf("%s %s - stopped", what, c.Name)
	}
	return fmt.Sprintf("%s %s - Entering %s state", what, c.Name, c.State)
}

// commands are what is to be run, in keepalived's order: the program of the
// state, then that of all states with what has changed behind its own arguments.
func commands(n *conf.VRRPNotify, c Change) [][]string {
	var all [][]string
	own := map[string][]string{"MASTER": n.Master, "BACKUP": n.Backup, "FAULT": n.Fault, "STOP": n.Stop}[c.State]
	if len(own) > 0 {
		all = append(all, own)
	}
	if len(n.Notify) > 0 {
		what := "INSTANCE"
		if c.Group {
			what = "GROUP"
		}
		all = append(all, append(slices.Clone(n.Notify), what, c.Name, c.State, strconv.Itoa(int(c.Priority))))
	}
	return all
}

// Config is what a Teller needs.
type Config struct {
	// Run runs a program as a user until ctx ends.
	Run func(ctx context.Context, user string, command []string) error
	// Mail sends a line to whom the file names; it does not wait.
	Mail   func(line string)
	Logger *slog.Logger
}

// Teller runs the programs of each instance and group one after the other, in
// the order of the changes, and those of different ones beside each other.
type Teller struct {
	cfg  Config
	ctx  context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	earlier context.Context // of what began before the end was near
	hurry   context.CancelFunc

	mu     sync.Mutex // guards the rest
	queues map[string]*queue
	quiet  chan struct{} // closed when there is no queue any more
	closed bool
}

// queue is what waits for one instance or group; it exists while something runs.
type queue struct {
	waiting []run
	changes int // so far
	leftOut int // programs that were not run, of which the journal has not the number yet
}

type run struct {
	user    string
	command []string
	change  int // of which it is
}

// drop leaves out the first of those that wait. It is said when that begins, and
// how many there were at the end.
func (q *queue) drop(n int, name, why string, log *slog.Logger) {
	if n <= 0 {
		return
	}
	if q.leftOut == 0 {
		log.Error("notify programs are left out: "+why, "of", name)
	}
	q.leftOut += n
	q.waiting = slices.Delete(q.waiting, 0, n)
}

// New returns a Teller. Close ends it.
func New(cfg Config) *Teller {
	t := &Teller{cfg: cfg, queues: map[string]*queue{}}
	t.ctx, t.end = context.WithCancel(context.Background())
	t.earlier, t.hurry = context.WithCancel(t.ctx)
	return t
}

// Tell has a change told. It does not wait.
func (t *Teller) Tell(n *conf.VRRPNotify, c Change) {
	if n.Mail && c.State != "STOP" {
		t.cfg.Mail(c.String())
	}
	all := commands(n, c)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(all) == 0 || t.closed {
		return
	}
	key := fmt.Sprint(c.Group, " ", c.Name)
	q := t.queues[key]
	if q == nil {
		if len(t.queues) == 0 {
			t.quiet = make(chan struct{})
		}
		q = &queue{}
		t.queues[key] = q
		t.done.Go(func() { t.work(key, c.Name, q) })
	}
	q.changes++
	for _, command := range all {
		q.waiting = append(q.waiting, run{n.User, command, q.changes})
	}
	q.drop(len(q.waiting)-most, c.Name, "the state changes faster than they end", t.cfg.Logger)
}

// work runs what waits in a queue until nothing does.
func (t *Teller) work(key, name string, q *queue) {
	hung := false
	for {
		t.mu.Lock()
		if hung {
			last := func(r run) bool { return r.change == q.changes }
			q.drop(max(0, slices.IndexFunc(q.waiting, last)), name, "one before them has hung, and only the last change is told", t.cfg.Logger)
		}
		if len(q.waiting) == 0 || t.ctx.Err() != nil {
			if q.leftOut > 0 {
				t.cfg.Logger.Error("so many notify programs were left out", "of", name, "left_out", q.leftOut)
			}
			for _, r := range q.waiting {
				t.cfg.Logger.Error("notify program is not run: keepbeat stops", "program", strings.Join(r.command, " "))
			}
			delete(t.queues, key)
			if len(t.queues) == 0 {
				close(t.quiet)
			}
			t.mu.Unlock()
			return
		}
		r := q.waiting[0]
		q.waiting = q.waiting[1:]
		t.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.ctx, runTime)
		spared := func() bool { return true }
		if t.earlier.Err() == nil {
			spared = context.AfterFunc(t.earlier, func() {
				if t.waits(q) {
					cancel()
				}
			})
		}
		begin := time.Now()
		err := t.cfg.Run(ctx, r.user, r.command)
		hung = ctx.Err() != nil
		spared()
		cancel()
		log := t.cfg.Logger.With("program", strings.Join(r.command, " "), "took", time.Since(begin).Round(time.Millisecond))
		if err != nil {
			log.Error("notify program failed", "err", err)
		} else {
			log.Info("notify program was run")
		}
	}
}

// waits says whether something waits behind what runs.
func (t *Teller) waits(q *queue) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(q.waiting) > 0
}

// Idle waits until nothing runs or waits, or ctx ends; false: it ended first.
func (t *Teller) Idle(ctx context.Context) bool {
	for {
		t.mu.Lock()
		idle, quiet := len(t.queues) == 0, t.quiet
		t.mu.Unlock()
		if idle {
			return true
		}
		select {
		case <-quiet:
		case <-ctx.Done():
			return false
		}
	}
}

// Close waits for what runs and waits, for at most lastTime, and ends it then;
// what others wait for is ended after patience.
func (t *Teller) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	first, last := time.AfterFunc(patience, t.hurry), time.AfterFunc(lastTime, t.end)
	defer first.Stop()
	defer last.Stop()
	t.done.Wait()
	t.end()
}
