package vrrp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	lower = netip.MustParseAddr("192.0.2.4")
	local = netip.MustParseAddr("192.0.2.5")
	upper = netip.MustParseAddr("192.0.2.6")
)

// machine returns a router of priority p in a state, a tenth of a second after it got there.
func machine(t *testing.T, s Settings, state State) (*Machine, time.Time) {
	t.Helper()
	m, now := NewMachine(s, epoch), epoch
	if state != Initialize {
		m.Startup(now)
	}
	if got, _ := m.State(); state == Master && got == Backup {
		now = m.Deadline()
		m.Expired(now)
	}
	if got, _ := m.State(); got != state {
		t.Fatalf("the machine is in state %s, not %s", got, state)
	}
	return m, now.Add(100 * time.Millisecond)
}

// Each row of the state tables: RFC 3768, 6.4.1 to 6.4.3, and RFC 9568, 6.4.1 to 6.4.3.
// The timer is what the deadline is afterwards, counted from the event; "as it was" if it ran on.
func TestEveryRowOfTheStateTables(t *testing.T) {
	const asItWas, none = time.Duration(-1), time.Duration(0)
	const interval, theirs = 2 * time.Second, 4 * time.Second
	skew := func(version, priority int) time.Duration {
		if version == 2 {
			return time.Second * time.Duration(256-priority) / 256
		}
		return interval * time.Duration(256-priority) / 256
	}
	for _, version := range []int{2, 3} {
		down := 3*interval + skew(version, 100)
		learned := 3*theirs + theirs*(256-100)/256
		section := "RFC 9568, 6.4."
		if version == 2 {
			learned, section = down, "RFC 3768, 6.4."
		}
		// What the RFCs differ in: an answer to lower priority.
		var answer Actions
		if version == 3 {
			answer = Send
		}
		advert := func(p uint8, from netip.Addr) func(*Machine, time.Time) Actions {
			return func(m *Machine, now time.Time) Actions {
				return m.Received(Advert{Priority: p, Interval: theirs, From: from}, local, now)
			}
		}
		expired := func(m *Machine, now time.Time) Actions { return m.Expired(now) }
		rows := []struct {
			section  string
			name     string
			state    State
			priority uint8
			preempt  bool
			due      bool // at the deadline
			event    func(*Machine, time.Time) Actions
			next     State
			actions  Actions
			timer    time.Duration
		}{
			{"1", "startup of the owner", Initialize, 255, true, false, (*Machine).Startup, Master, Send | BecomeMaster, interval},
			{"1", "startup of another", Initialize, 100, true, false, (*Machine).Startup, Backup, BecomeBackup, down},
			{"1", "an advertisement before startup", Initialize, 100, true, false, advert(200, upper), Initialize, 0, none},
			{"1", "a timer before startup", Initialize, 100, true, false, expired, Initialize, 0, none},
			{"1", "shutdown before startup", Initialize, 100, true, false, (*Machine).Shutdown, Initialize, 0, none},

			{"2", "shutdown of a backup", Backup, 100, true, false, (*Machine).Shutdown, Initialize, BecomeInitialize, none},
			{"2", "startup of a backup", Backup, 100, true, false, (*Machine).Startup, Backup, 0, asItWas},
			{"2", "Master_Down_Timer fires", Backup, 100, true, true, expired, Master, Send | BecomeMaster, interval},
			{"2", "Master_Down_Timer has not fired", Backup, 100, true, false, expired, Backup, 0, asItWas},
			{"2", "priority zero", Backup, 100, true, false, advert(0, upper), Backup, 0, skew(version, 100)},
			{"2", "priority zero without preemption", Backup, 100, false, false, advert(0, upper), Backup, 0, skew(version, 100)},
			{"2", "higher priority", Backup, 100, true, false, advert(101, lower), Backup, 0, learned},
			{"2", "equal priority", Backup, 100, true, false, advert(100, lower), Backup, 0, learned},
			{"2", "lower priority without preemption", Backup, 100, false, false, advert(99, upper), Backup, 0, learned},
			{"2", "lower priority", Backup, 100, true, false, advert(99, upper), Backup, 0, asItWas},

			{"3", "shutdown of a master", Master, 100, true, false, (*Machine).Shutdown, Initialize, SendZero | BecomeInitialize, none},
			{"3", "startup of a master", Master, 100, true, false, (*Machine).Startup, Master, 0, asItWas},
			{"3", "Adver_Timer fires", Master, 100, true, true, expired, Master, Send, interval},
			{"3", "Adver_Timer has not fired", Master, 100, true, false, expired, Master, 0, asItWas},
			{"3", "priority zero", Master, 100, true, false, advert(0, upper), Master, Send, interval},
			{"3", "higher priority", Master, 100, true, false, advert(101, lower), Backup, BecomeBackup, learned},
			{"3", "higher priority without preemption", Master, 100, false, false, advert(101, lower), Backup, BecomeBackup, learned},
			{"3", "equal priority, higher address", Master, 100, true, false, advert(100, upper), Backup, BecomeBackup, learned},
			{"3", "equal priority, lower address", Master, 100, true, false, advert(100, lower), Master, answer | AnnounceLower, asItWas},
			{"3", "lower priority, higher address", Master, 100, true, false, advert(99, upper), Master, answer | AnnounceLower, asItWas},
			{"3", "lower priority without preemption", Master, 100, false, false, advert(99, upper), Master, answer | AnnounceLower, asItWas},
			{"3", "the owner and lower priority", Master, 255, true, false, advert(254, upper), Master, answer | AnnounceLower, asItWas},
		}
		for _, r := range rows {
			t.Run(section+r.section+" "+r.name, func(t *testing.T) {
				m, now := machine(t, Settings{
					Version: uint8(version), Priority: r.priority, Interval: interval, DownAdverts: 3,
					Preempt: r.preempt, LowerAdvert: version == 3,
				}, r.state)
				want := m.Deadline()
				if r.due {
					now = want
				}
				switch r.timer {
				case asItWas:
				case none:
					want = time.Time{}
				default:
					want = now.Add(r.timer)
				}
				actions := r.event(m, now)
				state, since := m.State()
				if state != r.next || actions != r.actions || !m.Deadline().Equal(want) {
					t.Errorf("%s, %s, deadline %v; want %s, %s, deadline %v", state, actions, m.Deadline().Sub(epoch), r.next, r.actions, want.Sub(epoch))
				}
				if state != r.state && !since.Equal(now) {
					t.Errorf("in this state since %v, want now", since)
				}
			})
		}
	}
}

