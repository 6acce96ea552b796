package placement

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// cluster has directors a, b, c and a witness w; group web prefers b, then a.
func cluster() *state.State {
	s := state.New()
	for _, n := range []string{"a", "b", "c", "w"} {
		s.Nodes[n] = state.Node{Name: n, Incarnation: 1, Valid: true, Director: n != "w"}
	}
	s.Spec = &conf.Spec{Groups: []conf.Group{{Name: "web", Prefer: []string{"b", "a"}}}}
	s.Groups["web"] = state.Group{Name: "web", Epoch: 4}
	return s
}

func with[V any](m map[string]V, key string, change func(*V)) {
	v := m[key]
	change(&v)
	m[key] = v
}

func web(s *state.State, change func(*state.Group)) { with(s.Groups, "web", change) }

func down(s *state.State, node string) {
	with(s.Nodes, node, func(n *state.Node) { n.Valid, n.Why = false, "silent" })
}

func failed(until time.Time) map[string]state.Failure {
	return map[string]state.Failure{"b": {Resource: "vip", Error: "no carrier", Until: until}}
}

func TestPlace(t *testing.T) {
	soon := time.Unix(100, 0)
	for name, c := range map[string]struct {
		change  func(*state.State)
		without Exclude
		node    string
		reason  string
	}{
		"a new group goes to the first of prefer":            {func(*state.State) {}, nil, "b", "b is preferred"},
		"to the next of prefer when that one is down":        {func(s *state.State) { down(s, "b") }, nil, "a", "a is the next of prefer (b: silent)"},
		"to any other director when none of prefer is there": {func(s *state.State) { down(s, "a"); down(s, "b") }, nil, "c", "c is able (a: silent; b: silent)"},
		"never to a witness":                                 {func(s *state.State) { down(s, "a"); down(s, "b"); down(s, "c") }, nil, "", "no director can have it (a: silent; b: silent; c: silent)"},
		"stays where it is without auto_failback":            {func(s *state.State) { web(s, func(g *state.Group) { g.Owner = "c" }) }, nil, "c", "stays"},
		"goes back with auto_failback": {func(s *state.State) {
			s.Spec.Groups[0].AutoFailback = true
			web(s, func(g *state.Group) { g.Owner = "c" })
		}, nil, "b", "b is preferred and back (auto_failback on)"},
		"does not wander between directors that prefer does not name": {func(s *state.State) {
			s.Spec.Groups[0] = conf.Group{Name: "web", AutoFailback: true}
			web(s, func(g *state.Group) { g.Owner = "c" })
		}, nil, "c", "stays"},
		"goes where an operator chose, whatever is preferred": {func(s *state.State) {
			s.Spec.Groups[0].AutoFailback = true
			web(s, func(g *state.Group) { g.Owner, g.Manual = "b", "c" })
		}, nil, "c", "an operator chose c"},
		"not where an operator chose when that node is down": {func(s *state.State) {
			down(s, "c")
			web(s, func(g *state.Group) { g.Owner, g.Manual = "b", "c" })
		}, nil, "b", "stays"},
		"leaves a node where it failed":      {func(s *state.State) { web(s, func(g *state.Group) { g.Failures = failed(soon) }) }, nil, "a", "a is the next of prefer (b: failed there: vip: no carrier)"},
		"may go where a failure is forgiven": {func(s *state.State) { web(s, func(g *state.Group) { g.Failures = failed(time.Time{}) }) }, nil, "b", "b is preferred"},
		"leaves a node that reports a problem": {func(s *state.State) {
			with(s.Nodes, "b", func(n *state.Node) { n.Problems = map[string]string{"web": "no IPVS"} })
			web(s, func(g *state.Group) { g.Owner = "b" })
		}, nil, "a", "a is the next of prefer (b: no IPVS)"},
		"does not mind another group's problem": {func(s *state.State) {
			with(s.Nodes, "b", func(n *state.Node) { n.Problems = map[string]string{"mail": "x"} })
		}, nil, "b", "b is preferred"},
		"stays on trouble when nobody is better": {func(s *state.State) {
			for _, n := range []string{"a", "b", "c"} {
				with(s.Nodes, n, func(n *state.Node) { n.Problems = map[string]string{"web": "no IPVS"} })
			}
			web(s, func(g *state.Group) { g.Owner = "c" })
		}, nil, "c", "stays: no director can have it (a: no IPVS; b: no IPVS; c: no IPVS)"},
		"leaves a node that is leaving": {func(s *state.State) { web(s, func(g *state.Group) { g.Owner = "b" }) }, Exclude{"b": "it leaves"}, "a", "a is the next of prefer (b: it leaves)"},
		"does not stay on a node that is leaving though nobody else can have it": {func(s *state.State) {
			down(s, "a")
			down(s, "c")
			web(s, func(g *state.Group) { g.Owner = "b" })
		}, Exclude{"b": "it leaves"}, "", "no director can have it (a: silent; b: it leaves; c: silent)"},
		"is not given to a node whose end has no reason": {func(s *state.State) { with(s.Nodes, "b", func(n *state.Node) { n.Valid = false }) }, nil, "a", "a is the next of prefer (b: it is not admitted)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := cluster()
			c.change(s)
			w := Place(s, &s.Spec.Groups[0], c.without)
			if w.Node != c.node || w.Reason != c.reason {
				t.Errorf("%q because %q; want %q because %q", w.Node, w.Reason, c.node, c.reason)
			}
		})
	}
}

