package vrrp

import (
	"net/netip"
	"time"
)

// State is what a virtual router is at the moment.
type State uint8

// States (RFC 9568, 6.4). Fault is keepalived's: not started, because something it needs is missing.
const (
	_ State = iota
	Initialize
	Backup
	Master
	Fault
)

func (s State) String() string {
	switch s {
	case Initialize:
		return "INIT"
	case Backup:
		return "BACKUP"
	case Master:
		return "MASTER"
	case Fault:
		return "FAULT"
	}
	return "invalid state"
}

// MarshalText writes the state as keepalived does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Actions is what has to be done after an event, in the order of the constants.
type Actions uint16

// Actions.
const (
	SendZero Actions = 1 << iota // an advertisement of priority 0: we leave
	Send                         // an advertisement
	BecomeMaster
	BecomeBackup
	BecomeFault
	BecomeInitialize
	Announce      // as a new master does
	AnnounceLower // after an advertisement of lower priority
	Ask           // the sync group, whether to become master
	Follow        // in a sync group: another master was heard, and is accepted
)

// priorityOwner is the priority of the router that owns the addresses (RFC 9568, 5.2.4).
const priorityOwner = 255

// Settings is what a machine is told of its instance.
type Settings struct {
	Version      uint8 // 2 or 3
	Priority     uint8 // the effective one, 1 to 255
	Interval     time.Duration
	DownAdverts  int // advertisements that may be missing; the RFCs have 3
	Preempt      bool
	PreemptDelay time.Duration
	LowerAdvert  bool // a master answers an advertisement of lower priority
	HigherAdvert bool // a last advertisement before it yields
	Grouped      bool // it asks its sync group before it becomes master
}

// Machine is the state machine of one virtual router (RFC 3768, 6.4; RFC 9568,
// 6.4). It has no clock: who calls says what time it is, and calls Expired when
// Deadline has come. Its zero value is not usable; see NewMachine.
//
// What is beyond the RFCs is keepalived's, and marked. Of our own is one thing:
// a machine that was not run in time does not trust its timers, but listens
// first. See late.go.
type Machine struct {
	set      Settings
	state    State
	since    time.Time
	deadline time.Time  // zero: none
	master   netip.Addr // the other router that was heard last as master

	// Backup.
	masterInterval time.Duration // Master_Adver_Interval
	timer          timer         // what the deadline is made of
	started        time.Time     // when that timer was set
	ready          bool          // its timer has expired, and the sync group is not ready
	preemptAt      time.Time     // end of preempt_delay; zero: not begun
	lates          int           // deadlines in a row that were handled late

	// Master.
	sent      time.Time // the last advertisement that was due was sent then
	listening bool      // it was late, and waits for what others say
	rogue     rogue
}

// timer is a way to reckon a backup's deadline.
type timer uint8

const (
	timerDown   timer = iota // Master_Down_Interval
	timerSkew                // Skew_Time
	timerListen              // an interval and Skew_Time, after having been late
)

// rogue is another owner of the addresses, of lower address, that does not yield.
type rogue struct{ since, last time.Time }

// NewMachine returns a machine in state Initialize.
func NewMachine(s Settings, now time.Time) *Machine {
	return &Machine{set: s, state: Initialize, since: now, masterInterval: s.Interval}
}

// State returns the state and when it was entered.
func (m *Machine) State() (State, time.Time) { return m.state, m.since }

// Deadline is when Expired has to be called; zero: never.
func (m *Machine) Deadline() time.Time { return m.deadline }

// Priority is what is advertised.
func (m *Machine) Priority() uint8 { return m.set.Priority }

// MasterAddress is the other router that was heard last as master; invalid
// while this one is master, or none was heard.
func (m *Machine) MasterAddress() netip.Addr { return m.master }

// Listening tells whether this is a master that was late, and has not sent since.
func (m *Machine) Listening() bool { return m.listening }

// Ready tells whether the router could be master, for the sync group.
func (m *Machine) Ready() bool { return m.ready || m.state == Master }

// skew is Skew_Time: RFC 3768, 6.1, in parts of a second; RFC 9568, 6.1, in parts of the master's interval.
func (m *Machine) skew() time.Duration {
	unit := time.Second
	if m.set.Version == 3 {
		unit = m.masterInterval
	}
	return unit * time.Duration(256-int(m.set.Priority)) / 256
}

// down is Master_Down_Interval.
func (m *Machine) down() time.Duration {
	return m.masterInterval*time.Duration(m.set.DownAdverts) + m.skew()
}

func (m *Machine) owner() bool { return m.set.Priority == priorityOwner }

