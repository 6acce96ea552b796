package vrrp

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// counters is what is counted of an instance.
type counters struct {
	sent, received, becameMaster uint64
	sentZero, receivedZero       uint64 // of these, of priority 0: who leaves says so
	notes                        [reasons]uint64
	said                         [reasons]bool
	last                         [reasons]struct {
		from netip.Addr
		at   time.Time
	}
	heard         heard // that was taken last
	unsent        bool  // the last one
	sendErrors    uint64
	sendError     string
	announceError string
	latest        time.Duration
}

// heard is another router whose advertisement was taken.
type heard struct {
	from     netip.Addr
	priority uint8
	at       time.Time
}

// note counts a reason. It is said once, until the configuration is another one.
func (c *counters) note(log *slog.Logger, why Reason, from netip.Addr, now time.Time) {
	c.notes[why]++
	c.last[why].from, c.last[why].at = from, now
	if c.said[why] {
		return
	}
	c.said[why] = true
	text := "advertisements are not as ours, and are taken"
	switch {
	case why.Refused():
		text = "advertisements are refused"
	case why == ReasonRival:
		text = "a router of lower priority is master too, and should yield"
	}
	log.Warn(text+"; more of these are only counted", "why", why, "from", from)
}

// attempt counts an advertisement that was sent, or was not.
func (c *counters) attempt(log *slog.Logger, priority uint8, err error) {
	if c.unsent = err != nil; !c.unsent {
		c.sent++
		if priority == 0 {
			c.sentZero++
		}
		return
	}
	c.sendErrors++
	if text := err.Error(); text != c.sendError {
		c.sendError = text
		log.Error("an advertisement was not sent; more of these are only counted", "err", err)
	}
}

// announced notes whether the network was told of the addresses.
func (i *instance) announced(err error) {
	before := i.announceError
	if i.announceError = ""; err == nil {
		return
	}
	if i.announceError = err.Error(); i.announceError != before {
		i.log.Error("the addresses were not announced", "err", err)
	}
}

// Status is what a Router knows.
type Status struct {
	Instances []InstanceStatus `json:"instances"`
	Strangers []Stranger       `json:"strangers,omitempty"`
	Lateness  Lateness         `json:"lateness"`
}

// InstanceStatus is what is known of an instance.
type InstanceStatus struct {
	Name      string     `json:"name"`
	Group     string     `json:"sync_group,omitempty"`
	Interface string     `json:"interface"`
	Version   uint8      `json:"version"`
	IPv6      bool       `json:"ipv6,omitempty"`
	VRID      uint8      `json:"vrid"`
	State     State      `json:"state"`
	Since     time.Time  `json:"since"`
	Priority  uint8      `json:"priority"` // the effective one
	Base      uint8      `json:"base_priority"`
	Local     netip.Addr `json:"local"`  // invalid: it has no endpoint
	Master    netip.Addr `json:"master"` // the other one that was heard last; invalid: none, or this one is master
	// Heard is whose advertisement was taken last, in whatever state, with which priority; invalid: nobody's.
	Heard         netip.Addr     `json:"heard"`
	HeardPriority uint8          `json:"heard_priority,omitempty"`
	HeardAt       time.Time      `json:"heard_at,omitzero"`
	Addresses     []netip.Prefix `json:"addresses"` // that a master has, with those that are excluded from the packet
	Tracks        []TrackStatus  `json:"tracks,omitempty"`
	Lacks         string         `json:"lacks,omitempty"`
	Waits         bool           `json:"waits,omitempty"`     // for the first result of something
	Listening     bool           `json:"listening,omitempty"` // a master that was late
	Programs      bool           `json:"programs,omitempty"`  // the kernel is being made what the state asks for
	Failure       string         `json:"failure,omitempty"`   // what the kernel has refused at the last attempt

	Sent         uint64        `json:"sent"`
	SentZero     uint64        `json:"sent_zero"` // of Sent, of priority 0: this router left
	SendErrors   uint64        `json:"send_errors,omitempty"`
	Received     uint64        `json:"received"`      // that were taken
	ReceivedZero uint64        `json:"received_zero"` // of Received, of priority 0: another master left
	BecameMaster uint64        `json:"became_master"`
	Notes        []Note        `json:"notes,omitempty"`
	MaxLate      time.Duration `json:"max_late"` // of its advertisements
}

