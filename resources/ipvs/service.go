package ipvs

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// service is a virtual service as a state machine. The zero value is one of
// which nothing was decided yet. It knows no clock: time comes with the input.
type service struct {
	begun    bool
	quorum   quorum
	fallback netip.AddrPort               // that stands in the table; invalid: none
	parting  map[netip.AddrPort]time.Time // fallbacks that answer no more, and until when they stay with weight 0; replaced and never changed
	members  map[netip.AddrPort]member
}

// member is what has to be remembered of a real server.
type member struct {
	state  string    // that events have told; empty: none
	late   bool      // it came with an update, after the pool had started
	rising time.Time // since when its weight grows; zero: it does not
	told   time.Time // when it was said last that it is down
	held   time.Time // since when it has weight 0 because somebody removed it; zero: it does not
}

// decision is what a step gives.
type decision struct {
	entry    Entry
	quorum   quorum
	sum      int // what the servers weigh that serve
	up       int // servers that are up, or serve because nothing is known of them yet
	reals    []standing
	fallback int // index of the fallback that answers; -1: none
	backups  []verdict
	parting  []int // fallbacks that answer no more, and stay with weight 0
	events   []event
	next     time.Time // when time alone changes something; zero: never
}

// standing is how a real server stands.
type standing struct {
	verdict
	rising bool // its weight grows
	held   bool // it has weight 0 because somebody removed it
	kept   bool // it is not known, and stays with weight 0 as it was found
}

// step decides what the table ought to hold of a virtual service, and what
// there is to tell.
func (s *service) step(v conf.Virtual, in input) decision {
	d := decision{reals: make([]standing, len(v.Reals)), fallback: -1}
	members := make(map[netip.AddrPort]member, len(v.Reals))
	hope := 0
	for i, r := range v.Reals {
		a := plain(r.Address)
		m, known := s.members[a]
		if !known {
			m.late = s.begun
		}
		st := standing{verdict: judge(r, m.state, v.Alpha, in)}
		s.follow(&m, &v, &v.Reals[i], st.verdict, in, &d)
		switch {
		case st.serves:
			d.up++
			st.held = m.holds(r, in)
			if st.held {
				d.wake(in.now, in.now.Add(heldLook))
			} else {
				m.held = time.Time{}
				d.sum += st.weight
			}
		case st.state == StateUnknown:
			hope += st.weight
			st.kept = in.kept(a)
		}
		if !m.rising.IsZero() {
			w, next := rise(m.rising, in.now, v.SlowStart, st.weight)
			// One that is drained meanwhile goes on where its time is then.
			if next.IsZero() && (st.weight > 1 || in.now.Sub(m.rising) >= v.SlowStart) {
				m.rising = time.Time{}
			}
			st.rising, st.weight = !next.IsZero(), w
			d.wake(in.now, next)
		}
		members[a], d.reals[i] = m, st
	}
	s.members = members
	s.vote(&v, hope, in, &d)
	s.standIn(&v, in, &d)
	s.part(&v, in, &d)
	d.entry = entryOf(v, d)
	s.begun = true
	return d
}

// heldLook is how often it is looked whether a server that somebody removed was checked since.
const heldLook = time.Second

// follow takes a verdict into what is remembered of a server.
func (s *service) follow(m *member, v *conf.Virtual, r *conf.Real, now verdict, in input, d *decision) {
	if v.SlowStart <= 0 || !now.serves {
		m.rising = time.Time{}
	}
	told := "" // by an earlier daemon
	if m.state == "" && !m.late {
		told = in.told(plain(r.Address), now)
	}
	e := event{at: in.now, virtual: v, real: r, weight: now.weight, why: now.why, found: m.state == "" && !m.late && told == ""}
	switch {
	case now.state == StateUp && m.state != StateUp:
		// One that was up already when the pool started has no need to start slowly.
		if v.SlowStart > 0 && (m.state == StateDown || m.late || told == StateDown) {
			m.rising = riseFrom(in.base, in.now)
		}
		m.state, m.told = StateUp, time.Time{}
		e.kind = serverUp
		if told != StateUp {
			d.events = append(d.events, e)
		}
	case now.state == StateDown && m.state != StateDown:
		m.state, m.told = StateDown, in.now
		e.kind, e.found = serverDown, !s.begun && told == ""
		if told != StateDown {
			d.events = append(d.events, e)
		}
	case now.state == StateDown && v.Email.Every > 0 && in.now.Sub(m.told) >= v.Email.Every:
		m.told = in.now
		e.kind = stillDown
		d.events = append(d.events, e)
	}
	if m.state == StateDown && now.state == StateDown && v.Email.Every > 0 {
		d.wake(in.now, m.told.Add(v.Email.Every))
	}
}

// removed notes that somebody has taken a server out of the table.
func (s *service) removed(a netip.AddrPort, now time.Time) {
	if m, known := s.members[a]; known {
		m.held = now
		s.members[a] = m
	}
}

// holds tells whether a server that somebody has removed has yet to be checked.
func (m member) holds(r conf.Real, in input) bool {
	if m.held.IsZero() {
		return false
	}
	for c := range checksOf(r) {
		if asked(c) && !in.checked(c).After(m.held) {
			return true
		}
	}
	return false
}

