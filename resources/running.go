package resources

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
