package lease

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Deadline is what the keeper needs of the guard: an absolute time of
// CLOCK_BOOTTIME after which the kernel cuts the held addresses off.
type Deadline interface {
	SetDeadline(boot time.Duration) error
}

// Config is what a Keeper is given.
type Config struct {
	Node   string // this node's name
	ID     string // its server id at the start
	Boot   uint64
	Holds  bool // a director; a witness only promises
	Length time.Duration
	Clock  Clock
	Store  Store
	Stored Record
	Guard  Deadline // nil: `guard: off`
	// Send hands a message to another node; it does not block and may lose it.
	Send func(node string, payload []byte)
	// Changed is called, from the keeper's goroutines and never under its
	// locks, when the lease begins or ends, a refusal arrives or a revocation progresses.
	Changed func()
	// Turned is called by the loop that renews, each time. nil: not called.
	Turned func()
	// Recorder is told of every call of the pure cores; nil: nobody is.
	Recorder Recorder
	Logger   *slog.Logger
}

// Keeper holds this node's lease and gives promises to others.
type Keeper struct {
	cfg   Config
	votes chan vote // to the voter's goroutine, which may wait for the disk
	kick  chan struct{}

	dropped, unstored trouble

	mu         sync.Mutex // guards what follows
	id         string     // this node's server id
	h          tracedHolder
	length     time.Duration
	long       time.Duration // asked for before a planned restart; 0: no
	end        time.Duration // of the lease as the guard was told
	wasLive    bool
	reset      bool                     // the guard's deadline is this boot's own: promises to earlier boots may be replaced
	reach      map[string]time.Duration // by node: as of when it hears this voter (Voter.Heard)
	seen       map[string]time.Duration // by node: when any Renew arrived
	started    time.Duration
	collecting map[string]*collection // by node
	shunned    map[string]bool        // nodes that get no promise
}

type collection struct {
	incarnation uint64
	revoked     map[string]bool // by voter id
}

type vote struct {
	from string
	boot uint64
	m    Message
}

// NewKeeper returns a keeper; Run makes it work.
func NewKeeper(cfg Config) *Keeper {
	return &Keeper{
		cfg: cfg, votes: make(chan vote, 1024), kick: make(chan struct{}, 1),
		h: newTracedHolder(cfg.Node, cfg.Recorder), id: cfg.ID, length: cfg.Length,
		reach: map[string]time.Duration{}, seen: map[string]time.Duration{},
		started: cfg.Clock.Now(), collecting: map[string]*collection{}, shunned: map[string]bool{},
	}
}

// Run renews and votes until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.vote(ctx)
	}()
	defer func() { <-done }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.kick:
		case <-timer.C:
		}
		if k.cfg.Turned != nil {
			k.cfg.Turned()
		}
		timer.Reset(k.renew())
	}
}

// renew begins a round and returns when the next is due.
func (k *Keeper) renew() time.Duration {
	k.mu.Lock()
	if !k.cfg.Holds {
		k.mu.Unlock()
		return time.Hour // a witness has nothing to renew, ever
	}
	if k.h.Incarnation() == 0 {
		k.mu.Unlock()
		return 50 * time.Millisecond
	}
	length := k.length
	if k.long > 0 {
		length = k.long
	}
	k.h.Round(k.cfg.Clock.Now(), length)
	type out struct {
		node string
		r    Renew
	}
	var outs []out
	for _, id := range k.h.Voters() {
		outs = append(outs, out{nodeOf(id), k.h.RenewFor(id, k.reset && k.long == 0)})
	}
	every := k.length / 4
	live, was := k.liveLocked(), k.wasLive
	k.wasLive = live
	k.mu.Unlock()
	if live != was {
		k.cfg.Changed()
	}
	for _, o := range outs {
		if o.node == k.cfg.Node {
			k.enqueue(vote{from: o.node, boot: k.cfg.Boot, m: o.r})
			continue
		}
		k.cfg.Send(o.node, Encode(o.r))
	}
	return every
}

// nodeOf returns the node's name in a server id.
func nodeOf(id string) string {
	name, _, _ := strings.Cut(id, "/")
	return name
}

func (k *Keeper) enqueue(v vote) {
	select {
	case k.votes <- v:
	default: // the disk hangs: a promise that cannot be stored is not given
	}
}

// Receive takes a datagram of another node.
func (k *Keeper) Receive(from string, boot uint64, payload []byte) {
	m, err := Decode(payload)
	if err != nil {
		k.dropped.is(k.cfg.Logger, slog.LevelWarn, "lease message dropped", err, "from", from)
		return
	}
	switch m := m.(type) {
	case Renew, Revoke:
		k.enqueue(vote{from: from, boot: boot, m: m})
	default:
		k.answer(from, m)
	}
}

