package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster/placement"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/fencing"
)

// FenceOrdered is what `keepbeat fence NODE` came to.
type FenceOrdered struct {
	Node     string   `json:"node"`
	Operator string   `json:"operator"`       // that works the devices
	Plan     []string `json:"plan,omitempty"` // with Order.Dry: what would be done, and what it would cost
	Since    uint64   `json:"since"`          // index of the newest record of fencing before this order
}

// Fence has a node fenced, as an operator's order. It returns when the order
// is given; FenceWait waits for its end.
func (n *Node) Fence(ctx context.Context, node string) (FenceOrdered, error) {
	o := OrderOf(ctx)
	st := n.pair.view()
	r := FenceOrdered{Node: node, Operator: n.self}
	if f := st.Fences; len(f) > 0 {
		r.Since = f[len(f)-1].Index
	}
	nodes, _ := n.nodesOf(st)
	var names []string
	for _, c := range nodes {
		names = append(names, c.Name)
	}
	switch {
	case !slices.Contains(names, node):
		return r, fmt.Errorf("no node is called %q; there are %s", node, strings.Join(names, ", "))
	case node == n.self:
		return r, errors.New("a node does not fence itself; run this on another one")
	}
	if err := n.noDevices(st); err != nil {
		return r, err
	}
	_, peer, ofPair := n.pairRule(st)
	if !ofPair {
		if r.Operator = n.operatorFor(st, node, 0); r.Operator == "" {
			return r, fmt.Errorf("no director that is up may operate a device for %s; `keepbeat status` shows the devices", node)
		}
	} else if err := n.cfg.Fencing.Can(peer); err != nil {
		return r, err
	}
	cost, refused := n.fenceCost(ctx, st, node, ofPair)
	if o.Dry {
		r.Plan = n.planFence(ctx, st, r)
		switch {
		case refused != nil:
			r.Plan = append(r.Plan, "refused: "+refused.Error())
		case cost != "":
			r.Plan = append(r.Plan, "refused without --force: "+cost)
		}
		return r, nil
	}
	if refused != nil {
		return r, refused
	}
	if cost != "" && !o.Force {
		return r, &ForceError{cost, "keepbeat fence --force " + node}
	}
	if ofPair {
		n.logger.Warn("fencing was ordered", "node", node, "by", o.By)
		return r, n.pair.orderFence("fenced as ordered" + o.by())
	}
	_, err := n.propose(ctx, state.Command{Fence: &state.Fence{
		Node: node, Incarnation: st.Nodes[node].Incarnation, Action: fenceAction(st), Operator: r.Operator, Ordered: true,
		Why: "ordered" + o.by(),
	}})
	return r, err
}

// noDevices says that there are none, or that this node does not know yet.
func (n *Node) noDevices(st *state.State) error {
	if fencingOf(st) != nil && n.cfg.Fencing != nil {
		return nil
	}
	if st.Spec == nil {
		if r := cmp.Or(n.cons.Waiting(), n.reading(st, n.cons.Leader() != "")); r != "" {
			return errors.New(r)
		}
	}
	return errors.New("the cluster has no fencing devices: write them under `fencing:` in haresources.yaml and run `keepbeat apply`")
}

// fenceCost says why a node cannot be fenced now, and what the cluster would lose by it.
func (n *Node) fenceCost(ctx context.Context, st *state.State, node string, ofPair bool) (cost string, refused error) {
	var costs []string
	if ofPair {
		refused = n.pair.mayOrder()
	} else {
		if n.acts(ctx, node, st.Nodes[node].Incarnation) {
			if err := n.cfg.Fencing.Ends(ctx, node); err != nil {
				refused = fmt.Errorf("%s has its lease from a majority, and %w: stop keepbeat there first (`systemctl stop keepbeat`, which hands over what it has), or give it a device that ends it", node, err)
			}
		}
		if c := n.silencing(node); c != "" {
			costs = append(costs, c)
		}
	}
	if st.Nodes[node].Acts() {
		if lone := n.loneOn(st, node, fencedAway, All); len(lone) > 0 {
			costs = append(costs, loneText(lone))
		}
	}
	return strings.Join(costs, "\n"), refused
}

// fencedAway is why a node that is about to be fenced cannot have a group.
const fencedAway = "it is to be fenced"

// planFence tells what the devices would do, as whoever works them knows it, and what becomes of the groups.
func (n *Node) planFence(ctx context.Context, st *state.State, r FenceOrdered) []string {
	var plan []string
	if r.Operator == n.self {
		plan = n.planHere(r.Node)
	} else if a, err := n.calls.ask(ctx, r.Operator, request{Op: "plan", Node: r.Node}); err != nil {
		plan = []string{fmt.Sprintf("what %s would do is not known: %v", r.Operator, err)}
	} else {
		plan = a.Plan
	}
	for _, g := range st.OwnedBy(r.Node) {
		_, c := st.Group(g)
		if c == nil {
			continue
		}
		if w := placement.Place(st, c, placement.Exclude{r.Node: fencedAway}); w.Node != "" {
			plan = append(plan, fmt.Sprintf("group %s would then start on %s", g, w.Node))
		} else {
			plan = append(plan, fmt.Sprintf("group %s would then run nowhere: %s", g, w.Reason))
		}
	}
	return plan
}

