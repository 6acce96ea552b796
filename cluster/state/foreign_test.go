package state

import (
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
	return Command{Fenced: &Fenced{Node: "router9", Incarnation: 1, Action: conf.FenceReboot, Operator: "b", Done: done, Ended: done, Why: "test"}}
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