func TestAFloodIsNotAnsweredByAFlood(t *testing.T) {
	m, now := machine(t, Settings{Version: 3, Priority: 100, Interval: time.Second, DownAdverts: 3, Preempt: true, LowerAdvert: true}, Master)
	for _, priority := range []uint8{0, 50} {
		sent := 0
		for i := range 1000 {
			if m.Received(Advert{Priority: priority, Interval: time.Second, From: upper}, local, now.Add(time.Duration(i)*100*time.Microsecond))&Send != 0 {
				sent++
			}
		}
		if sent < 9 || sent > 11 {
			t.Errorf("1000 advertisements of priority %d in 100 ms were answered by %d", priority, sent)
		}
		now = now.Add(200 * time.Millisecond)
	}
}

func TestAnotherIntervalIsNoStall(t *testing.T) {
	s := Settings{Version: 3, Priority: 100, Interval: time.Second, DownAdverts: 3, Preempt: true}
	m, now := machine(t, s, Master)
	s.Interval = 10 * time.Millisecond
	now = now.Add(500 * time.Millisecond)
	m.Configure(s, now)
	if want := now.Add(s.Interval); !m.Deadline().Equal(want) {
		t.Errorf("the next advertisement is due %v after the change, want 10ms", m.Deadline().Sub(now))
	}
	if a := m.Expired(m.Deadline()); a != Send {
		t.Errorf("then: %s", a)
	}
}

// With down_timer_adverts 1 nobody can be punctual enough never to be late.
func TestAMomentIsNoStall(t *testing.T) {
	for adverts := 1; adverts <= 3; adverts++ {
		m, _ := machine(t, Settings{Version: 3, Priority: 100, Interval: time.Second, DownAdverts: adverts, Preempt: true}, Master)
		if a := m.Expired(m.Deadline().Add(100 * time.Millisecond)); a != Send {
			t.Errorf("a tenth of a second late, when others wait for %d advertisements: %s", adverts, a)
		}
	}
}

func TestAnotherIntervalCountsUntilAMasterIsHeard(t *testing.T) {
	s := Settings{Version: 3, Priority: 100, Interval: 40 * time.Second, DownAdverts: 3, Preempt: true}
	m, now := machine(t, s, Backup)
	s.Interval = time.Second
	m.Configure(s, now)
	if want := epoch.Add(3609375 * time.Microsecond); !m.Deadline().Equal(want) {
		t.Errorf("nobody was heard: the deadline is %v after the start, want 3.609375s", m.Deadline().Sub(epoch))
	}
	m.Received(Advert{Priority: 200, Interval: 2 * time.Second, From: upper}, local, now)
	want := m.Deadline()
	s.Interval = 3 * time.Second
	if m.Configure(s, now); !m.Deadline().Equal(want) {
		t.Errorf("a master of 2s was heard: the deadline is %v after it, want %v", m.Deadline().Sub(now), want.Sub(now))
	}
}

