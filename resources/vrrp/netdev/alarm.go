package netdev

import (
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Alarm wakes the clock of virtual routers (vrrp.Alarm) out of a system call.
//
// A timer of Go's goes by whole milliseconds while nothing else happens, and what
// it wakes goes through the runtime's poller and scheduler. A thread in ppoll(2) is
// woken by the kernel when it is time.
type Alarm struct {
	mu   sync.Mutex // guards bell against Close
	bell int        // eventfd; -1: closed
	fds  [1]unix.PollFd
}

// NewAlarm returns an Alarm.
func NewAlarm() (*Alarm, error) {
	bell, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &Alarm{bell: bell, fds: [1]unix.PollFd{{Fd: int32(bell), Events: unix.POLLIN}}}, nil
}

// What the scheduler is told of the thread that waits (sched(7)): it runs before
// whatever else is not of a real-time policy, and gives the processor back soon, for
// which kernels since 6.12 have it run at once.
//
// A real-time policy is worse: the runtime's threads wait for each other by
// sched_yield(2), with which such a thread gives way to none of the others. The
// clock stood for 80 ms then.
const (
	clockNice  = -20
	clockSlice = 100_000 // ns
)

// Begin is vrrp.Alarm's: the caller has a thread of its own until end.
func (a *Alarm) Begin() (end func(), err error) {
	runtime.LockOSThread()
	before, err := unix.SchedGetAttr(0, 0)
	if err == nil {
		err = unix.SchedSetAttr(0, &unix.SchedAttr{
			Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: clockNice, Runtime: clockSlice,
			Flags: unix.SCHED_FLAG_RESET_ON_FORK,
		}, 0)
	}
	if err != nil {
		return runtime.UnlockOSThread, fmt.Errorf("the priority of the clock's thread: %w (CAP_SYS_NICE is needed for nice %d)", err, clockNice)
	}
	return func() {
		if unix.SchedSetAttr(0, before, 0) == nil {
			runtime.UnlockOSThread() // otherwise it ends with the goroutine
		}
	}, nil
}

// Wait is vrrp.Alarm's.
func (a *Alarm) Wait(d time.Duration) {
	timeout := unix.NsecToTimespec(max(0, int64(d)))
	// Whatever ends it early: the clock looks what is due, and waits again.
	if n, _ := unix.Ppoll(a.fds[:], &timeout, nil); n > 0 {
		var b [8]byte
		_, _ = unix.Read(int(a.fds[0].Fd), b[:])
	}
}

// Ring is vrrp.Alarm's.
func (a *Alarm) Ring() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bell >= 0 {
		one := uint64(1)
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(a.bell), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// Close ends it; nobody waits any more.
func (a *Alarm) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	fd := a.bell
	a.bell = -1
	return unix.Close(fd)
}
