package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/lease"
	"github.com/keepbeat/keepbeat/cluster/placement"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/resources"
)

// The actor's loop is woken by every change of state, of the lease and of a
// group; the clock is for what wakes nobody.
const (
	actorTick  = 50 * time.Millisecond // while this node is not at rest
	actorQuiet = 500 * time.Millisecond
	readyEvery = 500 * time.Millisecond
)

// act is this node's own part: it follows the log.
func (n *Node) act(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	var voters uint64
	var ready time.Time
	var unknown failing
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.actorWake:
		case <-next.C:
		}
		next.Reset(actorTick)
		n.turned.Store(int64(time.Since(n.started)))
		st := n.State()
		n.selfFence(ctx, st)
		err := n.pair.know(st)
		if _, say := unknown.note(err, time.Now()); say {
			n.logger.Error("a change of the nodes is not made known to the others before it is stored", "err", err)
		}
		if err == nil {
			n.sayMeta()
		}
		if !n.admitted(st) {
			n.keeper.Admit(0) // before it hears of voters that came after its end
		}
		if st.Voters.Index != voters {
			voters = st.Voters.Index
			n.keeper.Configure(lease.Voters{Index: voters, IDs: st.Voters.IDs})
		}
		if !n.followNodes(st) {
			n.bowOut()
			continue
		}
		n.putBack()
		n.followSpec(st)
		n.followOrders(st)
		n.beAdmitted(st)
		if !n.director {
			if n.admitted(st) {
				next.Reset(actorQuiet)
			}
			continue
		}
		n.own(st)
		n.tell(st)
		n.operate(ctx, st)
		if time.Since(ready) >= readyEvery {
			ready = time.Now()
			n.tellProblems(st)
			n.accuse(st)
		}
		if n.resting(st) {
			next.Reset(actorQuiet)
		}
	}
}

// resting says whether this node has nothing under way that only the clock would bring on.
func (n *Node) resting(st *state.State) bool {
	if !n.admitted(st) || n.isStopping() || !n.keeper.Live() || st.SpecInfo.Version == 0 {
		return false
	}
	for name, g := range st.Groups {
		if _, leaving := st.Leaving[name]; g.Owner == n.self && (!g.Active || g.Target != "" || leaving) {
			return false
		}
	}
	return true
}

// admitted says whether the log has admitted this very start.
func (n *Node) admitted(st *state.State) bool {
	me := st.Nodes[n.self]
	return me.Valid && me.Boot == uint64(n.cfg.Boot) && me.ID == n.id
}

// beAdmitted asks for an incarnation: at the start, when a minority refuses
// the present one, and after a revocation, once everything has stopped.
func (n *Node) beAdmitted(st *state.State) {
	me := st.Nodes[n.self]
	var after uint64
	running := false
	switch mine := me.Boot == uint64(n.cfg.Boot); {
	case n.isStopping() || st.Members != nil && slices.Contains(st.Members.Joining, n.self):
		return
	case n.admitted(st):
		// A lease opens the guard for all that is held, also for what an earlier
		// daemon left and the log has given away since.
		if n.manager != nil && n.manager.Leftovers(ownedEpochs(st, n.self)) {
			return
		}
		n.keeper.Admit(me.Incarnation)
		if refused, _ := n.keeper.Refused(); refused == 0 {
			return
		}
		after, running = me.Incarnation, true
	case mine:
		if n.manager != nil && !n.manager.Idle() {
			return
		}
		after = me.Incarnation
	}
	n.jobs.start("admit", n.wake, func(ctx context.Context) error {
		_, err := n.cons.Propose(ctx, state.Command{Admit: &state.Admit{
			Node: n.self, ID: n.id, Boot: uint64(n.cfg.Boot), Director: n.director, After: after, Running: running,
			Clean: n.manager == nil || n.manager.Idle(), Format: n.format(),
		}})
		return err
	})
}

