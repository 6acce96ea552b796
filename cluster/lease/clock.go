package lease

import (
	"sync/atomic"
	"time"
	"unsafe"

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
	suspended atomic.Int64 // as it was read last
}

// Now implements Clock.
func (c *KernelClock) Now() time.Duration {
	suspended := suspendedNow(time.Duration(c.suspended.Load()), func() (before, boot, after time.Duration) {
		before = gettime(unix.CLOCK_MONOTONIC)
		boot = gettime(unix.CLOCK_BOOTTIME)
		return before, boot, gettime(unix.CLOCK_MONOTONIC)
	})
	c.suspended.Store(int64(suspended))
	return gettime(unix.CLOCK_MONOTONIC_RAW) + suspended
}

// Boot implements Clock.
func (c *KernelClock) Boot() time.Duration { return gettime(unix.CLOCK_BOOTTIME) }

// suspendedNow is the time spent suspended, given what it was. read takes BOOTTIME
// between two readings of MONOTONIC, so that the time spent suspended is at least
// boot - after and at most boot - before: to be descheduled in between, or to run
// where a system call is slow, cannot look like a suspension. What agrees with
// the earlier value is no news, which nearly always spares all but one reading.
func suspendedNow(last time.Duration, read func() (before, boot, after time.Duration)) time.Duration {
	const (
		tries = 5
		// jitter of the reading: nothing is suspended and resumed in less.
		jitter = time.Millisecond
		// A reading that took longer could hide a suspension that matters.
		wide = 10 * time.Millisecond
	)
	now, narrowest := last, time.Duration(-1)
	for try := range tries {
		before, boot, after := read()
		least, most := boot-after, boot-before
		if least-jitter <= last && last <= most+jitter {
			if after-before > wide && try < tries-1 {
				continue
			}
			return last
		}
		if width := after - before; narrowest < 0 || width < narrowest {
			now, narrowest = most.Round(time.Millisecond), width
		}
	}
	return now
}

func gettime(id int32) time.Duration {
	var ts unix.Timespec
	// Raw: it never blocks, and Go's other system calls wake its monitor thread,
	// which costs more than all of this.
	if _, _, err := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, uintptr(id), uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
		panic("clock_gettime: " + err.Error()) // every supported kernel has these clocks
	}
	return time.Duration(ts.Nano())
}
