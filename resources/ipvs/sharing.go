package ipvs

import (
	"context"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

var (
	_ resources.Adopter = (*pool)(nil)
	_ resources.Settler = (*pool)(nil)
)

// joinShared and leaveShared stand around Run. A daemon that ends while a pool
// is started, for a planned restart, leaves settings and sync daemons to the next one.
func (p *pool) joinShared(ctx context.Context) {
	c, _ := p.wishes()
	p.maker.shared.specify(c)
	p.maker.shared.put(p, func(m *sharer) { m.runs = true })
	p.maker.shared.tend(ctx, p.log)
}

func (p *pool) leaveShared() {
	p.maker.shared.put(p, func(m *sharer) { m.runs = false })
	if !p.maker.shared.anyStarted() {
		p.maker.shared.tend(context.Background(), p.log)
	}
}

// shareStart and shareStop stand in Start and Stop. The sync daemons follow
// from Run: nothing waits for them.
func (p *pool) shareStart(ctx context.Context) {
	c, quiescent := p.wishes()
	p.maker.shared.specify(c)
	p.maker.shared.put(p, func(m *sharer) { m.started, m.templates = true, quiescent })
	p.maker.shared.tune(ctx, p.log)
}

func (p *pool) shareStop(ctx context.Context) {
	p.maker.shared.put(p, func(m *sharer) { m.started = false })
	p.maker.shared.tune(ctx, p.log)
	poke(p.wake)
}

// shareUpdate takes a changed specification.
func (p *pool) shareUpdate(ctx context.Context, c *conf.IPVS) {
	p.mu.Lock()
	p.wide = c
	p.mu.Unlock()
	_, quiescent := p.wishes()
	p.maker.shared.specify(c)
	p.maker.shared.put(p, func(m *sharer) { m.templates = quiescent })
	p.maker.shared.tune(ctx, p.log)
	poke(p.wake)
}

// wishes are what the pool wants of the kernel beside the table.
func (p *pool) wishes() (c *conf.IPVS, quiescent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wide, templates(p.content)
}

// Settled implements resources.Settler.
func (p *pool) Settled() error { return p.wrap(p.maker.shared.settled(p)) }
