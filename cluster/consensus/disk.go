package consensus

import (
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// disk is what a running raft reads its log from and writes its vote to. raft
// panics over an entry that it cannot read and a term that it cannot write, in
// goroutines of its own where nobody can recover. Here the first ends this
// node with its reason, and the second waits until it can be written: a node
// whose disk is full gives no vote and holds up nobody, and goes on when there is
// room again.
//
// What cannot be answered ends the goroutine that asked. All of them are raft's,
// or its transport's, and end in order (runtime.Goexit runs what they deferred).
type disk struct {
	raft.LogStore
	raft.StableStore
	logger *slog.Logger
	failed func(error)
	newest *newest
	over   chan struct{}             // closed when raft is to stop
	raft   atomic.Pointer[raft.Raft] // nil while it is being made
	stuck  atomic.Pointer[time.Time] // since when a write has been waiting; nil: none does
	began  atomic.Pointer[time.Time] // when the write of entries that is under way began; nil: none is
	took   atomic.Int64              // nanoseconds, the last write of entries
	fault  atomic.Pointer[error]     // why raft could not be made
	absent atomic.Bool               // raft, while it was being made, has asked for an entry that is not there
}

// retryWrite is how long after a failed write of a term or a vote the next try
// comes: shorter than an election, so that it is in time for the next one.
const retryWrite = 100 * time.Millisecond

// start makes a raft on this disk.
func (d *disk) start(make func() (*raft.Raft, error)) (*raft.Raft, error) {
	var r *raft.Raft
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { // which end may end
		defer func() {
			if p := recover(); p != nil && !d.absent.Load() {
				panic(p)
			}
		}()
		r, err = make()
	})
	wg.Wait()
	d.raft.Store(r)
	if r == nil && d.absent.Load() {
		return nil, missing()
	}
	if fault := d.fault.Load(); fault != nil {
		err = *fault
		if r != nil { // it has met the damage at once
			err = errors.Join(err, r.Shutdown().Error())
		}
	}
	return r, err
}

func missing() error {
	return &DamagedError{"the log of this node", "an entry is missing in it"}
}

// end ends the calling goroutine of raft. While raft is being made, that is the one of start.
func (d *disk) end(err error) {
	if d.raft.Load() == nil {
		d.fault.Store(&err)
	} else {
		d.failed(err)
	}
	runtime.Goexit()
}

// GetLog implements raft.LogStore.
func (d *disk) GetLog(index uint64, l *raft.Log) error {
	err := d.LogStore.GetLog(index, l)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrLogNotFound):
		// One that was compacted or, of a log that a snapshot overtook, never was; or
		// one that is not there yet. What is there to be applied must be.
		r := d.raft.Load()
		if r == nil {
			d.absent.Store(true)
			return err
		}
		if index <= r.AppliedIndex() || index > r.LastIndex() {
			return err
		}
		err = missing()
	}
	d.end(err)
	return err
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. One goroutine of raft's calls it.
func (d *disk) StoreLogs(l []*raft.Log) error {
	now := time.Now()
	d.began.Store(&now)
	defer func() {
		d.took.Store(int64(time.Since(now)))
		d.began.Store(nil)
	}()
	if err := d.LogStore.StoreLogs(l); err != nil {
		return err
	}
	d.newest.stored(l)
	return nil
}

// DeleteRange implements raft.LogStore.
func (d *disk) DeleteRange(from, to uint64) error {
	if err := d.LogStore.DeleteRange(from, to); err != nil {
		return err
	}
	return d.newest.deleted(d, from)
}

// slow returns how long the last write of entries took, or the present one has so far.
func (d *disk) slow() time.Duration {
	slow := time.Duration(d.took.Load())
	if began := d.began.Load(); began != nil {
		slow = max(slow, time.Since(*began))
	}
	return slow
}

// Set implements raft.StableStore.
func (d *disk) Set(key, value []byte) error {
	d.write(func() error { return d.StableStore.Set(key, value) })
	return nil
}

// SetUint64 implements raft.StableStore. raft writes the term anew at every
// start: a node that starts on a full disk need not.
func (d *disk) SetUint64(key []byte, v uint64) error {
	if now, err := d.StableStore.GetUint64(key); err == nil && now == v {
		return nil
	}
	d.write(func() error { return d.StableStore.SetUint64(key, v) })
	return nil
}

func (d *disk) write(f func() error) {
	err := f()
	if err == nil {
		return
	}
	if since := time.Now(); d.stuck.CompareAndSwap(nil, &since) { // or another goroutine waits already
		d.logger.Error("this node cannot write its term or its vote: it takes no part in elections until it can", "err", err)
	}
	again := time.NewTicker(retryWrite)
	defer again.Stop()
	for {
		select {
		case <-d.over:
			runtime.Goexit()
		case <-again.C:
			if f() == nil {
				if d.stuck.Swap(nil) != nil {
					d.logger.Info("this node can write its term and its vote again")
				}
				return
			}
		}
	}
}

// Get implements raft.StableStore.
func (d *disk) Get(key []byte) ([]byte, error) {
	b, err := d.StableStore.Get(key)
	d.check(err)
	return b, err
}

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(key []byte) (uint64, error) {
	v, err := d.StableStore.GetUint64(key)
	d.check(err)
	return v, err
}

// check ends this node over a value that is damaged; raft would refuse its vote
// for ever, and say so in its log only.
func (d *disk) check(err error) {
	var damaged *DamagedError
	if errors.As(err, &damaged) {
		d.end(err)
	}
}
