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