// answer takes what a voter said; from is the node it came from.
func (k *Keeper) answer(from string, m Message) {
	changed := false
	k.mu.Lock()
	switch m := m.(type) {
	case Ack:
		if nodeOf(m.Voter) == from {
			k.h.Ack(m)
			changed = k.extendLocked()
		}
	case Refuse:
		if nodeOf(m.Voter) == from {
			before := k.h.Refused()
			k.h.Refuse(m)
			changed = k.h.Refused() != before
		}
	case Revoked:
		if c := k.collecting[m.Node]; c != nil && c.incarnation == m.Incarnation && nodeOf(m.Voter) == from && !c.revoked[m.Voter] {
			c.revoked[m.Voter] = true
			changed = true
		}
	}
	k.mu.Unlock()
	if changed {
		k.cfg.Changed()
	}
}

// extendLocked tells the guard of a later end. It reports whether the lease has just begun.
func (k *Keeper) extendLocked() bool {
	end := k.h.End()
	if end <= k.end {
		return false
	}
	// BOOTTIME is read before lease time: should this goroutine be stopped
	// between the two, the deadline comes out early, never late.
	boot := k.cfg.Clock.Boot()
	now := k.cfg.Clock.Now()
	if now >= end {
		return false
	}
	if k.cfg.Guard != nil {
		if err := k.cfg.Guard.SetDeadline(boot + (end - now)); err != nil {
			k.cfg.Logger.Error("the guard cannot be told of the lease; it will cut this node's addresses off", "err", err)
			return false
		}
	}
	k.end = end
	// Longer than what is asked for now: the late answer to a long lease that
	// could not be taken back.
	may := end <= now+k.length
	if may && !k.reset {
		// At once: until the voters' promises to an earlier boot are replaced, the
		// death of this node would keep its groups down for as long as those run.
		k.Kick()
	}
	k.reset = may
	began := !k.wasLive
	k.wasLive = true
	return began
}

func (k *Keeper) liveLocked() bool { return k.end > 0 && k.cfg.Clock.Now() < k.end }

// Live says whether this node may act as owner at this moment.
func (k *Keeper) Live() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.liveLocked()
}

// Left returns how long the lease still runs; 0 or less: it has ended.
func (k *Keeper) Left() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.end == 0 {
		return 0
	}
	return k.end - k.cfg.Clock.Now()
}

// Admit tells the incarnation that the log gave to this start; 0: it has ended
// it. Then the lease ends at once and none begins, whoever still promises one:
// voters that came after the revocation know nothing of it. It has to be told
// before the configuration that names them.
func (k *Keeper) Admit(incarnation uint64) {
	k.mu.Lock()
	changed := incarnation != k.h.Incarnation()
	k.h.Admit(incarnation)
	ended := incarnation == 0 && k.endLocked()
	k.mu.Unlock()
	if changed {
		k.Kick()
	}
	if ended {
		k.cfg.Changed()
	}
}

// endLocked ends the lease, first in the kernel. It reports whether there was one.
func (k *Keeper) endLocked() bool {
	live := k.liveLocked()
	if live && k.cfg.Guard != nil {
		if err := k.cfg.Guard.SetDeadline(0); err != nil {
			k.cfg.Logger.Error("the guard cannot be told that the lease has ended; it will close with the deadline that it has", "err", err)
		}
	}
	k.end, k.wasLive = 0, false
	return live
}

// Kick makes the next renewal start at once.
func (k *Keeper) Kick() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Refused returns how many voters refuse the present incarnation, and how many make a majority.
func (k *Keeper) Refused() (refused, majority int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.h.Refused(), k.h.config.Majority()
}

// Configure tells the newest committed configuration of voters that this node has applied.
func (k *Keeper) Configure(v Voters) {
	k.mu.Lock()
	k.h.Configure(v)
	k.mu.Unlock()
}

// Rename tells this node's server id: a pair changes it with the generation.
func (k *Keeper) Rename(id string) {
	k.mu.Lock()
	changed := id != k.id
	k.id = id
	k.mu.Unlock()
	if changed {
		k.Kick()
	}
}

// Pair is Holder.Pair.
func (k *Keeper) Pair(peer string, contested bool) {
	k.mu.Lock()
	k.h.Pair(peer, contested)
	k.mu.Unlock()
}

