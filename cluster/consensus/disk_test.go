package consensus

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster/state"
)

// faulty is a disk with faults that a test switches on.
type faulty struct {
	raft.LogStore
	raft.StableStore
	full    atomic.Bool // nothing can be written
	damaged atomic.Bool // nothing that is read is whole
	missing atomic.Bool // nothing is found
}

func faultyStores() (*faulty, Stores) {
	s := MemoryStores()
	f := &faulty{LogStore: s.Log, StableStore: s.Stable}
	s.Log, s.Stable = f, f
	return f, s
}

func (f *faulty) write(do func() error) error {
	if f.full.Load() {
		return unix.ENOSPC
	}
	return do()
}

func (f *faulty) StoreLog(l *raft.Log) error {
	return f.write(func() error { return f.LogStore.StoreLog(l) })
}
func (f *faulty) StoreLogs(l []*raft.Log) error {
	return f.write(func() error { return f.LogStore.StoreLogs(l) })
}
func (f *faulty) Set(k, v []byte) error {
	return f.write(func() error { return f.StableStore.Set(k, v) })
}
func (f *faulty) SetUint64(k []byte, v uint64) error {
	return f.write(func() error { return f.StableStore.SetUint64(k, v) })
}
func (f *faulty) GetLog(i uint64, l *raft.Log) error {
	switch {
	case f.damaged.Load():
		return &DamagedError{"raft.db", "its checksum is wrong"}
	case f.missing.Load():
		return raft.ErrLogNotFound
	}
	return f.LogStore.GetLog(i, l)
}

// faultyWorld is three nodes with such disks.
func faultyWorld(t *testing.T, f func(w *world, disks map[string]*faulty)) {
	bubble(t, func(w *world) {
		disks := map[string]*faulty{}
		for _, n := range []string{"a", "b", "w"} {
			d, s := faultyStores()
			disks[n] = d
			w.start(n, "1", s)
		}
		w.wait("all have begun", func() bool {
			for _, m := range w.members() {
				if len(m.c.State().Voters.IDs) != 3 {
					return false
				}
			}
			return true
		})
		f(w, disks)
	})
}

func TestADamagedEntryEndsTheNodeAndIsNeverApplied(t *testing.T) {
	for name, damage := range map[string]func(*faulty){
		"checksum": func(f *faulty) { f.damaged.Store(true) },
		"missing":  func(f *faulty) { f.missing.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			faultyWorld(t, func(w *world, disks map[string]*faulty) {
				f := w.follower()
				damage(disks[f.name])
				before := f.c.State().Index
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if _, err := w.leader().c.Propose(ctx, state.Command{Note: &state.Note{Node: "a", Text: "x"}}); err != nil {
					t.Fatalf("the others do not go on: %v", err)
				}
				select {
				case err := <-f.failed:
					var damaged *DamagedError
					if !errors.As(err, &damaged) || !strings.Contains(err.Error(), "move the data directory away and start again") {
						t.Errorf("it fails with %v", err)
					}
				case <-time.After(10 * time.Second):
					t.Fatal("it goes on")
				}
				if now := f.c.State().Index; now != before {
					t.Errorf("it applied up to %d, was %d", now, before)
				}
			})
		})
	}
}

func TestADamagedLogIsNotStartedFrom(t *testing.T) {
	for name, damage := range map[string]func(*faulty){
		"checksum": func(f *faulty) { f.damaged.Store(true) },
		"missing":  func(f *faulty) { f.missing.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			faultyWorld(t, func(w *world, disks map[string]*faulty) {
				f := w.follower()
				if err := f.c.Halt(); err != nil {
					t.Fatal(err)
				}
				damage(disks[f.name])
				err := f.c.Resume()
				if err == nil || !strings.Contains(err.Error(), "move the data directory away and start again") {
					t.Errorf("the error is %v", err)
				}
			})
		})
	}
}

