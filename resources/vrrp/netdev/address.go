package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// device is the interface on which an address stands unless it says otherwise.
func device(i *conf.VRRPInstance, a *conf.VRRPAddress) string {
	switch {
	case a.Interface != "":
		return a.Interface
	case i.VMAC != "":
		return i.VMAC
	}
	return i.Interface
}

// address is what stands on the interface.
//
// An IPv6 address is added without duplicate address detection, which would
// cost a second and more, and with a preferred lifetime of 0: the machine's own
// connections would leave from it otherwise, and break when it moves.
func address(a *conf.VRRPAddress, index int) rtnl.Address {
	r := rtnl.Address{
		Index: index, Prefix: a.Address, Broadcast: a.Broadcast, Label: a.Label, Scope: a.Scope,
		Proto: Mark, Valid: rtnl.Forever, Preferred: rtnl.Forever,
	}
	if a.Address.Addr().Is6() {
		r.Flags, r.Preferred = unix.IFA_F_NODAD, 0
	}
	return r
}

// Acquire puts addresses, routes and rules of an instance into the kernel, in
// this order and in batches; where packets to the addresses are not to be taken,
// that comes first. It is idempotent. An address that stands on the interface
// already and is not ours stays as it is, also when Release is called.
func (h *Host) Acquire(i *conf.VRRPInstance) error {
	h.use.RLock()
	defer h.use.RUnlock()
	hold := h.holding(i.Name)
	hold.mu.Lock()
	defer hold.mu.Unlock()
	var p problems
	add, spots, err := h.missing(i, hold, &p)
	if err != nil {
		return fmt.Errorf("%s: %w", title(i), err)
	}
	if !i.Accept && i.Priority != 255 {
		h.refuse(i, hold, &p)
	} else {
		h.admit(nil, hold, &p)
	}
	rules := rulesOf(i)
	// A route that is held and not in i stays held: Release is what takes it back.
	h.write(hold, add, spots, union(hold.routes, i.Routes), union(hold.rules, rules), &p)
	h.addAddresses(hold, add, spots, &p)
	for _, r := range i.Routes {
		h.addRoute(hold, r, &p)
	}
	for _, r := range rules {
		h.addRule(hold, r, &p)
	}
	return p.err(title(i))
}

// missing returns the addresses of the instance that are to be added, and where
// the configuration has them.
func (h *Host) missing(i *conf.VRRPInstance, hold *holding, p *problems) (add []rtnl.Address, spots []spot, err error) {
	if err := h.view(); err != nil {
		return nil, nil, err
	}
	defer h.mu.Unlock()
	h.prune(hold)
	n := len(i.Addresses) + len(i.Excluded)
	add, spots = make([]rtnl.Address, 0, n), make([]spot, 0, n)
	for a := range addressesOf(i) {
		here := spotOf(i, a)
		l, ok := h.seen.link(here.dev)
		if !ok {
			p.add("address %s: %s: no such interface", a.Address, here.dev)
			continue
		}
		held, is := hold.addrs[here]
		at := standing{l.Index, here.addr}
		if there, ok := h.seen.addrs[at]; ok && there.Proto != Mark && (!is || held.Index != l.Index) {
			h.log.Info("an address stands already and is left as it is", "instance", i.Name, "address", there.Prefix, "interface", here.dev)
			continue
		}
		add, spots = append(add, address(a, l.Index)), append(spots, here)
	}
	return add, spots, nil
}

// addAddresses adds what is missing; what stands already because we hold it is no error.
func (h *Host) addAddresses(hold *holding, add []rtnl.Address, spots []spot, p *problems) {
	refused := map[int]bool{}
	err := h.k.Apply(rtnl.AddAddresses(add), func(n int, err error) {
		a := add[n]
		if errors.Is(err, unix.EEXIST) && h.ours(hold, a, spots[n]) {
			return
		}
		refused[n] = true
		hint := ""
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			hint = "; does the daemon have CAP_NET_ADMIN, and is IPv6 switched on there?"
		}
		p.add("address %s on %s: %w%s", a.Prefix, h.linkName(a.Index), err, hint)
	})
	if err != nil {
		p.add("addresses: %w", err) // they may stand: all are taken back by Release
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for n, a := range add {
		if refused[n] {
			continue
		}
		hold.addrs[spots[n]] = a
		at := standingOf(a)
		h.minds[at] = hold
		// The kernel tells of an IPv6 address later, when it gets round to
		// not looking for duplicates; Announce is called before.
		if _, told := h.seen.addrs[at]; !told {
			h.seen.addrs[at] = a
		}
	}
}