// preempts tells whether a master of lower priority is left no time. The owner
// always preempts (RFC 9568, 6.1, Preempt_Mode).
func (m *Machine) preempts(now time.Time) bool {
	if m.owner() || !m.set.Preempt {
		return m.owner()
	}
	// keepalived: preempt_delay begins with the first advertisement of lower priority.
	return m.set.PreemptDelay == 0 || !m.preemptAt.IsZero() && !now.Before(m.preemptAt)
}

func (m *Machine) enter(s State, now time.Time) {
	m.state, m.since, m.deadline = s, now, time.Time{}
	m.ready, m.listening, m.lates, m.rogue, m.preemptAt = false, false, 0, rogue{}, time.Time{}
}

// await sets the deadline of a backup.
func (m *Machine) await(t timer, now time.Time) {
	m.timer, m.started = t, now
	m.reckon(now)
}

// reckon makes the deadline of a backup what its timer says with the present priority.
func (m *Machine) reckon(now time.Time) {
	wait := m.down()
	switch m.timer {
	case timerSkew:
		wait = m.skew()
	case timerListen:
		wait = m.masterInterval + m.skew()
	}
	m.deadline = m.started.Add(wait)
	if m.deadline.Before(now) {
		m.deadline = now
	}
}

// Startup is the event of the RFCs: RFC 9568, 6.4.1. keepalived's state MASTER
// changes nothing: only the owner is master at once.
func (m *Machine) Startup(now time.Time) Actions {
	if m.state != Initialize && m.state != Fault {
		return 0
	}
	m.masterInterval, m.master = m.set.Interval, netip.Addr{}
	m.enter(Backup, now)
	if !m.owner() {
		m.await(timerDown, now)
		return BecomeBackup
	}
	if m.set.Grouped {
		m.ready = true
		return BecomeBackup | Ask
	}
	return m.Promote(now)
}

// Shutdown is the event of the RFCs: a master says that it leaves.
func (m *Machine) Shutdown(now time.Time) Actions { return m.leave(Initialize, BecomeInitialize, now) }

// Fault says that something the router needs is missing. Startup is its end.
func (m *Machine) Fault(now time.Time) Actions { return m.leave(Fault, BecomeFault, now) }

func (m *Machine) leave(to State, a Actions, now time.Time) Actions {
	if m.state == to {
		return 0
	}
	if m.state == Master {
		a |= SendZero
	}
	m.enter(to, now)
	m.master = netip.Addr{}
	return a
}

// Promote makes a backup the master: its timer has expired (RFC 9568, 6.4.2),
// and its sync group agrees.
func (m *Machine) Promote(now time.Time) Actions {
	if m.state != Backup {
		return 0
	}
	m.enter(Master, now)
	m.master = netip.Addr{}
	return BecomeMaster | m.advertise(now, now)
}

// Demote takes a master back because its sync group has lost another one: in
// the words of the RFCs it is shut down, which it says, and started again.
func (m *Machine) Demote(now time.Time) Actions {
	if m.state != Master {
		return 0
	}
	m.masterInterval = m.set.Interval
	m.enter(Backup, now)
	m.await(timerDown, now)
	return SendZero | BecomeBackup
}

// advertise sends what was due, and makes the next due an interval after it.
func (m *Machine) advertise(now, due time.Time) Actions {
	m.sent, m.deadline = now, due.Add(m.set.Interval)
	if m.deadline.Before(now) {
		m.deadline = now.Add(m.set.Interval)
	}
	return Send
}

// Expired handles the deadline, if it has come.
func (m *Machine) Expired(now time.Time) Actions {
	if m.deadline.IsZero() || now.Before(m.deadline) {
		return 0
	}
	if m.state == Master {
		return m.adverTimer(now)
	}
	if m.late(now) {
		return 0
	}
	if m.set.Grouped {
		m.ready, m.deadline = true, time.Time{}
		return Ask
	}
	return m.Promote(now)
}

// Configure gives the machine other settings; a running timer goes on.
func (m *Machine) Configure(s Settings, now time.Time) Actions {
	if s == m.set {
		return 0
	}
	faster := s.Interval < m.set.Interval
	m.set = s
	switch {
	case m.state == Master && faster && !m.listening:
		// Nobody else waits by the new interval yet: the time since the last one is no stall.
		m.sent = now
		if next := now.Add(s.Interval); m.deadline.After(next) {
			m.deadline = next
		}
	case m.state == Backup && m.ready && !s.Grouped:
		return m.Promote(now)
	case m.state == Backup && !m.ready:
		if s.Version == 2 || !m.master.IsValid() { // version 3 learns it
			m.masterInterval = s.Interval
		}
		m.reckon(now)
	}
	return 0
}

// SetPriority changes the effective priority. A backup's timer is reckoned
// anew with its skew; a master tells with its next advertisement.
func (m *Machine) SetPriority(p uint8, now time.Time) Actions {
	s := m.set
	s.Priority = p
	return m.Configure(s, now)
}
