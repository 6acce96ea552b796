package vrrp

import (
	"net/netip"
	"time"
)

// assertGap is the time in which one answer is enough: version 3 knows nothing
// shorter, and a flood is not answered by a flood.
const assertGap = 10 * time.Millisecond

// Received handles an advertisement; local is our own address.
func (m *Machine) Received(a Advert, local netip.Addr, now time.Time) Actions {
	switch m.state {
	case Backup:
		return m.backupReceived(a, now)
	case Master:
		return m.masterReceived(a, local, now)
	}
	// RFC 9568, 6.4.1: nothing but Startup ends Initialize.
	return 0
}

// backupReceived is RFC 3768, 6.4.2, and RFC 9568, 6.4.2.
func (m *Machine) backupReceived(a Advert, now time.Time) Actions {
	if a.Priority == 0 {
		if !m.ready {
			m.await(timerSkew, now)
		}
		return 0
	}
	m.master = a.From
	if a.Priority < m.set.Priority && m.preempts(now) {
		return 0 // its timer runs on
	}
	m.delayPreemption(a, now)
	m.follow(a, now)
	if m.set.Grouped {
		return Follow
	}
	return 0
}

// follow lets a backup wait for the next advertisement of this master, whose
// interval it learns in version 3.
func (m *Machine) follow(a Advert, now time.Time) {
	if m.set.Version == 3 {
		m.masterInterval = a.Interval
	}
	m.ready, m.lates = false, 0
	m.await(timerDown, now)
}

// delayPreemption begins preempt_delay with the first of a row of
// advertisements of lower priority.
func (m *Machine) delayPreemption(a Advert, now time.Time) {
	switch {
	case m.set.PreemptDelay == 0 || !m.set.Preempt:
	case a.Priority >= m.set.Priority:
		m.preemptAt = time.Time{}
	case m.preemptAt.IsZero():
		m.preemptAt = now.Add(m.set.PreemptDelay)
	}
}

// masterReceived is RFC 3768, 6.4.3, and RFC 9568, 6.4.3.
func (m *Machine) masterReceived(a Advert, local netip.Addr, now time.Time) Actions {
	if m.listening || m.stalled(now) {
		return m.listened(a, now)
	}
	switch {
	case a.Priority == 0:
		if now.Sub(m.sent) < assertGap {
			return 0
		}
		return m.advertise(now, now)
	case a.Priority > m.set.Priority,
		a.Priority == m.set.Priority && local.Less(a.From),
		a.Priority == priorityOwner && m.persists(a, now):
		return m.yield(a, now)
	}
	// RFC 9568: the sender and learning bridges are told who is master.
	// RFC 3768 discards it; keepalived answers in both versions.
	var answer Actions
	if m.set.LowerAdvert && now.Sub(m.sent) >= assertGap {
		m.sent = now
		answer = Send
	}
	return answer | AnnounceLower
}

func (m *Machine) yield(a Advert, now time.Time) Actions {
	m.enter(Backup, now)
	m.master = a.From
	m.follow(a, now)
	if m.set.HigherAdvert {
		return Send | BecomeBackup
	}
	return BecomeBackup
}

// persists tells whether another owner of the addresses, which should yield to
// our higher address, has not done so in the time of two advertisements of ours
// and 1.2 of the slower interval. The RFCs have an owner discard everything
// (RFC 9568, 7.1), so that two of them are masters for ever; keepalived ends
// that by lowering itself, and so do we.
func (m *Machine) persists(a Advert, now time.Time) bool {
	slower := max(m.set.Interval, a.Interval)
	r := &m.rogue
	if r.since.IsZero() || now.Sub(r.last) > time.Duration(m.set.DownAdverts)*slower {
		r.since = now
	}
	r.last = now
	return now.Sub(r.since) > 2*m.set.Interval+slower*6/5
}
