package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/placement"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// Which says which groups a command means, as hb_standby(1) and hb_takeover(1) have it.
type Which uint8

// The groups meant. The zero value is invalid.
const (
	_       Which = iota
	All           // all
	Local         // those that prefer this node
	Foreign       // the others; "failback" is another word for it
)

func (w Which) String() string {
	switch w {
	case All:
		return "all"
	case Local:
		return "local"
	case Foreign:
		return "foreign"
	}
	return fmt.Sprintf("invalid(%d)", uint8(w))
}

// ParseWhich reads all, local, foreign or failback.
func ParseWhich(s string) (Which, error) {
	switch s {
	case "", "all":
		return All, nil
	case "local":
		return Local, nil
	case "foreign", "failback":
		return Foreign, nil
	}
	return 0, fmt.Errorf("%q: it is one of all, local, foreign, failback", s)
}

func (w Which) means(c *conf.Group, node string) bool {
	local := len(c.Prefer) > 0 && c.Prefer[0] == node
	return w == All || (w == Local) == local
}

// Moved is what a command did with a group.
type Moved struct {
	Group string `json:"group"`
	From  string `json:"from,omitempty"`
	To    string `json:"to"`            // empty: it stops, and nobody has it
	Why   string `json:"why,omitempty"` // nobody can have it
	Index uint64 `json:"index"`         // of the entry that decided it
}

// Standby gives up this node's groups of a kind: to a node, or (to empty)
// each to the best other one. It returns when the moves are committed; Settled waits for their end.
// Groups that nobody else can have make it a ForceError; with Order.Force they stop here.
func (n *Node) Standby(ctx context.Context, which Which, to string) ([]Moved, error) {
	o := OrderOf(ctx)
	var lone []Moved
	if to == "" {
		lone = n.lone(which)
	}
	if len(lone) > 0 && !o.Dry {
		if err := n.current(ctx); err != nil {
			return nil, err
		}
		if !o.Force {
			return nil, &ForceError{loneText(lone), "keepbeat standby --force"}
		}
	}
	moved, err := n.move(ctx, "standby "+which.String()+" on "+n.self+o.by(), func(st *state.State, g state.Group, c *conf.Group) (string, error) {
		if g.Owner != n.self || !which.means(c, n.self) || slices.ContainsFunc(lone, func(m Moved) bool { return m.Group == c.Name }) {
			return "", nil
		}
		if to == n.self {
			return "", fmt.Errorf("standby --to %s: that is this node", to)
		}
		if to != "" {
			return n.choose(st, c, to)
		}
		w := placement.Place(st, c, placement.Exclude{n.self: givenUp})
		if w.Node == "" {
			return "", fmt.Errorf("group %s: %s", c.Name, w.Reason)
		}
		return w.Node, nil
	})
	if err != nil || o.Dry {
		return append(moved, lone...), err
	}
	var names []string
	for _, m := range lone {
		names = append(names, m.Group)
	}
	if len(names) > 0 {
		err = n.putAside(ctx, names, "given up here"+o.by()+", with --force")
	}
	return append(moved, lone...), err
}

const givenUp = "it gives the group up"

// lone are the groups of this node that no other director can have now.
func (n *Node) lone(which Which) []Moved { return n.loneOn(n.State(), n.self, givenUp, which) }

// loneOn are those of a node; why says why that cannot have them.
func (n *Node) loneOn(st *state.State, node, why string, which Which) []Moved {
	if st.Spec == nil {
		return nil
	}
	var all []Moved
	for i := range st.Spec.Groups {
		c := &st.Spec.Groups[i]
		if g := st.Groups[c.Name]; g.Owner != node || g.Blocked != "" || !which.means(c, node) {
			continue
		}
		if w := placement.Place(st, c, placement.Exclude{node: why}); w.Node == "" {
			all = append(all, Moved{Group: c.Name, From: node, Why: w.Reason})
		}
	}
	return all
}

func loneText(lone []Moved) string {
	var lines []string
	for _, m := range lone {
		lines = append(lines, fmt.Sprintf("group %s would stop and run nowhere: %s", m.Group, m.Why))
	}
	return strings.Join(lines, "\n")
}

// Takeover brings groups of a kind to this node.
func (n *Node) Takeover(ctx context.Context, which Which) ([]Moved, error) {
	var mine []string
	if st := n.State(); st.Spec != nil {
		for i := range st.Spec.Groups {
			if c := &st.Spec.Groups[i]; which.means(c, n.self) {
				mine = append(mine, c.Name)
			}
		}
	}
	back := n.takeBack(mine)
	moved, err := n.move(ctx, "takeover "+which.String()+" on "+n.self+OrderOf(ctx).by(), func(st *state.State, g state.Group, c *conf.Group) (string, error) {
		if g.Owner == n.self || !which.means(c, n.self) {
			return "", nil
		}
		if slices.Contains(back, c.Name) {
			return n.self, nil // all that the log has against it is that it was given up here
		}
		return n.choose(st, c, n.self)
	})
	if err != nil {
		return moved, err
	}
	for _, name := range back {
		// The leader may have been quicker.
		if st := n.State(); st.Groups[name].Owner == n.self && !slices.ContainsFunc(moved, func(m Moved) bool { return m.Group == name }) {
			moved = append(moved, Moved{Group: name, To: n.self, Index: st.Index})
		}
	}
	return moved, n.settleBack(ctx, back)
}

