package resources

import (
	"fmt"
	"time"
)

// doing is an operation on a resource that has begun and not ended.
type doing struct {
	what  string // "start of vip 10.0.0.1"; empty: none
	since time.Time
	limit time.Duration // its time-out, which the resource has to keep by itself
}

// overdueGrace is how long after its time-out an operation may still be ending.
const overdueGrace = 10 * time.Second

// begin notes that an operation begins; the function that it returns, that it has ended.
func (g *group) begin(what string, limit time.Duration) (end func()) {
	set := func(d doing) {
		g.mu.Lock()
		g.doing = d
		g.mu.Unlock()
	}
	set(doing{what, time.Now(), limit})
	return func() { set(doing{}) }
}

func (g *group) overdue() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := g.doing; d.what != "" && time.Since(d.since) > d.limit+overdueGrace {
		return fmt.Sprintf("%s hangs: it has gone on for %v, its time-out is %v", d.what, time.Since(d.since).Round(time.Second), d.limit)
	}
	return ""
}

// Overdue returns, by group, the operations that have not ended although their
// time-outs are over: their resources neither do what they are told nor give up.
func (m *Manager) Overdue() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var late map[string]string
	for name, g := range m.groups {
		if why := g.overdue(); why != "" {
			if late == nil {
				late = map[string]string{}
			}
			late[name] = why
		}
	}
	return late
}