// Shun makes this node's voter give a node no promise, whatever incarnation it
// speaks of, or ends that.
func (k *Keeper) Shun(node string, shun bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if shun {
		k.shunned[node] = true
	} else {
		delete(k.shunned, node)
	}
}

// Now returns lease time, which GoAlone counts by.
func (k *Keeper) Now() time.Duration { return k.cfg.Clock.Now() }

// GoAlone is Holder.GoAlone. Until must follow from something that was true at
// a moment that lies a lease before it at most.
func (k *Keeper) GoAlone(until time.Duration) {
	k.mu.Lock()
	k.h.GoAlone(until)
	began := k.extendLocked()
	k.mu.Unlock()
	if began {
		k.cfg.Changed()
	}
}

// RevokeHere makes this node's own voter revoke a node's incarnation as soon
// as its promise has run out. Like Collect it is called again and again.
func (k *Keeper) RevokeHere(node string, incarnation uint64) {
	k.mu.Lock()
	c := k.collecting[node]
	if c == nil || c.incarnation != incarnation {
		k.collecting[node] = &collection{incarnation: incarnation, revoked: map[string]bool{}}
	}
	k.mu.Unlock()
	k.enqueue(vote{from: k.cfg.Node, m: Revoke{Node: node, Incarnation: incarnation}})
}

// RevokedHere says whether this node's own voter has revoked, durably.
func (k *Keeper) RevokedHere(node string, incarnation uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.collecting[node]
	return c != nil && c.incarnation == incarnation && c.revoked[k.id]
}

// Latest tells the newest configuration in this node's log, committed or not
// (consensus.Configured). It has to be told before this node acknowledges it, and
// that of the log that it starts with before Run.
func (k *Keeper) Latest(v Voters) {
	k.mu.Lock()
	k.h.Latest(v)
	k.mu.Unlock()
}

// SetLength changes the length of leases asked for from now on.
func (k *Keeper) SetLength(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	shorter := d < k.length
	k.length = d
	if shorter && k.long == 0 {
		k.shortenLocked()
	}
}

// Lengthen asks for a lease of length d and waits until it runs: for a planned
// restart. The error says that no majority promised it in time.
func (k *Keeper) Lengthen(ctx context.Context, d time.Duration) error {
	k.mu.Lock()
	k.long = d
	k.mu.Unlock()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		k.Kick()
		if left := k.Left(); left > d*3/4 {
			return nil
		}
		select {
		case <-ctx.Done():
			k.Shorten()
			return fmt.Errorf("no majority of voters promised a lease of %v: %w", d, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Shorten takes a Lengthen back.
func (k *Keeper) Shorten() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.long == 0 {
		return
	}
	k.long = 0
	k.shortenLocked()
}

// shortenLocked gives up what of the lease is longer than what is asked for
// from now on: first in the kernel, then here, and only then may a renewal carry
// Reset. A lease that has ended stays so.
func (k *Keeper) shortenLocked() {
	boot := k.cfg.Clock.Boot()
	now := k.cfg.Clock.Now()
	end := now + k.length
	if k.cfg.Guard != nil && k.end > end {
		if err := k.cfg.Guard.SetDeadline(boot + k.length); err != nil {
			k.cfg.Logger.Error("the guard cannot be told of the shorter lease", "err", err)
			k.reset = false // the guard still allows the long lease: nothing may replace its promises
			return
		}
	}
	k.h.Shorten(end)
	k.end = min(k.end, end)
	k.reset = k.end > 0
}

// Collect makes this node ask every voter to revoke the node's incarnation,
// and forgets what it asked before for that node. It is called again and again
// while the node is silent; voters answer when their promise has run out.
func (k *Keeper) Collect(node string, incarnation uint64) {
	k.mu.Lock()
	c := k.collecting[node]
	if c == nil || c.incarnation != incarnation {
		c = &collection{incarnation: incarnation, revoked: map[string]bool{}}
		k.collecting[node] = c
	}
	var ask []string
	for _, id := range k.h.Voters() {
		if !c.revoked[id] {
			ask = append(ask, nodeOf(id))
		}
	}
	k.mu.Unlock()
	m := Revoke{Node: node, Incarnation: incarnation}
	for _, n := range ask {
		if n == k.cfg.Node {
			k.enqueue(vote{from: n, m: m})
			continue
		}
		k.cfg.Send(n, Encode(m))
	}
}

// Collected says whether a majority of the newest committed configuration, and
// of the newest one in this node's log, has revoked.
func (k *Keeper) Collected(node string, incarnation uint64) bool {
	_, ok := k.CollectedIn(node, incarnation)
	return ok
}

// CollectedIn is Collected with the index of the committed configuration, for
// the log to compare: a leader that has been deposed does not know the newest.
func (k *Keeper) CollectedIn(node string, incarnation uint64) (config uint64, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.collecting[node]
	if c == nil || c.incarnation != incarnation || len(k.h.config.IDs) == 0 {
		return 0, false
	}
	for _, v := range []Voters{k.h.config, k.h.Newest()} {
		n := 0
		for _, id := range v.IDs {
			if c.revoked[id] {
				n++
			}
		}
		if len(v.IDs) > 0 && n < v.Majority() {
			return 0, false
		}
	}
	return k.h.config.Index, true
}

// Forget ends a Collect.
func (k *Keeper) Forget(node string) {
	k.mu.Lock()
	delete(k.collecting, node)
	k.mu.Unlock()
}

// Silence returns for how long a node has not proved that it hears this
// voter, counted at most since this daemon's start.
func (k *Keeper) Silence(node string) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cfg.Clock.Now() - max(k.reach[node], k.started)
}

// Deaf says whether a node that is silent speaks nevertheless.
func (k *Keeper) Deaf(node string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen[node] > k.reach[node]
}

// voter is a Voter, recorded or not.
type voter interface {
	Configure(Voters)
	Rename(id string)
	Is(id string, c Voters) bool
	Renew(now time.Duration, node string, boot uint64, r Renew) (Message, *Record)
	Revoke(now time.Duration, from string, r Revoke) (Message, *Record)
	Due(now time.Duration) (Message, []string, *Record)
	Saved()
	Heard(node string) (twoWay, any time.Duration)
}

// vote is the voter's goroutine: it alone touches the Voter, and waits for the disk.
func (k *Keeper) vote(ctx context.Context) {
	v := newTracedVoter(k.cfg.ID, k.cfg.Stored, k.cfg.Clock.Now(), k.cfg.Recorder)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if at, ok := v.Next(); ok {
			// Timers fire by another clock; a little late is safe, early is asked again.
			timer.Reset(max(at-k.cfg.Clock.Now(), 0) + 200*time.Microsecond)
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			k.due(v)
		case in := <-k.votes:
			k.handle(v, in)
		}
	}
}

