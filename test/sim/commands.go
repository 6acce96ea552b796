package sim

import (
	"context"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
)

// onNode is what an operator does on one node.
func (r *run) onNode(e event, m *machine) func() {
	n, starts := m.node, m.starts
	if n == nil || m.paused {
		return nil
	}
	same := func() bool { return m.node == n && m.starts == starts }
	switch e.Do {
	case standby, takeover:
		r.async(func() func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			var err error
			which := []cluster.Which{cluster.All, cluster.Local, cluster.Foreign}[e.Count-1]
			if e.Do == standby {
				_, err = n.Standby(ctx, which, "")
			} else {
				_, err = n.Takeover(ctx, which)
			}
			return func() { r.w.note("    %v %v on %s: %v", e.Do, which, m.name, err) }
		})
	case apply:
		r.w.change(e.Count)
		r.async(func() func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err := n.Apply(cluster.WithOrder(ctx, cluster.Order{Force: true}), 0, false)
			return func() { r.w.note("    apply on %s: %v", m.name, err) }
		})
	case restart:
		r.async(func() func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			err := n.PrepareRestart(ctx)
			return func() { r.restarted(e, m, err, same) }
		})
	case cleanStop:
		r.async(func() func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			err := n.Stop(ctx)
			return func() {
				r.w.note("    stop of %s: %v", m.name, err)
				if !same() {
					return
				}
				if m.paused {
					m.cont()
				}
				m.end()
				m.w.net.apply()
				if err == nil {
					m.clearGuard()
				}
				r.again(e, m)
			}
		})
	}
	return nil
}

// restarted is the re-exec after PrepareRestart.
func (r *run) restarted(e event, m *machine, err error, same func() bool) {
	r.w.note("    %s is ready to restart: %v", m.name, err)
	if err != nil || !same() || m.paused {
		if err == nil && same() {
			m.node.CancelRestart()
		}
		if r.s.Peaceful {
			r.w.violate("a planned restart was refused: %v", err)
		}
		return
	}
	carry := m.node.Carry()
	m.kill()
	m.carry = carry
	r.again(e, m)
}

// again starts a daemon after the event's time.
func (r *run) again(e event, m *machine) {
	starts := m.starts
	r.async(func() func() {
		time.Sleep(e.For)
		return func() {
			if m.starts == starts {
				r.ok(m.start())
			}
		}
	})
}
