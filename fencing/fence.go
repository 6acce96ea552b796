package fencing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Fence implements Service.
func (f *Fencer) Fence(ctx context.Context, t Target, action conf.FenceAction, note func(Attempt)) (Outcome, error) {
	began := time.Now()
	spec := f.current()
	out := Outcome{Node: t.Node, Action: action}
	levels, err := f.levels(spec, t.Node)
	if err != nil {
		return out, err
	}
	var random time.Duration
	if action != conf.FenceOn {
		random = f.between(spec.RandomDelay)
	}
	c := newCourse(action, levels, random)
	var failed []string
	for {
		s, more := c.next()
		if !more {
			break
		}
		if err = sleep(ctx, s.wait); err != nil {
			break
		}
		d, _ := find(spec, s.device)
		target, _ := targetOf(d, t.Node)
		j := job{
			action: s.action, afterOff: s.afterOff, node: t.Node, port: target.Port,
			silence: t.Silence, ends: t.Ends || t.Trusted, trusted: t.Trusted, over: t.Over,
		}
		if j.silence == nil {
			j.silence = func() time.Duration { return t.Silent + time.Since(began) }
		}
		if !s.afterOff {
			j.may = t.May
		}
		a := Attempt{Device: s.device, Level: s.level, Node: t.Node, By: f.cfg.Node, Action: s.action, At: time.Now()}
		if dog, why := f.disbelieved(spec, s, t.Node); why != nil {
			a.Device, err = dog, why
		} else {
			err = f.try(ctx, d, j)
		}
		a.Took = time.Since(a.At)
		if no := (refused{}); errors.As(err, &no) {
			return out, fmt.Errorf("%s was not fenced (%s): %w", t.Node, action, c.brokenOff(s, failed, no))
		}
		before := c.certain
		if !c.took(err) {
			continue
		}
		if err != nil {
			a.Error = err.Error()
			failed = append(failed, fmt.Sprintf("level %d, device %s, %s: %v", s.level, a.Device, s.action, err))
		}
		a.Certain = c.certain && !before
		out.Attempts = append(out.Attempts, a)
		if note != nil {
			note(a)
		}
		if ctx.Err() != nil {
			break
		}
	}
	out.Done = c.done
	out.Ended = c.done && (t.Ends || t.Trusted)
	switch {
	case out.Done:
		return out, nil
	case ctx.Err() != nil:
		return out, fmt.Errorf("fencing %s was broken off, and whether it was fenced is not known: %w", t.Node, context.Cause(ctx))
	}
	return out, fmt.Errorf("%s was not fenced (%s): %s", t.Node, action, strings.Join(lastOfEach(failed), "; "))
}

// lastOfEach leaves out tries that failed in the same words as the next.
func lastOfEach(failed []string) []string {
	var list []string
	for i, x := range failed {
		if i+1 == len(failed) || failed[i+1] != x {
			list = append(list, x)
		}
	}
	return list
}

// brokenOff is the error when no device is to be asked any more, as of step s.
func (c *course) brokenOff(s step, failed []string, why refused) error {
	before, how, after := strings.Join(lastOfEach(failed), "; "), "was not asked", ""
	if why.waited {
		how = "waits no more"
	}
	if before != "" {
		before += "; "
	}
	if off := c.half(); len(off) > 0 {
		// Not switched on again: it may be off by now for another node, which was let.
		after = fmt.Sprintf("; what %s has switched off for it stays off: see to it", strings.Join(off, ", "))
	}
	return fmt.Errorf("%slevel %d, device %s %s: %w%s", before, s.level, s.device, how, why, after)
}