// ownedEpochs returns what the log says that a node owns.
func ownedEpochs(st *state.State, node string) map[string]uint64 {
	epochs := map[string]uint64{}
	for name, g := range st.Groups {
		if g.Owner == node {
			epochs[name] = g.Epoch
		}
	}
	return epochs
}

// own tells the manager what this node owns.
func (n *Node) own(st *state.State) {
	me := st.Nodes[n.self]
	if _, fenced := st.Fencing[n.self]; fenced && me.Boot != uint64(n.cfg.Boot) {
		// Whoever is to be fenced is admitted when nothing runs there any more.
		n.assign(map[string]uint64{})
		return
	}
	if me.Boot != uint64(n.cfg.Boot) && !n.isStopping() && !n.pair.stops() {
		return // not admitted yet: what an earlier daemon left stays as the guard has it
	}
	epochs := map[string]uint64{}
	live := n.keeper.Live()
	n.lived = n.lived || live
	n.mu.Lock()
	before := n.owned
	n.mu.Unlock()
	var adopted map[string]uint64
	if !live {
		adopted = n.manager.Adopted()
	}
	if n.admitted(st) {
		for name, g := range st.Groups {
			if !n.wanted(st, g) {
				continue
			}
			// Without a live lease nothing starts. What runs, from before a planned
			// restart too, goes on behind the guard: the lease may come before
			// anybody has taken the group.
			if live || (n.restarting(st, g) || n.outlives(st, name)) && (before[name] == g.Epoch || adopted[name] == g.Epoch) {
				epochs[name] = g.Epoch
			}
		}
	}
	if maps.Equal(epochs, before) && len(before) > 0 {
		return
	}
	n.assign(epochs)
}

// assign tells the manager which groups run here, and remembers it: what was
// told last is what own compares with.
func (n *Node) assign(epochs map[string]uint64) {
	n.mu.Lock()
	n.owned = epochs
	n.mu.Unlock()
	n.manager.Own(epochs)
}

// wanted says whether the group should run here, as far as the log goes.
func (n *Node) wanted(st *state.State, g state.Group) bool {
	_, c := st.Group(g.Name)
	return g.Owner == n.self && c != nil && (g.Target == "" || g.Target == n.self) && !n.leaving(st, g.Name) && !n.isHalting() && !n.pair.stops() && !n.aside.given(st.Nodes[n.self], g.Name)
}

// leaving says whether this node is being stopped and nobody else can have the group.
func (n *Node) leaving(st *state.State, name string) bool {
	if !n.isStopping() {
		return false
	}
	_, c := st.Group(name)
	return c == nil || placement.Place(st, c, placement.Exclude{n.self: stoppingWhy}).Node == ""
}

// report is called by the manager.
func (n *Node) report(r resources.Report) {
	n.mu.Lock()
	n.reports[r.Group] = r
	n.mu.Unlock()
	n.wake()
}

