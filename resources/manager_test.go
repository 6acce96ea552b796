package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keepbeat/keepbeat/conf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a machine on which fake resources write down what is done to them.
type world struct {
	t       *testing.T
	m       *Manager
	journal Journal

	mu      sync.Mutex // guards what follows
	lines   []string
	fail    map[string]error         // "start a", "stop a", "monitor a", "ready a", "update a", "cut", "hold"
	hang    map[string]time.Duration // how long a call takes, unless its context ends
	live    map[string]*fake
	reports []Report
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, journal: Journal{t.TempDir()}, fail: map[string]error{}, hang: map[string]time.Duration{}, live: map[string]*fake{}}
	w.boot()
	return w
}

// boot starts a daemon.
func (w *world) boot() {
	w.m = NewManager(ManagerConfig{
		Node: "director1", Registry: Registry{"fake": fakeMaker{w}}, Guard: fakeGuard{w}, Journal: w.journal,
		Report: w.report, Logger: slog.New(slog.DiscardHandler),
	})
}

func (w *world) report(r Report) {
	w.mu.Lock()
	w.reports = append(w.reports, r)
	w.mu.Unlock()
	w.say("report %s %d %s", r.Group, r.Epoch, map[Outcome]string{Started: "started", Stopped: "stopped", Stuck: "stuck"}[r.Outcome]+because(r))
}

func because(r Report) string {
	if r.Err == nil {
		return ""
	}
	return fmt.Sprintf(" (%s: %v)", r.Resource, r.Err)
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

func (w *world) set(what string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail[what] = err
}

// said waits until nothing moves and compares what was done since the last time.
func (w *world) said(want string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	got := strings.Join(w.lines, "\n")
	w.lines = nil
	w.mu.Unlock()
	want = strings.TrimSpace(strings.ReplaceAll(want, "\t", ""))
	if d := cmp.Diff(want, got); d != "" {
		w.t.Errorf("done (+) is not what was wanted (-):\n%s", d)
	}
}

func (w *world) do(ctx context.Context, what string) error {
	w.mu.Lock()
	d, err := w.hang[what], w.fail[what]
	w.mu.Unlock()
	if d > 0 {
		select {
		case <-ctx.Done():
			w.say("%s: cut short", what)
			return ctx.Err()
		case <-time.After(d):
		}
	}
	if err != nil {
		w.say("%s: %v", what, err)
		return err
	}
	if !strings.HasPrefix(what, "monitor") {
		w.say("%s", what)
	}
	return nil
}

type fakeMaker struct{ w *world }

type fakeRecord struct {
	Name string
	Spec string
}

func (f fakeMaker) New(env Env, _ conf.Spec, r conf.Resource) (Resource, error) {
	if r.Pool == "broken" {
		return nil, errors.New("no such pool")
	}
	x := &fake{w: f.w, name: r.Name, spec: r.Pool, env: env, alarm: make(chan struct{}, 1)}
	f.w.mu.Lock()
	f.w.live[r.Name] = x
	f.w.mu.Unlock()
	return x, nil
}

func (f fakeMaker) Recover(env Env, b json.RawMessage) (Resource, error) {
	var r fakeRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	return &fake{w: f.w, name: r.Name + " of the journal", env: env}, nil
}

type fake struct {
	w     *world
	name  string
	spec  string
	env   Env
	alarm chan struct{}
}

func (f *fake) Record() (json.RawMessage, error)  { return json.Marshal(fakeRecord{f.name, f.spec}) }
func (f *fake) Start(ctx context.Context) error   { return f.w.do(ctx, "start "+f.name) }
func (f *fake) Stop(ctx context.Context) error    { return f.w.do(ctx, "stop "+f.name) }
func (f *fake) Monitor(ctx context.Context) error { return f.w.do(ctx, "monitor "+f.name) }
func (f *fake) Close() error                      { return nil }
func (f *fake) Alarm() <-chan struct{}            { return f.alarm }
func (f *fake) Run(ctx context.Context)           { <-ctx.Done() }
func (f *fake) Ready() error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	return f.w.fail["ready "+f.name]
}

