package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	// dscpCS6 is network control, RFC 4594, 3.1: what routing protocols use; as a TOS byte.
	dscpCS6 = 48 << 2
	// priorityControl is TC_PRIO_INTERACTIVE of linux/pkt_sched.h, the highest
	// that needs no capability: the first band of pfifo_fast.
	priorityControl = 6
	// receiveBuffer holds some seconds of the traffic of a cluster, so that a
	// daemon that was not scheduled for a while finds its datagrams.
	receiveBuffer = 2 << 20
	sendBuffer    = 512 << 10
)

// udpPort is a link's socket. It is bound to the interface, so that what it
// sends and receives is on that wire and nowhere else.
type udpPort struct {
	s    *sockets
	conf conf.Link
	way  way
	conn *net.UDPConn
	raw  syscall.RawConn

	tx transfer
	rx transfer
}

// transfer is one datagram on its way, one at a time and without garbage.
//
// The system calls are raw ones: they never block, and Go's others wake its
// monitor thread from its sleep, which at some hundred datagrams a second is
// half of what an idle daemon costs.
type transfer struct {
	mu  sync.Mutex // guards the rest
	now func(fd uintptr) bool
	b   []byte
	n   int
	sa4 unix.RawSockaddrInet4
	sa6 unix.RawSockaddrInet6 // an IPv6 socket has no other
	err syscall.Errno
}

// address returns what the kernel is to read or fill.
func (t *transfer) address(v6 bool) (unsafe.Pointer, uint32) {
	if v6 {
		return unsafe.Pointer(&t.sa6), unix.SizeofSockaddrInet6
	}
	return unsafe.Pointer(&t.sa4), unix.SizeofSockaddrInet4
}

// netPort is a port in the byte order of sockets, and back.
func netPort(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func openUDP(l conf.Link, w way) (*udpPort, error) {
	family := unix.AF_INET
	if w.v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := prepare(fd, l, w); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), l.Name())
	c, err := net.FilePacketConn(f) // has a descriptor of its own
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	conn, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("socket: %T is not UDP", c)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	p := &udpPort{conf: l, way: w, conn: conn, raw: raw}
	p.tx.now = func(fd uintptr) bool {
		to, size := p.tx.address(p.way.v6)
		_, _, p.tx.err = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p.tx.b))), uintptr(len(p.tx.b)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(to), uintptr(size))
		return true // also when it would block: it is dropped then
	}
	p.rx.now = func(fd uintptr) bool {
		for {
			from, size := p.rx.address(p.way.v6)
			n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p.rx.b))), uintptr(len(p.rx.b)),
				unix.MSG_DONTWAIT, uintptr(from), uintptr(unsafe.Pointer(&size)))
			switch err {
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				return false // called again when there is something
			}
			p.rx.n, p.rx.err = int(n), err
			return true
		}
	}
	return p, nil
}

