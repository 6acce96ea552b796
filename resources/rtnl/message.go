package rtnl

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

// Link is what we need to know of a network interface.
type Link struct {
	Index  int
	Name   string
	Alt    []string // further names (ip link property add altname)
	ARPHRD uint16   // ARPHRD_*: kind of link-layer address
	Flags  uint32   // IFF_*
	MAC    string   // link-layer address, raw bytes
	Kind   string   // of a virtual one: "macvlan", "bridge"; empty: a device
	Parent int      // index of the interface that it stands on; 0: none
	Alias  string   // what somebody has noted of it (ip link set alias)
}

// Address is an address as it stands on an interface.
type Address struct {
	Index     int
	Prefix    netip.Prefix // local address and length
	Peer      netip.Addr   // point-to-point; invalid: none
	Broadcast netip.Addr   // IPv4; invalid: none
	Label     string       // IPv4
	Scope     uint8
	Flags     uint32 // IFA_F_*
	Proto     uint8  // who added it, IFA_PROTO (Linux 5.18); 0: not said
	Valid     uint32 // seconds; forever
	Preferred uint32 // seconds; 0: not to be chosen as source
}

// Connected is a connected route: its network is reached on the interface without a gateway.
type Connected struct {
	Network netip.Prefix
	Index   int
	Metric  uint32
}

const (
	Forever = 0xffffffff // a lifetime in seconds: INFINITY_LIFE_TIME

	ifaProto     = 11   // IFA_PROTO, linux/if_addr.h
	ifaFlagsKept = 0xff // low byte travels in the header
	iflaPropList = 52   // IFLA_PROP_LIST
	iflaAltName  = 53   // IFLA_ALT_IFNAME
	nlaTypeMask  = 0x3fff
)

// Settable are the flags that a user sets; the others are the kernel's own
// account of the address and follow from the rest.
const Settable = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR |
	unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN | unix.IFA_F_OPTIMISTIC

var errShort = errors.New("netlink message is cut off")

// Message is one netlink message.
type Message struct {
	Type  uint16
	Flags uint16
	Port  uint32 // of the socket by which somebody asked for it; 0: the kernel's own doing
	Body  []byte
}

// Messages splits a datagram of the kernel; what is cut off at the end is left out.
func Messages(b []byte) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > len(b) {
				return
			}
			m := Message{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[12:]), b[unix.SizeofNlMsghdr:n]}
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

// ParseLink reads the body of RTM_NEWLINK or RTM_DELLINK. ok is false for what
// is not about the interface itself: a bridge says RTM_DELLINK with its own
// family when a port leaves it, and the port lives on.
func ParseLink(b []byte) (l Link, ok bool, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, false, errShort
	}
	l.ARPHRD = binary.NativeEndian.Uint16(b[2:])
	l.Index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	l.Flags = binary.NativeEndian.Uint32(b[8:])
	for typ, v := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = cString(v)
		case unix.IFLA_ADDRESS:
			l.MAC = string(v)
		case unix.IFLA_LINK:
			if len(v) >= 4 {
				l.Parent = int(int32(binary.NativeEndian.Uint32(v)))
			}
		case unix.IFLA_IFALIAS:
			l.Alias = cString(v)
		case unix.IFLA_LINKINFO:
			for typ, v := range attributes(v) {
				if typ == unix.IFLA_INFO_KIND {
					l.Kind = cString(v)
				}
			}
		case iflaPropList:
			for typ, v := range attributes(v) {
				if typ == iflaAltName {
					l.Alt = append(l.Alt, cString(v))
				}
			}
		}
	}
	return l, b[0] == unix.AF_UNSPEC && l.Index > 0, nil
}