func (f *fake) Update(ctx context.Context, _ conf.Spec, r conf.Resource) error {
	if r.Pool == "other" {
		return ErrNeedsRestart
	}
	if err := f.w.do(ctx, strings.TrimSuffix("update "+f.name+" to "+r.Pool, " to ")); err != nil {
		return err
	}
	f.spec = r.Pool
	return nil
}

func (f *fake) Addresses() []netip.Addr {
	switch f.name {
	case "a":
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	case "pool":
		return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	}
	return nil
}

func (f *fake) Routers() []VirtualRouter {
	if f.name == "vrrp" {
		return []VirtualRouter{{ID: 51}}
	}
	return nil
}

func (f *fake) Opened() { f.w.say("opened %s", f.name) }

type fakeGuard struct{ w *world }

func (g fakeGuard) Hold(a ...netip.Addr) error {
	return g.w.do(context.Background(), fmt.Sprint("hold ", a))
}
func (g fakeGuard) Drop(a ...netip.Addr) error {
	return g.w.do(context.Background(), fmt.Sprint("drop ", a))
}
func (g fakeGuard) Cut(a ...netip.Addr) error {
	return g.w.do(context.Background(), fmt.Sprint("cut ", a))
}

func (g fakeGuard) HoldRouters(r ...VirtualRouter) error {
	return g.w.do(context.Background(), fmt.Sprint("hold ", r))
}
func (g fakeGuard) DropRouters(r ...VirtualRouter) error {
	return g.w.do(context.Background(), fmt.Sprint("drop ", r))
}
func (g fakeGuard) CutRouters(r ...VirtualRouter) error {
	return g.w.do(context.Background(), fmt.Sprint("cut ", r))
}

// spec makes a group web of fakes; "b=x" gives b the pool x.
func spec(members ...string) conf.Spec {
	g := conf.Group{Name: "web"}
	for _, m := range members {
		name, pool, _ := strings.Cut(m, "=")
		g.Resources = append(g.Resources, conf.Resource{Kind: "fake", Name: name, Pool: pool, Class: conf.Guarded})
	}
	return conf.Spec{Groups: []conf.Group{g}}
}

func own(epoch uint64) map[string]uint64 { return map[string]uint64{"web": epoch} }

// story runs f in a bubble with a manager that has group web of a, b, c.
func story(t *testing.T, name string, f func(w *world)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer func() { w.m.Close() }()
			w.m.Configure(spec("a", "b", "c"))
			w.said("") // taken, so that a story's own configuration is always the second
			f(w)
		})
	})
}

const started = `
	hold [192.0.2.1]
	start a
	start b
	start c
	report web 1 started`

const stopped = `
	stop c
	stop b
	stop a
	report web 1 stopped
	drop [192.0.2.1]`

func (w *world) start() {
	w.t.Helper()
	w.m.Own(own(1))
	w.said(started)
}

var errBad = errors.New("bad")

