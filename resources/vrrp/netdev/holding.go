package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// holding is what Acquire has put into the kernel for an instance.
type holding struct {
	instance string

	mu     sync.Mutex // held while it changes; guards the rest. Taken before Host.mu
	addrs  map[spot]rtnl.Address
	routes []conf.VRRPRoute
	links  map[conf.VRRPRoute]int // index of the interface that a route went to
	rules  []rule
	drop   map[netip.Addr]struct{}
}

// spot is an address where the configuration wants it. Of an interface that has
// another name by now it is still taken away.
type spot struct {
	dev  string
	addr netip.Addr
}

func spotOf(i *conf.VRRPInstance, a *conf.VRRPAddress) spot {
	return spot{device(i, a), a.Address.Addr()}
}

// standingOf is where the kernel has an address.
func standingOf(a rtnl.Address) standing { return standing{a.Index, a.Prefix.Addr()} }

// problems are errors, of which a thousand would help nobody.
type problems struct {
	first []error
	n     int
}

const problemsTold = 5

func (p *problems) add(format string, args ...any) {
	if p.n++; p.n <= problemsTold {
		p.first = append(p.first, fmt.Errorf(format, args...))
	}
}

func (p *problems) err(name string) error {
	if p.n == 0 {
		return nil
	}
	err := errors.Join(p.first...)
	if p.n > problemsTold {
		return fmt.Errorf("%s: %w; and %d more", name, err, p.n-problemsTold)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// holding returns that of an instance.
func (h *Host) holding(name string) *holding {
	h.mu.Lock()
	defer h.mu.Unlock()
	hold := h.holdings[name]
	if hold == nil {
		hold = &holding{instance: name, addrs: map[spot]rtnl.Address{}, links: map[conf.VRRPRoute]int{}, drop: map[netip.Addr]struct{}{}}
		h.holdings[name] = hold
	}
	return hold
}

// leaving are the addresses of i that are held, in i's order. From here on
// nobody puts them back.
func (h *Host) leaving(i *conf.VRRPInstance, hold *holding) (gone []rtnl.Address, spots []spot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.prune(hold)
	gone, spots = make([]rtnl.Address, 0, len(hold.addrs)), make([]spot, 0, len(hold.addrs))
	for a := range addressesOf(i) {
		at := spotOf(i, a)
		if held, ok := hold.addrs[at]; ok {
			gone, spots = append(gone, held), append(spots, at)
			if h.minds[standingOf(held)] == hold {
				delete(h.minds, standingOf(held))
			}
		}
	}
	return gone, spots
}

// prune forgets what went with its interface. The caller holds mu.
func (h *Host) prune(hold *holding) {
	for at, a := range hold.addrs {
		if _, there := h.seen.links[a.Index]; !there {
			delete(hold.addrs, at)
			delete(h.minds, standingOf(a))
		}
	}
}

// write writes down what is held, and what is about to be: what is written down
// before it is done is known after a crash.
func (h *Host) write(hold *holding, add []rtnl.Address, spots []spot, routes []conf.VRRPRoute, rules []rule, p *problems) {
	if h.journal.dir == "" {
		return
	}
	all := make([]recordedAddress, 0, len(hold.addrs)+len(add))
	for at, a := range hold.addrs {
		all = append(all, recordedAddress{at.dev, a.Prefix})
	}
	for n, a := range add {
		if _, held := hold.addrs[spots[n]]; !held {
			all = append(all, recordedAddress{spots[n].dev, a.Prefix})
		}
	}
	routes, rules = slices.Clone(routes), slices.Clone(rules)
	if err := h.journal.update(hold.instance, func(r *record) { r.Addresses, r.Routes, r.Rules = all, routes, rules }); err != nil {
		p.add("%w", err)
	}
}

// union is a with what b has besides.
func union[T comparable](a, b []T) []T {
	all := slices.Clone(a)
	for _, v := range b {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}
