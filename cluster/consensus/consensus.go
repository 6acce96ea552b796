// Package consensus keeps the replicated state with raft: bootstrap without a
// first-node ceremony, voters, commands from any node, the disk probe.
package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// maxVoters is how many nodes vote at most: beyond seven every commit gets slower and nothing safer.
const maxVoters = 7

// Config is what a Consensus is given.
type Config struct {
	Node    string
	UUID    string // of the data directory
	Boot    uint64
	Nodes   []conf.Node
	Profile conf.Profile
	Stores  Stores
	// Generation is the history that this node belongs to: part of its server id.
	Generation pair.Generation
	// Transport makes the transport of a raft whose server id is self; it
	// addresses servers by their ids. It is called again when raft is started again.
	Transport func(self string) Transport
	// Forward sends a command to the leader's node and returns its result; its
	// errors are as those of Apply, which the other node calls with it.
	Forward func(ctx context.Context, node string, cmd []byte) (state.Result, error)
	// Members returns what the other nodes say of themselves at this moment;
	// a node that is not heard is not in it.
	Members func() map[string]Member
	// Current returns the nodes as they are now, and those among them that may
	// not vote yet; since is the index of the entry that made it so. nil: Nodes, for good.
	Current func() (nodes []conf.Node, joining []string, since uint64)
	// Pair says whether the rule of a pair is in force: two voters, of which one
	// that is stopped cleanly gives up its vote. nil: never.
	Pair func() bool
	// Configured is told under which server id this node votes, and the newest
	// configuration of voters in its log, committed or not: of each that is put into the
	// log before this node acknowledges it, and of what the log holds before raft
	// begins. It goes back only when raft takes an entry out. It must not block, nor ask
	// Latest. nil: nobody is.
	Configured func(self string, index uint64, ids []string)
	// Changed is called after every change of state or leadership; it must not block.
	Changed func()
	// Failed is called once when this node cannot go on (its disk hangs).
	Failed func(error)
	Now    func() time.Time
	// Recorder is told of what changes the state; nil: nobody is.
	Recorder Recorder
	// Compaction is for simulations, which are too short for what a daemon does; zero: that.
	Compaction Compaction
	Logger     *slog.Logger
}

// Compaction says when a snapshot of the state takes the place of the log.
type Compaction struct {
	After uint64        // entries since the last one
	Keep  uint64        // entries before it that stay, for a node that is a little behind
	Every time.Duration // between two looks: this, up to twice as long
}

// Member is what a node says of itself in its hellos.
type Member struct {
	UUID  string
	Empty bool   // has neither log nor state
	Nodes string // digest of its `nodes:`
	Index uint64 // last index applied
	// Behind are the nodes that it hears and that do not have the log (Behind).
	Behind []string
	// Steady says that it is heard on every link.
	Steady bool
	// Generation is the one that it belongs to; only members of one generation speak to each other.
	Generation pair.Generation
}

// Transport is a raft.Transport that can be closed.
type Transport interface {
	raft.Transport
	raft.WithClose
}

// ID returns the identity of a node with a data directory. Its server id in
// raft is that and the generation (ServerID).
func ID(node, uuid string) string { return node + "/" + uuid }

// ServerID returns the server id of a node in a generation.
func ServerID(node, uuid string, g pair.Generation) string { return ID(node, uuid) + g.Suffix() }

// Identity returns the identity in a server id: what ID returned, without the generation.
func Identity(id string) string {
	node, rest, _ := strings.Cut(id, "/")
	uuid, _, _ := strings.Cut(rest, "/")
	return ID(node, uuid)
}

// NodeOf returns the node's name in a server id.
func NodeOf(id string) string {
	name, _, _ := strings.Cut(id, "/")
	return name
}

