package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// ErrRemoved ends Run: the cluster goes on without this node.
var ErrRemoved = errors.New("this node was removed from the cluster: `systemctl disable keepbeat` here, or put it back with `keepbeat node add`")

// nodesOf returns the nodes of the cluster and the rule: as the log has them, or ha.yaml.
func (n *Node) nodesOf(st *state.State) ([]conf.Node, conf.Quorum) {
	if st.Members != nil {
		return st.Members.Nodes, st.Members.Quorum
	}
	return n.cfg.Local.Nodes, n.cfg.Local.Quorum
}

// currentNodes is nodesOf for consensus.
func (n *Node) currentNodes() (nodes []conf.Node, joining []string, since uint64) {
	st := n.State()
	nodes, _ = n.nodesOf(st)
	if st.Members != nil {
		joining, since = st.Members.Joining, st.Members.Index
	}
	if _, peer := n.survived(st); peer != "" {
		// A lease that this node alone gave to a third would end with no fence, and
		// with a vote the third would decide what the peer may decide, too.
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(c conf.Node) bool { return c.Name != n.self && c.Name != peer })
	}
	return nodes, joining, since
}

// NodesChanged is what `keepbeat node add` and `node remove` came to.
type NodesChanged struct {
	Nodes  string `json:"nodes"`  // as they are now, with their roles
	Quorum string `json:"quorum"` // the rule, once everybody votes
	Before string `json:"before"`
}

// AddNode makes a node part of the running cluster. It takes part as soon as
// its daemon runs with the same nodes in its ha.yaml: first without a vote.
func (n *Node) AddNode(ctx context.Context, name string, role conf.Role) (NodesChanged, error) {
	if _, peer := n.survived(n.State()); peer != "" {
		return NodesChanged{}, fmt.Errorf("%s, which this node has gone on without, has not come back: start it first, and add %s then", peer, name)
	}
	return n.changeNodes(ctx, fmt.Sprintf("%s (%v) added", name, role), func(nodes []conf.Node, rule conf.Quorum) ([]conf.Node, []string, conf.Quorum, error) {
		if slices.ContainsFunc(nodes, func(c conf.Node) bool { return c.Name == name }) {
			return nil, nil, 0, fmt.Errorf("node %s is there already", name)
		}
		return append(slices.Clone(nodes), conf.Node{Name: name, Role: role}), []string{name}, rule, nil
	})
}

// RemoveNode takes a node out of the running cluster. rule is what decides
// when two are left, 0 otherwise. The node must own nothing.
func (n *Node) RemoveNode(ctx context.Context, name string, rule conf.Quorum) (NodesChanged, error) {
	o := OrderOf(ctx)
	st := n.State()
	if owned := st.OwnedBy(name); len(owned) > 0 && st.Nodes[name].Valid {
		return NodesChanged{}, fmt.Errorf("node %s owns %s: `keepbeat standby` there first", name, strings.Join(owned, ", "))
	}
	// The rule of a pair begins when its two have decided that the third votes no longer.
	if cost := n.wouldLoseQuorum(name); cost != "" && !o.Force {
		return NodesChanged{}, &ForceError{cost, "keepbeat node remove --force " + name}
	}
	return n.changeNodes(ctx, name+" removed", func(nodes []conf.Node, was conf.Quorum) ([]conf.Node, []string, conf.Quorum, error) {
		left := slices.DeleteFunc(slices.Clone(nodes), func(c conf.Node) bool { return c.Name == name })
		if len(left) == 1 && !o.Force && !o.Dry {
			return nil, nil, 0, &ForceError{"one node would be left: nobody takes over when it dies", "keepbeat node remove --force " + name}
		}
		if len(left) == len(nodes) {
			return nil, nil, 0, fmt.Errorf("no node is called %q; there are %s", name, listed(nodes))
		}
		switch {
		case len(left) != 2 && rule != 0 && rule != conf.QuorumMajority:
			return nil, nil, 0, fmt.Errorf("quorum: %v is for two nodes, and %d are left", rule, len(left))
		case len(left) == 2 && (rule == 0 || rule == conf.QuorumMajority):
			return nil, nil, 0, errors.New("two nodes are left, and two votes are no majority without each other: say what decides then: --quorum fencing, ping or unsafe (docs/pairs.md)")
		case len(left) != 2:
			rule = conf.QuorumMajority
		}
		return left, nil, rule, nil
	})
}

