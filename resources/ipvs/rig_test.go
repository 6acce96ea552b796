package ipvs

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// rig is a node with a kernel and checks that the test decides.
type rig struct {
	t      *testing.T
	kernel *fakeKernel
	table  *Kernel
	checks *fakeChecks
	maker  *Maker
	log    *logBuffer
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, kernel: newFakeKernel(), checks: newFakeChecks(), log: &logBuffer{}}
	r.table = r.kernel.table(0, errNoModule)
	r.maker = NewMaker(Config{Checks: r.checks, Table: r.table})
	t.Cleanup(func() {
		closeKernel(t, r.table)
		for c := range r.checks.subs {
			if r.checks.subscribed(c) {
				t.Errorf("still checked after the end: %s", c.Target)
			}
		}
	})
	return r
}

func (r *rig) env() resources.Env {
	return resources.Env{Node: "director1", Group: "web", Logger: slog.New(slog.NewTextHandler(r.log, nil))}
}

// pool makes the resource and lets it run until the end of the test.
func (r *rig) pool(virtuals ...conf.Virtual) *pool {
	r.t.Helper()
	spec, res := specOf(virtuals...)
	made, err := r.maker.New(r.env(), spec, res)
	if err != nil {
		r.t.Fatal(err)
	}
	p := made.(*pool)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		<-ended
		if err := p.Close(); err != nil {
			r.t.Error(err)
		}
	})
	synctest.Wait()
	return p
}

func (r *rig) start(p *pool) {
	r.t.Helper()
	if err := p.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stop(p *pool) {
	r.t.Helper()
	if err := p.Stop(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// table compares the kernel's table with lines of ipvsadm.
func (r *rig) holds(what string, want ...string) {
	r.t.Helper()
	if d := cmp.Diff(lines(want...), r.kernel.text()); d != "" {
		r.t.Errorf("%s: (-want +got)\n%s", what, d)
	}
}

func (r *rig) did(what string, want ...string) {
	r.t.Helper()
	if d := cmp.Diff(lines(want...), lines(r.kernel.take()...)); d != "" {
		r.t.Errorf("%s: (-want +done)\n%s", what, d)
	}
}

// bubble runs a story in a bubble of synctest.
func bubble(t *testing.T, story func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) { story(t, newRig(t)) })
}

var (
	both     = []string{"-A -t 10.0.0.1:80 -s wlc", "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1", "-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2"}
	fallback = []string{"-A -t 10.0.0.1:80 -s wlc", "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0", "-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0", "-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 1"}
)
