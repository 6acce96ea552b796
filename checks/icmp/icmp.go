// Package icmp asks machines whether they are there, by echo requests: for
// checktype ping, and for the tie-breaker of a pair.
package icmp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Pinger sends echo requests, IPv4 and IPv6, by one raw socket a family, which is
// opened when first needed. Its methods may be called from any goroutine.
type Pinger struct {
	mu     sync.Mutex // guards the fields below
	socks  [2]*icmpSocket
	closed bool
}

// NewPinger returns a Pinger. It opens nothing.
func NewPinger() *Pinger { return &Pinger{} }

// Ping sends to an address until it answers, again after each time every, and
// returns nil when it has answered this very call. The error is that of a
// socket, or wraps ctx's when that has ended before.
func (p *Pinger) Ping(ctx context.Context, to netip.Addr, every time.Duration) error {
	return p.PingFrom(ctx, Origin{}, to, every)
}

// PingFrom is Ping with requests that come from somewhere. An OriginError says
// that this machine has no such place.
func (p *Pinger) PingFrom(ctx context.Context, from Origin, to netip.Addr, every time.Duration) error {
	to = to.Unmap()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ping %v: %w", to, err)
	}
	sock, err := p.socket(to.Is6())
	if err != nil {
		return err
	}
	control, err := sock.control(from)
	if err != nil {
		return err
	}
	id, answered := sock.expect(to)
	defer sock.forget(id)
	again := time.NewTicker(max(every, time.Millisecond))
	defer again.Stop()
	for {
		if err := sock.send(to, id, control); err != nil {
			return fmt.Errorf("ping %v: %w", to, from.explain(err))
		}
		select {
		case <-answered:
			return nil
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("ping %v: no answer: %w", to, ctx.Err())
		}
	}
}

func (p *Pinger) socket(v6 bool) (*icmpSocket, error) {
	i := 0
	if v6 {
		i = 1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if p.socks[i] == nil {
		s, err := openICMP(v6)
		if err != nil {
			return nil, err
		}
		p.socks[i] = s
	}
	return p.socks[i], nil
}

// Close closes the sockets and waits for their readers.
func (p *Pinger) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range p.socks {
		if s != nil {
			s.conn.Close()
			<-s.done
		}
	}
}

// icmpSocket sends echo requests and hands out replies. The payload holds a
// secret of this socket and the number of the call, so another pinger's
// replies, forged ones and late ones of an earlier call are not taken for ours.
type icmpSocket struct {
	conn   *net.IPConn
	v6     bool
	ident  uint16
	secret [8]byte
	done   chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards the fields below
	last    uint64
	waiting map[uint64]echoWait
}

type echoWait struct {
	from     netip.Addr
	answered chan struct{} // holds one
}

const (
	echoSize     = 8 + 16 // header, then secret and number
	echo4Request = 8
	echo4Reply   = 0
	echo6Request = 128
	echo6Reply   = 129
)

func openICMP(v6 bool) (*icmpSocket, error) {
	network := "ip4:icmp"
	if v6 {
		network = "ip6:ipv6-icmp"
	}
	conn, err := net.ListenIP(network, nil)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("ping needs a raw socket (root or CAP_NET_RAW): %w", err)
		}
		return nil, fmt.Errorf("ping: %w", err)
	}
	s := &icmpSocket{conn: conn, v6: v6, done: make(chan struct{}), waiting: map[uint64]echoWait{}}
	var b [10]byte
	rand.Read(b[:])
	s.ident = binary.BigEndian.Uint16(b[8:])
	copy(s.secret[:], b[:8])
	s.tune()
	go s.read()
	return s, nil
}

// receiveBuffer holds the replies of some thousand pings that fall into one moment: the
// kernel's default loses them from the third hundred on.
const receiveBuffer = 4 << 20

// tune lets the kernel drop all but echo replies, and keep many of these. It only
// saves work, so a kernel that cannot is no error.
func (s *icmpSocket) tune() {
	rc, err := s.conn.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // within net.core.rmem_max
		}
		if s.v6 {
			var f unix.ICMPv6Filter
			for i := range f.Data {
				f.Data[i] = ^uint32(0)
			}
			f.Data[echo6Reply>>5] &^= 1 << (echo6Reply & 31)
			_ = unix.SetsockoptICMPv6Filter(int(fd), unix.IPPROTO_ICMPV6, 1 /* ICMPV6_FILTER */, &f)
			return
		}
		// linux/icmp.h: ICMP_FILTER is 1; a bit that is set drops the type.
		drop := ^uint32(1 << echo4Reply)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_RAW, 1, int(int32(drop)))
	})
}

// expect registers a call and returns its number.
func (s *icmpSocket) expect(from netip.Addr) (uint64, <-chan struct{}) {
	w := echoWait{from.WithZone(""), make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.waiting[s.last] = w
	return s.last, w.answered
}

func (s *icmpSocket) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, id)
}

func (s *icmpSocket) send(to netip.Addr, id uint64, control []byte) error {
	var b [echoSize]byte
	b[0] = echo4Request
	if s.v6 {
		b[0] = echo6Request // the kernel fills in the checksum, RFC 3542, 3.1
	}
	binary.BigEndian.PutUint16(b[4:], s.ident)
	binary.BigEndian.PutUint16(b[6:], uint16(id))
	copy(b[8:], s.secret[:])
	binary.BigEndian.PutUint64(b[16:], id)
	if !s.v6 {
		binary.BigEndian.PutUint16(b[2:], fold(sum(b[:])))
	}
	_, _, err := s.conn.WriteMsgIP(b[:], control, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func (s *icmpSocket) read() {
	defer close(s.done)
	var b [256]byte
	for {
		n, from, err := s.conn.ReadFromIP(b[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Errors that ICMP messages left on the socket; ENOBUFS. Nothing
			// to do for one, and a rest keeps a lasting one from spinning.
			time.Sleep(time.Millisecond)
			continue
		}
		if a, ok := netip.AddrFromSlice(from.IP); ok {
			s.reply(b[:n], a.Unmap())
		}
	}
}

// reply hands an ICMP message to the call that waits for it, if any does.
func (s *icmpSocket) reply(b []byte, from netip.Addr) {
	want := byte(echo4Reply)
	if s.v6 {
		want = echo6Reply
	}
	if len(b) != echoSize || b[0] != want || b[1] != 0 ||
		binary.BigEndian.Uint16(b[4:]) != s.ident || [8]byte(b[8:16]) != s.secret {
		return
	}
	id := binary.BigEndian.Uint64(b[16:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := s.waiting[id]; ok && w.from == from {
		select {
		case w.answered <- struct{}{}:
		default:
		}
	}
}
