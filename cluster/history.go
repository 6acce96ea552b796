package cluster

import (
	"fmt"
	"strings"

	"github.com/keepbeat/keepbeat/cluster/state"
)

// Director says whether this node may own resources; a witness may not.
func (n *Node) Director() bool { return n.director }

// History returns the decisions that the log still has about a group, or all
// of them (group empty), oldest first. Without a leader that is what this node's log
// holds: whoever has to decide whether it goes on alone looks there.
func (n *Node) History(group string) ([]state.Decision, error) {
	st := n.pair.view()
	if group == "" {
		return st.Decisions, nil
	}
	var some []state.Decision
	for _, d := range st.Decisions {
		if d.Group == group {
			some = append(some, d)
		}
	}
	if _, c := st.Group(group); c == nil && len(some) == 0 {
		var names []string
		if st.Spec != nil {
			for _, g := range st.Spec.Groups {
				names = append(names, g.Name)
			}
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("no group %q; the cluster has no groups yet", group)
		}
		return nil, fmt.Errorf("no group %q; there are %s", group, strings.Join(names, ", "))
	}
	return some, nil
}
