package state

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// disputed is begun with format 4 and voters; a owns web, whose announcer has router9 fenced.
func disputed(t *testing.T) *State {
	t.Helper()
	spec := specOf("web", "db")
	spec.Groups[0].Resources = append(spec.Groups[0].Resources, conf.Resource{
		Kind: conf.KindVRRP, Name: "vrrp", Class: conf.Guarded, VRRP: &conf.Announcer{OnConflict: conf.ConflictFence, Foreign: "router9"},
	})
	admit := func(node string, boot uint64) Command {
		c := admitOf(node, boot, 0)
		c.Admit.Format = Format
		return c
	}
	s := play(t, New(),
		admit("a", 11), admit("b", 21), admit("w", 31),
		Command{Upgrade: &Upgrade{Format: 2}}, Command{Upgrade: &Upgrade{Format: 3}}, Command{Upgrade: &Upgrade{Format: 4}},
		Command{Spec: &SetSpec{From: "a", Spec: spec}},
		Command{Assign: &Assign{Moves: []Move{moveOf("web", "", 0, 0, "a", 1), moveOf("db", "", 0, 0, "a", 1)}}},
		Command{Started: &Started{Group: "web", Node: "a", Incarnation: 1, Epoch: 1}},
	)
	return s.SetVoters(s.Index+1, []string{"a/1", "b/1", "w/1"})
}

func accuse(router string, change func(f *Fence)) Command {
	f := &Fence{Node: router, Group: "web", Epoch: 1, Incarnation: 1, Action: conf.FenceReboot, Operator: "b", Why: "test"}
	if change != nil {
		change(f)
	}
	return Command{Fence: f}
}

func foreignDone(done bool) Command {
	return Command{Fenced: &Fenced{Node: "router9", Incarnation: 1, Action: conf.FenceReboot, Operator: "b", Done: done, Ended: done, Why: "test", Group: "web", Epoch: 1}}
}

// foreignReport is foreignDone, changed.
func foreignReport(done bool, change func(f *Fenced)) Command {
	c := foreignDone(done)
	change(c.Fenced)
	return c
}

func TestFencingOfAForeignRouter(t *testing.T) {
	asked := []Command{accuse("router9", nil)}
	const rest, under = "web a; db a; a 1", "web a; db a; a 1; fencing router9 by b after 0"
	withoutAnnouncer := specOf("web", "db")
	for name, c := range map[string]struct {
		before  []Command
		do      Command
		refused string
		then    string
	}{
		"is asked for by the owner of the group that it disputes": {nil, accuse("router9", nil), "", under},
		"asked for twice changes the operator":                    {asked, accuse("router9", func(f *Fence) { f.Operator = "a" }), "", "web a; db a; a 1; fencing router9 by a after 0"},
		"takes nothing from anybody":                              {asked, foreignDone(true), "", rest},
		"is over when it has failed: the owner asks again":        {asked, foreignDone(false), "", rest},
		"goes on when another operator had failed before":         {asked, foreignReport(false, func(f *Fenced) { f.Operator = "a" }), "", under},
		"goes on when that was about an earlier owner":            {asked, foreignReport(false, func(f *Fenced) { f.Epoch = 0 }), "", under},
		"is over when it was done, whoever did it":                {asked, foreignReport(true, func(f *Fenced) { f.Operator, f.Epoch = "a", 0 }), "", rest},
		"takes nothing from the node that a report names":         {asked, foreignReport(true, func(f *Fenced) { f.Node = "a"; f.Moves = []Move{moveOf("web", "a", 1, 1, "b", 1)} }), "", under},
		"ends with the specification that asks for it":            {asked, Command{Spec: &SetSpec{Base: 1, From: "a", Spec: withoutAnnouncer}}, "", rest},
		"does not keep a node from being fenced":                  {asked, fenceOf("a", 1, "b"), "", "web a; db a; a 1; fencing a by b after 0; fencing router9 by b after 0"},
		"goes on while nodes are fenced":                          {[]Command{fenceOf("a", 1, "b")}, accuse("router9", nil), "", "web a; db a; a 1; fencing a by b after 0; fencing router9 by b after 0"},

		"is refused of a node, whatever the specification says": {nil, accuse("b", nil), "raft decides", rest},
		"is refused of a router that nobody has named":          {nil, accuse("router8", nil), "no foreign router router8", rest},
		"is refused of a group that has not named it":           {nil, accuse("router9", func(f *Fence) { f.Group = "db" }), "no foreign router", rest},
		"is refused of a group that is not there":               {nil, accuse("router9", func(f *Fence) { f.Group = "mail" }), "no foreign router", rest},
		"is refused to who owned the group before":              {nil, accuse("router9", func(f *Fence) { f.Epoch = 0 }), "not run under epoch 0", rest},
		"is refused to an earlier life of the owner":            {nil, accuse("router9", func(f *Fence) { f.Incarnation = 7 }), "incarnation 7", rest},
		"is refused when the owner was revoked":                 {[]Command{revokeOf(1)}, accuse("router9", nil), "any more", "web ; db "},
		"is refused while the group is being handed over": {[]Command{{Hand: &Hand{Moves: []Move{moveOf("web", "a", 1, 1, "b", 1)}}}},
			accuse("router9", nil), "any more", rest},
		"is refused when nobody can do it": {nil, accuse("router9", func(f *Fence) { f.Operator = "x" }), "not admitted", rest},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, disputed(t), c.before...)
			s, r := s.Apply(s.Index+1, c.do)
			if (r.Refused == "") != (c.refused == "") || !strings.Contains(r.Refused, c.refused) {
				t.Errorf("refused %q, want %q", r.Refused, c.refused)
			}
			if got := standing(s); got != c.then {
				t.Errorf("%s, want %s", got, c.then)
			}
			if _, there := s.Nodes[""]; there || s.Nodes["router9"].Name != "" {
				t.Error("a router is no node")
			}
		})
	}
}

