package state

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/keepbeat/keepbeat/conf"
)

// Apply returns the state after a command and what the command came to. A
// command whose ID was applied before changes nothing and has the same result.
func (s *State) Apply(index uint64, c Command) (*State, Result) {
	if r, known := s.seen(c.ID); known {
		n := *s
		n.Index = index
		return &n, r
	}
	e := s.edit(index, c.At)
	r := e.apply(c)
	r.Index = index
	e.remember(c.ID, r)
	return e.State, r
}

func (e *edit) apply(c Command) Result {
	switch {
	case c.Admit != nil:
		return e.admit(*c.Admit)
	case c.Leave != nil:
		return e.leave(*c.Leave)
	case c.Revoke != nil:
		return e.revoke(*c.Revoke)
	case c.Assign != nil:
		return e.assign(*c.Assign)
	case c.Hand != nil:
		return e.hand(*c.Hand)
	case c.Started != nil:
		return e.started(*c.Started)
	case c.Stopped != nil:
		return e.stopped(*c.Stopped)
	case c.Blocked != nil:
		return e.blocked(*c.Blocked)
	case c.Problems != nil:
		return e.problems(*c.Problems)
	case c.Forgive != nil:
		return e.forgive(*c.Forgive)
	case c.LongLease != nil:
		return e.longLease(*c.LongLease)
	case c.Armed != nil:
		return e.armed(*c.Armed)
	case c.Spec != nil:
		return e.setSpec(*c.Spec)
	case c.Reals != nil:
		return e.setReals(*c.Reals)
	case c.Fence != nil:
		return e.fence(*c.Fence)
	case c.Fenced != nil:
		return e.fenced(*c.Fenced)
	case c.Members != nil:
		return e.members(*c.Members)
	case c.Upgrade != nil:
		return e.upgrade(*c.Upgrade)
	case c.Note != nil:
		e.note("", c.Note.Node, c.Note.Text)
		return Result{}
	case c.Probe != nil:
		return Result{}
	}
	return refuse("a command that this version of keepbeat does not know; run the same version on every node")
}

func refuse(format string, args ...any) Result { return Result{Refused: fmt.Sprintf(format, args...)} }

// SetVoters returns the state after raft committed a configuration of voters.
func (s *State) SetVoters(index uint64, ids []string) *State {
	n := *s
	ids = slices.Clone(ids)
	slices.Sort(ids)
	n.Voters = Voters{Index: index, IDs: ids}
	n.Index = max(n.Index, index)
	return &n
}

func (s *State) seen(id ID) (Result, bool) {
	if id.N == 0 {
		return Result{}, false
	}
	sn, ok := s.Seen[id.Node]
	if !ok || sn.Boot != id.Boot {
		return Result{}, false
	}
	for _, r := range sn.Results {
		if r.N == id.N {
			return r.Result, true
		}
	}
	if len(sn.Results) == maxSeen && id.N < sn.Results[0].N {
		return refuse("command %d of %s is older than what is remembered", id.N, id.Node), true
	}
	return Result{}, false
}

func (e *edit) remember(id ID, r Result) {
	if id.N == 0 {
		return
	}
	if !e.seen {
		e.Seen, e.seen = maps.Clone(e.Seen), true
	}
	sn := e.Seen[id.Node]
	if sn.Boot != id.Boot {
		sn = SeenNode{Boot: id.Boot}
	}
	from := max(0, len(sn.Results)+1-maxSeen)
	sn.Results = append(slices.Clone(sn.Results[from:]), SeenResult{id.N, r})
	slices.SortFunc(sn.Results, func(a, b SeenResult) int { return int(int64(a.N - b.N)) })
	e.Seen[id.Node] = sn
}

