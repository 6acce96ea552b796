package vrrp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Foreign is a router outside of the cluster that is master of a virtual router
// whose addresses a group has, and outbids the owner.
type Foreign struct {
	From     netip.Addr `json:"from"`
	Priority uint8      `json:"priority"`
	Since    time.Time  `json:"since"`
}

func (f Foreign) String() string { return fmt.Sprintf("%s, priority %d", f.From, f.Priority) }

// AnnouncerConfig is what an Announcer needs.
type AnnouncerConfig struct {
	Host      Host
	Announcer *conf.Announcer
	Logger    *slog.Logger
	// Conflict is told when a foreign master outbids this one, and when it is
	// over. One call at a time; it must not wait, and not call the Announcer. Nil: nobody.
	Conflict func(f Foreign, over bool)
}

// Announcer tells by VRRP who has the addresses of a group. It has no state
// machine: the cluster decides, and the Announcer is the part of a master that
// speaks (RFC 3768, 6.4.3; RFC 9568, 6.4.3).
type Announcer struct {
	cfg AnnouncerConfig
	run sync.WaitGroup

	life sync.Mutex    // held by Start and Stop
	stop chan struct{} // ends beat; nil: stopped; life guards it

	mu       sync.Mutex // guards the rest
	endpoint Endpoint   // nil: stopped
	sender   sender
	judge    *judge
	foreign  Foreign // one that outbids us was heard; valid if heard is set
	heard    time.Time
	conflict bool // heard a second time
	silent   bool // it has yielded
	sent     time.Time
	counters counters
}

// NewAnnouncer returns one that is silent.
func NewAnnouncer(cfg AnnouncerConfig) *Announcer {
	if cfg.Conflict == nil {
		cfg.Conflict = func(Foreign, bool) {}
	}
	i := &cfg.Announcer.Instance
	return &Announcer{cfg: cfg, sender: newSender(i), judge: newJudge(i)}
}

var errNoAddress = errors.New("its interface has no address to send from")

// Start begins to announce: the first advertisement goes out at once. Started
// again it does nothing.
func (a *Announcer) Start() error {
	a.life.Lock()
	defer a.life.Unlock()
	if a.stop != nil {
		return nil
	}
	stop := make(chan struct{})
	e, err := a.cfg.Host.Open(&a.cfg.Announcer.Instance, a.receive)
	if err == nil && !e.Local().IsValid() {
		err = errors.Join(errNoAddress, e.Close())
	}
	if err != nil {
		return fmt.Errorf("vrrp %d on %s: %w", a.cfg.Announcer.Instance.VRID, a.cfg.Announcer.Instance.Interface, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endpoint, a.stop = e, stop
	a.foreign, a.heard, a.conflict, a.silent = Foreign{}, time.Time{}, false, false
	a.counters.said[ReasonRival] = false
	a.send(a.cfg.Announcer.Instance.Priority)
	a.run.Go(func() { a.beat(stop) })
	return nil
}

// Opened sends an advertisement beside the regular ones: the first may have gone
// out before the guard let it through.
func (a *Announcer) Opened() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.send(a.cfg.Announcer.Instance.Priority)
}

// Stop ends it with an advertisement of priority 0, so that nobody has to wait
// for the next owner's first one to be missing. Stopped again it does nothing.
func (a *Announcer) Stop() error {
	a.life.Lock()
	defer a.life.Unlock()
	if a.stop == nil {
		return nil
	}
	a.mu.Lock()
	a.send(0)
	e := a.endpoint
	a.endpoint = nil
	a.mu.Unlock()
	close(a.stop)
	a.stop = nil
	a.run.Wait()
	return e.Close()
}

// Conflict returns the foreign master that outbids this one, if there is one.
// With on_conflict yield it stays until the next Start.
func (a *Announcer) Conflict() (Foreign, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.foreign, a.conflict
}

// Notes returns what was counted of received advertisements.
func (a *Announcer) Notes() []Note {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counters.remarks()
}

// beat sends at the interval until stop is closed.
func (a *Announcer) beat(stop chan struct{}) {
	interval := a.cfg.Announcer.Instance.Interval
	due := a.cfg.Host.Now().Add(interval)
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		a.mu.Lock()
		now := a.cfg.Host.Now()
		a.send(a.cfg.Announcer.Instance.Priority)
		a.forget(now)
		a.mu.Unlock()
		if due = due.Add(interval); due.Before(now) {
			due = now.Add(interval)
		}
		timer.Reset(due.Sub(now))
	}
}

// send sends an advertisement, unless it is stopped or has yielded. mu is held.
func (a *Announcer) send(priority uint8) {
	if a.endpoint == nil || a.silent {
		return
	}
	a.sent = a.cfg.Host.Now()
	from := a.endpoint.Local()
	err := errNoAddress
	if from.IsValid() {
		err = a.sender.send(a.endpoint, from, priority)
	}
	if err != nil {
		a.counters.sendFailed(a.cfg.Logger, err)
		return
	}
	a.counters.sent++
}

func (a *Announcer) receive(p Packet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.endpoint == nil {
		return
	}
	now, local := a.cfg.Host.Now(), a.endpoint.Local()
	adv, taken := a.counters.take(a.judge, p, local, a.cfg.Logger, now)
	own := &a.cfg.Announcer.Instance
	switch {
	case !taken:
	case adv.Priority > own.Priority, adv.Priority == own.Priority && local.Unmap().WithZone("").Less(adv.From):
		a.outbid(adv, now)
	default:
		if adv.Priority > 0 {
			a.counters.note(a.cfg.Logger, ReasonRival, adv.From, now)
		}
		// RFC 9568, 6.4.3: one that leaves, and one of lower priority, are answered at once.
		if now.Sub(a.sent) >= assertGap && (adv.Priority == 0 || own.LowerAdvert) {
			a.send(own.Priority)
		}
	}
}

// outbid handles an advertisement to which a master of the RFCs yields. One is
// none yet: it may be the last of this group's previous owner, still under way.
func (a *Announcer) outbid(adv Advert, now time.Time) {
	again := a.foreign.From == adv.From && !a.heard.IsZero()
	a.heard = now
	if a.conflict {
		a.foreign.Priority = adv.Priority
		return
	}
	if !again {
		a.foreign = Foreign{adv.From, adv.Priority, now}
		return
	}
	a.conflict = true
	a.silent = a.cfg.Announcer.OnConflict == conf.ConflictYield
	what := "it goes on announcing: there are two masters"
	if a.silent {
		what = "it is silent from now on"
	}
	a.cfg.Logger.Error("a foreign router is master too, and has the better priority; "+what, "foreign", a.foreign)
	a.cfg.Conflict(a.foreign, false)
}

// forget ends a conflict whose other side has not been heard for as long as a
// backup would wait. Who has yielded has yielded: the group has failed here.
func (a *Announcer) forget(now time.Time) {
	own := &a.cfg.Announcer.Instance
	if a.heard.IsZero() || a.silent || now.Sub(a.heard) <= time.Duration(own.DownAdverts+1)*own.Interval {
		return
	}
	was := a.foreign
	a.foreign, a.heard = Foreign{}, time.Time{}
	if a.conflict {
		a.conflict = false
		a.cfg.Logger.Info("the foreign router is master no more", "foreign", was)
		a.cfg.Conflict(was, true)
	}
}
