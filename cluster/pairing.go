package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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

// fenceAgain is the pause between two attempts of a survivor to fence its peer: heartbeat's.
const fenceAgain = 5 * time.Second

// pairing is this node's part in a pair: it gathers what pair.Decide looks at,
// and does what that decides. Its loop is the only one that extends the lease
// without the peer.
type pairing struct {
	n     *Node
	store pair.Store
	wire  pair.Wire
	kick  chan struct{}

	// Of run's goroutine: lease time at which turn is to be called again, and at
	// which this process went on after it had stood still.
	due, awake time.Duration

	mu        sync.Mutex // guards what follows
	record    pair.Record
	said      pair.Decision
	peer      string // empty: no rule of a pair is in force
	rule      conf.Quorum
	mayGoOn   bool
	started   bool
	live      bool      // the lease ran when it was looked at last
	lapsed    time.Time // when it ended
	opened    time.Time // when this process opened a generation
	intended  time.Time // when it recorded its intent
	confirmed string    // who has told it to go on alone; empty: nobody
	forced    bool
	ordered   bool              // an operator wants the peer fenced
	stuck     map[string]uint64 // by group: the epoch for which the peer was fenced
	disagrees string            // the rule that the peer's ha.yaml has, if it is another
	busy      bool              // a step that takes time is under way
	fence     pair.FenceState
	outcome   fencing.Outcome
	clear     map[pair.Place]time.Time // since when an address has not answered elsewhere
	unread    bool                     // it was said that the log cannot be read
	unasked   string                   // why some could not be asked for, as it was logged last
	answered  []pair.Place             // elsewhere, in the last round of questions
	probed    time.Time                // when the last round of questions ended
	looked    time.Duration            // lease time at which it ended
	permitted time.Time                // when a group was last told, or waited to be told, that it may start
	serial    bool                     // nothing but a serial line is left to the peer
	heard     string                   // id of the intent that the peer has told of
	theirs    pair.Generation          // of the peer, as heard last
	acts      bool                     // so does the peer, as heard last
	up        time.Time                // since when the peer has been heard; zero: it is not
	tie       time.Duration            // lease time at which the newest question was sent that the tie-breaker answered
	tied      bool                     // it has answered at all
	config    serversSeen
}

// serversSeen is the newest configuration in the log, kept while raft is halted.
type serversSeen struct {
	votes, peerVotes, peerListed bool
	peer                         string // identity of the one that votes
}

func newPairing(n *Node) *pairing {
	p := &pairing{n: n, store: n.cfg.Generations, wire: n.cfg.Wire, kick: make(chan struct{}, 1), record: n.cfg.Generation, stuck: map[string]uint64{}, clear: map[pair.Place]time.Time{}}
	if g, until, ok := parseCarry(n.cfg.Carry); ok && g == p.record.Current.String() && n.keeper.Now() < until {
		p.started, p.mayGoOn = true, true
	}
	return p
}

// Carry is what the daemon hands to the one that replaces it in a planned
// restart (Config.Carry): that it goes on under a lease that is still running.
// Empty: it does not.
func (n *Node) Carry() string {
	p := n.pair
	left := n.keeper.Left()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer == "" || !p.mayGoOn || left <= 0 {
		return ""
	}
	return fmt.Sprintf("%s %d", p.record.Current, (n.keeper.Now() + left).Nanoseconds())
}

func parseCarry(s string) (generation string, until time.Duration, ok bool) {
	var ns int64
	if n, err := fmt.Sscanf(s, "%s %d", &generation, &ns); err != nil || n != 2 {
		return "", 0, false
	}
	return generation, time.Duration(ns), true
}

// pairRule returns the rule of a pair and the other node, if one is in force:
// while a third node joins it goes on, and after one has left it begins when
// that is committed, so that no vote of the third counts any more.
func (n *Node) pairRule(st *state.State) (rule conf.Quorum, peer string, ok bool) {
	nodes, rule := n.nodesOf(st)
	if rule == conf.QuorumMajority || rule == 0 {
		return 0, "", false
	}
	count := 0
	for _, m := range nodes {
		if st.Members != nil && slices.Contains(st.Members.Joining, m.Name) {
			continue
		}
		count++
		if m.Name != n.self {
			peer = m.Name
		}
	}
	if st.Members == nil && n.pair != nil && n.pair.ruleEnded() {
		return 0, "", false // its log has not been read yet
	}
	if count != 2 || peer == "" || !onlyThese(st, n.self, peer) {
		return 0, "", false
	}
	return rule, peer, true
}

