// Package track looks at what the priority of a virtual router depends on
// beside the network: programs that say that something is well, processes that
// have to run, files with a number in them.
package track

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os/exec"
	"sync"

	"github.com/keepbeat/keepbeat/conf"
)

// Kind says what is tracked; names are unique within a kind.
type Kind uint8

// Kinds. The zero value is invalid.
const (
	_ Kind = iota
	Script
	Process
	File
)

// Result is what is known of a tracked item.
type Result struct {
	Well  bool // of scripts and processes
	Value int  // of files
}

// Config is what a Tracker needs.
type Config struct {
	// Report is told each first result and each change, from several goroutines;
	// it must not wait.
	Report func(k Kind, name string, r Result)
	// Run runs a program as a user until ctx ends; an error says that it could
	// not be run, was killed, or ended with another status than 0.
	Run    func(ctx context.Context, user string, command []string) error
	Proc   string // where procfs is; default /proc
	Logger *slog.Logger
}

// Tracker watches items until it is closed.
type Tracker struct {
	cfg  Config
	ctx  context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex // guards the rest
	scripts map[string]watched[conf.VRRPScript]
	procs   map[string]watched[conf.VRRPProcess]
	files   map[string]watched[conf.VRRPFile]
	trouble map[string]string // scripts that could not be run, with the cause
}

// watched is an item and how its watcher is ended.
type watched[T any] struct {
	item T
	end  context.CancelFunc
	last *verdict // the next watcher of the same name begins with it
}

// verdict is what has been reported of a script or a process. A reload that
// changes how often something is looked at, or how, says nothing of how it is:
// without the verdict one failure would count for as many as "fall" asks for.
type verdict struct {
	mu          sync.Mutex // guards the rest
	known, well bool
}

func (v *verdict) get() (known, well bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.known, v.well
}

func (v *verdict) set(well bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known, v.well = true, well
}

// New returns a Tracker that watches nothing yet.
func New(cfg Config) *Tracker {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	t := &Tracker{cfg: cfg, scripts: map[string]watched[conf.VRRPScript]{}, procs: map[string]watched[conf.VRRPProcess]{}, files: map[string]watched[conf.VRRPFile]{}, trouble: map[string]string{}}
	t.ctx, t.end = context.WithCancel(context.Background())
	return t
}

// Watch makes v's items those that are watched. One that is as it was goes on
// undisturbed, with what is known of it.
func (t *Tracker) Watch(v *conf.VRRP) {
	t.mu.Lock()
	defer t.mu.Unlock()
	renew(t, t.scripts, v.Scripts, func(s conf.VRRPScript) string { return s.Name }, t.script)
	renew(t, t.procs, v.Processes, func(p conf.VRRPProcess) string { return p.Name }, t.process)
	renew(t, t.files, v.Files, func(f conf.VRRPFile) string { return f.Name }, t.file)
}

func renew[T any](t *Tracker, now map[string]watched[T], want []T, name func(T) string, watch func(context.Context, T, *verdict)) {
	wanted := map[string]bool{}
	for _, item := range want {
		n := name(item)
		wanted[n] = true
		last := &verdict{}
		if old, is := now[n]; is {
			if same(old.item, item) {
				continue
			}
			old.end()
			last.known, last.well = old.last.get()
		}
		ctx, end := context.WithCancel(t.ctx)
		now[n] = watched[T]{item, end, last}
		t.done.Go(func() { watch(ctx, item, last) })
	}
	for n, old := range now {
		if !wanted[n] {
			old.end()
			delete(now, n)
			delete(t.trouble, n)
		}
	}
}

// report passes a result on, unless the item is not watched any more.
func (t *Tracker) report(ctx context.Context, k Kind, name string, r Result) {
	if ctx.Err() == nil {
		t.cfg.Report(k, name, r)
	}
}

// Trouble returns which scripts could not be run to their end the last time, or
// were killed at their time-out, and why; how one ends by itself is no trouble.
func (t *Tracker) Trouble() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.trouble)
}

// ran notes how a run of a script ended; news: otherwise than the one before.
func (t *Tracker) ran(ctx context.Context, name string, err error) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) {
		delete(t.trouble, name)
		return false
	}
	news = t.trouble[name] != err.Error()
	t.trouble[name] = err.Error()
	return news
}

// Close ends all watching; programs that run are killed.
func (t *Tracker) Close() {
	t.end()
	t.done.Wait()
}
