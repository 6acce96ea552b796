package cluster

import (
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// databases is a group that the guard cannot cut off, so that only fencing ends it.
const databases = "  web:\n    prefer: [director1, director2]\n    resources:\n      - {vip: " + scenario.VIP + "/24, class: fenced}\n"

// fenced is a trio with a power switch and such a group.
func fenced(t *testing.T) (*story, *scenario.Power) {
	t.Helper()
	s := prepare(t, scenario.Options{Groups: databases, Fencing: scenario.PowerDevices})
	power := s.StartPower()
	s.StartAll(limit)
	s.WaitOwner(s.Director1, limit)
	return s, power
}

func TestWhatTheGuardCannotCutOffMovesWhenItsNodeHasBeenFenced(t *testing.T) {
	s, power := fenced(t)
	power.Refuse("the switch is out of order")
	s.Director1.Die()
	s.wait(s.Director2, "it is tried and fails", func(st cluster.Status) bool { return st.Fencing["director1"].Tries > 0 })
	if out := s.must(s.Director2, "status"); !strings.Contains(out, "director1 is being fenced by director2") || !strings.Contains(out, "have failed") {
		t.Errorf("status does not say so:\n%s", out)
	}
	if owner, _ := s.Active(s.Director2); owner != "director1" {
		t.Errorf("the group is with %q although its owner has not been fenced", owner)
	}
	power.Refuse("")
	s.WaitOwner(s.Director2, limit)
	if n := len(power.Uses()); n < 2 {
		t.Errorf("the switch was used %d times", n)
	}
	if out := s.must(s.Director2, "fence", "history"); !strings.Contains(out, "NOT fenced") || !strings.Contains(out, "director1 fenced (reboot) by director2") {
		t.Errorf("history:\n%s", out)
	}
	s.Director1.Revive()
	s.Start(s.Director1)
	s.wait(s.Director2, "it is back", func(st cluster.Status) bool { return len(st.Trouble) == 0 })
}

func TestAnOrderedFencingIsRefusedWhenItWouldCostTheQuorum(t *testing.T) {
	s, power := fenced(t)
	s.Arbiter.Die()
	s.wait(s.Director2, "the witness is missed", func(st cluster.Status) bool { return len(st.Trouble) > 0 })
	s.refused(s.Director2, 3, "quorum would be lost", "fence", "director1")
	if n := len(power.Uses()); n > 0 {
		t.Errorf("the switch was used %d times", n)
	}
}

func TestAHealthyNodeIsFencedWhenAnOperatorWantsIt(t *testing.T) {
	s, power := fenced(t)
	s.must(s.Director2, "fence", "director1", "--wait")
	s.WaitOwner(s.Director2, limit)
	if n := len(power.Uses()); n != 1 {
		t.Errorf("the switch was used %d times", n)
	}
}