func TestSendingKeepsItsBeat(t *testing.T) {
	m, _ := machine(t, Settings{Version: 3, Priority: 100, Interval: time.Second, DownAdverts: 3, Preempt: true}, Master)
	due := m.Deadline()
	m.Expired(due.Add(300 * time.Millisecond))
	if want := due.Add(time.Second); !m.Deadline().Equal(want) {
		t.Errorf("after a late one the next is due %v after it was, want 1s", m.Deadline().Sub(due))
	}
}

// Any event at any moment: no panic, no transition and no silence that the RFCs do not have.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{3, 100, 0, 0, 0, 2, 1, 9, 3, 200, 4, 0, 1, 40})
	f.Add([]byte{2, 255, 1, 0, 0, 3, 255, 3, 255, 2, 3, 3, 255})
	f.Add([]byte{3, 1, 4, 0, 0, 7, 200, 2, 255, 2, 255, 8, 3, 1, 9, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		next := func() byte {
			if len(b) == 0 {
				return 0
			}
			c := b[0]
			b = b[1:]
			return c
		}
		s := Settings{Version: 2 + next()&1, Priority: max(1, next()), Interval: time.Second, DownAdverts: 3}
		flags := next()
		s.Preempt, s.LowerAdvert, s.HigherAdvert = flags&1 == 0, flags&2 == 0, flags&4 == 0
		if flags&8 != 0 {
			s.PreemptDelay = 2 * time.Second
		}
		m, now := NewMachine(s, epoch), epoch
		for len(b) > 0 {
			before, _ := m.State()
			event, a, what := next()%8, Actions(0), ""
			switch event {
			case 0:
				a, what = m.Startup(now), "startup"
			case 1:
				a, what = m.Shutdown(now), "shutdown"
			case 2:
				now = now.Add(time.Duration(next()) * 37 * time.Millisecond)
				a, what = m.Expired(now), "timer"
			case 3:
				if d := m.Deadline(); d.After(now) {
					now = d
				}
				a, what = m.Expired(now), "timer"
			case 4:
				a, what = m.Fault(now), "fault"
			case 5:
				s.Priority = max(1, next())
				a, what = m.SetPriority(s.Priority, now), "priority"
			default:
				adv := Advert{Priority: next(), Interval: time.Duration(1+int(next())) * 10 * time.Millisecond, From: upper}
				if event == 7 {
					adv.From = lower
				}
				now = now.Add(time.Duration(next()) * 5 * time.Millisecond)
				a, what = m.Received(adv, local, now), fmt.Sprint("advert ", adv.Priority)
			}
			after, _ := m.State()
			check(t, m, what, before, after, a, now)
		}
	})
}

func check(t *testing.T, m *Machine, what string, before, after State, a Actions, now time.Time) {
	t.Helper()
	allowed := map[string][]State{
		"startup": {Backup, Master}, "shutdown": {Initialize}, "fault": {Fault}, "timer": {Master}, "priority": {},
	}[what]
	if before == Master && allowed == nil {
		allowed = []State{Backup} // an advertisement
	}
	ok := before == after
	for _, s := range allowed {
		ok = ok || s == after
	}
	become := map[State]Actions{Master: BecomeMaster, Backup: BecomeBackup, Fault: BecomeFault, Initialize: BecomeInitialize}
	const all = BecomeMaster | BecomeBackup | BecomeFault | BecomeInitialize
	switch {
	case !ok:
		t.Fatalf("%s led from %s to %s", what, before, after)
	case before != after && a&all != become[after], before == after && a&all != 0:
		t.Fatalf("%s led from %s to %s with %s", what, before, after, a)
	case (after == Master || after == Backup) != !m.Deadline().IsZero():
		t.Fatalf("%s in state %s has the deadline %v", what, after, m.Deadline())
	case !m.Deadline().IsZero() && m.Deadline().Before(now) && what != "startup" && what != "shutdown" && before != after:
		t.Fatalf("after %s the deadline of the new state %s is over", what, after)
	case a&Send != 0 && before != Master && after != Master, a&SendZero != 0 && (before != Master || after == Master):
		t.Fatalf("%s: %s to %s with %s", what, before, after, a)
	case m.Deadline().After(now.Add(200 * time.Second)):
		t.Fatalf("%s: nothing for %v", what, m.Deadline().Sub(now))
	}
}
