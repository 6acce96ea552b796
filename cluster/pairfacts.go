package cluster

import (
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// serversSeen is the newest configuration in the log, kept while raft is halted.
type serversSeen struct {
	votes, peerVotes, peerListed bool
	peer                         string // identity of the one that votes
}

// until is how far a look at the rule carries: a lease from when it was true.
// The only voter of a generation that both have agreed on needs no rule.
func (p *pairing) until(now time.Duration, f pair.Facts) time.Duration {
	if f.Rule != conf.QuorumPing || !f.PeerVotes && f.Record.Contested == "" {
		return now + f.Lease
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(now, p.tie) + f.Lease
}

// facts gathers what pair.Decide looks at.
func (p *pairing) facts(st *state.State, rule conf.Quorum, peer string) pair.Facts {
	n := p.n
	f := pair.Facts{
		Rule: rule, WaitForAll: n.cfg.Local.WaitForAll, InitDead: n.cfg.Local.InitDead, Lease: n.lease(st), Longest: n.longestLease(st), Self: n.self, Peer: peer,
		Uptime: time.Since(n.started), Left: n.keeper.Left(), Idle: n.manager == nil || n.manager.Idle(),
		Halted: n.cons.Halted(), Leaderless: n.cons.Leaderless(), Empty: n.cons.Empty(), Silence: n.keeper.Silence(peer),
		Leaving: n.isHalting(), HasLeft: st.Nodes[n.self].Left,
		Revoked: n.keeper.RevokedHere(peer, st.Nodes[peer].Incarnation), TieBreaker: -1,
	}
	if votes, follow, ok := n.cons.Servers(); ok {
		p.see(votes, follow, peer)
	}
	var now standing
	for _, x := range n.cfg.Datagrams.Peers() {
		if x.Node != peer {
			continue
		}
		f.PeerUp = x.State == link.Up
		f.OnlySerial = x.OnlySerial
		f.Heard = p.heardFor(f.PeerUp)
		if m, ok := parseMeta(x.Meta); ok && x.State != link.Down && x.Boot != 0 {
			p.mu.Lock()
			now = standing{x.Boot, m.generation(), m.Acts}
			voting := p.config.peer
			p.heard, p.theirs, p.acts, p.disagrees = m.Intent, m.generation(), m.Acts, ""
			if m.Rule != "" && m.Rule != rule.String() {
				p.disagrees = m.Rule
			}
			p.mu.Unlock()
			f.PeerSaid = &pair.Said{
				Generation: m.generation(), Empty: m.Empty, Cold: m.Cold, Acts: m.Acts, Echo: m.Echo,
				Stranger: voting != "" && voting != consensus.ID(peer, m.UUID),
			}
		}
	}
	p.watchStanding(now)
	f.Delay = p.letsFenceFirst(st, peer)
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.Left > 0 {
		p.started, p.mayGoOn, p.live, p.lapsed = true, true, true, time.Time{}
	} else if p.live {
		p.live, p.lapsed = false, time.Now()
	}
	if !p.lapsed.IsZero() {
		f.Lapsed = max(time.Since(p.lapsed), 1)
	}
	p.serial = f.OnlySerial
	if p.record.Intent != nil && !p.intended.IsZero() {
		f.Intended = max(time.Since(p.intended), 1)
	}
	f.Record, f.Started, f.MayGoOn = p.record, p.started, p.mayGoOn
	f.Fresh = !p.opened.IsZero() && time.Since(p.opened) < f.Lease
	f.Confirmed, f.Forced, f.Ordered = p.confirmed != "", p.forced, p.ordered != ""
	f.Votes, f.PeerVotes, f.PeerListed = p.config.votes, p.config.peerVotes, p.config.peerListed
	f.Fence, f.PeerRule = p.fence, p.disagrees
	if p.tied {
		f.TieBreaker = n.keeper.Now() - p.tie
	}
	f.Clear = p.clearLocked(p.wanted(st), f.Lease)
	return f
}

// heardFor returns for how long the peer has been heard.
func (p *pairing) heardFor(up bool) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !up:
		p.up = time.Time{}
		return 0
	case p.up.IsZero():
		p.up = time.Now()
	}
	return max(time.Since(p.up), 1)
}

func (p *pairing) see(votes, follow []string, peer string) {
	of := func(ids []string) int {
		return slices.IndexFunc(ids, func(id string) bool { return consensus.NodeOf(id) == peer })
	}
	c := serversSeen{votes: slices.Contains(votes, p.n.cons.Self()), peerListed: of(follow) >= 0}
	if i := of(votes); i >= 0 {
		c.peerVotes, c.peerListed, c.peer = true, true, consensus.Identity(votes[i])
	}
	p.mu.Lock()
	p.config = c
	p.mu.Unlock()
}

// stake is what a node would lose: the priorities of the groups that it owns, or
// of those among them that counts names.
func stake(st *state.State, node string, counts map[string]bool) int {
	sum := 0
	for _, name := range st.OwnedBy(node) {
		if _, c := st.Group(name); c != nil && (counts == nil || counts[name]) {
			sum += c.Priority
		}
	}
	return sum
}

// letsFenceFirst returns for how long this node lets the peer fence first.
func (p *pairing) letsFenceFirst(st *state.State, peer string) time.Duration {
	c := fencingOf(st)
	if c == nil {
		return 0
	}
	p.mu.Lock()
	started := p.started
	p.mu.Unlock()
	if started {
		// What is only in its own log the peer does not know, say that it stopped a
		// group when its cables were pulled; and both should go by the same.
		st = p.n.State()
	}
	self := p.n.self
	mine, theirs := stake(st, self, nil), stake(st, peer, nil)
	runs := mine
	if p.n.manager != nil {
		runs = stake(st, self, p.n.manager.Running())
	}
	return fencingDelay(mine > theirs || mine == theirs && self < peer, mine, theirs, runs, c.PriorityDelay)
}

// fencingDelay is for how long a node lets the peer fence first. By the log one of
// them is first, and the other waits a delay. If what still runs at the first (its
// interface may have lost its carrier) is no more than what the other owns, it gives
// way and waits twice as long. Neither knows what the other sees of itself;
// whatever that is, their waits differ by a delay.
func fencingDelay(first bool, mine, theirs, runs int, delay time.Duration) time.Duration {
	switch {
	case !first:
		return delay
	case runs < mine && runs <= theirs:
		return 2 * delay
	}
	return 0
}

func fencingOf(st *state.State) *conf.Fencing {
	if st.Spec == nil {
		return nil
	}
	return st.Spec.Fencing
}

// shuns says whether the peer gets no promise: from this node's intent on,
// whatever incarnation it speaks of, until it has come into this generation.
func (p *pairing) shuns(f pair.Facts) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return f.Ordered || f.Record.Intent != nil || f.Record.Current.Counter > 0 && p.theirs != f.Record.Current
}
