package sim

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/lease"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// clock is a machine's clock since its power came on: virtual time at a rate
// that is wrong by up to 1 %.
type clock struct {
	epoch time.Time
	rate  float64
}

func (c clock) Now() time.Duration  { return time.Duration(float64(time.Since(c.epoch)) * c.rate) }
func (c clock) Boot() time.Duration { return c.Now() }

var _ lease.Clock = clock{}

// kernel is what outlives the daemon on a machine: addresses and the guard.
//
// That two kernels answer for one address at once can only begin with a change
// of one of them: what time alone does, at a guard's deadline, is to silence.
// So looking at every change, with all tables locked, looks at every instant.
type kernel struct {
	w    *world
	name string
	rate float64
	// ignored makes the guard have no effect: a deliberately broken variant.
	ignored bool

	// Guarded by world.tables.
	clock    clock
	held     map[netip.Addr]bool
	cut      map[netip.Addr]bool
	deadline time.Duration
	active   map[netip.Addr]bool // addresses, and stores of class fenced
	off      bool                // the machine has no power
	excused  bool                // the newest start began while two owners were excused (world.excused)
	barred   bool                // from its stores, by Config.Fabric, until it is unfenced
}

func newKernel(w *world, name string, rate float64) *kernel {
	k := &kernel{w: w, name: name, rate: rate}
	k.clear()
	return k
}

// clear is what a reboot does.
func (k *kernel) clear() {
	k.clock = clock{epoch: time.Now(), rate: k.rate}
	k.held, k.cut, k.active = map[netip.Addr]bool{}, map[netip.Addr]bool{}, map[netip.Addr]bool{}
	k.deadline = 0
}

// answers needs world.tables.
func (k *kernel) answers(a netip.Addr) bool {
	if k.off || !k.active[a] {
		return false
	}
	return isStore(a) || k.passes(a)
}

// passes says whether the guard lets through what concerns an address. It needs world.tables.
func (k *kernel) passes(a netip.Addr) bool {
	return !k.off && (k.ignored || !k.held[a] || !k.cut[a] && k.clock.Now() < k.deadline)
}