// levels returns those that the specification lets this node work through.
func (f *Fencer) levels(spec *conf.Fencing, node string) ([]level, error) {
	var list []level
	var why []string
	for i, names := range levelsOf(spec, node) {
		l := level{number: i + 1}
		for _, name := range names {
			d, ok := find(spec, name)
			err := fmt.Errorf("there is none of that name")
			if ok {
				err = f.mayOperate(d, node)
			}
			if err != nil {
				why = append(why, fmt.Sprintf("level %d: device %s: %v", i+1, name, err))
				l.parts = nil
				break
			}
			l.parts = append(l.parts, part{name, d.Delay, 1 + d.Retries})
		}
		if len(l.parts) > 0 {
			list = append(list, l)
		}
	}
	switch {
	case len(list) > 0:
		return list, nil
	case len(why) > 0:
		return nil, fmt.Errorf("%w fences %s from here: %s", ErrNoDevice, node, strings.Join(why, "; "))
	}
	return nil, fmt.Errorf("%w fences %s", ErrNoDevice, node)
}

// try does one action once, within the device's time-out, if it may be done. The error
// is refused when it may not.
func (f *Fencer) try(ctx context.Context, d conf.FenceDevice, j job) error {
	dev, err := f.open(d)
	if err != nil {
		return err
	}
	if dev.program() != "" {
		release, err := f.slot(d.Name).forFencing(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	if err := f.let(ctx, dev, j); err != nil {
		return err
	}
	if d.Type != conf.FenceWatchdog { // its timeout is what it waits for
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.Timeout, fmt.Errorf("not done within %s", d.Timeout))
		defer cancel()
	}
	if err := dev.act(ctx, j); err != nil {
		return err
	}
	if dev.program() != "" {
		f.found(d, nil) // what the last look failed for is over
	}
	return nil
}

// Unfence implements Service. An agent that is not installed here is passed over:
// this node cannot ask what it is for, and does not need the devices that
// only others operate.
func (f *Fencer) Unfence(ctx context.Context, self string) error {
	spec := f.current()
	if spec == nil {
		return nil
	}
	var errs []error
	for _, d := range spec.Devices {
		t, mine := targetOf(d, self)
		if d.Type != conf.FenceAgent || !mine {
			continue
		}
		if err := f.unfence(ctx, d, t); err != nil {
			errs = append(errs, fmt.Errorf("device %s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

// let asks whether an attempt may be made. What would come between the answer and
// the device's work, and may take its time, is done before.
func (f *Fencer) let(ctx context.Context, dev device, j job) error {
	if j.may == nil {
		return nil
	}
	if a, ok := dev.(*agent); ok {
		_, _ = f.meta.of(ctx, a) // kept for act, which says what is wrong with it
	}
	if err := j.may(ctx); err != nil {
		return refused{error: err}
	}
	return nil
}

func (f *Fencer) unfence(ctx context.Context, d conf.FenceDevice, t conf.FenceTarget) error {
	a := &agent{f: f, spec: d, path: f.cfg.programPath(d)}
	m, err := f.meta.of(ctx, a)
	switch {
	case errors.Is(err, os.ErrNotExist):
		f.log.Warn("fencing: agent is not installed: it is not known whether this node has to be unfenced", "device", d.Name, "agent", d.Program)
		return nil
	case err != nil:
		return err
	case !m.onItself:
		return nil
	case !m.onTarget && len(d.RunOn) > 0 && f.runsOnOthers(d):
		return fmt.Errorf("this node has to be unfenced, and the device is operated by %s only (run_on)", strings.Join(d.RunOn, ", "))
	}
	for try := 0; ; try++ {
		err := f.try(ctx, d, job{action: conf.FenceOn, node: t.Node, port: t.Port})
		if err == nil {
			f.log.Info("fencing: this node is unfenced", "device", d.Name)
			return nil
		}
		if try >= d.Retries || isFinal(err) || sleep(ctx, retryPause) != nil {
			return fmt.Errorf("on: %w", err)
		}
	}
}

func (f *Fencer) runsOnOthers(d conf.FenceDevice) bool {
	for _, n := range d.RunOn {
		if n == f.cfg.Node {
			return false
		}
	}
	return true
}
