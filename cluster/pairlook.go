package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// addressesOf returns the addresses of a group.
func addressesOf(g *conf.Group) []pair.Place {
	var addrs []pair.Place
	for _, r := range g.Resources {
		if r.VIP != nil {
			addrs = append(addrs, pair.Place{Addr: r.VIP.Address, Interface: r.VIP.Interface})
		}
	}
	return addrs
}

// wanted returns the addresses that must not answer elsewhere before this node
// goes on by the rule ping: all but those that it has been serving.
func (p *pairing) wanted(st *state.State) []pair.Place {
	var addrs []pair.Place
	if st.Spec == nil {
		return nil
	}
	for i := range st.Spec.Groups {
		g := &st.Spec.Groups[i]
		if x := st.Groups[g.Name]; p.mayGoOn && x.Owner == p.n.self && x.Active {
			continue
		}
		addrs = append(addrs, addressesOf(g)...)
	}
	return addrs
}

// clearLocked returns for how long none of the addresses has answered
// elsewhere, as far as the questions are fresh.
func (p *pairing) clearLocked(addrs []pair.Place, lease time.Duration) time.Duration {
	if p.probed.IsZero() || time.Since(p.probed) > lease/2 {
		return 0
	}
	d := time.Hour // nothing to look for
	for _, a := range addrs {
		since, known := p.clear[a]
		if !known {
			return 0
		}
		d = min(d, p.probed.Sub(since))
	}
	return d
}

// probe asks for every address, as long as by the rule ping this node may have
// to decide without the peer. It goes on while groups start, so that the peer,
// should it be looking too, sees that somebody is about to take them.
func (p *pairing) probe(ctx context.Context) {
	for {
		st := p.view()
		lease := p.n.lease(st)
		p.mu.Lock()
		needed := p.looks(lease)
		if !needed {
			p.clear, p.answered, p.probed = map[pair.Place]time.Time{}, nil, time.Time{}
		}
		yields := p.n.self > p.peer
		p.mu.Unlock()
		if needed && st.Spec != nil {
			p.probeOnce(ctx, st, lease, yields)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lease / 20):
		}
	}
}

// startingFor is for how long after the only voter opened its generation, or a
// permission, a group may still be on its way up.
const startingFor = time.Minute

// looks says whether addresses are asked for: while something is to be decided,
// and while the only voter starts something. What stands answers the peer's
// questions by itself, and a pair may be without its peer for weeks. The caller holds mu.
func (p *pairing) looks(lease time.Duration) bool {
	if p.rule != conf.QuorumPing || p.peer == "" || p.wire == nil {
		return false
	}
	// Who does not reach the tie-breaker takes nothing, and the peer yields to who asks.
	if !p.tied || p.n.keeper.Now()-p.tie > lease {
		return false
	}
	switch p.said.Phase {
	case 0, pair.Whole:
		return false
	case pair.Sole:
		recently := func(t time.Time) bool { return !t.IsZero() && time.Since(t) < startingFor }
		return p.record.Contested != "" && (recently(p.opened) || recently(p.permitted))
	}
	return true
}

func (p *pairing) probeOnce(ctx context.Context, st *state.State, lease time.Duration, yields bool) {
	addrs := p.toAsk(st)
	pctx, cancel := context.WithTimeout(ctx, max(lease/5, 50*time.Millisecond))
	defer cancel()
	began := time.Now()
	answered, asked, unasked := p.wire.Probe(pctx, addrs)
	ended := p.n.keeper.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tellUnasked(addrs, unasked)
	if ended-p.looked > lease {
		// This node was stopped, or did not look before: of the time between nothing is known.
		p.clear, began = map[pair.Place]time.Time{}, time.Now()
	}
	p.looked = ended
	for _, a := range addrs {
		// Of two that look at the same time the one whose name comes first goes first.
		if unasked[a] != nil || slices.Contains(answered, a) || yields && slices.Contains(asked, a) {
			delete(p.clear, a)
		} else if _, known := p.clear[a]; !known {
			p.clear[a] = began
		}
	}
	p.answered, p.probed = answered, time.Now()
	p.wake()
}

// toAsk returns the addresses to look for: all of them, or, while some answer
// elsewhere, those and what this node may start again. It is not going to take
// the rest as long as that is so, and the peer, which may be, yields to who asks.
func (p *pairing) toAsk(st *state.State) []pair.Place {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all, some []pair.Place
	for i := range st.Spec.Groups {
		g := &st.Spec.Groups[i]
		mine := p.mayGoOn && st.Groups[g.Name].Owner == p.n.self
		for _, a := range addressesOf(g) {
			all = append(all, a)
			if mine || slices.Contains(p.answered, a) {
				some = append(some, a)
			} else if len(p.answered) > 0 {
				delete(p.clear, a)
			}
		}
	}
	if len(p.answered) > 0 {
		return some
	}
	return all
}

