package consensus

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/conf"
)

const (
	// unheardFor is for how long another voter must have heard whom this leader
	// does not: a daemon that starts is heard by one a moment before the other.
	unheardFor = 2 * time.Second
	// unheardPause is between two such moves, whatever comes of them.
	unheardPause = 20 * time.Second
)

// Behind returns the nodes of the cluster that this node hears and that do not
// have the log, sorted: the leader gives it to whom it hears, so it may not hear
// them. They are what a node says of this in its hellos.
func (c *Consensus) Behind() []string {
	nodes, _, _ := c.current()
	return behindOf(nodes, c.cfg.Node, c.cfg.Members(), c.Generation(), c.State().Index)
}

func behindOf(nodes []conf.Node, self string, members map[string]Member, g pair.Generation, index uint64) []string {
	var names []string
	for _, n := range nodes {
		m, heard := members[n.Name]
		if n.Name != self && heard && m.Generation == g && index > 0 && (m.Index == 0 || m.Index+behind < index) {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	return names
}

// hearsMore returns the voter that should lead because it hears a node that is
// behind and that the leader does not hear; nil: there is none. The ha.yaml of one
// that was away need not name who leads, so it speaks to those that it names: it gets
// the log when one of them leads. One that is no node of the cluster any more
// is not given the leadership.
func hearsMore(nodes []conf.Node, self string, f raft.Configuration, members map[string]Member, g pair.Generation, index uint64) *raft.Server {
	isNode := func(name string) bool {
		return slices.ContainsFunc(nodes, func(n conf.Node) bool { return n.Name == name })
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		m := members[name]
		i := slices.IndexFunc(f.Servers, func(s raft.Server) bool {
			return s.Suffrage == raft.Voter && string(s.ID) == ServerID(name, m.UUID, g)
		})
		if i < 0 || name == self || !isNode(name) || m.Generation != g || m.Index+behind < index {
			continue
		}
		if slices.ContainsFunc(m.Behind, func(other string) bool {
			_, heard := members[other]
			return !heard && other != self && isNode(other)
		}) {
			return &f.Servers[i]
		}
	}
	return nil
}

// mindUnheard moves leadership to a voter that hears who does not get the log
// from here. What follows is then the new leader's: mindVoters.
func (c *Consensus) mindUnheard(m *mover, f raft.Configuration, members map[string]Member) {
	now := time.Now()
	nodes, _, _ := c.current()
	to := hearsMore(nodes, c.cfg.Node, f, members, c.Generation(), c.State().Index)
	switch {
	case to == nil:
		m.unheard = time.Time{}
	case m.unheard.IsZero():
		m.unheard = now
	case now.Sub(m.unheard) >= unheardFor && now.After(m.again):
		m.again = now.Add(unheardPause)
		node := NodeOf(string(to.ID))
		c.cfg.Logger.Info("moving leadership to a node that hears one that is not heard here", "to", node, "it_hears", members[node].Behind)
		if r := c.raft(); r != nil {
			r.LeadershipTransferToServer(to.ID, to.Address)
		}
	}
}
