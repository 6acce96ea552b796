package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// link is what we need to know of a network interface.
type link struct {
	index  int
	name   string
	alt    []string // further names (ip link property add altname)
	arphrd uint16   // ARPHRD_*: kind of link-layer address
	flags  uint32   // IFF_*
	mac    string   // link-layer address, raw bytes
}

// address is an address as it stands on an interface.
type address struct {
	index     int
	prefix    netip.Prefix // local address and length
	peer      netip.Addr   // point-to-point; invalid: none
	broadcast netip.Addr   // IPv4; invalid: none
	label     string       // IPv4
	scope     uint8
	flags     uint32 // IFA_F_*
	proto     uint8  // who added it, IFA_PROTO (Linux 5.18); 0: not said
	valid     uint32 // seconds; forever
	preferred uint32 // seconds; 0: not to be chosen as source
}

// route is a connected route: its network is reached on the interface without a gateway.
type route struct {
	dst    netip.Prefix
	index  int
	metric uint32
}

const (
	forever = 0xffffffff // INFINITY_LIFE_TIME

	ifaProto     = 11   // IFA_PROTO, linux/if_addr.h
	ifaFlagsKept = 0xff // low byte travels in the header
	iflaPropList = 52   // IFLA_PROP_LIST
	iflaAltName  = 53   // IFLA_ALT_IFNAME
	nlaTypeMask  = 0x3fff
)

var errShort = errors.New("netlink message is cut off")

// message is one netlink message.
type message struct {
	typ   uint16
	flags uint16
	body  []byte
}

// messages splits a datagram of the kernel; what is cut off at the end is left out.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > len(b) {
				return
			}
			m := message{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), b[unix.SizeofNlMsghdr:n]}
			if !yield(m) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// attributes walks the attributes of a message body.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// parseLink reads the body of RTM_NEWLINK or RTM_DELLINK. ok is false for what
// is not about the interface itself: a bridge says RTM_DELLINK with its own
// family when a port leaves it, and the port lives on.
func parseLink(b []byte) (l link, ok bool, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return link{}, false, errShort
	}
	l.arphrd = binary.NativeEndian.Uint16(b[2:])
	l.index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	l.flags = binary.NativeEndian.Uint32(b[8:])
	for typ, v := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = cString(v)
		case unix.IFLA_ADDRESS:
			l.mac = string(v)
		case iflaPropList:
			for typ, v := range attributes(v) {
				if typ == iflaAltName {
					l.alt = append(l.alt, cString(v))
				}
			}
		}
	}
	return l, b[0] == unix.AF_UNSPEC && l.index > 0, nil
}

// parseAddress reads the body of RTM_NEWADDR or RTM_DELADDR. ok is false for
// families other than IP.
func parseAddress(b []byte) (a address, ok bool, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return address{}, false, errShort
	}
	if b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return address{}, false, nil
	}
	a.flags, a.scope = uint32(b[2]), b[3]
	a.index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	a.valid, a.preferred = forever, forever
	var local, other netip.Addr
	for typ, v := range attributes(b[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			other, _ = netip.AddrFromSlice(v)
		case unix.IFA_BROADCAST:
			a.broadcast, _ = netip.AddrFromSlice(v)
		case unix.IFA_LABEL:
			a.label = cString(v)
		case unix.IFA_FLAGS:
			if len(v) >= 4 {
				a.flags = binary.NativeEndian.Uint32(v)
			}
		case unix.IFA_CACHEINFO:
			if len(v) >= 8 {
				a.preferred = binary.NativeEndian.Uint32(v)
				a.valid = binary.NativeEndian.Uint32(v[4:])
			}
		case ifaProto:
			if len(v) >= 1 {
				a.proto = v[0]
			}
		}
	}
	// IPv6 has only IFA_ADDRESS unless there is a peer.
	if !local.IsValid() {
		local = other
	}
	if other.IsValid() && other != local {
		a.peer = other
	}
	a.prefix = netip.PrefixFrom(local, int(b[1]))
	want := unix.AF_INET
	if local.Is6() {
		want = unix.AF_INET6
	}
	if !a.prefix.IsValid() || int(b[0]) != want || a.index <= 0 {
		return address{}, false, errors.New("netlink message names no address")
	}
	return a, true, nil
}

// parseRoute reads the body of RTM_NEWROUTE or RTM_DELROUTE. ok is false for
// what is not a connected unicast route of the main table.
func parseRoute(b []byte) (r route, ok bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return route{}, false, errShort
	}
	family, bits, typ := b[0], int(b[1]), b[7]
	table := uint32(b[4])
	flags := binary.NativeEndian.Uint32(b[8:])
	if family != unix.AF_INET && family != unix.AF_INET6 || typ != unix.RTN_UNICAST || bits == 0 ||
		flags&unix.RTM_F_CLONED != 0 || family == unix.AF_INET && b[6] != unix.RT_SCOPE_LINK {
		return route{}, false, nil
	}
	var dst netip.Addr
	for typ, v := range attributes(b[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH:
			return route{}, false, nil
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF, unix.RTA_TABLE, unix.RTA_PRIORITY:
			if len(v) < 4 {
				return route{}, false, errShort
			}
			n := binary.NativeEndian.Uint32(v)
			switch typ {
			case unix.RTA_OIF:
				r.index = int(int32(n))
			case unix.RTA_TABLE:
				table = n
			default:
				r.metric = n
			}
		}
	}
	r.dst = netip.PrefixFrom(dst, bits)
	return r, r.dst.IsValid() && r.index > 0 && table == unix.RT_TABLE_MAIN && dst.Is4() == (family == unix.AF_INET), nil
}

