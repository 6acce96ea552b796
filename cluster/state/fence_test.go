package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// fencedClass is begun with format 2, voters, and a group that the guard cannot cut off.
func fencedClass(t *testing.T) *State {
	t.Helper()
	spec := specOf("web", "db")
	spec.Groups[1].Resources = []conf.Resource{{Kind: "fake", Name: "db", Class: conf.Fenced}}
	admit := func(node string, boot uint64) Command {
		c := admitOf(node, boot, 0)
		c.Admit.Format = Format
		return c
	}
	s := play(t, New(),
		admit("a", 11), admit("b", 21), admit("w", 31),
		Command{Upgrade: &Upgrade{Format: 2}},
		Command{Spec: &SetSpec{From: "a", Spec: spec}},
		Command{Assign: &Assign{Moves: []Move{moveOf("web", "", 0, 0, "a", 1), moveOf("db", "", 0, 0, "a", 1)}}},
	)
	return s.SetVoters(s.Index+1, []string{"a/1", "b/1", "w/1"})
}

func fenceOf(node string, inc uint64, operator string) Command {
	return Command{Fence: &Fence{Node: node, Incarnation: inc, Action: conf.FenceReboot, Operator: operator, Why: "test"}}
}

func ordered(c Command) Command {
	c.Fence.Ordered = true
	return c
}

func fencedOf(inc uint64, done bool, moves ...Move) Command {
	return Command{Fenced: &Fenced{Node: "a", Incarnation: inc, Operator: "b", Done: done, Ended: done, Why: "test", Moves: moves}}
}

// cutOff is by a device that leaves the node running.
func cutOff(moves ...Move) Command {
	c := fencedOf(1, true, moves...)
	c.Fenced.Ended = false
	return c
}

func readmit(boot, after uint64, clean bool) Command {
	c := admitOf("a", boot, after)
	c.Admit.Format, c.Admit.Clean = Format, clean
	return c
}

// standing says where the groups are, which nodes count, and what is being fenced.
func standing(s *State) string {
	var w []string
	for _, g := range []string{"web", "db"} {
		w = append(w, fmt.Sprintf("%s %s", g, s.Groups[g].Owner))
	}
	if n := s.Nodes["a"]; n.Valid {
		w = append(w, fmt.Sprintf("a %d", n.Incarnation))
	}
	for node, r := range s.Fencing {
		w = append(w, fmt.Sprintf("fencing %s by %s after %d", node, r.Operator, r.Tries))
	}
	slices.Sort(w[2:])
	return strings.Join(w, "; ")
}

// membersOf makes these the nodes; joining, if not empty, does not vote yet.
func membersOf(joining string, names ...string) Command {
	m := &Members{Quorum: conf.QuorumFencing}
	for _, n := range names {
		m.Nodes = append(m.Nodes, conf.Node{Name: n, Role: conf.Director})
	}
	if joining != "" {
		m.Joining = []string{joining}
	}
	return Command{Members: m}
}

