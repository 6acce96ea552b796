package consensus

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
)

// survive makes a member the only voter of a generation.
func (m *member) survive(g pair.Generation) {
	m.w.t.Helper()
	if err := m.c.Halt(); err != nil {
		m.w.t.Fatal(err)
	}
	if err := m.c.Reform(g, func() error { return nil }); err != nil {
		m.w.t.Fatal(err)
	}
}

func pairOf(t *testing.T, f func(w *world, a, b *member)) {
	bubble(t, func(w *world) {
		w.nodes = nodes[:2]
		a, b := w.start("a", "1", MemoryStores()), w.start("b", "1", MemoryStores())
		w.wait("both vote", func() bool {
			return slices.Equal(a.c.State().Voters.IDs, []string{"a/1", "b/1"}) && slices.Equal(b.c.State().Voters.IDs, []string{"a/1", "b/1"})
		})
		f(w, a, b)
	})
}

func TestASurvivorGoesOnWithAllThatItsLogHolds(t *testing.T) {
	pairOf(t, func(w *world, a, b *member) {
		a.admit(7)
		w.wait("both have applied it", func() bool { return b.c.State().Nodes["a"].Incarnation == 1 && a.c.State().Index == b.c.State().Index })
		before := b.c.State()
		a.stop()
		g := pair.Generation{Counter: 1, ID: "0000abcd"}
		began := time.Now()
		b.survive(g)
		w.wait("it leads alone", b.c.Leading)
		t.Logf("it leads %v after it was told to", time.Since(began))
		if st := b.c.State(); st.Nodes["a"].Incarnation != 1 || st.Index < before.Index {
			t.Errorf("its state went back: index %d, was %d", st.Index, before.Index)
		}
		b.admit(8)
		w.wait("the voters are known", func() bool { return slices.Equal(b.c.State().Voters.IDs, []string{"b/1/1.0000abcd"}) })
		if index, ids := b.c.Latest(); index <= before.Voters.Index || len(ids) != 1 {
			t.Errorf("latest voters: %d %v", index, ids)
		}

		t.Run("and takes the other back when that comes empty", func(t *testing.T) {
			again := w.startIn("a", "2", MemoryStores(), g)
			w.wait("it votes", func() bool {
				return slices.Equal(b.c.State().Voters.IDs, []string{"a/2/1.0000abcd", "b/1/1.0000abcd"})
			})
			w.wait("it has the state", func() bool { return again.c.State().Nodes["b"].Incarnation == 1 })
			again.admit(9)
		})
		t.Run("and restarts by itself from its log", func(t *testing.T) {
			for _, m := range w.members() {
				m.stop()
			}
			b2 := w.startIn("b", "1", b.stores, g)
			if got := b2.c.Self(); got != "b/1/1.0000abcd" {
				t.Error(got)
			}
		})
	})
}

func TestAnOlderGenerationIsNotListenedTo(t *testing.T) {
	pairOf(t, func(w *world, a, b *member) {
		g := pair.Generation{Counter: 1, ID: "0000abcd"}
		b.survive(g) // a lives and thinks that nothing has happened
		w.wait("b leads alone", b.c.Leading)
		b.admit(8)
		time.Sleep(5 * time.Second)
		if a.c.State().Nodes["b"].Incarnation != 0 || a.c.Leader() != "" {
			t.Errorf("a follows: leader %q", a.c.Leader())
		}
		if ids := b.c.State().Voters.IDs; !slices.Equal(ids, []string{"b/1/1.0000abcd"}) {
			t.Error(ids)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := a.c.Propose(ctx, state.Command{Probe: &struct{}{}}); err == nil {
			t.Error("a committed something in a generation that is over")
		}
	})
}

func TestAHaltedNodeKeepsItsStateAndResumes(t *testing.T) {
	pairOf(t, func(w *world, a, b *member) {
		a.admit(7)
		w.wait("both have it", func() bool { return b.c.State().Nodes["a"].Incarnation == 1 })
		if err := b.c.Halt(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if b.c.Leading() || b.c.Leader() != "" || a.c.Leading() || b.c.State().Nodes["a"].Incarnation != 1 {
			t.Error("halted, and still somebody leads, or the state is gone")
		}
		if err := b.c.Resume(); err != nil {
			t.Fatal(err)
		}
		a.admit(8)
		w.wait("it follows again", func() bool { return b.c.State().Nodes["a"].Incarnation == 2 })
	})
}

func TestForcingTwiceIsForcingOnce(t *testing.T) {
	pairOf(t, func(w *world, a, b *member) {
		b.stop()
		for range 2 {
			if err := Force(b.stores, "b/1/1.0000abcd"); err != nil {
				t.Fatal(err)
			}
		}
		b2 := w.startIn("b", "1", b.stores, pair.Generation{Counter: 1, ID: "0000abcd"})
		w.wait("it leads alone", b2.c.Leading)
	})
}

// What raft has handed over to the state and that has not got there when it is
// halted is never answered by raft itself.
func TestHaltEndsWhatIsUnderWay(t *testing.T) {
	pairOf(t, func(w *world, a, b *member) {
		w.wait("one leads", func() bool { return a.c.Leading() || b.c.Leading() })
		if b.c.Leading() {
			a = b
		}
		cmd, err := state.Command{Probe: &struct{}{}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		a.slow.Store(int64(10 * time.Millisecond))
		const many = 50
		done := make(chan struct{}, many)
		for range many {
			go func() {
				_, _ = a.c.Apply(context.Background(), cmd) // whatever becomes of it
				done <- struct{}{}
			}()
			time.Sleep(time.Millisecond)
		}
		if err := a.c.Halt(); err != nil {
			t.Fatal(err)
		}
		for i := range many {
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatalf("%d of %d commands are still waiting a minute after raft has ended", many-i, many)
			}
		}
		a.slow.Store(0)
		if err := a.c.Resume(); err != nil {
			t.Fatal(err)
		}
	})
}
