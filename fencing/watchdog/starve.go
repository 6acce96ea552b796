package watchdog

import (
	"time"
)

// tellLimit bounds what is done before the reset, so that somebody may read later why: none of it may hold it up.
const tellLimit = 250 * time.Millisecond

// Starve resets this machine: the device is never fed again, and Config.Reset is
// asked to be quicker. It returns at once and cannot be taken back; the first reason counts. A device
// that is not armed yet is opened first. Without a device it only logs, the first reason too.
func (w *Watchdog) Starve(why string) {
	if w.cfg.Device == "" {
		// starved stays as it is: one of the former configuration goes on until it is let go.
		if w.missed.CompareAndSwap(false, true) {
			w.log.Error("this machine should be reset, and has no watchdog configured", "why", why)
		}
		return
	}
	if !w.starved.CompareAndSwap(nil, &why) {
		return
	}
	w.nudge()
	w.dying.Go(func() { w.die(why) })
}

func (w *Watchdog) die(why string) {
	left, err := w.backstop()
	told := make(chan struct{})
	go func() {
		defer close(told)
		w.log.Error("SELF-FENCING: this machine resets itself", "why", why, "device", w.cfg.Device, "at the latest in", round(left))
		if err != nil {
			w.log.Error("the watchdog could not be started for that", "err", err)
		}
	}()
	limit := time.NewTimer(tellLimit)
	defer limit.Stop()
	select {
	case <-told:
	case <-limit.C:
	}
	if w.cfg.Reset == nil {
		return
	}
	if err := w.cfg.Reset(why, left); err != nil {
		w.log.Error("this machine could not be reset", "err", err)
	}
}

// backstop sees to it that the device runs, and returns the time until it bites.
func (w *Watchdog) backstop() (left time.Duration, err error) {
	if left, runs := w.running(); runs {
		return left, nil
	}
	// Arm or Disarm may be at it.
	w.op.Lock()
	defer w.op.Unlock()
	return w.openStarved()
}

func (w *Watchdog) running() (left time.Duration, runs bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.left(w.beats.now()), w.dev != nil
}

// openStarved opens a device that is never fed, with op held.
func (w *Watchdog) openStarved() (left time.Duration, err error) {
	if left, runs := w.running(); runs {
		return left, nil
	}
	now := w.beats.now()
	dev, sup, driver, timeout, err := w.openDevice()
	if err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dev, w.support, w.noWayOut, w.armedAt = dev, sup, driver.NoWayOut, now
	w.state = state{timeout: timeout, fed: now, armed: true, starved: *w.starved.Load()}
	return timeout, nil
}
