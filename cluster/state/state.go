// Package state is the replicated state of the cluster: its types, the
// commands that change it, and Apply. It has no clock, no I/O and no goroutine:
// the same commands in the same order give the same state on every node.
package state

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Format is the newest version of the state and its commands that this package
// knows. A state begins with format 1 and is raised by Upgrade, once every node
// knows the newer one: what a format adds is refused before, so that all nodes
// come to the same, whatever version of the program they run. A node refuses a
// snapshot of a newer format than its own.
//
//	1: the first
//	2: fencing, members, clean admissions
//	3: orders for real servers, nodes that are not settled
//	4: fencing of foreign routers
//	5: watchdogs that are armed
const Format = 5

// firstFormat is what a cluster begins with.
const firstFormat = 1

// State is the replicated state. A State that has been handed out is never
// changed: Apply returns a new one that shares what did not change, so a
// pointer to it may be kept and read by anybody.
type State struct {
	Format int    `json:"format"`
	Index  uint64 `json:"index"` // of the last command applied

	Spec      *conf.Spec        `json:"spec,omitempty"` // nil before version 1
	SpecInfo  SpecInfo          `json:"spec_info"`
	Longer    Longer            `json:"longer,omitzero"`
	SpecFiles map[string][]byte `json:"spec_files,omitempty"` // as the administrator wrote them

	Voters  Voters            `json:"voters"`
	Nodes   map[string]Node   `json:"nodes"`
	Groups  map[string]Group  `json:"groups"`
	Retired map[string]uint64 `json:"retired,omitempty"` // last epochs of groups taken out of the specification
	// Leaving is what owners may still run of groups that were taken out of the
	// specification, or of their resources, and have not reported stopped.
	Leaving   map[string]conf.Group `json:"leaving,omitempty"`
	Decisions []Decision            `json:"decisions,omitempty"` // oldest first, at most maxDecisions

	// Orders are what operators have ordered for real servers, by address as it
	// stands in the specification.
	Orders map[netip.AddrPort]conf.RealOrder `json:"orders,omitempty"`

	Members *Members                `json:"members,omitempty"` // nil: `nodes:` of ha.yaml
	Fencing map[string]FenceRequest `json:"fencing,omitempty"` // by node: what is under way
	Fences  []FenceRecord           `json:"fences,omitempty"`  // oldest first, at most maxFences
	Seen    map[string]SeenNode     `json:"seen,omitempty"`
}

// SpecInfo says where the present specification comes from.
type SpecInfo struct {
	Version uint64    `json:"version"` // 0: none yet
	From    string    `json:"from,omitempty"`
	At      time.Time `json:"at,omitzero"` // by the clock of From
}

// Longer is what a specification made shorter: who has not applied the entry
// Index may still hold leases of this length, and counts by it.
type Longer struct {
	Lease time.Duration `json:"lease"`
	Index uint64        `json:"index"`
}

// Voters is raft's committed configuration: who votes, since which log index.
type Voters struct {
	Index uint64   `json:"index"`
	IDs   []string `json:"ids"` // server ids, "director1/UUID", sorted
}

// Node is what the log says of a node.
type Node struct {
	Name string `json:"name"`
	ID   string `json:"id"`   // server id, "director1/UUID"
	Boot uint64 `json:"boot"` // the start of its daemon that was admitted last
	// Incarnation grows with each admission. Valid says that the node may act
	// under it: it ends with a revocation, a fencing or a clean stop.
	Incarnation uint64 `json:"incarnation"`
	Valid       bool   `json:"valid"`
	Director    bool   `json:"director"`
	Left        bool   `json:"left,omitempty"`   // it was stopped cleanly: it has handed over everything and does not act
	Format      int    `json:"format,omitempty"` // the newest that its program knows; 0: 1
	// LongLease is the length of the lease that the node announced before a
	// planned restart; 0: none.
	LongLease time.Duration `json:"long_lease,omitempty"`
	// Watchdog is the timeout of the node's watchdog, which the daemon of Boot has
	// armed; 0: that daemon has not said so. Whoever waits for the reset counts on it.
	Watchdog time.Duration `json:"watchdog,omitempty"`
	// ResetWithin is how long it may take to reset itself by the specification that it
	// followed when it said so: one that has fallen silent does not know a newer.
	ResetWithin time.Duration `json:"reset_within,omitempty"`
	// Problems says, by group, why the node could not run it: "eth1: no carrier".
	Problems map[string]string `json:"problems,omitempty"`
	// Unsettled says, by group, why the node could run it and would better a
	// little later; under "": why it has not said so of any group yet. Only auto_failback heeds it.
	Unsettled map[string]string `json:"unsettled,omitempty"`
	Since     time.Time         `json:"since,omitzero"` // of Valid, by the proposer's clock
	Why       string            `json:"why,omitempty"`
}