func TestTheHistoryKnowsForeignRouters(t *testing.T) {
	s := play(t, disputed(t), accuse("router9", nil), foreignDone(true))
	if n := len(s.Fences); n != 1 || s.Fences[0].Node != "router9" || !s.Fences[0].Done {
		t.Errorf("%+v", s.Fences)
	}
	var said []string
	for _, d := range s.Decisions[len(s.Decisions)-2:] {
		said = append(said, d.Group+": "+d.Text)
	}
	if got, want := strings.Join(said, "\n"), "web: foreign router router9 to be fenced (reboot) by b: test\nweb: foreign router router9 fenced (reboot) by b: test"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestAnEarlierFormatKnowsNoForeignRouters(t *testing.T) {
	s := disputed(t)
	s.Format = 3
	after, r := s.Apply(s.Index+1, accuse("router9", nil))
	if !strings.Contains(r.Refused, "every node runs a version") || len(after.Fencing) > 0 {
		t.Errorf("%q", r.Refused)
	}
}

func TestWhoIsANode(t *testing.T) {
	members := func(names ...string) *Members {
		m := &Members{Index: 1}
		for _, n := range names {
			m.Nodes = append(m.Nodes, conf.Node{Name: n, Role: conf.Director})
		}
		return m
	}
	for name, c := range map[string]struct {
		change func(s *State)
		is     bool
	}{
		"nobody has heard of it":                   {func(*State) {}, false},
		"it was admitted":                          {func(s *State) { s.Nodes["router9"] = Node{Name: "router9", Valid: true} }, true},
		"it was admitted, and is gone":             {func(s *State) { s.Nodes["router9"] = Node{Name: "router9"} }, true},
		"it votes, and was never admitted":         {func(s *State) { s.Voters.IDs = append(s.Voters.IDs, "router9/1") }, true},
		"its name is the beginning of a voter's":   {func(s *State) { s.Voters.IDs = append(s.Voters.IDs, "router99/1") }, false},
		"it was added, and was never admitted":     {func(s *State) { s.Members = members("a", "b", "router9") }, true},
		"it was removed":                           {func(s *State) { s.Nodes["router9"], s.Members = Node{Name: "router9"}, members("a", "b") }, false},
		"it was removed, and the log has it valid": {func(s *State) { s.Nodes["router9"], s.Members = Node{Name: "router9", Valid: true}, members("a", "b") }, true},
		"it was removed, and owns a group": {func(s *State) {
			s.Nodes["router9"], s.Members = Node{Name: "router9"}, members("a", "b")
			s.Groups["db"] = Group{Name: "db", Owner: "router9"}
		}, true},
	} {
		s := disputed(t)
		c.change(s)
		if s.IsNode("router9") != c.is {
			t.Errorf("%s: a node: %t", name, !c.is)
		}
		_, r := s.Apply(s.Index+1, accuse("router9", nil))
		if refused := strings.Contains(r.Refused, "raft decides"); refused != c.is {
			t.Errorf("%s: %q", name, r.Refused)
		}
	}
}

func TestTheDeathOfARouterIsNotThatOfANodeOfItsName(t *testing.T) {
	joins := admitOf("router9", 91, 0)
	joins.Admit.Format, joins.Admit.Clean = Format, true
	s := play(t, disputed(t), accuse("router9", nil), joins)
	s.Groups["db"] = Group{Name: "db", Owner: "router9", Epoch: 2}
	s = play(t, s, foreignDone(true))
	if n := s.Nodes["router9"]; !n.Valid || s.Groups["db"].Owner != "router9" || len(s.Fencing) > 0 {
		t.Errorf("%+v, db is of %q, fencing %v", n, s.Groups["db"].Owner, s.Fencing)
	}
}

func TestANodeThatHasTheNameOfARouterIsFencedAsANode(t *testing.T) {
	s := play(t, disputed(t), accuse("router9", nil))
	s.Nodes["router9"] = Node{Name: "router9", Incarnation: 3, Director: true}
	s = play(t, s, fenceOf("router9", 3, "a"))
	if r := s.Fencing["router9"]; r.Group != "" || r.Operator != "a" {
		t.Errorf("%+v", r)
	}
	// What the device came to with the router is not about that.
	s = play(t, s, foreignDone(true))
	if r, pending := s.Fencing["router9"]; !pending || r.Group != "" {
		t.Errorf("%+v", r)
	}
}

// Every node comes to the same, whether it was there from the beginning, began
// from a snapshot of any moment, or has read an entry of a format before its time.
func TestAReplayOverAnUpgradeComesToTheSame(t *testing.T) {
	s := disputed(t)
	s.Format = 3
	cs := []Command{
		accuse("router9", nil), foreignDone(true), // too early
		{Upgrade: &Upgrade{Format: 4}},
		accuse("router9", nil), foreignDone(false), accuse("router9", nil), foreignDone(true), foreignDone(true),
		{Fenced: &Fenced{Node: "router9", Operator: "b", Done: true, Ended: true, Why: "a node of that name is not known"}},
		fenceOf("b", 1, "a"), accuse("router9", nil),
	}
	for i := range cs {
		cs[i].ID = ID{Node: "a", Boot: 11, N: uint64(i + 1)}
	}
	run := func(s *State, cs []Command) (*State, string) {
		var results []string
		for _, c := range cs {
			var r Result
			s, r = s.Apply(s.Index+1, c)
			results = append(results, r.Refused)
		}
		return s, strings.Join(results, "|")
	}
	all, results := run(s, cs)
	for i := range cs {
		half, first := run(s, cs[:i])
		var b bytes.Buffer
		if err := half.Snapshot(&b); err != nil {
			t.Fatal(err)
		}
		half, err := Restore(&b)
		if err != nil {
			t.Fatal(err)
		}
		half, second := run(half, cs[i:])
		if got := strings.Trim(first+"|"+second, "|"); got != strings.Trim(results, "|") {
			t.Errorf("from a snapshot after %d: %s, want %s", i, got, results)
		}
		if got, want := text(t, half), text(t, all); got != want {
			t.Errorf("from a snapshot after %d:\n%s\nwant\n%s", i, got, want)
		}
	}
	if _, there := all.Nodes[""]; there || len(all.Fences) != 3 || len(all.Fencing) != 2 {
		t.Errorf("%d fences, fencing %v", len(all.Fences), all.Fencing)
	}
}

func text(t *testing.T, s *State) string {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