// prepare sets the options and binds.
func prepare(fd int, l conf.Link, w way) error {
	opt := func(what string, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %s: %w", l.Interface, what, err)
		}
		return nil
	}
	set := func(what string, level, name, value int) error {
		return opt(what, unix.SetsockoptInt(fd, level, name, value))
	}
	errs := []error{
		opt("bind to the interface", unix.BindToDevice(fd, l.Interface)),
		set("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		set("SO_BROADCAST", unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
	}
	if w.v6 {
		errs = append(errs,
			set("IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0),
			set("IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, dscpCS6))
	}
	errs = append(errs,
		set("IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, dscpCS6),
		// After IP_TOS, which sets the priority too.
		set("SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, priorityControl))
	for name, size := range map[int]int{unix.SO_RCVBUFFORCE: receiveBuffer, unix.SO_SNDBUFFORCE: sendBuffer} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, size) == nil {
			continue
		}
		plain := unix.SO_RCVBUF // without the capability the system's limit holds
		if name == unix.SO_SNDBUFFORCE {
			plain = unix.SO_SNDBUF
		}
		errs = append(errs, set("buffer size", unix.SOL_SOCKET, plain, size))
	}
	if l.Type == conf.Mcast {
		errs = append(errs, joinGroup(fd, l, w)...)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var any unix.Sockaddr = &unix.SockaddrInet4{Port: int(l.Port)}
	if w.v6 {
		any = &unix.SockaddrInet6{Port: int(l.Port)}
	}
	return opt(fmt.Sprintf("UDP port %d", l.Port), unix.Bind(fd, any))
}

func joinGroup(fd int, l conf.Link, w way) []error {
	wrap := func(what string, err error) error {
		if err != nil {
			return fmt.Errorf("%s: group %v: %s: %w", l.Interface, l.Group, what, err)
		}
		return nil
	}
	set := func(what string, level, name, value int) error {
		return wrap(what, unix.SetsockoptInt(fd, level, name, value))
	}
	if w.v6 {
		mreq := unix.IPv6Mreq{Multiaddr: l.Group.As16(), Interface: uint32(w.index)}
		return []error{
			set("IPV6_MULTICAST_ALL", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0),
			set("IPV6_MULTICAST_IF", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, w.index),
			set("IPV6_MULTICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, int(l.TTL)),
			set("IPV6_MULTICAST_LOOP", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0),
			wrap("join", unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &mreq)),
		}
	}
	mreqn := unix.IPMreqn{Multiaddr: l.Group.As4(), Ifindex: int32(w.index)}
	return []error{
		// Only this socket's group: other programs' groups on this machine are none of ours.
		set("IP_MULTICAST_ALL", unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0),
		wrap("IP_MULTICAST_IF", unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &mreqn)),
		set("IP_MULTICAST_TTL", unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, int(l.TTL)),
		set("IP_MULTICAST_LOOP", unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0),
		wrap("join", unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &mreqn)),
	}
}

// Broadcast implements Port. It fails only when every address does.
func (p *udpPort) Broadcast(b []byte) error {
	var first error
	sent := false
	for _, to := range p.way.all {
		if err := p.Send(b, to); err == nil {
			sent = true
		} else if first == nil {
			first = err
		}
	}
	if sent {
		return nil
	}
	return first
}

// Send implements Port.
func (p *udpPort) Send(b []byte, to netip.AddrPort) error {
	t := &p.tx
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.way.v6 {
		t.sa6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: netPort(to.Port()), Addr: to.Addr().As16()}
		if to.Addr().IsLinkLocalUnicast() && to.Addr().Is6() {
			t.sa6.Scope_id = uint32(p.way.index)
		}
	} else {
		if !to.Addr().Is4() {
			return fmt.Errorf("%v: the link is IPv4", to)
		}
		t.sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: netPort(to.Port()), Addr: to.Addr().As4()}
	}
	t.b = b
	err := p.raw.Write(t.now)
	t.b = nil
	if err != nil {
		return net.ErrClosed
	}
	switch t.err {
	case 0:
		return nil
	case unix.EAGAIN, unix.ENOBUFS:
		return ErrDropped
	}
	return fmt.Errorf("%s: send to %v: %w", p.conf.Interface, to, t.err)
}

// Receive implements Port.
func (p *udpPort) Receive(buf []byte) (int, netip.AddrPort, error) {
	t := &p.rx
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = buf
	err := p.raw.Read(t.now)
	t.b = nil
	switch {
	case errors.Is(err, net.ErrClosed):
		return 0, netip.AddrPort{}, net.ErrClosed
	case err == nil && t.err != 0:
		err = t.err
	}
	if err != nil {
		return 0, netip.AddrPort{}, fmt.Errorf("%s: receive: %w", p.conf.Interface, err)
	}
	if p.way.v6 {
		return t.n, netip.AddrPortFrom(netip.AddrFrom16(t.sa6.Addr).Unmap(), netPort(t.sa6.Port)), nil
	}
	return t.n, netip.AddrPortFrom(netip.AddrFrom4(t.sa4.Addr), netPort(t.sa4.Port)), nil
}

// Close implements Port.
func (p *udpPort) Close() error { return p.conn.Close() }