func TestMoves(t *testing.T) {
	show := func(assign, hand []state.Move) string {
		var b strings.Builder
		for _, m := range assign {
			b.WriteString("assign " + m.Group + " to " + m.To)
		}
		for _, m := range hand {
			b.WriteString("hand " + m.Group + " from " + m.Owner + " to " + m.To)
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		change func(*state.State)
		want   string
	}{
		"a group without an owner gets one":           {func(*state.State) {}, "assign web to b"},
		"a group at its place stays":                  {func(s *state.State) { web(s, func(g *state.Group) { g.Owner = "b" }) }, ""},
		"a dead owner's group is not just named anew": {func(s *state.State) { web(s, func(g *state.Group) { g.Owner = "b" }); down(s, "b") }, ""},
		"a blocked group is left alone": {func(s *state.State) {
			web(s, func(g *state.Group) { g.Owner, g.Manual, g.Blocked = "b", "c", "vip does not stop" })
		}, ""},
		"a choice is carried out once": {func(s *state.State) {
			web(s, func(g *state.Group) { g.Owner, g.Manual, g.Target = "b", "c", "c" })
		}, ""},
		"a choice is carried out": {func(s *state.State) { web(s, func(g *state.Group) { g.Owner, g.Manual = "b", "c" }) }, "hand web from b to c"},
		"a move whose target died is called off": {func(s *state.State) {
			web(s, func(g *state.Group) { g.Owner, g.Target = "b", "c" })
			down(s, "c")
		}, "hand web from b to b"},
		"without a specification nothing moves": {func(s *state.State) { s.Spec = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := cluster()
			c.change(s)
			if d := cmp.Diff(c.want, show(Moves(s, nil))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRevokeMovesTakesWhatTheNodeOwnsAndNothingToIt(t *testing.T) {
	s := cluster()
	web(s, func(g *state.Group) { g.Owner = "b" })
	s.Groups["gone"] = state.Group{Name: "gone", Owner: "b", Epoch: 1} // not in the specification any more
	want := []state.Move{{Group: "web", Owner: "b", Epoch: 4, Incarnation: 1, To: "a", ToIncarnation: 1, Reason: "a is the next of prefer (b: silent)"}}
	if d := cmp.Diff(want, RevokeMoves(s, "b", "silent")); d != "" {
		t.Error(d)
	}
}

// What it consists of may still run under another name.
func TestAGroupWaitsForWhatAnotherHas(t *testing.T) {
	vip := conf.Resource{Kind: conf.KindVIP, Name: "vip", Class: conf.Guarded, VIP: &conf.VIP{Address: netip.MustParseAddr("10.0.0.1")}}
	s := state.New()
	s.Nodes["a"] = state.Node{Name: "a", Valid: true, Director: true, Incarnation: 1}
	s.Spec = &conf.Spec{Groups: []conf.Group{{Name: "www", Resources: []conf.Resource{vip}}}}
	s.Groups["www"] = state.Group{Name: "www"}
	s.Groups["web"] = state.Group{Name: "web", Owner: "a", Epoch: 3}
	s.Leaving = map[string]conf.Group{"web": {Name: "web", Resources: []conf.Resource{vip}}}
	const why = "waits until address 10.0.0.1 does not run in group web on a any more"
	if w := Place(s, &s.Spec.Groups[0], nil); w.Node != "" || w.Reason != why {
		t.Errorf("%+v", w)
	}
	if assign, hand := Moves(s, nil); len(assign)+len(hand) > 0 {
		t.Errorf("moves %v %v", assign, hand)
	}
	s.Leaving = nil
	if assign, _ := Moves(s, nil); len(assign) != 1 || assign[0].To != "a" {
		t.Errorf("moves %v when it has stopped", assign)
	}
}
