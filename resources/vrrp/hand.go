package vrrp

import (
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// hand is what has to be done for an instance by what may wait: its endpoint,
// its addresses, who is told. While there is something of that, one goroutine does it.
type hand struct {
	working bool
	ended   bool

	open      bool   // an endpoint is to be opened, in place of the present one
	openError string // why there is none

	leaving []*conf.VRRPInstance // what only an earlier configuration had
	stuck   []*conf.VRRPInstance // what of that is still there
	late    bool                 // leaving was stuck: another one may have got it meanwhile
	clears  []func()             // called when all of that, or the instance, is gone
	after   <-chan struct{}      // nothing new is put into the kernel before

	carried  State  // what has been carried out; 0: nothing, and something may remain of an earlier process
	holds    bool   // the kernel has, or may have, something of it
	acquired uint64 // the place in the order of those that were given what they have
	dirty    bool   // once more
	failure  string // of the kernel; it stands until all has been done

	told  State     // with Event
	gone  bool      // out of the configuration
	retry time.Time // when what has failed is tried again; zero: nothing has
}

// When what the kernel or the host has refused is tried again.
const (
	retryOpen   = time.Second
	retryKernel = 5 * time.Second
)

// work sees to it that somebody does what there is to do. Router.mu is held.
func (i *instance) work() {
	if i.working || i.job() == nil {
		return
	}
	i.working = true
	i.r.hands.Go(i.jobs)
}

// jobs does what there is to do, until there is nothing.
func (i *instance) jobs() {
	for {
		i.r.mu.Lock()
		do := i.job()
		i.working = do != nil
		i.r.mu.Unlock()
		if do == nil {
			return
		}
		do()
	}
}

// job is what is to be done next, or nil. Giving back comes before taking,
// and both before talking. Router.mu is held.
func (i *instance) job() func() {
	state, _ := i.machine.State()
	paced := i.conf.GARP.Interval > 0
	switch {
	case len(i.leaving) > 0:
		return i.drop
	case i.carried == Master && state != Master:
		return i.carryOut
	case i.open && !i.gone:
		return i.openEndpoint
	case i.carried != state && (state != Initialize || i.gone), i.dirty:
		return i.carryOut
	// A new master is told when its first round of announcements is out, unless
	// a round takes its time.
	case i.told != i.carried && (i.wanted == 0 || paced || i.wanted < i.conf.GARP.Repeat):
		return i.tell
	case i.wanted > 0 && state == Master:
		return i.announce
	case i.gone && !i.ended:
		return i.end
	}
	return nil
}

// drop takes from the kernel what only an earlier configuration had.
func (i *instance) drop() {
	i.r.mu.Lock()
	old, clears, late := i.leaving, i.clears, i.late
	i.leaving, i.clears, i.late = nil, nil, false
	i.r.mu.Unlock()
	for _, c := range old {
		i.slot(func() {
			if late {
				c = i.r.unwanted(c)
			}
			if c == nil {
				return
			}
			if err := i.r.cfg.Host.Release(c); err != nil {
				i.r.mu.Lock()
				defer i.r.mu.Unlock()
				i.stuck = append(i.stuck, c)
				i.failed(err)
			}
		})
	}
	for _, clear := range clears {
		clear()
	}
	if !late {
		return
	}
	i.r.mu.Lock()
	defer i.r.mu.Unlock()
	for _, o := range i.r.instances {
		if o != i && o.holds {
			o.dirty = true
			o.work()
		}
	}
}

// carryOut does to the kernel what the state asks for.
func (i *instance) carryOut() {
	i.r.mu.Lock()
	state, _ := i.machine.State()
	c, after, before := i.conf, i.after, i.carried
	again := i.dirty
	i.dirty = false
	i.r.mu.Unlock()
	if state == Master || before == 0 {
		<-after
	}
	did, err := true, error(nil)
	switch {
	case state == Master:
		i.slot(func() {
			// Who has yielded while it waited takes nothing any more.
			if did = i.takes(); did {
				err = i.r.cfg.Host.Acquire(c)
			}
		})
		if !did {
			i.r.mu.Lock()
			i.dirty = i.dirty || again
			i.r.mu.Unlock()
			return
		}
	case before == 0 || before == Master || again:
		i.slot(func() { err = i.r.cfg.Host.Release(c) })
	default:
		did = false
	}
	i.r.mu.Lock()
	defer i.r.mu.Unlock()
	i.carried = state
	switch {
	case err != nil:
		i.failed(err)
		if i.gone && state != Master {
			i.stuck = append(i.stuck, c)
		}
	case did && len(i.stuck) == 0:
		i.failure = ""
	}
	if state != Master {
		i.holds = i.holds && (err != nil || !did)
		return
	}
	// A reload in the meantime has compared with what had not been carried out yet.
	i.dirty = i.dirty || i.conf != c && !sameHoldings(i.conf, c)
	if now, _ := i.machine.State(); again && now == Master {
		i.wanted = max(i.wanted, i.conf.GARP.Repeat) // what is new has not been announced
	}
}

// takes tells whether it is master still, and so is given what a master has.
func (i *instance) takes() bool {
	i.r.mu.Lock()
	defer i.r.mu.Unlock()
	if i.carried != Master {
		i.r.acquired++
		i.acquired = i.r.acquired
	}
	state, _ := i.machine.State()
	i.holds = i.holds || state == Master
	return state == Master
}

// slot waits for a place among those that program the kernel.
func (i *instance) slot(program func()) {
	i.r.slots <- struct{}{}
	program()
	<-i.r.slots
}

// failed notes what the kernel has refused, and has it tried again. Router.mu is held.
func (i *instance) failed(err error) {
	if text := err.Error(); text != i.failure {
		i.failure = text
		i.log.Error("the kernel has not done all of it; it is tried again", "every", retryKernel, "err", err)
	}
	if !i.r.closed {
		i.retryAfter(retryKernel)
	}
}

func (i *instance) retryAfter(d time.Duration) {
	i.retry = earliest(i.retry, i.r.cfg.Host.Now().Add(d))
	i.r.schedule(i)
}

// again tries again what has failed. Router.mu is held.
func (i *instance) again(now time.Time) {
	i.retry = time.Time{}
	i.free()
	if !i.gone {
		i.open = i.open || i.openError != ""
		i.dirty = i.dirty || i.failure != ""
		i.stand(now)
	}
	i.work()
}

// free has what is stuck given back. Router.mu is held.
func (i *instance) free() {
	i.late = i.late || len(i.stuck) > 0
	i.leaving, i.stuck = append(i.leaving, i.stuck...), nil
}

// unwanted is what is left of c without what the instance of its name has got by
// now, and gives back in the end; nil: nothing.
func (r *Router) unwanted(c *conf.VRRPInstance) *conf.VRRPInstance {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.instances[c.Name]; o != nil && o.holds {
		return without(c, o.conf)
	}
	return c
}

// over tells whether an instance that is out of the configuration has nothing left.
func (i *instance) over() bool {
	return i.ended && !i.working && len(i.leaving)+len(i.stuck) == 0
}

// openEndpoint opens the endpoint, in place of the one there is.
func (i *instance) openEndpoint() {
	r := i.r
	r.mu.Lock()
	i.open = false
	old, c, after := i.endpoint, i.conf, i.after
	// A VMAC goes with its endpoint, and what stands on it goes with the VMAC.
	// Any other endpoint serves until the next one is there.
	off := false
	if c.VMAC != "" {
		i.endpoint = nil
		off = old != nil && i.carried == Master
		i.dirty = i.dirty || off
	}
	opened := i.opened + 1
	r.mu.Unlock()
	if off {
		// What it leaves goes with the interface, or is put there again.
		i.slot(func() { _ = r.cfg.Host.Release(c) })
	}
	if c.VMAC != "" {
		i.close(old)
		old = nil
	}
	if old == nil {
		<-after
	}
	e, err := r.cfg.Host.Open(c, i.receive(opened))
	judge, sender := newJudge(c), newSender(c)

	r.mu.Lock()
	if i.conf != c { // a reload meanwhile
		judge, sender = newJudge(i.conf), newSender(i.conf)
	}
	if err == nil {
		i.endpoint, i.opened, i.openError, i.judge, i.sender = e, opened, "", judge, sender
	} else {
		i.endpoint = nil
		if text := err.Error(); text != i.openError {
			i.openError = text
			i.log.Error("it can neither send nor listen; it is tried again", "every", retryOpen, "err", err)
		}
		i.retryAfter(retryOpen)
	}
	if !i.gone {
		i.stand(r.cfg.Host.Now())
	}
	r.mu.Unlock()
	i.close(old)
}

// close closes an endpoint that was the instance's; nil: none.
func (i *instance) close(e Endpoint) {
	if e == nil {
		return
	}
	if err := e.Close(); err != nil {
		i.log.Warn("closing the sockets", "err", err)
	}
}

// announce sends a round of announcements.
func (i *instance) announce() {
	i.r.mu.Lock()
	ctx, c := i.ctx, i.conf
	i.wanted = max(0, i.wanted-1)
	i.r.mu.Unlock()
	if ctx == nil {
		return
	}
	var err error
	if c.GARP.Interval > 0 {
		err = i.r.cfg.Host.Announce(ctx, c) // it mostly sleeps
	} else {
		i.slot(func() { err = i.r.cfg.Host.Announce(ctx, c) })
	}
	if ctx.Err() == nil {
		i.r.mu.Lock()
		defer i.r.mu.Unlock()
		i.announced(err)
	}
}

// tell tells Event what has been carried out, and for the group when all its members have.
func (i *instance) tell() {
	r := i.r
	r.mu.Lock()
	i.told = i.carried
	g := i.group
	e := Event{Name: i.conf.Name, State: i.told, Priority: i.machine.Priority()}
	r.mu.Unlock()
	r.cfg.Event(e)
	if g.conf == nil {
		return
	}
	g.telling.Lock()
	defer g.telling.Unlock()
	r.mu.Lock()
	all := g.told != e.State
	for _, m := range g.members {
		all = all && m.told == e.State
	}
	if all {
		g.told = e.State
	}
	r.mu.Unlock()
	if all {
		r.cfg.Event(Event{Group: true, Name: g.conf.Name, State: e.State})
	}
}

// end closes what an instance that is out of the configuration still has.
func (i *instance) end() {
	i.r.mu.Lock()
	e, clears := i.endpoint, i.clears
	i.endpoint, i.clears, i.ended = nil, nil, true
	i.r.mu.Unlock()
	i.close(e)
	for _, clear := range clears {
		clear()
	}
}
