package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
	"github.com/keepbeat/keepbeat/resources"
)

const (
	// accuseAfter is how long a foreign router has to dispute a group before it is
	// fenced, and is heard: what a switch still delivers after a change is over by then,
	// and so is what waited in a socket while this process stood still.
	accuseAfter = 3 * time.Second
	// After a fencing the router gets time to come back as a backup; it is not
	// switched off again and again, whatever it does then. A device that failed is tried again sooner.
	foreignAgain  = 10 * time.Minute
	foreignFailed = time.Minute
	// stillTimeout bounds the question whether the owner still hears it. The answer
	// is as old as that when a device is asked, at most.
	stillTimeout = 2 * time.Second
)

// accuser is what this node remembers of foreign routers, by its own clock. The
// actor's own.
type accuser struct {
	since  map[string]time.Time // when it was first heard, of those that are heard now
	fenced map[string]fencedAt  // the newest that the log has of each
}

type fencedAt struct {
	index  uint64
	done   bool
	seen   time.Time // when this node learned of it
	failed int       // how many have failed, the newest of them last
	inVain bool      // it was said that the router is heard all the same
}

// learn notes what the log says of foreign routers. It is kept by every node all the
// time: a new owner need not begin anew, and one that has just started waits.
func (a *accuser) learn(st *state.State, now time.Time) {
	if a.fenced == nil {
		a.fenced = map[string]fencedAt{}
	}
	for _, f := range st.Fences {
		was := a.fenced[f.Node]
		if f.Group == "" || f.Index <= was.index {
			continue
		}
		is := fencedAt{index: f.Index, done: f.Done, seen: now}
		if !f.Done {
			is.failed = was.failed + 1
		}
		a.fenced[f.Node] = is
	}
}