func TestAGroup(t *testing.T) {
	story(t, "starts in order and stops in reverse", func(w *world) {
		w.said("")
		w.start()
		if w.m.Idle() || !w.m.Leftovers(own(2)) || w.m.Leftovers(own(1)) {
			w.t.Error("it runs under epoch 1")
		}
		if got := w.live["b"].env.Epoch(); got != 1 {
			w.t.Errorf("the resource is told epoch %d", got)
		}
		w.m.Own(nil)
		w.said(stopped)
		if !w.m.Idle() || w.m.Leftovers(nil) {
			w.t.Error("nothing runs any more")
		}
		if e, err := w.journal.Read(); len(e) != 0 || err != nil {
			w.t.Errorf("the journal has %v %v", e, err)
		}
	})
	story(t, "is not started twice under an epoch that was reported stopped", func(w *world) {
		w.start()
		w.m.Own(own(0))
		w.said(stopped)
		w.m.Own(own(1))
		w.said("")
		w.m.Own(own(2))
		w.said(strings.ReplaceAll(started, "web 1", "web 2"))
	})
	story(t, "that fails to start is stopped and says why", func(w *world) {
		w.set("start b", errBad)
		w.m.Own(own(1))
		w.said(`
			hold [192.0.2.1]
			start a
			start b: bad
			stop b
			stop a
			report web 1 stopped (b: bad)
			drop [192.0.2.1]`)
	})
	story(t, "whose start takes too long is stopped", func(w *world) {
		w.hang["start b"] = time.Hour
		w.m.Own(own(1))
		time.Sleep(DefaultTimeout + time.Second)
		synctest.Wait()
		if r := w.reports; len(r) != 1 || r[0].Outcome != Stopped || !strings.Contains(r[0].Err.Error(), "not started within 20s") {
			w.t.Errorf("%+v", r)
		}
	})
	story(t, "that the guard does not take is not started", func(w *world) {
		w.set("hold [192.0.2.1]", errBad)
		w.m.Own(own(1))
		w.said(`
			hold [192.0.2.1]: bad
			report web 1 stopped (guard: the guard does not take [192.0.2.1]: bad)`)
	})
	story(t, "is stopped when it is taken away in the middle of its start, and that is no failure", func(w *world) {
		w.hang["start b"] = 10 * time.Second
		w.m.Own(own(1))
		w.said("hold [192.0.2.1]\nstart a")
		w.m.Own(own(0))
		w.said(`
			start b: cut short
			stop b
			stop a
			report web 1 stopped
			drop [192.0.2.1]`)
	})
	story(t, "taken away and given back in the middle of its start stops, and that is no failure", func(w *world) {
		w.hang["start b"] = 10 * time.Second
		w.m.Own(own(1))
		w.said("hold [192.0.2.1]\nstart a")
		w.m.Own(own(0))
		w.m.Own(own(1))
		w.said(`
			start b: cut short
			stop b
			stop a
			report web 1 stopped
			drop [192.0.2.1]`)
	})
	story(t, "given before it is configured starts when it is", func(w *world) {
		w.m.Close()
		w.boot()
		w.m.Own(own(1))
		w.said("")
		w.m.Configure(spec("a", "b", "c"))
		w.said(started)
	})
	story(t, "of unknown kind says so", func(w *world) {
		s := spec("a")
		s.Groups[0].Resources[0].Kind = "nfs"
		w.m.Configure(s)
		synctest.Wait()
		if got := w.m.Ready()["web"]; !strings.Contains(got, `no resource of kind nfs`) {
			w.t.Errorf("ready: %q", got)
		}
	})
	story(t, "that could not start here says why", func(w *world) {
		w.set("ready b", errors.New("eth1: no carrier"))
		synctest.Wait()
		if d := cmp.Diff(map[string]string{"web": "eth1: no carrier"}, w.m.Ready()); d != "" {
			w.t.Error(d)
		}
	})
	story(t, "goes on when the daemon ends", func(w *world) {
		w.start()
		w.m.Close()
		w.said("")
		if e, err := w.journal.Read(); len(e) != 1 || len(e[0].Resources) != 3 || e[0].Epoch != 1 || err != nil {
			w.t.Errorf("journal: %+v %v", e, err)
		}
	})
}

