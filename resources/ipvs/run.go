package ipvs

import (
	"context"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

// Run implements resources.Runner: the checks run, and while the pool is
// started the table follows them and is put right when somebody else changes it.
func (p *pool) Run(ctx context.Context) {
	// The module is loaded before it is needed: a takeover has no time for it.
	// Why it could not be loaded is what Ready and Start say.
	if err := p.maker.cfg.Table.Load(ctx); err != nil && ctx.Err() == nil {
		p.log.Warn("this node cannot take over the pool", "err", err)
	}
	if ctx.Err() != nil {
		return
	}
	// What there is to tell is told by others: a program, a mail server and a
	// disk may take their time.
	var tellers sync.WaitGroup
	defer tellers.Wait()
	for _, run := range []func(context.Context){p.hooks.Run, p.mail.Run, p.lines.Run, p.maintain} {
		tellers.Go(func() { run(ctx) })
	}
	p.subscribe(on)
	defer p.subscribe(off)
	p.joinShared(ctx)
	defer p.leaveShared()

	period := p.period()
	timer := time.NewTimer(period)
	defer timer.Stop()
	due := time.NewTimer(never)
	defer due.Stop()
	for {
		due.Reset(p.expire())
		var err error
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			err = p.follow(ctx, changed)
			if now := p.period(); now != period {
				period = now
				timer.Reset(period)
			}
		case <-due.C:
			p.expire()
			err = p.follow(ctx, changed)
		case <-timer.C:
			err = p.follow(ctx, everything)
			timer.Reset(period)
		}
		p.maker.shared.tend(ctx, p.log)
		if err != nil && ctx.Err() == nil {
			poke(p.alarm)
			timer.Reset(min(period, retry))
		}
	}
}

// retry is how long after a failure the table is looked at again.
const retry = 250 * time.Millisecond

// Bounds of the period in which the table is looked at.
const (
	minPeriod = time.Second
	maxPeriod = 10 * time.Second
)

// period is the shortest interval of the pool's checks, within bounds: damage
// done by somebody else is repaired as soon as a server's failure is seen.
func (p *pool) period() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	period := maxPeriod
	for _, v := range p.content.Virtuals {
		for _, r := range v.Reals {
			for c := range checksOf(r) {
				if c.Interval > 0 {
					period = min(period, c.Interval)
				}
			}
		}
	}
	return max(period, minPeriod)
}

// follow programs the table if the pool is started.
func (p *pool) follow(ctx context.Context, sc scope) error {
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	p.mu.Lock()
	idle := !p.started || sc == changed && len(p.dirty) == 0
	if !p.intact {
		sc = everything // more is wrong than what has changed
	}
	p.mu.Unlock()
	if idle {
		return nil
	}
	defer p.deliver()
	return p.program(ctx, sc, "virtual services follow their real servers' health")
}

// never is a timer that does not matter.
const never = time.Hour

// expire marks the services that time alone has changed, and says how long it
// is until the next one is.
func (p *pool) expire() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, wait := time.Now(), never
	for k, at := range p.due {
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		p.dirty[k], wait = true, 0
	}
	return wait
}

// What subscribe makes of being warm.
func on(bool) bool            { return true }
func off(bool) bool           { return false }
func asBefore(warm bool) bool { return warm }

// subscribe makes the subscriptions those of the pool, or none when it is not
// warm. New ones come before the old ones go, so that a check that another
// pool shares as well is never interrupted.
func (p *pool) subscribe(warm func(bool) bool) {
	p.subsMu.Lock()
	defer p.subsMu.Unlock()
	p.warm = warm(p.warm)

	want := map[conf.Check]bool{}
	if p.warm {
		p.mu.Lock()
		for c := range p.watched {
			want[c] = true
		}
		p.mu.Unlock()
	}
	for c := range want {
		if p.subs[c] == nil {
			p.subs[c] = p.maker.cfg.Checks.Subscribe(c, func(h checks.Status) { p.heard(c, h) })
		}
	}
	for c, cancel := range p.subs {
		if !want[c] {
			cancel()
			delete(p.subs, c)
		}
	}
}

// heard takes a change of a check's state. It does not wait.
func (p *pool) heard(c conf.Check, h checks.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.watched[c]
	if w == nil {
		return // a last word of a check that the pool has no more
	}
	old := w.health
	w.health = h
	if old.Known == h.Known && old.Up == h.Up && old.Weighed == h.Weighed && old.Weight == h.Weight {
		return
	}
	for _, k := range w.uses {
		p.dirty[k] = true
	}
	if p.started {
		poke(p.wake)
	}
}