func (p *pairing) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// run turns until ctx ends.
func (p *pairing) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var changed <-chan struct{}
	if w, stop := p.n.cfg.Datagrams.Watch(); w != nil {
		defer stop()
		changed = w
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { p.ping(ctx) })
	wg.Go(func() { p.probe(ctx) })
	beat := p.n.selfReset.register("pair")
	defer beat.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
		case <-changed:
		case <-timer.C:
		}
		beat.Turn()
		again := p.turn(ctx)
		p.due = p.n.keeper.Now() + again
		timer.Reset(again)
	}
}

// view is the state as this node goes by it: what it has applied, or, while
// nobody leads, what its log holds. After a start it has applied nothing until
// there is a leader, and a node that waits for the other would know neither
// addresses nor devices.
func (p *pairing) view() *state.State {
	st := p.n.State()
	if p.n.cons.Leader() != "" {
		return st
	}
	all, err := p.n.cons.LogState()
	if err != nil {
		p.mu.Lock()
		said := p.unread
		p.unread = true
		p.mu.Unlock()
		if !said {
			p.n.logger.Error("pair: this node's own log cannot be read", "err", err)
		}
		return st
	}
	if all.Index <= st.Index {
		return st
	}
	if p.n.cfg.Fencing != nil && st.Spec == nil && all.Spec != nil {
		p.n.cfg.Fencing.Configure(all.Spec.Fencing)
	}
	return all
}

// turn looks once, and returns when to look again.
func (p *pairing) turn(ctx context.Context) time.Duration {
	st := p.view()
	rule, peer, ok := p.n.pairRule(st)
	p.mu.Lock()
	p.peer, p.rule = peer, rule
	p.mu.Unlock()
	if !ok {
		p.n.keeper.Pair("", false)
		p.adopt()
		return time.Second
	}
	p.fenceTheStuck(st, rule, peer)
	// Lease time is read before anything is looked at: what follows from it holds from then.
	now := p.n.keeper.Now()
	f := p.facts(st, rule, peer)
	if p.due > 0 && now-p.due > f.Lease/4 {
		p.awake = now
	}
	// What was not heard while nobody listened is no silence of the peer's: a node
	// that hung would else take, or fence, the one that went on.
	f.Silence = min(f.Silence, now-p.awake)
	d := pair.Decide(f)
	if r := p.n.cfg.Recorder; r != nil {
		r.Decided(f, d)
	}
	p.note(d, f)
	// The only voter acts by the rule too: its own word alone is no proof that it may.
	p.n.keeper.Pair(peer, f.Votes && !f.PeerVotes)
	if d.GoOn {
		p.n.keeper.GoAlone(p.until(now, rule, f.Lease))
	}
	p.n.keeper.Shun(peer, p.shuns(f))
	if d.Revoke {
		p.n.keeper.RevokeHere(peer, st.Nodes[peer].Incarnation)
	}
	p.follow(ctx, st, f, d)
	if d.Phase == pair.Whole && !d.GoOn {
		return max(min(pair.SilentAfter(f.Lease)-f.Silence, f.Left-pair.SilentAfter(f.Lease)), 5*time.Millisecond)
	}
	if d.Phase == pair.Waiting || d.Phase == pair.Joining {
		return 100 * time.Millisecond
	}
	return f.Lease / 20
}