func TestFencing(t *testing.T) {
	toB := []Move{moveOf("web", "a", 1, 1, "b", 1), moveOf("db", "a", 1, 1, "b", 1)}
	for name, c := range map[string]struct {
		before  []Command
		do      Command
		refused string
		then    string
	}{
		"a revocation moves what the guard cuts off, and nothing else": {nil, revokeOf(1, toB...), "", "web b; db a"},
		"the rest moves when the node has been fenced":                 {[]Command{revokeOf(1, toB[0]), fenceOf("a", 1, "b")}, fencedOf(1, true, toB[1]), "", "web b; db b"},
		"a fencing that failed moves nothing and goes on":              {[]Command{revokeOf(1, toB[0]), fenceOf("a", 1, "b")}, fencedOf(1, false, toB[1]), "", "web b; db a; fencing a by b after 1"},
		"a node that is fenced while it is well loses everything":      {[]Command{ordered(fenceOf("a", 1, "b"))}, fencedOf(1, true, toB...), "", "web b; db b"},
		"a move that was seen otherwise leaves the group to nobody":    {[]Command{fenceOf("a", 1, "b")}, fencedOf(1, true, moveOf("web", "a", 7, 1, "b", 1), toB[1]), "", "web ; db b"},
		"a node that is cut off and may have a lease keeps everything": {[]Command{ordered(fenceOf("a", 1, "b"))}, cutOff(toB...), "", "web a; db a; a 1; fencing a by b after 1"},
		"a majority's revocation ends the lease":                       {[]Command{revokeOf(1, toB[0]), fenceOf("a", 1, "b")}, cutOff(toB[1]), "", "web b; db b"},
		"so does a clean stop":                                         {[]Command{stoppedOf(1, 1), {Stopped: &Stopped{Group: "db", Node: "a", Incarnation: 1, Epoch: 1}}, {Leave: &Leave{Node: "a", Incarnation: 1}}, fenceOf("a", 1, "b")}, cutOff(), "", "web ; db "},
		"another operator":                                             {[]Command{fenceOf("a", 1, "b")}, fenceOf("a", 1, "w"), "", "web a; db a; a 1; fencing a by w after 0"},
		"never more than a minority":                                   {[]Command{fenceOf("a", 1, "b")}, fenceOf("w", 1, "b"), "never more than 1", "web a; db a; a 1; fencing a by b after 0"},
		"not by itself":                                                {nil, fenceOf("a", 1, "a"), "cannot fence itself", "web a; db a; a 1"},
		"not another life of the node":                                 {[]Command{readmit(12, 0, true)}, fenceOf("a", 1, "b"), "came back", "web a; db a; a 2"},
		"nobody that is not known":                                     {nil, fenceOf("x", 0, "b"), "no node", "web a; db a; a 1"},

		"who is being fenced is not admitted":                                {[]Command{revokeOf(1, toB[0]), fenceOf("a", 1, "b")}, readmit(12, 0, false), "being fenced", "web b; db a; fencing a by b after 0"},
		"unless nothing runs there":                                          {[]Command{revokeOf(1, toB[0]), fenceOf("a", 1, "b")}, readmit(12, 0, true), "", "web b; db a; a 2"},
		"nor then, when a person wants it fenced":                            {[]Command{ordered(fenceOf("a", 1, "b"))}, readmit(12, 0, true), "being fenced", "web a; db a; a 1; fencing a by b after 0"},
		"what the device says of an earlier life takes nothing from the new": {[]Command{fenceOf("a", 1, "b"), readmit(12, 0, true)}, fencedOf(1, true, toB...), "came back", "web a; db a; a 2"},

		"an older program is not admitted any more": {nil, admitOf("a", 12, 0), "knows the cluster's state up to format 1", "web a; db a; a 1"},
		"a format is raised by one":                 {nil, Command{Upgrade: &Upgrade{Format: 4}}, "one at a time", "web a; db a; a 1"},
		"nodes are changed by whoever saw the last change": {[]Command{{Members: &Members{Nodes: []conf.Node{{Name: "a", Role: conf.Director}}, Quorum: conf.QuorumMajority}}},
			Command{Members: &Members{Nodes: []conf.Node{{Name: "b", Role: conf.Director}}}}, "changed meanwhile", "web a; db a; a 1"},
		"who joins is not admitted before it may vote": {[]Command{membersOf("c", "a", "b", "c")}, Command{Admit: &Admit{Node: "c", Boot: 30, Format: 2}}, "joining", "web a; db a; a 1"},
		"nor is one that was there before and is put back": {[]Command{{Admit: &Admit{Node: "c", Boot: 30, Director: true, Format: 2}}, membersOf("c", "a", "b", "c")}, Command{Assign: &Assign{Moves: []Move{moveOf("web", "a", 1, 1, "c", 1)}}},
			"not admitted as incarnation 1", "web a; db a; a 1"},
		"who was removed is not admitted": {[]Command{membersOf("", "a", "b")}, Command{Admit: &Admit{Node: "c", Boot: 30, Format: 2}}, "no node", "web a; db a; a 1"},
		"who owns something stays":        {nil, membersOf("", "b", "c"), "node a owns db, web", "web a; db a; a 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, fencedClass(t), c.before...)
			s, r := s.Apply(s.Index+1, c.do)
			if (r.Refused == "") != (c.refused == "") || !strings.Contains(r.Refused, c.refused) {
				t.Errorf("refused %q, want %q", r.Refused, c.refused)
			}
			if got := standing(s); got != c.then {
				t.Errorf("%s, want %s", got, c.then)
			}
		})
	}
}

func TestAFirstFormatKnowsNothingOfTheSecond(t *testing.T) {
	s := begun(t)
	for name, c := range map[string]Command{
		"fence":   fenceOf("a", 1, "b"),
		"devices": {Spec: &SetSpec{Base: 1, Spec: &conf.Spec{Fencing: &conf.Fencing{}}}},
		"fenced":  fencedOf(1, true),
		"members": {Members: &Members{Nodes: []conf.Node{{Name: "a"}}}},
	} {
		if after, r := s.Apply(s.Index+1, c); r.Refused == "" || after.Format != 1 || len(after.Fences) > 0 || after.Members != nil {
			t.Errorf("%s: %q", name, r.Refused)
		}
	}
}

func TestAFailureIsExcusedWhenItsReasonIsSeenToBeGone(t *testing.T) {
	s := fencedClass(t)
	failed := stoppedOf(1, 1)
	failed.Stopped.Failure = &Failure{Resource: "vip", Error: "eth1: no carrier", At: time.Unix(100, 0)}
	problems := func(p map[string]string) Command {
		return Command{Problems: &Problems{Node: "a", Incarnation: 1, Problems: p}}
	}
	s = play(t, s, failed, problems(map[string]string{"web": "eth1: no carrier"}))
	if !s.Groups["web"].FailedOn("a") {
		t.Fatal("it has not failed")
	}
	s = play(t, s, problems(nil))
	if g := s.Groups["web"]; g.FailedOn("a") || g.Failures["a"].Count != 1 {
		t.Errorf("%+v", g.Failures)
	}
}

func TestTheHistoryOfFencingIsBounded(t *testing.T) {
	s := fencedClass(t)
	for range 3 * maxFences {
		s, _ = s.Apply(s.Index+1, fencedOf(1, false))
	}
	if n := len(s.Fences); n != maxFences {
		t.Errorf("%d records", n)
	}
	if s.Fences[0].At != (time.Time{}) || s.Fences[0].Index == 0 {
		t.Errorf("%+v", s.Fences[0])
	}
}
