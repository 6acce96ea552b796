package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Fence asks for a node to be fenced, and names the node that is to operate the devices.
type Fence struct {
	Node        string           `json:"node"`
	Incarnation uint64           `json:"incarnation"` // seen
	Action      conf.FenceAction `json:"action"`
	Why         string           `json:"why"`
	// Operator is the node that operates the devices. A request for a node that
	// is being fenced already changes the operator and nothing else.
	Operator string `json:"operator"`
	// Ordered says that a person wants it: a node that comes back does not call it off.
	Ordered bool `json:"ordered,omitempty"`
	// Group says that Node is no node but a foreign router that disputes the
	// addresses of this group, whose owner asks under Incarnation, its own, and Epoch.
	Group string `json:"group,omitempty"`
	Epoch uint64 `json:"epoch,omitempty"`
}

// FenceRequest is a fencing that is under way.
type FenceRequest struct {
	Fence
	At    time.Time `json:"at"`
	Tries int       `json:"tries"` // that have failed
}

// Fenced reports what became of a request, or of what the survivor of a pair
// did before it could ask.
type Fenced struct {
	Node        string           `json:"node"`
	Incarnation uint64           `json:"incarnation"`
	Action      conf.FenceAction `json:"action"`
	Operator    string           `json:"operator"`
	Done        bool             `json:"done"` // certain
	// Ended: the node itself has ended, it is not merely cut off. As long as its
	// incarnation is valid nothing else counts: what runs goes on renewing its lease.
	Ended    bool           `json:"ended,omitempty"`
	Why      string         `json:"why"`
	Attempts []FenceAttempt `json:"attempts,omitempty"`
	Moves    []Move         `json:"moves,omitempty"` // where its groups go; those not named have no owner
	// Group and Epoch are those of the Fence for a foreign router: this is about
	// that machine, whatever node has its name by now.
	Group string `json:"group,omitempty"`
	Epoch uint64 `json:"epoch,omitempty"`
}

// FenceAttempt is one use of one device.
type FenceAttempt struct {
	Device string        `json:"device"`
	Level  int           `json:"level"`
	Took   time.Duration `json:"took"`
	Error  string        `json:"error,omitempty"`
}

// FenceRecord is an entry of `keepbeat fence history`.
type FenceRecord struct {
	Fenced
	Index uint64    `json:"index"`
	At    time.Time `json:"at"`
}

// Acts says whether the node may have a lease, heard or not: no majority has
// revoked its incarnation, it has not left, and nothing has ended it.
func (n Node) Acts() bool { return n.Valid && n.Director }

// NeedsFencing says whether a group may leave a node that has not stopped it
// only when that node has been fenced.
func NeedsFencing(c *conf.Group) bool {
	return c != nil && slices.ContainsFunc(c.Resources, func(r conf.Resource) bool { return r.Class == conf.Fenced })
}

// fenceLimit is how many nodes may be under way to be fenced at once: a
// minority of the voters, and one where there is no such thing.
func (s *State) fenceLimit() int { return max(1, (len(s.Voters.IDs)-1)/2) }

func (e *edit) fence(f Fence) Result {
	if f.Group != "" {
		return e.fenceForeign(f)
	}
	n, known := e.Nodes[f.Node]
	switch {
	case e.Format < 2:
		return refuse("fencing waits until every node runs a version of keepbeat that knows it")
	case !known:
		return refuse("no node %q has ever been admitted", f.Node)
	case n.Incarnation != f.Incarnation:
		return refuse("node %s is at incarnation %d, not %d: it came back meanwhile", f.Node, n.Incarnation, f.Incarnation)
	case f.Node == f.Operator:
		return refuse("node %s cannot fence itself", f.Node)
	}
	r, pending := e.Fencing[f.Node]
	if pending && r.Group == "" {
		r.Operator, r.Ordered = f.Operator, r.Ordered || f.Ordered
		e.setFencing(f.Node, &r)
		return Result{}
	}
	under := 0 // foreign routers do not count: nobody waits for their vote
	for _, o := range e.Fencing {
		if o.Group == "" {
			under++
		}
	}
	if limit := e.fenceLimit(); under >= limit {
		return refuse("%d nodes are being fenced; with %d voters there are never more than %d at once", under, len(e.Voters.IDs), limit)
	}
	e.setFencing(f.Node, &FenceRequest{Fence: f, At: e.at})
	e.note("", f.Node, fmt.Sprintf("to be fenced (%v) by %s: %s", f.Action, f.Operator, f.Why))
	return Result{}
}

// record adds to the history.
func (e *edit) record(f Fenced) {
	from := max(0, len(e.Fences)+1-maxFences)
	e.Fences = append(slices.Clone(e.Fences[from:]), FenceRecord{Fenced: f, Index: e.Index, At: e.at})
}