// ParseAddress reads the body of RTM_NEWADDR or RTM_DELADDR. ok is false for
// families other than IP.
func ParseAddress(b []byte) (a Address, ok bool, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return Address{}, false, errShort
	}
	if b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return Address{}, false, nil
	}
	a.Flags, a.Scope = uint32(b[2]), b[3]
	a.Index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	a.Valid, a.Preferred = Forever, Forever
	var local, other netip.Addr
	for typ, v := range attributes(b[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			other, _ = netip.AddrFromSlice(v)
		case unix.IFA_BROADCAST:
			a.Broadcast, _ = netip.AddrFromSlice(v)
		case unix.IFA_LABEL:
			a.Label = cString(v)
		case unix.IFA_FLAGS:
			if len(v) >= 4 {
				a.Flags = binary.NativeEndian.Uint32(v)
			}
		case unix.IFA_CACHEINFO:
			if len(v) >= 8 {
				a.Preferred = binary.NativeEndian.Uint32(v)
				a.Valid = binary.NativeEndian.Uint32(v[4:])
			}
		case ifaProto:
			if len(v) >= 1 {
				a.Proto = v[0]
			}
		}
	}
	// IPv6 has only IFA_ADDRESS unless there is a peer.
	if !local.IsValid() {
		local = other
	}
	if other.IsValid() && other != local {
		a.Peer = other
	}
	a.Prefix = netip.PrefixFrom(local, int(b[1]))
	want := unix.AF_INET
	if local.Is6() {
		want = unix.AF_INET6
	}
	if !a.Prefix.IsValid() || int(b[0]) != want || a.Index <= 0 {
		return Address{}, false, errors.New("netlink message names no address")
	}
	return a, true, nil
}

// ParseConnected reads the body of RTM_NEWROUTE or RTM_DELROUTE. ok is false for
// what is not a connected unicast route of the main table.
func ParseConnected(b []byte) (r Connected, ok bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return Connected{}, false, errShort
	}
	family, bits, typ := b[0], int(b[1]), b[7]
	table := uint32(b[4])
	flags := binary.NativeEndian.Uint32(b[8:])
	if family != unix.AF_INET && family != unix.AF_INET6 || typ != unix.RTN_UNICAST || bits == 0 ||
		flags&unix.RTM_F_CLONED != 0 || family == unix.AF_INET && b[6] != unix.RT_SCOPE_LINK {
		return Connected{}, false, nil
	}
	var dst netip.Addr
	for typ, v := range attributes(b[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH:
			return Connected{}, false, nil
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF, unix.RTA_TABLE, unix.RTA_PRIORITY:
			if len(v) < 4 {
				return Connected{}, false, errShort
			}
			n := binary.NativeEndian.Uint32(v)
			switch typ {
			case unix.RTA_OIF:
				r.Index = int(int32(n))
			case unix.RTA_TABLE:
				table = n
			default:
				r.Metric = n
			}
		}
	}
	r.Network = netip.PrefixFrom(dst, bits)
	return r, r.Network.IsValid() && r.Index > 0 && table == unix.RT_TABLE_MAIN && dst.Is4() == (family == unix.AF_INET), nil
}

// appendAttr appends one attribute.
func appendAttr[V []byte | string](b []byte, typ uint16, v V) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// appendName appends an attribute with a string that ends with a 0.
func appendName(b []byte, typ uint16, s string) []byte {
	v := [unix.IFNAMSIZ]byte{} // larger ones are the kernel's to refuse
	return appendAttr(b, typ, append(append(v[:0], s...), 0))
}

// appendIP appends an attribute with an address.
func appendIP(b []byte, typ uint16, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		return appendAttr(b, typ, v[:])
	}
	v := a.As16()
	return appendAttr(b, typ, v[:])
}

// addressSize (bytes) is more than the request for an address has.
const addressSize = 128

// Encode is the body of RTM_NEWADDR, or of RTM_DELADDR when remove is set: then
// it names the address and nothing that somebody may have changed since.
func (a Address) Encode(remove bool) []byte {
	return a.append(make([]byte, 0, addressSize), remove)
}