// vote decides on quorum.
func (s *service) vote(v *conf.Virtual, hope int, in input, d *decision) {
	was := s.quorum
	s.quorum = was.next(d.sum, hope, v.Quorum, v.Hysteresis)
	d.quorum = s.quorum
	if s.quorum == was {
		return
	}
	told := undecided // by an earlier daemon
	if was == undecided {
		if told = in.toldQuorum(v, s.quorum); told == s.quorum {
			return
		}
	}
	e := event{kind: quorumMet, at: in.now, virtual: v, sum: d.sum, found: was == undecided && told == undecided}
	if s.quorum == lost {
		e.kind, e.found = quorumLost, !s.begun && told == undecided
	}
	d.events = append(d.events, e)
}

// standIn finds the fallback that answers. It answers for as long as quorum is
// lost and, before anything is decided, when nothing else does.
func (s *service) standIn(v *conf.Virtual, in input, d *decision) {
	d.backups = make([]verdict, len(v.Fallbacks))
	for i, f := range v.Fallbacks {
		before := ""
		if a := plain(f.Address); a == s.fallback || !s.begun && in.stood(a) {
			before = StateUp // it goes on while a check that is new knows nothing
		}
		b := judge(f, before, false, in)
		if f.Weight == 0 && b.state == StateUp && b.why == "" {
			b.weight = 1
		}
		d.backups[i] = b
		if d.fallback < 0 && b.serves && b.weight > 0 && (s.quorum == lost || s.quorum == undecided && d.sum == 0) {
			d.fallback = i
		}
	}
	var now netip.AddrPort
	if d.fallback >= 0 {
		now = plain(v.Fallbacks[d.fallback].Address)
	}
	if now == s.fallback {
		return
	}
	e := event{kind: fallbackOff, at: in.now, virtual: v, found: !s.begun}
	if now.IsValid() {
		e.kind, e.real = fallbackOn, &v.Fallbacks[d.fallback]
	}
	old := s.fallback
	s.fallback = now
	if old.IsValid() && parts(v) {
		s.parting = maps.Clone(s.parting)
		if s.parting == nil {
			s.parting = map[netip.AddrPort]time.Time{}
		}
		s.parting[old] = in.now.Add(partingTime)
	}
	if !s.begun && in.earlier != nil && in.earlier.stood && in.stood(now) {
		return // it answers since an earlier daemon
	}
	d.events = append(d.events, e)
}

// end is what there is to tell when the service is served no more: the
// fallback ends in any case and, with omega, so does everything else.
func (s *service) end(v conf.Virtual, now time.Time) []event {
	var events []event
	if v.Omega {
		for i, r := range v.Reals {
			if s.members[plain(r.Address)].state == StateUp {
				events = append(events, event{kind: serverDown, at: now, virtual: &v, real: &v.Reals[i], why: "the pool stops", ending: true})
			}
		}
	}
	switch {
	case s.quorum == met && v.Omega:
		events = append(events, event{kind: quorumLost, at: now, virtual: &v, ending: true})
	case s.quorum == lost:
		events = append(events, event{kind: fallbackOff, at: now, virtual: &v, ending: true})
	}
	return events
}

// wake sees to it that the next step comes no later than t.
func (d *decision) wake(now, t time.Time) {
	if t.After(now) && (d.next.IsZero() || t.Before(d.next)) {
		d.next = t
	}
}

// entryOf is what the table ought to hold. A server that is down gets weight 0
// where the service is quiescent and is not in the table otherwise. One that
// works, and gets no requests because it is drained or because the fallback
// answers without quorum, has weight 0 in any case: its connections live on.
func entryOf(v conf.Virtual, d decision) Entry {
	k := KeyOf(v)
	e := Entry{Service: wantedService(v, k), Dests: make([]Dest, 0, len(v.Reals)+1)}
	index := make(map[netip.AddrPort]int, len(v.Reals)+1)
	put := func(dest Dest, replace bool) {
		if i, found := index[dest.Address]; found {
			if replace {
				e.Dests[i] = dest
			}
			return
		}
		index[dest.Address] = len(e.Dests)
		e.Dests = append(e.Dests, dest)
	}
	for i, r := range v.Reals {
		st, dest := d.reals[i], destOf(r)
		dest.Weight = uint32(st.weight)
		switch {
		case st.serves:
			if d.fallback >= 0 || st.held {
				dest.Weight = 0
			}
			put(dest, true)
		case v.Quiescent || st.kept:
			dest.Weight = 0
			put(dest, false)
		}
	}
	if d.fallback >= 0 {
		// It may be one of the real servers, and then stands instead of it.
		dest := destOf(v.Fallbacks[d.fallback])
		dest.Weight = uint32(d.backups[d.fallback].weight)
		put(dest, true)
	}
	for _, i := range d.parting {
		dest := destOf(v.Fallbacks[i])
		dest.Weight = 0
		put(dest, false)
	}
	slices.SortFunc(e.Dests, func(a, b Dest) int { return a.Address.Compare(b.Address) })
	return e
}
