package consensus

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/state"
)

// newest keeps the newest configuration of voters in this node's log, committed
// or not. It goes back only when raft takes an entry out. Each change is told
// before raft can answer for it, and what a log holds at the start before raft
// begins: rule 4 of docs/safety.md.
type newest struct {
	state func() *state.State // as far as the log has been applied
	tell  func(state.Voters)

	mu    sync.Mutex // guards known, and is held while it is told: so that is in order
	known state.Voters
}

func (n *newest) get() state.Voters {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known
}

func (n *newest) isLocked(v state.Voters) {
	n.known = v
	n.tell(v)
}

// stored is called when entries have been put into the log.
func (n *newest) stored(entries []*raft.Log) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range entries {
		if e.Type == raft.LogConfiguration {
			n.isLocked(votersOfEntry(e))
		}
	}
}

// deleted is called when entries have been taken out of the log: by a new leader
// at its end, or at its beginning, where a snapshot has them.
func (n *newest) deleted(log raft.LogStore, from uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	last, err := log.LastIndex()
	if err != nil || last >= from || n.known.Index < from {
		return err
	}
	return n.readLocked(log)
}

// restored is called when a snapshot has become the state. Of what is older than that it is all there is to know.
func (n *newest) restored(s *state.State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.Index >= n.known.Index && s.Voters.Index != n.known.Index {
		n.isLocked(s.Voters)
	}
}

// read looks into the log: raft does not run.
func (n *newest) read(log raft.LogStore) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.readLocked(log)
}

func (n *newest) readLocked(log raft.LogStore) error {
	last, err := log.LastIndex()
	if err != nil {
		return fmt.Errorf("read the newest voters: %w", err)
	}
	// What is applied the state knows. One that is not found is older than a
	// snapshot, which is told of (restored) before raft begins.
	for i := last; i > n.state().Index; i-- {
		var e raft.Log
		err := log.GetLog(i, &e)
		if errors.Is(err, raft.ErrLogNotFound) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the newest voters: entry %d: %w", i, err)
		}
		if e.Type == raft.LogConfiguration {
			n.isLocked(votersOfEntry(&e))
			return nil
		}
	}
	n.isLocked(n.state().Voters)
	return nil
}

func votersOfEntry(e *raft.Log) state.Voters {
	return state.Voters{Index: e.Index, IDs: slices.Sorted(slices.Values(voters(raft.DecodeConfiguration(e.Data))))}
}
