package cluster

import (
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
)

const (
	// lateAgain is how long a node that devices have reset when it was back already,
	// twice in a row, is not fenced again; it doubles with each further time up to lateAgainMax.
	lateAgain    = 30 * time.Second
	lateAgainMax = 8 * time.Minute
	// lateForgotten is after what time without one it counts from the beginning.
	lateForgotten = 15 * time.Minute
)

// lateResets is what a leader remembers of nodes that a device reset although
// they had come back meanwhile: it was on its way already. Such a node is silent
// again by that, and would be fenced again. Where a machine starts faster than
// its lease ends and the device acts, that would never end.
type lateResets struct {
	seen  uint64 // index of the newest record that was looked at
	nodes map[string]lateReset
}

type lateReset struct {
	times int // in a row
	at    time.Time
	said  bool // that it is waited for
}

// learn looks at the records of fencing that are new. The first time it looks at none: what
// they were about is long over.
func (l *lateResets) learn(st *state.State, now time.Time) {
	first := l.nodes == nil
	if first {
		l.nodes = map[string]lateReset{}
	}
	for _, f := range st.Fences {
		if f.Index <= l.seen {
			continue
		}
		l.seen = f.Index
		n := st.Nodes[f.Node]
		switch {
		case first || f.Group != "" || !f.Done:
		case n.Incarnation > f.Incarnation:
			x := l.nodes[f.Node]
			if now.Sub(x.at) > lateForgotten {
				x.times = 0
			}
			l.nodes[f.Node] = lateReset{times: x.times + 1, at: now}
		default:
			delete(l.nodes, f.Node)
		}
	}
}

// wait is for how long a node that is silent is not fenced, since it is likely to be starting.
func (l *lateResets) wait(node string, now time.Time) time.Duration {
	if l.nodes[node].times < 2 {
		return 0
	}
	return max(0, l.until(node).Sub(now))
}

// until is when a wait ends.
func (l *lateResets) until(node string) time.Time {
	x, pause := l.nodes[node], lateAgainMax
	if more := max(0, x.times-2); more < 4 {
		pause = lateAgain << more
	}
	return x.at.Add(pause)
}

// say says whether it has not been said yet that this node is waited for.
func (l *lateResets) say(node string) bool {
	x := l.nodes[node]
	first := !x.said
	x.said = true
	l.nodes[node] = x
	return first
}
