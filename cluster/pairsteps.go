package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

// ErrRejoin ends Run: the other node of the pair has gone on without this one,
// so its log was put aside and the daemon has to start again, as an empty node.
var ErrRejoin = errors.New("the other node went on without this one: this node's log is put aside, and it starts again")

// adopt makes a node belong to the generation of the cluster that it comes
// into: one that was a pair once has another than the first, and one that is a
// pair until this node votes, or has become one without it, may open another
// meanwhile. Two have decided that who were the only ones to vote. Which of two
// rivals counts they decide, too: a node without a vote goes with whoever is left.
func (p *pairing) adopt() {
	p.mu.Lock()
	newest := p.record.Current
	p.mu.Unlock()
	votes, _, known := p.n.cons.Servers()
	mine := known && slices.Contains(votes, p.n.cons.Self())
	from, foreign, heard := "", "", ""
	var rival pair.Generation // of two that have each gone on alone the one that this node does not follow
	other, alike := "", false
	for _, x := range p.n.cfg.Datagrams.Peers() {
		m, ok := parseMeta(x.Meta)
		if !ok || x.State == link.Down || x.Boot == 0 || m.Empty {
			continue
		}
		if m.Intent != "" {
			heard = m.Intent
		}
		switch g := m.generation(); {
		case g.Counter > newest.Counter && mine && !p.superseded(votes, consensus.ID(x.Node, m.UUID)):
			foreign = fmt.Sprintf("%s belongs to generation %v of another history: its data directory is none of this cluster's; stop it, move that directory away and start it again", x.Node, g)
		case g.Counter > newest.Counter:
			newest, from = g, x.Node
		case g == newest:
			alike = true
		case g.Rival(newest):
			rival, other = g, x.Node
		}
	}
	p.mu.Lock()
	news := foreign != p.foreign
	p.foreign, p.heard = foreign, heard
	p.mu.Unlock()
	if news && foreign != "" {
		p.n.logger.Error(foreign)
	}
	if from == "" && other != "" && !alike && known && !mine {
		newest, from = rival, other // nobody is left whom it followed
	}
	if from == "" {
		return
	}
	p.mu.Lock()
	was := p.record
	p.said = pair.Decision{Phase: pair.Rejoining, Why: fmt.Sprintf("%s has opened generation %v", from, newest), Stop: true}
	p.mu.Unlock()
	if p.n.manager != nil && !p.n.manager.Idle() {
		p.n.wake()
		return
	}
	p.step(was, func() error {
		if err := p.change(func(r *pair.Record) { *r = pair.Record{Current: newest, Discard: true, How: "heard of " + from} }); err != nil {
			return err
		}
		p.n.fail(ErrRejoin)
		return nil
	})
}

// superseded says whether who belongs to a greater generation can have decided
// that without this node, which votes: it votes, too, by this node's own log, and
// nobody leads here. The data directory of another cluster would else put an end
// to this one's history.
func (p *pairing) superseded(votes []string, id string) bool {
	return p.n.cons.Leader() == "" && slices.ContainsFunc(votes, func(v string) bool { return consensus.Identity(v) == id })
}

// follow begins the one step that takes time.
func (p *pairing) follow(ctx context.Context, st *state.State, f pair.Facts, d pair.Decision) {
	if d.Fence {
		p.askDevices(ctx, st, f.Peer, f.Silence)
	}
	switch {
	case d.Discard:
		theirs := f.PeerSaid.Generation
		p.step(f.Record, func() error {
			if err := p.change(func(r *pair.Record) { *r = pair.Record{Current: theirs, Discard: true, How: "opened by " + f.Peer} }); err != nil {
				return err
			}
			p.n.fail(ErrRejoin)
			return nil
		})
	case d.Withdraw:
		p.step(f.Record, func() error {
			if err := p.change(func(r *pair.Record) { r.Intent = nil }); err != nil {
				return err
			}
			p.mu.Lock()
			p.fence, p.confirmed, p.forced = pair.NotAsked, "", false
			p.mu.Unlock()
			return p.n.cons.Resume()
		})
	case d.Intend:
		p.step(f.Record, func() error {
			// A generation that the peer has told of is passed by.
			var theirs pair.Generation
			if f.PeerSaid != nil {
				theirs = f.PeerSaid.Generation
			}
			g, err := f.Record.Current.Next(theirs)
			if err != nil {
				return err
			}
			if f.Record.Intent == nil {
				i := &pair.Intent{Generation: g, Peer: f.Peer, At: time.Now().UTC()}
				if err := p.change(func(r *pair.Record) { r.Intent = i }); err != nil {
					return err
				}
				p.setFence(pair.NotAsked)
			}
			p.mu.Lock()
			p.intended = time.Now()
			p.mu.Unlock()
			return p.n.cons.Halt()
		})
	case d.Open:
		p.step(f.Record, func() error { return p.open(f) })
	case d.Settle:
		p.step(f.Record, func() error {
			return p.change(func(r *pair.Record) { r.Contested, r.Rule, r.Forced = "", "", false })
		})
	}
}