// Consensus is this node's raft.
type Consensus struct {
	cfg     Config
	fsm     *fsm
	flush   chan struct{} // a commit whose news the followers should hear at once
	changed chan struct{} // another raft runs, or none
	number  atomic.Uint64
	started time.Time
	found   uint64                  // index of the last command in the log at the start; 0: none, or a snapshot has it
	run     atomic.Pointer[running] // nil: stopped (Halt)

	digests digests
	newest  newest

	restart sync.Mutex // held while raft is stopped or started

	mu         sync.Mutex // guards what follows
	generation pair.Generation
	leaderless time.Time // since when no leader has been known; zero: there is one
	lastChange time.Time // of the voters, or of leadership
	// When the last command was applied that was more than a probe, and since when
	// raft has refused commands for a transfer of leadership; zero: it does not.
	lastCommand, refusing time.Time
	waiters               map[chan struct{}]bool
	beginning             atomic.Bool       // bootstrapOverATerm is under way
	reached               map[string]uint64 // by node: the last index that it has said it has applied
	whole                 *state.State      // as LogState has read it last
	wholeAt               logEnd            // where the log ended then
}

// New starts raft on what the stores hold.
func New(cfg Config) (*Consensus, error) {
	c := &Consensus{
		cfg: cfg, flush: make(chan struct{}, 1), changed: make(chan struct{}, 1), started: time.Now(),
		waiters: map[chan struct{}]bool{}, reached: map[string]uint64{}, generation: cfg.Generation, leaderless: time.Now(),
	}
	var err error
	if c.found, err = lastCommand(cfg.Stores.Log); err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	c.newest.state, c.newest.tell = c.State, func(v state.Voters) {
		if cfg.Configured != nil {
			cfg.Configured(c.Self(), v.Index, v.IDs)
		}
	}
	c.fsm = newFSM(c.applied, c.digests.note, c.newest.restored, cfg.Recorder)
	return c, c.begin()
}

// applied runs after each committed entry.
func (c *Consensus) applied(cmd *state.Command) {
	if cmd != nil && cmd.Probe == nil {
		select {
		case c.flush <- struct{}{}:
		default:
		}
	}
	c.mu.Lock()
	if cmd != nil && cmd.Probe == nil {
		c.lastCommand = time.Now()
	}
	for w := range c.waiters {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	c.mu.Unlock()
	c.cfg.Changed()
}

// State returns the state as far as this node has applied the log.
func (c *Consensus) State() *state.State { return c.fsm.state.Load() }

// Latest returns the newest configuration of voters in this node's log,
// committed or not, with its index.
func (c *Consensus) Latest() (index uint64, ids []string) {
	v := c.newest.get()
	return v.Index, v.IDs
}

// configurationIndex finds where a configuration stands in the log: raft's own
// GetConfiguration leaves its Index 0.
func (c *Consensus) configurationIndex(ids []string) uint64 {
	first, err := c.cfg.Stores.Log.FirstIndex()
	if err != nil || first == 0 {
		first = 1
	}
	r := c.raft()
	if r == nil {
		return 0
	}
	for i := r.LastIndex(); i >= first; i-- {
		var l raft.Log
		if err := c.cfg.Stores.Log.GetLog(i, &l); err != nil {
			break // compacted meanwhile
		}
		if l.Type != raft.LogConfiguration {
			continue
		}
		if at := voters(raft.DecodeConfiguration(l.Data)); slices.Equal(slices.Sorted(slices.Values(at)), ids) {
			return i
		}
		return 0 // it is just changing
	}
	if v := c.State().Voters; slices.Equal(v.IDs, ids) {
		return v.Index // older than the log, so it is committed and in the snapshot
	}
	return 0
}

func (c *Consensus) latestVoters() []string {
	r := c.raft()
	if r == nil {
		return nil
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	ids := voters(f.Configuration())
	slices.Sort(ids)
	return ids
}

// Leader returns the leader's node name, empty when there is none.
func (c *Consensus) Leader() string {
	r := c.raft()
	if r == nil {
		return ""
	}
	_, id := r.LeaderWithID()
	return NodeOf(string(id))
}

// Leading says whether this node is the leader.
func (c *Consensus) Leading() bool {
	r := c.raft()
	return r != nil && r.State() == raft.Leader
}

// Empty says whether this node has neither log nor state.
func (c *Consensus) Empty() bool {
	if c.State().Index != 0 {
		return false
	}
	last, err := c.cfg.Stores.Log.LastIndex()
	return err == nil && last == 0
}

// Reading says whether a state is still behind what this node's log held at its
// start. Without a leader that goes on: what of it is committed nobody has said yet.
func (c *Consensus) Reading(st *state.State) bool { return st.Index < c.found }

func lastCommand(log raft.LogStore) (uint64, error) {
	first, err := log.FirstIndex()
	if err != nil || first == 0 {
		return 0, err
	}
	last, err := log.LastIndex()
	for i := last; err == nil && i >= first; i-- {
		var l raft.Log
		if err = log.GetLog(i, &l); err == nil && l.Type == raft.LogCommand {
			return i, nil
		}
	}
	return 0, err
}

// Stats returns raft's own figures.
func (c *Consensus) Stats() map[string]string {
	r := c.raft()
	if r == nil {
		return map[string]string{"state": "Stopped"}
	}
	return r.Stats()
}

// Wait returns when ok is true of the state, or with the context's error.
func (c *Consensus) Wait(ctx context.Context, ok func(*state.State) bool) error {
	w := make(chan struct{}, 1)
	c.mu.Lock()
	c.waiters[w] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiters, w)
		c.mu.Unlock()
	}()
	for !ok(c.State()) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w:
		}
	}
	return nil
}

