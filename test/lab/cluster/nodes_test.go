package cluster

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// TestAPairGrowsByAWitnessAndShrinksAgain: what decides changes twice while the
// address is asked all the time.
func TestAPairGrowsByAWitnessAndShrinksAgain(t *testing.T) {
	p := scenario.NewPair(t, scenario.Fencing, scenario.Options{})
	p.StartAll(limit)
	client := p.Client.Probe(scenario.VIP, askEvery)
	one, two := p.Observe(scenario.VIP, observeEvery)
	eventually := func(what string, ok func(s cluster.Status) bool) {
		t.Helper()
		for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
			s, answered := p.Look()
			if answered && ok(s) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("after %v still not: %s; %s", limit, what, strings.Join(s.Trouble, "; "))
			}
		}
	}
	votes := func(s cluster.Status) (names []string) {
		for _, n := range s.Nodes {
			if n.Votes {
				names = append(names, n.Name)
			}
		}
		return names
	}
	says := func(h *lab.Host, want string) {
		t.Helper()
		b, err := os.ReadFile(h.Path("/etc/keepbeat/ha.yaml"))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("ha.yaml of %s does not say %q: %v\n%s", h.Name, want, err, b)
		}
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := p.Director1.Keepbeat(args...); err != nil {
			t.Fatalf("keepbeat %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}

	if out, err := p.Director1.Keepbeat("node", "remove", "director2"); err == nil || !strings.Contains(out, "--force") {
		t.Errorf("the other node of a pair is removed without a word: %s", out)
	}
	run("node", "add", "arbiter", "--role", "witness")
	eventually("both write the witness into ha.yaml", func(cluster.Status) bool {
		for _, h := range p.Both() {
			if b, _ := os.ReadFile(h.Path("/etc/keepbeat/ha.yaml")); !strings.Contains(string(b), "arbiter") {
				return false
			}
		}
		return true
	})
	arbiter := p.Newcomer("arbiter", 3, "  director1: {}\n  director2: {}\n  arbiter: {role: witness}\n", scenario.Options{})
	p.Start(arbiter)
	eventually("three vote", func(s cluster.Status) bool {
		return slices.Equal(votes(s), []string{"director1", "director2", "arbiter"}) && s.Leader != ""
	})

	t.Run("a majority decides now, and nobody is fenced", func(t *testing.T) {
		s, _ := p.Look()
		owner, other := p.Director1, p.Director2
		if s.Groups[0].Owner == other.Name {
			owner, other = other, owner
		}
		uses := len(p.Power.Uses())
		owner.Die()
		p.WaitOwner(other, soon)
		if n := len(p.Power.Uses()); n != uses {
			t.Errorf("the power switch was used %d times", n-uses)
		}
		p.Revive(owner)
		eventually("three are there again", func(s cluster.Status) bool {
			return len(votes(s)) == 3 && !slices.ContainsFunc(s.Nodes, func(n cluster.NodeStatus) bool { return n.State != "up" })
		})
	})

	run("node", "remove", "arbiter", "--quorum", "fencing")
	eventually("two vote, by the rule of a pair", func(s cluster.Status) bool {
		if !slices.Equal(votes(s), []string{"director1", "director2"}) {
			return false
		}
		for _, n := range s.Nodes {
			if n.Here == nil || n.Here.Pair == nil || n.Here.Pair.Phase != "whole" {
				return false
			}
		}
		return len(s.Nodes) == 2
	})
	for _, h := range p.Both() {
		says(h, "quorum: fencing")
	}

	t.Run("the rule decides again: the owner's death has it fenced", func(t *testing.T) {
		s, _ := p.Look()
		owner, other := p.Director1, p.Director2
		if s.Groups[0].Owner == other.Name {
			owner, other = other, owner
		}
		uses := len(p.Power.Uses())
		owner.Die()
		p.WaitOwner(other, limit)
		if len(p.Power.Uses()) == uses {
			t.Error("nobody was fenced")
		}
	})
	client.Stop()
	if d := lab.Overlap(one, two); d > 0 {
		t.Errorf("two owners for %v", d)
	}
	// Each has had the address.
	if len(one.Samples()) == 0 || len(two.Samples()) == 0 {
		t.Error("an observer was never answered: nothing shows that there were not two owners")
	}
}
