package lease

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// The simulation drives the real Keeper, Holder, Voter and state.Apply by hand,
// in true time that no node knows, through what the safety argument allows:
// restarts, hangs, clocks whose rates are wrong, lost, late, doubled and
// reordered messages, partitions of one direction, two leaders, disks that
// fail, changes of voters, long leases. A node acts for a group when its kernel
// has it started and the guard's deadline has not passed; two at once is a violation.

// fault leaves a rule of the design out, to show that the simulation would find it.
type fault int

const (
	sound fault = iota
	voterForgetsAtRestart
	revocationDoesNotWait
	sendTimeNotedAfter
	incarnationIgnored
	renewsBeforeLeftoversStopped
	changesDoNotWait
)

const (
	simStep  = 2 * time.Millisecond
	simLease = 100 * time.Millisecond
)

type simStore struct {
	Memory
	fails bool
}

func (s *simStore) Save(r Record) error {
	if s.fails {
		return errors.New("no space left on device")
	}
	return s.Memory.Save(r)
}

type packet struct {
	at      time.Duration
	n       int
	from    *simNode
	boot    uint64
	to      *simNode
	payload []byte
}

type simNode struct {
	w        *simWorld
	name, id string
	director bool
	rate     float64
	offset   time.Duration
	store    simStore

	// What the kernel keeps when the daemon dies.
	deadline time.Duration
	active   map[string]uint64

	alive    bool
	wakes    time.Duration // true time at which a dead or hanging daemon goes on
	boot     uint64
	k        *Keeper
	v        *Voter
	nextTurn time.Duration // of renewal, by its own clock
	applied  int
	readable time.Duration // true time until which the log is not seen here
	appended Voters
	over     map[string]uint64
	stopping map[string]time.Duration // group: true time at which the stop is done
	number   uint64
	leads    bool
	lengthen time.Duration
}

type simWorld struct {
	t       *testing.T
	rng     *rand.Rand
	fault   fault
	now     time.Duration
	nodes   []*simNode
	by      map[string]*simNode
	flight  []packet
	sent    int
	cut     map[[2]string]time.Duration // direction: until
	log     []*state.State
	later   []proposal
	config  Voters
	change  time.Duration
	calm    bool
	longest time.Duration
	stats   struct{ revoked, moved, long, changed int }
}

type proposal struct {
	at  time.Duration
	cmd state.Command
}

func (n *simNode) Now() time.Duration  { return n.offset + time.Duration(float64(n.w.now)*n.rate) }
func (n *simNode) Boot() time.Duration { return n.Now() + 7*time.Hour }

// SetDeadline implements Deadline.
func (n *simNode) SetDeadline(boot time.Duration) error {
	if n.w.chance(0.002) {
		return errors.New("the map is gone")
	}
	n.deadline = boot
	return nil
}

func (n *simNode) acts(group string) bool {
	return n.active[group] != 0 && n.Boot() < n.deadline
}

func (w *simWorld) chance(p float64) bool { return w.rng.Float64() < p }

func (w *simWorld) upTo(d time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(d) + 1))
}

var simGroups = []string{"web", "mail"}

func newSimWorld(t *testing.T, seed uint64, f fault) *simWorld {
	w := &simWorld{t: t, rng: rand.New(rand.NewPCG(seed, uint64(f))), fault: f, by: map[string]*simNode{}, cut: map[[2]string]time.Duration{}, longest: simLease}
	s := state.New()
	spec := &conf.Spec{}
	for _, g := range simGroups {
		spec.Groups = append(spec.Groups, conf.Group{Name: g})
	}
	s, _ = s.Apply(1, state.Command{Spec: &state.SetSpec{Spec: spec}})
	count := 3 + w.rng.IntN(3)
	for i := range count {
		name := string(rune('a' + i))
		n := &simNode{w: w, name: name, id: name + "/1", director: i != 2, rate: 1 + (w.rng.Float64()*2-1)/100, offset: w.upTo(time.Hour) + time.Hour, active: map[string]uint64{}}
		if w.chance(0.5) {
			n.rate = []float64{0.99, 1.01}[w.rng.IntN(2)]
		}
		w.nodes = append(w.nodes, n)
		w.by[name] = n
	}
	w.config = Voters{Index: 2, IDs: []string{"a/1", "b/1", "c/1"}}
	if count == 5 && w.chance(0.3) {
		w.config.IDs = append(w.config.IDs, "d/1", "e/1")
	}
	w.log = []*state.State{s.SetVoters(2, w.config.IDs)}
	for _, n := range w.nodes {
		n.appended = w.config
		n.start()
	}
	return w
}

