package checks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// sctp is the service of a connect by SCTP (RFC 9260) instead of TCP.
const sctp = "sctp"

// tcpConn is a TCP (or SCTP) connection for one check. It is made with plain system calls
// because net.Dialer spends about a third more processor time on one: six more
// system calls, a goroutine, and the lists of addresses.
//
// It ends with its context: every Read and Write then fails at once. The
// deadline methods do nothing, so that crypto/tls cannot move that end.
type tcpConn struct {
	io interface { // f, or a taskSocket
		io.ReadWriteCloser
		SetReadDeadline(time.Time) error
	}
	f       *os.File // non-blocking, in the runtime's poller; nil: of a task
	fd      int      // f.Fd() would make it blocking
	target  netip.AddrPort
	timeout time.Duration // for words
	up      bool          // the handshake is known to be complete
	stop    func() bool   // nil: of a task
}

// dialCheck begins to connect to the server of a check, from where the check
// says. The caller may Write at once: that waits for the handshake, and errors
// of it come out there.
func dialCheck(ctx context.Context, k conf.Check) (*tcpConn, error) {
	c := &tcpConn{target: k.Target, timeout: k.Timeout}
	family, sa, err := sockaddr(k.Target)
	if err != nil {
		return nil, c.fail("connect", err)
	}
	protocol := unix.IPPROTO_TCP
	if k.Service == sctp {
		protocol = unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		if protocol == unix.IPPROTO_SCTP && (err == unix.EPROTONOSUPPORT || err == unix.ESOCKTNOSUPPORT) {
			return nil, c.fail("connect", localError{fmt.Errorf("this kernel has no SCTP (modprobe sctp): %w", err)})
		}
		return nil, c.fail("connect", os.NewSyscallError("socket", err))
	}
	if k.Source.IsValid() || k.Interface != "" || k.Mark != 0 {
		if err := originate(fd, k); err != nil {
			unix.Close(fd)
			return nil, c.fail("connect", err)
		}
	}
	if protocol == unix.IPPROTO_TCP {
		// The acknowledgement of the handshake then travels with the request:
		// one packet less on either side. That it may fail does not matter.
		_ = quickAck(fd, false)
	}
	switch err := connectTo(fd, sa); err {
	case 0:
		c.up = true
	case unix.EINPROGRESS, unix.EINTR: // after EINTR the kernel goes on connecting
	default:
		unix.Close(fd)
		return nil, c.fail("connect", err)
	}
	c.fd = fd
	if t := taskOf(ctx); t != nil {
		c.io = &taskSocket{t: t, fd: fd, until: t.deadline}
		return c, nil
	}
	c.f = os.NewFile(uintptr(fd), "tcp")
	c.io = c.f
	c.stop = context.AfterFunc(ctx, func() { c.f.SetDeadline(time.Unix(1, 0)) })
	return c, nil
}

// sockaddr translates an address for the kernel.
func sockaddr(target netip.AddrPort) (family int, sa unix.Sockaddr, err error) {
	a := target.Addr().Unmap()
	if a.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(target.Port()), Addr: a.As4()}, nil
	}
	sa6 := &unix.SockaddrInet6{Port: int(target.Port()), Addr: a.As16()}
	if z := a.Zone(); z != "" {
		if n, err := strconv.ParseUint(z, 10, 32); err == nil {
			sa6.ZoneId = uint32(n)
		} else {
			ifi, err := net.InterfaceByName(z)
			if err != nil {
				return 0, nil, fmt.Errorf("interface %s: %w", z, err)
			}
			sa6.ZoneId = uint32(ifi.Index)
		}
	}
	return unix.AF_INET6, sa6, nil
}

// connected waits for the handshake.
func (c *tcpConn) connected() error {
	if c.up {
		return nil
	}
	var failure error
	done := func() bool {
		n, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || n != 0 {
			if failure = err; n != 0 {
				failure = unix.Errno(n)
			}
			return true
		}
		// The poller may wake us early; only a peer is proof.
		c.up = c.hasPeer()
		return c.up
	}
	err := c.writable(done)
	if failure != nil {
		err = failure
	}
	if err != nil {
		return c.fail("connect", err)
	}
	return nil
}

// writable waits, each time the socket may be writable, until done is true.
func (c *tcpConn) writable(done func() bool) error {
	if s, ok := c.io.(*taskSocket); ok {
		for !done() {
			if err := s.await(unix.EPOLLOUT); err != nil {
				return err
			}
		}
		return nil
	}
	rc, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Write(func(uintptr) bool { return done() })
}

// listenFirst sends the acknowledgement of the handshake now, which dialCheck
// put off until the request: a server that speaks first waits for it, up to
// 200 ms. The connection is complete.
func (c *tcpConn) listenFirst() { _ = quickAck(c.fd, true) }

func (c *tcpConn) hasPeer() bool {
	_, err := unix.Getpeername(c.fd)
	return err == nil
}

// fail puts an error into an administrator's words.
func (c *tcpConn) fail(op string, err error) error {
	what := op
	if op == "connect" {
		what = "connect " + c.target.String()
	}
	if isTimeout(err) {
		if op != "connect" {
			what = ""
		}
		return timeoutError{what, c.timeout}
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// ioError finds the phase in which a Read or Write failed: before the
// handshake was complete it is the connect that failed.
func (c *tcpConn) ioError(op string, err error) error {
	if !c.up {
		switch {
		case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH),
			errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.ETIMEDOUT):
			op = "connect"
		case isTimeout(err):
			if !c.hasPeer() {
				op = "connect"
			}
		}
	}
	return c.fail(op, err)
}

// Read reads; at the end of the stream it returns io.EOF itself.
func (c *tcpConn) Read(p []byte) (int, error) { return c.io.Read(p) }

// idle lets a task wait until there is something to read, without a buffer. That
// a server needs a moment is certain: to try before would be for nothing.
func (c *tcpConn) idle() error {
	if s, ok := c.io.(*taskSocket); ok {
		return s.await(unix.EPOLLIN)
	}
	return nil
}

// Write writes all of p.
func (c *tcpConn) Write(p []byte) (int, error) {
	n, err := c.io.Write(p)
	if err != nil {
		return n, c.ioError("send", err)
	}
	c.up = true
	return n, nil
}

// lingerTime is how long a complete answer's connection waits for the server to
// close first. It follows its answer in the same flight when it heeds
// "Connection: close"; then it, and not the director, keeps the TIME_WAIT
// socket: 300,000 of them at 5,000 checks a second.
const lingerTime = 20 * time.Millisecond

// awaitClose waits for the server to close, for lingerTime at most.
func (c *tcpConn) awaitClose() {
	var b [1]byte
	if c.io.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = c.io.Read(b[:])
	}
}

// Close closes the connection. It sends FIN, or RST when the server has sent
// what nobody read.
func (c *tcpConn) Close() error {
	if c.stop != nil {
		c.stop()
	}
	return c.io.Close()
}

func (c *tcpConn) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }
func (c *tcpConn) RemoteAddr() net.Addr             { return net.TCPAddrFromAddrPort(c.target) }
func (c *tcpConn) SetDeadline(time.Time) error      { return nil }
func (c *tcpConn) SetReadDeadline(time.Time) error  { return nil }
func (c *tcpConn) SetWriteDeadline(time.Time) error { return nil }
