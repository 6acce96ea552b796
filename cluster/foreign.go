package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/fencing"
	"github.com/keepbeat/keepbeat/resources"
)

const (
	// accuseAfter is how long a foreign router has to dispute a group before it is
	// fenced: what a switch still delivers after a change is over by then.
	accuseAfter = 3 * time.Second
	// After a fencing the router gets time to come back as a backup; it is not
	// switched off again and again, whatever it does then. A device that failed is tried again sooner.
	foreignAgain  = 10 * time.Minute
	foreignFailed = time.Minute
)

// accuser is what this node remembers of foreign routers, by its own clock. The
// actor's own.
type accuser struct {
	since  map[string]time.Time // when it was first heard, of those that are heard now
	fenced map[string]fencedAt  // the newest that the log has of each
}

type fencedAt struct {
	index uint64
	done  bool
	seen  time.Time // when this node learned of it
}

// learn notes what the log says of foreign routers. It is kept by every node all the
// time: a new owner need not begin anew, and one that has just started waits.
func (a *accuser) learn(st *state.State, now time.Time) {
	if a.fenced == nil {
		a.fenced = map[string]fencedAt{}
	}
	for _, f := range st.Fences {
		if _, node := st.Nodes[f.Node]; !node && f.Index > a.fenced[f.Node].index {
			a.fenced[f.Node] = fencedAt{f.Index, f.Done, now}
		}
	}
}

// due returns which of the accused are to be fenced now.
func (a *accuser) due(all []resources.Accusation, now time.Time) (due []resources.Accusation) {
	since := map[string]time.Time{}
	for _, x := range all {
		first, known := a.since[x.Target]
		if !known {
			first = now
		}
		since[x.Target] = first
		if now.Sub(first) < accuseAfter {
			continue
		}
		if f := a.fenced[x.Target]; f.index > 0 {
			pause := foreignFailed
			if f.done {
				pause = foreignAgain
			}
			if now.Sub(f.seen) < pause {
				continue
			}
		}
		due = append(due, x)
	}
	a.since = since
	return due
}

// accuse asks for the fencing of foreign routers that dispute what this node owns.
// The log decides, so nobody is fenced without a quorum; that this node has a
// live lease says that it is not the one who is cut off.
func (n *Node) accuse(st *state.State) {
	now := time.Now()
	n.accused.learn(st, now)
	if st.Format < 4 || fencingOf(st) == nil || !n.admitted(st) || !n.keeper.Live() {
		n.accused.since = nil
		return
	}
	for _, x := range n.accused.due(n.manager.Accusations(), now) {
		r, pending := st.Fencing[x.Target]
		if pending && st.Nodes[r.Operator].Acts() {
			continue
		}
		op := n.operatorFor(st, x.Target, 0)
		if op == "" {
			continue // nobody that is up may operate a device; the conflict itself stands in status
		}
		cmd := state.Command{Fence: &state.Fence{
			Node: x.Target, Group: x.Group, Epoch: x.Epoch, Incarnation: st.Nodes[n.self].Incarnation,
			Action: fenceAction(st), Operator: op, Why: fmt.Sprintf("group %s: %s", x.Group, x.Why),
		}}
		n.jobs.start("accuse "+x.Target, n.wake, func(ctx context.Context) error {
			_, err := n.cons.Propose(ctx, cmd)
			return err
		})
	}
}

// stale says why a request for a foreign router does not count any more; empty: it
// does. The accusation is as old as the request, so it must not outlive what it was about.
func stale(st *state.State, r state.FenceRequest) string {
	switch g := st.Groups[r.Group]; {
	case g.Epoch != r.Epoch || !st.Nodes[g.Owner].Acts():
		return fmt.Sprintf("group %s has moved since", r.Group)
	case !st.Nodes[r.Operator].Acts():
		return fmt.Sprintf("%s, which was to do it, is gone", r.Operator)
	}
	return ""
}

// dropStale is the leader's part: it ends requests for foreign routers that do not count any more.
func (n *Node) dropStale(st *state.State) {
	for router, r := range st.Fencing {
		if r.Group == "" || stale(st, r) == "" {
			continue
		}
		cmd := state.Command{Fenced: &state.Fenced{Node: router, Action: r.Action, Operator: r.Operator, Why: stale(st, r)}}
		n.jobs.start("drop fence "+router, n.wake, func(ctx context.Context) error {
			_, err := n.cons.Propose(ctx, cmd)
			return err
		})
	}
}

// foreignTarget is what devices are told of a foreign router: one that cuts it off is as good as one that ends it.
func foreignTarget(router string) fencing.Target {
	// It is heard: nothing of ours resets it by itself.
	return fencing.Target{Node: router, Silence: func() time.Duration { return 0 }}
}