func (e *edit) admit(a Admit) Result {
	n := e.Nodes[a.Node]
	if why := e.Members.bars(a.Node); why != "" {
		return refuse("node %s is not admitted: %s", a.Node, why)
	}
	if max(a.Format, firstFormat) < e.Format {
		return refuse("node %s runs a keepbeat that knows the cluster's state up to format %d, and it has format %d: install the version that the other nodes run", a.Node, max(a.Format, firstFormat), e.Format)
	}
	if n.Boot == a.Boot && n.Incarnation != a.After {
		if n.Valid {
			return Result{Number: n.Incarnation} // asked twice
		}
		// Revoked since it asked: it has to stop everything before it asks again (rule 8).
		return refuse("node %s asked to be admitted after incarnation %d, it is at %d", a.Node, a.After, n.Incarnation)
	}
	newStart := n.Boot != a.Boot
	if !newStart && !n.Valid && a.Running {
		// It had not heard of its revocation when it asked: a lease would open the
		// guard for addresses that another node has by now.
		return refuse("node %s runs groups of incarnation %d, which has been revoked: it stops them first", a.Node, n.Incarnation)
	}
	if r, pending := e.Fencing[a.Node]; pending {
		if !a.Clean || r.Ordered {
			return refuse("node %s is being fenced: %s", a.Node, r.Why)
		}
		e.setFencing(a.Node, nil)
		e.note("", a.Node, "not fenced any more: it is back and runs nothing")
	}
	planned := newStart && n.LongLease > 0 && n.Valid
	why := "daemon started"
	switch {
	case planned:
		why = "daemon restarted as planned"
	case !newStart:
		why = "admitted again after a revocation"
	}
	n.Name, n.ID, n.Boot, n.Director = a.Node, a.ID, a.Boot, a.Director
	n.Incarnation++
	n.Valid, n.Since, n.Why, n.LongLease, n.Left, n.Format = true, e.at, why, 0, false, a.Format
	if newStart {
		n.Problems, n.Unsettled, n.Watchdog, n.ResetWithin = nil, nil, 0, 0
		if e.Format >= 3 && e.Spec != nil && e.Spec.IPVS != nil && e.Spec.IPVS.Sync != nil {
			n.Unsettled = map[string]string{"": "it has just started"}
		}
	}
	e.setNode(n)
	e.note("", a.Node, fmt.Sprintf("admitted as incarnation %d: %s", n.Incarnation, why))
	if !newStart {
		return Result{Number: n.Incarnation}
	}
	for name, g := range e.Groups {
		changed := false
		if g.Owner == a.Node && g.Active && !planned {
			g.Active, changed = false, true // the new daemon reports again
		}
		if _, failed := g.Failures[a.Node]; failed && !planned {
			g.Failures, changed = without(g.Failures, a.Node), true
		}
		// heartbeat's auto_failback: the preferred node takes its groups back when it has started anew.
		if _, c := e.Group(name); !planned && c != nil && c.AutoFailback && g.Manual != "" && g.Manual != a.Node && len(c.Prefer) > 0 && c.Prefer[0] == a.Node {
			g.Manual, changed = "", true
		}
		if changed {
			e.setGroup(g)
		}
	}
	return Result{Number: n.Incarnation}
}

func (e *edit) leave(l Leave) Result {
	n := e.Nodes[l.Node]
	if !n.Valid || n.Incarnation != l.Incarnation {
		return refuse("node %s is not at incarnation %d any more", l.Node, l.Incarnation)
	}
	if owned := e.OwnedBy(l.Node); len(owned) > 0 {
		return refuse("node %s still owns %s", l.Node, owned[0])
	}
	n.Valid, n.Since, n.Why, n.LongLease, n.Left, n.Watchdog, n.ResetWithin = false, e.at, "stopped by an operator", 0, true, 0, 0
	e.setNode(n)
	e.dropManual(l.Node)
	e.note("", l.Node, "left: "+n.Why)
	return Result{}
}

// dropManual forgets operators' choices of a node that is gone.
func (e *edit) dropManual(node string) {
	for _, g := range e.Groups {
		if g.Manual == node {
			g.Manual = ""
			e.setGroup(g)
		}
	}
}

func (e *edit) revoke(r Revoke) Result {
	n := e.Nodes[r.Node]
	if !n.Valid || n.Incarnation != r.Incarnation {
		return refuse("node %s is not at incarnation %d any more", r.Node, r.Incarnation)
	}
	if r.Voters != 0 && r.Voters != e.Voters.Index {
		return refuse("the voters changed while the revocation of %s was collected", r.Node)
	}
	n.Valid, n.Since, n.Why, n.LongLease = false, e.at, r.Why, 0
	e.setNode(n)
	e.note("", r.Node, fmt.Sprintf("incarnation %d revoked: %s", r.Incarnation, r.Why))
	return Result{Number: e.moveFrom(r.Node, r.Moves, r.Why, false)}
}

