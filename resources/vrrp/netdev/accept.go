package netdev

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/keepbeat/keepbeat/conf"
)

// refuse drops what comes in for the addresses.
func (h *Host) refuse(i *conf.VRRPInstance, hold *holding, p *problems) {
	var all, fresh []netip.Addr
	for a := range addressesOf(i) {
		ip := a.Address.Addr()
		all = append(all, ip)
		if _, ok := hold.drop[ip]; !ok {
			hold.drop[ip] = struct{}{}
			fresh = append(fresh, ip)
		}
	}
	if len(all) == 0 {
		return
	}
	if err := h.drops.add(all, fresh); err != nil {
		p.add("no_accept: %w", err)
		for _, ip := range fresh {
			delete(hold.drop, ip)
		}
	}
}

// admit ends the refusal for the addresses of i; without i, for all that are held.
func (h *Host) admit(i *conf.VRRPInstance, hold *holding, p *problems) {
	var all []netip.Addr
	if i == nil {
		all = slices.Collect(maps.Keys(hold.drop))
	} else {
		for a := range addressesOf(i) {
			if _, ok := hold.drop[a.Address.Addr()]; ok {
				all = append(all, a.Address.Addr())
			}
		}
	}
	if len(all) == 0 {
		return
	}
	if err := h.drops.remove(all); err != nil {
		p.add("%w", err)
	}
	for _, ip := range all {
		delete(hold.drop, ip)
	}
}
