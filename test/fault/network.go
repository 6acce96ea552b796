package fault

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
)

// networkKinds are what goes wrong between machines. The service network is whole
// unless it is named: a director that is cut off from the cluster still reaches clients.
func networkKinds() []kind {
	return []kind{
		{name: "a node cut off", draw: func(a *arena, r *rand.Rand) plan {
			h := a.pick(r)
			return a.cut(r, h.Name+" cut off", 1000, a.apart(h, a.heartbeats()...)...)
		}},
		{name: "two nodes cut apart", draw: func(a *arena, r *rand.Rand) plan {
			x := a.pick(r)
			y := one(r, a.others(x)...)
			return a.cut(r, x.Name+" and "+y.Name+" cut apart", 1000, slices.Concat(lab.Ways(x, y, a.heartbeats()...), lab.Ways(y, x, a.heartbeats()...))...)
		}},
		{name: "a node is not heard", draw: func(a *arena, r *rand.Rand) plan {
			h := a.pick(r)
			return a.cut(r, h.Name+" is not heard by anybody", 1000, a.outOf(h)...)
		}},
		{name: "a node does not hear", draw: func(a *arena, r *rand.Rand) plan {
			h := a.pick(r)
			return a.cut(r, h.Name+" hears nobody", 1000, a.into(h)...)
		}},
		{name: "one way between two", draw: func(a *arena, r *rand.Rand) plan {
			x := a.pick(r)
			y := one(r, a.others(x)...)
			if r.IntN(2) == 0 {
				x, y = y, x
			}
			return a.cut(r, y.Name+" does not hear "+x.Name, 1000, lab.Ways(x, y, a.heartbeats()...)...)
		}},
		{name: "everybody alone", draw: func(a *arena, r *rand.Rand) plan {
			var ways []lab.Way
			for _, h := range a.nodes {
				ways = append(ways, a.outOf(h)...)
			}
			return a.cut(r, "all heartbeat links dead", 1000, ways...)
		}},
		{name: "one link dead", draw: func(a *arena, r *rand.Rand) plan {
			link := a.Heartbeat[r.IntN(2)]
			var ways []lab.Way
			for _, h := range a.nodes {
				ways = append(ways, lab.Way{From: h.PortOn(link)})
			}
			return a.cut(r, link.Name+" dead", 1000, ways...)
		}},
		{name: "a heartbeat cable out", draw: func(a *arena, r *rand.Rand) plan {
			return a.cableOut(r, a.pick(r), a.Heartbeat[r.IntN(2)])
		}},
		{name: "the service network cut", draw: func(a *arena, r *rand.Rand) plan {
			// Carrier stays: nobody can know, the address is silent, and nothing may move in a way that hurts.
			p := a.owner().PortOn(a.Service)
			return a.cut(r, p.Host.Name+" cut from the service network", 1000, lab.Way{From: p}, lab.Way{To: p})
		}},
		{name: "the service cable out", draw: func(a *arena, r *rand.Rand) plan {
			return a.cableOut(r, one(r, a.owner(), a.owner(), a.Director1, a.Director2), a.Service)
		}},
		{name: "loss of 1 to 40 %", draw: func(a *arena, r *rand.Rand) plan {
			permille := 10 + r.IntN(391)
			if r.IntN(2) == 0 {
				return a.cut(r, fmt.Sprintf("a loss of %d.%d %% on all heartbeat links", permille/10, permille%10), permille, a.everyWay()...)
			}
			h := a.pick(r)
			return a.cut(r, fmt.Sprintf("a loss of %d.%d %% to and from %s", permille/10, permille%10, h.Name), permille, a.apart(h, a.heartbeats()...)...)
		}},
		{name: "links that flap", draw: drawFlapping},
	}
}

func (a *arena) heartbeats() []*lab.Switch { return a.Heartbeat[:] }

// outOf and into are all a host's ways on the heartbeat links.
func (a *arena) outOf(h *lab.Host) []lab.Way {
	var ways []lab.Way
	for _, s := range a.Heartbeat {
		ways = append(ways, lab.Way{From: h.PortOn(s)})
	}
	return ways
}

func (a *arena) into(h *lab.Host) []lab.Way {
	var ways []lab.Way
	for _, s := range a.Heartbeat {
		ways = append(ways, lab.Way{To: h.PortOn(s)})
	}
	return ways
}

func (a *arena) apart(h *lab.Host, on ...*lab.Switch) []lab.Way {
	var ways []lab.Way
	for _, s := range on {
		ways = append(ways, lab.Way{From: h.PortOn(s)}, lab.Way{To: h.PortOn(s)})
	}
	return ways
}

func (a *arena) everyWay() []lab.Way {
	var ways []lab.Way
	for _, h := range a.nodes {
		ways = append(ways, a.outOf(h)...)
	}
	return ways
}

// long is how long a lasting fault lasts: from half a lease to several.
func (a *arena) long(r *rand.Rand) time.Duration { return between(r, a.lease/2, 2*a.lease+time.Second) }

// cut impairs ways for a while.
func (a *arena) cut(r *rand.Rand, what string, permille int, ways ...lab.Way) plan {
	last := a.long(r)
	p := plan{what: fmt.Sprintf("%s for %v", what, last.Round(time.Millisecond))}
	var cut *lab.Impairment
	p.at(0, what, func() { cut = a.Lab.Impair(permille, ways...) })
	p.at(last, "healed: "+what, func() { cut.End() })
	return p
}

// cableOut takes a host's carrier for a while. The machine has to live: hence uses.
func (a *arena) cableOut(r *rand.Rand, h *lab.Host, s *lab.Switch) plan {
	last := a.long(r)
	what := fmt.Sprintf("the cable of %s to %s out", h.Name, s.Name)
	p := plan{what: fmt.Sprintf("%s for %v", what, last.Round(time.Millisecond)), uses: []string{h.Name}}
	p.at(0, what, func() {
		if !h.Dead() {
			h.PortOn(s).Down()
		}
	})
	p.at(last, "in again: "+what, func() {
		if !h.Dead() {
			h.PortOn(s).Up()
		}
	})
	return p
}

// drawFlapping cuts links again and again, for less and for more than what a lease or raft bears.
func drawFlapping(a *arena, r *rand.Rand) plan {
	h := a.pick(r)
	ways, what := a.apart(h, a.heartbeats()...), "all heartbeat links of "+h.Name
	switch r.IntN(3) {
	case 0:
		s := a.Heartbeat[r.IntN(2)]
		ways, what = a.apart(h, s), h.Name+" on "+s.Name
	case 1:
		ways, what = a.everyWay(), "all heartbeat links"
	}
	down, up := between(r, a.lease/20, a.lease*3/2), between(r, a.lease/20, a.lease)
	p := plan{what: fmt.Sprintf("%s dead for %v, alive for %v, again and again", what, down.Round(time.Millisecond), up.Round(time.Millisecond))}
	var cut *lab.Impairment
	for at := time.Duration(0); at < 4*a.lease; at += down + up {
		p.at(at, "", func() { cut = a.Lab.Impair(1000, ways...) })
		p.at(at+down, "", func() { cut.End() })
	}
	return p
}