type nodesChange func(nodes []conf.Node, rule conf.Quorum) (then []conf.Node, joining []string, rule2 conf.Quorum, err error)

func (n *Node) changeNodes(ctx context.Context, why string, change nodesChange) (NodesChanged, error) {
	st := n.State()
	nodes, rule := n.nodesOf(st)
	if st.Members != nil && len(st.Members.Joining) > 0 {
		why += "; " + strings.Join(st.Members.Joining, ", ") + " was still joining"
	}
	then, joining, ruleThen, err := change(nodes, rule)
	if err != nil {
		return NodesChanged{}, err
	}
	r := NodesChanged{Before: listed(nodes), Nodes: listed(then), Quorum: ruleThen.String()}
	if len(then) > 2 {
		r.Quorum = conf.QuorumMajority.String()
	}
	if err := n.validNodes(st, then, ruleThen); err != nil {
		return r, err
	}
	if OrderOf(ctx).Dry {
		return r, nil
	}
	base := uint64(0)
	if st.Members != nil {
		base = st.Members.Index
		joining = append(joining, slices.DeleteFunc(slices.Clone(st.Members.Joining), func(name string) bool {
			return !slices.ContainsFunc(then, func(c conf.Node) bool { return c.Name == name })
		})...)
	}
	_, err = n.propose(ctx, state.Command{Members: &state.Members{
		Base: base, Nodes: then, Joining: joining, Quorum: ruleThen, Why: why + OrderOf(ctx).by(),
	}})
	return r, err
}

// validNodes says whether the specification could run with other nodes.
func (n *Node) validNodes(st *state.State, nodes []conf.Node, rule conf.Quorum) error {
	if n.cfg.CheckNodes != nil {
		final := rule
		if len(nodes) > 2 {
			final = conf.QuorumMajority
		}
		if err := n.cfg.CheckNodes(nodes, final); err != nil {
			return err
		}
	}
	if st.Spec == nil {
		return nil
	}
	l := *n.cfg.Local
	l.Nodes, l.Quorum = nodes, rule
	if len(nodes) > 2 {
		l.Quorum = conf.QuorumMajority
	}
	return st.Spec.ValidFor(&l)
}

// growQuorum is the leader's part of adding a node: when it follows and has
// caught up, the rule of the pair ends, and it may vote.
func (n *Node) growQuorum(st *state.State) {
	m := st.Members
	// Whom this node has survived may have survived it: until that has come back
	// into this generation, the rule of the pair holds.
	if _, contested := n.survived(st); m == nil || len(m.Joining) == 0 || contested != "" {
		return
	}
	for _, name := range m.Joining {
		if !n.cons.Following(name) {
			return
		}
	}
	next := state.Members{Base: m.Index, Nodes: m.Nodes, Quorum: conf.QuorumMajority, Why: strings.Join(m.Joining, ", ") + " knows what the others know, and votes from now on"}
	n.jobs.start("grow quorum", n.wake, func(ctx context.Context) error {
		_, err := n.cons.Propose(ctx, state.Command{Members: &next})
		return err
	})
}

// filesAgain is the pause after ha.yaml could not be written.
const filesAgain = 10 * time.Second

// followNodes is every node's part in a change of the nodes. It returns false
// when this node is no longer one of them.
func (n *Node) followNodes(st *state.State) bool {
	m := st.Members
	if m == nil {
		n.hearVoters()
		return true
	}
	mine := slices.ContainsFunc(m.Nodes, func(c conf.Node) bool { return c.Name == n.self })
	admitted := n.admitted(st)
	n.present = n.present || admitted
	if n.nodesIndex != m.Index && mine {
		if n.nodesSeen != m.Index {
			n.nodesSeen, n.nodesSince = m.Index, time.Now()
			n.logger.Info("the nodes of the cluster are others now", "nodes", listed(m.Nodes), "quorum", m.Quorum, "joining", m.Joining)
		}
		var names []string
		for _, c := range m.Nodes {
			names = append(names, c.Name)
		}
		leaving := n.leavingNodes(m)
		if admitted && len(leaving) == 0 {
			n.nodesIndex = m.Index
		}
		names = append(names, leaving...)
		if !admitted {
			// What it reads may be long ago, and who leads now may not be among them.
			names = append(names, slices.DeleteFunc(n.names(), func(name string) bool { return slices.Contains(names, name) })...)
		}
		if !slices.Equal(names, n.namesSet) {
			n.namesSet = names
			n.setNames(names)
		}
	}
	n.mu.Lock()
	written := n.nodesWritten == m.Index
	n.mu.Unlock()
	if n.cfg.WriteNodes != nil && mine && !written && admitted {
		rule := m.Quorum
		if len(m.Nodes) > 2 {
			rule = conf.QuorumMajority
		}
		n.jobs.start("write nodes", n.wake, func(ctx context.Context) error {
			err := n.cfg.WriteNodes(m.Nodes, rule)
			if err == nil {
				n.mu.Lock()
				n.nodesWritten = m.Index
				n.mu.Unlock()
				return nil
			}
			n.setSpecErr(fmt.Sprintf("the nodes of the cluster have changed, and ha.yaml could not be: %v; write nodes: %s there by hand", err, listed(m.Nodes)))
			select {
			case <-ctx.Done():
			case <-time.After(filesAgain):
			}
			return nil
		})
	}
	return mine || !n.present && !n.caughtUp(st)
}