func (w *simWorld) last() *state.State { return w.log[len(w.log)-1] }

func (n *simNode) start() {
	w := n.w
	n.alive = true
	n.boot = w.rng.Uint64()
	n.number = 0
	n.over, n.stopping = map[string]uint64{}, map[string]time.Duration{}
	n.leads = false
	n.lengthen = 0
	n.nextTurn = 0
	stored := n.store.Record.clone()
	if w.fault == voterForgetsAtRestart {
		stored.Longest = nil
	}
	n.k = NewKeeper(Config{
		Node: n.name, ID: n.id, Boot: n.boot, Holds: n.director, Length: simLease,
		Clock: simClock{n}, Store: &n.store, Stored: stored, Guard: n,
		Send:    func(to string, b []byte) { w.send(n, w.by[to], b) },
		Changed: func() {}, Logger: slog.New(slog.DiscardHandler),
	})
	n.v = NewVoter(n.id, stored, n.Now())
}

type simClock struct{ n *simNode }

func (c simClock) Now() time.Duration  { return c.n.Now() }
func (c simClock) Boot() time.Duration { return c.n.Boot() }

func (w *simWorld) send(from, to *simNode, b []byte) {
	copies := 1
	if w.chance(0.05) {
		copies = 2
	}
	for range copies {
		if w.chance(0.05) || w.cut[[2]string{from.name, to.name}] > w.now {
			continue
		}
		delay := w.upTo(3 * time.Millisecond)
		if w.chance(0.03) {
			delay = w.upTo(6 * simLease)
		}
		w.sent++
		w.flight = append(w.flight, packet{w.now + delay, w.sent, from, from.boot, to, b})
	}
}

func (w *simWorld) propose(n *simNode, cmd state.Command) {
	if w.chance(0.1) {
		return
	}
	n.number++
	cmd.ID = state.ID{Node: n.name, Boot: n.boot, N: n.number}
	delay := w.upTo(6 * time.Millisecond)
	if w.chance(0.05) {
		delay = w.upTo(8 * simLease)
	}
	w.later = append(w.later, proposal{w.now + delay, cmd})
}

func (w *simWorld) commit(s *state.State) { w.log = append(w.log, s) }

// step moves true time on. It returns what was violated.
func (w *simWorld) step() error {
	w.now += simStep
	w.later = slices.DeleteFunc(w.later, func(p proposal) bool {
		if p.at > w.now {
			return false
		}
		s, r := w.last().Apply(uint64(len(w.log)+2), p.cmd)
		if p.cmd.Revoke != nil && r.Refused == "" {
			w.stats.revoked++
			w.stats.moved += int(r.Number)
		}
		w.commit(s)
		return true
	})
	w.weather()
	slices.SortFunc(w.flight, func(a, b packet) int { return cmp.Or(cmp.Compare(a.at, b.at), a.n-b.n) })
	due := 0
	for due < len(w.flight) && w.flight[due].at <= w.now {
		due++
	}
	now := slices.Clone(w.flight[:due])
	w.flight = slices.Clone(w.flight[due:])
	for _, p := range now {
		switch {
		case !p.to.alive:
		case p.to.wakes > w.now: // in the socket's buffer
			p.at = p.to.wakes
			w.flight = append(w.flight, p)
		default:
			p.to.k.Receive(p.from.name, p.boot, p.payload)
			p.to.drain()
		}
	}
	for _, n := range w.nodes {
		n.turn()
	}
	for _, g := range simGroups {
		var who []string
		for _, n := range w.nodes {
			if n.acts(g) {
				who = append(who, fmt.Sprintf("%s (epoch %d)", n.name, n.active[g]))
			}
		}
		if len(who) > 1 {
			return fmt.Errorf("at %v group %s is active on %v", w.now, g, who)
		}
	}
	return nil
}

