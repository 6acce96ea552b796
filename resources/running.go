package resources

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Running returns the groups that run here or are on their way up. One that could
// not go on, say because its interface has no carrier, is not among them, though
// the log may still name this node as its owner.
func (m *Manager) Running() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	running := map[string]bool{}
	for name, g := range m.groups {
		g.mu.Lock()
		running[name] = g.phase != "idle" && g.phase != "stopping"
		g.mu.Unlock()
	}
	return running
}

// Replacing has what is active here tell the network that the next daemon is about to take over.
func (m *Manager) Replacing(absence time.Duration) {
	m.mu.Lock()
	groups := slices.Collect(maps.Values(m.groups))
	m.mu.Unlock()
	for _, g := range groups {
		for _, mb := range g.active() {
			if r, ok := mb.res.(Replacer); ok {
				r.Replacing(absence)
			}
		}
	}
}

// active are the members of an active group.
func (g *group) active() []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != "active" {
		return nil
	}
	return slices.Clone(g.members)
}

// Accusation is what a group that is active here says of a machine outside of the cluster.
type Accusation struct {
	Group  string
	Epoch  uint64
	Target string // of fencing devices
	Why    string
	Heard  time.Time // when it claimed that last
}

// Accusations returns who is to be fenced because it claims what groups here have.
func (m *Manager) Accusations() []Accusation {
	m.mu.Lock()
	groups := slices.Collect(maps.Values(m.groups))
	m.mu.Unlock()
	var all []Accusation
	for _, g := range groups {
		all = append(all, g.accusations()...)
	}
	slices.SortFunc(all, func(a, b Accusation) int { return cmp.Compare(a.Group+"\x00"+a.Target, b.Group+"\x00"+b.Target) })
	return all
}

func (g *group) accusations() (all []Accusation) {
	members, epoch := g.active(), g.env().Epoch()
	for _, mb := range members {
		if a, ok := mb.res.(Accuser); ok {
			if target, why, heard := a.Accused(); target != "" {
				all = append(all, Accusation{g.name, epoch, target, why, heard})
			}
		}
	}
	return all
}
