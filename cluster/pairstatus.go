package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/conf"
)

// Confirm is an operator's word that this node is to go on without the other:
// for a node that waits after a start. Under the rule fencing the other is
// fenced first all the same. Order.Force lets a node go on that does not vote; with
// Order.Dry nothing is done, and the error says what would be refused.
func (n *Node) Confirm(ctx context.Context) error {
	o := OrderOf(ctx)
	force := o.Force
	p := n.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.peer == "":
		return errors.New("there is nothing to confirm: this is no pair, a majority of voters decides")
	case p.said.Phase == pair.Rivals && p.acts:
		return fmt.Errorf("%s acts, by generation %v: confirm there to keep its state, or stop keepbeat there to keep this node's", p.peer, p.theirs)
	case p.said.Phase == pair.Sole && p.record.Current.Rival(p.theirs):
		// The other one waits for this word, too.
	case p.said.Phase == pair.Whole || p.said.Phase == pair.Sole && p.mayGoOn:
		return fmt.Errorf("there is nothing to confirm: this node takes part (%v), and %s does not have to be given up", p.said.Phase, p.peer)
	case p.said.Phase == pair.Rejoining:
		return fmt.Errorf("not now: %s", p.said.Why)
	case p.said.Phase == pair.Joining && !force:
		return fmt.Errorf("this node does not vote, so %s may have decided things that this node does not know; with --force they are lost", p.peer)
	case p.said.Phase == pair.Joining && n.hearsActing(p.peer):
		return fmt.Errorf("%s is heard, and acts: it takes this node in; to go on with what this node knows, stop keepbeat there first", p.peer)
	}
	if !o.Dry {
		p.confirmed, p.forced = o.By, force
		p.wake()
	}
	return nil
}

// hearsActing says whether a node is heard, and says that it acts.
func (n *Node) hearsActing(node string) bool {
	return slices.ContainsFunc(n.cfg.Datagrams.Peers(), func(p link.Peer) bool {
		m, ok := parseMeta(p.Meta)
		return p.Node == node && p.State == link.Up && ok && m.Acts
	})
}

// restartable says why a planned restart would be refused its long lease: the peer
// has to promise it, and the rule lets a node go on alone for one lease at a time.
func (p *pairing) restartable() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer == "" || p.said.Phase == pair.Whole || p.said.Phase == pair.Joining {
		return nil
	}
	return fmt.Errorf("this node is %v (%s): a planned restart needs the promise of %s, try again when `keepbeat status` shows both; `systemctl restart keepbeat` stops what runs here, and then waits for %s", p.said.Phase, p.said.Why, p.peer, p.peer)
}

// PairStatus is how a node stands in a pair.
type PairStatus struct {
	Rule       string `json:"rule"`
	Peer       string `json:"peer"`
	Phase      string `json:"phase"` // waiting, joining, whole, alone, surviving, sole, rejoining, rivals
	Why        string `json:"why,omitempty"`
	Generation string `json:"generation"`
	How        string `json:"how,omitempty"` // how the generation came about
	// Contested: the peer has not come back into this generation.
	Contested  bool   `json:"contested,omitempty"`
	TieBreaker string `json:"tie_breaker,omitempty"` // rule ping: when it answered last
	TieLost    bool   `json:"tie_lost,omitempty"`    // it does not answer
	OnlySerial bool   `json:"only_serial,omitempty"`
	// Failing: why what it has decided cannot be done; it tries again.
	Failing string `json:"failing,omitempty"`
	// Unasked, rule ping, while it decides: why addresses cannot be asked for. They are not taken.
	Unasked string `json:"unasked,omitempty"`
	// Elsewhere, rule ping, while it decides: addresses for which another machine answers.
	Elsewhere []string `json:"elsewhere,omitempty"`
}

// foreigner says who is heard and belongs to another cluster's history; empty: nobody.
func (p *pairing) foreigner() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.foreign
}

// tieLostAfter is for how long the tie-breaker may not answer before status says so.
const tieLostAfter = 5 * time.Second

// status returns nil when no rule of a pair is in force.
func (p *pairing) status() *PairStatus {
	now, lease := p.n.keeper.Now(), p.n.lease(p.n.State())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer == "" {
		return nil
	}
	s := &PairStatus{
		Rule: p.rule.String(), Peer: p.peer, Phase: p.said.Phase.String(), Why: p.said.Why,
		Generation: p.record.Current.String(), How: p.record.How, Contested: p.record.Contested != "", OnlySerial: p.serial,
		Failing: p.failing.why,
	}
	if p.looks(lease) {
		s.Unasked = p.unasked
		for _, a := range p.answered {
			s.Elsewhere = append(s.Elsewhere, a.Addr.String())
		}
	}
	if p.rule == conf.QuorumPing {
		s.TieBreaker, s.TieLost = "has never answered", true
		if p.tied {
			s.TieLost = now-p.tie > tieLostAfter
			s.TieBreaker = fmt.Sprintf("answered %v ago", (now - p.tie).Round(time.Millisecond))
		}
	}
	return s
}
