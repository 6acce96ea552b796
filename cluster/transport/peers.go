package transport

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// view is what was last seen of the peers. losses compares and updates it.
type view map[string]link.Peer

// loss is a peer whose connections are worthless from now on.
type loss struct {
	node string
	boot link.Boot // 0: all connections; else all that are not of this boot
	why  string
}

// errRestarted ends what was under way with a peer's earlier boot; asking again may help.
var errRestarted = errors.New("node has restarted")

// errRemoved ends what was open with a node that was taken out of the configuration.
var errRemoved = errors.New("no longer a node of this cluster")

// losses returns the peers that went down or have only a serial line left, have a new boot, or are no longer nodes, since last time.
func (v view) losses(now []link.Peer) []loss {
	var out []loss
	for node := range v {
		if !slices.ContainsFunc(now, func(p link.Peer) bool { return p.Node == node }) {
			delete(v, node)
			out = append(out, loss{node: node, why: errRemoved.Error()})
		}
	}
	for _, p := range now {
		old, known := v[p.Node]
		v[p.Node] = p
		switch gone := reachableState(p); {
		case gone != nil:
			if known && reachableState(old) == nil {
				out = append(out, loss{node: p.Node, why: gone.Error()})
			}
		case known && p.Boot != 0 && old.Boot != 0 && p.Boot != old.Boot:
			out = append(out, loss{node: p.Node, boot: p.Boot, why: errRestarted.Error()})
		}
		if p.Boot == 0 && old.Boot != 0 { // keep the last one that was believed
			p.Boot = old.Boot
			v[p.Node] = p
		}
	}
	return out
}

// whyDown tells in words why a peer is down, link by link.
func whyDown(p link.Peer) string {
	var parts []string
	for _, l := range p.Links {
		if l.Why != "" {
			parts = append(parts, l.Link+": "+l.Why)
		}
	}
	if len(parts) == 0 {
		return "no link hears it"
	}
	return strings.Join(parts, ", ")
}

// reachableState returns nil, or why no stream can reach a peer.
func reachableState(p link.Peer) error {
	switch {
	case p.State == link.Down:
		return fmt.Errorf("node is down: %s", whyDown(p))
	case p.OnlySerial:
		return fmt.Errorf("only its serial line is left, which carries no streams: %s", whyDown(p))
	}
	return nil
}

// reachable returns nil, or why no stream can be opened to the node.
func reachable(d link.Datagrams, node string) error {
	var names []string
	for _, p := range d.Peers() {
		if p.Node == node {
			return reachableState(p)
		}
		names = append(names, p.Node)
	}
	return fmt.Errorf("no such node; there are %s", strings.Join(names, ", "))
}
