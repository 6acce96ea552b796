package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/cluster/placement"
	"github.com/keepbeat/keepbeat/cluster/state"
)

// The leader's loop is woken by every change of state; silence and waiting
// times it looks for by the clock.
const (
	leaderTick  = 25 * time.Millisecond // while something is waited for: a silent node, a start
	leaderQuiet = 250 * time.Millisecond
)

// startGrace is how long a cluster that has just started waits for the node
// that a group prefers, before another gets a group that nobody had.
const startGrace = 3 * time.Second

// lead is the leader's part: it revokes the silent, names owners and forgives failures.
func (n *Node) lead(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	failures := map[string]time.Time{} // when this node first saw each failure
	orders := map[uint64]time.Time{}   // when it first saw each order for real servers
	lives := map[string]life{}
	var since time.Time
	var late lateResets
	beat := n.selfReset.register("leader")
	defer beat.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.leaderWake:
		case <-next.C:
		}
		beat.Turn()
		st := n.State()
		seeLives(st, lives)
		if !n.cons.Leading() {
			since, late = time.Time{}, lateResets{}
			next.Reset(leaderQuiet)
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		quiet := n.revokeSilent(st, lives)
		n.place(st, since)
		n.forgive(st, failures)
		n.endOrders(st, orders)
		n.orderFencing(st, &late)
		n.upgrade(st)
		n.growQuorum(st)
		if time.Since(since) < startGrace {
			quiet = leaderTick
		}
		next.Reset(min(max(quiet, time.Millisecond), leaderQuiet))
	}
}

// lease returns the length of leases in force: the specification's, whatever ha.yaml has.
func (n *Node) lease(st *state.State) time.Duration {
	if st.Spec != nil {
		return st.Spec.Settings.Profile.Lease
	}
	return n.cfg.Local.Profile.Lease
}

// longestLease returns the length of leases that some node may still go by: one
// that has not applied the newest specification goes by an older one.
func (n *Node) longestLease(st *state.State) time.Duration {
	if l := n.lease(st); st.Longer.Lease <= l || n.cons.Applied(st.Longer.Index) {
		return l
	}
	return st.Longer.Lease
}

// life is an incarnation and when this node learned of it.
type life struct {
	incarnation uint64
	seen        time.Time
}

// seeLives is kept by every node all the time, so that a new leader need not
// wait for those that have been silent since before it led.
func seeLives(st *state.State, lives map[string]life) {
	for name, node := range st.Nodes {
		if lives[name].incarnation != node.Incarnation {
			lives[name] = life{node.Incarnation, time.Now()}
		}
	}
}

// revokedAfter is how long a director is silent before its revocation begins.
func revokedAfter(lease time.Duration) time.Duration { return lease * 6 / 10 }

// revokeSilent starts the revocation of directors from which no proof comes
// that they hear this voter, and finishes it when a majority has revoked. To
// start one harms nobody: each voter waits for its own promise. It returns when
// to look again, if nothing happens before.
func (n *Node) revokeSilent(st *state.State, lives map[string]life) time.Duration {
	next := leaderQuiet
	for name, node := range st.Nodes {
		if !node.Valid || !node.Director || name == n.self {
			continue
		}
		// Two renewals in a row are missing; a node that has just been admitted
		// had no time for them yet.
		if left := revokedAfter(n.lease(st)) - min(n.keeper.Silence(name), time.Since(lives[name].seen)); left > 0 {
			n.keeper.Forget(name)
			next = min(next, left)
			continue
		}
		next = min(next, leaderTick) // a lost question is asked again
		n.keeper.Collect(name, node.Incarnation)
		voters, collected := n.keeper.CollectedIn(name, node.Incarnation)
		if !collected {
			continue
		}
		why := fmt.Sprintf("silent, and a majority has waited out its lease of %v", n.lease(st))
		cmd := state.Command{Revoke: &state.Revoke{
			Node: name, Incarnation: node.Incarnation, Voters: voters, Why: why,
			Moves: placement.RevokeMoves(st, name, why),
		}}
		n.jobs.start("revoke "+name, n.wake, func(ctx context.Context) error {
			_, err := n.cons.Propose(ctx, cmd)
			return err
		})
	}
	return next
}

// place commits what placement wants.
func (n *Node) place(st *state.State, since time.Time) {
	// What it cannot run itself it would give back at once, and name itself again.
	var without placement.Exclude
	switch {
	case n.isStopping():
		without = placement.Exclude{n.self: stoppingWhy}
	case n.pair.stops():
		without = placement.Exclude{n.self: "it may run nothing now"}
	}
	assign, hand := placement.Moves(st, without)
	if time.Since(n.started) < startGrace || time.Since(since) < startGrace {
		assign = n.patient(st, assign)
	}
	var cmd state.Command
	switch {
	case len(assign) > 0:
		cmd.Assign = &state.Assign{Moves: assign}
	case len(hand) > 0:
		cmd.Hand = &state.Hand{Moves: hand}
	default:
		return
	}
	n.jobs.start("place", n.wake, func(ctx context.Context) error {
		_, err := n.cons.Propose(ctx, cmd)
		return err
	})
}

// patient leaves out groups that nobody had yet and whose preferred node has not been admitted.
func (n *Node) patient(st *state.State, moves []state.Move) []state.Move {
	var now []state.Move
	for _, m := range moves {
		g, c := st.Group(m.Group)
		if g.Epoch == 0 && c != nil && len(c.Prefer) > 0 && m.To != c.Prefer[0] {
			if p, known := st.Nodes[c.Prefer[0]]; !known || p.Incarnation == 0 {
				continue
			}
		}
		now = append(now, m)
	}
	return now
}

// forgive lets a group be tried again where it failed when its waiting time,
// counted by this node's own clock, is over.
func (n *Node) forgive(st *state.State, seen map[string]time.Time) {
	current := map[string]bool{}
	for group, g := range st.Groups {
		for node, f := range g.Failures {
			if f.Until.IsZero() {
				continue
			}
			key := fmt.Sprintf("%s\x00%s\x00%d", group, node, f.Until.UnixNano())
			current[key] = true
			first, known := seen[key]
			if !known {
				seen[key] = time.Now()
				continue
			}
			if time.Since(first) < f.Until.Sub(f.At) {
				continue
			}
			cmd := state.Command{Forgive: &state.Forgive{Group: group, Node: node, Until: f.Until, Why: "its waiting time is over"}}
			n.jobs.start("forgive "+group+" "+node, n.wake, func(ctx context.Context) error {
				_, err := n.cons.Propose(ctx, cmd)
				return err
			})
		}
	}
	for key := range seen {
		if !current[key] {
			delete(seen, key)
		}
	}
}

// upgrade raises the format of the state when every node's program knows the next.
func (n *Node) upgrade(st *state.State) {
	if st.Format >= n.format() {
		return
	}
	nodes, _ := n.nodesOf(st)
	for _, c := range nodes {
		if x := st.Nodes[c.Name]; !x.Valid || x.Format <= st.Format {
			return
		}
	}
	n.jobs.start("upgrade", n.wake, func(ctx context.Context) error {
		_, err := n.cons.Propose(ctx, state.Command{Upgrade: &state.Upgrade{Format: st.Format + 1}})
		return err
	})
}
