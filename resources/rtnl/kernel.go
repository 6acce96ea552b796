// Package rtnl is what resources ask the kernel about interfaces, addresses and
// routes, and what they have it change: rtnetlink (rtnetlink(7)), and the packets
// by which neighbours learn where an address is. It runs no program.
package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Kernel is the thin shell around the sockets of one network namespace. Its
// methods may be called by several goroutines.
type Kernel struct {
	// Both are as Open found them and are changed by tests only.
	Namespace string // path; empty: the process's own
	Marks     bool   // the kernel keeps IFA_PROTO

	requests map[int]*nl.SocketHandle
	packets  int // AF_PACKET, sends only
	batch    batch
	promote  sync.Mutex // serialises removals for which promote_secondaries is raised and put back
}

const (
	// dumpTries: every change of an address during a dump, our own too, interrupts it (vishvananda/netlink#1018).
	dumpTries = 5
	// EventBuffer (bytes) holds the events of some 10,000 addresses that change at once.
	EventBuffer = 16 << 20
	// requestSeconds bounds the wait for an answer of the kernel, which normally takes microseconds.
	requestSeconds = 5
)

// Open opens the sockets. namespace is the path of a network namespace,
// /run/netns/a; empty: the process's own.
func Open(namespace string) (*Kernel, error) {
	k := &Kernel{Namespace: namespace, packets: -1, batch: batch{fd: -1}}
	err := k.Inside(func() error {
		s, err := nl.GetNetlinkSocketAt(-1, -1, unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink socket: %w", err)
		}
		tv := unix.Timeval{Sec: requestSeconds}
		_ = s.SetReceiveTimeout(&tv) // they only store the value
		_ = s.SetSendTimeout(&tv)
		k.requests = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
		// Protocol 0: nothing is received, so nothing has to be read.
		k.packets, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			s.Close()
			return fmt.Errorf("packet socket: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		k.Marks = atLeast(unix.ByteSliceToString(u.Release[:]), 5, 18)
	}
	return k, nil
}

// Close ends the use of k.
func (k *Kernel) Close() {
	k.requests[unix.NETLINK_ROUTE].Close()
	_ = unix.Close(k.packets)
	k.batch.mu.Lock()
	defer k.batch.mu.Unlock()
	k.batch.close()
}

// atLeast tells whether a kernel release ("6.1.0-18-amd64") is not older than major.minor.
func atLeast(release string, major, minor int) bool {
	a, rest, _ := strings.Cut(release, ".")
	digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if digits >= 0 {
		rest = rest[:digits]
	}
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(rest)
	return err1 == nil && err2 == nil && (x > major || x == major && y >= minor)
}

// Inside runs f in the namespace. In another namespace than the process's own it
// gets a thread for itself, which dies with it: no thread can be left behind in
// the wrong namespace.
func (k *Kernel) Inside(f func() error) error {
	if k.Namespace == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			fd, err := unix.Open(k.Namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("network namespace %s: %w", k.Namespace, err)
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("network namespace %s: %w", k.Namespace, err)
			}
			return f()
		}()
	}()
	return <-done
}

// Subscribe opens a socket, with a buffer of so many bytes, on which the kernel
// tells of changes. It does not block; Receive reads it.
func (k *Kernel) Subscribe(buffer int, groups ...uint) (int, error) {
	fd := -1
	err := k.Inside(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("netlink socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		// Without CAP_NET_ADMIN in the first user namespace; an overflow costs a resync.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	sa := unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, g := range groups {
		sa.Groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, &sa); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("netlink subscription: %w", err)
	}
	return fd, nil
}

// Receive reads what has arrived and calls f for each message, until nothing is
// left. ENOBUFS: the kernel dropped messages.
func Receive(fd int, buf []byte, f func(Message)) error {
	for {
		n, kernel, err := ReceiveFrom(fd, buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil
		case err != nil:
			return err
		case n > len(buf):
			return unix.ENOBUFS
		}
		if !kernel {
			continue // another process can write to us
		}
		for m := range Messages(buf[:n]) {
			f(m)
		}
		// Thousands of addresses that change are as many datagrams; what has to
		// be sent meanwhile goes before the next.
		runtime.Gosched()
	}
}

// ReceiveFrom reads a datagram of netlink and tells whether it is the kernel's.
// It does not allocate, unlike unix.Recvfrom. The error is a unix.Errno.
func ReceiveFrom(fd int, buf []byte, flags int) (n int, kernel bool, err error) {
	var from unix.RawSockaddrNetlink
	size := uint32(unix.SizeofSockaddrNetlink)
	got, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)),
		uintptr(flags), uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, false, errno
	}
	return int(got), from.Family == unix.AF_NETLINK && from.Pid == nl.PidKernel, nil
}

