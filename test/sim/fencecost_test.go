package sim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
)

// TestFencingTheLastOwnerIsRefusedWithoutForce: nobody else can have what the node runs.
func TestFencingTheLastOwnerIsRefusedWithoutForce(t *testing.T) {
	s := schedule{Config: Config{Seed: 1, Directors: 2, Witnesses: 1, Groups: 1, Stores: 1, Profile: conf.ProfileDefault}}
	s.Starts = make([]time.Duration, 3)
	play(t, s.Config, func(w *world) {
		r := newRun(w, s)
		r.play()
		on := func(m *machine, o cluster.Order, f func(ctx context.Context, n *cluster.Node)) {
			ctx, cancel := context.WithTimeout(cluster.WithOrder(context.Background(), o), 20*time.Second)
			defer cancel()
			f(ctx, m.node)
		}
		r.rest(10 * time.Second)
		owner, other := w.machine("director1"), w.machine("director2")
		if w.owner(0) != owner.name {
			owner, other = other, owner
		}
		r.tell(other, func(m *machine) { m.failStarts = 10000 })
		on(owner, cluster.Order{}, func(ctx context.Context, n *cluster.Node) {
			if _, err := n.Standby(ctx, cluster.All, ""); err != nil {
				t.Error(err)
			}
		})
		r.until(10*time.Second, func() bool { return w.owner(0) == owner.name }) // it came back, since the other cannot start it
		r.rest(5 * time.Second)
		const cost = "group group1 would stop and run nowhere: "
		on(other, cluster.Order{Dry: true}, func(ctx context.Context, n *cluster.Node) {
			o, err := n.Fence(ctx, owner.name)
			says := func(words string) bool {
				return slices.ContainsFunc(o.Plan, func(l string) bool { return strings.HasPrefix(l, words) })
			}
			if err != nil || !says("group group1 would then run nowhere: ") || !says("refused without --force: "+cost) {
				t.Errorf("--dry-run: %q, %v", o.Plan, err)
			}
		})
		on(other, cluster.Order{}, func(ctx context.Context, n *cluster.Node) {
			var force *cluster.ForceError
			if _, err := n.Fence(ctx, owner.name); !errors.As(err, &force) || !strings.HasPrefix(force.Cost, cost) {
				t.Errorf("without --force: %v", err)
			}
		})
		r.rest(2 * time.Second)
		if w.owner(0) != owner.name {
			t.Errorf("group1 answers on %q", w.owner(0))
		}
		on(other, cluster.Order{Force: true}, func(ctx context.Context, n *cluster.Node) {
			if _, err := n.Fence(ctx, owner.name); err != nil {
				t.Errorf("with --force: %v", err)
			}
		})
		r.rest(2 * time.Second)
		if w.owner(0) == owner.name {
			t.Error("with --force it was not fenced")
		}
		r.drain()
	})
}
