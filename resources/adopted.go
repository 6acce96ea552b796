package resources

import (
	"context"
	"fmt"
	"slices"
	"time"
)

func (g *group) adoptedEpoch() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.adopted == nil {
		return 0
	}
	return g.adopted.Epoch
}

// leftover says whether something runs here that is neither owned under this epoch nor cut off.
func (g *group) leftover(owned uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shown != 0 && g.shown != owned && !g.cut
}

// dropAdopted stops what an earlier daemon left and this node does not own any more.
func (g *group) dropAdopted(ctx context.Context, e Entry) time.Duration {
	g.logger.Info("taking back what an earlier daemon started", "epoch", e.Epoch)
	if err := release(ctx, e, g.m.cfg.Registry, g.m.cfg.Node, g.logger); err != nil {
		if ctx.Err() != nil {
			return 0
		}
		g.logger.Error("what an earlier daemon started cannot be taken back; trying again", "err", err)
		cut := g.cutOff(e.Addresses, e.Routers)
		g.mu.Lock()
		first := g.phase != "stuck"
		g.phase, g.cut = "stuck", cut
		g.mu.Unlock()
		if first {
			g.m.cfg.Report(Report{Group: g.name, Epoch: e.Epoch, Outcome: Stuck, Resource: "what an earlier daemon started", Err: err})
		}
		return stuckPause
	}
	g.mu.Lock()
	stuck := g.phase == "stuck"
	if stuck {
		g.over = max(g.over, e.Epoch)
	}
	g.mu.Unlock()
	g.forgetAdopted(e)
	g.unhold(e.Addresses, e.Routers)
	if err := g.m.cfg.Journal.Remove(g.name); err != nil {
		g.logger.Error("journal", "err", err)
	}
	if stuck { // what was reported so, and may have blocked the group, is over
		g.m.cfg.Report(Report{Group: g.name, Epoch: e.Epoch, Outcome: Stopped})
	}
	return 0
}

func (g *group) forgetAdopted(e Entry) {
	g.mu.Lock()
	g.adopted, g.shown, g.phase, g.cut = nil, 0, "idle", false
	g.mu.Unlock()
}

// applied returns what an earlier daemon's records say of a member, the newest
// first: there are two when a crash has interrupted a change.
func (g *group) applied(mb *member) []Applied {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []Applied
	if g.adopted != nil {
		for _, a := range g.adopted.Resources {
			if a.Kind == mb.conf.Kind && a.Name == mb.conf.Name {
				all = append(all, a)
			}
		}
	}
	return all
}

// adoptInto hands an earlier daemon's records to a member that wants them, the
// newest last: that one it has to understand.
func (g *group) adoptInto(mb *member) (err error) {
	ad, wants := mb.res.(Adopter)
	if !wants {
		return nil
	}
	for _, a := range slices.Backward(g.applied(mb)) {
		if err != nil {
			g.logger.Warn("what an earlier daemon had before its last change is not taken over", "resource", mb.conf.Name, "err", err)
		}
		err = ad.Adopt(a.Record)
	}
	return err
}

// settleAdopted stops what an earlier daemon started under this epoch and the
// specification no longer has, and forgets the rest of its record.
func (g *group) settleAdopted(ctx context.Context) error {
	g.mu.Lock()
	adopted := g.adopted
	g.mu.Unlock()
	if adopted == nil {
		return nil
	}
	for _, a := range slices.Backward(adopted.Resources) {
		if slices.ContainsFunc(g.members, func(mb *member) bool { return mb.conf.Kind == a.Kind && mb.conf.Name == a.Name }) {
			continue
		}
		if err := stopApplied(ctx, g.m.cfg.Registry, g.env(), a); err != nil {
			return fmt.Errorf("%s: %w", a.Name, err)
		}
	}
	g.mu.Lock()
	g.adopted = nil
	g.mu.Unlock()
	return g.journal()
}

// journal writes what is applied, and what is about to be.
func (g *group) journal(also ...Applied) error {
	e := Entry{Group: g.name, Epoch: g.epoch, Addresses: g.held, Routers: g.routers, Resources: also}
	g.mu.Lock()
	if g.adopted != nil { // until it is started again, or stopped, only the journal knows of it
		for _, a := range g.adopted.Resources {
			if !slices.ContainsFunc(g.members, func(mb *member) bool {
				return mb.record != nil && mb.conf.Kind == a.Kind && mb.conf.Name == a.Name
			}) {
				e.Resources = append(e.Resources, a)
			}
		}
	}
	g.mu.Unlock()
	for _, mb := range g.members {
		if mb.record != nil {
			e.Resources = append(e.Resources, Applied{mb.conf.Kind, mb.conf.Name, mb.record})
		}
	}
	return g.m.cfg.Journal.Write(e)
}