// adopt makes a node belong to the generation of the cluster that it comes
// into: one that was a pair once has another than the first, and one that is a
// pair until this node votes, or has become one without it, may open another
// meanwhile. Two have decided that who were the only ones to vote.
func (p *pairing) adopt() {
	p.mu.Lock()
	newest := p.record.Current
	p.mu.Unlock()
	from := ""
	for _, x := range p.n.cfg.Datagrams.Peers() {
		if m, ok := parseMeta(x.Meta); ok && x.State != link.Down && x.Boot != 0 && !m.Empty && m.generation().Counter > newest.Counter {
			newest, from = m.generation(), x.Node
		}
	}
	if from == "" {
		return
	}
	p.mu.Lock()
	p.said = pair.Decision{Phase: pair.Rejoining, Why: fmt.Sprintf("%s has opened generation %v", from, newest), Stop: true}
	p.mu.Unlock()
	if p.n.manager != nil && !p.n.manager.Idle() {
		p.n.wake()
		return
	}
	p.step(func() error {
		if err := p.save(pair.Record{Current: newest, Discard: true, How: "heard of " + from}); err != nil {
			return err
		}
		p.n.fail(ErrRejoin)
		return nil
	})
}

// fenceTheStuck has the peer fenced when it cannot stop a group: once for each
// epoch, since a device that fails must not keep the pair from deciding anything else.
func (p *pairing) fenceTheStuck(st *state.State, rule conf.Quorum, peer string) {
	if rule != conf.QuorumFencing || fencingOf(st) == nil {
		return
	}
	for name, g := range st.Groups {
		if g.Owner != peer || g.Blocked == "" {
			continue
		}
		p.mu.Lock()
		tried := p.stuck[name] == g.Epoch
		p.stuck[name] = g.Epoch
		p.mu.Unlock()
		if !tried && p.orderFence() == nil {
			p.n.logger.Warn("pair: the peer cannot stop a group and is fenced", "node", peer, "group", name, "why", g.Blocked)
		}
	}
}

