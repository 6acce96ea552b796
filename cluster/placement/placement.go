// Package placement says, from the replicated state alone, which node each
// group should have, and why. It is pure: the same state gives the same answer.
package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// Want is where a group should be.
type Want struct {
	Node   string // empty: no node can have it
	Reason string
	// Refused says of every director that may not have the group now, why.
	Refused map[string]string
}

// Exclude leaves a node out of consideration: the one that is leaving or being revoked.
type Exclude map[string]string // node -> why

// Place says where one group should be.
//
// The order: the node that an operator chose, then `prefer`, then the other
// directors by name. A group stays where it is, unless its node cannot have
// it, an operator chose another, or auto_failback is on and a better one is there
// and settled (state.Node.Unsettled): nothing is lost by waiting for that.
// One that nobody owns is nowhere while something of it still belongs to another.
func Place(s *state.State, g *conf.Group, without Exclude) Want {
	var held state.Held
	if s.Groups[g.Name].Owner == "" {
		held = s.Held()
	}
	return place(s, g, without, held)
}

func place(s *state.State, g *conf.Group, without Exclude, held state.Held) Want {
	now := s.Groups[g.Name]
	w := Want{Refused: map[string]string{}}
	if now.Owner == "" {
		if w.Reason = s.Waits(g, held); w.Reason != "" {
			return w
		}
	}
	var able []string
	for _, n := range Order(s, g) {
		if why := unable(s, now, n, without); why != "" {
			w.Refused[n] = why
			continue
		}
		able = append(able, n)
	}
	can := func(n string) bool { return slices.Contains(able, n) }
	switch {
	case now.Manual != "" && can(now.Manual):
		w.Node, w.Reason = now.Manual, "an operator chose "+now.Manual
	case len(able) == 0:
		w.Reason = "no director can have it" + list(w.Refused)
		// A group is not taken from a node that still runs it when nobody else
		// could do better: what the node reports may be a passing trouble.
		if n := s.Nodes[now.Owner]; now.Owner != "" && n.Valid && without[now.Owner] == "" {
			w.Node, w.Reason = now.Owner, "stays: "+w.Reason
		}
	case now.Owner != "" && can(now.Owner) && (!g.AutoFailback || able[0] == now.Owner || !better(g, able[0], now.Owner)):
		w.Node, w.Reason = now.Owner, "stays"
	case now.Owner != "" && can(now.Owner) && unsettled(s, g.Name, able[0]) != "":
		w.Node, w.Reason = now.Owner, "stays: "+able[0]+" is preferred and not settled yet ("+unsettled(s, g.Name, able[0])+")"
	default:
		w.Node, w.Reason = able[0], reason(g, now, able[0], w.Refused)
	}
	return w
}

func reason(g *conf.Group, now state.Group, to string, refused map[string]string) string {
	rank := slices.Index(g.Prefer, to)
	switch {
	case rank == 0 && now.Owner != "" && refused[now.Owner] == "":
		return to + " is preferred and back (auto_failback on)"
	case rank == 0:
		return to + " is preferred" + list(refused)
	case rank > 0:
		return fmt.Sprintf("%s is the next of prefer%s", to, list(refused))
	}
	return fmt.Sprintf("%s is able%s", to, list(refused))
}

func list(refused map[string]string) string {
	if len(refused) == 0 {
		return ""
	}
	var parts []string
	for n, why := range refused {
		parts = append(parts, n+": "+why)
	}
	slices.Sort(parts)
	return " (" + strings.Join(parts, "; ") + ")"
}

// better says whether node a stands before b in prefer. Directors that prefer
// does not name are all alike, so that a group does not wander between them.
func better(g *conf.Group, a, b string) bool {
	rank := func(n string) int {
		if i := slices.Index(g.Prefer, n); i >= 0 {
			return i
		}
		return len(g.Prefer)
	}
	return rank(a) < rank(b)
}

// Order returns the directors in the order in which the group would like them.
func Order(s *state.State, g *conf.Group) []string {
	var order []string
	for _, n := range g.Prefer {
		if s.Nodes[n].Director {
			order = append(order, n)
		}
	}
	var rest []string
	for name, n := range s.Nodes {
		if n.Director && !slices.Contains(order, name) {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	return append(order, rest...)
}

func unable(s *state.State, g state.Group, node string, without Exclude) string {
	n := s.Nodes[node]
	if why := without[node]; why != "" {
		return why
	}
	if !n.Valid {
		return cmp.Or(n.Why, "it is not admitted")
	}
	if p := n.Problems[g.Name]; p != "" {
		return p
	}
	if g.FailedOn(node) {
		f := g.Failures[node]
		return fmt.Sprintf("failed there: %s: %s", f.Resource, f.Error)
	}
	return ""
}

// unsettled says why a node would better have the group a little later.
func unsettled(s *state.State, group, node string) string {
	n := s.Nodes[node]
	return cmp.Or(n.Unsettled[group], n.Unsettled[""])
}

// Moves returns the commands that bring the groups to where they should be:
// owners for groups without one, and planned moves.
func Moves(s *state.State, without Exclude) (assign, hand []state.Move) {
	if s.Spec == nil {
		return nil, nil
	}
	var held state.Held // at rest nobody asks
	for i := range s.Spec.Groups {
		c := &s.Spec.Groups[i]
		g := s.Groups[c.Name]
		if g.Owner != "" && (!s.Nodes[g.Owner].Valid || g.Blocked != "") {
			continue // the first is a revocation's business, the second an operator's
		}
		if g.Owner == "" && held == nil {
			held = s.Held()
		}
		w := place(s, c, without, held)
		if w.Node == g.Owner || w.Node == "" {
			// A move that has lost its target is called off by handing back.
			if g.Target != "" && (!s.Nodes[g.Target].Valid || g.FailedOn(g.Target)) && w.Node == g.Owner && w.Node != "" {
				hand = append(hand, move(s, g, w))
			}
			continue
		}
		switch {
		case g.Owner == "":
			assign = append(assign, move(s, g, w))
		case g.Target != w.Node:
			hand = append(hand, move(s, g, w))
		}
	}
	return assign, hand
}

// RevokeMoves returns where the groups of a node that is being revoked go.
func RevokeMoves(s *state.State, node, why string) []state.Move {
	var moves []state.Move
	for _, name := range s.OwnedBy(node) {
		g, c := s.Group(name)
		if c == nil {
			continue
		}
		w := Place(s, c, Exclude{node: why})
		if w.Node != "" {
			moves = append(moves, move(s, g, w))
		}
	}
	return moves
}

func move(s *state.State, g state.Group, w Want) state.Move {
	return state.Move{
		Group: g.Name, Owner: g.Owner, Epoch: g.Epoch, Incarnation: s.Nodes[g.Owner].Incarnation,
		To: w.Node, ToIncarnation: s.Nodes[w.Node].Incarnation, Reason: w.Reason,
	}
}