// weather lets misfortune come and go.
func (w *simWorld) weather() {
	if w.calm {
		clear(w.cut)
		return
	}
	if w.chance(0.01) {
		one := w.nodes[w.rng.IntN(len(w.nodes))]
		until := w.now + w.upTo(8*simLease)
		in, out := w.chance(0.8), w.chance(0.8)
		some := w.chance(0.5)
		for _, o := range w.nodes {
			if some && w.chance(0.5) {
				continue
			}
			if in {
				w.cut[[2]string{o.name, one.name}] = until
			}
			if out {
				w.cut[[2]string{one.name, o.name}] = until
			}
		}
		if w.chance(0.7) {
			one.readable = until
		}
	}
	for _, n := range w.nodes {
		if w.chance(0.001) {
			n.readable = w.now + w.upTo(8*simLease)
		}
		if w.chance(0.002) {
			n.store.fails = !n.store.fails
		}
		if w.chance(0.02) {
			n.leads = w.chance(0.4)
		}
		switch {
		case !n.alive && n.wakes <= w.now:
			n.start()
		case !n.alive:
		case w.chance(0.002):
			n.alive, n.wakes = false, w.now+w.upTo(2*simLease)
		case w.chance(0.001):
			n.wakes = w.now + w.upTo(5*simLease) // SIGSTOP
		case n.director && n.lengthen == 0 && w.chance(0.002):
			n.lengthen = 3*simLease + w.upTo(7*simLease)
			n.k.mu.Lock()
			n.k.long = n.lengthen
			n.k.mu.Unlock()
			w.longest = max(w.longest, n.lengthen)
		case n.lengthen > 0 && w.chance(0.05):
			n.lengthen = 0
			n.k.Shorten()
		case n.director && w.chance(0.003):
			n.k.SetLength(simLease/2 + w.upTo(simLease/2))
		}
	}
	w.changeVoters()
}

// changeVoters adds or takes away one voter: first a majority of the new
// configuration has it in its logs, then it is committed.
func (w *simWorld) changeVoters() {
	wait := time.Duration(float64(Stretch(w.longest)) * 1.02)
	if w.fault == changesDoNotWait {
		wait = 0
	}
	if len(w.nodes) < 4 || w.now-w.change < wait || !w.chance(0.05) {
		return
	}
	next := Voters{Index: uint64(len(w.log) + 2), IDs: slices.Clone(w.config.IDs)}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if i := slices.Index(next.IDs, n.id); i >= 0 {
		if len(next.IDs) <= 2 {
			return
		}
		next.IDs = slices.Delete(next.IDs, i, i+1)
	} else {
		next.IDs = append(next.IDs, n.id)
		slices.Sort(next.IDs)
	}
	var have []*simNode
	for _, i := range w.rng.Perm(len(w.nodes)) {
		m := w.nodes[i]
		if m.alive && m.wakes <= w.now && m.readable <= w.now && slices.Contains(next.IDs, m.id) {
			have = append(have, m)
		}
	}
	if len(have) < next.Majority() {
		return
	}
	for i, m := range have {
		if i < next.Majority() || w.chance(0.5) {
			m.appended = next
		}
	}
	w.commit(w.last().SetVoters(next.Index, next.IDs))
	w.config, w.change = next, w.now
	w.longest = simLease
	for _, m := range w.nodes {
		w.longest = max(w.longest, m.lengthen)
		for _, l := range m.store.Record.Longest {
			w.longest = max(w.longest, l)
		}
	}
	w.stats.changed++
}

// drain is the voter's goroutine.
func (n *simNode) drain() {
	for {
		select {
		case in := <-n.k.votes:
			n.handle(in)
		default:
			return
		}
	}
}