func TestAStopThatFails(t *testing.T) {
	story(t, "is tried three times, then cut off by the guard and reported stopped", func(w *world) {
		w.start()
		w.set("stop b", errBad)
		w.m.Own(nil)
		time.Sleep(stopPause*(stopTries-1) + time.Millisecond)
		w.said(`
			stop c
			stop b: bad
			stop b: bad
			stop b: bad
			cut [192.0.2.1]
			report web 1 stopped (b: bad)`)
		if w.m.Idle() || w.m.Leftovers(nil) {
			w.t.Error("it still runs, behind the guard")
		}
		w.set("stop b", nil)
		time.Sleep(stuckPause)
		w.said("stop b\nstop a\nreport web 1 stopped\ndrop [192.0.2.1]")
	})
	story(t, "is stuck when the guard cannot cut", func(w *world) {
		w.start()
		w.set("stop b", errBad)
		w.set("cut [192.0.2.1]", errBad)
		w.m.Own(nil)
		time.Sleep(stopPause*(stopTries-1) + time.Millisecond)
		w.said(`
			stop c
			stop b: bad
			stop b: bad
			stop b: bad
			cut [192.0.2.1]: bad
			report web 1 stuck (b: bad)`)
		if !w.m.Leftovers(nil) || w.m.Renounce("web", 1) {
			w.t.Error("it runs")
		}
	})
	story(t, "is stuck when a member is not harmless", func(w *world) {
		s := spec("a", "b")
		s.Groups[0].Resources[1].Class = conf.Fenced
		w.m.Configure(s)
		w.said("update b")
		w.m.Own(own(1))
		w.said("hold [192.0.2.1]\nstart a\nstart b\nreport web 1 started")
		w.set("stop b", errBad)
		w.m.Own(nil)
		time.Sleep(stopPause*(stopTries-1) + time.Millisecond)
		w.said("stop b: bad\nstop b: bad\nstop b: bad\nreport web 1 stuck (b: bad)")
	})
}

func TestAMonitorThatFails(t *testing.T) {
	alarm := func(w *world, name string) { w.live[name].alarm <- struct{}{} }
	story(t, "recovers the resource and those after it", func(w *world) {
		w.start()
		w.set("monitor b", errBad)
		time.Sleep(10*time.Second - time.Millisecond)
		w.said("")
		time.Sleep(time.Millisecond)
		w.said("monitor b: bad\nstop c\nstop b\nstart b\nstart c")
		w.set("monitor b", nil)
		time.Sleep(time.Minute)
		w.said("")
	})
	story(t, "is heard at once from the kernel", func(w *world) {
		w.start()
		time.Sleep(time.Second)
		w.set("monitor c", errBad)
		alarm(w, "c")
		w.said("monitor c: bad\nstop c\nstart c")
	})
	story(t, "again and again moves the group on", func(w *world) {
		w.start()
		w.set("monitor c", errBad)
		for range maxRecoveries {
			time.Sleep(10 * time.Second)
			w.said("monitor c: bad\nstop c\nstart c")
		}
		time.Sleep(10 * time.Second)
		w.said("monitor c: bad\nstop c\nstop b\nstop a\nreport web 1 stopped (c: bad)\ndrop [192.0.2.1]")
	})
	story(t, "where it cannot be started again moves the group on at once", func(w *world) {
		w.start()
		w.set("monitor a", errBad)
		w.set("ready a", errors.New("eth1: no carrier"))
		alarm(w, "a")
		w.said("monitor a: bad\nstop c\nstop b\nstop a\nreport web 1 stopped (a: bad)\ndrop [192.0.2.1]")
	})
	story(t, "in the moment in which the group is taken away and given back leaves nothing half running", func(w *world) {
		w.start()
		w.set("monitor b", errBad)
		w.hang["start b"] = 10 * time.Second
		alarm(w, "b")
		w.said("monitor b: bad\nstop c\nstop b")
		w.m.Own(nil)
		w.m.Own(own(1))
		w.said("start b: cut short\nstop b\nstop a\nreport web 1 stopped\ndrop [192.0.2.1]")
	})
}

