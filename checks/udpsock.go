package checks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// udpConn is a UDP socket for one check, connected, so that the kernel hands
// over datagrams of the server alone and tells what ICMP says about it. Like
// tcpConn it ends with its context: every call then fails at once.
type udpConn struct {
	ctx     context.Context
	f       *os.File // non-blocking, in the runtime's poller
	target  netip.AddrPort
	timeout time.Duration // for words
	stop    func() bool
}

// dialUDPCheck makes the socket for a check. Nothing is sent yet.
func dialUDPCheck(ctx context.Context, c conf.Check) (*udpConn, error) {
	u := &udpConn{ctx: ctx, target: c.Target, timeout: c.Timeout}
	family, sa, err := sockaddr(c.Target)
	if err != nil {
		return nil, u.fail(err)
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, u.fail(os.NewSyscallError("socket", err))
	}
	// Without RECVERR (ip(7)) only "port unreachable" would be told, and a dead
	// host would look like a silent one.
	if family == unix.AF_INET {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	}
	if err == nil {
		err = originate(fd, c)
	}
	if err == nil {
		err = unix.Connect(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return nil, u.fail(err)
	}
	u.f = os.NewFile(uintptr(fd), "udp")
	u.stop = context.AfterFunc(ctx, func() { u.f.SetDeadline(time.Unix(1, 0)) })
	return u, nil
}

// fail puts an error into an administrator's words.
func (u *udpConn) fail(err error) error {
	if isTimeout(err) {
		return timeoutError{"", u.timeout}
	}
	return fmt.Errorf("udp %v: %w", u.target, plainError(err))
}

func (u *udpConn) send(p []byte) error {
	if _, err := u.f.Write(p); err != nil {
		return u.fail(err)
	}
	return nil
}

// receive waits for a datagram until the context or the time ends. What is
// longer than p is cut.
func (u *udpConn) receive(p []byte, until time.Time) (n int, err error) {
	if err := u.f.SetReadDeadline(until); err != nil {
		return 0, err
	}
	if err := context.Cause(u.ctx); err != nil { // it may have ended before its deadline was put off
		return 0, err
	}
	n, err = u.f.Read(p)
	if err == io.EOF { // os.File's word for nothing: a datagram may be empty
		return 0, nil
	}
	return n, err
}

// foreign is why a datagram is no answer to what was asked. It is ignored.
type foreign string

func (f foreign) Error() string { return string(f) }

const (
	firstResend = time.Second // then after twice as long, and so on: a lost datagram is no dead server
	maxForeign  = 1000        // datagrams ignored in one check; a flood would keep a processor busy
)

// ask sends a request, again and again until judge is content. An error of
// judge that is foreign means that the datagram is ignored, any other one ends
// the check. judge must not keep the datagram, which is in buf.
func (u *udpConn) ask(request, buf []byte, judge func(datagram []byte) error) error {
	var ignored int
	var last foreign
	for wait := firstResend; ; wait *= 2 {
		if err := u.send(request); err != nil {
			return err
		}
		for until := time.Now().Add(wait); ; {
			n, err := u.receive(buf, until)
			if err == nil {
				if err = judge(buf[:n]); err == nil {
					return nil
				}
				if !errors.As(err, &last) {
					return err
				}
				if ignored++; ignored < maxForeign {
					continue
				}
				return fmt.Errorf("%d datagrams that were no answer, the last: %w", ignored, last)
			}
			if isTimeout(err) && u.ctx.Err() == nil {
				break // again
			}
			if isTimeout(err) && ignored > 0 {
				return fmt.Errorf("%w; ignored: %d that were no answer to the request, the last: %w", u.fail(err), ignored, last)
			}
			return u.fail(err)
		}
	}
}

// Close closes the socket.
func (u *udpConn) Close() error {
	u.stop()
	return u.f.Close()
}

// local is the address that the kernel chose on this side, or none.
func (u *udpConn) local() netip.Addr { return localAddr(u.f).Addr() }

// plainError takes the name of the descriptor out of an error.
func plainError(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
