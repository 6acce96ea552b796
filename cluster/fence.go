package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster/placement"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

// fence works the devices.
func (n *Node) fence(ctx context.Context, t fencing.Target, action conf.FenceAction) (fencing.Outcome, error) {
	if n.cfg.Fencing == nil {
		return fencing.Outcome{Node: t.Node, Action: action}, fencing.ErrNoDevice
	}
	return n.cfg.Fencing.Fence(ctx, t, action, func(a fencing.Attempt) {
		if a.Error != "" {
			n.logger.Error("fencing: a device failed", "node", a.Node, "device", a.Device, "level", a.Level, "took", a.Took, "err", a.Error)
			return
		}
		n.logger.Warn("fencing: a device has done it", "node", a.Node, "device", a.Device, "level", a.Level, "action", a.Action, "took", a.Took)
	})
}

// reportFenced puts the outcome into the log; a node that was fenced loses its groups with it.
func (n *Node) reportFenced(ctx context.Context, node string, incarnation uint64, o fencing.Outcome, failed error) error {
	f := outcomeOf(o, failed)
	f.Node, f.Incarnation, f.Operator = node, incarnation, n.self
	if f.Done {
		f.Moves = placement.RevokeMoves(n.State(), node, "fenced")
	}
	return n.recordFenced(ctx, f)
}

// outcomeOf puts into words for the log what devices came to.
func outcomeOf(o fencing.Outcome, failed error) *state.Fenced {
	f := &state.Fenced{Action: o.Action, Done: failed == nil && o.Done, Ended: o.Ended, Why: outcomeText(o, failed)}
	for _, a := range o.Attempts {
		f.Attempts = append(f.Attempts, state.FenceAttempt{Device: a.Device, Level: a.Level, Took: a.Took, Error: a.Error})
	}
	return f
}

func (n *Node) recordFenced(ctx context.Context, f *state.Fenced) error {
	r, err := n.cons.Propose(ctx, state.Command{Fenced: f})
	if err != nil {
		return err
	}
	// Until this node knows it too it would take the request for one that is still open.
	return n.cons.Wait(ctx, func(st *state.State) bool { return st.Index >= r.Index })
}

// forReport bounds the report of what devices came to. What was done must not be done
// again because nobody knows of it, so that is told for as long as it takes: as one
// proposal, which counts once however often it has to be made.
func (n *Node) forReport(ctx context.Context, node string, done bool) (context.Context, context.CancelFunc) {
	if !done {
		return context.WithTimeout(ctx, jobTimeout)
	}
	late := time.AfterFunc(jobTimeout, func() {
		n.logger.Error("fencing: a node is fenced, and the log does not take it: that is told again until it does", "node", node)
	})
	ctx, cancel := context.WithCancel(ctx)
	return ctx, func() { late.Stop(); cancel() }
}

func outcomeText(o fencing.Outcome, failed error) string {
	if failed != nil {
		return failed.Error()
	}
	var with []string
	for _, a := range o.Attempts {
		if a.Error == "" {
			with = append(with, a.Device)
		}
	}
	return "by " + strings.Join(with, ", ")
}

// silenceOf returns a function that tells for how long nothing at all has been heard of a node.
func (n *Node) silenceOf(node string) func() time.Duration {
	return func() time.Duration {
		silent := n.keeper.Silence(node)
		for _, p := range n.cfg.Datagrams.Peers() {
			if p.Node == node && !p.Heard.IsZero() {
				silent = min(silent, time.Since(p.Heard))
			}
		}
		return silent
	}
}

// acts says whether a majority lets a node act on under an incarnation. One that is
// silent here gets the time for its revocation, after which any device will do.
func (n *Node) acts(ctx context.Context, node string, incarnation uint64) bool {
	over := func(st *state.State) bool {
		x := st.Nodes[node]
		return x.Incarnation == incarnation && !x.Acts()
	}
	length := n.lease(n.State())
	if !over(n.State()) && n.keeper.Silence(node) < revokedAfter(length) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*length)
	defer cancel()
	return n.cons.Wait(ctx, over) != nil
}

// targetOf returns what devices are told of a node; acts as above. A watchdog counts
// from now at the earliest: until its lease had ended, the node had no reason to stop anything.
func (n *Node) targetOf(node string, acts bool) fencing.Target {
	decided, heard := time.Now(), n.silenceOf(node)
	silence := func() time.Duration { return min(time.Since(decided), heard()) }
	return fencing.Target{Node: node, Silence: silence, Ends: acts, Trusted: acts}
}

// needFencing returns what asks for fencing, by node: groups that a revoked
// node cannot be made to stop, and stops that failed.
func needFencing(st *state.State) map[string]string {
	why := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(st.Groups)) {
		g := st.Groups[name]
		o, known := st.Nodes[g.Owner]
		switch {
		case !known:
		case !o.Valid && !o.Left && state.NeedsFencing(st.Runs(name)):
			why[g.Owner] = fmt.Sprintf("group %s may still run there, and nothing but fencing can end that", name)
		case g.Blocked != "" && o.Valid:
			why[g.Owner] = fmt.Sprintf("group %s: %s", name, g.Blocked)
		}
	}
	return why
}

