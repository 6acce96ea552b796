package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// began is called by a kernel, with all tables locked, when it begins to
// answer for an address: the only moment at which two can begin to.
func (w *world) began(k *kernel, a netip.Addr, what string) {
	var who []string
	for _, m := range w.machines {
		if m.kernel.answers(a) {
			who = append(who, m.name)
		}
	}
	before := w.answering[a]
	w.answering[a] = who
	w.mu.Lock()
	still := w.still
	w.moves++
	w.mu.Unlock()
	w.note("%s answers on %s after %s, was on %q", a, strings.Join(who, "+"), what, strings.Join(before, "+"))
	if len(who) > 1 {
		w.two(a, who, what == "start" && k.excused)
	}
	if still {
		w.violate("%s was silent, or moved, without a cause: it begins to answer on %s after %s", a, k.name, what)
	}
}

// two judges that an address answers on several machines. excused: it was when the last of them began to start it.
func (w *world) two(a netip.Addr, who []string, excused bool) {
	text := fmt.Sprintf("%s answers on %s at once", a, strings.Join(who, " and "))
	switch {
	case w.rule() == conf.QuorumUnsafe, w.rule() == conf.QuorumPing && (excused || w.excused()):
		w.mu.Lock()
		w.chosen++
		w.noteLocked("    as the rule %v allows: %s", w.rule(), text)
		w.mu.Unlock()
	default:
		w.violate("%s", text)
	}
}

// ceased is called, with all tables locked, when a change makes a kernel silent.
func (w *world) ceased(k *kernel, a netip.Addr, what string) {
	w.mu.Lock()
	still := w.still
	w.mu.Unlock()
	w.answering[a] = slices.DeleteFunc(slices.Clone(w.answering[a]), func(n string) bool { return n == k.name })
	w.note("%s is silent on %s after %s", a, k.name, what)
	if still {
		w.violate("%s is made silent on %s by %s, without a cause", a, k.name, what)
	}
}

// unsettled says which group does not answer on exactly one machine; empty:
// they all do, and nobody has an address that the files do not name.
func (w *world) unsettled() string {
	spec := w.specification()
	w.tables.Lock()
	defer w.tables.Unlock()
	named := map[netip.Addr]bool{}
	for _, g := range spec.Groups {
		owner := ""
		for _, res := range g.Resources {
			if res.VRRP != nil {
				if vrid := res.VRRP.Instance.VRID; w.air.silent(vrid, owner) {
					return fmt.Sprintf("%s does not announce VRID %d of %s", owner, vrid, g.Name)
				}
				continue
			}
			a := res.VIP.Address
			owner = strings.Join(w.whoLocked(a), "+")
			named[a] = true
			if who := w.whoLocked(a); len(who) != 1 {
				return g.Name + " answers on " + strings.Join(who, "+")
			}
		}
	}
	for _, m := range w.machines {
		for a := range m.kernel.active {
			if !named[a] {
				return a.String() + " is still on " + m.name
			}
		}
	}
	return ""
}

func (w *world) settled() bool { return w.unsettled() == "" }

func (w *world) whoLocked(a netip.Addr) []string {
	var who []string
	for _, m := range w.machines {
		if m.kernel.answers(a) {
			who = append(who, m.name)
		}
	}
	return who
}

// owner returns who answers for a group's address, empty for nobody.
func (w *world) owner(i int) string {
	w.tables.Lock()
	defer w.tables.Unlock()
	if who := w.whoLocked(w.address(i)); len(who) > 0 {
		return who[0]
	}
	return ""
}

// owns says whether a machine answers for anything.
func (w *world) owns(name string) bool {
	for i := range w.cfg.Groups {
		if w.owner(i) == name {
			return true
		}
	}
	return false
}

// home says whether every group is where its specification would have it.
func (w *world) home() bool {
	nodes := namesOf(w.first)
	if best := w.wisest(); best != nil {
		if now, _ := w.nodesOf(best.node.State()); now != nil {
			nodes = namesOf(now)
		}
	}
	for _, g := range w.specification().Groups {
		if !slices.Contains(nodes, g.Prefer[0]) {
			continue // it was removed
		}
		w.tables.Lock()
		who := w.whoLocked(g.Resources[0].VIP.Address)
		w.tables.Unlock()
		if len(who) != 1 || who[0] != g.Prefer[0] {
			return false
		}
	}
	return true
}

// leader returns the node that leads and its term, as the nodes say themselves.
func (w *world) leader() (string, string) {
	name, term := "", ""
	for _, m := range w.machines {
		if m.node == nil {
			continue
		}
		if l := m.node.LocalStatus(); l.Raft == "Leader" && (len(l.Term) > len(term) || len(l.Term) == len(term) && l.Term > term) {
			name, term = m.name, l.Term
		}
	}
	return name, term
}

// watched is what was last seen of one daemon's state.
type watched struct{ last *state.State }

// observe compares the replicated state of every node with the history.
func (w *world) observe() {
	if w.lostDisk && w.empty() {
		w.history.forget()
	}
	for _, m := range w.machines {
		if m.node == nil {
			continue
		}
		st, last := m.node.State(), m.seen.last
		if st == last {
			continue
		}
		// The generation is read after the state: it opens with what the log holds.
		r := m.diskNow().generationNow()
		if r.Discard {
			continue
		}
		m.seen.last = st
		for _, wrong := range w.history.see(r.Current, st, last) {
			w.violate("%s: %s", m.name, wrong)
		}
		m.record.at(st)
	}
}

// empty says whether no disk of the cluster has a log. One that was taken out may keep its own.
func (w *world) empty() bool {
	return !slices.ContainsFunc(w.members(), func(m *machine) bool { return m.diskNow().last() > 0 })
}