func TestRenounce(t *testing.T) {
	story(t, "an epoch under which nothing runs is given up for good", func(w *world) {
		synctest.Wait()
		if !w.m.Renounce("web", 1) {
			w.t.Fatal("refused")
		}
		w.m.Own(own(1))
		w.said("")
		if !w.m.Over("web", 1) || w.m.Over("web", 2) || w.m.Over("mail", 1) {
			w.t.Error("epoch 1 of web is over, and no other")
		}
		w.m.Own(own(2))
		w.said(strings.ReplaceAll(started, "web 1", "web 2"))
		if w.m.Renounce("web", 2) || w.m.Over("web", 1) {
			w.t.Error("it runs")
		}
	})
	for range 50 {
		story(t, "and a start at the same time: one of them happens", func(w *world) {
			go w.m.Own(own(1))
			gone := w.m.Renounce("web", 1)
			synctest.Wait()
			ran := len(w.reports) > 0
			if ran == gone {
				w.t.Errorf("renounced %v, ran %v", gone, ran)
			}
		})
	}
}

func TestAfterACrash(t *testing.T) {
	crash := func(w *world, now ...string) {
		w.t.Helper()
		w.start()
		w.m.Close()
		w.boot()
		if err := w.m.Recover(); err != nil {
			w.t.Fatal(err)
		}
		w.m.Configure(spec(now...))
		w.said("") // nothing before the log has spoken
		if w.m.Idle() || w.m.Renounce("web", 1) || !w.m.Leftovers(nil) || w.m.Leftovers(own(1)) {
			w.t.Error("what the earlier daemon left runs")
		}
	}
	story(t, "what is still owned is completed without a stop", func(w *world) {
		crash(w, "a", "b", "c")
		w.m.Own(own(1))
		w.said(started)
		w.m.Own(nil)
		w.said(stopped)
	})
	story(t, "what is not owned any more is taken back by its record", func(w *world) {
		crash(w, "a", "b", "c")
		w.m.Own(map[string]uint64{})
		w.said("stop c of the journal\nstop b of the journal\nstop a of the journal\ndrop [192.0.2.1]")
		if !w.m.Idle() || w.m.Leftovers(nil) || !w.m.Renounce("web", 1) {
			w.t.Error("nothing runs")
		}
	})
	story(t, "what is owned under a later epoch is taken back, then started", func(w *world) {
		crash(w, "a", "b", "c")
		w.m.Own(own(2))
		w.said("stop c of the journal\nstop b of the journal\nstop a of the journal\ndrop [192.0.2.1]" + strings.ReplaceAll(started, "web 1", "web 2"))
	})
	story(t, "what the specification no longer has is stopped", func(w *world) {
		crash(w, "a", "c")
		w.m.Own(own(1))
		w.said("hold [192.0.2.1]\nstart a\nstart c\nstop b of the journal\nreport web 1 started")
		if e, _ := w.journal.Read(); len(e) != 1 || len(e[0].Resources) != 2 {
			w.t.Errorf("journal: %+v", e)
		}
	})
	story(t, "twice in a row nothing is forgotten", func(w *world) {
		crash(w, "a", "b", "c")
		w.hang["start a"] = time.Minute
		w.m.Own(own(1))
		w.said("hold [192.0.2.1]")
		w.m.Close()
		w.said("start a: cut short")
		if e, _ := w.journal.Read(); len(e) != 1 || len(e[0].Resources) != 3 {
			w.t.Errorf("journal: %+v", e)
		}
	})
	story(t, "what cannot be taken back is cut off, shown as stuck and tried again", func(w *world) {
		crash(w, "a", "b", "c")
		w.set("stop b of the journal", errBad)
		w.m.Own(nil)
		w.said(`
			stop c of the journal
			stop b of the journal: bad
			stop a of the journal
			cut [192.0.2.1]
			report web 1 stuck (what an earlier daemon started: group web: b: bad)`)
		w.set("stop b of the journal", nil)
		time.Sleep(stuckPause)
		w.said("stop c of the journal\nstop b of the journal\nstop a of the journal\ndrop [192.0.2.1]\nreport web 1 stopped")
	})
	story(t, "a group that the specification no longer has is taken back", func(w *world) {
		w.start()
		w.m.Close()
		w.boot()
		if err := w.m.Recover(); err != nil {
			w.t.Fatal(err)
		}
		w.m.Configure(conf.Spec{})
		w.m.Own(own(1))
		w.said("stop c of the journal\nstop b of the journal\nstop a of the journal\ndrop [192.0.2.1]")
	})
}

