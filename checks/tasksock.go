package checks

import (
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// taskSocket is a non-blocking stream socket of a task.
type taskSocket struct {
	t      *task
	fd     int
	until  time.Time // when waiting ends
	asked  uint32    // events that the poller was asked for
	streak int       // reads in a row that nobody waited for
}

// await gives way until the socket can be read (EPOLLIN) or written (EPOLLOUT).
func (s *taskSocket) await(events uint32) error {
	s.streak = 0
	if s.asked&events == 0 {
		op := unix.EPOLL_CTL_ADD
		if s.asked != 0 {
			op = unix.EPOLL_CTL_MOD
		}
		// Whoever has written reads next: it is asked for once. The other way
		// round, the socket can be written now, which would wake for nothing.
		if s.asked |= events; events == unix.EPOLLOUT {
			s.asked |= unix.EPOLLIN
		}
		if err := s.t.p.control(op, s.fd, s.asked|unix.EPOLLET); err != nil {
			return localError{err}
		}
	}
	return s.t.wait(s.fd, s.until)
}

// maxReads reads, of a buffer each, is what a task may do before others have
// their turn: a server that sends without end holds up nobody.
const maxReads = 16

func (s *taskSocket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if s.streak++; s.streak > maxReads {
		s.streak = 0
		if err := s.t.pause(s.until); err != nil {
			return 0, err
		}
	}
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch errno {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			if err := s.await(unix.EPOLLIN); err != nil {
				return 0, err
			}
		default:
			return 0, errno
		}
	}
}

func (s *taskSocket) Write(p []byte) (done int, err error) {
	for done < len(p) {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&p[done])), uintptr(len(p)-done), unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			done += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			if err := s.await(unix.EPOLLOUT); err != nil {
				return done, err
			}
		default:
			return done, errno
		}
	}
	return done, nil
}

// SetReadDeadline makes waiting end earlier than with the task, or not.
func (s *taskSocket) SetReadDeadline(t time.Time) error {
	if s.until = s.t.deadline; t.Before(s.until) {
		s.until = t
	}
	return nil
}

func (s *taskSocket) Close() error {
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, uintptr(s.fd), 0, 0); errno != 0 {
		return os.NewSyscallError("close", errno)
	}
	return nil
}
