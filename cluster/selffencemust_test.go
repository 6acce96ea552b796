package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// stopping is a resource whose stop does what a test says.
type stopping func(ctx context.Context) error

func (s stopping) New(resources.Env, conf.Spec, conf.Resource) (resources.Resource, error) {
	return s, nil
}
func (s stopping) Recover(resources.Env, json.RawMessage) (resources.Resource, error) { return s, nil }
func (s stopping) Record() (json.RawMessage, error)                                   { return json.RawMessage(`{}`), nil }
func (s stopping) Start(context.Context) error                                        { return nil }
func (s stopping) Stop(ctx context.Context) error                                     { return s(ctx) }
func (s stopping) Monitor(context.Context) error                                      { return nil }
func (s stopping) Close() error                                                       { return nil }

func TestANodeResetsItselfForWhatDoesNotStop(t *testing.T) {
	const lease = 500 * time.Millisecond // of the default profile
	broken := errors.New("device is busy")
	never := func(over <-chan struct{}) stopping {
		return func(context.Context) error { <-over; return nil }
	}
	for name, c := range map[string]struct {
		class conf.Class
		stop  func(over <-chan struct{}) stopping // over is closed at the end of the test
		lost  bool                                // the lease, at the moment when it is told to stop
		holds bool                                // it is not told to stop
		want  string
		at    time.Duration // from then on; found within 100 ms
	}{
		"a stop that works": {class: conf.Fenced, lost: true, stop: func(<-chan struct{}) stopping {
			return func(context.Context) error { time.Sleep(29 * time.Second); return nil }
		}},
		"a stop that fails": {class: conf.Fenced, stop: func(<-chan struct{}) stopping {
			return func(context.Context) error { time.Sleep(2 * time.Second); return broken }
		}, want: "group db: fs does not stop: device is busy", at: 8 * time.Second}, // tried three times, a second apart
		"a stop that gives up at its time-out": {class: conf.Fenced, stop: func(<-chan struct{}) stopping {
			return func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		}, want: "group db: fs does not stop: not stopped within 30s: context deadline exceeded", at: 92 * time.Second},
		"such a stop without a lease": {class: conf.Fenced, lost: true, stop: func(<-chan struct{}) stopping {
			return func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		}, want: "group db still runs 31s after the lease was lost", at: 30*time.Second + lease},
		"a stop that heeds nothing": {class: conf.Fenced, stop: never,
			want: "group db: stop of fs hangs: it has gone on for 40s, its time-out is 30s", at: 40 * time.Second},
		"a stop that heeds nothing, without a lease": {class: conf.Fenced, stop: never, lost: true,
			want: "group db still runs 31s after the lease was lost", at: 30*time.Second + lease},
		"what is not even told to stop without a lease": {class: conf.Fenced, stop: never, lost: true, holds: true,
			want: "group db still runs 31s after the lease was lost", at: 30*time.Second + lease},
		"not for what goes on with a lease":                      {class: conf.Fenced, stop: never, holds: true},
		"not for what the guard cuts off, whose stop hangs":      {class: conf.Guarded, stop: never, lost: true},
		"not for what may run twice, whose stop fails":           {class: conf.Shared, stop: func(<-chan struct{}) stopping { return func(context.Context) error { return broken } }},
		"not for what the guard cuts off, which runs on instead": {class: conf.Guarded, stop: never, lost: true, holds: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over := make(chan struct{})
				spec := &conf.Spec{Settings: conf.Settings{Profile: conf.ProfileDefault}, Groups: []conf.Group{{
					Name: "db", Resources: []conf.Resource{{Kind: "played", Name: "fs", Class: c.class, StopTimeout: 30 * time.Second, MonitorInterval: time.Hour}},
				}}}
				n := &Node{reports: map[string]resources.Report{}}
				n.manager = resources.NewManager(resources.ManagerConfig{
					Node: "director1", Registry: resources.Registry{"played": c.stop(over)}, Journal: resources.Journal{Dir: t.TempDir()}, Report: n.report, Logger: slog.New(slog.DiscardHandler),
				})
				defer n.manager.Close()
				defer close(over)
				n.manager.Configure(*spec)
				n.manager.Own(map[string]uint64{"db": 1})
				synctest.Wait()
				st := &state.State{Spec: spec, Groups: map[string]state.Group{"db": {Name: "db", Owner: "director1", Epoch: 1}}}
				began, lost := time.Now(), time.Time{}
				if c.lost {
					lost = began
				}
				if !c.holds {
					n.manager.Own(nil)
				}
				why := ""
				for why == "" && time.Since(began) < time.Hour {
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
					why = n.mustDie(st, lost)
				}
				if why != c.want {
					t.Errorf("got  %q\nwant %q", why, c.want)
				}
				if late := time.Since(began) - c.at; c.want != "" && (late < 0 || late > 200*time.Millisecond) {
					t.Errorf("said after %v, want %v", time.Since(began), c.at)
				}
				// Whoever waits for the reset of a node that has lost its lease counts on this.
				if within := conf.ResetWithin(lease, 30*time.Second, 0) - lease - conf.LoopAge; c.lost && c.want != "" && c.at > within {
					t.Errorf("%v after the lease, which is more than %v", c.at, within)
				}
			})
		})
	}
}