func (a Address) append(b []byte, remove bool) []byte {
	family, flags := byte(unix.AF_INET), byte(a.Flags&ifaFlagsKept)
	if a.Prefix.Addr().Is6() {
		family = unix.AF_INET6
	}
	if remove {
		flags = 0
	}
	b = append(b, family, byte(a.Prefix.Bits()), flags, a.Scope)
	b = binary.NativeEndian.AppendUint32(b, uint32(a.Index))
	b = appendIP(b, unix.IFA_LOCAL, a.Prefix.Addr())
	other := a.Prefix.Addr()
	if a.Peer.IsValid() {
		other = a.Peer
	}
	b = appendIP(b, unix.IFA_ADDRESS, other)
	if remove {
		return b
	}
	if a.Flags > ifaFlagsKept {
		b = appendNumber(b, unix.IFA_FLAGS, a.Flags)
	}
	if a.Broadcast.IsValid() {
		b = appendIP(b, unix.IFA_BROADCAST, a.Broadcast)
	}
	if a.Label != "" {
		b = appendName(b, unix.IFA_LABEL, a.Label)
	}
	if a.Proto != 0 {
		b = appendAttr(b, ifaProto, []byte{a.Proto})
	}
	if a.Valid != Forever || a.Preferred != Forever {
		var times [16]byte // struct ifa_cacheinfo
		binary.NativeEndian.PutUint32(times[:], a.Preferred)
		binary.NativeEndian.PutUint32(times[4:], a.Valid)
		b = appendAttr(b, unix.IFA_CACHEINFO, times[:])
	}
	return b
}

// Text is the address as the command that would add it.
func (a Address) Text(dev string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ip addr add %s", a.Prefix)
	if a.Peer.IsValid() {
		b.Reset()
		fmt.Fprintf(&b, "ip addr add %s peer %s/%d", a.Prefix.Addr(), a.Peer, a.Prefix.Bits())
	}
	if a.Broadcast.IsValid() {
		fmt.Fprintf(&b, " brd %s", a.Broadcast)
	}
	fmt.Fprintf(&b, " dev %s", dev)
	if a.Label != "" && a.Label != dev {
		fmt.Fprintf(&b, " label %s", a.Label)
	}
	switch a.Scope {
	case unix.RT_SCOPE_HOST:
		b.WriteString(" scope host")
	case unix.RT_SCOPE_LINK:
		b.WriteString(" scope link")
	}
	if a.Valid != Forever {
		fmt.Fprintf(&b, " valid_lft %d", a.Valid)
	}
	if a.Preferred != Forever {
		fmt.Fprintf(&b, " preferred_lft %d", a.Preferred)
	}
	if a.Prefix.Addr().Is6() && a.Flags&unix.IFA_F_NODAD != 0 {
		b.WriteString(" nodad")
	}
	if a.Flags&unix.IFA_F_NOPREFIXROUTE != 0 {
		b.WriteString(" noprefixroute")
	}
	return b.String()
}

// Same tells whether two are one address for the kernel.
func (a Address) Same(o Address) bool {
	return a.Index == o.Index && a.Prefix == o.Prefix && a.Peer == o.Peer
}

// Fault says in words why nothing on the interface can be reached, or "".
func (l Link) Fault() string {
	switch {
	case l.Index == 0:
		return "the interface is gone"
	case l.Flags&unix.IFF_UP == 0:
		return "the interface is down"
	case l.Flags&unix.IFF_LOWER_UP == 0:
		return "no carrier"
	}
	return ""
}

// Loopback says whether it is lo.
func (l Link) Loopback() bool { return l.Flags&unix.IFF_LOOPBACK != 0 }

// HasName says whether it is called s, by its name or another one.
func (l Link) HasName(s string) bool { return l.Name == s || slices.Contains(l.Alt, s) }

// Announces tells whether neighbours learn addresses of this interface by ARP
// or neighbour discovery with Ethernet addresses. (InfiniBand has 20-byte ones.)
func (l Link) Announces() bool {
	return l.Flags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) == 0 && l.ARPHRD == unix.ARPHRD_ETHER && len(l.MAC) == 6
}