// Group is what the log says of a group.
type Group struct {
	Name string `json:"name"`
	// Owner is the node that may act for the group under Epoch; empty: nobody.
	Owner string `json:"owner,omitempty"`
	Epoch uint64 `json:"epoch"`
	// Target is the node that gets the group when Owner has reported it
	// stopped; empty: no move under way. Target may equal Owner: stop and start again.
	Target       string    `json:"target,omitempty"`
	TargetReason string    `json:"target_reason,omitempty"`
	Active       bool      `json:"active"` // Owner has reported it started
	Since        time.Time `json:"since,omitzero"`
	Reason       string    `json:"reason,omitempty"`
	// Manual is an operator's choice of node; it beats prefer and
	// auto_failback until the node is gone or the preferred node starts anew.
	Manual string `json:"manual,omitempty"`
	// Blocked says why the group cannot be moved: a resource that would not stop.
	Blocked  string             `json:"blocked,omitempty"`
	Failures map[string]Failure `json:"failures,omitempty"` // by node
}

// Failure is a start or monitor that failed on a node, which is not tried again before Until.
type Failure struct {
	Resource string    `json:"resource"`
	Error    string    `json:"error"`
	Count    int       `json:"count"`
	At       time.Time `json:"at"`
	Until    time.Time `json:"until"`
}

// FailedOn says whether the group failed on the node and is not to be tried there yet.
func (g Group) FailedOn(node string) bool {
	f, ok := g.Failures[node]
	return ok && !f.Until.IsZero()
}

// Decision is one entry of the log that `why` and `history` print.
type Decision struct {
	Index uint64    `json:"index"`
	At    time.Time `json:"at"` // by the proposer's clock
	Group string    `json:"group,omitempty"`
	Node  string    `json:"node,omitempty"`
	Text  string    `json:"text"`
}

// SeenNode remembers which commands of a node's boot were applied and how they ended.
type SeenNode struct {
	Boot    uint64       `json:"boot"`
	Results []SeenResult `json:"results"` // oldest first, at most maxSeen
}

// SeenResult is the outcome of a command.
type SeenResult struct {
	N      uint64 `json:"n"`
	Result Result `json:"result"`
}

const (
	// maxDecisions bounds the decision log: some days of an unquiet cluster, and small in a snapshot.
	maxDecisions = 512
	// maxSeen bounds what is remembered per node. A proposer has far fewer
	// commands under way at once; a repeat older than this is refused as stale.
	maxSeen = 256
	// maxFences bounds the history of fencing.
	maxFences = 64
)

// New returns the empty state.
func New() *State {
	return &State{Format: firstFormat, Nodes: map[string]Node{}, Groups: map[string]Group{}, Seen: map[string]SeenNode{}}
}

// Group returns the group of the specification, with its configuration.
func (s *State) Group(name string) (Group, *conf.Group) {
	if s.Spec != nil {
		for i := range s.Spec.Groups {
			if s.Spec.Groups[i].Name == name {
				return s.Groups[name], &s.Spec.Groups[i]
			}
		}
	}
	return s.Groups[name], nil
}

// OwnedBy returns the names of the groups whose owner is the node, sorted.
func (s *State) OwnedBy(node string) []string {
	var names []string
	for name, g := range s.Groups {
		if g.Owner == node && node != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// May says whether the node may act as owner under the epoch: it is the
// owner, its admission counts, and the incarnation is the one meant.
func (s *State) May(node string, boot, incarnation uint64, group string, epoch uint64) bool {
	n, g := s.Nodes[node], s.Groups[group]
	return n.Valid && n.Boot == boot && n.Incarnation == incarnation && g.Owner == node && g.Epoch == epoch
}

// edit is a State under construction: maps are copied when first written.
type edit struct {
	*State
	nodes, groups, seen bool
	held                Held // nil: not looked at yet
	at                  time.Time
}

func (s *State) edit(index uint64, at time.Time) *edit {
	c := *s
	c.Index = index
	return &edit{State: &c, at: at}
}

func (e *edit) setNode(n Node) {
	if !e.nodes {
		e.Nodes, e.nodes = maps.Clone(e.Nodes), true
	}
	e.Nodes[n.Name] = n
}

func (e *edit) setGroup(g Group) {
	e.ownGroups()
	e.Groups[g.Name] = g
}

func (e *edit) ownGroups() {
	if !e.groups {
		e.Groups, e.groups = maps.Clone(e.Groups), true
	}
}

func (e *edit) note(group, node, text string) {
	d := Decision{Index: e.Index, At: e.at, Group: group, Node: node, Text: text}
	from := max(0, len(e.Decisions)+1-maxDecisions)
	e.Decisions = append(slices.Clone(e.Decisions[from:]), d)
}
