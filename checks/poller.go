package checks

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller waits, for the loop of a Scheduler, until a socket can be read or
// written, a moment has come, or somebody rings. All of it is one epoll
// descriptor, which the runtime's poller waits for like for a socket.
//
// The runtime could wait for all of that itself. Then each wake goes from its
// poller to a goroutine and from there to others, and each hand-over, timer and
// system call wakes another thread (a spinning one, its monitor), which at ten
// to a hundred checks a second costs three times what the checks do. For the
// same reason the system calls here and in tasksock.go are raw ones, of which
// the runtime is not told: none of them can block.
type poller struct {
	fd      int
	file    *os.File // fd
	raw     syscall.RawConn
	clock   int             // timerfd
	bell    int             // eventfd
	armed   time.Time       // of clock; zero: it is not
	waiting map[int32]*task // by descriptor: whom an event of it wakes
	events  [128]unix.EpollEvent
	n       int     // of events, found by look
	woken   []*task // by the last wait
}

func newPoller() (p *poller, err error) {
	p = &poller{fd: -1, clock: -1, bell: -1, waiting: map[int32]*task{}}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return p, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(p.fd, true); err != nil {
		return p, fmt.Errorf("epoll: %w", err)
	}
	p.file = os.NewFile(uintptr(p.fd), "epoll")
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return p, fmt.Errorf("epoll: %w", err)
	}
	if p.clock, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return p, fmt.Errorf("timerfd: %w", err)
	}
	if p.bell, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return p, fmt.Errorf("eventfd: %w", err)
	}
	// Edge-triggered: neither has to be read.
	for _, fd := range []int{p.clock, p.bell} {
		if err := p.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLET); err != nil {
			return p, fmt.Errorf("epoll: %w", err)
		}
	}
	return p, nil
}

func (p *poller) close() {
	for _, fd := range []int{p.clock, p.bell} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	switch {
	case p.file != nil:
		p.file.Close()
	case p.fd >= 0:
		unix.Close(p.fd)
	}
}

func (p *poller) control(op, fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

// ring is alarm.ring.
func (p *poller) ring() {
	one := uint64(1)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(p.bell), uintptr(unsafe.Pointer(&one)), 8)
}

// wait is alarm.wait.
func (p *poller) wait(until time.Time) ([]*task, error) {
	if until.IsZero() {
		p.look(0)
	} else {
		p.arm(until, max(time.Until(until), 1))
		if err := p.raw.Read(p.look); err != nil {
			return nil, fmt.Errorf("epoll: %w", err)
		}
	}
	p.woken = p.woken[:0]
	for i := range p.n {
		fd := p.events[i].Fd
		if t := p.waiting[fd]; t != nil {
			delete(p.waiting, fd)
			p.woken = append(p.woken, t)
		} else if fd == int32(p.clock) {
			p.armed = time.Time{}
		}
	}
	return p.woken, nil
}

// look asks for what has happened already; false: nothing.
func (p *poller) look(uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if p.n = int(n); errno != 0 {
			p.n = 0
		}
		return p.n > 0 || errno != 0
	}
}

// armedWell is how much too early the clock may stay: a system call less for
// what is put off by a trifle, and a wake too many at the most.
const armedWell = time.Millisecond

func (p *poller) arm(until time.Time, d time.Duration) {
	if !p.armed.IsZero() && !until.Before(p.armed) && until.Sub(p.armed) < armedWell {
		return
	}
	p.armed = until
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(p.clock), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
}
