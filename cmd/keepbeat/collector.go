package main

import (
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	// usualGrowth (%) of the heap between two collections is Go's own.
	usualGrowth = 100
	// seldomGrowth is 30 MB for 5,000 addresses, and no collection while they
	// are programmed.
	seldomGrowth = 400
	// punctualInterval is the longest between advertisements of which a
	// collection, some milliseconds, is a part that counts.
	punctualInterval = 100 * time.Millisecond
)

// collectSeldom has memory collected less often while advertisements are due every
// few milliseconds: with thousands of addresses one that falls into a collection is
// late (make bench-vrrp). GOGC in the environment goes before it.
func collectSeldom(v *conf.VRRP) {
	if os.Getenv("GOGC") != "" {
		return
	}
	growth := usualGrowth
	if slices.ContainsFunc(v.Instances, func(i conf.VRRPInstance) bool { return i.Interval <= punctualInterval }) {
		growth = seldomGrowth
	}
	debug.SetGCPercent(growth)
}

// Update makes v what runs.
func (r *routers) Update(v *conf.VRRP) {
	collectSeldom(v)
	r.Site.Update(v)
}