// until is how far a look at the rule carries: a lease from when it was true.
func (p *pairing) until(now time.Duration, rule conf.Quorum, lease time.Duration) time.Duration {
	if rule != conf.QuorumPing {
		return now + lease
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(now, p.tie) + lease
}

// leaseOf is the length of leases as the survivor counts it: never shorter than
// what anybody asks for.
func (p *pairing) facts(st *state.State, rule conf.Quorum, peer string) pair.Facts {
	n := p.n
	f := pair.Facts{
		Rule: rule, WaitForAll: n.cfg.Local.WaitForAll, InitDead: n.cfg.Local.InitDead, Lease: n.lease(st), Self: n.self, Peer: peer,
		Uptime: time.Since(n.started), Left: n.keeper.Left(), Idle: n.manager == nil || n.manager.Idle(),
		Halted: n.cons.Halted(), Leaderless: n.cons.Leaderless(), Empty: n.cons.Empty(), Silence: n.keeper.Silence(peer),
		Revoked: n.keeper.RevokedHere(peer, st.Nodes[peer].Incarnation), TieBreaker: -1,
	}
	if votes, follow, ok := n.cons.Servers(); ok {
		p.see(votes, follow, peer)
	}
	for _, x := range n.cfg.Datagrams.Peers() {
		if x.Node != peer {
			continue
		}
		f.PeerUp = x.State == link.Up
		f.OnlySerial = x.OnlySerial
		f.Heard = p.heardFor(f.PeerUp)
		if m, ok := parseMeta(x.Meta); ok && x.State != link.Down && x.Boot != 0 {
			p.mu.Lock()
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
	mine, theirs := stake(st, n.self), stake(st, peer)
	if c := fencingOf(st); c != nil && (mine < theirs || mine == theirs && n.self > peer) {
		f.Delay = c.PriorityDelay
	}
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
	f.Confirmed, f.Forced, f.Ordered = p.confirmed != "", p.forced, p.ordered
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

// stake is what a node would lose: the priorities of the groups that it owns.
func stake(st *state.State, node string) int {
	sum := 0
	for _, name := range st.OwnedBy(node) {
		if _, c := st.Group(name); c != nil {
			sum += c.Priority
		}
	}
	return sum
}

func fencingOf(st *state.State) *conf.Fencing {
	if st.Spec == nil {
		return nil
	}
	return st.Spec.Fencing
}

// note keeps what was decided, for status, and says when it is something new.
func (p *pairing) note(d pair.Decision, f pair.Facts) {
	p.mu.Lock()
	before := p.said
	p.said = d
	if d.Lapse {
		p.mayGoOn = false
	}
	if d.Phase == pair.Whole || d.Yield {
		p.confirmed, p.forced = "", false // it was for a peer that is back
	}
	p.mu.Unlock()
	if before.Phase != d.Phase || before.Stop != d.Stop {
		p.n.logger.Info("pair: "+d.Phase.String(), "why", d.Why, "generation", f.Record.Current.String())
		p.n.wake()
	}
}

// contested says whether the peer may not know this node's generation.
func (p *pairing) contested() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.record.Contested != ""
}

// stops says whether nothing may run here.
func (p *pairing) stops() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Stop && (p.peer != "" || p.said.Phase == pair.Rejoining)
}

// fill says in the hellos how this node stands in its pair.
func (p *pairing) fill(m *meta) {
	left := p.n.keeper.Left()
	// What a daemon that crashed left answers until the guard's deadline, a lease from its last word at most.
	clean := p.n.manager == nil || p.n.manager.Idle() || time.Since(p.n.started) > 2*max(p.n.lease(p.n.State()), conf.ProfileCalm.Lease)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer == "" {
		return
	}
	m.Acts = p.mayGoOn || left > 0
	m.Cold = clean && !m.Acts && p.record.Intent == nil && p.confirmed == ""
	m.Echo, m.Rule = p.heard, p.rule.String()
	if p.record.Intent != nil {
		m.Intent = p.record.Intent.Generation.ID
	}
}

// follow begins the one step that takes time.
func (p *pairing) follow(ctx context.Context, st *state.State, f pair.Facts, d pair.Decision) {
	if d.Fence {
		p.askDevices(ctx, st, f.Peer, f.Silence)
	}
	switch {
	case d.Discard:
		theirs := f.PeerSaid.Generation
		p.step(func() error {
			r := pair.Record{Current: theirs, Discard: true, How: "opened by " + f.Peer}
			if err := p.save(r); err != nil {
				return err
			}
			p.n.fail(ErrRejoin)
			return nil
		})
	case d.Withdraw:
		p.step(func() error {
			r := f.Record
			r.Intent = nil
			if err := p.save(r); err != nil {
				return err
			}
			p.mu.Lock()
			p.fence, p.confirmed, p.forced = pair.NotAsked, "", false
			p.mu.Unlock()
			return p.n.cons.Resume()
		})
	case d.Intend:
		p.step(func() error {
			// A generation that the peer has told of is passed by.
			var theirs pair.Generation
			if f.PeerSaid != nil {
				theirs = f.PeerSaid.Generation
			}
			g, err := f.Record.Current.Next(theirs)
			if err != nil {
				return err
			}
			if r := f.Record; r.Intent == nil {
				r.Intent = &pair.Intent{Generation: g, Peer: f.Peer, At: time.Now().UTC()}
				if err := p.save(r); err != nil {
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
		p.step(func() error { return p.open(f) })
	case d.Settle:
		p.step(func() error {
			r := f.Record
			r.Contested = ""
			return p.save(r)
		})
	}
}

// step runs f unless a step is under way. The loop goes on meanwhile: it is
// what extends the lease.
func (p *pairing) step(f func() error) {
	p.mu.Lock()
	if p.busy {
		p.mu.Unlock()
		return
	}
	p.busy = true
	p.mu.Unlock()
	p.n.jobs.run(func() {
		if err := f(); err != nil {
			p.n.logger.Error("pair: a step failed and is tried again", "err", err)
			time.Sleep(jobPause)
		}
		p.mu.Lock()
		p.busy = false
		p.mu.Unlock()
		p.wake()
	})
}

func (p *pairing) save(r pair.Record) error {
	if err := p.store.Save(r); err != nil {
		return fmt.Errorf("the generation cannot be stored: %w", err)
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
	p.mu.Lock()
	by, outcome, fenced := p.confirmed, p.outcome, p.fence == pair.Done
	p.mu.Unlock()
	g := f.Record.Intent.Generation
	how := fmt.Sprintf("%s went on without %s (rule %v)", p.n.self, f.Peer, f.Rule)
	if by != "" {
		how += ", confirmed by " + by
	}
	if err := p.save(pair.Record{Current: g, Contested: f.Peer, Force: true, How: how, Intent: f.Record.Intent}); err != nil {
		return err
	}
	err := p.n.cons.Reform(g, func() error {
		return p.save(pair.Record{Current: g, Contested: f.Peer, How: how})
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.started, p.mayGoOn, p.opened, p.lapsed = true, true, time.Now(), time.Time{}
	p.confirmed, p.forced, p.ordered, p.fence = "", false, false, pair.NotAsked
	p.config = serversSeen{votes: true}
	p.mu.Unlock()
	p.n.keeper.Rename(p.n.cons.Self())
	p.n.logger.Warn("pair: this node goes on alone under a new generation", "generation", g.String(), "how", how)
	p.tellOfIt(how, f.Peer, outcome, fenced)
	p.n.wake()
	return nil
}

// tellOfIt puts into the log how the generation came about and, when the peer
// was fenced, that.
func (p *pairing) tellOfIt(how, peer string, o fencing.Outcome, fenced bool) {
	n := p.n
	n.jobs.start("generation", n.wake, func(ctx context.Context) error {
		r, err := n.cons.Propose(ctx, state.Command{Note: &state.Note{Node: n.self, Text: "generation " + n.cons.Generation().String() + ": " + how}})
		if err != nil || !fenced {
			return err
		}
		// Everything that was in the log stands before the note: also an admission
		// of the peer that this node had not applied when it was cut off.
		if err := n.cons.Wait(ctx, func(st *state.State) bool { return st.Index >= r.Index }); err != nil {
			return err
		}
		return n.reportFenced(ctx, peer, n.State().Nodes[peer].Incarnation, o, nil)
	})
}

// askDevices fences the peer, in the background; a failure is tried again after a pause.
func (p *pairing) askDevices(ctx context.Context, st *state.State, peer string, silent time.Duration) {
	p.mu.Lock()
	if p.fence != pair.NotAsked || p.record.Intent == nil {
		p.mu.Unlock()
		return
	}
	p.fence = pair.Asked
	intent := p.record.Intent.Generation.ID
	// An answer counts for the intent that asked, and for no later one: the peer may
	// have started, rejoined and acted between the device's deed and its word.
	counts := func() bool { return p.record.Intent != nil && p.record.Intent.Generation.ID == intent }
	p.mu.Unlock()
	c := fencingOf(st)
	action := conf.FenceReboot
	if c != nil && c.Action != 0 {
		action = c.Action
	}
	p.n.logger.Warn("pair: fencing the peer", "node", peer, "action", action)
	p.n.jobs.run(func() {
		o, err := p.n.fence(ctx, fencing.Target{Node: peer, Silent: silent, Silence: p.n.silenceOf(peer), Ends: true}, action)
		p.mu.Lock()
		if !counts() {
			p.mu.Unlock()
			p.n.logger.Warn("pair: a device has answered to an order that is over", "node", peer, "done", o.Done, "err", err)
			return
		}
		p.outcome = o
		p.fence = pair.Failed
		if err == nil && o.Done {
			p.fence = pair.Done
		}
		done := p.fence == pair.Done
		p.ordered = p.ordered && done // what failed is not tried again for a peer that is heard
		p.mu.Unlock()
		p.wake()
		if done || ctx.Err() != nil {
			return
		}
		p.n.logger.Error("pair: the peer could not be fenced", "node", peer, "err", err, "again_in", fenceAgain)
		select {
		case <-ctx.Done():
		case <-time.After(fenceAgain):
		}
		p.mu.Lock()
		if p.fence == pair.Failed && counts() {
			p.fence = pair.NotAsked
		}
		p.mu.Unlock()
		p.wake()
	})
}

// shuns says whether the peer gets no promise: from this node's intent on,
// whatever incarnation it speaks of, until it has come into this generation.
func (p *pairing) shuns(f pair.Facts) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return f.Ordered || f.Record.Intent != nil || f.Record.Current.Counter > 0 && p.theirs != f.Record.Current
}

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

// orderFence is an operator's `keepbeat fence` in a pair.
func (p *pairing) orderFence() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.rule != conf.QuorumFencing:
		return fmt.Errorf("the rule of this pair is %v: nobody is fenced", p.rule)
	case p.record.Intent != nil:
		return fmt.Errorf("%s is being fenced already", p.peer)
	}
	p.ordered = true
	p.wake()
	return nil
}

// tellUnasked logs why addresses cannot be asked for, when that is something new. The caller holds mu.
func (p *pairing) tellUnasked(addrs []pair.Place, unasked map[pair.Place]error) {
	var why []string
	for _, a := range addrs {
		if err := unasked[a]; err != nil {
			why = append(why, err.Error())
		}
	}
	text := strings.Join(why, "; ")
	if text != "" && text != p.unasked {
		p.n.logger.Warn("pair: who has these addresses cannot be asked, so they are not taken", "err", text)
	}
	p.unasked = text
}

func (p *pairing) ruleEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.record.RuleEnded
}

// know stores what a change of nodes did to the rule, before this node says that it
// has applied it: the others count on it when they give the third node its vote.
func (p *pairing) know(st *state.State) error {
	if st.Members == nil {
		return nil
	}
	ended := st.Members.Quorum == conf.QuorumMajority
	p.mu.Lock()
	r := p.record
	p.mu.Unlock()
	if r.RuleEnded == ended {
		return nil
	}
	r.RuleEnded = ended
	return p.save(r)
}

// permit waits until the group's addresses may come up here. By the rule ping,
// while the peer is not heard, that is when they have not answered elsewhere
// for as long as its lease may run: also for a group that has been here all
// along and is started again, since the peer may have seen it silent.
func (p *pairing) permit(ctx context.Context, group string) error {
	if err := p.n.unfence(ctx); err != nil {
		return err
	}
	for {
		st := p.n.State()
		_, g := st.Group(group)
		p.mu.Lock()
		free := p.peer == "" || p.rule != conf.QuorumPing || p.said.Phase == pair.Whole || p.said.Phase == pair.Sole && p.record.Contested == ""
		lease := p.n.lease(st)
		p.permitted = time.Now()
		if !free && g != nil {
			addrs := addressesOf(g)
			free = len(addrs) > 0 && p.clearLocked(addrs, lease) >= pair.ClearFor(lease)
		}
		p.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("by the rule ping it waits until its addresses are free, or %s is heard: %w", p.peer, context.Cause(ctx))
		case <-time.After(lease / 20):
		}
	}
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

// Confirm is an operator's word that this node is to go on without the other:
// for a node that waits after a start. Under the rule fencing the other is
// fenced first all the same. force lets a node go on that does not vote.
func (n *Node) Confirm(by string, force bool) error {
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
		return fmt.Errorf("there is nothing to confirm: this node takes part (%v)", p.said.Phase)
	case p.said.Phase == pair.Rejoining:
		return fmt.Errorf("not now: %s", p.said.Why)
	case p.said.Phase == pair.Joining && !force:
		return fmt.Errorf("this node does not vote, so %s may have decided things that this node does not know; with --force they are lost", p.peer)
	}
	p.confirmed, p.forced = by, force
	p.wake()
	return nil
}

// giveUpVote waits until this node, which is being stopped, votes no longer, so
// that the other one of the pair can decide alone.
func (p *pairing) giveUpVote(ctx context.Context) {
	_, peer, ok := p.n.pairRule(p.n.State())
	if !ok {
		return
	}
	err := p.n.cons.Wait(ctx, func(st *state.State) bool {
		alone := !slices.ContainsFunc(st.Voters.IDs, func(id string) bool { return consensus.NodeOf(id) == peer })
		return alone || !slices.Contains(st.Voters.IDs, p.n.cons.Self())
	})
	if err != nil {
		p.n.logger.Warn("stopping with a vote: the other node has to go on by the pair's rule", "err", err)
	}
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
}

// tieLostAfter is for how long the tie-breaker may not answer before status says so.
const tieLostAfter = 5 * time.Second

// status returns nil when no rule of a pair is in force.
func (p *pairing) status() *PairStatus {
	now := p.n.keeper.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer == "" {
		return nil
	}
	s := &PairStatus{
		Rule: p.rule.String(), Peer: p.peer, Phase: p.said.Phase.String(), Why: p.said.Why,
		Generation: p.record.Current.String(), How: p.record.How, Contested: p.record.Contested != "", OnlySerial: p.serial,
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