// change makes a change of the tables and looks at what it led to.
func (k *kernel) change(what string, f func()) {
	k.w.tables.Lock()
	defer k.w.tables.Unlock()
	var before []netip.Addr
	for a := range k.active {
		if k.answers(a) {
			before = append(before, a)
		}
	}
	f()
	for _, a := range before {
		if !k.answers(a) {
			k.w.ceased(k, a, what)
		}
	}
	addrs := make([]netip.Addr, 0, len(k.active))
	for a := range k.active {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, a := range addrs {
		if k.off {
			break
		}
		if !k.held[a] && !k.ignored && !isStore(a) {
			k.w.violate("%s is outside of the guard on %s after %s", a, k.name, what)
		}
		if k.answers(a) && !slices.Contains(before, a) {
			k.w.began(k, a, what)
		}
	}
}

// guard is the kernel's guard as one daemon reaches it. The daemon calls it with
// locks held, so a daemon that is stopped does not wait here: what it wrote is
// written, in order, when it goes on, and nothing that follows goes out before.
type guard struct {
	k *kernel
	g *gate
}

func (g guard) Hold(addrs ...netip.Addr) error {
	return g.g.later(func() {
		g.k.change("hold", func() {
			for _, a := range addrs {
				g.k.held[a] = true
				delete(g.k.cut, a)
			}
		})
	})
}

func (g guard) Drop(addrs ...netip.Addr) error {
	return g.g.later(func() {
		g.k.change("drop", func() {
			for _, a := range addrs {
				delete(g.k.held, a)
				delete(g.k.cut, a)
			}
		})
	})
}

func (g guard) Cut(addrs ...netip.Addr) error {
	return g.g.later(func() {
		g.k.change("cut", func() {
			for _, a := range addrs {
				g.k.held[a], g.k.cut[a] = true, true
			}
		})
	})
}

func (g guard) HoldRouters(rs ...resources.VirtualRouter) error { return g.Hold(routersOf(rs)...) }
func (g guard) DropRouters(rs ...resources.VirtualRouter) error { return g.Drop(routersOf(rs)...) }
func (g guard) CutRouters(rs ...resources.VirtualRouter) error  { return g.Cut(routersOf(rs)...) }

func (g guard) SetDeadline(d time.Duration) error {
	return g.g.later(func() {
		g.k.w.tables.Lock()
		now := g.k.clock.Now()
		g.g.allowed = g.g.allowed || now < d // under g.mu
		if now < g.k.deadline && now < d {   // live before and after: nothing begins or ends
			g.k.deadline = d
			g.k.w.tables.Unlock()
			return
		}
		g.k.w.tables.Unlock()
		g.k.change("a new deadline", func() { g.k.deadline = d })
	})
}

// address is the stand-in for a VIP: present or not, after a while.
type address struct {
	m    *machine
	g    *gate
	addr netip.Addr
}

func (r *address) Record() (json.RawMessage, error) { return json.Marshal(r.addr) }

func (r *address) Start(ctx context.Context) error {
	// It was looked for before; nobody looks again while it takes its time.
	excused := r.m.w.excused()
	if err := r.wait(ctx, true); err != nil {
		return err
	}
	if r.m.told(&r.m.failStarts) {
		return errors.New("told to fail")
	}
	return r.g.do(func() {
		r.m.kernel.change("start", func() { r.m.kernel.active[r.addr], r.m.kernel.excused = true, excused })
	})
}

func (r *address) Stop(ctx context.Context) error {
	if err := r.wait(ctx, false); err != nil {
		return err
	}
	if r.m.told(&r.m.failStops) {
		return errors.New("told to fail")
	}
	return r.g.do(func() { r.m.kernel.change("stop", func() { delete(r.m.kernel.active, r.addr) }) })
}

func (r *address) wait(ctx context.Context, start bool) error {
	r.m.mu.Lock()
	d, starts := r.m.delay, r.m.slowStarts
	r.m.mu.Unlock()
	if d == 0 || starts && !start {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (r *address) Monitor(context.Context) error {
	r.m.w.tables.Lock()
	defer r.m.w.tables.Unlock()
	if !r.m.kernel.active[r.addr] {
		return errors.New("the address is gone")
	}
	return nil
}

func (r *address) Close() error            { return nil }
func (r *address) Addresses() []netip.Addr { return []netip.Addr{r.addr} }

// kindStore is a resource that nothing but its stop, or fencing, ends: a
// filesystem, a database. The simulation calls it by an address, too.
const kindStore conf.Kind = "store"

func storeOf(a netip.Addr) netip.Addr {
	b := a.As4()
	b[0] = 11
	return netip.AddrFrom4(b)
}

func isStore(a netip.Addr) bool { return a.As4()[0] == 11 }

// store is the stand-in for it: an address that the guard knows nothing of.
type store struct{ a *address }

func (s store) Record() (json.RawMessage, error)  { return s.a.Record() }
func (s store) Stop(ctx context.Context) error    { return s.a.Stop(ctx) }
func (s store) Monitor(ctx context.Context) error { return s.a.Monitor(ctx) }
func (s store) Close() error                      { return s.a.Close() }

func (s store) Start(ctx context.Context) error {
	s.a.m.w.tables.Lock()
	barred := s.a.m.kernel.barred
	s.a.m.w.tables.Unlock()
	if barred {
		return errors.New("its disks are taken away")
	}
	return s.a.Start(ctx)
}

// maker makes addresses and stores of one machine, for one daemon on it.
type maker struct {
	m *machine
	g *gate
}

func (mk maker) make(a netip.Addr) resources.Resource {
	r := &address{m: mk.m, g: mk.g, addr: a}
	if isStore(a) {
		return store{r}
	}
	return r
}

func (mk maker) New(_ resources.Env, _ conf.Spec, r conf.Resource) (resources.Resource, error) {
	return mk.make(r.VIP.Address), nil
}

func (mk maker) Recover(_ resources.Env, record json.RawMessage) (resources.Resource, error) {
	var a netip.Addr
	if err := json.Unmarshal(record, &a); err != nil {
		return nil, err
	}
	return mk.make(a), nil
}
