package resources

import (
	"cmp"
	"maps"
	"slices"
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

// Accusation is what a group that is active here says of a machine outside of the cluster.
type Accusation struct {
	Group  string
	Epoch  uint64
	Target string // of fencing devices
	Why    string
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
	g.mu.Lock()
	members, epoch := slices.Clone(g.members), g.shown
	if g.phase != "active" {
		members = nil
	}
	g.mu.Unlock()
	for _, mb := range members {
		if a, ok := mb.res.(Accuser); ok {
			if target, why := a.Accused(); target != "" {
				all = append(all, Accusation{g.name, epoch, target, why})
			}
		}
	}
	return all
}
