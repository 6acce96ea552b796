package vrrp

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/vrrp/track"
)

// Config is what a Router needs.
type Config struct {
	Host   Host
	Logger *slog.Logger
	// Event is told what has become of an instance or a group, when that has been
	// carried out: a master has its addresses, a backup has given them back. It is
	// called from several goroutines, but for one instance, and for one group, in
	// order. It must not wait: the instance's next step would wait with it. Nil: nobody.
	Event func(Event)
	// Alarm is what the clock sleeps by. Nil: Go's timers.
	Alarm Alarm
}

// Event says what an instance or a sync group has become. What was over before
// it could be carried out is not told.
type Event struct {
	Group    bool   // of a sync group, otherwise of an instance
	Name     string // as the file has it
	State    State  // Initialize: it has been stopped
	Priority uint8  // the effective one; 0 for a group
}

// Router runs virtual routers on a host. One goroutine sends whatever is due,
// and never waits for the kernel; addresses are programmed by others.
type Router struct {
	cfg   Config
	hands sync.WaitGroup // goroutines that program the kernel
	slots chan struct{}  // a place for each of them that does so right now
	alarm Alarm          // of the clock

	updating sync.Mutex // held by Update, before mu: nobody else gives an instance another configuration

	mu        sync.Mutex // guards the rest and all instances; never held across what waits
	v         conf.VRRP
	instances map[string]*instance
	removed   []*instance // out of the configuration; what they had may not all be given back
	groups    map[string]*group
	acquired  uint64        // counts how often an instance was given what it has
	cleared   chan struct{} // closed when what the last Update took away is gone
	world     world
	due       dueHeap
	sleeping  time.Time // until when the clock sleeps
	lateness  Lateness
	closed    bool
}

// programmers is how many instances have their addresses programmed at a time.
// The kernel takes one change at a time anyway (rtnl_lock), and a second one that
// waits for it would only keep a processor from the clock.
const programmers = 1

// NewRouter returns a Router without instances. It works while Run runs.
func NewRouter(cfg Config) *Router {
	if cfg.Event == nil {
		cfg.Event = func(Event) {}
	}
	if cfg.Alarm == nil {
		cfg.Alarm = newTimerAlarm()
	}
	return &Router{
		cfg: cfg, slots: make(chan struct{}, programmers), alarm: cfg.Alarm,
		instances: map[string]*instance{},
		world:     world{links: map[string]bool{}, results: map[tracked]track.Result{}},
	}
}

// Run runs the instances until ctx ends. Then masters say that they leave, all
// addresses are taken back, and it returns.
func (r *Router) Run(ctx context.Context) error {
	defer r.end()
	stop, err := r.cfg.Host.Links(r.link)
	if err != nil {
		return fmt.Errorf("vrrp: the state of interfaces cannot be watched: %w", err)
	}
	defer stop()
	r.mu.Lock()
	r.world.linked = true
	r.standAll()
	r.mu.Unlock()
	r.clock(ctx)
	return nil
}

// end stops all instances, and waits until what they had is given back.
func (r *Router) end() {
	r.mu.Lock()
	r.closed = true
	for _, i := range r.removed {
		i.free()
		i.work()
	}
	r.dismiss(slices.Collect(maps.Values(r.instances)), r.cfg.Host.Now())
	clear(r.instances)
	r.mu.Unlock()
	r.hands.Wait()
}

// dismiss stops instances for good. Those that have something give it back one
// after the other, the last one first: the kernel hangs an IPv4 address on the
// first one of its network, and takes long to hang thousands on the next.
func (r *Router) dismiss(all []*instance, now time.Time) {
	slices.SortFunc(all, func(a, b *instance) int { return cmp.Compare(b.acquired, a.acquired) })
	var line []*instance
	for _, i := range all {
		if i.carried == Master && !i.working {
			i.working = true
			line = append(line, i)
		}
		i.remove(now)
	}
	r.removed = append(slices.DeleteFunc(r.removed, (*instance).over), all...)
	r.hands.Go(func() {
		for _, i := range line {
			i.jobs()
		}
	})
}

// Update makes v's instances those that run. One that is as it was goes on
// undisturbed; one whose virtual router is the same keeps its state, and only
// what has changed is changed in the kernel; any other is stopped, and begins anew.
func (r *Router) Update(v conf.VRRP) {
	r.updating.Lock()
	defer r.updating.Unlock()
	next := r.prepare(&v)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	now := r.cfg.Host.Now()
	r.v = v
	before := r.instances
	r.instances = map[string]*instance{}
	// What goes is gone from the kernel before something new is put there: it
	// may be the same address in another place.
	cleared := r.barrier()
	for n := range v.Instances {
		c := &v.Instances[n]
		i := before[c.Name]
		switch {
		case i == nil:
		case next[n].equal:
			i.conf = c
			r.instances[c.Name] = i
			delete(before, c.Name)
		case sameRouter(i.conf, c):
			i.change(c, next[n], cleared, now)
			r.instances[c.Name] = i
			delete(before, c.Name)
		}
	}
	for _, i := range before {
		i.clears = append(i.clears, cleared.part())
	}
	r.dismiss(slices.Collect(maps.Values(before)), now)
	for n := range v.Instances {
		c := &v.Instances[n]
		if r.instances[c.Name] == nil {
			r.instances[c.Name] = r.newInstance(c, now)
		}
	}
	for _, i := range r.instances {
		i.after = cleared.done
	}
	r.raise(cleared)
	r.regroup()
	r.forget()
	n := 0
	for _, i := range r.instances {
		if n++; n%yieldEvery == 0 {
			r.yield()
			now = r.cfg.Host.Now()
		}
		if r.closed {
			return
		}
		i.stand(now)
		i.work()
	}
}