// dump asks for all objects of a kind. f gets the bodies of one complete,
// uninterrupted answer.
func (k *Kernel) dump(request, answer uint16, header int, f func([]byte)) error {
	var err error
	for range dumpTries {
		req := nl.NewNetlinkRequest(int(request), unix.NLM_F_DUMP)
		req.Sockets = k.requests
		req.AddRawData(make([]byte, header)) // AF_UNSPEC: all families
		var all [][]byte
		all, err = req.Execute(unix.NETLINK_ROUTE, answer)
		if err == nil {
			for _, b := range all {
				f(b)
			}
			return nil
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return fmt.Errorf("netlink dump: %w", err)
}

// Links calls f for every interface.
func (k *Kernel) Links(f func(Link)) error {
	return k.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, unix.SizeofIfInfomsg, func(b []byte) {
		if l, ok, err := ParseLink(b); ok && err == nil {
			f(l)
		}
	})
}

// Addresses calls f for every address of every interface.
func (k *Kernel) Addresses(f func(Address)) error {
	return k.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, unix.SizeofIfAddrmsg, func(b []byte) {
		if a, ok, err := ParseAddress(b); ok && err == nil {
			f(a)
		}
	})
}

// DumpConnected hands over the connected routes. It keeps nothing else in memory: a router may have a million others.
func (k *Kernel) DumpConnected(f func(Connected)) error {
	var err error
	for range dumpTries {
		req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		req.Sockets = k.requests
		req.AddRawData(make([]byte, unix.SizeofRtMsg))
		var all []Connected
		err = req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, func(b []byte) bool {
			if r, ok, err := ParseConnected(b); ok && err == nil {
				all = append(all, r)
			}
			return true
		})
		if err == nil {
			for _, r := range all {
				f(r)
			}
			return nil
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return fmt.Errorf("netlink dump of routes: %w", err)
}

// Add puts an address on its interface; EEXIST when it stands there.
func (k *Kernel) Add(a Address) error { return k.Do(AddAddress(a)) }

// Ensure is Add that is content when the address stands there.
func (k *Kernel) Ensure(a Address) error {
	if err := k.Add(a); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// Remove takes an address from its interface. That it is not there, or that the interface is not, is no error.
func (k *Kernel) Remove(a Address) error {
	err := k.Do(RemoveAddress(a))
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Settle returns when the change that the kernel is making, if any, is complete
// and told: the question waits for the lock under which links change.
func (k *Kernel) Settle(index int) {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.Sockets = k.requests
	req.AddRawData(b)
	_, _ = req.Execute(unix.NETLINK_ROUTE, 0)
}

// Announce tells the neighbours on l where ip is, in each form that somebody believes.
func (k *Kernel) Announce(l Link, ip netip.Addr, router bool) error {
	err := k.Tell(l, ip, router)
	if ip.Is4() {
		var room [packetSize]byte
		err = errors.Join(err, k.transmit(l.Index, unix.ETH_P_ARP, BroadcastMAC, appendGARP(room[:0], ARPReply, l.MAC, ip)))
	}
	return err
}

// Tell is Announce by one packet: a neighbour advertisement, or a gratuitous ARP
// request. It does not wait and does not allocate: ENOBUFS or EAGAIN when the
// interface has no room.
func (k *Kernel) Tell(l Link, ip netip.Addr, router bool) error {
	var room [packetSize]byte
	if ip.Is6() {
		return k.transmit(l.Index, unix.ETH_P_IPV6, AllNodesMAC, appendAdvertisement(room[:0], l.MAC, ip, router))
	}
	return k.transmit(l.Index, unix.ETH_P_ARP, BroadcastMAC, appendGARP(room[:0], ARPRequest, l.MAC, ip))
}

// transmit sends a packet to a link-layer address. unix.Sendto would allocate.
func (k *Kernel) transmit(index int, protocol uint16, to string, p []byte) error {
	sa := unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: int32(index), Halen: 6, Protocol: NetworkOrder(protocol)}
	copy(sa.Addr[:], to)
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(k.packets), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&sa)), unix.SizeofSockaddrLinklayer)
	if errno != 0 {
		return errno
	}
	return nil
}

// NetworkOrder is htons.
func NetworkOrder(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}
