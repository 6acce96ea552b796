package sim

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// forgotten says whether a majority of the voters has lost the disks by which
// they voted, and no rule of a pair is in force: no cluster survives that.
func (w *world) forgotten() bool {
	if leader, _ := w.leader(); leader != "" {
		return false
	}
	full, st := w.fullest()
	if full == nil {
		return true // nobody has anything, and not all of them the same nodes, or the cluster had begun by itself
	}
	// A rule that a change of nodes has ended, or has not begun as far as is known to be committed, is none.
	if st == nil || len(st.Voters.IDs) == 0 || w.ofPair(st) && !full.diskNow().generationNow().RuleEnded {
		return false
	}
	there := 0
	for _, id := range st.Voters.IDs {
		m := w.machine(consensus.NodeOf(id))
		if d := m.diskNow(); d.last() > 0 && consensus.ServerID(m.name, d.uuid, d.generationNow().Current) == id {
			there++
		}
	}
	return there <= len(st.Voters.IDs)/2
}

// fullest returns the machine whose log says most, and what that leads to,
// committed or not.
func (w *world) fullest() (full *machine, st *state.State) {
	var best []uint64
	for _, m := range w.machines {
		d := m.diskNow()
		if d.last() == 0 || d.generationNow().Discard {
			continue
		}
		term, ok := d.lastTerm()
		if !ok {
			continue
		}
		if key := []uint64{d.generationNow().Current.Counter, term, d.last()}; full == nil || slices.Compare(key, best) > 0 {
			full, best = m, key
		}
	}
	if full == nil {
		return nil, nil
	}
	return full, full.diskNow().state()
}

// lastTerm is the term of the entry at last.
func (d *disk) lastTerm() (uint64, bool) {
	if all, err := d.stores().Snapshots.List(); err == nil && len(all) > 0 && all[0].Index == d.last() {
		return all[0].Term, true
	}
	var l raft.Log
	err := d.stores().Log.GetLog(d.last(), &l)
	return l.Term, err == nil
}

// state is what the snapshot and everything in the log lead to.
func (d *disk) state() *state.State {
	st, log := state.New(), d.stores().Log
	if all, err := d.stores().Snapshots.List(); err == nil && len(all) > 0 {
		if _, r, err := d.stores().Snapshots.Open(all[0].ID); err == nil {
			if s, err := state.Restore(r); err == nil {
				st = s
			}
		}
	}
	for i := st.Index + 1; i <= d.last(); i++ {
		var l raft.Log
		if log.GetLog(i, &l) != nil {
			continue
		}
		switch l.Type {
		case raft.LogCommand:
			if c, err := state.Decode(l.Data); err == nil {
				st, _ = st.Apply(l.Index, c)
			}
		case raft.LogConfiguration:
			var ids []string
			for _, s := range raft.DecodeConfiguration(l.Data).Servers {
				if s.Suffrage == raft.Voter {
					ids = append(ids, string(s.ID))
				}
			}
			st = st.SetVoters(l.Index, ids)
		}
	}
	return st
}

// ofPair says whether two decide by a rule.
func (w *world) ofPair(st *state.State) bool {
	rule := w.cfg.Rule
	if st.Members != nil {
		rule = st.Members.Quorum
	}
	if rule == 0 || rule == conf.QuorumMajority {
		return false
	}
	return st.Members == nil || !slices.ContainsFunc(st.Voters.IDs, func(id string) bool {
		name := consensus.NodeOf(id)
		return slices.Contains(st.Members.Joining, name) || !slices.Contains(namesOf(st.Members.Nodes), name)
	})
}

// anew is what docs/operating.md says to do when a majority of the voters is
// lost for good: everything is stopped, every data directory moved away, the same
// nodes written everywhere, and all are started.
func (r *run) anew() {
	r.asked = time.Now()
	from, st := r.w.fullest()
	nodes, rule := r.w.first, r.w.rule()
	if from != nil {
		if nodes, rule = r.w.nodesOf(st); nodes == nil {
			nodes, rule = r.w.local(from).Nodes, r.w.local(from).Quorum
		}
		r.w.note("    a majority of the disks is lost: the cluster begins anew, from %s", from.name)
	}
	r.w.history.excuse("the cluster began anew")
	r.w.lostDisk = true
	r.w.air.forget()
	for _, m := range r.w.machines {
		m.powerOff()
		m.newDisk()
	}
	r.w.observe()
	for _, m := range r.w.machines {
		m.mu.Lock()
		m.nodes, m.rule = slices.Clone(nodes), rule
		m.mu.Unlock()
		m.member = slices.Contains(namesOf(nodes), m.name)
		r.ok(m.powerOn())
	}
}