// attr encodes one attribute.
func attr(typ uint16, v []byte) []byte {
	b := make([]byte, unix.SizeofRtAttr, unix.SizeofRtAttr+len(v)+3)
	binary.NativeEndian.PutUint16(b, uint16(unix.SizeofRtAttr+len(v)))
	binary.NativeEndian.PutUint16(b[2:], typ)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// encode is the body of RTM_NEWADDR, or of RTM_DELADDR when remove is set: then
// it names the address and nothing that somebody may have changed since.
func (a address) encode(remove bool) []byte {
	family := byte(unix.AF_INET)
	if a.prefix.Addr().Is6() {
		family = unix.AF_INET6
	}
	b := []byte{family, byte(a.prefix.Bits()), 0, a.scope, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(b[4:], uint32(a.index))
	local := a.prefix.Addr().AsSlice()
	b = append(b, attr(unix.IFA_LOCAL, local)...)
	other := local
	if a.peer.IsValid() {
		other = a.peer.AsSlice()
	}
	b = append(b, attr(unix.IFA_ADDRESS, other)...)
	if remove {
		return b
	}
	b[2] = byte(a.flags & ifaFlagsKept)
	if a.flags > ifaFlagsKept {
		b = append(b, attr(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, a.flags))...)
	}
	if a.broadcast.IsValid() {
		b = append(b, attr(unix.IFA_BROADCAST, a.broadcast.AsSlice())...)
	}
	if a.label != "" {
		b = append(b, attr(unix.IFA_LABEL, append([]byte(a.label), 0))...)
	}
	if a.proto != 0 {
		b = append(b, attr(ifaProto, []byte{a.proto})...)
	}
	if a.valid != forever || a.preferred != forever {
		ci := binary.NativeEndian.AppendUint32(nil, a.preferred)
		ci = binary.NativeEndian.AppendUint32(ci, a.valid)
		b = append(b, attr(unix.IFA_CACHEINFO, append(ci, make([]byte, 8)...))...)
	}
	return b
}

// text is the address as the command that would add it.
func (a address) text(dev string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ip addr add %s", a.prefix)
	if a.peer.IsValid() {
		b.Reset()
		fmt.Fprintf(&b, "ip addr add %s peer %s/%d", a.prefix.Addr(), a.peer, a.prefix.Bits())
	}
	if a.broadcast.IsValid() {
		fmt.Fprintf(&b, " brd %s", a.broadcast)
	}
	fmt.Fprintf(&b, " dev %s", dev)
	if a.label != "" && a.label != dev {
		fmt.Fprintf(&b, " label %s", a.label)
	}
	switch a.scope {
	case unix.RT_SCOPE_HOST:
		b.WriteString(" scope host")
	case unix.RT_SCOPE_LINK:
		b.WriteString(" scope link")
	}
	if a.valid != forever {
		fmt.Fprintf(&b, " valid_lft %d", a.valid)
	}
	if a.preferred != forever {
		fmt.Fprintf(&b, " preferred_lft %d", a.preferred)
	}
	if a.prefix.Addr().Is6() && a.flags&unix.IFA_F_NODAD != 0 {
		b.WriteString(" nodad")
	}
	if a.flags&unix.IFA_F_NOPREFIXROUTE != 0 {
		b.WriteString(" noprefixroute")
	}
	return b.String()
}

// same tells whether two are one address for the kernel.
func (a address) same(o address) bool {
	return a.index == o.index && a.prefix == o.prefix && a.peer == o.peer
}

// fault says in words why nothing on the interface can be reached, or "".
func (l link) fault() string {
	switch {
	case l.index == 0:
		return "the interface is gone"
	case l.flags&unix.IFF_UP == 0:
		return "the interface is down"
	case l.flags&unix.IFF_LOWER_UP == 0:
		return "no carrier"
	}
	return ""
}

func (l link) loopback() bool { return l.flags&unix.IFF_LOOPBACK != 0 }

func (l link) hasName(s string) bool { return l.name == s || slices.Contains(l.alt, s) }

// announces tells whether neighbours learn addresses of this interface by ARP
// or neighbour discovery with Ethernet addresses. (InfiniBand has 20-byte ones.)
func (l link) announces() bool {
	return l.flags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) == 0 && l.arphrd == unix.ARPHRD_ETHER && len(l.mac) == 6
}