func (n *simNode) handle(in vote) {
	switch m := in.m.(type) {
	case Revoke:
		if n.w.fault == revocationDoesNotWait {
			p := n.v.promises[m.Node]
			p.until = 0
			n.v.promises[m.Node] = p
		}
	case Renew:
		if n.w.fault == incarnationIgnored {
			old := n.v.stored.Revoked[in.from]
			n.v.stored.Revoked[in.from] = 0
			n.k.handle(n.v, in)
			n.v.stored.Revoked[in.from] = old
			return
		}
	}
	n.k.handle(n.v, in)
}

// turn is the daemon's loops: renewal, voter, actor, leader.
func (n *simNode) turn() {
	w := n.w
	if !n.alive || n.wakes > w.now {
		return
	}
	n.k.due(n.v)
	select {
	case <-n.k.kick:
		n.nextTurn = 0
	default:
	}
	if n.Now() >= n.nextTurn {
		n.nextTurn = n.Now() + n.k.renew()
		if w.fault == sendTimeNotedAfter && len(n.k.h.rounds) > 0 && w.chance(0.1) {
			pause := w.upTo(simLease)
			r := &n.k.h.rounds[len(n.k.h.rounds)-1]
			r.sent += pause
			n.wakes = w.now + pause
		}
		n.drain()
	}
	if n.readable <= w.now {
		for n.applied < len(w.log)-1 && w.chance(0.8) {
			n.applied++
		}
	}
	st := w.log[n.applied]
	n.configure(st)
	if n.director {
		n.act(st)
	}
	if n.leads && n.readable <= w.now {
		n.lead(st)
	}
}

func (n *simNode) configure(st *state.State) {
	committed := Voters{Index: st.Voters.Index, IDs: st.Voters.IDs}
	n.k.Configure(committed)
	if n.appended.Index < committed.Index {
		n.appended = committed
	}
	n.k.Latest(n.appended)
	n.drain()
}

func (n *simNode) act(st *state.State) {
	w := n.w
	me := st.Nodes[n.name]
	mine := me.Boot == n.boot
	admit := state.Admit{Node: n.name, ID: n.id, Boot: n.boot, Director: true}
	ask := false
	switch {
	case mine && me.Valid:
		// What an earlier daemon left and the log has given away is stopped before
		// the lease may open the guard for it.
		if n.k.h.Incarnation() == me.Incarnation || n.settled(st) || w.fault == renewsBeforeLeftoversStopped {
			n.k.Admit(me.Incarnation)
		}
		if refused, _ := n.k.Refused(); refused > 0 {
			admit.After, ask = me.Incarnation, true
		}
	case mine:
		admit.After, ask = me.Incarnation, len(n.active) == 0
	default:
		ask = true
	}
	if ask && w.chance(0.3) {
		w.propose(n, state.Command{Admit: &admit})
	}
	if !mine {
		return
	}
	for _, name := range simGroups {
		g := st.Groups[name]
		wanted := me.Valid && g.Owner == n.name && g.Target == ""
		running := n.active[name]
		stop, stopping := n.stopping[name]
		switch {
		case stopping && stop <= w.now:
			delete(n.stopping, name)
			delete(n.active, name)
			n.over[name] = max(n.over[name], running)
		case stopping:
		case running != 0 && (!wanted || running != g.Epoch):
			n.stopping[name] = w.now + w.upTo(simLease/2)
		case running == 0 && wanted && g.Epoch > n.over[name] && n.k.Live():
			n.active[name] = g.Epoch
		case running == 0 && g.Owner == n.name && me.Valid && !wanted:
			n.over[name] = max(n.over[name], g.Epoch)
		}
		if me.Valid && g.Owner == n.name && n.active[name] == 0 && n.over[name] >= g.Epoch && w.chance(0.3) {
			w.propose(n, state.Command{Stopped: &state.Stopped{Group: name, Node: n.name, Incarnation: me.Incarnation, Epoch: g.Epoch}})
		}
	}
	if n.lengthen > 0 && n.k.Left() > n.lengthen*3/4 && w.chance(0.3) {
		w.stats.long++
		n.start() // re-exec: everything it started stays
	}
}

