package cluster

import (
	"testing"

	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

func TestDeathOfAMachine(t *testing.T) {
	s := begin(t, scenario.Options{})

	t.Run("of the leader that owns nothing moves nothing", func(t *testing.T) {
		leader := s.leader()
		if leader != s.Arbiter {
			s.own(s.other(leader))
		}
		owner, epoch, since := s.owner(), s.epoch(), leader.Die()
		s.Lab.Eventually(limit, "another leader", func() bool {
			st, ok := s.Status(owner)
			return ok && st.Leader != "" && st.Leader != leader.Name
		})
		s.noMoreThan(blink, since, "the leader's death")
		s.revive(leader)
		s.stayed(since, place{owner, epoch}, place{s.owner(), s.epoch()}, "the leader's death and return")
		s.noMoreThan(blink, since, "the leader's death and return")
	})

	t.Run("of the owner that does not lead", func(t *testing.T) {
		if leader := s.leader(); leader != s.Arbiter {
			s.own(s.other(leader))
		}
		owner, epoch := s.owner(), s.epoch()
		since := owner.Die()
		s.takenOver(s.other(owner), since, epoch)
		s.revive(owner)
		if s.owner() == owner {
			t.Errorf("%s took the group back although auto_failback is off", owner.Name)
		}
	})

	t.Run("of owner and leader in one", func(t *testing.T) {
		both := s.leadByDirector()
		s.own(both)
		if s.leader() != both {
			t.Fatalf("%s does not lead any more", both.Name)
		}
		epoch, since := s.epoch(), both.Die()
		s.takenOver(s.other(both), since, epoch)
		s.revive(both)
		s.noMoreThan(blink, probe.Now(), "afterwards")
	})
}

func TestAnIPv6AddressFailsOver(t *testing.T) {
	t.Parallel()
	groups := "  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + scenario.VIP6 + "/64/eth0\n"
	s := watch(t, scenario.NewTrio(t, scenario.Options{Groups: groups}), scenario.VIP6)
	s.startAll()
	s.settle()
	epoch, since := s.epoch(), s.Director1.Die()
	s.takenOver(s.Director2, since, epoch)
	s.revive(s.Director1)

	// Planned, too.
	s.must(s.Director2, "standby", "--wait=30s")
	s.client.WaitAnswer("director1", since, soon)
	if s.Director2.HasAddress(scenario.VIP6) {
		t.Error("director2 has the address still")
	}
}

func TestAutoFailback(t *testing.T) {
	for _, c := range []struct {
		name   string
		on     bool
		finish string
	}{{"on: the preferred director takes back", true, "director1"}, {"off: the group stays", false, "director2"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := begin(t, scenario.Options{Failback: c.on})
			epoch, since := s.epoch(), s.Director1.Die()
			s.takenOver(s.Director2, since, epoch)
			s.revive(s.Director1)
			if c.on {
				s.client.WaitAnswer("director1", probe.Now(), limit)
			}
			s.WaitOwner(s.host(c.finish), limit)
			s.settle()
			if got := s.owner().Name; got != c.finish {
				t.Errorf("the group is on %s in the end, want %s", got, c.finish)
			}
		})
	}
}

func TestADeadNodeThatLostItsDiskRejoinsByItselfAndThenCounts(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{})
	epoch, since := s.epoch(), s.Director1.Die()
	s.takenOver(s.Director2, since, epoch)
	emptyDisk(t, s.Director1)
	since = probe.Now()
	s.revive(s.Director1) // waits until it votes
	s.noMoreThan(blink, since, "the replacement's return")

	// With the witness gone the replacement's vote is the one that decides.
	s.Arbiter.Die()
	s.Lab.Eventually(limit, "a leader among the two", func() bool {
		st, ok := s.Status(s.Director1)
		return ok && (st.Leader == "director1" || st.Leader == "director2")
	})
	s.noMoreThan(blink, since, "the second failure")
	out := s.must(s.Director1, "takeover", "--wait=30s")
	s.client.WaitAnswer("director1", since, soon)
	s.Lab.Logf("%s", out)
	s.revive(s.Arbiter)
}
