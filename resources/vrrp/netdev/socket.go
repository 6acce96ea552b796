package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer (bytes) holds what some thousand routers say at once; what is more is lost, as on the wire.
	receiveBuffer = 1 << 20

	// RFC 9568, 5.1.1.3 and 5.1.2.3.
	hopLimit = 255

	// internetworkControl is the precedence of routing protocols (RFC 791, 3.1), as keepalived has it.
	internetworkControl = 0xc0
	priorityControl     = 7 // TC_PRIO_CONTROL, linux/pkt_sched.h

	ipv6MulticastAll = 29 // IPV6_MULTICAST_ALL (Linux 4.20)
	ipv6Freebind     = 78 // IPV6_FREEBIND (Linux 4.15)

	checksumOffset = 6 // of the checksum in a message, RFC 9568, 5.2
)

func family(ipv6 bool) int {
	if ipv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// options sets socket options one after the other until one is refused.
type options struct {
	fd  int
	err error
}

func (o *options) number(level, name, value int, what string) {
	if o.err == nil {
		if err := unix.SetsockoptInt(o.fd, level, name, value); err != nil {
			o.err = fmt.Errorf("%s: %w", what, err)
		}
	}
}

func (o *options) bytes(level, name int, value, what string) {
	if o.err == nil {
		if err := unix.SetsockoptString(o.fd, level, name, value); err != nil {
			o.err = fmt.Errorf("%s: %w", what, err)
		}
	}
}

func (h *Host) rawSocket(ipv6 bool) (fd int, err error) {
	err = h.k.Inside(func() (err error) {
		fd, err = unix.Socket(family(ipv6), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("raw socket (it needs CAP_NET_RAW): %w", err)
	}
	return fd, nil
}

// receiveSocket opens a socket that hears what arrives at one interface, for
// this machine or for groups that it joins.
func (h *Host) receiveSocket(dev string, ipv6 bool) (int, error) {
	fd, err := h.rawSocket(ipv6)
	if err != nil {
		return -1, err
	}
	o := options{fd: fd}
	o.bytes(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev, "SO_BINDTODEVICE")
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if ipv6 {
		// The checksum is left to the machine of the protocol, which counts what is wrong.
		o.number(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
		o.number(unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1, "IPV6_RECVHOPLIMIT")
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, ipv6MulticastAll, 0) // before 4.20 groups of others are heard too, and sorted out
	} else {
		o.number(unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0, "IP_MULTICAST_ALL")
	}
	if o.err != nil {
		_ = unix.Close(fd)
		return -1, o.err
	}
	// Until it was bound it heard every interface.
	var b [1]byte
	for range receiveBuffer {
		if _, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC); err != nil {
			break
		}
	}
	return fd, nil
}

// join makes the socket hear a group on the interface.
//
// One socket is for all groups of an interface, and few machines have more than
// one: 224.0.0.18. The kernel's limit of 20 is the administrator's to raise.
func join(fd int, group netip.Addr, index int) error {
	o := options{fd: fd}
	if group.Is6() {
		o.bytes(unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, mreq6(group, index), "joining "+group.String())
	} else {
		o.bytes(unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, mreqn(group, index), "joining "+group.String())
	}
	if errors.Is(o.err, unix.ENOBUFS) && group.Is4() {
		return fmt.Errorf("%w: a socket cannot join more groups; raise the sysctl net.ipv4.igmp_max_memberships, or let virtual routers share a group", o.err)
	}
	return o.err
}

func leave(fd int, group netip.Addr, index int) {
	if group.Is6() {
		_ = unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP, mreq6(group, index))
	} else {
		_ = unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_DROP_MEMBERSHIP, mreqn(group, index))
	}
}

// sendSocket opens a socket that sends by one interface and hears nothing.
func (h *Host) sendSocket(dev string, index int, ipv6 bool) (int, error) {
	fd, err := h.rawSocket(ipv6)
	if err != nil {
		return -1, err
	}
	o := options{fd: fd}
	// A filter that takes nothing: what nobody reads must not fill memory.
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]}); err != nil {
		o.err = fmt.Errorf("SO_ATTACH_FILTER: %w", err)
	}
	o.bytes(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev, "SO_BINDTODEVICE")
	// A source address that the interface, or in IPv4 the machine, does not
	// have: that of a macvlan's parent, or the one written by the administrator.
	if ipv6 {
		o.number(unix.IPPROTO_IPV6, ipv6Freebind, 1, "IPV6_FREEBIND")
		o.number(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index, "IPV6_MULTICAST_IF")
		o.number(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0, "IPV6_MULTICAST_LOOP")
		o.number(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, internetworkControl, "IPV6_TCLASS")
		// The address may change between what the machine computed and this call.
		o.number(unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, checksumOffset, "IPV6_CHECKSUM")
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
		o.bytes(unix.IPPROTO_IP, unix.IP_MULTICAST_IF, mreqn(netip.Addr{}, index), "IP_MULTICAST_IF")
		o.number(unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0, "IP_MULTICAST_LOOP")
		o.number(unix.IPPROTO_IP, unix.IP_TOS, internetworkControl, "IP_TOS")
	}
	o.number(unix.SOL_SOCKET, unix.SO_PRIORITY, priorityControl, "SO_PRIORITY")
	if o.err != nil {
		_ = unix.Close(fd)
		return -1, o.err
	}
	return fd, nil
}

// pollable makes a file of a non-blocking descriptor: Close ends whoever reads it.
func pollable(fd int) *os.File { return os.NewFile(uintptr(fd), "vrrp") }
