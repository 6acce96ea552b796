package ipvs

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// conn carries datagrams to and from the kernel. Only setDeadline may be
// called by another goroutine than the one that uses it.
type conn interface {
	send(b []byte) error
	// receive returns one datagram of the kernel. It is valid until the next call.
	receive() ([]byte, error)
	setDeadline(t time.Time) error
	close() error
}

// socket is a generic netlink socket of the network namespace of the thread
// that opened it: the process's.
type socket struct {
	file *os.File
	buf  []byte
}

// bufferSize holds any datagram: the kernel makes those of a dump as large as
// the reader's buffer, up to 32 KiB.
const bufferSize = 64 << 10

func dial() (conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("generic netlink socket: %w", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "generic netlink"), buf: make([]byte, bufferSize)}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind of a generic netlink socket: %w", err), s.close())
	}
	// Both are there since Linux 4.12 and earlier, and their lack does no
	// harm: refusals come without the request (so that a batch of them fits
	// the receive buffer) and with the kernel's own words.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	return s, nil
}

func (s *socket) send(b []byte) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return sent != unix.EAGAIN && sent != unix.EINTR
	})
	return errors.Join(err, sent)
}

func (s *socket) receive() ([]byte, error) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		var n int
		var from unix.Sockaddr
		var got error
		err := raw.Read(func(fd uintptr) bool {
			n, from, got = unix.Recvfrom(int(fd), s.buf, unix.MSG_TRUNC)
			return got != unix.EAGAIN && got != unix.EINTR
		})
		if err = errors.Join(err, got); err != nil {
			return nil, err
		}
		if n > len(s.buf) {
			return nil, fmt.Errorf("%w: datagram of %d bytes", errMalformed, n)
		}
		// Any process may send to our port: only the kernel's is 0.
		if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == 0 {
			return s.buf[:n], nil
		}
	}
}

func (s *socket) setDeadline(t time.Time) error { return s.file.SetDeadline(t) }
func (s *socket) close() error                  { return s.file.Close() }
