package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// Order is who gave a command and how far it may go. It travels in the
// context, as an identity does: most of what calls a Node does so on nobody's behalf.
type Order struct {
	By    string // user of the control socket; empty: the daemon itself
	Force bool   // do it whatever it costs
	Dry   bool   // only say what would happen
}

type orderKey struct{}

// WithOrder returns a context with the order.
func WithOrder(ctx context.Context, o Order) context.Context {
	return context.WithValue(ctx, orderKey{}, o)
}

// ExtendOrder returns a context whose order is as before and has these marks, too.
func ExtendOrder(ctx context.Context, force, dry bool) context.Context {
	o := OrderOf(ctx)
	o.Force, o.Dry = o.Force || force, o.Dry || dry
	return WithOrder(ctx, o)
}

// OrderOf returns the order of a context; the zero Order: nobody's.
func OrderOf(ctx context.Context) Order {
	o, _ := ctx.Value(orderKey{}).(Order)
	return o
}

// by is " by alice" for the end of a decision's text, empty when nobody is known.
func (o Order) by() string {
	if o.By == "" {
		return ""
	}
	return " by " + o.By
}

// ForceError is a command that was refused for what it would cost. The same
// command with Order.Force is done.
type ForceError struct {
	Cost    string // what would happen, in words
	Command string // "keepbeat apply --force"
}

func (e *ForceError) Error() string {
	return fmt.Sprintf("%s; `%s` does it all the same", e.Cost, e.Command)
}

// wouldLoseQuorum says in words what the cluster would lose if these nodes were
// taken out of it for good: their votes go, and what is left decides among
// itself. Empty: those that are up are a quorum of it.
func (n *Node) wouldLoseQuorum(without ...string) string {
	voters, up, rule := n.voters()
	return quorumAmong(slices.DeleteFunc(voters, func(v string) bool { return slices.Contains(without, v) }), up, rule)
}

// silencing says in words what the cluster would lose while a node is down that goes on
// to be a voter. Empty: it can decide without it.
func (n *Node) silencing(node string) string {
	voters, up, rule := n.voters()
	delete(up, node)
	return quorumAmong(voters, up, rule)
}

// StopCost says in words what the cluster would lose if the daemon of this
// node ended now; empty: it can decide without it.
func (n *Node) StopCost() string { return n.silencing(n.self) }

// voters returns who votes by the log, which of them are up as this node sees
// it, and the rule of a pair.
func (n *Node) voters() (voters []string, up map[string]bool, rule conf.Quorum) {
	st := n.State()
	_, rule = n.nodesOf(st)
	up = map[string]bool{n.self: true}
	heard := n.heard()
	for name := range heard {
		up[name] = true
	}
	for _, id := range st.Voters.IDs {
		name := consensus.NodeOf(id)
		voters = append(voters, name)
		// A machine that is heard under another identity is not that voter.
		known, ok := st.Nodes[name]
		m, speaks := heard[name]
		if ok && known.ID != consensus.Identity(id) || speaks && name != n.self && consensus.ID(name, m.UUID) != consensus.Identity(id) {
			delete(up, name)
		}
	}
	return voters, up, rule
}

// quorumAmong says why the voters that are up can decide nothing; empty: they can.
func quorumAmong(voters []string, up map[string]bool, rule conf.Quorum) string {
	var there, down []string
	for _, v := range voters {
		if up[v] {
			there = append(there, v)
		} else {
			down = append(down, v)
		}
	}
	need := len(voters)/2 + 1
	if len(voters) == 2 && rule != conf.QuorumMajority {
		need = 1 // what decides between two is the rule of the pair
	}
	switch {
	case len(voters) == 0:
		return "no voter would be left: the cluster could decide nothing any more"
	case len(there) >= need:
		return ""
	}
	slices.Sort(down)
	return fmt.Sprintf("the quorum would be lost: of %d voters %d would be up and %d are needed (not there: %s); every group would stop",
		len(voters), len(there), need, strings.Join(down, ", "))
}

// wouldStop says in words which running groups a new specification ends, and
// whether they are more than half of what runs: one group fewer is what was
// asked for and shown; most of them gone is a file that was emptied by mistake.
func wouldStop(st *state.State, next *conf.Spec) (text string, most bool) {
	running := 0
	var gone []string
	for name, g := range st.Groups {
		if g.Owner == "" {
			continue
		}
		running++
		if !slices.ContainsFunc(next.Groups, func(c conf.Group) bool { return c.Name == name }) {
			gone = append(gone, name)
		}
	}
	if len(gone) == 0 {
		return "", false
	}
	slices.Sort(gone)
	const shown = 10
	list := strings.Join(gone[:min(len(gone), shown)], ", ")
	if len(gone) > shown {
		list += fmt.Sprintf(" and %d more", len(gone)-shown)
	}
	return fmt.Sprintf("%d of the %d groups that run would stop: %s", len(gone), running, list), 2*len(gone) > running
}
