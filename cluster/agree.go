package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// withDigest adds what the states of two nodes are compared by.
func (n *Node) withDigest(s LocalStatus) LocalStatus {
	s.Index, s.Digest = n.cons.Digest()
	return s
}

// agreeWait is how long this node waits for what others have applied already, to compare.
const agreeWait = 100 * time.Millisecond

// differing returns the nodes whose state is not what this node's was at the
// same index. Programs of different versions may write the same state differently: they
// are not compared, and neither is a node that is far behind, or of another history.
func (n *Node) differing(ctx context.Context, here map[string]*LocalStatus) []string {
	ctx, cancel := context.WithTimeout(ctx, agreeWait)
	defer cancel()
	var names []string
	for name, h := range here {
		if h.Digest == "" || h.Version != n.cfg.Version || h.Pair != nil && h.Pair.Generation != n.cons.Generation().String() {
			continue
		}
		if ours, ok := n.cons.DigestAt(ctx, h.Index); ok && ours != "" && ours != h.Digest {
			names = append(names, name)
		}
	}
	return names
}

// disagreement says which nodes hold another state than the rest; empty: none.
// The lesser number is taken for the one that is wrong.
func disagreement(s Status) string {
	var odd, rest []string
	for _, n := range s.Nodes {
		switch {
		case n.Differs:
			odd = append(odd, n.Name)
		case n.Here != nil:
			rest = append(rest, n.Name)
		}
	}
	if len(odd) == 0 {
		return ""
	}
	if len(odd) > len(rest) {
		odd, rest = rest, odd
	}
	slices.Sort(odd)
	slices.Sort(rest)
	first := fmt.Sprintf("the nodes do not hold the same state: %s and %s have applied the same log and differ; ", strings.Join(odd, ", "), strings.Join(rest, ", "))
	const way = "stop keepbeat there, move its data directory away and start it again: it then rejoins as a new one"
	if len(odd) == len(rest) {
		return first + "find out which is wrong (compare `keepbeat history` and `keepbeat status` on each), " + way
	}
	return first + "the log or the memory of " + strings.Join(odd, ", ") + " is damaged: " + way
}