// ErrNoLeader says that no leader took a command before the time was up.
var ErrNoLeader = errors.New("no quorum: this node is in touch with no majority of voters, so nothing can be decided from here; `keepbeat status` says which nodes and links are missing")

// UnknownError says that a command was handed to a leader and that nobody has
// answered for it: it may be in the log, and be applied yet.
type UnknownError struct{ Err error }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("it is not known whether this was done (%v): look at `keepbeat status` and `keepbeat history` before you repeat it", e.Err)
}

// Unwrap returns why no answer came.
func (e *UnknownError) Unwrap() error { return e.Err }

var errNoAnswer = errors.New("no answer came in time")

// Propose puts a command into the log, wherever the leader is, and returns
// what it came to. It tries again until ctx ends; the command is applied once at
// most. The error is an *UnknownError when it may have been applied; after any
// other nothing has been changed.
func (c *Consensus) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	cmd.ID = state.ID{Node: c.cfg.Node, Boot: c.cfg.Boot, N: c.number.Add(1)}
	var last error
	doubt := false // a leader has had it
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		cmd.At = c.cfg.Now().Round(time.Millisecond).UTC()
		b, err := cmd.Encode()
		if err != nil {
			return state.Result{}, err
		}
		var r state.Result
		switch leader := c.Leader(); {
		case c.Leading():
			r, err = c.Apply(ctx, b)
		case leader != "" && leader != c.cfg.Node:
			r, err = c.cfg.Forward(ctx, leader, b)
		default:
			err = ErrNoLeader
		}
		if err == nil {
			return r, r.Err()
		}
		var unknown *UnknownError
		if errors.As(err, &unknown) {
			doubt, err = true, unknown.Err
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-ctx.Done():
			switch {
			case doubt && last == nil:
				last = errNoAnswer
				fallthrough
			case doubt:
				return state.Result{}, &UnknownError{last}
			case last == nil:
				last = ErrNoLeader
			}
			return state.Result{}, last
		case <-time.After(wait):
		}
	}
}

// Apply puts an encoded command into the log of this node, which must be the
// leader. Errors are as Propose's.
func (c *Consensus) Apply(ctx context.Context, cmd []byte) (state.Result, error) {
	run := c.run.Load()
	if run == nil {
		return state.Result{}, ErrNoLeader
	}
	f := run.raft.Apply(cmd, time.Second)
	run.answered(f)
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends when raft answers or has ended
	select {
	case <-ctx.Done():
		return state.Result{}, &UnknownError{context.Cause(ctx)}
	case err := <-done:
		c.noteTransfer(err)
		switch {
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			return state.Result{}, err // raft has not taken it
		case err != nil:
			return state.Result{}, &UnknownError{err}
		}
		r, _ := f.Response().(state.Result)
		return r, nil
	}
}