// step runs f unless a step is under way, or one has ended since that changed the
// record by which this one was decided. The loop goes on meanwhile: it is what extends the lease.
func (p *pairing) step(decidedBy pair.Record, f func() error) {
	p.mu.Lock()
	if p.busy || p.record != decidedBy {
		p.mu.Unlock()
		return
	}
	p.busy = true
	p.mu.Unlock()
	p.n.jobs.run(func() {
		err := f()
		p.mu.Lock()
		pause, say := p.failing.note(err, time.Now())
		p.mu.Unlock()
		if say {
			p.n.logger.Error("pair: a step failed and is tried again", "err", err)
		}
		if err != nil {
			select {
			case <-p.n.jobs.ctx.Done():
			case <-time.After(pause):
			}
		}
		p.mu.Lock()
		p.busy = false
		p.mu.Unlock()
		p.wake()
	})
}

// change stores a change of the record. The steps and what the log tells change
// it side by side, and neither may undo the other's.
func (p *pairing) change(f func(r *pair.Record)) error {
	p.storing <- struct{}{}
	defer func() { <-p.storing }()
	p.mu.Lock()
	r := p.record
	p.mu.Unlock()
	f(&r)
	if err := p.store.Save(r); err != nil {
		return fmt.Errorf("the generation cannot be stored: %w; make room in the data directory, or see what is wrong with the disk", err)
	}
	p.mu.Lock()
	p.record = r
	p.mu.Unlock()
	return nil
}

func (p *pairing) setFence(s pair.FenceState) {
	p.mu.Lock()
	p.fence = s
	p.mu.Unlock()
}

// open makes this node the only voter of the generation that it intended.
func (p *pairing) open(f pair.Facts) error {
	g := f.Record.Intent.Generation
	p.mu.Lock()
	how := fmt.Sprintf("%s went on without %s (rule %v)", p.n.self, f.Peer, f.Rule)
	if p.confirmed != "" {
		how += ", confirmed by " + p.confirmed
	}
	if p.ordered != "" {
		how += ", " + p.ordered
	}
	if p.off != "" {
		how += ", " + p.off
	}
	forced := p.forced
	t := telling{generation: g, how: how, peer: f.Peer, outcome: p.outcome, fenced: p.fence == pair.Done}
	p.mu.Unlock()
	// What nobody has applied yet counts, too: an admission of the peer's, say.
	if all, err := p.n.cons.LogState(); err == nil {
		t.incarnation = all.Nodes[f.Peer].Incarnation
	} else {
		return fmt.Errorf("this node's own log cannot be read: %w", err)
	}
	err := p.change(func(r *pair.Record) {
		r.Current, r.Contested, r.Rule, r.How, r.Force = g, f.Peer, f.Rule.String(), how, true
		r.Forced = r.Forced || forced
	})
	if err != nil {
		return err
	}
	err = p.n.cons.Reform(g, func() error {
		return p.change(func(r *pair.Record) { r.Force, r.Intent = false, nil })
	})
	if err != nil {
		return err
	}
	now := time.Now()
	p.mu.Lock()
	p.started, p.lapsed = true, time.Time{}
	// A slow disk, or a stop of this process, may have outlasted the lease under which
	// things run here. By the rule ping the other may have them now: look again.
	if f.Rule != conf.QuorumPing || !f.MayGoOn || p.mayGoOn && p.n.keeper.Live() {
		p.mayGoOn, p.opened = true, now
	} else {
		p.mayGoOn = false
	}
	p.confirmed, p.forced, p.ordered, p.off, p.fence = "", false, "", "", pair.NotAsked
	p.config = serversSeen{votes: true}
	p.mu.Unlock()
	p.n.logger.Warn("pair: this node goes on alone under a new generation", "generation", g.String(), "how", how)
	p.n.jobs.run(func() { p.tell(t) })
	p.n.wake()
	return nil
}

