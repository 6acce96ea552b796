package consensus

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/lease"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/conf"
)

// changedVoters notes that the voters, or who minds them, changed now.
func (c *Consensus) changedVoters() {
	c.mu.Lock()
	c.lastChange = time.Now()
	c.mu.Unlock()
}

// PromiseRuns is how long a promise that was given before the last change of
// voters may still run, with as much again for the time in which it was on its way.
func (c *Consensus) PromiseRuns() time.Duration {
	longest := c.cfg.Profile.Lease
	s := c.State()
	if s.Spec != nil {
		longest = max(longest, s.Spec.Settings.Profile.Lease)
	}
	if !c.Applied(s.Longer.Index) {
		longest = max(longest, s.Longer.Lease)
	}
	for _, n := range s.Nodes {
		longest = max(longest, n.LongLease)
	}
	return 2 * lease.Stretch(longest)
}

// Applied says whether every other node has said that it has applied the entry
// at an index. One that is not heard counts by what it said last.
func (c *Consensus) Applied(index uint64) bool {
	if index == 0 {
		return true
	}
	heard, generation := c.cfg.Members(), c.Generation()
	nodes, _, _ := c.current()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, m := range heard {
		if m.Generation == generation { // indexes of another history say nothing
			c.reached[name] = max(c.reached[name], m.Index)
		}
	}
	return !slices.ContainsFunc(nodes, func(n conf.Node) bool { return n.Name != c.cfg.Node && c.reached[n.Name] < index })
}

// mindVoters makes, as the leader, the next change that brings raft's
// configuration to `nodes:`: a node that lost its disk comes back under
// another id, first without a vote, then with one. One voter at a time, and
// between two changes a promise runs out (rule 4).
func (c *Consensus) mindVoters() {
	runs := c.PromiseRuns() // locks mu itself
	c.mu.Lock()
	soon := time.Since(c.lastChange) < runs
	c.mu.Unlock()
	if soon {
		return
	}
	// What is looked at below must still be in force when the change is made.
	index := c.configurationIndex(c.latestVoters())
	r := c.raft()
	if r == nil {
		return
	}
	f := r.GetConfiguration()
	if index == 0 || f.Error() != nil {
		return
	}
	generation, ofPair, st := c.Generation(), c.cfg.Pair != nil && c.cfg.Pair(), c.State()
	members := c.cfg.Members()
	members[c.cfg.Node] = Member{UUID: c.cfg.UUID, Nodes: NodesDigest(c.cfg.Nodes), Generation: generation, Index: st.Index}
	nodes, joining, since := c.current()
	// Without its vote those that are left have to decide: one of them that lost its disk is replaced first.
	if gone := notIn(f.Configuration(), nodes); gone != "" && decide(f.Configuration(), members, generation, gone) {
		// It hears of it first; not so one that has lost its disk, since it is no server any more.
		name := NodeOf(string(gone))
		if m, heard := members[name]; heard && m.Index < since && ServerID(name, m.UUID, generation) == string(gone) {
			return
		}
		c.change("is gone: the node was removed", gone, r.RemoveServer(gone, index, time.Second))
		return
	}
	for _, n := range nodes {
		m, heard := members[n.Name]
		if !heard || m.Generation != generation {
			continue // nothing is known of its disk, or it belongs to another history
		}
		id := raft.ServerID(ServerID(n.Name, m.UUID, generation))
		i := slices.IndexFunc(f.Configuration().Servers, func(s raft.Server) bool { return NodeOf(string(s.ID)) == n.Name })
		if i < 0 {
			c.change("joins without a vote", id, r.AddNonvoter(id, raft.ServerAddress(id), index, time.Second))
			return
		}
		s := f.Configuration().Servers[i]
		switch {
		case s.ID != id && m.Empty:
			c.change("is gone: the node has lost its data directory", s.ID, r.RemoveServer(s.ID, index, time.Second))
			return
		case ofPair && s.ID == id && s.Suffrage == raft.Voter && st.Nodes[n.Name].Left && votersOf(f.Configuration()) > 1:
			if n.Name == c.cfg.Node {
				// The other one has to write that: if it stood in this log alone, this node would
				// not stand for election any more, and with the newer log would elect nobody.
				r.LeadershipTransfer()
				return
			}
			c.change("has been stopped and votes no longer, so that the other can go on", id, r.DemoteVoter(id, index, time.Second))
			return
		case ofPair && !st.Nodes[n.Name].Valid: // it votes when it has been admitted
		case slices.Contains(joining, n.Name) || !known(f.Configuration(), members, since):
			// Every voter has to know first that the rule of a pair, which would let it
			// go on alone, is in force no more: with this vote the others are a majority without it.
		case s.ID == id && s.Suffrage == raft.Nonvoter && slices.Contains(voting(nodes), n.Name) && m.Index+100 > r.AppliedIndex() && m.Index > 0:
			c.change("has caught up and votes", id, r.AddVoter(id, raft.ServerAddress(id), index, time.Second))
			return
		}
	}
}

func (c *Consensus) current() (nodes []conf.Node, joining []string, since uint64) {
	if c.cfg.Current == nil {
		return c.cfg.Nodes, nil, 0
	}
	return c.cfg.Current()
}

// notIn returns a server whose node is none of these; empty: there is none.
func notIn(f raft.Configuration, nodes []conf.Node) raft.ServerID {
	for _, s := range f.Servers {
		if !slices.ContainsFunc(nodes, func(n conf.Node) bool { return n.Name == NodeOf(string(s.ID)) }) {
			return s.ID
		}
	}
	return ""
}

// decide says whether a majority of the voters is there when one of them is gone.
func decide(f raft.Configuration, members map[string]Member, g pair.Generation, gone raft.ServerID) bool {
	there, all := 0, 0
	for _, id := range voters(f) {
		if id == string(gone) {
			continue
		}
		all++
		if m, heard := members[NodeOf(id)]; heard && ServerID(NodeOf(id), m.UUID, g) == id {
			there++
		}
	}
	return there > all/2
}

// known says whether every voter says that it has applied the entry at an index.
func known(f raft.Configuration, members map[string]Member, index uint64) bool {
	if index == 0 {
		return true
	}
	for _, s := range f.Servers {
		if m, heard := members[NodeOf(string(s.ID))]; s.Suffrage == raft.Voter && (!heard || m.Index < index) {
			return false
		}
	}
	return true
}

// Following says whether a node follows the log, with or without a vote, and has caught up.
func (c *Consensus) Following(node string) bool {
	r := c.raft()
	if r == nil {
		return false
	}
	if node == c.cfg.Node {
		return r.State() == raft.Leader // put back before its vote was taken away
	}
	m, heard := c.cfg.Members()[node]
	votes, follow, ok := c.Servers()
	// One that was put back before its vote was taken away still has it.
	return heard && ok && m.Index > 0 && m.Index+100 > r.AppliedIndex() && slices.Contains(append(follow, votes...), ServerID(node, m.UUID, c.Generation()))
}

func votersOf(c raft.Configuration) int { return len(voters(c)) }

func (c *Consensus) change(what string, id raft.ServerID, f raft.IndexFuture) {
	c.changedVoters()
	if r := c.run.Load(); r != nil {
		r.answered(f)
	}
	go func() { // ends when raft answers or has ended
		if err := f.Error(); err != nil {
			c.cfg.Logger.Warn("change of voters failed", "server", id, "change", what, "err", err)
			return
		}
		c.changedVoters()
		c.cfg.Logger.Info("server "+string(id)+" "+what, "index", f.Index())
	}()
}
