package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// here returns what the node that was asked says of itself.
func here(s Status) *LocalStatus {
	for _, n := range s.Nodes {
		if n.Name == s.Node {
			return n.Here
		}
	}
	return nil
}

// fenceTrouble adds what an administrator should know of pairs, fencing and watchdogs.
func fenceTrouble(s Status, add func(rank int, format string, args ...any)) {
	for _, node := range slices.Sorted(maps.Keys(s.Fencing)) {
		r := s.Fencing[node]
		tries := ""
		if r.Tries > 0 {
			tries = fmt.Sprintf(" (%d tries have failed: `keepbeat fence history`)", r.Tries)
		}
		what := "node"
		if r.Group != "" {
			what = "foreign router"
		}
		add(0, "%s %s is being fenced by %s%s: %s", what, node, r.Operator, tries, r.Why)
	}
	for _, n := range s.Nodes {
		h := n.Here
		if h == nil {
			continue
		}
		for _, w := range h.Waiting {
			add(0, "node %s has to be off before anything goes on: make sure that it is, by hand, then run `keepbeat fence confirm %s` (device %s on %s waits since %s)",
				w.Node, w.Node, w.Device, n.Name, w.Since.Local().Format("15:04:05"))
		}
		for _, node := range slices.Sorted(maps.Keys(h.Held)) {
			add(0, "node %s is not fenced again before %s: the last times its devices reset it when it was back already, so it is likely to be starting; `keepbeat fence %s` does not wait",
				node, h.Held[node].Local().Format("15:04:05"), node)
		}
		if h.Pair != nil && !(n.Name == s.Node && s.Waiting != "" && h.Pair.Phase == pair.Joining.String()) {
			pairTrouble(n.Name, *h, add)
		}
		for _, d := range h.Devices {
			switch {
			case d.Error == "":
			case d.Kind == conf.FenceWatchdog.String():
				add(2, "node %s: fencing device %s fences nobody as it is: %s", n.Name, d.Name, d.Error)
			default:
				add(2, "node %s: fencing device %s does not answer: %s", n.Name, d.Name, d.Error)
			}
		}
		if w := h.Watchdog; w != nil {
			switch {
			case w.Starved != "":
				add(0, "node %s resets itself: %s", n.Name, w.Starved)
			case !w.Running && w.Error != "":
				add(2, "node %s: the watchdog %s is not armed: %s", n.Name, w.Device, w.Error)
			case len(w.Held) > 0:
				add(1, "node %s: the watchdog is not fed and resets the machine in %v: %s", n.Name, w.Left.Round(100_000_000), w.Held[0])
			}
		}
	}
}

// pairSays says whether a node's part in its pair tells more than that it is joining.
func pairSays(n NodeStatus) bool {
	if n.Here == nil || n.Here.Pair == nil || n.State != "joining" {
		return false
	}
	switch n.Here.Pair.Phase {
	case pair.Waiting.String(), pair.Joining.String(), pair.Rejoining.String(), pair.Rivals.String():
		return true
	}
	return false
}

func pairTrouble(node string, h LocalStatus, add func(rank int, format string, args ...any)) {
	p := *h.Pair
	if p.TieLost && p.Phase == pair.Whole.String() {
		add(2, "node %s: the tie-breaker %s: if %s falls silent now, this node stops", node, p.TieBreaker, p.Peer)
	}
	if p.Failing != "" {
		add(0, "node %s tries again and again to get on (%s): %s", node, p.Phase, p.Failing)
	}
	if p.Unasked != "" {
		add(0, "node %s does not take addresses of which it cannot ask who has them: %s", node, p.Unasked)
	}
	switch p.Phase {
	case pair.Whole.String():
		if p.Why != "" {
			add(1, "node %s: %s", node, p.Why)
		}
	case pair.Sole.String():
		if p.Contested {
			also := ""
			if p.Rule == conf.QuorumUnsafe.String() {
				also = fmt.Sprintf("; by the rule unsafe %s may be serving the same", p.Peer)
			}
			add(2, "node %s goes on alone, under generation %s: %s%s", node, p.Generation, p.Why, also)
		}
	case pair.Alone.String(), pair.Surviving.String():
		does := "goes on alone"
		active := func(g resources.GroupStatus) bool { return g.Phase == "active" }
		if h.Lease <= 0 || !slices.ContainsFunc(h.Groups, active) {
			does = "serves nothing"
		}
		why := p.Why
		if n := len(p.Elsewhere); n > 0 {
			why += "; another machine answers for " + strings.Join(p.Elsewhere[:min(n, 3)], ", ")
			if n > 3 {
				why += fmt.Sprintf(" and %d more", n-3)
			}
		}
		add(0, "node %s has no quorum and %s (quorum: %s): %s; nothing can be changed meanwhile", node, does, p.Rule, why)
	case pair.Rivals.String():
		add(0, "node %s waits: %s", node, p.Why)
	case pair.Rejoining.String():
		add(2, "node %s comes back into the generation of %s, without its log", node, p.Peer)
	default:
		text := p.Phase + ": " + p.Why
		if strings.HasPrefix(p.Why, p.Phase+" ") { // waiting for director2 to take part
			text = p.Why
		}
		add(0, "node %s is %s", node, text)
	}
}
