package sim

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
)

// observeEvery is how often the replicated states are compared. The tables of
// the kernels are looked at with every change of theirs.
const observeEvery = 200 * time.Millisecond

// run plays a schedule: one goroutine does all that is done to machines.
type run struct {
	w     *world
	s     schedule
	wait  int            // functions that will come through back
	back  chan func()    // from goroutines that waited for a node
	asked time.Time      // when an operator was asked last
	undo  map[int]func() // by event: what ends it
	dice  *rand.Rand     // for what an event leaves open
}

// step is the beginning or the end of an event.
type step struct {
	at    time.Duration
	event int
	end   bool
}

func newRun(w *world, s schedule) *run {
	return &run{w: w, s: s, back: make(chan func()), undo: map[int]func(){}, dice: rand.New(rand.NewPCG(s.Seed, 0x646f))}
}

// play runs the whole schedule and judges it.
func (r *run) play() {
	w := r.w
	w.note("%v", r.s)
	w.async = r.async
	begin := time.Now()
	if r.s.Rule != 0 && r.s.has(diskLoss) {
		w.lostDisk = true
		w.history.excuse("a disk was lost")
	}
	for i, m := range w.members() {
		at := r.s.Starts[i]
		r.async(func() func() {
			time.Sleep(time.Until(begin.Add(at)))
			return func() { r.ok(m.start()) }
		})
	}
	if !r.until(30*time.Second, w.settled) {
		r.fail("the cluster did not form within 30 s")
		return
	}
	if r.s.Peaceful {
		r.until(10*time.Second, w.home)
		r.rest(time.Second)
		w.mu.Lock()
		w.still = true
		w.mu.Unlock()
	}
	_, term := w.leader()
	w.note("== settled; the faults begin")
	r.events()
	w.note("== the faults have ended")
	if r.s.Peaceful {
		r.rest(5 * time.Second)
		// That it is moved to a node that owns nothing is no election without a cause.
		if leader, now := w.leader(); now != term && w.owns(leader) && !r.s.has(restart, power, crash, diskLoss, pause, nodes) {
			w.violate("an election without a cause: %s leads under term %s, it was %s", leader, now, term)
		}
		if why := w.unsettled(); why != "" {
			w.violate("%s", why)
		}
		return
	}
	r.recover()
}

// applied says whether the cluster runs what the files say, and applies them otherwise.
func (r *run) applied() bool {
	var newest *cluster.Node
	for _, m := range r.w.machines {
		if m.node != nil && m.role == conf.Director && (newest == nil || m.node.State().SpecInfo.Version > newest.State().SpecInfo.Version) {
			newest = m.node
		}
	}
	if newest == nil {
		return false
	}
	if spec := newest.State().Spec; spec != nil && len(conf.Diff(spec, r.w.specification())) == 0 {
		return true
	}
	if r.wait == 0 {
		r.async(func() func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_, err := newest.Apply(cluster.WithOrder(ctx, cluster.Order{Force: true}), 0, false)
			time.Sleep(200 * time.Millisecond) // a refusal costs no time
			return func() { r.w.note("    apply at the end: %v", err) }
		})
	}
	return false
}

func (r *run) fail(format string, args ...any) {
	r.w.violate(format, args...)
	r.w.dump()
}

func (r *run) ok(err error) {
	if err != nil {
		r.w.violate("the simulation itself failed: %v", err)
	}
}

// async runs f beside the schedule; what it returns runs in the schedule's goroutine.
func (r *run) async(f func() func()) {
	r.wait++
	go func() { r.back <- f() }()
}

// until runs what comes back until ok, at most for d.
func (r *run) until(d time.Duration, ok func() bool) bool {
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for !ok() {
		select {
		case <-end.C:
			return ok()
		case f := <-r.back:
			r.wait--
			f()
		case <-r.w.news:
			r.w.posts()
		case <-tick.C:
			if time.Since(last) >= observeEvery {
				last = time.Now()
				r.w.observe()
			}
		}
	}
	return true
}

