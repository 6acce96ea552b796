package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

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

	storing chan struct{} // holds one while the record is changed

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
	ordered   string            // on whose word, or why, the peer is to be fenced; empty: it is not
	orderedAt time.Time         // when that was said
	off       string            // who has said that the peer is off, for a device that waits for it
	stuck     map[string]uint64 // by group: the epoch for which the peer was fenced
	disagrees string            // the rule that the peer's ha.yaml has, if it is another
	busy      bool              // a step that takes time is under way
	failing   failing           // what the last one came to
	fence     pair.FenceState
	outcome   fencing.Outcome
	clear     map[pair.Place]time.Time // since when an address has not answered elsewhere
	unread    bool                     // it was said that the log cannot be read
	unasked   string                   // why some could not be asked for, as it was logged last
	answered  []pair.Place             // elsewhere, in the last round of questions
	probed    time.Time                // when the last round of questions ended
	looked    time.Duration            // lease time at which it ended
	permitted time.Time                // when a group was last told, or waited to be told, that it may start
	foreign   string                   // who is heard and belongs to another cluster's history
	serial    bool                     // nothing but a serial line is left to the peer
	heard     string                   // id of the intent that the peer has told of
	theirs    pair.Generation          // of the peer, as heard last
	acts      bool                     // so does the peer, as heard last
	stood     standing                 // the peer, as heard last
	up        time.Time                // since when the peer has been heard; zero: it is not
	tie       time.Duration            // lease time at which the newest question was sent that the tie-breaker answered
	tied      bool                     // it has answered at all
	config    serversSeen
}

func newPairing(n *Node) *pairing {
	p := &pairing{n: n, store: n.cfg.Generations, wire: n.cfg.Wire, kick: make(chan struct{}, 1), storing: make(chan struct{}, 1), record: n.cfg.Generation, stuck: map[string]uint64{}, clear: map[pair.Place]time.Time{}}
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
// that is committed, so that no vote of the third counts any more. A third node is
// none of the pair, and whoever has survived the other has its rule until that is back.
func (n *Node) pairRule(st *state.State) (rule conf.Quorum, peer string, ok bool) {
	if rule, peer := n.survived(st); rule != 0 {
		return rule, peer, true
	}
	nodes, rule := n.nodesOf(st)
	if st.Members != nil && slices.Contains(st.Members.Joining, n.self) {
		return 0, "", false
	}
	if n.pair != nil {
		ended, began := n.pair.ruleKnown()
		if ended {
			return 0, "", false
		}
		if st.Members != nil && !began && len(n.cfg.Local.Nodes) != 2 {
			return 0, "", false // the change of nodes that made a pair of them may never be committed
		}
	}
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
	if count != 2 || peer == "" || !onlyThese(st, n.self, peer) {
		return 0, "", false
	}
	return rule, peer, true
}

// survived returns the node that this one has survived, and by which rule; 0: by
// what the log says, or there is none. One that an operator has removed is none any more.
func (n *Node) survived(st *state.State) (rule conf.Quorum, peer string) {
	if n.pair == nil {
		return 0, ""
	}
	n.pair.mu.Lock()
	peer, rule = n.pair.record.Survived()
	n.pair.mu.Unlock()
	if nodes, _ := n.nodesOf(st); !slices.ContainsFunc(nodes, func(c conf.Node) bool { return c.Name == peer }) {
		return 0, ""
	}
	return rule, peer
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
	looked := p.n.keeper.Now() // it may have stood still while it gathered them
	if p.due > 0 && looked-p.due > f.Lease/4 {
		p.awake = looked
	}
	// What was not heard while nobody listened is no silence of the peer's: a node
	// that hung would else take, or fence, the one that went on.
	if listened := looked - p.awake; f.Silence > listened {
		f.Silence, f.Unheard = listened, true
	}
	d := pair.Decide(f)
	if r := p.n.cfg.Recorder; r != nil {
		r.Decided(f, d)
	}
	p.note(d, f)
	// The only voter acts by the rule too: its own word alone is no proof that it may.
	p.n.keeper.Pair(peer, f.Votes && !f.PeerVotes)
	if d.GoOn {
		p.n.keeper.GoAlone(p.until(now, f))
	}
	// A peer that speaks and does not hear would go on being promised: nothing to
	// it, and this node would have to wait that out.
	p.n.keeper.Shun(peer, d.Revoke && p.n.keeper.Deaf(peer) || p.shuns(f))
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

// note keeps what was decided, for status, and says when it is something new.
func (p *pairing) note(d pair.Decision, f pair.Facts) {
	p.mu.Lock()
	before := p.said
	p.said = d
	if d.Lapse {
		p.mayGoOn = false
	}
	if d.Phase == pair.Whole && !f.Listens() || d.Yield {
		if p.confirmed != "" {
			p.n.logger.Warn("pair: the confirmation is void: "+cmp.Or(d.Why, f.Peer+" is heard"), "by", p.confirmed)
		}
		p.confirmed, p.forced = "", false // it was for a peer that is back
	}
	if p.ordered != "" && f.Record.Intent == nil && (!d.Phase.MayFence() || time.Since(p.orderedAt) > orderLife) {
		p.n.logger.Warn("pair: what was ordered is not done any more: "+cmp.Or(d.Why, "it took too long to begin"), "node", f.Peer, "order", p.ordered)
		p.ordered = ""
	}
	p.mu.Unlock()
	// While it waits the reason is what somebody looks for.
	if before.Phase != d.Phase || before.Stop != d.Stop || d.Phase == pair.Waiting && before.Why != d.Why {
		p.n.logger.Info("pair: "+d.Phase.String(), "why", d.Why, "generation", f.Record.Current.String())
		p.n.wake()
	}
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
	// What a daemon that crashed left answers until the guard's deadline, a lease from its last word at most;
	// without a guard, until it is stopped. What the guard cannot cut off stays where it is in the log.
	clean := p.n.manager == nil || p.n.manager.Idle() || p.n.cfg.Guard != nil && time.Since(p.n.started) > 2*max(p.n.lease(p.n.State()), conf.ProfileCalm.Lease)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer == "" {
		if m.Empty { // a survivor that has another idea of the nodes may ask it
			m.Cold, m.Echo = clean && left <= 0, p.heard
		}
		return
	}
	m.Acts = p.mayGoOn || left > 0
	m.Cold = clean && !m.Acts && p.record.Intent == nil && p.confirmed == ""
	m.Echo, m.Rule = p.heard, p.rule.String()
	if p.record.Intent != nil {
		m.Intent = p.record.Intent.Generation.ID
	}
}
