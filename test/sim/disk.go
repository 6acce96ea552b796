package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/lease"
	"github.com/keepbeat/keepbeat/cluster/pair"
)

// disk is what a data directory holds: raft's log and vote, the promises, the
// generation, and whose it is. Every write is durable at once, and any of them
// can be the last: then the machine goes on from a copy as it was at that
// moment, and what the dying daemon still writes goes nowhere.
type disk struct {
	uuid string

	mu         sync.Mutex // guards what follows
	low, high  uint64
	log        map[uint64]raft.Log
	words      map[string]string
	numbers    map[string]uint64
	snapshots  []snapshot // the newest first
	promises   lease.Record
	generation pair.Record
	fuse       fuse
	full       bool          // there is no room for the log; a copy has some
	orphan     bool          // the machine goes on from a copy
	slow       time.Duration // what the next write of raft takes
	opened     time.Duration // and the first one in a generation that it opens
}

// kind of a write.
type kind uint8

const (
	_ kind = iota
	anyWrite
	ofLog
	ofPromises
	ofGeneration
	ofSnapshot
)

func (k kind) String() string {
	return [...]string{"", "any write", "write to the log", "promise", "write of the generation", "snapshot"}[k]
}

// fuse ends the machine or the daemon at a write.
type fuse struct {
	of    kind // 0: nothing is armed
	left  int  // how many writes of that kind from now on; 1: the next
	after bool // that write is still made
	blow  func(d *disk)
}

func newDisk(uuid string) *disk {
	return &disk{
		uuid: uuid, log: map[uint64]raft.Log{}, words: map[string]string{}, numbers: map[string]uint64{},
	}
}

// leave returns the disk as it is at this moment, for the machine to go on from.
func (d *disk) leave() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.orphan = true
	return d.copyLocked()
}

func (d *disk) copyLocked() *disk {
	return &disk{
		uuid: d.uuid, low: d.low, high: d.high, log: maps.Clone(d.log), words: maps.Clone(d.words), numbers: maps.Clone(d.numbers),
		snapshots: slices.Clone(d.snapshots), promises: d.promises, generation: d.generation,
	}
}

func (d *disk) arm(f fuse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fuse = f
}

// write makes a write, unless the machine ends before it, and says whether it
// counts. A daemon is not told when it does not: it is dead, and nothing that
// it does is seen.
func (d *disk) write(k kind, f func()) (counts bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	counts = !d.orphan
	u := d.fuse
	if u.of == 0 || u.of != k && u.of != anyWrite || !counts {
		f()
		return counts
	}
	if d.fuse.left--; d.fuse.left > 0 {
		f()
		return true
	}
	d.fuse, d.orphan = fuse{}, true
	if u.after {
		f()
		u.blow(d.copyLocked())
		return true
	}
	u.blow(d.copyLocked())
	f()
	return false
}

func (d *disk) fill(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

func (d *disk) isFull() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.full
}

// linger waits as long as the next write of raft is to take.
func (d *disk) linger() {
	d.mu.Lock()
	t := d.slow
	d.slow = 0
	d.mu.Unlock()
	time.Sleep(t)
}

func (d *disk) generationNow() pair.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.generation
}

func (d *disk) stores() consensus.Stores {
	return consensus.Stores{Log: logStore{d}, Stable: stableStore{d}, Snapshots: snapshotStore{d}}
}

// last returns the index of the last entry that the log has, or a snapshot; 0: the disk is empty.
func (d *disk) last() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lastLocked()
}

func (d *disk) lastLocked() uint64 {
	if len(d.snapshots) > 0 {
		return max(d.high, d.snapshots[0].meta.Index)
	}
	return d.high
}

type logStore struct{ d *disk }

func (s logStore) FirstIndex() (uint64, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return s.d.low, nil
}

func (s logStore) LastIndex() (uint64, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return s.d.high, nil
}

func (s logStore) GetLog(index uint64, l *raft.Log) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	e, ok := s.d.log[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*l = e
	return nil
}

func (s logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s logStore) StoreLogs(ls []*raft.Log) error {
	s.d.linger()
	if s.d.isFull() {
		return errFull
	}
	s.d.write(ofLog, func() {
		for _, l := range ls {
			s.d.log[l.Index] = *l
			if s.d.low == 0 {
				s.d.low = l.Index
			}
			s.d.high = max(s.d.high, l.Index)
		}
	})
	return nil
}

func (s logStore) DeleteRange(from, to uint64) error {
	s.d.write(ofLog, func() {
		for i := from; i <= to; i++ {
			delete(s.d.log, i)
		}
		if from <= s.d.low {
			s.d.low = to + 1
		}
		if to >= s.d.high {
			s.d.high = from - 1
		}
		if s.d.low > s.d.high {
			s.d.low, s.d.high = 0, 0
		}
	})
	return nil
}

type stableStore struct{ d *disk }

var errFull = errors.New("no space left on device")

// raft knows by this text that there is nothing.
var errNotFound = errors.New("not found")

func (s stableStore) Set(key, val []byte) error {
	s.d.write(ofLog, func() { s.d.words[string(key)] = string(val) })
	return nil
}

func (s stableStore) Get(key []byte) ([]byte, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	v, ok := s.d.words[string(key)]
	if !ok {
		return nil, errNotFound
	}
	return []byte(v), nil
}

func (s stableStore) SetUint64(key []byte, val uint64) error {
	s.d.linger()
	s.d.write(ofLog, func() { s.d.numbers[string(key)] = val })
	return nil
}

func (s stableStore) GetUint64(key []byte) (uint64, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	v, ok := s.d.numbers[string(key)]
	if !ok {
		return 0, errNotFound
	}
	return v, nil
}

// promises is the voter's file as one daemon reaches it.
type promises struct{ d *disk }

func (s promises) Save(r lease.Record) error {
	var m lease.Memory // its own copy
	if err := m.Save(r); err != nil {
		return err
	}
	s.d.write(ofPromises, func() { s.d.promises = m.Record })
	return nil
}

// generations is the file of the generation as one daemon reaches it. A daemon
// that is stopped writes when it goes on, one that is dead not at all.
type generations struct {
	m *machine
	d *disk
	g *gate
}

func (s generations) Save(r pair.Record) error {
	if err := s.g.do(func() {}); err != nil {
		return err
	}
	var m pair.Memory // its own copy
	if err := m.Save(r); err != nil {
		return err
	}
	var was pair.Record
	var last uint64
	if !s.d.write(ofGeneration, func() { was, last, s.d.generation = s.d.generation, s.d.lastLocked(), m.Record }) {
		return nil
	}
	if was.Force && !r.Force {
		s.d.mu.Lock()
		s.d.slow, s.d.opened = s.d.opened, 0
		s.d.mu.Unlock()
	}
	if was.Current != r.Current && r.Force {
		s.m.w.history.open(r.Current, was.Current, last)
	}
	if was.Current != r.Current || (was.Intent == nil) != (r.Intent == nil) || was.Discard != r.Discard {
		s.m.w.note("    %s: generation %s", s.m.name, describe(r))
	}
	return nil
}

func describe(r pair.Record) string {
	t := r.Current.String()
	if r.Contested != "" {
		t += ", without " + r.Contested
	}
	if r.Intent != nil {
		t += fmt.Sprintf(", %v intended", r.Intent.Generation)
	}
	if r.Force {
		t += ", the log to be forced"
	}
	if r.Discard {
		t += ", the log to be put aside"
	}
	return t
}
