package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

func TestAnAddressDeletedByHandComesBackAtOnce(t *testing.T) {
	groups := "  web:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + scenario.VIP + "/24/eth0\n      - vip: " + scenario.VIP6 + "/64/eth0\n"
	s := begin(t, scenario.Options{Groups: groups})
	since, before := probe.Now(), s.standing()
	for range 3 {
		s.Director1.Run("ip", "addr", "del", scenario.VIP+"/24", "dev", "eth0")
		s.Director1.Run("ip", "addr", "del", scenario.VIP6+"/64", "dev", "eth0")
		s.Lab.Eventually(soon, "both addresses to be back", func() bool {
			return s.Director1.HasAddress(scenario.VIP) && s.Director1.HasAddress(scenario.VIP6)
		})
	}
	s.nothingMoves(before, since, "addresses deleted by hand")
}

func TestAnOwnerWithoutCarrierOnTheServiceNetworkGivesUpItsGroupUntilItIsBack(t *testing.T) {
	t.Parallel()
	s := begin(t, scenario.Options{Failback: true})
	since := probe.Now()
	s.Director1.PortOn(s.Service).Down()
	s.client.WaitAnswer("director2", since, soon)
	s.WaitOwner(s.Director2, limit)
	s.noMoreThan(lease, since, "the loss of carrier") // at once: the owner says it itself
	if st := s.status(s.Arbiter); !strings.Contains(st.Groups[0].Reason, "no carrier") {
		t.Errorf("the reason is %q", st.Groups[0].Reason)
	}

	// Longer than until director1 is tried again: with no carrier it is no candidate.
	since = probe.Now()
	time.Sleep(12 * time.Second)
	s.noMoreThan(blink, since, "while director1 has no carrier")
	if got := s.owner(); got != s.Director2 {
		t.Errorf("the group is on %s", got.Name)
	}
	since = probe.Now()
	s.Director1.PortOn(s.Service).Up()
	s.client.WaitAnswer("director1", since, limit)
	s.settle()
}

func TestAStartThatFailsMovesTheGroupOn(t *testing.T) {
	t.Parallel()
	const elsewhere = "10.77.0.200"
	groups := "  far:\n    prefer: [director1, director2]\n    resources:\n      - vip: " + scenario.VIP + "/24/eth0\n      - vip: " + elsewhere + "/24/eth7\n"
	s := prepare(t, scenario.Options{Groups: groups})
	s.Director2.Attach(s.Service, "eth7", "10.77.0.2/24") // and director1 has none
	s.StartAll(limit)
	s.WaitOwner(s.Director2, limit)
	s.client.WaitAnswer("director2", s.client.From, limit)
	if s.Director1.HasAddress(scenario.VIP) || s.Director1.HasAddress(elsewhere) {
		t.Error("director1 has kept what it could start")
	}
	if st := s.status(s.Arbiter); st.Groups[0].Failures["director1"].Error == "" {
		t.Errorf("nothing says that it failed on director1: %+v", st.Groups[0])
	}
	if out := s.must(s.Director1, "why", "far"); out == "" {
		t.Error("keepbeat why says nothing")
	} else {
		s.Lab.Logf("%s", out)
	}
	// It is not tried again and again: the client would notice.
	since := probe.Now()
	time.Sleep(aWhile)
	s.noMoreThan(blink, since, "after a failed start")
	if got := s.owner(); got != s.Director2 {
		t.Errorf("the group is on %s", got.Name)
	}
}

func TestAGroupThatStartsNowhereIsShownAndDoesNotDisturbOthers(t *testing.T) {
	t.Parallel()
	groups := "  web:\n    resources:\n      - vip: " + scenario.VIP + "/24/eth0\n  broken:\n    resources:\n      - vip: 10.77.0.200/24/eth7\n"
	s := prepare(t, scenario.Options{Groups: groups})
	for _, h := range s.Nodes() {
		s.Start(h)
	}
	s.client.WaitAnswer("", s.client.From, limit)
	st := s.wait(s.Arbiter, "group broken to run nowhere", func(st cluster.Status) bool {
		return len(st.Groups) == 2 && st.Groups[1].State != "active" && len(st.Groups[1].Failures) == 2
	})
	s.Lab.Logf("%q", st.Trouble)
	since := probe.Now()
	time.Sleep(aWhile)
	s.noMoreThan(blink, since, "beside a group that fails")

	// The way out, seen by the cluster without being asked.
	for _, h := range s.directors {
		h.Attach(s.Service, "eth7", "10.77.0.1"+h.Name[len(h.Name)-1:]+"/24")
	}
	s.WriteSpec(s.Director1, scenario.Options{Groups: groups + "      - vip: 10.77.0.201/24/eth7\n"})
	s.must(s.Director1, "apply")
	s.WaitActive(2 * limit)
}