func (r *run) rest(d time.Duration) {
	end := time.Now().Add(d)
	r.until(d, func() bool { return !time.Now().Before(end) })
}

// drain waits for everything that is still under way.
func (r *run) drain() {
	for r.wait > 0 {
		select {
		case f := <-r.back:
			r.wait--
			f()
		case <-r.w.news:
			r.w.posts()
		}
	}
}

func (r *run) events() {
	var steps []step
	for i, e := range r.s.Events {
		steps = append(steps, step{e.At, i, false}, step{e.At + e.For, i, true})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	begin := time.Now()
	for _, s := range steps {
		if d := time.Until(begin.Add(s.at)); d > 0 {
			r.rest(d)
		}
		e := r.s.Events[s.event]
		if s.end {
			if undo := r.undo[s.event]; undo != nil {
				r.w.note("== end of: %v", e.Do)
				undo()
			}
			continue
		}
		r.w.note("== %v", e)
		if undo := r.do(s.event, e); undo != nil {
			r.undo[s.event] = undo
		}
		r.w.observe()
	}
}

// who resolves a name that says a part.
func (r *run) who(name string) *machine {
	switch name {
	case "owner":
		for i := range r.w.cfg.Groups {
			if o := r.w.owner(i); o != "" {
				return r.w.machine(o)
			}
		}
		return r.w.machines[0]
	case "leader":
		if l, _ := r.w.leader(); l != "" {
			return r.w.machine(l)
		}
		return r.w.machines[len(r.w.machines)-1]
	}
	return r.w.machine(name)
}

func (r *run) all(names []string) []*machine {
	var ms []*machine
	for _, n := range names {
		if m := r.who(n); !slices.Contains(ms, m) {
			ms = append(ms, m)
		}
	}
	return ms
}

// do begins an event and returns what ends it.
func (r *run) do(id int, e event) func() {
	ms := r.all(e.On)
	for _, m := range ms {
		if !slices.Contains(e.On, m.name) {
			r.w.note("    that is %s", m.name)
		}
	}
	switch e.Do {
	case power, diskLoss, crash, pause, slow, failStarts, failStops, lostAddress:
		return r.onMachines(e, ms)
	case standby, takeover, apply, restart, cleanStop:
		return r.onNode(e, ms[0])
	case linkFlap:
		return r.flap(id, e)
	case deviceSlow, deviceFails, deviceMute, diesAsking:
		return r.onDevice(e)
	case noTieBreaker, serviceCut:
		return r.onService(e, ms)
	case confirm:
		r.confirm(e, ms)
		return nil
	case diesWriting:
		return r.atWrite(e, ms[0])
	case cutAtAdmission:
		return r.atAdmission(id, e, ms[0])
	case upgrade:
		r.upgrade()
		return nil
	case nodes:
		r.changeNodes(e, ms[0])
		return nil
	case orderFence:
		r.orderFence(e, ms[0])
		return nil
	case foreignMaster:
		return r.foreign(e)
	case diskFull:
		ms[0].diskNow().fill(true)
		return func() { ms[0].diskNow().fill(false) }
	case served:
		for i := range r.s.Groups {
			if r.w.owner(i) == "" {
				r.fail("one node is there, and group%d answers nowhere", i+1)
			}
		}
		return nil
	}
	r.w.net.faults[id] = r.wires(e, ms)
	r.w.net.apply()
	return func() {
		delete(r.w.net.faults, id)
		r.w.net.apply()
	}
}

func (r *run) wires(e event, ms []*machine) []wireFault {
	f := wireFault{link: e.Link, c: e.Noise}
	f.c.Cut = e.Do != noise && e.Do != linkNoise && e.Do != delayed
	var fs []wireFault
	both := func(a, b string) {
		f.from, f.to = a, b
		fs = append(fs, f)
		f.from, f.to = b, a
		fs = append(fs, f)
	}
	switch e.Do {
	case partition:
		for _, m := range ms {
			both(m.name, "")
		}
	case split:
		for _, a := range ms {
			for _, b := range r.w.machines {
				if !slices.Contains(ms, b) {
					both(a.name, b.name)
				}
			}
		}
	case oneWay, delayed:
		f.from, f.to = ms[0].name, ""
		if !e.From {
			f.from, f.to = "", ms[0].name
		}
		fs = append(fs, f)
	case pairCut, pairOneWay:
		f.from, f.to = ms[0].name, r.who(e.Peer).name
		fs = append(fs, f)
		if e.Do == pairCut {
			both(f.from, f.to)
		}
	case noise:
		if len(ms) > 0 {
			both(ms[0].name, "")
		} else {
			fs = append(fs, f)
		}
	default: // a link
		fs = append(fs, f)
	}
	return fs
}

// flap cuts a link and joins it again, every so many milliseconds.
func (r *run) flap(id int, e event) func() {
	over := false
	var turn func(cut bool)
	turn = func(cut bool) {
		if over {
			return
		}
		delete(r.w.net.faults, id)
		if cut {
			r.w.net.faults[id] = r.wires(e, nil)
		}
		r.w.net.apply()
		r.async(func() func() {
			time.Sleep(time.Duration(e.Count) * time.Millisecond)
			return func() { turn(!cut) }
		})
	}
	turn(true)
	return func() {
		over = true
		delete(r.w.net.faults, id)
		r.w.net.apply()
	}
}

func (r *run) onMachines(e event, ms []*machine) func() {
	switch e.Do {
	case power, diskLoss:
		for _, m := range ms {
			m.dark++
			m.powerOff()
			if e.Do == diskLoss {
				m.newDisk()
			}
		}
		return func() {
			for _, m := range ms {
				m.dark--
				r.ok(m.powerOn())
			}
		}
	case crash:
		for _, m := range ms {
			m.kill()
			if e.Flag {
				r.release(m)
			}
		}
		return func() {
			for _, m := range ms {
				r.ok(m.start())
			}
		}
	case pause:
		var stopped []*machine
		for _, m := range ms {
			if m.node != nil && !m.paused {
				m.pause()
				stopped = append(stopped, m)
			}
		}
		return func() {
			for _, m := range stopped {
				if m.paused {
					m.cont()
				}
			}
		}
	case slow:
		r.tell(ms[0], func(m *machine) { m.delay, m.slowStarts = time.Duration(e.Count)*time.Millisecond, e.Flag })
		return func() { r.tell(ms[0], func(m *machine) { m.delay = 0 }) }
	case failStarts:
		r.tell(ms[0], func(m *machine) { m.failStarts = e.Count })
	case failStops:
		r.tell(ms[0], func(m *machine) { m.failStops = e.Count })
	case lostAddress:
		if m := r.w.machine(r.w.owner(e.Count - 1)); m != nil {
			m.kernel.change("somebody", func() { delete(m.kernel.active, r.w.address(e.Count-1)) })
		}
	}
	return nil
}

func (r *run) tell(m *machine, f func(*machine)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// release is what systemd runs when the daemon has died.
func (r *run) release(m *machine) {
	if !m.powered() || m.role != conf.Director || m.releasing != nil {
		return
	}
	g := newGate()
	m.releasing = g
	r.async(func() func() {
		m.release(context.Background(), g)
		return func() {
			if m.releasing == g {
				m.releasing = nil
				r.ok(m.start())
			}
		}
	})
}

// orderFence is an operator's order, which may be refused.
func (r *run) orderFence(e event, m *machine) {
	n := m.node
	if n == nil || m.paused {
		return
	}
	r.async(func() func() {
		ctx, cancel := context.WithTimeout(cluster.WithOrder(context.Background(), cluster.Order{Force: true}), 5*time.Second)
		defer cancel()
		_, err := n.Fence(ctx, e.Peer)
		return func() { r.w.note("    fence %s on %s: %v", e.Peer, m.name, err) }
	})
}
