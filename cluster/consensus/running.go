package consensus

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/cluster/transport"
)

// running is a raft and what it runs on. A pair stops it and starts another
// one, over the same log, within the life of the daemon.
type running struct {
	raft      *raft.Raft
	transport Transport
	disk      *disk
	gone      chan struct{} // closed when raft has ended
}

// answered makes a future end with raft, too: what raft has handed over to the
// state and that has not got there when it is shut down is never answered. ShutdownCh
// is what raft itself puts there for other futures.
func (r *running) answered(f raft.Future) {
	v := reflect.Indirect(reflect.ValueOf(f))
	if v.Kind() != reflect.Struct {
		return
	}
	if c := v.FieldByName("ShutdownCh"); c.IsValid() && c.CanSet() && c.Type() == reflect.TypeOf(r.gone) {
		c.Set(reflect.ValueOf(r.gone))
	}
}

func (c *Consensus) raft() *raft.Raft {
	if r := c.run.Load(); r != nil {
		return r.raft
	}
	return nil
}

func (c *Consensus) leaderCh() <-chan bool {
	if r := c.raft(); r != nil {
		return r.LeaderCh()
	}
	return nil
}

// Self returns this node's server id, generation included.
func (c *Consensus) Self() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ServerID(c.cfg.Node, c.cfg.UUID, c.generation)
}

// Generation returns the history that this node belongs to.
func (c *Consensus) Generation() pair.Generation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// Servers returns the newest configuration in the log: who votes, and who
// follows without a vote. ok is false while raft is halted.
func (c *Consensus) Servers() (votes, follow []string, ok bool) {
	r := c.raft()
	if r == nil {
		return nil, nil, false
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil, nil, false
	}
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			votes = append(votes, string(s.ID))
		} else {
			follow = append(follow, string(s.ID))
		}
	}
	return votes, follow, true
}

// noteLeader keeps the time since when there has been no leader.
func (c *Consensus) noteLeader() {
	known := c.Leader() != ""
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case known:
		c.leaderless = time.Time{}
	case c.leaderless.IsZero():
		c.leaderless = time.Now()
	}
}

// Leaderless returns for how long no leader has been known; 0: there is one.
func (c *Consensus) Leaderless() time.Duration {
	c.noteLeader()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaderless.IsZero() {
		return 0
	}
	return time.Since(c.leaderless)
}

// begin starts raft. The caller holds c.restart, or is New.
func (c *Consensus) begin() error {
	self := c.Self()
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(self)
	rc.HeartbeatTimeout = c.cfg.Profile.RaftHeartbeat
	rc.ElectionTimeout = c.cfg.Profile.RaftHeartbeat
	rc.LeaderLeaseTimeout = c.cfg.Profile.RaftLease
	// The followers learn of a commit through the barrier that flush sends at
	// once, so raft's own repetition can be slow; at its default it is most of
	// the idle traffic.
	rc.CommitTimeout = 500 * time.Millisecond
	compact := cmp.Or(c.cfg.Compaction, Compaction{After: 2048, Keep: 1024, Every: 2 * time.Minute})
	rc.SnapshotThreshold, rc.TrailingLogs, rc.SnapshotInterval = compact.After, compact.Keep, compact.Every
	rc.Logger = transport.HCLog(c.cfg.Logger, "raft")
	t := c.cfg.Transport(self)
	d := &disk{LogStore: c.cfg.Stores.Log, StableStore: c.cfg.Stores.Stable, logger: c.cfg.Logger, failed: c.cfg.Failed, newest: &c.newest, over: make(chan struct{})}
	if err := c.newest.read(c.cfg.Stores.Log); err != nil {
		return errors.Join(fmt.Errorf("consensus: %w", err), t.Close())
	}
	r, err := d.start(func() (*raft.Raft, error) { return raft.NewRaft(rc, c.fsm, d, d, c.cfg.Stores.Snapshots, t) })
	if err != nil {
		return errors.Join(fmt.Errorf("consensus: %w", err), t.Close())
	}
	c.run.Store(&running{raft: r, transport: t, disk: d, gone: make(chan struct{})})
	c.tellChanged()
	return nil
}

func (c *Consensus) tellChanged() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Halt stops raft: this node gives no vote and takes no entry, until Resume or
// Reform. State goes on to say what was known.
func (c *Consensus) Halt() error {
	c.restart.Lock()
	defer c.restart.Unlock()
	return c.halt()
}

func (c *Consensus) halt() error {
	r := c.run.Load()
	if r == nil {
		return nil
	}
	// raft's Shutdown waits for its replication, which waits for the transport; all wait for the disk.
	close(r.disk.over)
	err := r.transport.Close()
	err = errors.Join(err, r.raft.Shutdown().Error())
	close(r.gone)
	c.run.Store(nil)
	c.tellChanged()
	return err
}

