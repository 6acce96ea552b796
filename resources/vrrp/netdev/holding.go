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
	mu     sync.Mutex // held while it changes; guards the rest
	addrs  []rtnl.Address
	on     map[standing]struct{} // addrs, to find one
	routes []conf.VRRPRoute
	rules  []rule
	drop   map[netip.Addr]struct{}
}

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
		hold = &holding{on: map[standing]struct{}{}, drop: map[netip.Addr]struct{}{}}
		h.holdings[name] = hold
	}
	return hold
}

// leaving are the addresses of i that are held, in the order in which they came.
func (h *Host) leaving(i *conf.VRRPInstance, hold *holding) ([]rtnl.Address, error) {
	if err := h.view(); err != nil {
		return nil, err
	}
	defer h.mu.Unlock()
	h.prune(hold)
	wanted := map[standing]struct{}{}
	for _, a := range addressesOf(i) {
		if l, ok := h.seen.link(device(i, &a)); ok {
			wanted[standing{l.Index, a.Address.Addr()}] = struct{}{}
		}
	}
	var gone []rtnl.Address
	for _, a := range hold.addrs {
		if _, ok := wanted[standing{a.Index, a.Prefix.Addr()}]; ok {
			gone = append(gone, a)
		}
	}
	return gone, nil
}

// prune forgets what went with its interface. The caller holds mu.
func (h *Host) prune(hold *holding) {
	hold.addrs = slices.DeleteFunc(hold.addrs, func(a rtnl.Address) bool {
		_, there := h.seen.links[a.Index]
		if !there {
			delete(hold.on, standing{a.Index, a.Prefix.Addr()})
		}
		return !there
	})
}

// write writes down what is held, and what is about to be: what is written down
// before it is done is known after a crash.
func (h *Host) write(instance string, hold *holding, add []rtnl.Address, routes []conf.VRRPRoute, rules []rule, p *problems) {
	all := make([]recordedAddress, 0, len(hold.addrs)+len(add))
	for _, a := range slices.Concat(hold.addrs, add) {
		all = append(all, recordedAddress{h.linkName(a.Index), a.Prefix})
	}
	routes, rules = slices.Clone(routes), slices.Clone(rules)
	if err := h.journal.update(instance, func(r *record) { r.Addresses, r.Routes, r.Rules = all, routes, rules }); err != nil {
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
