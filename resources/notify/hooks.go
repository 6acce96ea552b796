package notify

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// HookTime is how long a hook may run.
	HookTime = 30 * time.Second
	// hooksEnd is how long hooks that wait are still run when the pool ends: what
	// a stop has to tell is worth a moment, and no more than that.
	hooksEnd = 5 * time.Second
)

// Hook is a program of the administrator's to run.
type Hook struct {
	// Subject is what it tells about. A newer hook of the same subject takes
	// the place of one that still waits: only the last state is worth telling.
	Subject string
	Path    string // absolute
	Args    []string
	Env     []string // beside PATH, HOME and LANG
}

// Hooks runs programs one after the other, in the order in which they were
// added. At most one waits for each subject.
type Hooks struct {
	log  *slog.Logger
	wake chan struct{} // capacity 1

	mu      sync.Mutex // guards waiting
	waiting []Hook
	index   map[string]bool // subjects of waiting
}

// NewHooks returns Hooks; Run makes it work.
func NewHooks(log *slog.Logger) *Hooks {
	return &Hooks{log: log, wake: make(chan struct{}, 1), index: map[string]bool{}}
}

// Add has a program run. It does not wait.
func (h *Hooks) Add(k Hook) {
	h.mu.Lock()
	if h.index[k.Subject] {
		for i, old := range h.waiting {
			if old.Subject == k.Subject {
				h.waiting = append(h.waiting[:i], h.waiting[i+1:]...)
				break
			}
		}
	}
	h.index[k.Subject] = true
	h.waiting = append(h.waiting, k)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *Hooks) next() (Hook, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == 0 {
		return Hook{}, false
	}
	k := h.waiting[0]
	h.waiting = h.waiting[1:]
	if len(h.waiting) == 0 {
		h.waiting = nil
	}
	delete(h.index, k.Subject)
	return k, true
}

// Run runs what is added until ctx ends, and then for a moment what still waits.
func (h *Hooks) Run(ctx context.Context) {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(hooksEnd, cancel) })
	defer stop()
	for {
		k, found := h.next()
		if !found {
			select {
			case <-h.wake:
				continue
			case <-ctx.Done():
			}
			if k, found = h.next(); !found {
				return
			}
		}
		if last.Err() != nil {
			h.log.Error("a hook is not run: the pool has ended", "hook", k.Path, "args", strings.Join(k.Args, " "))
			continue
		}
		h.run(last, k)
	}
}

func (h *Hooks) run(ctx context.Context, k Hook) {
	ctx, cancel := context.WithTimeout(ctx, HookTime)
	defer cancel()
	begin := time.Now()
	output, err := run(ctx, k.Path, k.Args, k.Env, nil)
	log := h.log.With("hook", k.Path, "args", strings.Join(k.Args, " "), "took", time.Since(begin).Round(time.Millisecond))
	if output != "" {
		log = log.With("output", output)
	}
	switch {
	case err == nil:
		log.Info("hook was run")
	case errors.Is(err, context.DeadlineExceeded):
		log.Error("hook was killed: it ran for too long", "limit", HookTime)
	default:
		log.Error("hook failed", "err", err)
	}
}