// choose checks a node that an operator named.
func (n *Node) choose(st *state.State, c *conf.Group, to string) (string, error) {
	if !slices.Contains(placement.Order(st, c), to) {
		return "", fmt.Errorf("group %s: %q is no director of this cluster; it has %s", c.Name, to, strings.Join(placement.Order(st, c), ", "))
	}
	// Everybody else is left out, so that the answer is this node or the reason why not.
	others := placement.Exclude{}
	for _, d := range placement.Order(st, c) {
		if d != to {
			others[d] = "not the one named"
		}
	}
	if w := placement.Place(st, c, others); w.Node != to {
		return "", fmt.Errorf("group %s: %s cannot have it: %s", c.Name, to, w.Refused[to])
	}
	return to, nil
}

// leaderWait is how long a command waits for an election that is under way.
const leaderWait = 2 * time.Second

// current returns an error when what this node knows may be out of date, for
// answers that need no command: that there is nothing to do, above all.
func (n *Node) current(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	for n.cons.Leader() == "" {
		if w := n.cons.Waiting(); w != "" {
			return errors.New(w)
		}
		select {
		case <-ctx.Done():
			return consensus.ErrNoLeader
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// propose is Consensus.Propose for commands of an operator.
func (n *Node) propose(ctx context.Context, c state.Command) (state.Result, error) {
	if w := n.cons.Waiting(); w != "" {
		return state.Result{}, errors.New(w)
	}
	return n.cons.Propose(ctx, c)
}

// move commits manual moves; pick says for each group where to, empty: it stays.
func (n *Node) move(ctx context.Context, why string, pick func(*state.State, state.Group, *conf.Group) (string, error)) ([]Moved, error) {
	for {
		st := n.State()
		if st.Spec == nil {
			if err := n.current(ctx); err != nil {
				return nil, err
			}
			return nil, errors.New("the cluster has no specification yet: write haresources.yaml on a director and run `keepbeat apply` there")
		}
		var moves []state.Move
		var moved []Moved
		for i := range st.Spec.Groups {
			c := &st.Spec.Groups[i]
			g := st.Groups[c.Name]
			to, err := pick(st, g, c)
			if err != nil {
				return nil, err
			}
			if to == "" || to == g.Owner {
				continue
			}
			if g.Blocked != "" {
				return nil, fmt.Errorf("group %s is blocked: %s", c.Name, g.Blocked)
			}
			moves = append(moves, state.Move{
				Group: c.Name, Owner: g.Owner, Epoch: g.Epoch, Incarnation: st.Nodes[g.Owner].Incarnation,
				To: to, ToIncarnation: st.Nodes[to].Incarnation, Reason: why, Manual: true,
			})
			moved = append(moved, Moved{Group: c.Name, From: g.Owner, To: to})
		}
		if len(moves) == 0 || OrderOf(ctx).Dry {
			return moved, n.current(ctx)
		}
		r, err := n.propose(ctx, state.Command{Hand: &state.Hand{Moves: moves}})
		for i := range moved {
			moved[i].Index = r.Index
		}
		var refused *state.RefusedError
		if errors.As(err, &refused) && ctx.Err() == nil && n.State().Index > st.Index {
			continue // the state moved on meanwhile: look again
		}
		return moved, err
	}
}

// Settled waits until the moves are done: the new owner has started the group.
// The error names the first group that ended elsewhere.
func (n *Node) Settled(ctx context.Context, moved []Moved) error {
	for _, m := range moved {
		var end state.Group
		err := n.cons.Wait(ctx, func(st *state.State) bool {
			end = st.Groups[m.Group]
			if st.Index < m.Index {
				return false // this node has not applied the move yet
			}
			if m.To == "" {
				return end.Owner != m.From || end.Blocked != ""
			}
			return end.Active && end.Target == "" || end.Blocked != "" || end.FailedOn(m.To)
		})
		switch {
		case err != nil:
			return fmt.Errorf("group %s: not settled in time: owner %q, moving to %q", m.Group, end.Owner, end.Target)
		case end.Blocked != "":
			return fmt.Errorf("group %s: %s", m.Group, end.Blocked)
		case m.To == "":
		case end.FailedOn(m.To):
			f := end.Failures[m.To]
			return fmt.Errorf("group %s: failed on %s: %s: %s", m.Group, m.To, f.Resource, f.Error)
		case end.Owner != m.To:
			return fmt.Errorf("group %s: it is on %s, not on %s: %s", m.Group, end.Owner, m.To, end.Reason)
		}
	}
	return nil
}
