package watchdog

import "time"

// Status is the watchdog as `keepbeat status` shows it.
type Status struct {
	Device   string        `json:"device"`                // empty: not configured
	Identity string        `json:"identity,omitempty"`    // as the driver calls itself
	Timeout  time.Duration `json:"timeout"`               // from the last feeding to the reset
	NoWayOut bool          `json:"nowayout"`              // a clean stop does not stop it
	Running  bool          `json:"running"`               // it bites unless it is fed
	Armed    time.Time     `json:"armed,omitzero"`        // since when; zero: not armed (yet)
	Fed      time.Time     `json:"fed,omitzero"`          // last
	Left     time.Duration `json:"left"`                  // until it bites
	Told     time.Duration `json:"driver_left,omitempty"` // the same by the driver, where it knows, while it is not fed
	Held     []string      `json:"held,omitempty"`        // what holds it back, in words; empty: it is fed
	Starved  string        `json:"starved,omitempty"`     // why it is never fed again
	Error    string        `json:"error,omitempty"`       // of the last feeding; while it does not run, why it could not be armed
	Beats    []BeatStatus  `json:"beats"`                 // by name
}

// BeatStatus is a loop that feeds it.
type BeatStatus struct {
	Name   string        `json:"name"`
	Age    time.Duration `json:"age"` // since it turned last
	MaxAge time.Duration `json:"max_age"`
	Idle   bool          `json:"idle"` // it need not turn
}

// ArmedWith is the timeout with which it is armed; 0: it is not.
func (w *Watchdog) ArmedWith() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dev == nil || !w.state.armed {
		return 0
	}
	return w.state.timeout
}

// Status tells how the watchdog is. It does not wait for the device.
func (w *Watchdog) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, clock := w.beats.now(), time.Now()
	timeout := w.cfg.Timeout
	if w.dev != nil {
		timeout = w.state.timeout
	}
	st := Status{Device: w.cfg.Device, Timeout: timeout}
	readings := w.beats.read(now, timeout)
	for _, r := range readings {
		st.Beats = append(st.Beats, BeatStatus{r.name, r.age, r.maxAge, r.idle})
	}
	s := w.state
	if why := w.starved.Load(); why != nil {
		st.Starved, s.starved = *why, *why
	}
	if w.trouble != nil {
		st.Error = w.trouble.Error()
	}
	if w.dev == nil {
		return st
	}
	st.Running, st.Identity, st.NoWayOut = true, w.support.identity, w.noWayOut
	if s.armed {
		st.Armed = clock.Add(w.armedAt - now)
	}
	st.Fed, st.Left = clock.Add(s.fed-now), s.left(now)
	if len(s.held) > 0 {
		st.Told = w.told
	}
	for _, h := range s.holds(now, readings) {
		st.Held = append(st.Held, h.text)
	}
	return st
}