// tell puts into the log what the log does not know of this node's groups yet.
// It looks at the difference, so that nothing is lost with a failed proposal.
func (n *Node) tell(st *state.State) {
	if !n.admitted(st) {
		return
	}
	inc := st.Nodes[n.self].Incarnation
	for name, g := range st.Groups {
		if g.Owner != n.self {
			continue
		}
		n.mu.Lock()
		r := n.reports[name]
		n.mu.Unlock()
		var cmd state.Command
		switch current := r.Epoch == g.Epoch; {
		case current && r.Outcome == resources.Stopped:
			s := &state.Stopped{Group: name, Node: n.self, Incarnation: inc, Epoch: g.Epoch}
			if r.Err != nil {
				s.Failure = &state.Failure{Resource: r.Resource, Error: r.Err.Error(), At: time.Now().UTC()}
			}
			cmd.Stopped = s
		case current && r.Outcome == resources.Stuck:
			if g.Blocked != "" {
				continue
			}
			cmd.Blocked = &state.Blocked{Group: name, Node: n.self, Incarnation: inc, Epoch: g.Epoch, Why: r.Resource + " does not stop: " + r.Err.Error()}
		case !n.wanted(st, g) && n.manager.Renounce(name, g.Epoch), n.manager.Over(name, g.Epoch):
			// Over: it was given up, and the log has not heard of it. The group may be
			// wanted here again by now, but never under this epoch.
			cmd.Stopped = &state.Stopped{Group: name, Node: n.self, Incarnation: inc, Epoch: g.Epoch}
		case current && r.Outcome == resources.Started:
			s := &state.Started{Group: name, Node: n.self, Incarnation: inc, Epoch: g.Epoch}
			if n.manager.Settled(name, g.Epoch) {
				s.Version = st.SpecInfo.Version // which the manager was given before: followSpec
			}
			if _, leaving := st.Leaving[name]; g.Active && (!leaving || s.Version == 0) {
				continue
			}
			cmd.Started = s
		default:
			continue
		}
		n.jobs.start("tell "+name, n.wake, func(ctx context.Context) error {
			_, err := n.cons.Propose(ctx, cmd)
			return err
		})
	}
}

// stoppingWhy is the problem that a node being stopped reports for every group.
const stoppingWhy = "keepbeat is being stopped there"

// tellProblems reports for which groups this node is not ready.
func (n *Node) tellProblems(st *state.State) {
	if !n.admitted(st) || st.Spec == nil {
		return
	}
	problems := n.manager.Ready()
	n.aside.problems(st, n.self, problems)
	if n.isStopping() {
		for _, g := range st.Spec.Groups {
			problems[g.Name] = stoppingWhy
		}
	}
	var unsettled map[string]string
	if st.Format >= 3 {
		unsettled = n.manager.Unsettled()
	}
	me := st.Nodes[n.self]
	if maps.Equal(problems, me.Problems) && maps.Equal(unsettled, me.Unsettled) {
		return
	}
	n.jobs.start("problems", n.wake, func(ctx context.Context) error {
		_, err := n.cons.Propose(ctx, state.Command{Problems: &state.Problems{Node: n.self, Incarnation: me.Incarnation, Problems: problems, Unsettled: unsettled}})
		return err
	})
}

func (n *Node) isHalting() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.halting || n.removed
}

func (n *Node) isStopping() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stopping
}

// Stop hands over what this node owns and reports it stopped, then ends the
// node's incarnation, so that nobody has to wait for its lease. ctx bounds it;
// whatever happens, nothing runs here when it returns without error.
func (n *Node) Stop(ctx context.Context) error {
	n.mu.Lock()
	n.stopping = true
	n.mu.Unlock()
	if !n.director {
		return nil
	}
	n.tellProblems(n.State())
	n.wake()
	hctx, cancelHandover := context.WithCancelCause(ctx)
	go n.watchQuorum(hctx, cancelHandover)
	err := n.cons.Wait(hctx, func(st *state.State) bool { return len(st.OwnedBy(n.self)) == 0 || !n.admitted(st) })
	cancelHandover(nil)
	if err != nil {
		n.logger.Warn("stopping without a handover", "err", err)
	}
	// From here on nothing starts: a leader that has not heard of the stop may still name this node.
	n.mu.Lock()
	n.halting = true
	n.mu.Unlock()
	halted := int64(time.Since(n.started))
	n.wake()
	idle := time.NewTicker(10 * time.Millisecond)
	defer idle.Stop()
	end := time.NewTimer(resources.DefaultTimeout)
	defer end.Stop()
	// The actor's turn that was under way may have started something.
	for n.turned.Load() <= halted || !n.manager.Idle() {
		select {
		case <-end.C:
			return errors.New("some resources would not stop; `keepbeat release` tries again, see the log")
		case <-idle.C:
			n.wake()
		}
	}
	if !n.admitted(n.State()) {
		return nil
	}
	lctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := n.leave(lctx); err != nil {
		n.logger.Warn("the cluster was not told of the stop; it will wait for this node's lease", "err", err)
		return nil
	}
	n.pair.giveUpVote(ctx)
	return nil
}