func (e *edit) setFencing(node string, r *FenceRequest) {
	m := maps.Clone(e.Fencing)
	if m == nil {
		m = map[string]FenceRequest{}
	}
	if r == nil {
		delete(m, node)
	} else {
		m[node] = *r
	}
	if len(m) == 0 {
		m = nil
	}
	e.Fencing = m
}

func (e *edit) fenced(f Fenced) Result {
	if e.Format < 2 {
		return refuse("fencing waits until every node runs a version of keepbeat that knows it")
	}
	if f.Group != "" {
		return e.fencedForeign(f)
	}
	n, known := e.Nodes[f.Node]
	if !known && e.Format >= 4 {
		return refuse("no node %q has ever been admitted", f.Node)
	}
	if f.Done && !f.Ended && n.Incarnation == f.Incarnation && n.Acts() {
		f.Done, f.Why = false, "it was cut off and has not ended, and no majority has ended its lease: "+f.Why
	}
	e.record(f)
	r, pending := e.Fencing[f.Node]
	pending = pending && r.Group == "" // else it is for a machine that had the name before
	if !f.Done {
		if pending {
			r.Tries++
			e.setFencing(f.Node, &r)
		}
		e.note("", f.Node, "NOT fenced: "+f.Why)
		return Result{}
	}
	if pending {
		e.setFencing(f.Node, nil)
	}
	if n.Incarnation != f.Incarnation {
		e.note("", f.Node, fmt.Sprintf("fenced as incarnation %d, and back as %d since", f.Incarnation, n.Incarnation))
		return refuse("node %s is at incarnation %d, not %d: it came back meanwhile", f.Node, n.Incarnation, f.Incarnation)
	}
	n.Valid, n.Since, n.Why, n.LongLease = false, e.at, "fenced: "+f.Why, 0
	e.setNode(n)
	e.note("", f.Node, fmt.Sprintf("fenced (%v) by %s: %s", f.Action, f.Operator, f.Why))
	return Result{Number: e.moveFrom(f.Node, f.Moves, n.Why, true)}
}

// Members are the nodes of a cluster whose nodes were changed while it ran.
type Members struct {
	Base   uint64      `json:"base"` // index of the change that this was made against; 0: ha.yaml's
	Index  uint64      `json:"index"`
	Nodes  []conf.Node `json:"nodes"`
	Quorum conf.Quorum `json:"quorum"`
	// Joining names the nodes that do not vote yet: the rule of a pair goes on
	// until they know what the others know. They are not admitted before: the word
	// of one node of a pair, which may have been overtaken, is no majority for a third.
	Joining []string `json:"joining,omitempty"`
	Why     string   `json:"why,omitempty"`
}

func (e *edit) members(m Members) Result {
	base := uint64(0)
	if e.Members != nil {
		base = e.Members.Index
	}
	switch {
	case e.Format < 2:
		return refuse("nodes can be added and removed when every node runs a version of keepbeat that knows how")
	case m.Base != base:
		return refuse("the nodes were changed meanwhile: look at `keepbeat status` and try again")
	case len(m.Nodes) == 0:
		return refuse("a cluster has nodes")
	}
	for _, name := range slices.Sorted(maps.Keys(e.Nodes)) {
		n := e.Nodes[name]
		why := m.bars(name)
		if !n.Valid || why == "" {
			continue
		}
		if owned := e.OwnedBy(name); len(owned) > 0 {
			return refuse("node %s owns %s: `keepbeat standby` there first", name, strings.Join(owned, ", "))
		}
		n.Valid, n.Since, n.Why, n.LongLease = false, e.at, why, 0
		e.setNode(n)
	}
	m.Index = e.Index
	e.Members = &m
	e.note("", "", "nodes: "+m.Why)
	return Result{Number: e.Index}
}

// bars says why a node may not be admitted; empty: it may.
func (m *Members) bars(node string) string {
	switch {
	case m == nil:
		return ""
	case slices.Contains(m.Joining, node):
		return "it is joining, and the others have to let it vote first"
	case !slices.ContainsFunc(m.Nodes, func(c conf.Node) bool { return c.Name == node }):
		return "it is no node of the cluster"
	}
	return ""
}

// Upgrade raises the format of the state.
type Upgrade struct {
	Format int `json:"format"`
}

func (e *edit) upgrade(u Upgrade) Result {
	if u.Format != e.Format+1 || u.Format > Format {
		return refuse("the state has format %d; it is raised by one at a time, and this version knows %d", e.Format, Format)
	}
	e.Format = u.Format
	e.note("", "", fmt.Sprintf("state format %d", u.Format))
	return Result{Number: uint64(u.Format)}
}

// Note records something that an operator did, and changes nothing.
type Note struct {
	Node string `json:"node"`
	Text string `json:"text"`
}