// Note counts advertisements that were refused, or that something was remarked about.
type Note struct {
	Why     Reason     `json:"why"`
	Refused bool       `json:"refused"`
	Count   uint64     `json:"count"`
	From    netip.Addr `json:"from"` // the last
	At      time.Time  `json:"at"`
}

// Status returns what is known now: instances in the order of the file, and
// behind them, in state INIT, those out of it of which the kernel keeps something.
func (r *Router) Status() Status {
	strangers := r.cfg.Host.Strangers()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Instances: make([]InstanceStatus, 0, len(r.instances)), Strangers: strangers, Lateness: r.lateness}
	all := r.v.Instances
	for n := range all {
		if n%yieldEvery == yieldEvery-1 {
			r.yield()
		}
		if i := r.instances[all[n].Name]; i != nil {
			s.Instances = append(s.Instances, i.status())
		}
	}
	for _, i := range r.removed {
		if i.failure != "" && !i.over() {
			s.Instances = append(s.Instances, i.status())
		}
	}
	return s
}

func (i *instance) status() InstanceStatus {
	c := i.conf
	s := InstanceStatus{
		Name: c.Name, Interface: c.Interface, Version: c.Version, IPv6: c.IPv6, VRID: c.VRID,
		Priority: i.machine.Priority(), Base: c.Priority, Master: i.machine.MasterAddress(),
		Listening: i.machine.Listening(), Failure: i.failure,
		Sent: i.sent, SentZero: i.sentZero, SendErrors: i.sendErrors, Received: i.received, ReceivedZero: i.receivedZero, BecameMaster: i.becameMaster, MaxLate: i.latest,
	}
	s.State, s.Since = i.machine.State()
	s.Programs = i.working
	if s.Failure == "" && s.State == Master {
		switch {
		case i.unsent:
			s.Failure = "advertisements are not sent: " + i.sendError
		case i.announceError != "":
			s.Failure = "the addresses were not announced: " + i.announceError
		}
	}
	if !i.gone {
		s.Lacks, s.Waits = i.group.sync.Lacks(), i.group.sync.Waits()
	}
	if i.endpoint != nil {
		s.Local = i.endpoint.Local()
	}
	s.Heard, s.HeardPriority, s.HeardAt = i.heard.from, i.heard.priority, i.heard.at
	for _, all := range [][]conf.VRRPAddress{c.Addresses, c.Excluded} {
		for _, a := range all {
			s.Addresses = append(s.Addresses, a.Address)
		}
	}
	if i.group.conf != nil {
		s.Group = i.group.conf.Name
	}
	s.Tracks = i.r.world.tracks(c, i.group.conf)
	s.Notes = i.remarks()
	return s
}

// remarks returns what has been counted, by reason.
func (c *counters) remarks() (all []Note) {
	for why, count := range c.notes {
		if count > 0 {
			last := c.last[why]
			all = append(all, Note{Reason(why), Reason(why).Refused(), count, last.from, last.at})
		}
	}
	return all
}

// take counts what arrives for a judge, and returns the advertisement in it.
func (c *counters) take(j *judge, p Packet, local netip.Addr, log *slog.Logger, now time.Time) (Advert, bool) {
	a, remarks, refused := j.take(p, local)
	if refused != 0 {
		c.note(log, refused, p.From, now)
		return a, false
	}
	c.received++
	if a.Priority == 0 {
		c.receivedZero++
	}
	c.heard = heard{p.From, a.Priority, now}
	for why := reasonTaken + 1; remarks != 0 && why < reasons; why++ {
		if remarks.Has(why) {
			c.note(log, why, p.From, now)
		}
	}
	return a, true
}

// lateBounds are the upper bounds of Lateness.Counts; the last has none.
var lateBounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, time.Second,
}

// Lateness is how long after they were due the advertisements of all masters
// went out, since the router began.
type Lateness struct {
	Max    time.Duration               `json:"max"`
	Counts [len(lateBounds) + 1]uint64 `json:"counts"` // up to each of LateBounds, and beyond
}

// LateBounds returns the upper bounds of Lateness.Counts, of which the last has none.
func LateBounds() []time.Duration { return lateBounds[:] }

func (l *Lateness) add(d time.Duration) {
	l.Max = max(l.Max, d)
	n := 0
	for n < len(lateBounds) && d > lateBounds[n] {
		n++
	}
	l.Counts[n]++
}