// telling is what the log is to know of a generation that was opened, or of an order that failed.
type telling struct {
	generation  pair.Generation
	how, peer   string
	incarnation uint64 // of the peer, when this node went on without it
	outcome     fencing.Outcome
	fenced      bool  // what became of fencing the peer is to be known, too
	failed      error // why it is not fenced; nil: it is
	noted       bool  // it knows how the generation came about
}

// tellAgain is the pause between two attempts to tell the log.
const tellAgain = time.Second

// tell puts into the log how the generation came about and, when the peer was
// fenced, that: groups wait for it. It goes on until the log has it, however slow the
// disk is, unless this node does not belong to the generation any more.
func (p *pairing) tell(t telling) {
	var trouble failing
	for p.n.cons.Generation() == t.generation {
		if !p.n.cons.Halted() { // else nothing can be told: the peer is being survived
			ctx, cancel := context.WithTimeout(p.n.jobs.ctx, jobTimeout)
			err := p.tellOnce(ctx, &t)
			cancel()
			var refused *state.RefusedError
			if err == nil || errors.As(err, &refused) {
				break
			}
			if _, say := trouble.note(err, time.Now()); say {
				p.n.logger.Error("pair: the log is not told yet what became of the other node", "err", err, "again_in", tellAgain)
			}
		}
		select {
		case <-p.n.jobs.ctx.Done():
			return
		case <-time.After(tellAgain):
		}
	}
	p.n.wake()
}

func (p *pairing) tellOnce(ctx context.Context, t *telling) error {
	if !t.noted {
		if _, err := p.n.cons.Propose(ctx, state.Command{Note: &state.Note{Node: p.n.self, Text: "generation " + t.generation.String() + ": " + t.how}}); err != nil {
			return err
		}
		t.noted = true
	}
	if !t.fenced {
		return nil
	}
	return p.n.reportFenced(ctx, t.peer, t.incarnation, t.outcome, t.failed)
}

// know stores what a change of nodes did to the rule, before this node says that it
// has applied it: the others count on it when they give the third node its vote.
func (p *pairing) know(st *state.State) error {
	if st.Members == nil {
		return nil
	}
	var two []string
	for _, m := range st.Members.Nodes {
		if !slices.Contains(st.Members.Joining, m.Name) {
			two = append(two, m.Name)
		}
	}
	began := st.Members.Quorum != conf.QuorumMajority && len(two) == 2 && onlyThese(st, two...)
	if ended, was := p.ruleKnown(); was == began && ended == !began {
		return nil
	}
	return p.change(func(r *pair.Record) { r.RuleBegan, r.RuleEnded = began, !began })
}

// ruleKnown says what this node has applied: the end of a pair's rule, or its beginning.
func (p *pairing) ruleKnown() (ended, began bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.record.RuleEnded, p.record.RuleBegan
}

// giveUpVote waits until this node, which is being stopped, votes no longer, so
// that the other one of the pair can decide alone. Voters change only when every promise
// has run out that was given before the other one led.
func (p *pairing) giveUpVote(ctx context.Context) {
	_, peer, ok := p.n.pairRule(p.n.State())
	if !ok {
		return
	}
	given := func(st *state.State) bool {
		alone := !slices.ContainsFunc(st.Voters.IDs, func(id string) bool { return consensus.NodeOf(id) == peer })
		return alone || !slices.Contains(st.Voters.IDs, p.n.cons.Self())
	}
	if given(p.n.State()) {
		return
	}
	limit := p.n.cons.PromiseRuns() + votesTime
	p.n.logger.Info("stopping: waiting until this node votes no longer, so that the other one goes on by itself", "node", peer, "at_most", limit)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := p.n.cons.Wait(ctx, given); err != nil {
		p.n.logger.Warn("stopping with a vote: the other node has to go on by the pair's rule", "err", err)
	}
}

// votesTime is what an election and a change of voters take beside the promises.
const votesTime = 3 * time.Second
