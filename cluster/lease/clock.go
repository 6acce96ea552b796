package lease

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the time by which leases are counted.
type Clock interface {
	// Now is lease time: it runs at the hardware's rate, whatever a time
	// daemon does, and goes on while the machine is suspended.
	Now() time.Duration
	// Boot is CLOCK_BOOTTIME, the guard's clock.
	Boot() time.Duration
}

// KernelClock is CLOCK_MONOTONIC_RAW plus the time spent suspended
// (CLOCK_BOOTTIME - CLOCK_MONOTONIC): daemons may slew the other clocks
// (clock_gettime(2)).
type KernelClock struct {
	suspended atomic.Int64 // last good reading, for a machine too busy to give another
}

// Now implements Clock.
func (c *KernelClock) Now() time.Duration {
	suspended, ok := readSuspended()
	if ok {
		c.suspended.Store(int64(suspended))
	} else {
		suspended = time.Duration(c.suspended.Load())
	}
	return gettime(unix.CLOCK_MONOTONIC_RAW) + suspended
}

// Boot implements Clock.
func (c *KernelClock) Boot() time.Duration { return gettime(unix.CLOCK_BOOTTIME) }

// readSuspended takes BOOTTIME between two readings of MONOTONIC that are close
// together, so that being descheduled between them cannot look like a suspension.
func readSuspended() (time.Duration, bool) {
	const close = 50 * time.Microsecond
	for range 100 {
		before := gettime(unix.CLOCK_MONOTONIC)
		boot := gettime(unix.CLOCK_BOOTTIME)
		after := gettime(unix.CLOCK_MONOTONIC)
		if after-before <= close {
			d := boot - before
			if d <= after-before {
				return 0, true // never suspended: no jitter from the reading
			}
			return d.Round(time.Millisecond), true
		}
	}
	return 0, false
}

func gettime(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic("clock_gettime: " + err.Error()) // every supported kernel has these clocks
	}
	return time.Duration(ts.Nano())
}
