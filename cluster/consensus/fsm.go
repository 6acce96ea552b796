package consensus

import (
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/state"
)

// fsm feeds committed entries to the pure state.
type fsm struct {
	state    atomic.Pointer[state.State]
	changed  func(cmd *state.Command) // after each entry; nil for a configuration or snapshot
	noted    func(*state.State)       // of each that becomes the state
	restored func(*state.State)       // of a snapshot that has become the state, before raft answers for it
	record   Recorder                 // may be nil
}

// Recorder is told of everything that changes the state, in its order.
type Recorder interface {
	// Applied is told of a command as it stands in the log, and what it came to.
	Applied(index uint64, cmd []byte, r state.Result)
	// Configured is told of State.SetVoters.
	Configured(index uint64, voters []string)
	// Restored is told of a snapshot that has become the state.
	Restored(s *state.State)
}

func newFSM(changed func(*state.Command), noted, restored func(*state.State), record Recorder) *fsm {
	f := &fsm{changed: changed, noted: noted, restored: restored, record: record}
	f.state.Store(state.New())
	return f
}

func (f *fsm) store(s *state.State) {
	f.noted(s)
	f.state.Store(s)
}

// Apply implements raft.FSM. raft calls it, and the two below, from one goroutine.
func (f *fsm) Apply(l *raft.Log) any {
	if l.Index <= f.state.Load().Index {
		return nil // raft was started again in this process and reads its log from the start
	}
	c, err := state.Decode(l.Data)
	if err != nil {
		// The same on every node: an entry that cannot be read changes nothing.
		return state.Result{Refused: err.Error()}
	}
	s, r := f.state.Load().Apply(l.Index, c)
	f.store(s)
	if f.record != nil {
		f.record.Applied(l.Index, l.Data, r)
	}
	f.changed(&c)
	return r
}

// StoreConfiguration implements raft.ConfigurationStore: it is called when a
// configuration has been committed.
func (f *fsm) StoreConfiguration(index uint64, c raft.Configuration) {
	if index <= f.state.Load().Voters.Index {
		return // read again
	}
	f.store(f.state.Load().SetVoters(index, voters(c)))
	if f.record != nil {
		f.record.Configured(index, voters(c))
	}
	f.changed(nil)
}

func voters(c raft.Configuration) []string {
	var ids []string
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return snapshot{f.state.Load()}, nil }

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	s, err := state.Restore(r)
	if err != nil {
		return err
	}
	if s.Index < f.state.Load().Index {
		return nil // an older one of this very log, read again
	}
	f.store(s)
	f.restored(s)
	if f.record != nil {
		f.record.Restored(s)
	}
	f.changed(nil)
	return nil
}

type snapshot struct{ s *state.State }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.s.Snapshot(sink); err != nil {
		return sink.Cancel()
	}
	return sink.Close()
}

func (snapshot) Release() {}
