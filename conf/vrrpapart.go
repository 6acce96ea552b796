package conf

import "slices"

// Apart returns v without what is the cluster's, too: instances with such an
// address or VRID, and pools with such a virtual service.
func Apart(v *VRRP, spec *Spec) *VRRP {
	apart := *v
	gone := map[string]bool{}
	apart.Instances = slices.DeleteFunc(slices.Clone(v.Instances), func(i VRRPInstance) bool {
		both := CheckWorlds(&VRRP{Instances: []VRRPInstance{i}}, spec) != nil
		gone[i.Name] = both
		return both
	})
	apart.Pools = slices.DeleteFunc(slices.Clone(v.Pools), func(p VRRPPool) bool {
		return gone[p.Instance] || CheckWorlds(&VRRP{Pools: []VRRPPool{p}}, spec) != nil
	})
	apart.SyncGroups = nil
	for _, g := range v.SyncGroups {
		g.Instances = slices.DeleteFunc(slices.Clone(g.Instances), func(name string) bool { return gone[name] })
		if len(g.Instances) > 0 {
			apart.SyncGroups = append(apart.SyncGroups, g)
		}
	}
	return &apart
}
