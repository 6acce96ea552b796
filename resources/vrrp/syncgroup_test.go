package vrrp

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// groupOf returns n members of priority 100, and what tells what they have to do.
func groupOf(n int) (*SyncGroup, func() string, func(int, Actions)) {
	var members []*Machine
	for range n {
		members = append(members, NewMachine(Settings{Version: 3, Priority: 100, Interval: time.Second, DownAdverts: 3, Preempt: true, LowerAdvert: true, Grouped: true}, epoch))
	}
	var did []string
	told := func() string {
		s := strings.Join(did, ", ")
		did = nil
		return s
	}
	return NewSyncGroup(members...), told, func(i int, a Actions) { did = append(did, fmt.Sprint(i, " ", a)) }
}

func TestASyncGroupIsMasterTogether(t *testing.T) {
	g, told, do := groupOf(2)
	now := epoch
	expect := func(what, want string) {
		t.Helper()
		if got := told(); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	event := func(i int, a Actions) { g.Follow(i, a, now, do) }
	well := Standing{Priority: 100}

	g.Stand(0, well, now, do)
	expect("the second is not known yet", "")
	g.Stand(1, well, now, do)
	expect("both are", "0 backup, 1 backup")

	now = now.Add(2 * time.Second)
	g.Members[1].Received(Advert{Priority: 200, Interval: time.Second, From: upper}, local, now)
	now = g.Members[0].Deadline()
	event(0, g.Members[0].Expired(now))
	expect("the first would be master, the second hears one", "")
	now = g.Members[1].Deadline()
	event(1, g.Members[1].Expired(now))
	expect("nor does the second any more", "0 send master, 1 send master")

	now = now.Add(100 * time.Millisecond)
	event(0, g.Members[0].Received(Advert{Priority: 50, Interval: time.Second, From: upper}, local, now))
	expect("a lower one speaks to the first", "1 announce-lower")
	event(1, g.Members[1].Received(Advert{Priority: 200, Interval: time.Second, From: upper}, local, now))
	expect("the second yields", "0 zero backup")

	g.Stand(0, Standing{Priority: 90, Lacks: "interface eth0 is down"}, now, do)
	expect("a fault of the first", "0 fault, 1 fault")
	g.Stand(1, Standing{Priority: 100, Lacks: "script s fails"}, now, do)
	expect("a fault of the second too", "")
	g.Stand(0, well, now, do)
	expect("the first is well again", "")
	g.Stand(1, well, now, do)
	expect("and the second", "0 backup, 1 backup")
}

func TestASyncGroupOfOwnersStartsAsMaster(t *testing.T) {
	g, told, do := groupOf(2)
	g.Stand(0, Standing{Priority: 255}, epoch, do)
	g.Stand(1, Standing{Priority: 255}, epoch, do)
	if got, want := told(), "0 backup, 1 backup, 0 send master, 1 send master"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestARunningMemberDoesNotStopForWhatIsNotKnownYet(t *testing.T) {
	g, told, do := groupOf(1)
	g.Stand(0, Standing{Priority: 100}, epoch, do)
	told()
	g.Stand(0, Standing{Priority: 100, Waits: true}, epoch, do)
	if got := told(); got != "" {
		t.Errorf("%q", got)
	}
}

func TestAMemberThatIsNewInAGroupMayTakeItBack(t *testing.T) {
	g, told, do := groupOf(2)
	for i := range g.Members {
		g.Stand(i, Standing{Priority: 100}, epoch, do)
	}
	now := epoch.Add(4 * time.Second)
	g.Members[0].Promote(now) // it was master before the other one came
	told()
	g.Follow(1, g.Members[1].Received(Advert{Priority: 50, Interval: time.Second, From: upper}, local, now), now, do)
	if got := told(); got != "" {
		t.Errorf("a lower one is heard: %q", got)
	}
	g.Follow(1, g.Members[1].Received(Advert{Priority: 200, Interval: time.Second, From: upper}, local, now), now, do)
	if got := told(); got != "0 zero backup" {
		t.Errorf("a better one is heard: %q", got)
	}
}

// Whatever happens to its members: all of them are master or none, and all of
// them in state FAULT or none.
func FuzzSyncGroup(f *testing.F) {
	f.Add([]byte{0, 3, 0, 3, 1, 3, 2, 4, 0, 120, 0, 3, 0, 3, 1, 3, 2, 1, 1, 2, 1, 3, 0})
	f.Add([]byte{7, 5, 0, 5, 1, 5, 2, 4, 1, 200, 9, 4, 2, 50, 9, 3, 1, 0, 2, 2, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		next := func() byte {
			if len(b) == 0 {
				return 0
			}
			c := b[0]
			b = b[1:]
			return c
		}
		flags := next()
		s := Settings{Version: 3, Priority: 100, Interval: time.Second, DownAdverts: 3, Preempt: flags&1 == 0, LowerAdvert: true, Grouped: true}
		if flags&2 != 0 {
			s.PreemptDelay = 2 * time.Second
		}
		if flags&4 != 0 {
			s.Priority = 255
		}
		g := NewSyncGroup(NewMachine(s, epoch), NewMachine(s, epoch), NewMachine(s, epoch))
		now, did := epoch, [3]Actions{}
		do := func(i int, a Actions) { did[i] |= a }
		for i := range g.Members {
			g.Stand(i, Standing{Priority: s.Priority}, now, do)
		}
		for len(b) > 0 {
			event, i := next()%6, int(next())%3
			m := g.Members[i]
			var a Actions
			did = [3]Actions{}
			switch event {
			case 0:
				g.Stand(i, Standing{Priority: s.Priority, Waits: next()&1 == 0}, now, do)
			case 1:
				g.Stand(i, Standing{Priority: s.Priority, Lacks: "something"}, now, do)
			case 2:
				now = now.Add(time.Duration(next()) * 37 * time.Millisecond)
				a = m.Expired(now)
			case 3: // what is due first, of whomever
				for n, o := range g.Members {
					if d := o.Deadline(); !d.IsZero() && (m.Deadline().IsZero() || d.Before(m.Deadline())) {
						i, m = n, o
					}
				}
				if m.Deadline().After(now) {
					now = m.Deadline()
				}
				a = m.Expired(now)
			default:
				from := upper
				if event == 5 {
					from = lower
				}
				a = m.Received(Advert{Priority: next(), Interval: time.Duration(1+int(next())) * 10 * time.Millisecond, From: from}, local, now)
			}
			do(i, a)
			g.Follow(i, a, now, do)
			masters, faults, timers := 0, 0, 0
			for _, o := range g.Members {
				switch state, _ := o.State(); state {
				case Master:
					masters++
				case Fault:
					faults++
				}
				if !o.Deadline().IsZero() {
					timers++
				}
			}
			if masters%3 != 0 || faults%3 != 0 || faults == 0 && (timers == 0 || g.Lacks() != "") {
				t.Fatalf("event %d of member %d: %d are master, %d in fault, %d have a timer; it lacks %q", event, i, masters, faults, timers, g.Lacks())
			}
		}
	})
}
