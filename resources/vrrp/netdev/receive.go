package netdev

import (
	"encoding/binary"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/vrrp"
)

const (
	// batchPackets are read in one call when so many have arrived.
	batchPackets = 16
	// packetSize holds an IPv4 or IPv6 packet with 255 addresses, with options.
	packetSize  = 60 + 8 + 255*16 + 8
	controlSize = 96
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	size   uint32
}

// reader reads batches of packets from a raw socket.
type reader struct {
	ipv6    bool
	index   int // of the interface that the socket is bound to
	heads   [batchPackets]mmsghdr
	vectors [batchPackets]unix.Iovec
	names   [batchPackets]unix.RawSockaddrInet6 // larger than that of IPv4
	control [batchPackets][controlSize]byte
	data    [batchPackets][packetSize]byte
}

// errorsInARow of reading are taken for one that does not go away.
const errorsInARow = 8

// run reads until the file is closed, or reading fails for good: that is the
// error. What it hands over is valid during the call.
func (r *reader) run(file *os.File, take func(vrrp.Packet)) error {
	rc, err := file.SyscallConn()
	if err != nil {
		return nil // closed
	}
	for failed := 0; ; {
		var n int
		var errno unix.Errno
		err := rc.Read(func(fd uintptr) bool {
			n, errno = r.read(fd)
			return errno != unix.EAGAIN && errno != unix.EINTR
		})
		if err != nil {
			return nil // closed
		}
		if errno != 0 { // what the kernel tells once, ENETDOWN, is over by the next call
			if failed++; failed == errorsInARow {
				return errno
			}
			continue
		}
		failed = 0
		for i := range n {
			if p, ok := r.packet(i); ok {
				take(p)
			}
		}
	}
}

func (r *reader) read(fd uintptr) (int, unix.Errno) {
	for i := range r.heads {
		h := &r.heads[i].header
		r.vectors[i].Base = &r.data[i][0]
		r.vectors[i].SetLen(packetSize)
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Namelen = uint32(unsafe.Sizeof(r.names[i]))
		h.Control = &r.control[i][0]
		h.SetControllen(controlSize)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.heads[0])), batchPackets, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// packet is the i-th of those that were read. What was longer than any
// advertisement is left out.
func (r *reader) packet(i int) (p vrrp.Packet, ok bool) {
	h := &r.heads[i]
	if h.header.Flags&unix.MSG_TRUNC != 0 || h.size > packetSize {
		return p, false
	}
	b := r.data[i][:h.size]
	if r.ipv6 {
		from := netip.AddrFrom16(r.names[i].Addr)
		p, ok = parse6(b, from, r.control[i][:min(uint64(h.header.Controllen), controlSize)])
	} else {
		p, ok = parse4(b)
	}
	p.Interface = r.index
	return p, ok
}

// networkLong is htonl of a 4-byte address as the kernel's structures have it.
func networkLong(a netip.Addr) (b [4]byte) {
	if a.Is4() {
		b = a.As4()
	}
	return b
}

// mreqn is struct ip_mreqn.
func mreqn(group netip.Addr, index int) string {
	g := networkLong(group)
	b := append(g[:], 0, 0, 0, 0)
	return string(binary.NativeEndian.AppendUint32(b, uint32(index)))
}

// mreq6 is struct ipv6_mreq.
func mreq6(group netip.Addr, index int) string {
	return string(binary.NativeEndian.AppendUint32(group.AsSlice(), uint32(index)))
}
