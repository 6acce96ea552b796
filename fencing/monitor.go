package fencing

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	firstLook = 10 * time.Second // within that the first look at a device is
	atOnce    = 8                // looks at the same time, by Test and Validate
)

// Run implements Service: one goroutine for each device that is operated here.
// A device that a new specification leaves as it was keeps its own.
func (f *Fencer) Run(ctx context.Context) error {
	type watch struct {
		spec conf.FenceDevice
		end  context.CancelFunc
	}
	watched := map[string]watch{}
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		f.mu.Lock()
		spec, changed := f.spec, f.changed
		f.mu.Unlock()
		for name, w := range watched {
			if d, there := find(spec, name); !there || !reflect.DeepEqual(d, w.spec) {
				w.end()
				delete(watched, name)
			}
		}
		if spec != nil {
			for _, d := range spec.Devices {
				if _, is := watched[d.Name]; is || len(f.here(d)) == 0 {
					continue
				}
				ctx, end := context.WithCancel(ctx)
				watched[d.Name] = watch{d, end}
				all.Go(func() { f.watch(ctx, d) })
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// watch looks at one device now and then.
func (f *Fencer) watch(ctx context.Context, d conf.FenceDevice) {
	dev, err := f.open(d)
	if err != nil {
		f.found(d, err)
		return
	}
	if dev.program() == "" {
		return
	}
	if a, ok := dev.(*agent); ok {
		// Known when it is needed; a failure shows at the first look.
		_, _ = f.meta.of(ctx, a)
	}
	if d.MonitorInterval <= 0 {
		return
	}
	for wait := f.between(min(d.MonitorInterval, firstLook)); sleep(ctx, wait) == nil; {
		_, _ = f.lookAt(ctx, d, nil)
		// A tenth more or less, so that the nodes do not come to a device all at once for ever.
		wait = d.MonitorInterval - d.MonitorInterval/10 + f.between(d.MonitorInterval/5)
	}
}

// lookAt looks once and keeps what it found. An error is one that kept it from
// looking; what it found is in the status.
func (f *Fencer) lookAt(ctx context.Context, d conf.FenceDevice, each []conf.FenceTarget) (look, error) {
	dev, err := f.open(d)
	if err != nil {
		return f.found(d, err), nil
	}
	if dev.program() != "" {
		during, release, err := f.slot(d.Name).forLook(ctx)
		if err != nil {
			return look{}, err
		}
		defer release()
		ctx = during
	}
	limited, cancel := context.WithTimeoutCause(ctx, d.Timeout, fmt.Errorf("no answer within %s", d.Timeout))
	defer cancel()
	err = dev.look(limited, each)
	if ctx.Err() != nil {
		return look{}, context.Cause(ctx)
	}
	if d.Type == conf.FenceWatchdog {
		return look{time.Now(), err}, nil // what the log says by now, and may say otherwise at any moment
	}
	return f.found(d, err), nil
}

// found keeps what a look has found, unless the device is another by now.
func (f *Fencer) found(d conf.FenceDevice, err error) look {
	now := look{time.Now(), err}
	f.mu.Lock()
	before, known := f.looked[d.Name]
	if current, there := find(f.spec, d.Name); there && reflect.DeepEqual(current, d) {
		f.looked[d.Name] = now
	}
	f.mu.Unlock()
	switch {
	case err != nil && (before.err == nil || before.err.Error() != err.Error()):
		f.log.Error("fencing: a device does not answer; it will not help when it is needed", "device", d.Name, "kind", kind(d), "err", err)
	case err == nil && known && before.err != nil:
		f.log.Info("fencing: a device answers again", "device", d.Name, "kind", kind(d))
	}
	return now
}

func (f *Fencer) status(d conf.FenceDevice, l look) DeviceStatus {
	s := DeviceStatus{Name: d.Name, Kind: kind(d), Here: len(f.here(d)) > 0, Checked: l.at, Targets: []string{}}
	for _, t := range d.Targets {
		s.Targets = append(s.Targets, t.Node)
	}
	slices.Sort(s.Targets)
	if l.err != nil {
		s.Error = l.err.Error()
	}
	return s
}

// Status implements Service.
func (f *Fencer) Status() []DeviceStatus {
	f.mu.Lock()
	spec := f.spec
	looked := make(map[string]look, len(f.looked))
	for name, l := range f.looked {
		looked[name] = l
	}
	f.mu.Unlock()
	list := []DeviceStatus{}
	if spec != nil {
		for _, d := range spec.Devices {
			list = append(list, f.status(d, looked[d.Name]))
		}
	}
	return list
}

// Test implements Service. Agents are also asked about each of their targets,
// where they have a status.
func (f *Fencer) Test(ctx context.Context, device string) ([]DeviceStatus, error) {
	spec := f.current()
	var devices []conf.FenceDevice
	var names []string
	if spec != nil {
		for _, d := range spec.Devices {
			names = append(names, d.Name)
			if (device == "" || d.Name == device) && len(f.here(d)) > 0 {
				devices = append(devices, d)
			}
		}
	}
	switch d, there := find(spec, device); {
	case device == "" || len(devices) > 0:
	case !there:
		return nil, fmt.Errorf("no device is called %q%s", device, didYouMean(device, names))
	case len(d.Targets) == 0:
		return nil, fmt.Errorf("device %s has no targets", device)
	default:
		return nil, fmt.Errorf("device %s: %w", device, f.mayOperate(d, d.Targets[0].Node))
	}
	list := make([]DeviceStatus, len(devices))
	eachOf(devices, func(i int, d conf.FenceDevice) {
		l, err := f.lookAt(ctx, d, f.here(d))
		if err != nil {
			l = look{time.Now(), fmt.Errorf("not looked at: %w", err)}
		}
		list[i] = f.status(d, l)
	})
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return list, ctx.Err()
	}
	return list, nil
}

// eachOf calls do for all devices, atOnce at a time.
func eachOf(devices []conf.FenceDevice, do func(int, conf.FenceDevice)) {
	var all sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for i, d := range devices {
		places <- struct{}{}
		all.Go(func() { defer func() { <-places }(); do(i, d) })
	}
	all.Wait()
}

// Validate looks at those devices of a specification that cfg.Node may operate, on
// this machine: programs, permissions, parameters against what the
// agents say of themselves, secrets, time-outs. Nothing is fenced and no device
// is spoken to. Problems are in the order of the devices.
func Validate(ctx context.Context, cfg Config, spec *conf.Fencing) []Problem {
	if spec == nil {
		return nil
	}
	f := New(cfg)
	f.Configure(spec)
	found := make([][]Problem, len(spec.Devices))
	eachOf(spec.Devices, func(i int, d conf.FenceDevice) {
		if len(f.here(d)) == 0 {
			return
		}
		dev, err := f.open(d)
		if err != nil {
			found[i] = []Problem{{Device: d.Name, Msg: err.Error()}}
			return
		}
		found[i] = dev.problems(ctx)
		if cfg.Pair && d.Type == conf.FenceAgent {
			if m, err := f.meta.of(ctx, &agent{f: f, spec: d, path: cfg.programPath(d)}); err == nil && m.onItself {
				found[i] = append(found[i], Problem{Device: d.Name, Msg: d.Program + " cuts a node off and does not end it, which is not enough for a pair (`quorum: fencing`): use a device that switches it off, or add a witness"})
			}
		}
	})
	return slices.Concat(found...)
}