// orderFencing is the leader's part: it asks for what has to be fenced, and
// for another operator when the one that was asked is gone or has failed.
func (n *Node) orderFencing(st *state.State, late *lateResets) {
	c := fencingOf(st)
	n.dropStale(st)
	if _, _, ofPair := n.pairRule(st); c == nil || st.Format < 2 || ofPair {
		return // a pair has its own way: nothing could be recorded before the other is gone
	}
	now := time.Now()
	late.learn(st, now)
	held := map[string]time.Time{}
	for node, why := range needFencing(st) {
		if _, pending := st.Fencing[node]; pending {
			continue
		}
		if wait := late.wait(node, now); wait > 0 && !st.Nodes[node].Valid {
			if held[node] = late.until(node); late.say(node) {
				n.logger.Warn("fencing waits: the last times the devices reset this node when it was back already, so it is likely to be starting", "node", node, "wait", wait, "for", why)
			}
			continue
		}
		n.orderFence(st, node, why)
	}
	n.mu.Lock()
	n.fencingHeld = held
	n.mu.Unlock()
	for node, r := range st.Fencing {
		if r.Group != "" {
			continue // its owner asks again
		}
		if op := n.operatorFor(st, node, r.Tries); op != "" && op != r.Operator {
			n.orderFence(st, node, r.Why)
		}
	}
}

func (n *Node) orderFence(st *state.State, node, why string) {
	op := n.operatorFor(st, node, st.Fencing[node].Tries)
	if op == "" {
		return // status says that nobody can
	}
	cmd := state.Command{Fence: &state.Fence{
		Node: node, Incarnation: st.Nodes[node].Incarnation, Action: fenceAction(st), Why: why, Operator: op,
	}}
	n.jobs.start("order fence "+node, n.wake, func(ctx context.Context) error {
		_, err := n.cons.Propose(ctx, cmd)
		return err
	})
}

func fenceAction(st *state.State) conf.FenceAction {
	if c := fencingOf(st); c != nil && c.Action != 0 {
		return c.Action
	}
	return conf.FenceReboot
}

// operatorFor names the node that is to operate the devices for a target: one
// that is admitted and that some device lets; after each failure the next.
func (n *Node) operatorFor(st *state.State, target string, tries int) string {
	c := fencingOf(st)
	if c == nil {
		return ""
	}
	var able []string
	for _, name := range slices.Sorted(maps.Keys(st.Nodes)) {
		x := st.Nodes[name]
		if name == target || !x.Valid || !x.Director {
			continue
		}
		if slices.ContainsFunc(c.Devices, func(d conf.FenceDevice) bool { return operates(d, name, target) }) {
			able = append(able, name)
		}
	}
	if len(able) == 0 {
		return ""
	}
	return able[tries%len(able)]
}

func operates(d conf.FenceDevice, node, target string) bool {
	return slices.ContainsFunc(d.Targets, func(t conf.FenceTarget) bool { return t.Node == target }) &&
		(len(d.RunOn) == 0 || slices.Contains(d.RunOn, node))
}

// mayFenceNode is asked before each attempt at a device: the one before may have taken
// its time, and the node may have its groups again.
func (n *Node) mayFenceNode(r state.FenceRequest) error {
	if err := n.fenceIsOver(r); err != nil {
		return err
	}
	if !n.admitted(n.State()) || !n.keeper.Live() {
		return fmt.Errorf("%s has no lease any more", n.self)
	}
	return nil
}

// fenceIsOver says why a request is not this node's any more; nil: it is. A lease that is
// lost for a moment does not end it: a person who is asked then need not be asked anew.
func (n *Node) fenceIsOver(r state.FenceRequest) error {
	now, pending := n.State().Fencing[r.Node]
	switch {
	case !pending || now.Group != "" || now.Incarnation != r.Incarnation:
		return fmt.Errorf("%s came back meanwhile", r.Node)
	case now.Operator != n.self:
		return fmt.Errorf("%s is to do it now", now.Operator)
	}
	return nil
}

// operate is the operator's part: it fences what the log asks this node to,
// while it is in touch with a majority, and reports.
func (n *Node) operate(ctx context.Context, st *state.State) {
	for node, r := range st.Fencing {
		if r.Operator != n.self || !n.admitted(st) || !n.keeper.Live() {
			continue
		}
		n.jobs.begin("fence "+node, func() {
			if r.Group != "" {
				n.operateForeign(ctx, r)
				n.wake()
				return
			}
			target := n.targetOf(node, n.acts(ctx, node, r.Incarnation))
			if now, pending := n.State().Fencing[node]; !pending || now.Group != "" {
				return // it came back meanwhile
			}
			target.May = func(context.Context) error { return n.mayFenceNode(r) }
			target.Over = func() error { return n.fenceIsOver(r) }
			o, err := n.fence(ctx, target, r.Action)
			over := n.fenceIsOver(r)
			if over != nil && len(o.Attempts) == 0 {
				n.logger.Warn("fencing: nothing is done any more", "node", node, "why", over)
				n.wake()
				return // the log has not asked for what this came to
			}
			rctx, cancel := n.forReport(ctx, node, err == nil && o.Done)
			if rerr := n.reportFenced(rctx, node, r.Incarnation, o, err); rerr != nil {
				n.logger.Error("fencing: the outcome could not be recorded", "node", node, "done", o.Done, "err", rerr)
			}
			cancel()
			if (err != nil || !o.Done) && over == nil {
				n.logger.Error("fencing failed", "node", node, "err", err, "again_in", fenceAgain)
				select {
				case <-ctx.Done():
				case <-time.After(fenceAgain):
				}
			}
			n.wake()
		})
	}
}