// yieldEvery is after how many instances Update and Status let the clock do what is due.
const yieldEvery = 10

func (r *Router) yield() {
	r.mu.Unlock()
	runtime.Gosched()
	r.mu.Lock()
}

// prepared is what of an instance can be made ready beforehand: for hundreds of
// them it takes as long as an advertisement may be late.
type prepared struct {
	equal  bool // to the configuration that it has
	judge  *judge
	sender sender
	gone   *conf.VRRPInstance // what only the configuration that it has puts into the kernel; nil: nothing
}

// prepare makes ready what Update needs, while the clock goes on. r.updating is held.
func (r *Router) prepare(v *conf.VRRP) []prepared {
	before := map[string]*conf.VRRPInstance{}
	r.mu.Lock()
	for name, i := range r.instances {
		before[name] = i.conf
	}
	r.mu.Unlock()
	all := make([]prepared, len(v.Instances))
	for n := range v.Instances {
		c, p := &v.Instances[n], &all[n]
		old := before[c.Name]
		if p.equal = old != nil && reflect.DeepEqual(old, c); p.equal {
			continue
		}
		if old != nil && sameRouter(old, c) {
			p.judge, p.sender, p.gone = newJudge(c), newSender(c), without(old, c)
		}
	}
	return all
}

// sameRouter tells whether two configurations are of the same virtual router.
func sameRouter(a, b *conf.VRRPInstance) bool {
	return a.Version == b.Version && a.IPv6 == b.IPv6 && a.VRID == b.VRID && a.Interface == b.Interface &&
		a.VMAC == b.VMAC && a.VMACBase == b.VMACBase
}

// regroup makes the sync groups what the configuration says.
func (r *Router) regroup() {
	before := r.groups
	r.groups = map[string]*group{}
	in := map[string]bool{}
	for n := range r.v.SyncGroups {
		g := &group{conf: &r.v.SyncGroups[n]}
		if old := before[g.conf.Name]; old != nil {
			g.told = old.told
		}
		for _, name := range g.conf.Instances {
			if i := r.instances[name]; i != nil && !in[name] {
				in[name] = true
				g.members = append(g.members, i)
			}
		}
		g.join()
		r.groups[g.conf.Name] = g
	}
	for name, i := range r.instances {
		if !in[name] {
			g := &group{members: []*instance{i}}
			g.join()
		}
	}
}

// forget drops the results of what is tracked no more: if it is again, it is looked at first.
func (r *Router) forget() {
	is := map[tracked]bool{}
	for _, s := range r.v.Scripts {
		is[tracked{track.Script, s.Name}] = true
	}
	for _, p := range r.v.Processes {
		is[tracked{track.Process, p.Name}] = true
	}
	for _, f := range r.v.Files {
		is[tracked{track.File, f.Name}] = true
	}
	maps.DeleteFunc(r.world.results, func(t tracked, _ track.Result) bool { return !is[t] })
}

// SetTracked says what is known of a script, a process or a file.
func (r *Router) SetTracked(k track.Kind, name string, result track.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := tracked{k, name}
	if old, known := r.world.results[t]; known && old == result {
		return
	}
	r.world.results[t] = result
	r.standAll()
}

// link is told about interfaces.
func (r *Router) link(name string, up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before, known := r.world.links[name]; known && before == up {
		return
	}
	r.world.links[name] = up
	now := r.cfg.Host.Now()
	for _, i := range r.instances {
		if up && i.conf.Interface == name && i.openError != "" {
			i.again(now) // what was refused may have been for this
		}
	}
	r.standAll()
}

func (r *Router) standAll() {
	now := r.cfg.Host.Now()
	for _, i := range r.instances {
		i.stand(now)
	}
}

// group is the instances of a sync group, or one that is in none.
type group struct {
	conf    *conf.VRRPSyncGroup // nil: no sync group
	sync    *SyncGroup
	members []*instance
	told    State      // last, with Event; Router.mu guards it
	telling sync.Mutex // held while Event is called, for the order

	// carry has a member do what its group has decided at the time now. It is made
	// once: a group hears every advertisement of its members.
	carry func(member int, a Actions)
	now   time.Time
}

func (g *group) join() {
	g.carry = func(member int, a Actions) {
		i := g.members[member]
		i.do(a, g.now)
		i.r.schedule(i)
	}
	var machines []*Machine
	for n, i := range g.members {
		i.group, i.member = g, n
		machines = append(machines, i.machine)
	}
	g.sync = NewSyncGroup(machines...)
}

// barrier is passed when all of its parts are done, and the one before it is.
type barrier struct {
	parts sync.WaitGroup
	done  chan struct{}
}

func (b *barrier) part() func() {
	b.parts.Add(1)
	return b.parts.Done
}

// barrier returns one that follows the last.
func (r *Router) barrier() *barrier { return &barrier{done: make(chan struct{})} }

// raise lets the barrier end with the parts that it has by now.
func (r *Router) raise(b *barrier) {
	before := r.cleared
	r.cleared = b.done
	r.hands.Go(func() {
		b.parts.Wait()
		if before != nil {
			<-before
		}
		close(b.done)
	})
}
