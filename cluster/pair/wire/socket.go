package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// socket hears and sends ARP and neighbour discovery on every interface, also on
// those that come later. It hears what comes in as the interface has it, before
// the guard and other people's filters. What those drop on the way out is an error
// of send (ENOBUFS); the guard lets these questions pass.
type socket struct {
	f  *os.File
	fd int
}

const (
	// buffer holds the answers for some thousand addresses while this process waits for a processor.
	buffer = 4 << 20
	// maxPacket: more than ARP and neighbour discovery need; the rest is cut off.
	maxPacket = 2 << 10
)

// Offsets of what the kernel knows beside the packet (linux/filter.h).
const (
	adProtocol   = 0xfffff000
	adTag        = adProtocol + 44
	adTagPresent = adProtocol + 48
)

// onlyNeighbours lets ARP pass, and ICMPv6 types 135 and 136 in packets without
// extension headers (classic BPF; a packet begins with its network header). Of a
// frame with a VLAN's tag the VLAN's interface gets another copy, without.
var onlyNeighbours = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: adTagPresent},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jt: 2},
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: adTag},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0xfff, Jt: 9}, // tag 0 is a priority, no VLAN
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: adProtocol},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_ARP, Jt: 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IPV6, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: icmp6, Jf: 4},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ip6Header},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: solicitation, Jt: 1},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: announcement, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: maxPacket},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

func openSocket() (_ *socket, err error) {
	// With protocol 0 it hears nothing before its filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket (root or CAP_NET_RAW): %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	filter := unix.SockFprog{Len: uint16(len(onlyNeighbours)), Filter: &onlyNeighbours[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &filter); err != nil {
		return nil, fmt.Errorf("packet socket: filter: %w", err)
	}
	// Linux 4.20; before it, receive leaves out what this machine sends.
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	// Without CAP_NET_ADMIN the usual sizes stay; what overflows is noticed by lost.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)}); err != nil {
		return nil, fmt.Errorf("packet socket: bind: %w", err)
	}
	return &socket{os.NewFile(uintptr(fd), "packet"), fd}, nil
}

// await calls f whenever something has arrived, until the socket is closed.
func (s *socket) await(f func()) {
	rc, err := s.f.SyscallConn()
	if err != nil {
		return // closed
	}
	_ = rc.Read(func(uintptr) bool { f(); return false })
}

// receive calls f for what each packet that has arrived tells. An error of the
// socket (an interface that went down) is told once, and done with.
func (s *socket) receive(f func(index int, s sighting)) {
	var b [maxPacket]byte
	for failures := 0; failures < 4; {
		n, sa, err := unix.Recvfrom(s.fd, b[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBADF) {
			return
		}
		if err != nil {
			failures++
			continue
		}
		l, ok := sa.(*unix.SockaddrLinklayer)
		if !ok || l.Pkttype == unix.PACKET_OUTGOING || l.Hatype != unix.ARPHRD_ETHER {
			continue
		}
		read := readARP
		if l.Protocol == networkOrder(unix.ETH_P_IPV6) {
			read = func(b []byte) (sighting, bool) { return readND(b, mac(l.Addr[:6])) }
		}
		if seen, ok := read(b[:n]); ok {
			if seen.sign == askedFor && l.Pkttype != unix.PACKET_BROADCAST && l.Pkttype != unix.PACKET_MULTICAST {
				seen.sign = defended
			}
			f(l.Ifindex, seen)
		}
	}
}

// send sends a packet by an interface.
func (s *socket) send(protocol uint16, index int, to mac, b []byte) error {
	sa := &unix.SockaddrLinklayer{Ifindex: index, Halen: 6, Protocol: networkOrder(protocol)}
	copy(sa.Addr[:], to[:])
	return unix.Sendto(s.fd, b, unix.MSG_DONTWAIT, sa)
}

// lost returns how many packets found the buffer full since it was asked last.
func (s *socket) lost() (uint32, error) {
	st, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, err
	}
	return st.Drops, nil
}

// groups are the multicast groups that this machine has joined, so that the
// network (a switch that snoops on MLD) and the interface let through what goes to them.
type groups struct {
	fds    []int // the kernel bounds how many groups a socket has
	joined map[joined]bool
}

type joined struct {
	index int
	group netip.Addr
}

func (g *groups) join(index int, group netip.Addr) error {
	if g.joined[joined{index, group}] {
		return nil
	}
	try := func(fd int) error {
		return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(index)})
	}
	err := error(unix.ENOBUFS)
	if n := len(g.fds); n > 0 {
		err = try(g.fds[n-1])
	}
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM) {
		fd, serr := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if serr != nil {
			return fmt.Errorf("IPv6 socket: %w", serr)
		}
		g.fds = append(g.fds, fd)
		err = try(fd)
	}
	if err != nil && !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("multicast group %v cannot be joined (is IPv6 off on the interface?): %w", group, err)
	}
	if g.joined == nil {
		g.joined = map[joined]bool{}
	}
	g.joined[joined{index, group}] = true
	return nil
}

func (g *groups) leave() {
	for _, fd := range g.fds {
		_ = unix.Close(fd)
	}
	*g = groups{}
}

// networkOrder is htons.
func networkOrder(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}
