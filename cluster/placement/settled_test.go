package placement

import (
	"testing"

	"github.com/keepbeat/keepbeat/cluster/state"
)

// What a node says of not being settled yet keeps a preferred return waiting, and nothing else.
func TestOnlyThePreferredReturnWaitsForANodeThatIsNotSettled(t *testing.T) {
	const receives = "connections are still being received"
	unsettled := func(node, group string) func(*state.State) {
		return func(s *state.State) {
			with(s.Nodes, node, func(n *state.Node) { n.Unsettled = map[string]string{group: receives} })
		}
	}
	owned := func(by string) func(*state.State) {
		return func(s *state.State) {
			s.Spec.Groups[0].AutoFailback = true
			web(s, func(g *state.Group) { g.Owner = by })
		}
	}
	for name, c := range map[string]struct {
		change  []func(*state.State)
		without Exclude
		node    string
		reason  string
	}{
		"the return waits": {[]func(*state.State){owned("a"), unsettled("b", "web")}, nil,
			"a", "stays: b is preferred and not settled yet (" + receives + ")"},
		"also for a node that has not said of any group": {[]func(*state.State){owned("a"), unsettled("b", "")}, nil,
			"a", "stays: b is preferred and not settled yet (" + receives + ")"},
		"it does not go to the second best meanwhile, to move twice": {[]func(*state.State){owned("c"), unsettled("b", "web")}, nil,
			"c", "stays: b is preferred and not settled yet (" + receives + ")"},
		"another group's does not matter":                  {[]func(*state.State){owned("a"), unsettled("b", "mail")}, nil, "b", "b is preferred and back (auto_failback on)"},
		"the present owner's does not matter":              {[]func(*state.State){owned("b"), unsettled("b", "web")}, nil, "b", "stays"},
		"a group without an owner is started at once":      {[]func(*state.State){unsettled("b", "web")}, nil, "b", "b is preferred"},
		"a dead owner's group is taken over at once":       {[]func(*state.State){owned("a"), unsettled("b", "web")}, Exclude{"a": "silent"}, "b", "b is preferred (a: silent)"},
		"a group whose owner has a problem leaves at once": {[]func(*state.State){owned("a"), unsettled("b", "web"), problem("a")}, nil, "b", "b is preferred (a: no IPVS)"},
		"an operator is obeyed at once": {[]func(*state.State){owned("a"), unsettled("b", "web"), func(s *state.State) {
			web(s, func(g *state.Group) { g.Manual = "b" })
		}}, nil, "b", "an operator chose b"},
	} {
		t.Run(name, func(t *testing.T) {
			s := cluster()
			for _, change := range c.change {
				change(s)
			}
			if w := Place(s, &s.Spec.Groups[0], c.without); w.Node != c.node || w.Reason != c.reason {
				t.Errorf("%q because %q; want %q because %q", w.Node, w.Reason, c.node, c.reason)
			}
		})
	}
}

func problem(node string) func(*state.State) {
	return func(s *state.State) {
		with(s.Nodes, node, func(n *state.Node) { n.Problems = map[string]string{"web": "no IPVS"} })
	}
}