// Run bootstraps when it is time, and as the leader minds voters and the disk, until ctx ends.
func (c *Consensus) Run(ctx context.Context) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.flusher(ctx) })
	wg.Go(func() { c.probe(ctx) })
	leading, leader, failing := false, "", false
	var m mover
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-c.leaderCh():
			leading, m = now, mover{next: m.next, pause: m.pause, again: m.again}
			c.changedVoters()
			c.cfg.Changed()
		case <-c.changed:
			leading, m = c.Leading(), mover{next: m.next, pause: m.pause, again: m.again}
			c.changedVoters()
			c.cfg.Changed()
		case <-tick.C:
			c.noteLeader()
			if l := c.Leader(); l != leader {
				leader = l
				if l == "" {
					c.cfg.Logger.Warn("no leader: no majority of voters is in touch")
				} else {
					c.cfg.Logger.Info("leader", "node", l)
				}
			}
			if err := c.cfg.Stores.Failing(); (err != nil) != failing {
				failing = err != nil
				if failing {
					c.cfg.Logger.Error("this node cannot write its log: it follows the cluster no longer, and helps to decide nothing, until it can", "err", err)
				} else {
					c.cfg.Logger.Info("this node can write its log again")
				}
			}
			switch {
			case leading && c.stuck() != "":
				c.again(c.stuck())
			case leading:
				c.mindVoters()
				c.mindLeader(&m)
			case c.Empty():
				c.bootstrap()
			}
			next := 250 * time.Millisecond // an idle daemon does not look ten times a second
			if c.Empty() {
				next = 100 * time.Millisecond
			}
			tick.Reset(next)
		}
	}
}

// Shutdown stops raft and closes the stores.
func (c *Consensus) Shutdown() error {
	return errors.Join(c.Halt(), c.cfg.Stores.Close())
}

// flusher tells the followers of a commit at once: the entry after it carries
// the commit index, where raft by itself waits for its CommitTimeout.
func (c *Consensus) flusher(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.flush:
		}
		if !c.Leading() {
			continue
		}
		if r := c.run.Load(); r != nil {
			f := r.raft.Barrier(time.Second)
			r.answered(f)
			// An error means that this node leads no more: the next leader's first entry does it.
			_ = f.Error()
		}
	}
}

const (
	probeEvery    = 2 * time.Second
	probeDeadline = 2 * time.Second
	probeTries    = 2
)

// probe commits a no-op now and then: a leader whose disk hangs goes on
// sending heartbeats, so that nobody takes its place (hashicorp/raft#503).
func (c *Consensus) probe(ctx context.Context) {
	failed, wait := 0, probeEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = probeEvery
		if !c.Leading() {
			failed = 0
			continue
		}
		b, err := state.Command{Probe: &struct{}{}}.Encode()
		if err != nil {
			continue
		}
		pctx, cancel := context.WithTimeout(ctx, probeDeadline)
		_, err = c.Apply(pctx, b)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			wait = probeEvery / 4 // it should be over at once
		}
		late, hangs := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, raft.ErrEnqueueTimeout), false
		if run := c.run.Load(); run != nil {
			hangs = run.disk.slow() > probeDeadline/2
		}
		if !late || !c.Leading() {
			failed = 0
			continue
		}
		failed++
		switch {
		case hangs && failed >= probeTries:
			c.cfg.Failed(fmt.Errorf("the leader could not commit for %v: its disk hangs", probeTries*(probeEvery+probeDeadline)))
			return
		case hangs:
			c.cfg.Logger.Error("this node leads and cannot commit: does its disk hang?", "tries", failed)
		case failed == 1:
			// It is not to blame, and its end would help nobody.
			c.cfg.Logger.Error("this node leads and cannot commit: too few of the other voters store what it sends; `keepbeat status` says which")
		}
	}
}

// NodesDigest is the form of `nodes:` that all nodes must agree on before they bootstrap.
func NodesDigest(nodes []conf.Node) string {
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s=%s;", n.Name, n.Role)
	}
	return b.String()
}

