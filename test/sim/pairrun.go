package sim

import (
	"context"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// dead is how long a machine that dies by itself stays so.
const dead = 2 * time.Second

func (r *run) onDevice(e event) func() {
	s := r.w.power
	s.mu.Lock()
	defer s.mu.Unlock()
	set := func(f func()) func() {
		return func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			f()
		}
	}
	switch e.Do {
	case deviceSlow:
		s.delay = time.Duration(e.Count) * time.Millisecond
		return set(func() { s.delay = deviceTakes })
	case deviceFails:
		s.fail += e.Count
		return set(func() { s.fail = 0 })
	case deviceMute:
		s.lose += e.Count
		return set(func() { s.lose = 0 })
	}
	s.trip = func(by *machine) {
		r.w.note("    %s dies when it asks the device", by.name)
		by.strike(e.Flag, nil, dead)
	}
	return set(func() { s.trip = nil })
}

func (r *run) onService(e event, ms []*machine) func() {
	w := r.w
	if e.Do == serviceCut {
		w.tear()
		return w.mend
	}
	reach := func(by int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, m := range ms {
			w.unreachable[m.name] += by
		}
	}
	reach(1)
	return func() { reach(-1) }
}

// confirm is an operator's word, on a machine that may not want it.
func (r *run) confirm(e event, ms []*machine) {
	for _, m := range ms {
		if m.node == nil || m.paused {
			continue
		}
		_ = r.say(m, e.Flag) // the transcript has it
	}
}

// say confirms on a machine.
func (r *run) say(m *machine, force bool) error {
	err := m.node.Confirm(cluster.WithOrder(context.Background(), cluster.Order{By: "somebody", Force: force}))
	r.w.note("    confirm on %s (forced: %v): %v", m.name, force, err)
	if err == nil && force {
		r.w.history.excuse("an operator forced it")
	}
	if err == nil {
		m.gate.allow()
	}
	return err
}

// atWrite arms the disk of a machine.
func (r *run) atWrite(e event, m *machine) func() {
	d := m.diskNow()
	d.arm(fuse{of: e.Write, left: e.Count, after: e.Flag, blow: func(left *disk) {
		when := "before"
		if e.Flag {
			when = "after"
		}
		r.w.note("    %s dies %s a %v", m.name, when, e.Write)
		m.strike(e.Flag, left, dead)
	}})
	return func() { d.arm(fuse{}) }
}

// atAdmission cuts a machine off at the moment when it knows that it has been
// admitted, for so many milliseconds.
func (r *run) atAdmission(id int, e event, m *machine) func() {
	var once bool
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.applied = func(who string, c state.Command) {
		if c.Admit == nil || c.Admit.Node != m.name || who != m.name || once {
			return
		}
		once = true
		for _, o := range r.w.machines {
			if o != m {
				r.w.streams.Cut(o.name, m.name)
				r.w.streams.Cut(m.name, o.name)
			}
		}
		r.w.later(func() {
			r.w.note("    %s has been admitted, and is cut off", m.name)
			r.w.net.faults[1000+id] = r.wires(event{Do: partition}, []*machine{m})
			r.w.net.apply()
			r.async(func() func() {
				time.Sleep(time.Duration(e.Count) * time.Millisecond)
				return func() {
					delete(r.w.net.faults, 1000+id)
					r.w.net.apply()
				}
			})
		})
	}
	return func() {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		r.w.applied = nil
	}
}

// upgrade gives every machine the newest program and restarts its daemon, one after the other.
func (r *run) upgrade() {
	for _, m := range r.w.machines {
		if m.format == 0 {
			continue
		}
		m.format = 0
		m.kill()
		r.ok(m.start())
		r.w.note("    %s has the newest program", m.name)
		r.rest(time.Duration(1+r.dice.IntN(3000)) * time.Millisecond)
	}
}

// fences says whether the cluster has a fencing device.
func (c Config) fences() bool {
	return c.Rule == conf.QuorumFencing || c.Stores > 0 || c.OnConflict == conf.ConflictFence
}

// pings says whether it has a tie-breaker.
func (c Config) pings() bool { return c.Rule == conf.QuorumPing }
