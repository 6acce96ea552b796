package resources

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// cutOff says whether the guard has cut these off whatever the lease says.
func (g *group) cutOff(addrs []netip.Addr, routers []VirtualRouter) bool {
	if g.m.cfg.Guard == nil {
		return false
	}
	if err := errors.Join(g.m.holds.set(g.name, cut, addrs), g.m.routers.set(g.name, cut, routers)); err != nil {
		g.logger.Error("the guard cannot cut the group off", "err", err)
		return false
	}
	return true
}

// stopAll stops what runs, in reverse, and reports; failed and cause say why when it is not an order.
func (g *group) stopAll(ctx context.Context, failed string, cause error) time.Duration {
	g.setPhase("stopping")
	g.mu.Lock()
	adopted := g.adopted
	g.mu.Unlock()
	if adopted != nil { // the order to stop came before all of it was started again
		for _, mb := range g.members {
			if a := g.applied(mb); len(a) > 0 && mb.record == nil {
				if err := g.adoptInto(mb); err != nil {
					g.logger.Error("what an earlier daemon left", "resource", mb.conf.Name, "err", err)
				}
				mb.record = a[0].Record
			}
		}
	}
	if len(g.held) > 0 && manyGuarded(g.members) {
		if err := g.m.holds.set(g.name, shut, g.held); err != nil {
			g.logger.Warn("the group may refuse connections while it stops", "err", err)
		}
	}
	for try := 1; ; try++ {
		name, err := g.stopMembers(ctx, g.members)
		if err == nil {
			if err = g.settleAdopted(ctx); err == nil {
				break
			}
			name = "what an earlier daemon started"
		}
		if ctx.Err() != nil {
			return 0
		}
		if try == stopTries {
			g.stuck(name, err)
		}
		pause := stopPause
		if try >= stopTries {
			pause = stuckPause
		}
		select {
		case <-ctx.Done():
			return 0
		case <-time.After(pause):
		}
	}
	g.startsOver()
	epoch := g.epoch
	g.epoch = 0
	g.mu.Lock()
	g.over = max(g.over, epoch)
	g.broken, g.cut = false, false
	members := slices.DeleteFunc(slices.Clone(g.members), func(mb *member) bool { return mb.left })
	left := g.members
	g.members = members
	g.mu.Unlock()
	for _, mb := range left {
		if mb.left {
			g.close(mb)
		}
	}
	held, routers := g.held, g.routers
	g.held, g.routers, g.holding = nil, nil, 0
	g.m.cfg.Report(Report{Group: g.name, Epoch: epoch, Outcome: Stopped, Resource: failed, Err: cause})
	g.unhold(held, routers)
	if err := g.m.cfg.Journal.Remove(g.name); err != nil {
		g.logger.Error("journal", "err", err)
	}
	g.setPhase("idle")
	return 0
}

// stuck reports a stop that failed. If the guard can cut the whole group off,
// whatever the lease says, the group may move all the same.
func (g *group) stuck(name string, err error) {
	g.setPhase("stuck")
	g.logger.Error("stop failed", "resource", name, "err", err)
	r := Report{Group: g.name, Epoch: g.epoch, Outcome: Stuck, Resource: name, Err: err}
	harmless := true
	for _, mb := range g.members {
		harmless = harmless && (mb.conf.Class == conf.Guarded || mb.conf.Class == conf.Shared)
	}
	if harmless && g.cutOff(g.held, g.routers) {
		g.mu.Lock()
		g.over, g.cut = max(g.over, g.epoch), true
		g.mu.Unlock()
		r.Outcome = Stopped
		g.startsOver()
	}
	g.m.cfg.Report(r)
}

func (g *group) stopMembers(ctx context.Context, ms []*member) (string, error) {
	for _, mb := range slices.Backward(ms) {
		if mb.record == nil {
			continue
		}
		if err := g.stop(ctx, mb); err != nil {
			g.setState(mb, "failed", err)
			return mb.conf.Name, err
		}
	}
	return "", nil
}

func (g *group) stop(ctx context.Context, mb *member) error {
	ctx, cancel := context.WithTimeout(ctx, timeout(mb.conf.StopTimeout))
	defer cancel()
	defer g.begin("stop of "+mb.conf.Name, timeout(mb.conf.StopTimeout))()
	g.setState(mb, "stopping", nil)
	if mb.res == nil {
		env := g.env()
		if err := stopApplied(ctx, g.m.cfg.Registry, env, Applied{mb.conf.Kind, mb.conf.Name, mb.record}); err != nil {
			return err
		}
	} else if err := mb.res.Stop(ctx); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("not stopped within %v: %w", timeout(mb.conf.StopTimeout), err)
		}
		return err
	}
	mb.record = nil
	g.setState(mb, "stopped", nil)
	return nil
}