func TestAFullDiskHoldsUpAnElectionOnlyAsLongAsItIsFull(t *testing.T) {
	faultyWorld(t, func(w *world, disks map[string]*faulty) {
		l := w.leader()
		f := w.follower()
		disks[f.name].full.Store(true)
		l.stop()
		time.Sleep(10 * time.Second) // elections without end, none of which its vote can decide
		for _, m := range w.members() {
			if m.c.Leading() {
				t.Fatalf("%s leads without a vote that was written", m.name)
			}
		}
		disks[f.name].full.Store(false)
		w.leader()
		f.admit(5)
	})
}

func TestTheOthersElectWithoutTheNodeWhoseDiskIsFull(t *testing.T) {
	faultyWorld(t, func(w *world, disks map[string]*faulty) {
		l := w.leader()
		disks[l.name].full.Store(true)
		w.wait("another leads", func() bool {
			for _, m := range w.members() {
				if m != l && m.c.Leading() {
					return true
				}
			}
			return false
		})
		w.wait("it says so no longer", func() bool { return !l.c.Leading() })
		select {
		case err := <-l.failed:
			t.Errorf("it ended: %v", err)
		default:
		}
		disks[l.name].full.Store(false)
		l.admit(5)
	})
}

func TestANodeStartsOnAFullDiskAndStopsWhileItWaitsForIt(t *testing.T) {
	faultyWorld(t, func(w *world, disks map[string]*faulty) {
		f := w.follower()
		if err := f.c.Halt(); err != nil {
			t.Fatal(err)
		}
		disks[f.name].full.Store(true)
		if err := f.c.Resume(); err != nil {
			t.Fatal(err)
		}
		w.wait("it follows", func() bool { return f.c.Leader() != "" })
		w.leader().stop()
		w.wait("it waits for its disk", func() bool { return f.c.run.Load().disk.stuck.Load() != nil })
		began := time.Now()
		if err := f.c.Halt(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("to stop took %v", d)
		}
	})
}

// A leader that sees a newer term writes it before it leaves off leading: with no
// room for that it would go on with its heartbeats, and the others with it.
func TestALeaderThatCannotWriteTheNextTermLeavesOffLeading(t *testing.T) {
	for range 50 {
		if startedAgainOverATerm(t) || t.Failed() {
			return
		}
	}
	t.Error("it always left off by itself, so this test shows nothing")
}

// startedAgainOverATerm returns false when raft's own clock was first: the leader left off by itself.
func startedAgainOverATerm(t *testing.T) (shown bool) {
	faultyWorld(t, func(w *world, disks map[string]*faulty) {
		a := w.member("a")
		w.lead(a)
		a.admit(5)
		disks["a"].full.Store(true)
		raftOf, term := a.c.run.Load(), a.c.raft().CurrentTerm()
		raftOf.transport.(interface{ Deliver(raft.RPC) bool }).Deliver(raft.RPC{RespChan: make(chan raft.RPCResponse, 1), Command: &raft.RequestVoteRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("b/1"), Addr: []byte("b/1")}, Term: term + 1, LeadershipTransfer: true,
		}})
		w.wait("another leads", func() bool { return w.member("b").c.Leading() || w.member("w").c.Leading() })
		shown = a.c.run.Load() != raftOf
		w.member("b").admit(6)
		disks["a"].full.Store(false)
		w.wait("a follows", func() bool { return a.c.State().Nodes["b"].Incarnation == 1 })
		select {
		case err := <-a.failed:
			t.Errorf("a ended: %v", err)
		default:
		}
	})
	return shown
}

func TestALeaderIsNotToBlameForTheDisksOfTheOthers(t *testing.T) {
	faultyWorld(t, func(w *world, disks map[string]*faulty) {
		a := w.member("a")
		w.lead(a)
		a.admit(5)
		disks["b"].full.Store(true)
		disks["w"].full.Store(true)
		time.Sleep(time.Minute)
		select {
		case err := <-a.failed:
			t.Errorf("it ended: %v", err)
		default:
		}
		disks["b"].full.Store(false)
		a.admit(6)
	})
}
