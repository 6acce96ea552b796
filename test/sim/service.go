package sim

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/pair"
)

// wires is the service network as the rule ping sees it: every machine that
// has power is on it, whatever the heartbeat links do, unless it is cut itself.
type wires struct {
	w *world
	m *machine
	g *gate
}

var tieBreaker = netip.MustParseAddr("10.9.9.9")

var _ pair.Wire = wires{}

// probeEvery is the pause between two questions for an address.
const probeEvery = 10 * time.Millisecond

// question is what a machine is probing for, and when it asked last.
type question struct {
	addrs []pair.Place
	at    time.Time
}

// Ping implements pair.Wire.
func (x wires) Ping(ctx context.Context, _ netip.Addr) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Millisecond):
	}
	ok := false
	err := x.g.do(func() { ok = x.w.reaches(x.m.name) })
	return err == nil && ok
}

// defence is of an address that a daemon is about to have.
type defence struct {
	m     *machine
	g     *gate
	place pair.Place
	while func() bool
}

// Defend implements pair.Wire.
func (x wires) Defend(places []pair.Place, while func() bool) (stop func(), err error) {
	var mine []*defence
	for _, p := range places {
		mine = append(mine, &defence{x.m, x.g, p, while})
	}
	err = x.g.do(func() {
		x.w.tables.Lock()
		defer x.w.tables.Unlock()
		x.w.defended = append(x.w.defended, mine...)
	})
	return func() {
		x.w.tables.Lock()
		defer x.w.tables.Unlock()
		x.w.defended = slices.DeleteFunc(x.w.defended, func(d *defence) bool { return slices.Contains(mine, d) })
	}, err
}

// defends says whether the daemon answers for the address now. No lock is held:
// while may wait for those that the daemon holds.
func (d *defence) defends() bool { return d.g.open() && d.while() }

// Probe implements pair.Wire.
func (x wires) Probe(ctx context.Context, places []pair.Place) (answered, asked []pair.Place, unasked map[pair.Place]error) {
	for {
		var defences []*defence
		if err := x.g.do(func() {
			a, b, c := x.w.ask(x.m, places)
			answered, asked, defences = merged(answered, a), merged(asked, b), c
		}); err != nil {
			unasked = map[pair.Place]error{}
			for _, a := range places {
				unasked[a] = err
			}
			return nil, nil, unasked
		}
		for _, d := range defences {
			if d.defends() {
				answered = merged(answered, []pair.Place{d.place})
			}
		}
		select {
		case <-ctx.Done():
			return answered, asked, nil
		case <-time.After(probeEvery):
		}
	}
}

func merged(list, more []pair.Place) []pair.Place {
	for _, a := range more {
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// ask is one question: which addresses another machine answers for, and which
// another one has just asked for. Those of defences are answered for, too, if
// they still are made.
func (w *world) ask(m *machine, addrs []pair.Place) (answered, asked []pair.Place, defences []*defence) {
	cut := w.apart()
	w.tables.Lock()
	defer w.tables.Unlock()
	w.asking[m.name] = question{addrs, time.Now()}
	if cut {
		return nil, nil, nil
	}
	for _, d := range w.defended {
		if d.m != m && !d.m.kernel.off && slices.Contains(addrs, d.place) {
			defences = append(defences, d)
		}
	}
	for _, o := range w.machines {
		if o == m || o.kernel.off {
			continue
		}
		q := w.asking[o.name]
		for _, a := range addrs {
			if o.kernel.answers(a.Addr) {
				answered = append(answered, a)
			}
			if time.Since(q.at) <= probeEvery && slices.Contains(q.addrs, a) {
				asked = append(asked, a)
			}
		}
	}
	return answered, asked, defences
}

// reaches says whether a machine reaches the tie-breaker.
func (w *world) reaches(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unreachable[name] == 0
}

// apart says whether the service network is cut between the machines.
func (w *world) apart() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.serviceCuts > 0
}

// tear cuts the service network, and mend takes that back.
func (w *world) tear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serviceCuts++
}

func (w *world) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serviceCuts--
	w.mended = time.Now()
}

// excused says whether two owners are what the rule ping cannot keep from
// coming: the service network is cut, or was when an address was looked for.
func (w *world) excused() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.serviceCuts > 0 || !w.mended.IsZero() && time.Since(w.mended) < pair.ClearFor(w.longest)+w.longest
}
