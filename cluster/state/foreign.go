package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// fencesForeign says whether a group of a specification has a foreign router fenced.
func fencesForeign(s *conf.Spec, group, router string) bool {
	c := groupOf(s, group)
	return c != nil && slices.ContainsFunc(c.Resources, func(r conf.Resource) bool {
		return r.VRRP != nil && r.VRRP.OnConflict == conf.ConflictFence && r.VRRP.Foreign == router
	})
}

// IsNode says whether a name is that of a node, admitted or not: raft decides
// about it, and nobody fences it as a foreign router. One that was removed is none.
func (s *State) IsNode(name string) bool {
	n, known := s.Nodes[name]
	switch {
	case n.Valid || s.Members == nil && known || len(s.OwnedBy(name)) > 0:
		return true
	case s.Members != nil && slices.ContainsFunc(s.Members.Nodes, func(c conf.Node) bool { return c.Name == name }):
		return true
	}
	return slices.ContainsFunc(s.Voters.IDs, func(id string) bool { // it votes before it is admitted
		voter, _, _ := strings.Cut(id, "/")
		return voter == name
	})
}

// fenceForeign takes a request for a router that is no node. It is the word of
// one node about what it hears, so it counts only for what the specification
// names, and only from the node that owns the group now: one that has lost it, and
// has not heard of that, hears the new owner.
func (e *edit) fenceForeign(f Fence) Result {
	g := e.Groups[f.Group]
	owner := e.Nodes[g.Owner]
	switch {
	case e.Format < 4:
		return refuse("foreign routers can be fenced when every node runs a version of keepbeat that knows how")
	case e.IsNode(f.Node):
		return refuse("%s is a node: raft decides about nodes", f.Node)
	case !fencesForeign(e.Spec, f.Group, f.Node):
		return refuse("group %s has no foreign router %s fenced", f.Group, f.Node)
	case g.Epoch != f.Epoch || !owner.Acts() || owner.Incarnation != f.Incarnation || !g.Active || g.Target != "":
		return refuse("group %s does not run under epoch %d and incarnation %d any more", f.Group, f.Epoch, f.Incarnation)
	case !e.Nodes[f.Operator].Acts():
		return refuse("%s cannot operate devices: it is not admitted", f.Operator)
	}
	if r, pending := e.Fencing[f.Node]; pending && r.Group != "" {
		r.Fence = f // another operator, or another owner by now
		e.setFencing(f.Node, &r)
		return Result{}
	}
	e.setFencing(f.Node, &FenceRequest{Fence: f, At: e.at})
	e.note(f.Group, "", fmt.Sprintf("foreign router %s to be fenced (%v) by %s: %s", f.Node, f.Action, f.Operator, f.Why))
	return Result{}
}

// fencedForeign takes what a device came to with a foreign router. It takes
// nothing from anybody, a node of that name least of all. A router that was
// fenced is no longer to be; a failure ends the request that it is about, and no
// later one. The owner asks again as long as it hears the router.
func (e *edit) fencedForeign(f Fenced) Result {
	if e.Format < 4 {
		return refuse("foreign routers can be fenced when every node runs a version of keepbeat that knows how")
	}
	f.Moves = nil
	e.record(f)
	r, pending := e.Fencing[f.Node]
	same := r.Group == f.Group && r.Epoch == f.Epoch && r.Operator == f.Operator
	if pending && r.Group != "" && (f.Done || same) {
		e.setFencing(f.Node, nil)
	}
	what := fmt.Sprintf("foreign router %s NOT fenced: %s", f.Node, f.Why)
	if f.Done {
		what = fmt.Sprintf("foreign router %s fenced (%v) by %s: %s", f.Node, f.Action, f.Operator, f.Why)
	}
	e.note(f.Group, "", what)
	return Result{}
}

// dropForeign ends the requests that a new specification does not ask for.
func (e *edit) dropForeign(spec *conf.Spec) {
	for _, node := range slices.Sorted(maps.Keys(e.Fencing)) {
		if r := e.Fencing[node]; r.Group != "" && !fencesForeign(spec, r.Group, node) {
			e.setFencing(node, nil)
			e.note(r.Group, "", fmt.Sprintf("foreign router %s is not fenced any more: the specification does not ask for it", node))
		}
	}
}
