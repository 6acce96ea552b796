package sim

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

func namesOf(nodes []conf.Node) []string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names
}

// wisest returns the machine that knows most.
func (w *world) wisest() *machine {
	var best *machine
	key := func(m *machine) []uint64 {
		return []uint64{m.diskNow().generationNow().Current.Counter, m.node.State().Index}
	}
	for _, m := range w.machines {
		if m.node == nil {
			continue
		}
		if best == nil || slices.Compare(key(m), key(best)) > 0 {
			best = m
		}
	}
	return best
}

// nodesOf returns the nodes that the log names, and the rule.
func (w *world) nodesOf(st *state.State) ([]conf.Node, conf.Quorum) {
	if st.Members == nil {
		return nil, 0
	}
	rule := st.Members.Quorum
	if len(st.Members.Nodes) > 2 {
		rule = conf.QuorumMajority
	}
	return st.Members.Nodes, rule
}

// members returns the machines that belong to the cluster.
func (w *world) members() []*machine {
	var ms []*machine
	for _, m := range w.machines {
		if m.member {
			ms = append(ms, m)
		}
	}
	return ms
}

// enlist makes nodes of the machines that the log names, as an operator does
// who looks at `keepbeat status`, and takes the others out.
func (r *run) enlist(ending bool) {
	best := r.w.wisest()
	if best == nil {
		return
	}
	nodes, rule := r.w.nodesOf(best.node.State())
	if nodes == nil { // never changed, or that was in a history which another has overtaken
		if !ending || best.node.State().Index == 0 {
			return
		}
		nodes, rule = r.w.first, r.w.rule()
	}
	for _, m := range r.w.machines {
		if ending && m.switchedOff {
			m.switchedOff = false
			r.ok(m.powerOn())
		}
		named := slices.Contains(namesOf(nodes), m.name)
		switch {
		case named && !m.member:
			m.mu.Lock()
			m.nodes, m.rule = slices.Clone(nodes), rule
			m.mu.Unlock()
			m.member = true
			r.w.note("    %s is a node of the cluster", m.name)
			r.ok(m.powerOn())
		case !named && m.member && !votes(best.node.State(), m.name) && (m.node == nil || ending):
			m.kill() // it may never have heard of its removal; the operator takes it out, when it votes no longer
			m.member = false
			r.w.note("    %s is no node of the cluster any more", m.name)
		case named && ending && m.diskNow().last() == 0 && !slices.Equal(namesOf(r.w.local(m).Nodes), namesOf(nodes)):
			// Nobody can tell one with an empty disk and an old ha.yaml that the nodes are others.
			m.kill()
			m.mu.Lock()
			m.nodes, m.rule = slices.Clone(nodes), rule
			m.mu.Unlock()
			r.w.note("    the ha.yaml of %s is made that of the others", m.name)
			r.ok(m.powerOn())
		}
	}
}

// votes says whether a node has a vote, by a state.
func votes(st *state.State, node string) bool {
	return slices.ContainsFunc(st.Voters.IDs, func(id string) bool { return consensus.NodeOf(id) == node })
}

// changeNodes adds a machine to the cluster, or takes it out of it.
func (r *run) changeNodes(e event, m *machine) {
	n, target := m.node, r.w.machine(e.Peer)
	if n == nil || m.paused {
		return
	}
	nodes, _ := r.w.nodesOf(n.State())
	if nodes == nil {
		nodes = r.w.local(m).Nodes
	}
	is := slices.Contains(namesOf(nodes), target.name)
	rule := conf.Quorum(0)
	if is && len(nodes) == 3 {
		rule = r.s.afterwards()
	}
	owner := target.node
	r.async(func() func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ctx = cluster.WithOrder(ctx, cluster.Order{Force: e.Flag})
		var err error
		if is {
			if owner != nil && target.role == conf.Director {
				_, _ = owner.Standby(ctx, cluster.All, "") // what it cannot give away keeps it in the cluster
			}
			_, err = n.RemoveNode(ctx, target.name, rule)
		} else {
			_, err = n.AddNode(ctx, target.name, target.role)
		}
		time.Sleep(100 * time.Millisecond)
		return func() {
			r.w.note("    nodes, on %s: %s %s: %v", m.name, map[bool]string{true: "remove", false: "add"}[is], target.name, err)
			r.enlist(false)
		}
	})
}

// belongElsewhere makes the disk one that comes from another cluster.
func (d *disk) belongElsewhere(name string) {
	g := pair.Generation{Counter: 4, ID: "0000abcd"}
	d.generation = pair.Record{Current: g}
	var servers []raft.Server
	for _, id := range []string{name + "/" + d.uuid + g.Suffix(), "director1/elsewhere" + g.Suffix()} {
		servers = append(servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	d.log[1] = raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{Servers: servers})}
	d.low, d.high = 1, 1
	d.numbers["CurrentTerm"] = 1
}

// afterwards is what decides when two nodes are left.
func (c Config) afterwards() conf.Quorum {
	switch {
	case c.Rule != 0:
		return c.Rule
	case c.Stores > 0:
		return conf.QuorumFencing
	}
	return conf.QuorumPing
}
