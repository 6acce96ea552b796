package resources

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// reconfigure brings the members to the newest configuration.
func (g *group) reconfigure(ctx context.Context) {
	g.mu.Lock()
	next, renew := g.next, g.renew
	g.renew, g.changing = false, g.changing || renew
	g.mu.Unlock()
	if !renew {
		return
	}
	if next == nil {
		g.gone(ctx)
	} else {
		g.change(ctx, next)
	}
	g.mu.Lock()
	g.changing = false
	g.mu.Unlock()
}

// settled says whether the group runs under this epoch, and nothing of it runs
// that the newest configuration does not have.
func (g *group) settled(epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.phase == "active" && g.shown == epoch && !g.renew && !g.changing && g.adopted == nil &&
		!slices.ContainsFunc(g.members, func(mb *member) bool { return mb.left })
}

// change brings the members to a configuration. Only what has changed is
// touched: a member that stays keeps running, one that can take its change in
// place does, the rest is stopped and started by itself.
func (g *group) change(ctx context.Context, next *configuration) {
	was := g.current
	g.current = next
	running := g.epoch != 0
	var members []*member
	for _, c := range next.group.Resources {
		mb := g.find(c)
		if mb == nil {
			mb = g.make(c, next.spec)
		} else if was == nil || !sameResource(mb.conf, c, was.spec, next.spec) {
			mb = g.update(ctx, mb, c, next.spec)
		}
		members = append(members, mb)
	}
	var stay []*member
	var stuck string
	var serr error
	for _, old := range slices.Backward(g.members) {
		if slices.Contains(members, old) {
			continue
		}
		if err := g.retire(ctx, old); err != nil {
			old.left = true
			stay = append(stay, old)
			stuck, serr = old.conf.Name, err
		}
	}
	slices.Reverse(stay)
	g.mu.Lock()
	g.members = append(members, stay...)
	g.mu.Unlock()
	if !running {
		return
	}
	if serr != nil {
		// What the specification no longer has still runs: it must not be
		// forgotten, so the whole group is stopped until it does stop.
		g.stopAll(ctx, stuck, serr)
		return
	}
	octx, done := g.operation(ctx, g.epoch)
	name, err := g.startMembers(octx, members)
	ended := octx.Err() != nil
	done()
	switch {
	case ended && err != nil:
		return // ownership changed and step stops the group, or the daemon ends
	case err != nil:
		g.logger.Error("start after a change of the specification failed", "resource", name, "err", err)
		g.stopAll(ctx, name, err)
	default:
		if err := g.journal(); err != nil {
			g.logger.Error("journal", "err", err)
		}
	}
}

// gone ends a group that the specification no longer has.
func (g *group) gone(ctx context.Context) {
	g.current = nil
	if g.epoch != 0 {
		g.stopAll(ctx, "", nil)
	}
	if g.epoch != 0 {
		return // the daemon ends, and it has not stopped: it stays in the journal
	}
	g.closeMembers()
}

func (g *group) find(c conf.Resource) *member {
	for _, mb := range g.members {
		if !mb.left && mb.conf.Kind == c.Kind && mb.conf.Name == c.Name {
			return mb
		}
	}
	return nil
}

// update hands a changed configuration to a member, or replaces it.
func (g *group) update(ctx context.Context, mb *member, c conf.Resource, spec conf.Spec) *member {
	err := ErrNeedsRestart
	if u, ok := mb.res.(Updater); ok {
		if err := g.announceUpdate(mb, c, spec); err != nil {
			g.logger.Error("a change cannot be noted in the journal; a crash during it may leave something behind", "resource", c.Name, "err", err)
		}
		uctx, cancel := context.WithTimeout(ctx, timeout(c.StartTimeout))
		err = u.Update(uctx, spec, c)
		cancel()
	}
	if err == nil {
		g.mu.Lock()
		mb.conf = c
		g.mu.Unlock()
		if mb.record != nil {
			if record, err := mb.res.Record(); err == nil && record != nil {
				mb.record = record // the stop after a crash has to know the newest
			}
		}
		return mb
	}
	if !errors.Is(err, ErrNeedsRestart) {
		g.logger.Warn("the change is not taken in place; restarting the resource", "resource", c.Name, "err", err)
	}
	return g.make(c, spec)
}

// announceUpdate writes what a started member will be after a change beside
// what it is, so that a crash in between leaves nothing unknown behind.
func (g *group) announceUpdate(mb *member, c conf.Resource, spec conf.Spec) error {
	if mb.record == nil {
		return nil
	}
	maker, ok := g.m.cfg.Registry[c.Kind]
	if !ok {
		return nil
	}
	r, err := maker.New(g.env(), spec, c)
	if err != nil {
		return err
	}
	defer r.Close()
	record, err := r.Record()
	if err != nil {
		return err
	}
	return g.journal(Applied{c.Kind, c.Name, record})
}

// retire stops a member that left the group, and closes it.
func (g *group) retire(ctx context.Context, mb *member) error {
	if mb.record != nil {
		if err := g.stop(ctx, mb); err != nil {
			g.setState(mb, "failed", err)
			g.logger.Error("a resource that left the specification would not stop", "resource", mb.conf.Name, "err", err)
			return err
		}
	}
	g.close(mb)
	return nil
}

func (g *group) env() Env {
	return Env{Node: g.m.cfg.Node, Group: g.name, Logger: g.logger, Live: g.m.cfg.Live, Epoch: func() uint64 {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.shown
	}}
}

func (g *group) make(c conf.Resource, spec conf.Spec) *member {
	mb := &member{conf: c, state: "stopped", since: time.Now()}
	maker, ok := g.m.cfg.Registry[c.Kind]
	if !ok {
		mb.err = errors.New("this keepbeat knows no resource of kind " + string(c.Kind) + ": run the same version on every node")
		return mb
	}
	env := g.env()
	env.Logger = g.logger.With("resource", c.Name)
	mb.res, mb.err = maker.New(env, spec, c)
	if mb.err != nil {
		mb.res = nil
		g.logger.Error("a resource cannot be made here", "resource", c.Name, "err", mb.err)
		return mb
	}
	ctx, cancel := context.WithCancel(g.m.ctx)
	mb.end = cancel
	if r, ok := mb.res.(Runner); ok {
		mb.wg.Go(func() { r.Run(ctx) })
	}
	if a, ok := mb.res.(Alarmer); ok {
		mb.wg.Go(func() { g.listen(ctx, mb, a.Alarm()) })
	}
	return mb
}

func (g *group) listen(ctx context.Context, mb *member, alarm <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-alarm:
		}
		select {
		case <-ctx.Done():
			return
		case g.alarms <- mb:
		}
	}
}

func (g *group) close(mb *member) {
	if mb.res == nil {
		return
	}
	mb.end()
	mb.wg.Wait()
	if err := mb.res.Close(); err != nil {
		g.logger.Error("close", "resource", mb.conf.Name, "err", err)
	}
}

func (g *group) closeMembers() {
	g.mu.Lock()
	members := g.members
	g.members = nil
	g.mu.Unlock()
	for _, mb := range members {
		g.close(mb)
	}
}
