package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing/watchdog"
	"github.com/keepbeat/keepbeat/resources"
)

// armAgain is the pause after an attempt to arm the watchdog that failed.
const armAgain = 10 * time.Second

// selfFence is this node's own end: the watchdog, and what makes it bite.
type selfFence struct {
	dog   *watchdog.Watchdog // nil: none
	actor *watchdog.Beat
	lost  time.Time // since when the lease has not run; zero: it runs
}

func newSelfFence(dog *watchdog.Watchdog) *selfFence {
	s := &selfFence{dog: dog}
	if dog != nil {
		s.actor = dog.Register("actor", conf.LoopAge)
	}
	return s
}

// register adds a loop that has to turn.
func (s *selfFence) register(name string) *watchdog.Beat {
	if s.dog == nil {
		return nil
	}
	return s.dog.Register(name, conf.LoopAge)
}

// arm arms the watchdog. After an attempt that failed it pauses until the next one may be made, or ctx ends.
func (s *selfFence) arm(ctx context.Context, logger *slog.Logger) {
	err := s.dog.Arm(ctx)
	if err == nil || ctx.Err() != nil {
		return
	}
	logger.Error("the watchdog is not armed: nothing resets this machine when it hangs", "err", err, "again_in", armAgain)
	select {
	case <-ctx.Done():
	case <-time.After(armAgain):
	}
}

// selfFence is called by the actor's loop.
func (n *Node) selfFence(ctx context.Context, st *state.State) {
	s := n.selfReset
	s.actor.Turn()
	if s.dog == nil {
		return
	}
	// What an earlier daemon left has to be gone or taken over: a node that cannot
	// get that far would reset itself again and again.
	if n.admitted(st) && (n.manager == nil || !n.manager.Leftovers(ownedEpochs(st, n.self))) {
		n.jobs.begin("arm", func() { s.arm(ctx, n.logger) })
	}
	if !n.director {
		return
	}
	n.tellArmed(st)
	if n.keeper.Live() {
		s.lost = time.Time{}
	} else if s.lost.IsZero() {
		s.lost = time.Now()
	}
	if why := n.mustDie(st, s.lost); why != "" {
		s.dog.Starve(why)
	}
}

// mustDie says why nothing but a reset of this machine keeps the promise: what
// the guard cannot cut off does not stop. Empty: nothing asks for it.
func (n *Node) mustDie(st *state.State, lost time.Time) string {
	late := n.manager.Overdue()
	for _, g := range n.manager.Status() {
		c := st.Runs(g.Name)
		if g.Phase == "idle" || !state.NeedsFencing(c) {
			continue
		}
		if why := late[g.Name]; why != "" {
			return fmt.Sprintf("group %s: %s", g.Name, why)
		}
		n.mu.Lock()
		r := n.reports[g.Name]
		n.mu.Unlock()
		if g.Phase == "stuck" && r.Outcome == resources.Stuck {
			return fmt.Sprintf("group %s: %s does not stop: %v", g.Name, r.Resource, r.Err)
		}
		if lost.IsZero() {
			continue
		}
		if time.Since(lost) > n.lease(st)+c.StopBudget() { // conf.ResetWithin counts on it
			return fmt.Sprintf("group %s still runs %v after the lease was lost", g.Name, time.Since(lost).Round(time.Second))
		}
	}
	return ""
}

// restarting says whether this daemon has just replaced another one in a
// planned restart and its first lease is on its way: what runs under the long lease goes on.
func (n *Node) restarting(st *state.State, g state.Group) bool {
	return !n.lived && g.Active && time.Since(n.started) < 4*n.lease(st)
}

// outlives says whether a group may run on without a live lease, behind the
// guard: not what the guard cannot cut off.
func (n *Node) outlives(st *state.State, group string) bool {
	return n.cfg.Guard != nil && !state.NeedsFencing(st.Runs(group))
}
