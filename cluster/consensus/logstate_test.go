package consensus

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/cluster/state"
)

func TestANodeThatWaitsKnowsWhatItsLogHolds(t *testing.T) {
	pairOf(t, func(w *world, a, b *member) {
		a.admit(7)
		b.admit(8)
		w.wait("both have applied it", func() bool { return b.c.State().Nodes["b"].Incarnation == 1 && a.c.State().Index == b.c.State().Index })
		want := b.c.State()
		a.stop()
		b.stop()
		alone := w.start("b", "1", b.stores)
		time.Sleep(5 * time.Second)
		if alone.c.State().Index >= want.Index {
			t.Fatal("it has applied its log without a leader: this test shows nothing")
		}
		got, err := alone.c.LogState()
		if err != nil {
			t.Fatal(err)
		}
		without := func(s *state.State) state.State {
			c := *s
			c.Index = 0 // entries that change nothing count or not
			return c
		}
		if d := cmp.Diff(without(want), without(got)); d != "" {
			t.Error(d)
		}
	})
}