// leave ends the incarnation of a node on which nothing runs. What it has been
// given meanwhile it gives back first.
func (n *Node) leave(ctx context.Context) error {
	for {
		st := n.State()
		if !n.admitted(st) {
			return nil
		}
		_, err := n.cons.Propose(ctx, state.Command{Leave: &state.Leave{Node: n.self, Incarnation: st.Nodes[n.self].Incarnation}})
		if refused := (*state.RefusedError)(nil); !errors.As(err, &refused) {
			return err
		}
		if n.cons.Wait(ctx, func(st *state.State) bool { return len(st.OwnedBy(n.self)) == 0 }) != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(jobPause):
		}
	}
}

// leaderless is how long a stop waits for a leader before it stops without a handover.
const leaderless = 3 * time.Second

// watchQuorum ends a handover that nobody is there to decide about.
func (n *Node) watchQuorum(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	seen := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n.cons.Leader() != "" {
			seen = time.Now()
		} else if time.Since(seen) > leaderless {
			cancel(consensus.ErrNoLeader)
			return
		}
	}
}

// PrepareRestart takes the long lease under which the daemon may be replaced
// while everything it started stays up. After it the caller re-executes.
func (n *Node) PrepareRestart(ctx context.Context) error {
	if !n.director {
		return nil
	}
	st := n.State()
	if !n.admitted(st) {
		return errors.New("this node is not admitted to the cluster yet; try again in a moment, or use `systemctl restart keepbeat`")
	}
	if err := n.pair.restartable(); err != nil {
		return err
	}
	if r, pending := st.Fencing[n.self]; pending && r.Group == "" {
		// See own: without its incarnation it lets go of everything.
		return fmt.Errorf("this node is being fenced by %s (%s): the next daemon would not be admitted before that has ended, and what runs here would stop; `keepbeat fence history` says what it fails for, mend that; if this cannot wait, `systemctl restart keepbeat` hands over what runs here", r.Operator, r.Why)
	}
	length := n.RestartLease()
	for name, g := range st.Groups {
		if g.Owner == n.self && (g.Target != "" || !g.Active) {
			return errors.New("group " + name + " is being moved or started; try again when `keepbeat status` shows it at rest")
		}
	}
	me := st.Nodes[n.self]
	if _, err := n.cons.Propose(ctx, state.Command{LongLease: &state.LongLease{Node: n.self, Incarnation: me.Incarnation, Length: length}}); err != nil {
		return err
	}
	err := n.keeper.Lengthen(ctx, length)
	if err != nil {
		n.CancelRestart()
	}
	return err
}

// RestartLease is the length of the lease that PrepareRestart takes.
func (n *Node) RestartLease() time.Duration {
	if st := n.State(); st.Spec != nil && st.Spec.Settings.RestartLease > 0 {
		return st.Spec.Settings.RestartLease
	}
	return n.cfg.Local.RestartLease
}

// Replacing has what runs here tell the network that the next daemon is about to take over.
func (n *Node) Replacing() {
	if n.manager != nil {
		n.manager.Replacing(n.RestartLease())
	}
}

// CancelRestart takes a PrepareRestart back.
func (n *Node) CancelRestart() {
	n.keeper.Shorten()
	// Else the leader would wait for the long lease before each change of voters. It
	// must, as long as that runs.
	n.jobs.start("cancel restart", n.wake, func(ctx context.Context) error {
		st := n.State()
		me := st.Nodes[n.self]
		if me.LongLease == 0 || n.keeper.Left() > n.lease(st) {
			return nil
		}
		_, err := n.cons.Propose(ctx, state.Command{LongLease: &state.LongLease{Node: n.self, Incarnation: me.Incarnation}})
		return err
	})
}