// due returns which of the accused are to be fenced now, and which were in vain:
// what is heard has gone on through that, so it is another machine, or a forgery,
// which the VRRP of the wire cannot tell apart, and fencing does not end it.
func (a *accuser) due(all []resources.Accusation, now time.Time) (due, inVain []resources.Accusation) {
	since := map[string]time.Time{}
	for _, x := range all {
		first, known := a.since[x.Target]
		if !known {
			first = now
		}
		since[x.Target] = first
		f := a.fenced[x.Target]
		pause := foreignFailed
		switch {
		case x.Heard.Sub(first) < accuseAfter:
			continue
		case f.done && first.Before(f.seen):
			if !f.inVain && now.Sub(f.seen) >= accuseAfter {
				f.inVain = true
				a.fenced[x.Target] = f
				inVain = append(inVain, x)
			}
			continue
		case f.done:
			pause = foreignAgain
		}
		if f.index > 0 && now.Sub(f.seen) < pause {
			continue
		}
		due = append(due, x)
	}
	a.since = since
	return due, inVain
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
	due, inVain := n.accused.due(n.manager.Accusations(), now)
	for _, x := range inVain {
		n.logger.Error("ALARM: a foreign router was fenced, and what was heard of it goes on: it comes from another machine, and is fenced no more", "router", x.Target, "group", x.Group, "heard", x.Why)
	}
	for _, x := range due {
		if r, pending := st.Fencing[x.Target]; n.named(st, x.Target) || pending && st.Nodes[r.Operator].Acts() {
			continue
		}
		op := n.operatorFor(st, x.Target, n.accused.fenced[x.Target].failed)
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

// named says whether a name is that of a node by all that is known here: the log
// does not know one of ha.yaml that has not come yet.
func (n *Node) named(st *state.State, name string) bool {
	nodes, _ := n.nodesOf(st)
	return st.IsNode(name) || slices.ContainsFunc(nodes, func(c conf.Node) bool { return c.Name == name })
}

// stale says why a request for a foreign router does not count any more; empty: it
// does. The accusation is as old as the request, so it must not outlive what it was about.
func stale(st *state.State, r state.FenceRequest) string {
	switch g := st.Groups[r.Group]; {
	case st.IsNode(r.Node):
		return fmt.Sprintf("%s is a node now", r.Node)
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
		cmd := state.Command{Fenced: &state.Fenced{Node: router, Action: r.Action, Operator: r.Operator, Group: r.Group, Epoch: r.Epoch, Why: stale(st, r)}}
		n.jobs.start("drop fence "+router, n.wake, func(ctx context.Context) error {
			_, err := n.cons.Propose(ctx, cmd)
			return err
		})
	}
}

// stillAccused is the owner's answer to an operator: an error says why the
// router is not to be fenced. A request may be old by then: it was written when the
// router was heard, and its operator was away, or behind in the log.
func (n *Node) stillAccused(f state.Fence) error {
	st := n.State()
	switch {
	case n.manager == nil || !n.admitted(st) || !n.keeper.Live():
		return errors.New("it has no lease")
	case n.named(st, f.Node):
		return fmt.Errorf("%s is a node", f.Node)
	}
	if !slices.ContainsFunc(n.manager.Accusations(), func(a resources.Accusation) bool {
		return a.Group == f.Group && a.Epoch == f.Epoch && a.Target == f.Node
	}) {
		return fmt.Errorf("under epoch %d it hears no foreign master of group %s", f.Epoch, f.Group)
	}
	return nil
}

// askOwner asks the owner of the group whether it still hears the router.
func (n *Node) askOwner(ctx context.Context, f state.Fence) error {
	st := n.State()
	owner := st.Groups[f.Group].Owner
	switch {
	case n.named(st, f.Node):
		return fmt.Errorf("%s is a node", f.Node)
	case owner == n.self:
		return n.stillAccused(f)
	}
	ctx, cancel := context.WithTimeout(ctx, stillTimeout)
	defer cancel()
	_, err := n.calls.ask(ctx, owner, request{Op: "accused", Accused: &f})
	return err
}

// stillWanted says, with what this node knows, whether it may go on with a request.
func (n *Node) stillWanted(r state.FenceRequest) error {
	st := n.State()
	now, pending := st.Fencing[r.Node]
	switch {
	case !pending || now.Fence != r.Fence:
		return errors.New("the request has ended")
	case stale(st, now) != "":
		return errors.New(stale(st, now))
	case !n.admitted(st) || !n.keeper.Live():
		return fmt.Errorf("%s, which was to do it, has no lease", n.self)
	}
	return nil
}

// mayFence is asked before each attempt at a device: the one before, or its turn,
// may have taken minutes.
func (n *Node) mayFence(ctx context.Context, r state.FenceRequest) error {
	if err := n.askOwner(ctx, r.Fence); err != nil {
		return err
	}
	return n.stillWanted(r) // last, since the question has taken its time
}

// operateForeign is the operator's part: a device is asked only when the owner,
// too, would have it so at this moment.
func (n *Node) operateForeign(ctx context.Context, r state.FenceRequest) {
	o, err := n.fence(ctx, fencing.Target{
		Node: r.Node,
		// It is heard: nothing of ours resets it by itself. One that is cut off is as good as one that has ended.
		Silence: func() time.Duration { return 0 },
		May:     func(ctx context.Context) error { return n.mayFence(ctx, r) },
	}, r.Action)
	if len(o.Attempts) == 0 && n.stillWanted(r) != nil {
		return // nothing was done; the leader ends the request, or it is looked at anew
	}
	f := outcomeOf(o, err)
	f.Node, f.Operator, f.Action, f.Incarnation, f.Group, f.Epoch = r.Node, n.self, r.Action, r.Incarnation, r.Group, r.Epoch
	if !f.Done {
		n.logger.Error("the foreign router is not fenced", "router", r.Node, "err", err)
	}
	// What was done must not be done again because nobody knows of it.
	for {
		rctx, cancel := context.WithTimeout(ctx, jobTimeout)
		rerr := n.recordFenced(rctx, f)
		cancel()
		var refused *state.RefusedError
		if rerr == nil || errors.As(rerr, &refused) || ctx.Err() != nil {
			return
		}
		n.logger.Error("fencing: the outcome could not be recorded", "router", r.Node, "done", f.Done, "err", rerr, "again_in", fenceAgain)
		select {
		case <-ctx.Done():
		case <-time.After(fenceAgain):
		}
	}
}
