package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

// watched is a store that remembers why its last write failed: raft tries
// again without telling anybody, and the node stands still meanwhile.
type watched struct {
	sealed
	failed *failure
}

type failure struct {
	mu  sync.Mutex // guards err
	err error      // of the last write; nil: it was done
}

func (f *failure) note(err error) error {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
	return err
}

func (f *failure) get() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (w watched) StoreLog(l *raft.Log) error    { return w.failed.note(w.sealed.StoreLog(l)) }
func (w watched) StoreLogs(l []*raft.Log) error { return w.failed.note(w.sealed.StoreLogs(l)) }
func (w watched) DeleteRange(min, max uint64) error {
	return w.failed.note(w.BoltStore.DeleteRange(min, max))
}
func (w watched) Set(k, v []byte) error { return w.failed.note(w.sealed.Set(k, v)) }
func (w watched) SetUint64(key []byte, v uint64) error {
	return w.failed.note(w.sealed.SetUint64(key, v))
}

// Failing returns why the last write to the log failed, nil when it was done.
func (s Stores) Failing() error { return s.failed.get() }
