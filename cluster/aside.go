package cluster

import (
	"context"
	"maps"
	"sync"

	"github.com/keepbeat/keepbeat/cluster/state"
)

// aside holds the groups that this node has given up although nobody else
// could have them (standby --force): it stops them and reports that it cannot
// run them, so that the first director that can gets them. It is forgotten when
// another director runs the group, by a takeover, and with the daemon.
type aside struct {
	mu  sync.Mutex        // guards why
	why map[string]string // by group
}

func (a *aside) put(group, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.why == nil {
		a.why = map[string]string{}
	}
	a.why[group] = why
}

func (a *aside) drop(group string) (was bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, was = a.why[group]
	delete(a.why, group)
	return was
}

// given says whether the group is to stop here: only once the log has it that
// this node cannot run it, or the leader would give it back at once.
func (a *aside) given(me state.Node, group string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	why, is := a.why[group]
	return is && me.Problems[group] == why
}

// problems adds what was put aside, and forgets what has found another owner.
func (a *aside) problems(st *state.State, self string, all map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for group, why := range a.why {
		g, known := st.Groups[group]
		if !known || g.Active && g.Owner != self {
			delete(a.why, group)
			continue
		}
		all[group] = why
	}
}

// putAside gives groups up for which nobody else is there. It returns when the log has it.
func (n *Node) putAside(ctx context.Context, groups []string, why string) error {
	for _, g := range groups {
		n.aside.put(g, why)
	}
	err := n.sayProblems(ctx, func(p map[string]string) {
		for _, g := range groups {
			p[g] = why
		}
	})
	if err != nil {
		for _, g := range groups {
			n.aside.drop(g)
		}
	}
	n.wake()
	return err
}

// takeBack ends what putAside began, for these groups, and returns those that
// it was true of. The log hears of it by and by; settleBack tells it at once.
func (n *Node) takeBack(groups []string) (back []string) {
	for _, g := range groups {
		if n.aside.drop(g) {
			back = append(back, g)
		}
	}
	return back
}

func (n *Node) settleBack(ctx context.Context, back []string) error {
	if len(back) == 0 {
		return nil
	}
	return n.sayProblems(ctx, func(p map[string]string) {
		for _, g := range back {
			delete(p, g)
		}
	})
}

// sayProblems commits this node's problems with a change, and waits until this
// node's own state has it.
func (n *Node) sayProblems(ctx context.Context, change func(map[string]string)) error {
	me := n.State().Nodes[n.self]
	problems := maps.Clone(me.Problems)
	if problems == nil {
		problems = map[string]string{}
	}
	change(problems)
	r, err := n.propose(ctx, state.Command{Problems: &state.Problems{Node: n.self, Incarnation: me.Incarnation, Problems: problems, Unsettled: me.Unsettled}})
	if err != nil {
		return err
	}
	return n.cons.Wait(ctx, func(st *state.State) bool { return st.Index >= r.Index })
}
