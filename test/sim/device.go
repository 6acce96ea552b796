package sim

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

// powerSwitch is the fencing device of a simulated cluster: it cuts the power
// of a machine, and gives it back. What it says may be lost, it may take its
// time, and it may fail. With Config.Fabric it takes the stores only.
type powerSwitch struct {
	w *world

	mu    sync.Mutex // guards what follows
	delay time.Duration
	fail  int // so many uses fail and do nothing
	lose  int // the answer of so many uses is lost: the machine is off, and nobody knows
	back  time.Duration
	uses  int
	trip  func(by *machine) // called when the device is asked, once; nil: not

	working int // orders that it has and has not answered
}

// deviceTakes is how long the device takes when nothing is wrong with it.
const deviceTakes = 100 * time.Millisecond

func (s *powerSwitch) atWork() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.working > 0
}

var (
	errDevice  = errors.New("the switch: no answer")
	errCutsOff = errors.New("the switch: it cuts off and does not end")
)

// device is the switch as a machine's daemon reaches it.
type device struct {
	s *powerSwitch
	m *machine
	g *gate
}

var _ fencing.Service = device{}

func (d device) Configure(*conf.Fencing)                                      {}
func (d device) Can(string) error                                             { return nil }
func (d device) Plan(string, conf.FenceAction) []string                       { return nil }
func (d device) Confirm(string) error                                         { return fencing.ErrNoDevice }
func (d device) Waiting() []fencing.Waiting                                   { return nil }
func (d device) Status() []fencing.DeviceStatus                               { return nil }
func (d device) Run(ctx context.Context) error                                { <-ctx.Done(); return nil }
func (d device) Test(context.Context, string) ([]fencing.DeviceStatus, error) { return nil, nil }

// Ends implements fencing.Service.
func (d device) Ends(context.Context, string) error {
	if d.s.w.cfg.Fabric && d.s.w.cfg.Told {
		return errCutsOff
	}
	return nil
}

// Unfence implements fencing.Service.
func (d device) Unfence(context.Context, string) error {
	return d.g.do(func() { d.m.kernel.change("the switch", func() { d.m.kernel.barred = false }) })
}

// deviceTries is how often the switch is asked to fence until it has, and tryPause is between.
const (
	deviceTries = 2
	tryPause    = time.Second
)

// Fence implements fencing.Service.
func (d device) Fence(ctx context.Context, t fencing.Target, action conf.FenceAction, note func(fencing.Attempt)) (fencing.Outcome, error) {
	o := fencing.Outcome{Node: t.Node, Action: action}
	for try := 1; ; try++ {
		err := d.attempt(ctx, t, &o, note)
		if !errors.Is(err, errDevice) || try == deviceTries {
			return o, err
		}
		select {
		case <-ctx.Done():
			return o, ctx.Err()
		case <-time.After(tryPause):
		}
	}
}

// attempt asks the switch once, and adds to the outcome what came of it. A daemon that
// is stopped asks nothing and hears nothing; an order that has reached the device is
// carried out, whatever becomes of who gave it.
func (d device) attempt(ctx context.Context, t fencing.Target, o *fencing.Outcome, note func(fencing.Attempt)) error {
	s, action := d.s, o.Action
	if err := d.g.do(func() {}); err != nil {
		return err
	}
	if t.May != nil {
		if err := t.May(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	delay, back, trip := s.delay, s.back, s.trip
	fails, lost := s.fail > 0, s.lose > 0
	if fails {
		s.fail--
	} else if lost {
		s.lose--
	}
	s.uses++
	s.trip = nil
	s.mu.Unlock()
	if trip != nil {
		trip(d.m)
	}
	if t.Node == router9 {
		s.w.air.ordered(d.m)
	}
	if err := d.g.do(func() {}); err != nil {
		return err
	}
	if !s.w.cfg.OneStarts && !d.g.isAllowed() {
		s.w.violate("%s fences %s and has not seen it since its own start (wait_for_all)", d.m.name, t.Node)
	}
	if s.w.cfg.Fabric && (t.Ends || t.Trusted) {
		return errCutsOff
	}
	begun := time.Now()
	done := make(chan struct{})
	s.mu.Lock()
	s.working++
	s.mu.Unlock()
	s.w.devices.Go(func() {
		defer close(done)
		defer func() {
			s.mu.Lock()
			s.working--
			s.mu.Unlock()
		}()
		time.Sleep(delay/2 + time.Millisecond)
		switch {
		case fails:
		case t.Node == router9:
			s.w.air.end()
		case s.w.cfg.Fabric:
			s.w.note("    %s cuts the stores of %s off", d.m.name, t.Node)
			k := s.w.machine(t.Node).kernel
			k.change("the switch", func() {
				k.barred = true
				maps.DeleteFunc(k.active, func(a netip.Addr, _ bool) bool { return isStore(a) })
			})
		default:
			s.w.note("    %s fences %s", d.m.name, t.Node)
			if action == conf.FenceOff {
				back = -1 // until somebody switches it on
			}
			s.w.machine(t.Node).strike(true, nil, back)
		}
		time.Sleep(delay / 2)
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
	}
	if err := d.g.do(func() {}); err != nil {
		return err
	}
	a := fencing.Attempt{Device: "switch", Level: 1, Node: t.Node, By: d.m.name, Action: action, Took: time.Since(begun)}
	switch {
	case fails:
		a.Error = "the device does not answer"
	case lost:
		a.Error = "the device's answer was lost"
	}
	note(a)
	o.Attempts = append(o.Attempts, a)
	if a.Error != "" {
		return errDevice
	}
	o.Done, o.Ended = true, t.Ends || t.Trusted
	return nil
}
