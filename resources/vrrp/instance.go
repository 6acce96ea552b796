package vrrp

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// instance is a virtual router that runs. Router.mu guards it.
type instance struct {
	r       *Router
	conf    *conf.VRRPInstance
	log     *slog.Logger
	machine *Machine
	group   *group
	member  int // in the group

	endpoint Endpoint // nil: not open
	opened   int      // counts the endpoints, so that no other is heard
	judge    *judge   // with the endpoint, as is the sender
	sender

	at    time.Time // where it is in the heap
	place int       // there; -1: not in it
	rounds

	hand
	counters
}

func (r *Router) newInstance(c *conf.VRRPInstance, now time.Time) *instance {
	i := &instance{r: r, place: -1, conf: c, log: r.cfg.Logger.With("instance", c.Name)}
	i.open = true
	i.machine = NewMachine(i.settings(int(c.Priority)), now)
	return i
}

func (i *instance) settings(priority int) Settings {
	c := i.conf
	return Settings{
		Version: c.Version, Priority: uint8(priority), Interval: c.Interval, DownAdverts: c.DownAdverts,
		Preempt: c.Preempt, PreemptDelay: c.PreemptDelay, LowerAdvert: c.LowerAdvert, HigherAdvert: c.HigherAdvert,
		Grouped: i.group != nil && i.group.conf != nil,
	}
}

// change gives a running instance another configuration of the same virtual router.
func (i *instance) change(c *conf.VRRPInstance, p prepared, b *barrier, now time.Time) {
	old := i.conf
	i.conf = c
	clear(i.said[:])
	i.rounds.change(old.GARP, c.GARP, now)
	if p.gone != nil {
		i.leaving = append(i.leaving, p.gone)
		i.clears = append(i.clears, b.part())
	}
	i.dirty = i.dirty || i.carried == Master && !sameHoldings(old, c)
	switch {
	case old.Source != c.Source || old.Group != c.Group || old.UnicastTTL != c.UnicastTTL || !slices.Equal(old.Peers, c.Peers):
		i.open = true
		i.work()
	case !i.open:
		i.judge, i.sender = p.judge, p.sender
	}
}

// sameHoldings tells whether two configurations put the same into the kernel.
func sameHoldings(a, b *conf.VRRPInstance) bool {
	return slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Excluded, b.Excluded) &&
		slices.Equal(a.Routes, b.Routes) && slices.Equal(a.Rules, b.Rules) && accepts(a) == accepts(b)
}

// accepts tells whether packets to the addresses are taken: an owner always takes them.
func accepts(i *conf.VRRPInstance) bool { return i.Accept || i.Priority == priorityOwner }

// without returns an instance that has only what old has and c has not; nil if there is nothing.
func without(old, c *conf.VRRPInstance) *conf.VRRPInstance {
	gone, stays := *old, append(placed(c, c.Addresses), placed(c, c.Excluded)...)
	gone.Addresses = minus(placed(old, old.Addresses), stays)
	gone.Excluded = minus(placed(old, old.Excluded), stays)
	gone.Routes = minus(old.Routes, c.Routes)
	gone.Rules = minus(old.Rules, c.Rules)
	if len(gone.Addresses)+len(gone.Excluded)+len(gone.Routes)+len(gone.Rules) == 0 {
		return nil
	}
	return &gone
}

// placed returns addresses of an instance with the interface that each stands on.
func placed(i *conf.VRRPInstance, all []conf.VRRPAddress) []conf.VRRPAddress {
	all = slices.Clone(all)
	for n := range all {
		all[n].Interface = cmp.Or(all[n].Interface, i.VMAC, i.Interface)
	}
	return all
}

func minus[T comparable](a, b []T) []T {
	has := make(map[T]bool, len(b))
	for _, x := range b {
		has[x] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(x T) bool { return has[x] })
}

// stand tells the machine, and its group, how the instance stands.
func (i *instance) stand(now time.Time) {
	s := i.r.world.stand(i.conf, i.group.conf)
	if s.Lacks == "" {
		s.Lacks = i.openError
	}
	switch {
	case i.endpoint == nil:
		s.Waits = true
	case s.Lacks == "" && !i.endpoint.Local().IsValid():
		// A master that nobody hears would be one of two.
		s.Lacks = "interface " + i.conf.Interface + " has no address to send from"
		i.retryAfter(retryOpen)
	}
	if was := i.machine.Priority(); was != s.Priority {
		i.log.Info("priority", "was", was, "is", s.Priority)
	}
	i.did(i.machine.Configure(i.settings(int(s.Priority)), now), now)
	i.group.now = now
	i.group.sync.Stand(i.member, s, now, i.group.carry)
}

// did carries out what an event of the machine has led to, in its group as well.
func (i *instance) did(a Actions, now time.Time) {
	if a != 0 {
		i.do(a, now)
		i.group.now = now
		i.group.sync.Follow(i.member, a, now, i.group.carry)
	}
	i.r.schedule(i)
}