// tellUnasked keeps, for status, why addresses cannot be asked for, and logs it
// when it is something new. The caller holds mu.
func (p *pairing) tellUnasked(addrs []pair.Place, unasked map[pair.Place]error) {
	var why []string
	for _, a := range addrs {
		if err := unasked[a]; err != nil {
			why = append(why, err.Error())
		}
	}
	if n := len(why); n > 3 {
		why = append(why[:3], fmt.Sprintf("and %d more", n-3))
	}
	text := strings.Join(why, "; ")
	if text != "" && text != p.unasked {
		p.n.logger.Warn("pair: who has these addresses cannot be asked, so they are not taken", "err", text)
	}
	p.unasked = text
}

// permit waits until a resource of the group may start here. By the rule ping,
// while the peer is not heard, that is when the group's addresses have not
// answered elsewhere for as long as its lease may run: also for a group that has
// been here all along and is started again, since the peer may have seen it silent.
//
// By that rule the resource's address is defended from before the permission
// counts until done, in every phase: a start takes its time, and the links may be
// cut in it. Without the defence the peer would hear nobody, and take the address.
// One that had begun to look when the defence began hears it in time: each round
// asks anew, what a look is worth ends with half a lease, and
//   - who believes in whole has heard the peer within the last lease and a half:
//     the peer did not look before that, and has to look for longer;
//   - who has looked by itself has also asked for the address all that time, and
//     of two that ask only one goes first (probeOnce).
func (p *pairing) permit(ctx context.Context, group string, r conf.Resource) (done func(), err error) {
	if err := p.n.unfence(ctx); err != nil {
		return nil, err
	}
	stop := func() {}
	for defended := false; ; {
		free, defend := p.free(group)
		defend = defend && r.VIP != nil
		switch {
		case free && (defended || !defend):
			return stop, nil
		case free:
			if stop, err = p.wire.Defend([]pair.Place{{Addr: r.VIP.Address, Interface: r.VIP.Interface}}, p.n.Live); err != nil {
				return nil, fmt.Errorf("by the rule ping it is not started, since %s could take it meanwhile: %w", p.peerName(), err)
			}
			defended = true
			continue // what was known before is looked at again
		case defended: // one that waits only looks, or two would wait for each other
			stop()
			defended = false
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("by the rule ping it waits until its addresses are free, or %s is heard: %w", p.peerName(), context.Cause(ctx))
		case <-time.After(p.n.lease(p.n.State()) / 20):
		}
	}
}

// free says whether resources of the group may start now, and whether addresses have to be defended meanwhile.
func (p *pairing) free(group string) (free, defend bool) {
	st := p.n.State()
	_, g := st.Group(group)
	lease, longest := p.n.lease(st), p.n.longestLease(st)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.permitted = time.Now()
	defend = p.peer != "" && p.rule == conf.QuorumPing && p.wire != nil
	// A peer that has recorded an intent gives its word no more; and while this node's
	// own loop hangs, what it said last is worth as much as is left of the lease.
	whole := p.said.Phase == pair.Whole && p.heard == "" && p.n.keeper.Live()
	free = p.peer == "" || p.rule != conf.QuorumPing || whole || p.said.Phase == pair.Sole && p.record.Contested == ""
	if !free && g != nil {
		addrs := addressesOf(g)
		free = len(addrs) > 0 && p.clearLocked(addrs, lease) >= pair.ClearFor(longest)
	}
	return free, defend
}

func (p *pairing) peerName() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peer
}

// ping asks the tie-breaker, more often when its answer is needed.
func (p *pairing) ping(ctx context.Context) {
	for {
		p.mu.Lock()
		rule, phase := p.rule, p.said.Phase
		p.mu.Unlock()
		lease := p.n.lease(p.n.State())
		pause := time.Second
		if rule == conf.QuorumPing && p.wire != nil {
			pause = lease / 8
			if phase == pair.Whole {
				pause = lease / 2
			}
			p.pingOnce(ctx, lease/2)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// pingOnce asks every address of the group; one answer is enough.
func (p *pairing) pingOnce(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sent := p.n.keeper.Now()
	var wg sync.WaitGroup
	for _, a := range p.n.cfg.Local.PingGroup {
		wg.Go(func() {
			if !p.wire.Ping(ctx, a) {
				return
			}
			p.mu.Lock()
			news := !p.tied || p.n.keeper.Now()-p.tie > limit
			p.tie, p.tied = max(p.tie, sent), true
			p.mu.Unlock()
			cancel()
			if news {
				p.wake()
			}
		})
	}
	wg.Wait()
}