// planHere is what this node would do with the devices that it may operate.
func (n *Node) planHere(node string) []string {
	if n.cfg.Fencing == nil {
		return []string{"nothing: " + fencing.ErrNoDevice.Error()}
	}
	return n.cfg.Fencing.Plan(node, fenceAction(n.pair.view()))
}

// FenceWait waits for the end of an order. The error says why the node is not fenced.
func (n *Node) FenceWait(ctx context.Context, r FenceOrdered) (state.FenceRecord, error) {
	var last state.FenceRecord
	found := func(st *state.State) bool {
		for _, f := range st.Fences {
			if f.Node == r.Node && f.Index > r.Since {
				last = f
				return true
			}
		}
		return false
	}
	if err := n.cons.Wait(ctx, found); err != nil {
		return last, fmt.Errorf("%s: not fenced yet; it goes on: `keepbeat status`", r.Node)
	}
	if !last.Done {
		return last, fmt.Errorf("%s: not fenced: %s", r.Node, last.Why)
	}
	return last, nil
}

// FenceConfirm tells the manual device that waits for a node, on whichever node it
// is operated, that a person has seen to it that the node is off.
func (n *Node) FenceConfirm(ctx context.Context, node string) error {
	by := OrderOf(ctx).by()
	if err := n.notOff(node); err != nil {
		return err
	}
	err := n.confirmHere(node, by)
	if err == nil {
		return nil
	}
	for name := range n.heard() {
		if name == node {
			continue
		}
		if _, rerr := n.calls.ask(ctx, name, request{Op: "confirm", Node: node, By: by}); rerr == nil {
			return nil
		}
	}
	return err
}

// notOff says why a node cannot be off; nil: it may be.
func (n *Node) notOff(node string) error {
	if node == n.self {
		return fmt.Errorf("this is %s, and it is not off: its groups would start elsewhere beside it; say so on the other node when this machine has been switched off", node)
	}
	if _, heard := n.heard()[node]; heard {
		return fmt.Errorf("%s is not off: %s hears it; switch it off first, and say so some seconds later", node, n.self)
	}
	return nil
}

func (n *Node) confirmHere(node, by string) error {
	if n.cfg.Fencing == nil {
		return fencing.ErrNoDevice
	}
	if err := n.notOff(node); err != nil {
		return err
	}
	if err := n.cfg.Fencing.Confirm(node); err != nil {
		return err
	}
	n.logger.Warn("a person says that a node is off", "node", node, "said", strings.TrimSpace(by))
	if n.pair.saidOff(node, by) {
		return nil // the log has it with the generation that follows; until then it takes nothing
	}
	n.jobs.start("confirmed "+node, n.wake, func(ctx context.Context) error {
		_, err := n.cons.Propose(ctx, state.Command{Note: &state.Note{Node: node, Text: node + " was confirmed to be off" + by}})
		return err
	})
	return nil
}

// FenceTest looks whether the devices that this node may operate answer.
func (n *Node) FenceTest(ctx context.Context, device string) ([]fencing.DeviceStatus, error) {
	if err := n.noDevices(n.pair.view()); err != nil {
		return nil, err
	}
	return n.cfg.Fencing.Test(ctx, device)
}

// FenceHistory returns what was fenced, oldest first; a node's only when one is
// named. It is History's view.
func (n *Node) FenceHistory(node string) []state.FenceRecord {
	var some []state.FenceRecord
	for _, f := range n.pair.view().Fences {
		if node == "" || f.Node == node {
			some = append(some, f)
		}
	}
	return some
}

// unfenceLimit bounds one attempt to undo a fencing at the start.
const unfenceLimit = 2 * time.Minute

// unfence takes back, before anything is started here, what fencing may have taken from
// this node: a switch port, a reservation. Once after a start, and again when it was
// cut off and lived on: it has been admitted since, so nothing of what it had runs here.
func (n *Node) unfence(ctx context.Context) error {
	if n.cfg.Fencing == nil || fencingOf(n.State()) == nil {
		return nil
	}
	select { // of several groups that start at once
	case n.unfencing <- struct{}{}:
		defer func() { <-n.unfencing }()
	case <-ctx.Done():
		return fmt.Errorf("it waits for this node to be unfenced: %w", context.Cause(ctx))
	}
	var last uint64
	for _, f := range n.State().Fences {
		if f.Node == n.self && f.Done {
			last = f.Index
		}
	}
	if n.unfenced && last <= n.unfencedAt {
		return nil
	}
	uctx, cancel := context.WithTimeout(ctx, unfenceLimit)
	defer cancel()
	if err := n.cfg.Fencing.Unfence(uctx, n.self); err != nil {
		return fmt.Errorf("this node is still fenced: %w", err)
	}
	n.unfenced, n.unfencedAt = true, last
	return nil
}
