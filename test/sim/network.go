package sim

import (
	"maps"
	"slices"

	"github.com/keepbeat/keepbeat/cluster/link/linktest"
)

// network says what is wrong with the wires. Faults overlap: each is put on
// and taken off by itself, and apply sets what they come to.
type network struct {
	w      *world
	faults map[int][]wireFault // by the event that made them
	paused map[string]bool     // daemons that are stopped: streams to and from them stall
	dying  string              // a daemon that is being killed: its last words do not get out
	set    map[wire]linktest.Condition
	cut    map[[2]string]bool
}

type wire struct{ link, from, to string }

// wireFault is one condition for some wires; an empty field means any.
type wireFault struct {
	link, from, to string
	c              linktest.Condition
}

func newNetwork(w *world) *network {
	return &network{w: w, faults: map[int][]wireFault{}, paused: map[string]bool{}, set: map[wire]linktest.Condition{}, cut: map[[2]string]bool{}}
}

func (n *network) condition(w wire) linktest.Condition {
	var c linktest.Condition
	for _, id := range slices.Sorted(maps.Keys(n.faults)) {
		for _, f := range n.faults[id] {
			if f.link != "" && f.link != w.link || f.from != "" && f.from != w.from || f.to != "" && f.to != w.to {
				continue
			}
			c.Cut = c.Cut || f.c.Cut
			c.Loss = max(c.Loss, f.c.Loss)
			c.Duplicate = max(c.Duplicate, f.c.Duplicate)
			c.Corrupt = max(c.Corrupt, f.c.Corrupt)
			c.Delay = max(c.Delay, f.c.Delay)
			c.Jitter = max(c.Jitter, f.c.Jitter)
		}
	}
	return c
}

// apply changes what differs. Streams are cut where no link carries anything.
func (n *network) apply() {
	for _, a := range n.w.machines {
		for _, b := range n.w.machines {
			if a == b {
				continue
			}
			dead := true
			for _, l := range simLinks {
				w := wire{l.Name(), a.name, b.name}
				c := n.condition(w)
				if a.name == n.dying || b.name == n.dying {
					c.Cut = true
				}
				dead = dead && c.Cut
				if n.set[w] != c {
					n.set[w] = c
					n.w.medium.Set(w.link, w.from, w.to, c)
				}
			}
			dead = dead || n.paused[a.name] || n.paused[b.name]
			pair := [2]string{a.name, b.name}
			if n.cut[pair] != dead {
				n.cut[pair] = dead
				if dead {
					n.w.streams.Cut(a.name, b.name)
				} else {
					n.w.streams.Heal(a.name, b.name)
				}
			}
		}
	}
}
