// Package solo runs groups of resources where no cluster decides: whoever uses
// it says which are wanted here (a VRRP router that is master, say).
package solo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// again is how long a group waits that could not be started, or failed for good.
const again = 5 * time.Second

// look is how often Stop looks whether everything has stopped.
const look = 50 * time.Millisecond

// Config is what a Runner is given.
type Config struct {
	Node     string
	Registry resources.Registry
	Journal  resources.Journal // what an earlier run has left is taken back, or goes on if it is wanted
	Logger   *slog.Logger
}

// Runner runs the groups that are wanted.
type Runner struct {
	cfg     Config
	manager *resources.Manager

	mu     sync.Mutex // guards what follows
	wanted map[string]bool
	epochs map[string]uint64 // of the groups that are wanted
	last   uint64            // epoch that was given out
	failed map[string]error  // groups that wait to be tried again
	ended  bool
}

// New returns a runner. It takes back nothing and starts nothing before Want is called.
func New(cfg Config) (*Runner, error) {
	r := &Runner{cfg: cfg, wanted: map[string]bool{}, epochs: map[string]uint64{}, failed: map[string]error{}}
	r.manager = resources.NewManager(resources.ManagerConfig{
		Node: cfg.Node, Registry: cfg.Registry, Journal: cfg.Journal, Logger: cfg.Logger, Report: r.report,
	})
	if err := r.manager.Recover(); err != nil {
		r.manager.Close()
		return nil, err
	}
	for name, epoch := range r.manager.Adopted() {
		r.epochs[name], r.last = epoch, max(r.last, epoch)
	}
	return r, nil
}

// Configure says which groups there are. One that is gone stops; one that has
// changed takes the change as its resources can.
func (r *Runner) Configure(spec conf.Spec) { r.manager.Configure(spec) }

// Want says which groups are to run here; all others stop.
func (r *Runner) Want(groups map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	for name := range r.failed {
		if !groups[name] {
			delete(r.failed, name)
		}
	}
	for name, want := range groups {
		if !want || r.wanted[name] {
			continue
		}
		if r.epochs[name] == 0 {
			r.renewLocked(name)
		}
	}
	for name := range r.epochs {
		if !groups[name] {
			delete(r.epochs, name)
		}
	}
	r.wanted = maps.Clone(groups)
	r.manager.Own(r.epochs)
}

func (r *Runner) renewLocked(name string) {
	r.last++
	r.epochs[name] = r.last
}

// report hears what became of a group. It comes from the group's goroutine.
func (r *Runner) report(p resources.Report) {
	if p.Err == nil {
		return
	}
	what := "group " + p.Group + " could not be started, or has failed, and has stopped"
	if p.Outcome == resources.Stuck {
		what = "group " + p.Group + " does not stop"
	}
	r.cfg.Logger.Error(what, "resource", p.Resource, "err", p.Err, "again_in", again)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.wanted[p.Group] || r.epochs[p.Group] != p.Epoch || p.Outcome == resources.Stuck {
		return // a stop is tried again by itself
	}
	r.failed[p.Group] = fmt.Errorf("%s: %w", p.Resource, p.Err)
	time.AfterFunc(again, func() { r.retry(p.Group, p.Epoch) })
}

func (r *Runner) retry(group string, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || !r.wanted[group] || r.epochs[group] != epoch {
		return
	}
	delete(r.failed, group)
	r.renewLocked(group)
	r.manager.Own(r.epochs)
}

// Status returns the state of every group, sorted by name.
func (r *Runner) Status() []resources.GroupStatus { return r.manager.Status() }

// Failed returns, by group, why it does not run although it is wanted.
func (r *Runner) Failed() map[string]error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.failed)
}

// Stop stops all groups and ends the runner. The error names those that have
// not stopped when ctx ends; the journal still has them.
func (r *Runner) Stop(ctx context.Context) error {
	r.Want(nil)
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	defer r.manager.Close()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for !r.manager.Idle() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			var names []string
			for _, g := range r.manager.Status() {
				if g.Phase != "idle" {
					names = append(names, g.Name)
				}
			}
			return errors.Join(fmt.Errorf("not stopped: %s", strings.Join(names, ", ")), ctx.Err())
		}
	}
	return nil
}

// Close ends the runner and leaves what runs: the next one goes on with it.
func (r *Runner) Close() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.manager.Close()
}
