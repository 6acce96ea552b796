package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	// roomNice is the highest priority that the daemon leaves itself beside the
	// clock of virtual routers, which has -20: still ten times what others get.
	roomNice = -10
	// roomProcessors is how many more of Go's processors there are than the
	// machine's: one for a thread that the kernel keeps in a system call, and
	// one for the collector. Otherwise the clock that wakes waits for them.
	roomProcessors = 2
)

// makeRoom keeps the rest of the daemon out of the way of the clock of virtual
// routers. It is called before that begins.
func makeRoom() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.NumCPU() + roomProcessors)
	}
	// A thread inherits the priority of the one that makes it: once none is found
	// that has more, there will be none.
	for found := true; found; {
		found = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			is, err := unix.Getpriority(unix.PRIO_PROCESS, id) // 20 less the nice value: getpriority(2)
			if err == nil && 20-is < roomNice {
				// To lower it needs no privilege.
				found = unix.Setpriority(unix.PRIO_PROCESS, id, roomNice) == nil || found
			}
		}
	}
}

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
