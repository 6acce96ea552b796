package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

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

	mu      sync.Mutex // guards all below: one send at a time, without garbage
	sendNow func(fd uintptr) bool
	b       []byte
	sa4     unix.SockaddrInet4
	sa6     unix.SockaddrInet6
	err     error
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
	p.sendNow = func(fd uintptr) bool {
		var to unix.Sockaddr = &p.sa4
		if p.way.v6 {
			to = &p.sa6
		}
		p.err = unix.Sendto(int(fd), p.b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, to)
		return true // also when it would block: it is dropped then
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
	p.mu.Lock()
	defer p.mu.Unlock()
	p.b = b
	if p.way.v6 {
		p.sa6.Port, p.sa6.Addr, p.sa6.ZoneId = int(to.Port()), to.Addr().As16(), 0
		if to.Addr().IsLinkLocalUnicast() && to.Addr().Is6() {
			p.sa6.ZoneId = uint32(p.way.index)
		}
	} else {
		if !to.Addr().Is4() {
			return fmt.Errorf("%v: the link is IPv4", to)
		}
		p.sa4.Port, p.sa4.Addr = int(to.Port()), to.Addr().As4()
	}
	err := p.raw.Write(p.sendNow)
	p.b = nil
	if err != nil {
		return net.ErrClosed
	}
	switch p.err {
	case nil:
		return nil
	case unix.EAGAIN, unix.ENOBUFS:
		return ErrDropped
	}
	return fmt.Errorf("%s: send to %v: %w", p.conf.Interface, to, p.err)
}

// Receive implements Port.
func (p *udpPort) Receive(buf []byte) (int, netip.AddrPort, error) {
	n, from, err := p.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		var errno syscall.Errno
		switch {
		case errors.Is(err, net.ErrClosed):
			err = net.ErrClosed
		case errors.As(err, &errno):
			err = fmt.Errorf("%s: receive: %w", p.conf.Interface, errno)
		}
		return 0, netip.AddrPort{}, err
	}
	return n, netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port()), nil
}

// Close implements Port.
func (p *udpPort) Close() error { return p.conn.Close() }