// ours says of an address that stands already whether we have put it there.
func (h *Host) ours(hold *holding, a rtnl.Address, at spot) bool {
	if held, is := hold.addrs[at]; is && held.Index == a.Index {
		return true
	}
	if h.view() != nil {
		return false
	}
	defer h.mu.Unlock()
	return h.seen.addrs[standingOf(a)].Proto == Mark
}

// Release takes back, of what Acquire did for the instance of this name, what i
// has, and nothing else: rules, routes, addresses, and at last the refusal of
// packets to them. What could not be taken back is tried again by the next Release.
func (h *Host) Release(i *conf.VRRPInstance) error {
	h.use.RLock()
	defer h.use.RUnlock()
	hold := h.holding(i.Name)
	hold.mu.Lock()
	defer hold.mu.Unlock()
	var p problems
	for _, r := range slices.Backward(rulesOf(i)) {
		if n := slices.Index(hold.rules, r); n >= 0 && h.removeRule(r, &p) {
			hold.rules = slices.Delete(hold.rules, n, n+1)
		}
	}
	for _, r := range slices.Backward(i.Routes) {
		if n := slices.Index(hold.routes, r); n >= 0 && h.removeRoute(r, hold.links[r], &p) {
			hold.routes = slices.Delete(hold.routes, n, n+1)
			delete(hold.links, r)
		}
	}
	gone, spots := h.leaving(i, hold)
	before := p.n
	h.removeAddresses(gone, &p)
	if p.n == before {
		for _, at := range spots {
			delete(hold.addrs, at)
		}
	}
	h.admit(i, hold, &p)
	h.write(hold, nil, nil, hold.routes, hold.rules, &p)
	return p.err(title(i))
}

// removeAddresses takes addresses away, the last first: those that the kernel
// has hung on one before (secondary ones of its network) go before it.
func (h *Host) removeAddresses(all []rtnl.Address, p *problems) {
	if len(all) == 0 {
		return
	}
	if err := h.view(); err != nil {
		p.add("addresses: %w", err)
		return
	}
	others := h.secondaries(all)
	primary := map[standing]bool{} // of those on which others hang
	for n := range all {
		at := standingOf(all[n])
		if len(others[networkOf(all[n])]) > 0 && h.seen.addrs[at].Flags&unix.IFA_F_SECONDARY == 0 {
			primary[at] = true
		}
	}
	h.mu.Unlock()

	batch := make([]rtnl.Address, 0, len(all))
	flush := func() {
		if err := h.k.Apply(rtnl.RemoveAddresses(batch), func(n int, err error) {
			if !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
				p.add("removing address %s from %s: %w", batch[n].Prefix, h.linkName(batch[n].Index), err)
			}
		}); err != nil {
			p.add("removing addresses: %w", err)
		}
		batch = batch[:0]
	}
	for _, a := range slices.Backward(all) {
		if !primary[standingOf(a)] {
			batch = append(batch, a)
			continue
		}
		flush()
		if err := h.k.RemovePrimary(a, h.linkName(a.Index), others[networkOf(a)]); err != nil {
			p.add("removing address %s from %s: %w", a.Prefix, h.linkName(a.Index), err)
		}
	}
	flush()
}

// network is where IPv4 addresses hang on the first of theirs.
type network struct {
	index  int
	prefix netip.Prefix
}

func networkOf(a rtnl.Address) network { return network{a.Index, a.Prefix.Masked()} }

// secondaries finds those that hang on others and are not to be removed
// themselves. The caller holds mu.
func (h *Host) secondaries(gone []rtnl.Address) map[network][]rtnl.Address {
	var going map[standing]struct{}
	var networks map[network][]rtnl.Address
	for _, a := range gone {
		if a.Prefix.Addr().Is4() && a.Prefix.Bits() < 32 {
			if going == nil {
				going, networks = make(map[standing]struct{}, len(gone)), map[network][]rtnl.Address{}
			}
			going[standingOf(a)] = struct{}{}
			networks[networkOf(a)] = nil
		}
	}
	if len(networks) == 0 {
		return nil
	}
	for at, a := range h.seen.addrs {
		if a.Flags&unix.IFA_F_SECONDARY == 0 || !at.addr.Is4() {
			continue
		}
		if _, ok := networks[networkOf(a)]; !ok {
			continue
		}
		if _, ok := going[at]; !ok {
			networks[networkOf(a)] = append(networks[networkOf(a)], a)
		}
	}
	return networks
}
