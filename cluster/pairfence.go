package cluster

import (
	"context"
	"fmt"
	"time"

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
		p.stuck[name] = g.Epoch
		p.mu.Unlock()
		if !tried && p.orderFence() == nil {
			p.n.logger.Warn("pair: the peer cannot stop a group and is fenced", "node", peer, "group", name, "why", g.Blocked)
		}
	}
}

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
	forced := p.forced
	p.mu.Unlock()
	c := fencingOf(st)
	action := conf.FenceReboot
	if c != nil && c.Action != 0 {
		action = c.Action
	}
	if forced {
		// The peer is the only voter by all that it knows: started again without hearing
		// this node, it would act. So it stays off until a person starts it.
		action = conf.FenceOff
	}
	p.n.logger.Warn("pair: fencing the peer", "node", peer, "action", action)
	p.n.jobs.run(func() {
		o, err := p.n.fence(ctx, fencing.Target{Node: peer, Silent: silent, Silence: p.n.silenceOf(peer), Ends: true}, action)
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
		p.ordered = p.ordered && done // what failed is not tried again for a peer that is heard
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

// orderFence is an operator's `keepbeat fence` in a pair.
func (p *pairing) orderFence() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.rule != conf.QuorumFencing:
		return fmt.Errorf("the rule of this pair is %v: nobody is fenced", p.rule)
	case p.record.Intent != nil:
		return fmt.Errorf("%s is being fenced already", p.peer)
	}
	p.ordered = true
	p.wake()
	return nil
}