// do carries out actions. An advertisement goes out here and now, everything else by other hands.
func (i *instance) do(a Actions, now time.Time) {
	switch {
	case a&SendZero != 0:
		i.send(0)
	case a&Send != 0:
		i.send(i.machine.Priority())
	}
	switch {
	case a&BecomeMaster != 0:
		i.becameMaster++
		i.said[ReasonRival] = false
		i.rounds.start(i.conf.GARP, now)
		i.log.Info("master", "priority", i.machine.Priority())
	case a&BecomeBackup != 0:
		i.rounds.stop()
		if m := i.machine.MasterAddress(); m.IsValid() {
			i.log.Info("backup", "priority", i.machine.Priority(), "master", m)
		} else {
			i.log.Info("backup", "priority", i.machine.Priority())
		}
	case a&BecomeFault != 0:
		i.rounds.stop()
		i.log.Warn("fault", "why", i.group.sync.Lacks())
	case a&BecomeInitialize != 0:
		i.rounds.stop()
		i.log.Info("stopped")
	case a&Announce != 0:
		i.rounds.start(i.conf.GARP, now)
		i.log.Warn("this process did not run in time; nobody has taken over meanwhile, it goes on as master")
	case a&AnnounceLower != 0:
		i.rounds.lower(i.conf.GARP, i.conf.Interval, now)
	}
	i.work()
}

// next is when something is to be done; zero: never.
func (i *instance) next() time.Time {
	return earliest(i.machine.Deadline(), i.rounds.burst, i.rounds.refresh, i.retry)
}

func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// tick does what is due.
func (i *instance) tick(now time.Time) {
	if due := i.machine.Deadline(); !due.IsZero() && !now.Before(due) {
		if state, _ := i.machine.State(); state == Master {
			late := now.Sub(due)
			i.latest = max(i.latest, late)
			i.r.lateness.add(late)
		}
		i.did(i.machine.Expired(now), now)
	}
	if i.rounds.due(i.conf.GARP, now) {
		i.work()
	}
	if !i.retry.IsZero() && !now.Before(i.retry) {
		i.again(now)
	}
}

// send sends an advertisement.
func (i *instance) send(priority uint8) {
	if i.endpoint == nil {
		return
	}
	from := i.endpoint.Local()
	if !from.IsValid() {
		i.retryAfter(0) // what it lacks is found there
		return
	}
	i.attempt(i.log, priority, i.sender.send(i.endpoint, from, priority))
}

// receive returns what an endpoint calls.
func (i *instance) receive(opened int) func(Packet) {
	return func(p Packet) {
		r := i.r
		r.mu.Lock()
		defer r.mu.Unlock()
		if i.endpoint == nil || i.opened != opened {
			return
		}
		from, now := i.endpoint.Local(), r.cfg.Host.Now()
		a, taken := i.take(i.judge, p, from, i.log, now)
		if !taken {
			return
		}
		actions := i.machine.Received(a, from.Unmap().WithZone(""), now)
		if actions&AnnounceLower != 0 {
			i.note(i.log, ReasonRival, p.From, now)
		}
		i.did(actions, now)
	}
}

// remove stops an instance for good.
func (i *instance) remove(now time.Time) {
	i.gone = true
	i.free()
	i.dirty = i.dirty || i.failure != "" // it may have more than its state says
	i.do(i.machine.Shutdown(now), now)
	i.rounds.stop()
	i.work()
}

// rounds is when a master announces its addresses.
type rounds struct {
	wanted    int       // rounds to be announced now
	burst     time.Time // the delayed rounds; zero: none
	later     int       // how many these are
	refresh   time.Time
	nextLower time.Time // no answer to lower priority before
	ctx       context.Context
	cancel    context.CancelFunc
}

// start begins the announcements of a new master: some rounds at once, and as many after the delay.
func (s *rounds) start(g conf.VRRPAnnounce, now time.Time) {
	if s.cancel == nil {
		s.ctx, s.cancel = context.WithCancel(context.Background())
	}
	s.wanted, s.burst = g.Repeat, time.Time{}
	if g.Delay > 0 {
		s.burst, s.later = now.Add(g.Delay), g.Repeat
	}
	s.refreshes(g, now)
}

// refreshes has them begun anew after every Refresh from now on, if there is one.
func (s *rounds) refreshes(g conf.VRRPAnnounce, now time.Time) {
	s.refresh = time.Time{}
	if g.Refresh > 0 {
		s.refresh = now.Add(g.Refresh)
	}
}

// change goes on with other settings.
func (s *rounds) change(old, g conf.VRRPAnnounce, now time.Time) {
	if s.cancel != nil && old.Refresh != g.Refresh {
		s.refreshes(g, now)
	}
}

// lower begins them anew because somebody else has spoken as master, not more often than it ends them.
func (s *rounds) lower(g conf.VRRPAnnounce, interval time.Duration, now time.Time) {
	if now.Before(s.nextLower) {
		return
	}
	s.nextLower = now.Add(max(g.LowerDelay, interval))
	s.wanted = max(s.wanted, g.LowerRepeat)
	if g.LowerDelay > 0 && s.burst.IsZero() {
		s.burst, s.later = now.Add(g.LowerDelay), g.LowerRepeat
	}
}

// stop ends them, also the one that is going on.
func (s *rounds) stop() {
	s.cancelAnnouncing()
	s.wanted, s.burst, s.refresh, s.nextLower = 0, time.Time{}, time.Time{}, time.Time{}
}

func (s *rounds) cancelAnnouncing() {
	if s.cancel != nil {
		s.cancel()
		s.ctx, s.cancel = nil, nil
	}
}

// due tells whether rounds have become due.
func (s *rounds) due(g conf.VRRPAnnounce, now time.Time) bool {
	before := s.wanted
	if !s.burst.IsZero() && !now.Before(s.burst) {
		s.wanted, s.burst = max(s.wanted, s.later), time.Time{}
	}
	if !s.refresh.IsZero() && !now.Before(s.refresh) {
		s.wanted, s.refresh = max(s.wanted, g.RefreshRepeat), now.Add(g.Refresh)
	}
	return s.wanted > before
}