func TestAChangedSpecificationTouchesOnlyWhatItChanges(t *testing.T) {
	for _, c := range []struct{ name, now, want string }{
		{"nothing", "a b c", ""},
		{"one that can take it", "a b=new c", "update b to new"},
		{"one that needs a restart", "a b=other c", "stop b\nhold\nstart b"},
		{"one added", "a b c d", "start d"},
		{"one added in front", "d a b c", "start d"},
		{"one removed", "a c", "stop b"},
		{"other order", "c b a", ""},
	} {
		story(t, c.name, func(w *world) {
			w.start()
			w.m.Configure(spec(strings.Fields(c.now)...))
			w.said(strings.ReplaceAll(c.want, "hold\n", ""))
			w.m.Close()
			e, err := w.journal.Read()
			if err != nil || len(e) != 1 || len(e[0].Resources) != len(strings.Fields(c.now)) {
				w.t.Fatalf("journal: %+v %v", e, err)
			}
			for i, m := range strings.Fields(c.now) {
				name, pool, _ := strings.Cut(m, "=")
				var r fakeRecord
				if err := json.Unmarshal(e[0].Resources[i].Record, &r); err != nil || r != (fakeRecord{name, pool}) {
					w.t.Errorf("journal of %s: %+v %v", m, r, err)
				}
			}
		})
	}
	story(t, "one that cannot be made here any more stops the group", func(w *world) {
		w.start()
		s := spec("a", "b=broken", "c")
		w.set("update b to broken", errBad)
		w.m.Configure(s)
		w.said("update b to broken: bad\nstop b\nstop c\nstop a\nreport web 1 stopped (b: no such pool)\ndrop [192.0.2.1]")
	})
	story(t, "it is settled when what was removed has stopped", func(w *world) {
		w.start()
		w.set("stop b", errBad)
		w.m.Configure(spec("a", "c"))
		if w.m.Settled("web", 1) {
			w.t.Error("settled before it has begun")
		}
		synctest.Wait()
		if w.m.Settled("web", 1) {
			w.t.Error("settled while b does not stop")
		}
	})
	story(t, "and then it is", func(w *world) {
		w.start()
		if !w.m.Settled("web", 1) || w.m.Settled("web", 2) || w.m.Settled("mail", 1) {
			w.t.Error("not settled although it runs, or another one is")
		}
		w.m.Configure(spec("a", "c"))
		w.said("stop b")
		if !w.m.Settled("web", 1) {
			w.t.Error("not settled although b has stopped")
		}
	})
	story(t, "one removed that would not stop is not forgotten", func(w *world) {
		w.start()
		w.set("stop b", errBad)
		w.m.Configure(spec("a", "c"))
		time.Sleep(stopPause*(stopTries-1) + time.Millisecond)
		w.said(`
			stop b: bad
			stop b: bad
			stop b: bad
			stop b: bad
			cut [192.0.2.1]
			report web 1 stopped (b: bad)`)
		if e, _ := w.journal.Read(); len(e) != 1 || len(e[0].Resources) != 3 {
			w.t.Errorf("journal: %+v", e)
		}
		w.set("stop b", nil)
		time.Sleep(stuckPause)
		w.said("stop b\nstop c\nstop a\nreport web 1 stopped (b: bad)\ndrop [192.0.2.1]")
		w.m.Own(own(2))
		w.said("hold [192.0.2.1]\nstart a\nstart c\nreport web 2 started")
	})
	story(t, "a group removed that would not stop is in the journal when the daemon ends", func(w *world) {
		w.start()
		w.set("stop c", errBad)
		w.m.Configure(conf.Spec{})
		w.said("stop c: bad")
		w.m.Own(nil)
		w.m.Close()
		w.said("stop c: bad")
		if e, _ := w.journal.Read(); len(e) != 1 || len(e[0].Resources) != 3 {
			w.t.Errorf("journal: %+v", e)
		}
	})
	story(t, "a group removed stops and says so", func(w *world) {
		w.start()
		w.m.Configure(conf.Spec{})
		w.said(stopped)
		w.m.Own(nil)
		w.said("")
		if !w.m.Idle() {
			w.t.Error("it runs")
		}
	})
}

