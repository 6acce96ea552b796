package sim

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

// powerSwitch is the fencing device of a simulated cluster: it cuts the power
// of a machine, and gives it back. What it says may be lost, it may take its
// time, and it may fail.
type powerSwitch struct {
	w *world

	mu    sync.Mutex // guards what follows
	delay time.Duration
	fail  int // so many uses fail and do nothing
	lose  int // the answer of so many uses is lost: the machine is off, and nobody knows
	back  time.Duration
	ask   func(node string, again time.Duration) // does it, in the schedule's goroutine
	uses  int
}

// device is the switch as a machine's daemon reaches it.
type device struct {
	s *powerSwitch
	m *machine
	g *gate
}

func (d device) Configure(*conf.Fencing)                                      {}
func (d device) Can(string) error                                             { return nil }
func (d device) Plan(string, conf.FenceAction) []string                       { return nil }
func (d device) Confirm(string) error                                         { return fencing.ErrNoDevice }
func (d device) Waiting() []fencing.Waiting                                   { return nil }
func (d device) Status() []fencing.DeviceStatus                               { return nil }
func (d device) Unfence(context.Context, string) error                        { return nil }
func (d device) Run(ctx context.Context) error                                { <-ctx.Done(); return nil }
func (d device) Test(context.Context, string) ([]fencing.DeviceStatus, error) { return nil, nil }

// Fence implements fencing.Service. A daemon that is stopped asks nothing and hears nothing.
func (d device) Fence(ctx context.Context, t fencing.Target, action conf.FenceAction, note func(fencing.Attempt)) (fencing.Outcome, error) {
	o := fencing.Outcome{Node: t.Node, Action: action}
	s := d.s
	s.mu.Lock()
	delay, back := s.delay, s.back
	fails, lost := s.fail > 0, s.lose > 0
	if fails {
		s.fail--
	} else if lost {
		s.lose--
	}
	s.uses++
	ask := s.ask
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return o, ctx.Err()
	case <-time.After(delay/2 + time.Millisecond):
	}
	if err := d.g.do(func() {}); err != nil {
		return o, err
	}
	a := fencing.Attempt{Device: "switch", Level: 1, Node: t.Node, By: d.m.name, Action: action, Took: delay}
	if fails {
		a.Error = "the device does not answer"
		note(a)
		o.Attempts = append(o.Attempts, a)
		return o, nil
	}
	s.w.note("    %s fences %s", d.m.name, t.Node)
	ask(t.Node, back)
	select {
	case <-ctx.Done():
		return o, ctx.Err()
	case <-time.After(delay / 2):
	}
	if err := d.g.do(func() {}); err != nil {
		return o, err
	}
	if lost {
		a.Error = "the device's answer was lost"
	}
	note(a)
	o.Attempts = append(o.Attempts, a)
	o.Done = !lost
	return o, nil
}

// wires is the service network as the rule ping sees it: every machine that
// has power is on it, whatever the heartbeat links do.
type wires struct {
	w *world
	m *machine
	g *gate
}

var tieBreaker = netip.MustParseAddr("10.9.9.9")

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

// Probe implements pair.Wire.
func (x wires) Probe(ctx context.Context, places []pair.Place) (answered, asked []pair.Place, unasked map[pair.Place]error) {
	defer x.w.asks(x.m, nil)
	for {
		if err := x.g.do(func() {
			x.w.asks(x.m, places)
			x.w.tables.Lock()
			defer x.w.tables.Unlock()
			for _, m := range x.w.machines {
				for _, a := range places {
					if m != x.m && m.kernel.answers(a.Addr) && !slices.Contains(answered, a) {
						answered = append(answered, a)
					}
					if m != x.m && slices.Contains(x.w.asking[m.name], a) && !slices.Contains(asked, a) {
						asked = append(asked, a)
					}
				}
			}
		}); err != nil {
			unasked = map[pair.Place]error{}
			for _, a := range places {
				unasked[a] = err
			}
			return nil, nil, unasked
		}
		select {
		case <-ctx.Done():
			return answered, asked, nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// asks notes for which addresses a machine is probing.
func (w *world) asks(m *machine, places []pair.Place) {
	w.tables.Lock()
	defer w.tables.Unlock()
	w.asking[m.name] = places
}

var (
	_ fencing.Service = device{}
	_ pair.Wire       = wires{}
)

// reaches says whether a machine reaches the tie-breaker.
func (w *world) reaches(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.unreachable[name]
}

// rejoin is what the program does when its daemon ends with cluster.ErrRejoin:
// the log is put aside, what was promised and revoked stays, and it starts again.
func (m *machine) rejoin() {
	r := m.generations.Record
	promises := m.promises
	m.newDisk()
	m.promises = promises
	m.generations.Record = pair.Record{Current: r.Current, How: r.How}
	m.w.note("    %s puts its log aside and comes back in generation %v", m.name, r.Current)
}

// generations is the disk as one daemon reaches it.
type generations struct {
	disk *pair.Memory
	g    *gate
}

// Save implements pair.Store.
func (s generations) Save(r pair.Record) (err error) {
	if gone := s.g.do(func() { err = s.disk.Save(r) }); gone != nil {
		return gone
	}
	return err
}

// rule is what decides in this cluster.
func (w *world) rule() conf.Quorum {
	if w.cfg.Rule == 0 {
		return conf.QuorumMajority
	}
	return w.cfg.Rule
}

func (w *world) fencing(m *machine, g *gate) fencing.Service {
	if w.rule() != conf.QuorumFencing {
		return nil
	}
	return device{w.power, m, g}
}

// later has f run in the schedule's goroutine.
func (w *world) later(f func()) { w.posted <- f }