// caughtUp says whether what this node has applied is what counts now: a daemon that
// starts, or an empty node, reads first how it was removed, and then how it was put back.
func (n *Node) caughtUp(st *state.State) bool {
	leader, heard := n.heard()[n.cons.Leader()]
	return heard && st.Index >= leader.Index || n.cons.Leaderless() > partingTime
}

func (n *Node) setNames(names []string) {
	if n.cfg.SetNodes != nil {
		if err := n.cfg.SetNodes(names); err != nil {
			n.logger.Error("the links do not take the new nodes", "err", err)
		}
	}
	if n.members != nil {
		if err := n.members.SetNodes(names); err != nil {
			n.logger.Error("gossip does not take the new nodes", "err", err)
		}
	}
}

// hearVoters has the links know who votes by this node's log, until it knows from a
// leader which nodes there are: ha.yaml may have lost one that was removed before its vote was taken away.
func (n *Node) hearVoters() {
	if n.cfg.SetNodes == nil {
		return
	}
	names := n.names()
	votes, _, _ := n.cons.Servers()
	for _, id := range votes {
		if name := consensus.NodeOf(id); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == max(len(n.names()), n.hears) {
		return
	}
	n.hears = len(names)
	if err := n.cfg.SetNodes(names); err != nil {
		n.logger.Error("the links do not take the voters", "err", err)
	}
}

// partingTime is how long a node that was removed is still spoken to, so that
// it hears of it: one that does not would miss the others, and do about it what its rule says.
const partingTime = 10 * time.Second

// leavingNodes returns the nodes that are removed and still vote, or are heard and do not say that they know it.
func (n *Node) leavingNodes(m *state.Members) []string {
	var names []string
	add := func(name string) {
		if !slices.ContainsFunc(m.Nodes, func(c conf.Node) bool { return c.Name == name }) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	votes, _, _ := n.cons.Servers()
	for _, id := range votes {
		add(consensus.NodeOf(id)) // the others may not be able to do without it
	}
	for name, x := range n.heard() {
		if x.Index < m.Index && time.Since(n.nodesSince) <= partingTime {
			add(name)
		}
	}
	return names
}

// strandedTime is how long a node that was removed and still votes waits for
// others that may need its vote to take it away: a reboot of the other one of two.
const strandedTime = 2 * time.Minute

// bowOut is what a node does that is no longer one of the cluster.
func (n *Node) bowOut() {
	n.mu.Lock()
	n.removed = true
	n.mu.Unlock()
	if n.manager != nil {
		n.assign(map[string]uint64{})
		if !n.manager.Idle() {
			return
		}
	}
	// Its vote may be needed to take it away. When it is, the leader sends that, and the others let its links go.
	if votes, _, ok := n.cons.Servers(); ok && slices.Contains(votes, n.cons.Self()) && n.cons.Leaderless() < strandedTime {
		return
	}
	n.fail(ErrRemoved)
}

// putBack takes bowOut back: the node was added again before its daemon had ended.
func (n *Node) putBack() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removed = false
}

// onlyThese says whether nobody but these nodes votes, by the newest
// configuration that this node knows to be committed.
func onlyThese(st *state.State, nodes ...string) bool {
	return !slices.ContainsFunc(st.Voters.IDs, func(id string) bool { return !slices.Contains(nodes, consensus.NodeOf(id)) })
}