func TestAGroupOfSeveralGuardedMembersAnswersOnlyWhenAllAreThere(t *testing.T) {
	story(t, "and is closed again before the first of them stops", func(w *world) {
		w.m.Configure(spec("a", "b", "pool", "c"))
		w.m.Own(own(1))
		w.said(`
			cut [192.0.2.1 192.0.2.2]
			start a
			start b
			start pool
			hold [192.0.2.1 192.0.2.2]
			opened a
			opened b
			opened pool
			start c
			report web 1 started`)
		w.m.Own(nil)
		w.said(`
			cut [192.0.2.1 192.0.2.2]
			stop c
			stop pool
			stop b
			stop a
			report web 1 stopped
			drop [192.0.2.1 192.0.2.2]`)
	})
	story(t, "announces itself again when it is told to, while all are there", func(w *world) {
		w.m.Announce()
		w.said("")
		w.start()
		w.m.Announce()
		w.said(`
			opened a
			opened b
			opened c`)
		w.m.Own(nil)
		w.said(stopped)
		w.m.Announce()
		w.said("")
	})
	story(t, "but what an earlier daemon left stays open", func(w *world) {
		w.m.Configure(spec("a", "pool"))
		w.m.Own(own(1))
		synctest.Wait()
		w.m.Close()
		w.mu.Lock()
		w.lines = nil
		w.mu.Unlock()
		w.boot()
		if err := w.m.Recover(); err != nil {
			w.t.Fatal(err)
		}
		w.m.Configure(spec("a", "pool"))
		w.m.Own(own(1))
		w.said(`
			hold [192.0.2.1 192.0.2.2]
			start a
			start pool
			report web 1 started`)
	})
}

func TestAnAddressOfTwoGroupsIsHeldUntilBothHaveStopped(t *testing.T) {
	story(t, "", func(w *world) {
		two := spec("a")
		two.Groups = append(two.Groups, spec("a").Groups[0])
		two.Groups[1].Name = "mail"
		w.m.Configure(two)
		w.m.Own(map[string]uint64{"web": 1})
		w.said("hold [192.0.2.1]\nstart a\nreport web 1 started")
		w.m.Own(map[string]uint64{"web": 1, "mail": 1})
		w.said("hold [192.0.2.1]\nstart a\nreport mail 1 started")
		w.m.Own(map[string]uint64{"mail": 1})
		w.said("stop a\nreport web 1 stopped")
		w.m.Own(nil)
		w.said("stop a\nreport mail 1 stopped\ndrop [192.0.2.1]")
	})
}

func TestWhatSeveralGroupsWantOfTheGuard(t *testing.T) {
	for name, c := range map[string]struct {
		wants map[string]hold
		want  hold
	}{
		"nobody":               {nil, 0},
		"one opens":            {map[string]hold{"a": open}, open},
		"one that is starting": {map[string]hold{"a": shut}, shut},
		"one that is starting does not close what another serves": {map[string]hold{"a": shut, "b": open}, open},
		"one that would not stop closes it for all":               {map[string]hold{"a": cut, "b": open, "c": shut}, cut},
	} {
		if got := together(c.wants); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
