package ipvs

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// scope is how much of the pool program looks at.
type scope uint8

const (
	_          scope = iota
	everything       // and reads back what it has done
	changed          // only the services whose servers' health has changed
)

// program makes the table what it ought to be. The caller has the token.
func (p *pool) program(ctx context.Context, sc scope, msg string) error {
	if sc == everything {
		if err := p.seekRemoved(ctx); err != nil {
			return p.failed(err)
		}
	}
	p.mu.Lock()
	virtuals, dirty, intact := p.content.Virtuals, p.dirty, p.intact
	p.dirty = map[Key]bool{}
	if sc == changed {
		virtuals = slices.DeleteFunc(slices.Clone(virtuals), func(v conf.Virtual) bool { return !dirty[KeyOf(v)] })
	}
	wanted := p.decide(virtuals, dirty, time.Now())
	look := keysOf(conf.Pool{Virtuals: virtuals})
	if sc == everything {
		for k := range p.owned { // what an update has dropped goes
			look[k] = true
		}
	}
	maps.Copy(p.owned, keysOf(p.content))
	p.mu.Unlock()

	got, err := settle(ctx, p.maker.cfg.Table, wanted, slices.SortedFunc(maps.Keys(look), Key.compare), sc == everything)
	if err == nil {
		err = got.serious(wanted)
	}

	if err != nil {
		p.mu.Lock()
		maps.Copy(p.dirty, dirty)
		p.mu.Unlock()
		return p.failed(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failure = nil
	p.report(sc, got, dirty, intact, msg)
	p.read = time.Time{}
	if sc == everything {
		p.owned = keysOf(p.content)
		p.intact = true
		p.keep(got)
	}
	return nil
}

// failed notes that the table is not what it ought to be.
func (p *pool) failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure == nil || p.failure.Error() != err.Error() {
		p.log.Error("the IPVS table is not as it ought to be", "err", err)
	}
	p.failure, p.intact, p.read = err, false, time.Time{}
	return err
}

// report tells what was changed, and whose change it was. p.mu is held.
func (p *pool) report(sc scope, got settled, dirty map[Key]bool, intact bool, msg string) {
	refused := map[string]error{}
	if sc == changed {
		maps.Copy(refused, p.refused) // it has not looked at the others
	}
	left := map[string]bool{}
	for _, r := range got.Left {
		line := r.Op.String()
		left[line], refused[line] = true, r.Err
		if p.refused[line] == nil {
			p.log.Error("a real server cannot be programmed", "err", r.Err)
		}
	}
	p.refused = refused

	// What differs although neither health nor the pool has changed since the
	// table was last right was done by somebody else.
	var ours, foreign []Op
	for _, op := range got.Before {
		switch {
		case left[op.String()]:
		case intact && !dirty[op.Service.Key]:
			foreign = append(foreign, op)
		default:
			ours = append(ours, op)
		}
	}
	logOps(p.log, msg, ours)
	if sc != everything {
		return
	}
	if len(foreign) > 0 {
		p.repairs++
		p.repaired = time.Now()
		if !p.damaged {
			p.log.Warn("somebody else has changed our virtual services; they were put right",
				"changes", len(foreign), "first", foreign[0].String(), "repairs", p.repairs)
		}
	}
	p.damaged = len(foreign) > 0
}

// keep remembers the table for Detail. p.mu is held.
func (p *pool) keep(got settled) {
	if !got.Fresh {
		return
	}
	p.actual = byKey(got.Actual)
	p.read = time.Now()
}

func byKey(entries []Entry) map[Key]Entry {
	m := make(map[Key]Entry, len(entries))
	for _, e := range entries {
		m[e.Service.Key] = e
	}
	return m
}
