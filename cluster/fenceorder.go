package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	st := n.State()
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
	case fencingOf(st) == nil:
		return r, errors.New("the cluster has no fencing devices: write them under `fencing:` in haresources.yaml and run `keepbeat apply`")
	case node == n.self:
		return r, errors.New("a node does not fence itself; run this on another one")
	}
	rule, peer, ofPair := n.pairRule(st)
	if !ofPair {
		if r.Operator = n.operatorFor(st, node, 0); r.Operator == "" {
			return r, fmt.Errorf("no director that is up may operate a device for %s; `keepbeat status` shows the devices", node)
		}
	} else if err := n.cfg.Fencing.Can(peer); err != nil {
		return r, err
	}
	lives := error(nil)
	if inc := st.Nodes[node].Incarnation; !ofPair && n.acts(ctx, node, inc) {
		lives = n.cfg.Fencing.Ends(ctx, node)
	}
	cost := ""
	if !ofPair {
		cost = n.wouldLoseQuorum(node)
	}
	if o.Dry {
		r.Plan = n.cfg.Fencing.Plan(node, fenceAction(st))
		for _, g := range st.OwnedBy(node) {
			r.Plan = append(r.Plan, "group "+g+" would then start elsewhere")
		}
		switch {
		case lives != nil:
			r.Plan = append(r.Plan, "refused: "+lives.Error())
		case cost != "":
			r.Plan = append(r.Plan, "refused without --force: "+cost)
		}
		return r, nil
	}
	if lives != nil {
		return r, fmt.Errorf("%s has its lease from a majority, and %w: stop keepbeat there first (`systemctl stop keepbeat`, which hands over what it has), or give it a device that ends it", node, lives)
	}
	if cost != "" && !o.Force {
		return r, &ForceError{cost, "keepbeat fence --force " + node}
	}
	if ofPair {
		n.logger.Warn("fencing was ordered", "node", node, "rule", rule, "by", o.By)
		return r, n.pair.orderFence()
	}
	_, err := n.propose(ctx, state.Command{Fence: &state.Fence{
		Node: node, Incarnation: st.Nodes[node].Incarnation, Action: fenceAction(st), Operator: r.Operator, Ordered: true,
		Why: "ordered" + o.by(),
	}})
	return r, err
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

func (n *Node) confirmHere(node, by string) error {
	if n.cfg.Fencing == nil {
		return fencing.ErrNoDevice
	}
	if err := n.cfg.Fencing.Confirm(node); err != nil {
		return err
	}
	n.logger.Warn("a person says that a node is off", "node", node, "said", strings.TrimSpace(by))
	n.jobs.start("confirmed "+node, n.wake, func(ctx context.Context) error {
		_, err := n.cons.Propose(ctx, state.Command{Note: &state.Note{Node: node, Text: node + " was confirmed to be off" + by}})
		return err
	})
	return nil
}

// FenceTest looks whether the devices that this node may operate answer.
func (n *Node) FenceTest(ctx context.Context, device string) ([]fencing.DeviceStatus, error) {
	if fencingOf(n.State()) == nil || n.cfg.Fencing == nil {
		return nil, errors.New("the cluster has no fencing devices")
	}
	return n.cfg.Fencing.Test(ctx, device)
}

// FenceHistory returns what was fenced, oldest first; a node's only when one is named.
func (n *Node) FenceHistory(node string) []state.FenceRecord {
	var some []state.FenceRecord
	for _, f := range n.State().Fences {
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
