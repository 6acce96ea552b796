package vrrp

import "time"

// SyncGroup is virtual routers that are master together, or none of them, as
// keepalived has it. A router that is in no group is one by itself.
type SyncGroup struct {
	Members  []*Machine
	standing []Standing // per member
}

// NewSyncGroup returns the group of some machines; those whose state is
// Initialize start when it is known how all members stand.
func NewSyncGroup(members ...*Machine) *SyncGroup {
	g := &SyncGroup{Members: members, standing: make([]Standing, len(members))}
	for i := range g.standing {
		g.standing[i].Waits = true
	}
	return g
}

// Follow is called with what an event of member i has led to. It has the other
// members follow, and calls do for what each has to do then.
func (g *SyncGroup) Follow(i int, a Actions, now time.Time, do func(member int, a Actions)) {
	switch {
	case a&Ask != 0:
		for _, m := range g.Members {
			if !m.Ready() {
				return
			}
		}
		g.each(-1, func(m *Machine) Actions { return m.Promote(now) }, do)
	case a&(BecomeBackup|BecomeInitialize|Follow) != 0:
		g.each(i, func(m *Machine) Actions { return m.Demote(now) }, do)
	case a&AnnounceLower != 0:
		// keepalived: whoever stood against one member has stood in the way of all.
		g.each(i, func(m *Machine) Actions {
			if m.state != Master {
				return 0
			}
			return AnnounceLower
		}, do)
	}
}

func (g *SyncGroup) each(but int, event func(*Machine) Actions, do func(int, Actions)) {
	for i, m := range g.Members {
		if i == but {
			continue
		}
		if a := event(m); a != 0 {
			do(i, a)
		}
	}
}

// Stand says how member i stands. While one lacks something, all of them are in
// state FAULT; while the first result of something is waited for, nothing
// starts; when there is no such reason any more, all start.
func (g *SyncGroup) Stand(i int, s Standing, now time.Time, do func(member int, a Actions)) {
	g.standing[i] = s
	if a := g.Members[i].SetPriority(s.Priority, now); a != 0 {
		do(i, a)
	}
	if g.Lacks() != "" {
		g.each(-1, func(m *Machine) Actions { return m.Fault(now) }, do)
		return
	}
	if g.Waits() {
		return
	}
	// All are started before they are asked: none could be master before.
	g.each(-1, func(m *Machine) Actions { return m.Startup(now) &^ Ask }, do)
	g.Follow(i, Ask, now, do)
}

// Lacks is why the group is in state FAULT, or "".
func (g *SyncGroup) Lacks() string {
	for _, s := range g.standing {
		if s.Lacks != "" {
			return s.Lacks
		}
	}
	return ""
}

// Waits tells whether the first result of something is missing.
func (g *SyncGroup) Waits() bool {
	for _, s := range g.standing {
		if s.Waits {
			return true
		}
	}
	return false
}
