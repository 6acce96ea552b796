package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// startAll starts the members in order under an epoch. What an earlier daemon
// started under the same epoch is completed: Start is idempotent.
func (g *group) startAll(ctx context.Context, epoch uint64) time.Duration {
	g.epoch = epoch
	g.setPhase("starting")
	g.mu.Lock()
	fresh := g.adopted == nil
	g.mu.Unlock()
	g.holding = open
	if fresh && manyGuarded(g.members) {
		// The address before its services are there would answer with refusals.
		g.holding = shut
	}
	octx, done := g.operation(ctx, epoch)
	failed, err := g.startMembers(octx, g.members)
	done()
	if ctx.Err() != nil {
		return 0
	}
	if err == nil {
		if err := g.settleAdopted(ctx); err != nil {
			g.logger.Error("what an earlier daemon started and the specification no longer has would not stop", "err", err)
			return g.stopAll(ctx, "", nil)
		}
		g.setPhase("active")
		g.m.cfg.Report(Report{Group: g.name, Epoch: epoch, Outcome: Started})
		return 0
	}
	g.mu.Lock()
	changed := g.want != epoch || g.broken
	g.mu.Unlock()
	if changed {
		return g.stopAll(ctx, "", nil) // not a failure: the group was taken away meanwhile
	}
	g.logger.Error("start failed", "resource", failed, "err", err)
	return g.stopAll(ctx, failed, err)
}

// startMembers starts those of ms that are not applied yet, in order. It
// returns the name of the one that failed.
func (g *group) startMembers(ctx context.Context, ms []*member) (string, error) {
	for _, mb := range ms {
		if mb.res == nil {
			return mb.conf.Name, mb.err
		}
	}
	if g.holding == 0 {
		g.holding = open
	}
	if err := g.hold(g.holding); err != nil {
		return "guard", err
	}
	last := lastGuarded(ms)
	for i, mb := range ms {
		if mb.record != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return mb.conf.Name, err
		}
		if err := g.start(ctx, mb); err != nil {
			g.setState(mb, "failed", err)
			return mb.conf.Name, err
		}
		if g.holding == shut && i == last {
			if err := g.openUp(); err != nil {
				return "guard", err
			}
		}
		if g.holding != shut {
			g.startsOver()
		}
	}
	g.startsOver()
	return "", nil
}

// startsOver tells who has permitted starts that they are over. Only the group's goroutine calls it.
func (g *group) startsOver() {
	for _, done := range g.starts {
		done()
	}
	g.starts = nil
}

func (g *group) start(ctx context.Context, mb *member) error {
	g.setState(mb, "starting", nil)
	if g.m.cfg.Permit != nil {
		done, err := g.m.cfg.Permit(ctx, g.name, mb.conf)
		if err != nil {
			return err
		}
		g.starts = append(g.starts, done)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout(mb.conf.StartTimeout))
	defer cancel()
	defer g.begin("start of "+mb.conf.Name, timeout(mb.conf.StartTimeout))()
	if err := g.adoptInto(mb); err != nil {
		return fmt.Errorf("what an earlier daemon left of it: %w", err)
	}
	record, err := mb.res.Record()
	if err != nil {
		return err
	}
	mb.record = record
	if record == nil {
		mb.record = json.RawMessage("null")
	}
	if err := g.journal(); err != nil {
		return err
	}
	if err := mb.res.Start(ctx); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("not started within %v: %w", timeout(mb.conf.StartTimeout), err)
		}
		return err
	}
	mb.nextMon = time.Now().Add(interval(mb.conf.MonitorInterval))
	g.setState(mb, "started", nil)
	return nil
}

// hold puts every address and virtual router of the group under the guard, before anything starts.
func (g *group) hold(want hold) error {
	if err := g.holdRouters(); err != nil {
		return err
	}
	addrs := addressesOf(g.members)
	if slices.Equal(addrs, g.held) && g.holding == want {
		return nil
	}
	if err := g.m.holds.set(g.name, want, addrs); err != nil {
		return err
	}
	old := g.held
	g.held, g.holding = addrs, want
	g.unhold(without(old, addrs), nil)
	return nil
}

// holdRouters is hold for virtual routers, which are never shut: what is
// announced for a moment too early does no harm, and what is not, does.
func (g *group) holdRouters() error {
	routers := routersOf(g.members)
	if slices.Equal(routers, g.routers) {
		return nil
	}
	if err := g.m.routers.set(g.name, open, routers); err != nil {
		return err
	}
	old := g.routers
	g.routers = routers
	g.unhold(nil, without(old, routers))
	return nil
}

// without returns what all has and less has not.
func without[K comparable](all, less []K) []K {
	return slices.DeleteFunc(slices.Clone(all), func(k K) bool { return slices.Contains(less, k) })
}

// openUp lets the group answer, now that everything that answers is there.
func (g *group) openUp() error {
	if err := g.hold(open); err != nil {
		return err
	}
	for _, mb := range g.members {
		if o, ok := mb.res.(Opener); ok && mb.record != nil {
			o.Opened()
		}
	}
	return nil
}

func (g *group) unhold(addrs []netip.Addr, routers []VirtualRouter) {
	if err := errors.Join(g.m.holds.drop(g.name, addrs), g.m.routers.drop(g.name, routers)); err != nil {
		g.logger.Error("the guard does not let addresses or virtual routers go", "err", err)
	}
}
