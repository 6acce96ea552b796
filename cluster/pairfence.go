package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

// fenceAgain is the pause between two attempts of a survivor to fence its peer: heartbeat's.
const fenceAgain = 5 * time.Second

// fenceTheStuck has the peer fenced when it cannot stop a group: once for each
// epoch, since a device that fails must not keep the pair from deciding anything else.
func (p *pairing) fenceTheStuck(st *state.State, rule conf.Quorum, peer string) {
	if rule != conf.QuorumFencing || fencingOf(st) == nil {
		return
	}
	for name, g := range st.Groups {
		if g.Owner != peer || g.Blocked == "" {
			continue
		}
		p.mu.Lock()
		tried := p.stuck[name] == g.Epoch
		p.mu.Unlock()
		if !tried && p.orderFence(fmt.Sprintf("fenced since it did not stop group %s", name)) == nil {
			p.mu.Lock()
			p.stuck[name] = g.Epoch
			p.mu.Unlock()
			p.n.logger.Warn("pair: the peer cannot stop a group and is fenced", "node", peer, "group", name, "why", g.Blocked)
		}
	}
}

var errUncertain = errors.New("no device is certain of it")

// askDevices fences the peer, in the background; a failure is tried again after a pause.
func (p *pairing) askDevices(ctx context.Context, st *state.State, peer string, silent time.Duration) {
	p.mu.Lock()
	if p.fence != pair.NotAsked || p.record.Intent == nil {
		p.mu.Unlock()
		return
	}
	p.fence = pair.Asked
	intent := p.record.Intent.Generation.ID
	// An answer counts for the intent that asked, and for no later one: the peer may
	// have started, rejoined and acted between the device's deed and its word.
	counts := func() bool { return p.record.Intent != nil && p.record.Intent.Generation.ID == intent }
	action := p.actionLocked(st)
	p.mu.Unlock()
	p.n.logger.Warn("pair: fencing the peer", "node", peer, "action", action)
	there := p.n.linked(peer) // it is to be fenced although hellos pass
	over := func() error {
		p.mu.Lock()
		asks := counts()
		p.mu.Unlock()
		switch {
		case !asks:
			return errors.New("this node does not have to go on alone any more")
		case !there && p.n.linked(peer):
			return fmt.Errorf("%s is heard again", peer)
		}
		return nil
	}
	p.n.jobs.run(func() {
		o, err := p.n.fence(ctx, fencing.Target{Node: peer, Silent: silent, Silence: p.n.silenceOf(peer), Ends: true, Over: over}, action)
		p.mu.Lock()
		if !counts() {
			p.mu.Unlock()
			p.n.logger.Warn("pair: a device has answered to an order that is over", "node", peer, "done", o.Done, "err", err)
			return
		}
		p.outcome = o
		p.fence = pair.Failed
		if err == nil && o.Done {
			p.fence = pair.Done
		}
		done := p.fence == pair.Done
		if !done && p.ordered != "" {
			// What failed is not tried again for a peer that is heard; whoever ordered it waits for the record.
			t := telling{generation: p.record.Current, peer: peer, incarnation: st.Nodes[peer].Incarnation, outcome: o, fenced: true, failed: cmp.Or(err, errUncertain), noted: true}
			p.ordered = ""
			p.n.jobs.run(func() { p.tell(t) })
		}
		p.mu.Unlock()
		p.wake()
		if done || ctx.Err() != nil {
			return
		}
		p.n.logger.Error("pair: the peer could not be fenced", "node", peer, "err", err, "again_in", fenceAgain)
		select {
		case <-ctx.Done():
		case <-time.After(fenceAgain):
		}
		p.mu.Lock()
		if p.fence == pair.Failed && counts() {
			p.fence = pair.NotAsked
		}
		p.mu.Unlock()
		p.wake()
	})
}

// actionLocked is what devices are to do with the peer. One that is the only voter by all that
// it knows would act if it were started again and did not hear this node: it stays off until a person starts it.
func (p *pairing) actionLocked(st *state.State) conf.FenceAction {
	if p.forced || p.record.Forced {
		return conf.FenceOff
	}
	return fenceAction(st)
}

// linked says whether hellos pass between this node and another one, both ways.
func (n *Node) linked(node string) bool {
	return slices.ContainsFunc(n.cfg.Datagrams.Peers(), func(p link.Peer) bool { return p.Node == node && p.State == link.Up })
}

// orderLife is how long an order may wait for its beginning: for a disk that is slow,
// or a step that is under way. Later it would hit a peer of which nobody thinks any more.
const orderLife = 30 * time.Second

// mayOrder says why the peer cannot be fenced now by anybody's order.
func (p *pairing) mayOrder() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mayOrderLocked()
}

func (p *pairing) mayOrderLocked() error {
	switch {
	case p.rule != conf.QuorumFencing:
		return fmt.Errorf("the rule of this pair is %v: nobody is fenced", p.rule)
	case p.record.Intent != nil:
		return fmt.Errorf("%s is being fenced already", p.peer)
	case p.said.Phase != pair.Sole && !p.said.Phase.MayFence():
		return fmt.Errorf("this node is %v, and fences nobody: %s", p.said.Phase, p.said.Why)
	case !p.mayGoOn:
		return fmt.Errorf("this node has not taken part since its start, and fences nobody; if %s is surely off: `keepbeat quorum confirm`", p.peer)
	}
	return nil
}

// orderFence has the peer fenced, why says on whose word.
func (p *pairing) orderFence(why string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.mayOrderLocked(); err != nil {
		return err
	}
	if p.said.Phase == pair.Sole {
		p.fenceOnce(p.peer, why)
		return nil
	}
	p.ordered, p.orderedAt = why, time.Now()
	p.wake()
	return nil
}

// fenceOnce has a peer fenced that this node, the only voter, has gone on without:
// it may hang in its start. p.mu is held. There is nobody to decide with, and nothing to try again for.
func (p *pairing) fenceOnce(peer, why string) {
	n, action := p.n, p.actionLocked(p.n.State())
	n.jobs.begin("fence "+peer, func() {
		ctx := n.jobs.ctx
		t := n.targetOf(peer, false)
		t.May = func(context.Context) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.said.Phase != pair.Sole || p.peer != peer {
				return fmt.Errorf("%s came back meanwhile", peer)
			}
			return nil
		}
		incarnation := n.State().Nodes[peer].Incarnation
		n.logger.Warn("pair: fencing the peer", "node", peer, "why", why)
		o, err := n.fence(ctx, t, action)
		if err != nil || !o.Done {
			n.logger.Error("pair: the peer could not be fenced", "node", peer, "err", err)
		}
		f := outcomeOf(o, err)
		f.Node, f.Incarnation, f.Operator, f.Why = peer, incarnation, n.self, f.Why+", "+why
		rctx, cancel := context.WithTimeout(ctx, jobTimeout)
		defer cancel()
		if rerr := n.recordFenced(rctx, f); rerr != nil {
			n.logger.Error("fencing: the outcome could not be recorded", "node", peer, "done", o.Done, "err", rerr)
		}
	})
}

// saidOff notes who has said that the peer is off, if this node is going on without it.
func (p *pairing) saidOff(node, by string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer != node || p.record.Intent == nil {
		return false
	}
	p.off = "said to be off" + by
	return true
}