// logEnd tells one log from another: two that end alike are the same all the way.
type logEnd struct{ index, term uint64 }

// LogState returns the state to which everything leads that stands in this
// node's log, committed or not. After a start, and without a leader, that is all there
// is to know: what of it is committed nobody has said yet. The survivor of a pair
// commits all of it. It reads the whole log; the result is kept until that grows.
func (c *Consensus) LogState() (*state.State, error) {
	last, err := c.cfg.Stores.Log.LastIndex()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	known, at := c.whole, c.wholeAt
	c.mu.Unlock()
	// Another leader may have replaced entries by as many: the term tells.
	now := logEnd{index: last}
	if last > 0 {
		var l raft.Log
		if err := c.cfg.Stores.Log.GetLog(last, &l); err != nil {
			return nil, fmt.Errorf("read the log: entry %d: %w", last, err)
		}
		now.term = l.Term
	}
	if known != nil && at == now {
		return known, nil
	}
	s, err := readLog(c.cfg.Stores, last)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	c.mu.Lock()
	c.whole, c.wholeAt = s, now
	c.mu.Unlock()
	return s, nil
}

func readLog(stores Stores, last uint64) (*state.State, error) {
	s := state.New()
	snaps, err := stores.Snapshots.List()
	if err != nil {
		return nil, err
	}
	if len(snaps) > 0 {
		_, r, err := stores.Snapshots.Open(snaps[0].ID)
		if err != nil {
			return nil, err
		}
		s, err = state.Restore(r)
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
	}
	first, err := stores.Log.FirstIndex()
	if err != nil {
		return nil, err
	}
	for i := max(first, s.Index+1); i <= last && i > 0; i++ {
		var l raft.Log
		if err := stores.Log.GetLog(i, &l); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		switch l.Type {
		case raft.LogCommand:
			if cmd, err := state.Decode(l.Data); err == nil {
				s, _ = s.Apply(l.Index, cmd)
			}
		case raft.LogConfiguration:
			s = s.SetVoters(l.Index, voters(raft.DecodeConfiguration(l.Data)))
		}
	}
	return s, nil
}

// Halted says whether raft is stopped.
func (c *Consensus) Halted() bool { return c.run.Load() == nil }

// Resume starts raft again as it was. It does nothing when raft runs.
func (c *Consensus) Resume() error {
	c.restart.Lock()
	defer c.restart.Unlock()
	if c.run.Load() != nil {
		return nil
	}
	return c.begin()
}

// Force writes into the log of a stopped raft that from here on the one server
// id is all there is to vote. Everything that stands in the log becomes
// committed with it, as it has to: some of it may be.
func Force(s Stores, self string) error {
	last, err := s.Log.LastIndex()
	if err != nil {
		return fmt.Errorf("force a configuration: %w", err)
	}
	var entry raft.Log
	if err := s.Log.GetLog(last, &entry); err != nil {
		return fmt.Errorf("force a configuration: entry %d: %w", last, err)
	}
	only := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(self), Address: raft.ServerAddress(self)}}}
	if entry.Type == raft.LogConfiguration {
		if servers := raft.DecodeConfiguration(entry.Data).Servers; len(servers) == 1 && servers[0] == only.Servers[0] {
			return nil // an earlier try came as far as this
		}
	}
	// The term this node has seen, so that the log's terms do not fall.
	term, err := s.Stable.GetUint64([]byte("CurrentTerm"))
	if err != nil || term < entry.Term {
		term = entry.Term
	}
	return s.Log.StoreLog(&raft.Log{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(only), AppendedAt: time.Now()})
}

// Reform makes this node the only voter of a new generation and starts raft,
// which then needs nobody else to elect it. It must have been halted. save is
// called when the log holds the new configuration.
func (c *Consensus) Reform(g pair.Generation, save func() error) error {
	c.restart.Lock()
	defer c.restart.Unlock()
	if c.run.Load() != nil {
		return errors.New("consensus: a generation is opened only while raft is halted")
	}
	self := ServerID(c.cfg.Node, c.cfg.UUID, g)
	if err := Force(c.cfg.Stores, self); err != nil {
		return err
	}
	if err := save(); err != nil {
		return err
	}
	c.mu.Lock()
	c.generation = g
	c.mu.Unlock()
	if err := c.begin(); err != nil {
		return err
	}
	c.electNow()
	return nil
}

// electNow makes a raft that is its only voter stand for election without
// waiting for a heartbeat that nobody can send.
func (c *Consensus) electNow() {
	r := c.run.Load()
	if r == nil {
		return
	}
	if e, ok := r.transport.(interface{ Deliver(raft.RPC) bool }); ok {
		e.Deliver(raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, RespChan: make(chan raft.RPCResponse, 1)})
	}
}
