package fencing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// manual is a person (heartbeat's meatware).
type manual struct {
	f    *Fencer
	name string
}

// overLook is how often it is looked whether a person is still needed.
const overLook = time.Second

// confirmation is one that is waited for.
type confirmation struct {
	Waiting
	given chan struct{} // closed by Confirm
}

func (m *manual) act(ctx context.Context, j job) error {
	if j.action == conf.FenceOn {
		return errNoAction
	}
	c := &confirmation{Waiting{Node: j.node, Device: m.name, Since: time.Now()}, make(chan struct{})}
	m.f.mu.Lock()
	m.f.waiting = append(m.f.waiting, c)
	m.f.mu.Unlock()
	m.f.log.Error("fencing: a person is needed: see to it that the node is off, then confirm",
		"node", j.node, "device", m.name, "command", "keepbeat fence confirm "+j.node)
	look := time.NewTicker(overLook)
	defer look.Stop()
	for {
		var why, over error
		select {
		case <-c.given:
			return nil
		case <-ctx.Done():
			why = fmt.Errorf("nobody has confirmed: %w", context.Cause(ctx))
		case <-look.C:
			if j.over != nil {
				over = j.over()
			}
			if over == nil {
				continue
			}
			why = refused{error: over, waited: true}
		}
		if !m.f.forget(c) {
			return nil // confirmed at this moment, and who did that was thanked
		}
		if over != nil {
			m.f.log.Warn("fencing: no person is needed any more", "node", j.node, "device", m.name, "why", over)
		}
		return why
	}
}

// forget ends the wait for a confirmation; false: it has been given.
func (f *Fencer) forget(c *confirmation) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.waiting, c)
	if i >= 0 {
		f.waiting = slices.Delete(f.waiting, i, i+1)
	}
	return i >= 0
}

func (m *manual) look(context.Context, []conf.FenceTarget) error { return nil }
func (m *manual) problems(context.Context) []Problem             { return nil }
func (m *manual) program() string                                { return "" }

// Confirm implements Service.
func (f *Fencer) Confirm(node string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var others []string
	found := false
	f.waiting = slices.DeleteFunc(f.waiting, func(c *confirmation) bool {
		if c.Node != node {
			others = append(others, c.Node)
			return false
		}
		close(c.given)
		found = true
		return true
	})
	switch {
	case found:
		f.log.Warn("fencing: confirmed by a person", "node", node)
		return nil
	case len(others) > 0:
		slices.Sort(others)
		return fmt.Errorf("no confirmation that %s is off is waited for here, but of %s", node, strings.Join(slices.Compact(others), ", "))
	}
	return fmt.Errorf("no confirmation that %s is off is waited for here", node)
}

// Waiting implements Service.
func (f *Fencer) Waiting() []Waiting {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Waiting, 0, len(f.waiting))
	for _, c := range f.waiting {
		list = append(list, c.Waiting)
	}
	return list
}

// watchdogDevice is the target's own watchdog, which has bitten once the node
// has been silent for long enough. Nothing is sent to anybody.
type watchdogDevice struct {
	timeout time.Duration
	believe func(node string) error // why the node may not reset itself; nil: it does
}

var errUnknown = errors.New("whether it resets itself is not known here")

// believe says why a device that waits for a node's reset may wait for nothing.
// Of the other devices it has nothing to say.
func (f *Fencer) believe(d conf.FenceDevice, node string) error {
	switch {
	case d.Type != conf.FenceWatchdog:
		return nil
	case f.cfg.Resets == nil:
		return errUnknown
	}
	return f.cfg.Resets(node, d.Timeout)
}

// disbelieved names the device of a level that would wait for nothing. It is asked before
// anything of the level is done: a node that another device has switched off for it would stay off, and its groups down.
func (f *Fencer) disbelieved(spec *conf.Fencing, s step, node string) (device string, err error) {
	if s.action == conf.FenceOn {
		return "", nil
	}
	for _, name := range levelsOf(spec, node)[s.level-1] {
		if d, there := find(spec, name); there {
			if err := f.believe(d, node); err != nil {
				return name, final{err}
			}
		}
	}
	return "", nil
}

// watchdogLook is how often it is looked whether the node is heard again.
const watchdogLook = time.Second

func (w watchdogDevice) act(ctx context.Context, j job) error {
	if j.action == conf.FenceOn {
		return errNoAction
	}
	if j.trusted {
		return final{fmt.Errorf("%s may be heard by others: as long as no majority has ended its lease, its watchdog has no reason to bite", j.node)}
	}
	for {
		left := w.timeout - j.silence()
		if left <= 0 && ctx.Err() == nil {
			if err := w.believe(j.node); err != nil { // another daemon may have been started there meanwhile
				return final{err}
			}
			return nil
		}
		if err := sleep(ctx, min(left, watchdogLook)); err != nil {
			return err
		}
		if s := j.silence(); s < watchdogLook && left < w.timeout-watchdogLook {
			return final{fmt.Errorf("it is heard again (%v ago), so its watchdog has not bitten", s.Round(time.Millisecond))}
		}
	}
}

func (w watchdogDevice) look(_ context.Context, each []conf.FenceTarget) error {
	var errs []error
	for _, t := range each {
		errs = append(errs, w.believe(t.Node))
	}
	return errors.Join(errs...)
}

func (w watchdogDevice) problems(context.Context) []Problem { return nil }
func (w watchdogDevice) program() string                    { return "" }

// sleep returns nil after d, or the reason why ctx has ended before.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx) // nil while ctx lives
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