// moveFrom names new owners for the groups of a node that does not act any
// more: as the moves say where they still hold, nobody otherwise. A group that
// the guard cannot cut off stays with it until it has been fenced.
func (e *edit) moveFrom(node string, ms []Move, why string, fenced bool) uint64 {
	moves := make(map[string]Move, len(ms))
	for _, m := range ms {
		moves[m.Group] = m
	}
	e.dropManual(node)
	var moved uint64
	for _, name := range e.OwnedBy(node) {
		g := e.Groups[name]
		if !fenced && NeedsFencing(e.Runs(name)) {
			e.note(name, node, "stays with "+node+" until that has been fenced")
			continue
		}
		if _, c := e.Group(name); c == nil {
			e.note(name, node, fmt.Sprintf("is no more: it was taken out of the specification, and %s: %s", node, why))
			e.retire(g)
			continue
		}
		m := moves[name]
		to, reason := m.To, m.Reason
		if g.Target != "" && g.Target != node {
			to, reason = g.Target, g.TargetReason // it was on its way there
		} else if m.Epoch != g.Epoch || m.ToIncarnation != e.Nodes[to].Incarnation {
			to = "" // not what the proposer saw; the leader looks again
		}
		if t := e.Nodes[to]; to == node || !t.Valid || !t.Director || g.FailedOn(to) {
			to = ""
		}
		if to == "" {
			reason = fmt.Sprintf("%s: %s", node, why)
		} else {
			moved++
		}
		e.setOwner(g, to, reason)
	}
	return moved
}

// setOwner names an owner (empty: nobody) under the next epoch.
func (e *edit) setOwner(g Group, to, why string) {
	text := "owner " + to
	switch {
	case to == "":
		text = "no owner"
		if g.Owner != "" {
			text += ", was " + g.Owner
		}
	case g.Owner != "":
		text += ", was " + g.Owner
	}
	g.Owner, g.Reason, g.Since = to, why, e.at
	g.Epoch++
	g.Active, g.Target, g.TargetReason, g.Blocked = false, "", "", ""
	e.gone(g.Name)
	e.setGroup(g)
	e.note(g.Name, to, fmt.Sprintf("%s (epoch %d): %s", text, g.Epoch, why))
}

// stale says in words what of a move is not as its proposer saw it; empty: nothing.
func (e *edit) stale(m Move) string {
	g, ok := e.Groups[m.Group]
	switch {
	case !ok:
		return fmt.Sprintf("group %s: no such group", m.Group)
	case g.Owner != m.Owner || g.Epoch != m.Epoch:
		return fmt.Sprintf("group %s: owner %q epoch %d were seen, it has owner %q epoch %d", m.Group, m.Owner, m.Epoch, g.Owner, g.Epoch)
	case m.Owner != "" && e.Nodes[m.Owner].Incarnation != m.Incarnation:
		return fmt.Sprintf("group %s: %s is at incarnation %d, not %d", m.Group, m.Owner, e.Nodes[m.Owner].Incarnation, m.Incarnation)
	}
	if to := e.Nodes[m.To]; !to.Valid || to.Incarnation != m.ToIncarnation || !to.Director {
		return fmt.Sprintf("group %s: node %s cannot take it: it is not admitted as incarnation %d", m.Group, m.To, m.ToIncarnation)
	}
	return ""
}

func (e *edit) assign(a Assign) Result { return e.moves(a.Moves, e.assignOne) }

func (e *edit) hand(h Hand) Result { return e.moves(h.Moves, e.handOne) }

// moves applies each move by itself; the result names the first that was refused.
func (e *edit) moves(ms []Move, one func(Move) string) Result {
	var r Result
	for _, m := range ms {
		why := e.stale(m)
		if why == "" {
			why = one(m)
		}
		switch {
		case why == "":
			r.Number++
		case r.Refused == "":
			r.Refused = why
		}
	}
	return r
}

func (e *edit) assignOne(m Move) string {
	g := e.Groups[m.Group]
	if g.Owner != "" {
		return fmt.Sprintf("group %s: %s owns it", m.Group, g.Owner)
	}
	_, c := e.Group(m.Group)
	if c == nil {
		return fmt.Sprintf("group %s: it was taken out of the specification", m.Group)
	}
	if e.held == nil {
		e.held = e.Held()
	}
	if why := e.Waits(c, e.held); why != "" {
		return fmt.Sprintf("group %s %s", m.Group, why)
	}
	e.held.add(c)
	if m.Manual {
		g.Manual = m.To
	}
	e.setOwner(g, m.To, m.Reason)
	return ""
}

