package ipvs

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

// input is what a service's state depends on now. p.mu is held, then and
// whenever its functions are called.
func (p *pool) input(k Key, now time.Time) input {
	return input{
		now: now, base: p.base,
		health: func(c conf.Check) checks.Status {
			if w := p.watched[c]; w != nil {
				return w.health
			}
			return checks.Status{}
		},
		checked: func(c conf.Check) time.Time {
			st, _ := p.maker.cfg.Checks.Status(c)
			return st.Last
		},
		assumed: func(a netip.AddrPort) bool { return p.assumed[server{k, a}] },
		kept:    func(a netip.AddrPort) bool { return p.kept[server{k, a}] },
		stood:   func(a netip.AddrPort) bool { return p.stood[server{k, a}] },
		earlier: p.earlier[k],
		order:   func(a netip.AddrPort) (Order, bool) { return orderFor(p.orders, a) },
		file:    func(r conf.Real) string { return fileFor(p.files, r) },
	}
}

// decide steps the services, and returns what the table ought to hold, sorted
// by key. Of two with the same key the first counts. While the pool is intact,
// one that is not dirty and whose time has not come is as it was. What was
// decided otherwise than before becomes dirty: a difference in the table is then
// no damage done by somebody else. p.mu is held.
func (p *pool) decide(virtuals []conf.Virtual, dirty map[Key]bool, now time.Time) []Entry {
	entries := make([]Entry, 0, len(virtuals))
	seen := make(map[Key]bool, len(virtuals))
	for _, v := range virtuals {
		k := KeyOf(v)
		if seen[k] {
			continue
		}
		seen[k] = true
		due, timed := p.due[k]
		if old, decided := p.written[k]; decided && p.intact && !dirty[k] && (!timed || due.After(now)) {
			entries = append(entries, old)
			continue
		}
		s := p.services[k]
		if s == nil {
			s = &service{}
			p.services[k] = s
		}
		d := s.step(v, p.input(k, now))
		if old := p.written[k]; old.Service != d.entry.Service || !slices.Equal(old.Dests, d.entry.Dests) {
			dirty[k] = true
		}
		p.written[k] = d.entry
		delete(p.due, k)
		if !d.next.IsZero() {
			p.due[k] = d.next
		}
		p.pending = append(p.pending, d.events...)
		entries = append(entries, d.entry)
	}
	sortEntries(entries)
	return entries
}

// ends gives up services, and returns what there is to tell of that. p.mu is held.
func (p *pool) ends(which func(Key) bool) []event {
	var events []event
	for _, v := range p.content.Virtuals {
		k := KeyOf(v)
		s := p.services[k]
		if s == nil || !which(k) {
			continue
		}
		events = append(events, s.end(v, time.Now())...)
		delete(p.services, k)
		delete(p.written, k)
		delete(p.due, k)
	}
	return events
}

// seekRemoved finds the servers that somebody has taken out of services which
// have readdquiescent: these come back with weight 0.
func (p *pool) seekRemoved(ctx context.Context) error {
	p.mu.Lock()
	var keys []Key
	if p.intact { // otherwise what is missing was never there
		for _, v := range p.content.Virtuals {
			if v.ReaddQuiescent {
				keys = append(keys, KeyOf(v))
			}
		}
	}
	p.mu.Unlock()
	if len(keys) == 0 {
		return nil
	}
	actual, err := p.maker.cfg.Table.List(ctx, keys)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, e := range actual {
		k := e.Service.Key
		for _, want := range p.written[k].Dests {
			there := slices.ContainsFunc(e.Dests, func(d Dest) bool { return d.Address == want.Address })
			if !there && want.Weight > 0 && p.services[k] != nil && p.refusal(k, want.Address) == nil {
				p.services[k].removed(want.Address, now)
				p.dirty[k] = true
				p.log.Info("a real server that somebody has removed comes back with weight 0 until its next check",
					"service", k.String(), "real", want.Address.String())
			}
		}
	}
	return nil
}
