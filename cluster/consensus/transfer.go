package consensus

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

const (
	// transferQuiet is for how long nothing may have gone on before leadership is moved.
	transferQuiet = 10 * time.Second
	// transferPause is how long this node waits after one try before the next; it
	// doubles up to transferPauseMax, so that leadership does not wander.
	transferPause    = time.Minute
	transferPauseMax = 16 * time.Minute
	// behind is how many entries a node may lack that counts as caught up: what it
	// says of itself in its hellos is a moment old. raft gives it the rest first.
	behind = 16
)

// voter is a voter as the leader sees it.
type voter struct {
	node string
	// steady is for how long it has been heard on every link and had the whole log; 0: it is not so.
	steady time.Duration
}

// transferTo returns the node that leadership should move to, empty: it stays. A
// leader that owns groups should not: its death would cost an election before
// its groups can move. A witness is the best one, then a director that owns
// nothing. Of two voters neither can elect without the other, so nothing would be won; and it is
// moved only while every voter is steady and nothing is under way.
func transferTo(st *state.State, leader string, voters []voter, quiet time.Duration) string {
	if len(voters) < 3 || quiet < transferQuiet || underWay(st) || len(st.OwnedBy(leader)) == 0 {
		return ""
	}
	var best string
	for _, v := range voters {
		if v.node == leader {
			continue
		}
		if v.steady < transferQuiet {
			return ""
		}
		n := st.Nodes[v.node]
		if !n.Valid || len(st.OwnedBy(v.node)) > 0 {
			continue
		}
		if old := st.Nodes[best]; best == "" || old.Director && !n.Director || old.Director == n.Director && v.node < best {
			best = v.node
		}
	}
	return best
}

// underWay says whether a group is on its way or a node is being fenced.
func underWay(st *state.State) bool {
	if len(st.Fencing) > 0 {
		return true
	}
	for _, g := range st.Groups {
		if g.Target != "" || g.Owner != "" && !g.Active && g.Blocked == "" {
			return true
		}
	}
	return false
}

// mover is what the loop of Run remembers to move leadership by.
type mover struct {
	since map[string]time.Time // since when each voter has been steady
	next  time.Time            // not before
	pause time.Duration
	asked string // node that it should have gone to

	unheard time.Time // since when another voter has heard a node that is behind and not heard here
	again   time.Time // mindUnheard: not before
}

// mindLeader moves leadership away from this node, the leader, when it should be elsewhere.
func (c *Consensus) mindLeader(m *mover) {
	r, st, now := c.raft(), c.State(), time.Now()
	if r == nil {
		return
	}
	if m.asked != "" && now.After(m.next) {
		c.cfg.Logger.Warn("leadership did not move; this node goes on leading", "to", m.asked)
		m.asked = ""
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return
	}
	ids := map[string]raft.Server{}
	members := c.cfg.Members()
	c.mindUnheard(m, f.Configuration(), members)
	var all []voter
	since := map[string]time.Time{}
	for _, s := range f.Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		node := NodeOf(string(s.ID))
		ids[node] = s
		v := voter{node: node}
		if x, heard := members[node]; heard && x.Steady && x.Index+behind > st.Index {
			since[node] = now
			if before, ok := m.since[node]; ok {
				since[node] = before
			}
			v.steady = now.Sub(since[node])
		}
		all = append(all, v)
	}
	m.since = since
	c.mu.Lock()
	quiet := min(now.Sub(c.lastChange), now.Sub(c.lastCommand))
	c.mu.Unlock()
	to := transferTo(st, c.cfg.Node, all, quiet)
	if to == "" || now.Before(m.next) || len(c.Behind()) > 0 { // the next leader may not hear these
		return
	}
	m.pause = min(max(2*m.pause, transferPause), transferPauseMax)
	m.next, m.asked = now.Add(m.pause), to
	c.cfg.Logger.Info("moving leadership to a node that owns nothing, so that the death of an owner costs no election", "to", to)
	// Whether it has moved will be seen: raft answers nobody while it shuts down.
	r.LeadershipTransferToServer(ids[to].ID, ids[to].Address)
}

// stuckAfter is after what time a transfer of leadership, or a leader's wait for
// its disk, counts as stuck: raft ends a transfer after one election time-out, and waits for the
// answer of its target, up to twice the transport's second.
func (c *Consensus) stuckAfter() time.Duration {
	return 5*c.cfg.Profile.RaftHeartbeat + 2*time.Second
}

// noteTransfer is told how raft took a command. A transfer of leadership that is
// interrupted in the wrong moment leaves raft believing for ever that it is in
// progress, also as the leader of a later term, and refusing every command
// (hashicorp/raft#696).
func (c *Consensus) noteTransfer(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !errors.Is(err, raft.ErrLeadershipTransferInProgress):
		c.refusing = time.Time{}
	case c.refusing.IsZero():
		c.refusing = time.Now()
	}
}

// stuck says why raft, which leads here, has to be started again; empty: it need not.
func (c *Consensus) stuck() string {
	limit := c.stuckAfter()
	c.mu.Lock()
	refusing := !c.refusing.IsZero() && time.Since(c.refusing) > limit
	c.mu.Unlock()
	r := c.run.Load()
	if r == nil {
		return ""
	}
	since := r.disk.stuck.Load()
	switch {
	case refusing:
		return "a transfer of leadership does not end, and every command is refused because of it"
	case since != nil && time.Since(*since) > limit:
		return "this node led and cannot write the term of the next leader"
	}
	return ""
}

// again starts raft again on the same stores: it forgets what it is stuck in, and
// the others elect. State is kept, and no group moves for it. It does nothing when raft is halted.
func (c *Consensus) again(why string) {
	c.restart.Lock()
	defer c.restart.Unlock()
	if c.run.Load() == nil {
		return
	}
	c.cfg.Logger.Error("raft is started again: "+why, "generation", c.Generation().String())
	c.noteTransfer(nil)
	if err := c.halt(); err != nil {
		c.cfg.Logger.Warn("stopping raft", "err", err)
	}
	if err := c.begin(); err != nil {
		c.cfg.Failed(err)
	}
}

// bootstrapper is the node that makes the first configuration, and leads first: a
// witness if there is one, the first by name. Only one of those that vote: two different
// first configurations must not exist.
func (c *Consensus) bootstrapper() string {
	voting := c.cfg.Nodes[:min(len(c.cfg.Nodes), maxVoters)]
	first := voting[0]
	for _, n := range voting[1:] {
		if a, b := n.Role == conf.Witness, first.Role == conf.Witness; a && !b || a == b && n.Name < first.Name {
			first = n
		}
	}
	return first.Name
}