func (e *edit) handOne(m Move) string {
	g := e.Groups[m.Group]
	if g.Owner == "" {
		return e.assignOne(m)
	}
	if m.Manual {
		g.Manual = m.To
	}
	if g.Owner == m.To {
		g.Target, g.TargetReason = "", ""
	} else {
		g.Target, g.TargetReason = m.To, m.Reason
		e.note(g.Name, m.To, fmt.Sprintf("moving from %s to %s: %s", g.Owner, m.To, m.Reason))
	}
	e.setGroup(g)
	return ""
}

func (e *edit) armed(a Armed) Result {
	n := e.Nodes[a.Node]
	switch {
	case e.Format < 5:
		return refuse("an armed watchdog counts when every node runs a version of keepbeat that knows it")
	case !n.Valid || n.Boot != a.Boot:
		return refuse("the daemon of node %s that has armed its watchdog is not admitted any more", a.Node)
	case a.Timeout < 0 || a.Within < a.Timeout:
		return refuse("a reset within %v by a watchdog of %v, which cannot be", a.Within, a.Timeout)
	}
	n.Watchdog, n.ResetWithin = a.Timeout, a.Within
	e.setNode(n)
	return Result{}
}

func (e *edit) longLease(l LongLease) Result {
	n := e.Nodes[l.Node]
	if !n.Valid || n.Incarnation != l.Incarnation {
		return refuse("node %s is not at incarnation %d any more", l.Node, l.Incarnation)
	}
	n.LongLease = l.Length
	e.setNode(n)
	if l.Length == 0 {
		e.note("", l.Node, "does not restart its daemon after all")
		return Result{}
	}
	e.note("", l.Node, fmt.Sprintf("restarts its daemon under a lease of %v", l.Length))
	return Result{}
}

func (e *edit) setSpec(s SetSpec) Result {
	if s.Base != e.SpecInfo.Version {
		return refuse("the specification is at version %d, this was made against version %d: look at the newer one and apply again", e.SpecInfo.Version, s.Base)
	}
	if s.Spec == nil {
		return refuse("empty specification")
	}
	if e.Format < 2 && (s.Spec.Fencing != nil || slices.ContainsFunc(s.Spec.Groups, func(g conf.Group) bool { return NeedsFencing(&g) })) {
		return refuse("fencing can be specified when every node has been admitted and runs a version of keepbeat that knows it")
	}
	if why := e.Clash(s.Spec); why != "" {
		return refuse("%s", why)
	}
	e.keep(s.Spec)
	old := e.Spec
	if old != nil {
		now, was := s.Spec.Settings.Profile.Lease, max(old.Settings.Profile.Lease, e.Longer.Lease)
		switch {
		case now >= was:
			e.Longer = Longer{}
		case now < old.Settings.Profile.Lease:
			e.Longer = Longer{was, e.Index}
		}
	}
	e.dropOrders(s.Spec)
	e.dropForeign(s.Spec)
	e.Spec, e.SpecFiles = s.Spec, s.Files
	e.SpecInfo = SpecInfo{Version: s.Base + 1, From: s.From, At: e.at}
	by := ""
	if s.By != "" {
		by = " by " + s.By
	}
	e.note("", s.From, fmt.Sprintf("specification version %d applied%s", e.SpecInfo.Version, by))
	for i := range s.Spec.Groups {
		c := &s.Spec.Groups[i]
		g, ok := e.Groups[c.Name]
		if !ok {
			e.setGroup(Group{Name: c.Name, Epoch: e.Retired[c.Name], Reason: "new group", Since: e.at})
			continue
		}
		if was := groupOf(old, c.Name); len(g.Failures) > 0 && !reflect.DeepEqual(was, c) {
			g.Failures = nil // the change may be the cure
			e.setGroup(g)
		}
	}
	for name, g := range e.Groups {
		if groupOf(s.Spec, name) == nil && g.Owner == "" {
			e.retire(g)
		}
	}
	return Result{Number: e.SpecInfo.Version}
}

// retire forgets a group that the specification no longer has, but not its
// epoch: a node never runs one again that it has reported stopped.
func (e *edit) retire(g Group) {
	e.gone(g.Name)
	e.ownGroups()
	delete(e.Groups, g.Name)
	if g.Epoch == 0 {
		return
	}
	retired := maps.Clone(e.Retired)
	if retired == nil {
		retired = map[string]uint64{}
	}
	retired[g.Name] = g.Epoch
	e.Retired = retired
}

func groupOf(s *conf.Spec, name string) *conf.Group {
	if s == nil {
		return nil
	}
	for i := range s.Groups {
		if s.Groups[i].Name == name {
			return &s.Groups[i]
		}
	}
	return nil
}