// follow tells the voter its name and the newest configuration in this node's log,
// as they are at this moment. It says whether something of that is new to it.
func (k *Keeper) follow(v voter) (news bool) {
	k.mu.Lock()
	id, config := k.id, k.h.Newest()
	k.mu.Unlock()
	if v.Is(id, config) {
		return false
	}
	v.Rename(id)
	v.Configure(config)
	return true
}

// due answers the revocations whose promises have run out.
func (k *Keeper) due(v voter) {
	for {
		k.follow(v)
		answer, to, store := v.Due(k.cfg.Clock.Now())
		if answer == nil {
			return
		}
		if k.save(v, store) && !k.follow(v) {
			slices.Sort(to)
			for _, n := range to {
				k.reply(n, answer)
			}
		}
	}
}

func (k *Keeper) handle(v voter, in vote) {
	k.follow(v)
	var answer Message
	var store *Record
	switch m := in.m.(type) {
	case Renew:
		k.mu.Lock()
		shunned := k.shunned[in.from]
		k.mu.Unlock()
		if shunned {
			return
		}
		answer, store = v.Renew(k.cfg.Clock.Now(), in.from, in.boot, m)
		k.mu.Lock()
		k.reach[in.from], k.seen[in.from] = v.Heard(in.from)
		k.mu.Unlock()
	case Revoke:
		answer, store = v.Revoke(k.cfg.Clock.Now(), in.from, m)
	}
	// The disk may have taken its time: what has the old name, or names an older
	// configuration than the log has by now, is not said. Whoever asked asks again.
	if answer != nil && k.save(v, store) && !k.follow(v) {
		k.reply(in.from, answer)
	}
}

func (k *Keeper) save(v voter, r *Record) bool {
	if r == nil {
		return true
	}
	if err := k.cfg.Store.Save(*r); err != nil {
		k.unstored.is(k.cfg.Logger, slog.LevelError, "this voter cannot store its promises and gives none until it can", err)
		return false
	}
	k.unstored.over()
	v.Saved()
	return true
}

func (k *Keeper) reply(to string, m Message) {
	if to == k.cfg.Node {
		k.answer(to, m)
		return
	}
	k.cfg.Send(to, Encode(m))
}
