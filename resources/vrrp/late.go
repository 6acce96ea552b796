package vrrp

import "time"

// A process that was stopped, or a machine that was, has missed what happened in
// the meantime. The RFCs assume that timers are handled when they expire.
// keepalived resumes as master, or asks its clock whether somebody may have
// taken over; what lies in its socket it reads afterwards, hence two masters
// after every stall. Here both roles listen before they act:
//
// A master that comes to its advertisement when everybody else has waited
// Master_Down_Interval since the one before says nothing for an interval and
// Skew_Time. Whoever took over is heard in that time, and gets what a backup
// would give it: the address stays where it went, unless we preempt. If nobody
// is heard, nobody has taken over, and it goes on, and announces its addresses
// again. It keeps them meanwhile: the kernel has answered for them during the
// whole stall, and an interval of one answer too many costs less than the
// connections that a router alone would lose at each hiccup.
//
// A backup whose timer expired more than half an interval before it is handled
// may have the master's advertisements unread before it. It listens as long,
// which a master that lives cannot be silent for.

// maxLates bounds how often in a row a backup listens again: a machine that is
// always late is still better than no master.
const maxLates = 3

// late tells whether the deadline of a backup is too old to be believed.
func (m *Machine) late(now time.Time) bool {
	if now.Sub(m.deadline) <= m.masterInterval/2 || m.lates >= maxLates {
		return false
	}
	m.lates++
	m.await(timerListen, now)
	return true
}

// adverTimer handles Adver_Timer.
func (m *Machine) adverTimer(now time.Time) Actions {
	if m.listening {
		return m.resume(now)
	}
	if m.stalled(now) {
		m.listening = true
		m.masterInterval = m.set.Interval
		m.deadline = now.Add(m.masterInterval + m.skew())
		return 0
	}
	return m.advertise(now, m.deadline)
}

// stalled tells whether others may have taken over since the last advertisement.
// Where they do after a single one that is missing, a moment too late is none.
func (m *Machine) stalled(now time.Time) bool {
	return now.Sub(m.sent) > time.Duration(max(2, m.set.DownAdverts))*m.set.Interval
}

// resume lets a master that has listened go on.
func (m *Machine) resume(now time.Time) Actions {
	m.listening = false
	return Announce | m.advertise(now, now)
}

// listened handles what a master that was late hears.
func (m *Machine) listened(a Advert, now time.Time) Actions {
	if a.Priority != 0 && (a.Priority >= m.set.Priority || !m.preempts(now)) {
		m.yield(a, now)
		return BecomeBackup
	}
	return m.resume(now)
}
