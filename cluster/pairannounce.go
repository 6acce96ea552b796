package cluster

import (
	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/pair"
)

// standing is how the peer stood when it was heard last: its daemon's start, and
// what it said. The zero value: it is not heard.
type standing struct {
	boot       link.Boot
	generation pair.Generation
	acts       bool
}

// watchStanding has this node's addresses announced again whenever the peer, which
// may not know this node's generation, turns out to stand in another way: it is
// heard again, acts no longer, starts again, comes into the generation. Where both
// have had an address, the neighbours' tables may name the one that has just
// dropped it, and would for half a minute and more.
func (p *pairing) watchStanding(now standing) {
	p.mu.Lock()
	changed := p.stood != now
	p.stood = now
	announce := changed && now != standing{} && p.record.Contested != "" && p.mayGoOn
	p.mu.Unlock()
	if announce && p.n.manager != nil {
		p.n.logger.Info("pair: the addresses here are announced again", "peer", now.generation.String(), "acts", now.acts)
		p.n.jobs.begin("announce", p.n.manager.Announce)
	}
}
