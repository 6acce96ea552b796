// Package track looks at what the priority of a virtual router depends on
// beside the network: programs that say that something is well, processes that
// have to run, files with a number in them.
package track

import (
	"context"
	"log/slog"
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
}

// watched is an item and how its watcher is ended.
type watched[T any] struct {
	item T
	end  context.CancelFunc
}

// New returns a Tracker that watches nothing yet.
func New(cfg Config) *Tracker {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	t := &Tracker{cfg: cfg, scripts: map[string]watched[conf.VRRPScript]{}, procs: map[string]watched[conf.VRRPProcess]{}, files: map[string]watched[conf.VRRPFile]{}}
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

func renew[T any](t *Tracker, now map[string]watched[T], want []T, name func(T) string, watch func(context.Context, T)) {
	wanted := map[string]bool{}
	for _, item := range want {
		n := name(item)
		wanted[n] = true
		if old, is := now[n]; is {
			if same(old.item, item) {
				continue
			}
			old.end()
		}
		ctx, end := context.WithCancel(t.ctx)
		now[n] = watched[T]{item, end}
		t.done.Go(func() { watch(ctx, item) })
	}
	for n, old := range now {
		if !wanted[n] {
			old.end()
			delete(now, n)
		}
	}
}

// report passes a result on, unless the item is not watched any more.
func (t *Tracker) report(ctx context.Context, k Kind, name string, r Result) {
	if ctx.Err() == nil {
		t.cfg.Report(k, name, r)
	}
}

// Close ends all watching; programs that run are killed.
func (t *Tracker) Close() {
	t.end()
	t.done.Wait()
}