// voting returns the nodes that vote: the first seven of `nodes:`.
func voting(nodes []conf.Node) []string {
	var names []string
	for _, n := range nodes[:min(len(nodes), maxVoters)] {
		names = append(names, n.Name)
	}
	return names
}

// Waiting says in words what a cluster that has not begun is waiting for;
// empty when it has begun or nothing is missing.
func (c *Consensus) Waiting() string {
	if !c.Empty() {
		return ""
	}
	members := c.cfg.Members()
	var missing, begun []string
	for _, n := range c.cfg.Nodes {
		m, ok := members[n.Name]
		switch {
		case n.Name == c.cfg.Node:
		case !ok:
			missing = append(missing, n.Name+" has not been heard")
		case m.Nodes != NodesDigest(c.cfg.Nodes):
			missing = append(missing, n.Name+" lists other nodes in its ha.yaml (make nodes: the same everywhere)")
		case !m.Empty:
			begun = append(begun, n.Name)
		}
	}
	switch {
	case len(begun) > 0:
		text := "this node has an empty log and waits for the cluster to take it in; " + strings.Join(begun, ", ") + " belongs to it"
		if len(c.cfg.Nodes) > 2 {
			text += ": a majority has to be there"
		}
		return text
	case len(missing) == 0:
		return ""
	}
	return "the cluster begins when every node is there: " + strings.Join(missing, "; ")
}

// bootstrap makes the first configuration when every configured node says
// hello, is empty too and has the same `nodes:`. Only the bootstrapper does it.
func (c *Consensus) bootstrap() {
	names := voting(c.cfg.Nodes)
	if c.cfg.Node != c.bootstrapper() {
		return
	}
	members := c.cfg.Members()
	members[c.cfg.Node] = Member{UUID: c.cfg.UUID, Empty: true, Nodes: NodesDigest(c.cfg.Nodes), Generation: c.Generation()}
	var rc raft.Configuration
	for _, n := range c.cfg.Nodes {
		m, ok := members[n.Name]
		if !ok || !m.Empty || m.Nodes != NodesDigest(c.cfg.Nodes) || m.Generation != c.Generation() {
			return
		}
		id := ServerID(n.Name, m.UUID, m.Generation)
		s := raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}
		if !slices.Contains(names, n.Name) {
			s.Suffrage = raft.Nonvoter
		}
		rc.Servers = append(rc.Servers, s)
	}
	r := c.raft()
	if r == nil {
		return
	}
	switch err := r.BootstrapCluster(rc).Error(); {
	case errors.Is(err, raft.ErrCantBootstrap):
		if c.Empty() && c.beginning.CompareAndSwap(false, true) {
			go func() {
				defer c.beginning.Store(false)
				c.bootstrapOverATerm(rc)
			}()
		}
		return
	case err != nil:
		c.cfg.Logger.Error("bootstrap failed", "err", err)
		return
	}
	c.cfg.Logger.Info("the cluster begins: every node is here and empty", "nodes", len(rc.Servers))
}

// bootstrapOverATerm is what raft refuses: an empty node has seen a term, as it does
// when it is taken in and dies before the first entry has reached it, and
// the others have lost their disks since.
func (c *Consensus) bootstrapOverATerm(rc raft.Configuration) {
	if err := c.Halt(); err != nil {
		c.cfg.Logger.Error("bootstrap failed", "err", err)
		return
	}
	if err := errors.Join(first(c.cfg.Stores, rc), c.Resume()); err != nil {
		c.cfg.Logger.Error("bootstrap failed", "err", err)
		return
	}
	c.cfg.Logger.Info("the cluster begins: every node is here and empty", "nodes", len(rc.Servers))
}

// first writes the first entry into the log of a stopped raft, unless there is one.
func first(s Stores, rc raft.Configuration) error {
	last, err := s.Log.LastIndex()
	if err != nil || last > 0 {
		return err
	}
	term, err := s.Stable.GetUint64([]byte(keyTerm))
	if err != nil {
		return err
	}
	return s.Log.StoreLog(&raft.Log{Index: 1, Term: max(term, 1), Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(rc), AppendedAt: time.Now()})
}
