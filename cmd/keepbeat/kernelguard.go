package main

import (
	"github.com/keepbeat/keepbeat/cluster/lease/guard"
	"github.com/keepbeat/keepbeat/resources"
)

// kernelGuard is the kernel's guard as resources see it. Virtual routers are held
// on every interface: one that comes back has another index, and was open before
// anybody could hold it there.
type kernelGuard struct{ *guard.Guard }

func (k kernelGuard) HoldRouters(rs ...resources.VirtualRouter) error {
	return k.HoldVRID(vrids(rs)...)
}
func (k kernelGuard) DropRouters(rs ...resources.VirtualRouter) error {
	return k.DropVRID(vrids(rs)...)
}
func (k kernelGuard) CutRouters(rs ...resources.VirtualRouter) error { return k.CutVRID(vrids(rs)...) }

func vrids(rs []resources.VirtualRouter) []guard.VRID {
	var all []guard.VRID
	for _, r := range rs {
		all = append(all, guard.VRID{ID: r.ID, IPv6: r.IPv6})
	}
	return all
}
