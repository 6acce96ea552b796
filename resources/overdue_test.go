package resources

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// deaf is a resource of which one operation heeds no time-out: it ends when let is closed.
type deaf struct {
	op    string
	let   chan struct{}
	began atomic.Int64 // when that operation has, in Unix nanoseconds
}

func (d *deaf) New(Env, conf.Spec, conf.Resource) (Resource, error) { return d, nil }
func (d *deaf) Recover(Env, json.RawMessage) (Resource, error)      { return d, nil }
func (d *deaf) Record() (json.RawMessage, error)                    { return json.RawMessage(`{}`), nil }
func (d *deaf) Start(context.Context) error                         { return d.do("start") }
func (d *deaf) Stop(context.Context) error                          { return d.do("stop") }
func (d *deaf) Monitor(context.Context) error                       { return d.do("monitor") }
func (d *deaf) Close() error                                        { return nil }

func (d *deaf) do(op string) error {
	if op == d.op {
		d.began.CompareAndSwap(0, time.Now().UnixNano())
		<-d.let
	}
	return nil
}

func TestAnOperationIsOverdueTenSecondsAfterItsTimeout(t *testing.T) {
	for op, limit := range map[string]time.Duration{"start": 20 * time.Second, "stop": 30 * time.Second, "monitor": 5 * time.Second, "none": 0} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &deaf{op: op, let: make(chan struct{})}
				m := NewManager(ManagerConfig{
					Node: "director1", Registry: Registry{"deaf": d}, Journal: Journal{t.TempDir()}, Report: func(Report) {}, Logger: slog.New(slog.DiscardHandler),
				})
				defer m.Close()
				m.Configure(conf.Spec{Groups: []conf.Group{{Name: "db", Resources: []conf.Resource{{
					Kind: "deaf", Name: "fs", Class: conf.Fenced, StartTimeout: 20 * time.Second, StopTimeout: 30 * time.Second,
					MonitorTimeout: 5 * time.Second, MonitorInterval: time.Second,
				}}}}})
				m.Own(map[string]uint64{"db": 1})
				time.Sleep(3 * time.Second) // it is started, and looked at
				m.Own(nil)
				if op == "none" {
					time.Sleep(time.Hour)
					if late := m.Overdue(); late != nil {
						t.Errorf("nothing hangs, and %q is overdue", late)
					}
					return
				}
				synctest.Wait()
				time.Sleep(time.Until(time.Unix(0, d.began.Load()).Add(limit + overdueGrace)))
				if late := m.Overdue(); late != nil {
					t.Errorf("too early: %q", late)
				}
				time.Sleep(time.Millisecond)
				want := op + " of fs hangs: it has gone on for " + (limit + overdueGrace).String() + ", its time-out is " + limit.String()
				if late := m.Overdue(); len(late) != 1 || late["db"] != want {
					t.Errorf("got  %q\nwant %q", late, want)
				}
				close(d.let)
				synctest.Wait()
				if late := m.Overdue(); late != nil {
					t.Errorf("it has ended, and %q", late)
				}
			})
		})
	}
}