func (n *simNode) settled(st *state.State) bool {
	for name, epoch := range n.active {
		if g := st.Groups[name]; g.Owner != n.name || g.Epoch != epoch {
			return false
		}
	}
	return true
}

func (n *simNode) lead(st *state.State) {
	w := n.w
	var able []string
	for _, d := range w.nodes {
		if d.director && st.Nodes[d.name].Valid {
			able = append(able, d.name)
		}
	}
	pick := func(g state.Group) state.Move {
		to := able[w.rng.IntN(len(able))]
		return state.Move{
			Group: g.Name, Owner: g.Owner, Epoch: g.Epoch, Incarnation: st.Nodes[g.Owner].Incarnation,
			To: to, ToIncarnation: st.Nodes[to].Incarnation,
		}
	}
	for _, d := range w.nodes {
		node := st.Nodes[d.name]
		if !node.Valid || d == n {
			continue
		}
		if n.k.Silence(d.name) < simLease*6/10 && !w.chance(0.02) {
			continue
		}
		n.k.Collect(d.name, node.Incarnation)
		n.drain()
		config, ok := n.k.CollectedIn(d.name, node.Incarnation)
		if !ok || !w.chance(0.5) {
			continue
		}
		var moves []state.Move
		for _, g := range st.OwnedBy(d.name) {
			if m := pick(st.Groups[g]); m.To != d.name {
				moves = append(moves, m)
			}
		}
		w.propose(n, state.Command{Revoke: &state.Revoke{Node: d.name, Incarnation: node.Incarnation, Why: "silent", Voters: config, Moves: moves}})
	}
	for _, name := range simGroups {
		g := st.Groups[name]
		switch {
		case len(able) == 0:
		case g.Owner == "" && w.chance(0.3):
			w.propose(n, state.Command{Assign: &state.Assign{Moves: []state.Move{pick(g)}}})
		case g.Owner != "" && g.Target == "" && w.chance(0.002):
			w.propose(n, state.Command{Hand: &state.Hand{Moves: []state.Move{pick(g)}}})
		}
	}
}

// run plays one schedule of five seconds, and returns what was violated.
func (w *simWorld) run() error {
	for w.now < 5*time.Second {
		if err := w.step(); err != nil {
			return err
		}
	}
	return nil
}

func TestNoTwoNodesActForAGroupWhateverHappens(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 50
	}
	var revoked, moved, long, changed int
	for seed := range seeds {
		w := newSimWorld(t, uint64(seed), sound)
		if err := w.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		revoked, moved, long, changed = revoked+w.stats.revoked, moved+w.stats.moved, long+w.stats.long, changed+w.stats.changed
	}
	t.Logf("%d schedules: %d revocations, %d groups moved, %d planned restarts, %d changes of voters", seeds, revoked, moved, long, changed)
	if revoked < seeds/2 || moved < seeds/4 || long < seeds/10 || changed < seeds/4 {
		t.Fatal("the schedules are too tame to show anything")
	}
}

// A simulation that finds nothing shows something only if it finds the faults that are there.
func TestEachRuleLeftOutIsFound(t *testing.T) {
	for f, name := range map[fault]string{
		voterForgetsAtRestart:        "rule 3: a voter that has just started treats no promise as running",
		revocationDoesNotWait:        "rule 5: a voter revokes before its promise has run out",
		sendTimeNotedAfter:           "rule 2: the time is noted after sending",
		incarnationIgnored:           "rule 5: a voter promises to an incarnation that it has revoked",
		changesDoNotWait:             "rule 4: voters change without a wait",
		renewsBeforeLeftoversStopped: "rule 8: a lease begins before what an earlier daemon left is stopped",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range 1000 {
				if err := newSimWorld(t, uint64(seed), f).run(); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Fatal("not found in 1000 schedules")
		})
	}
}
