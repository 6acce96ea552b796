package netdev

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/vrrp"
)

// protocol is VRRP's number (IANA), in the header of IPv4 and IPv6 alike.
const protocol = 112

// parse4 takes an IPv4 packet apart, as a raw socket gives it: with its header.
// ok is false for what cannot be one.
func parse4(b []byte) (p vrrp.Packet, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return p, false
	}
	header := int(b[0]&15) * 4
	if header < 20 || header > len(b) || b[9] != protocol {
		return p, false
	}
	return vrrp.Packet{
		Payload: b[header:],
		From:    netip.AddrFrom4([4]byte(b[12:16])),
		To:      netip.AddrFrom4([4]byte(b[16:20])),
		TTL:     int(b[8]),
	}, true
}

// parse6 takes what the kernel says of an IPv6 packet beside its payload.
func parse6(payload []byte, from netip.Addr, control []byte) (p vrrp.Packet, ok bool) {
	p = vrrp.Packet{Payload: payload, From: from.WithZone(""), TTL: -1}
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return p, false
		}
		switch {
		case h.Level != unix.IPPROTO_IPV6:
		case h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			p.To = netip.AddrFrom16([16]byte(data[:16]))
		case h.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
			p.TTL = int(int32(binary.NativeEndian.Uint32(data)))
		}
		control = rest
	}
	return p, p.To.IsValid() && p.TTL >= 0 && p.TTL <= 255
}

// control4 says with which source address and TTL an IPv4 packet leaves.
func control4(from netip.Addr, ttl uint8) []byte {
	info := make([]byte, unix.SizeofInet4Pktinfo) // interface: that of the socket
	copy(info[4:], from.AsSlice())                // ipi_spec_dst
	b := appendControl(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, info)
	return appendControl(b, unix.IPPROTO_IP, unix.IP_TTL, binary.NativeEndian.AppendUint32(nil, uint32(ttl)))
}

// control6 is control4 for IPv6. index is that of the interface, which a
// link-local source needs.
func control6(from netip.Addr, index int, hops uint8) []byte {
	info := binary.NativeEndian.AppendUint32(from.AsSlice(), uint32(index))
	b := appendControl(nil, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info)
	return appendControl(b, unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, binary.NativeEndian.AppendUint32(nil, uint32(hops)))
}

// appendControl appends a control message (cmsg(3)).
func appendControl(b []byte, level, typ int32, data []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(len(data)))...)
	size := uint64(unix.CmsgLen(len(data)))
	// cmsg_len is a size_t.
	if unix.SizeofPtr == 8 {
		binary.NativeEndian.PutUint64(b[at:], size)
	} else {
		binary.NativeEndian.PutUint32(b[at:], uint32(size))
	}
	binary.NativeEndian.PutUint32(b[at+unix.SizeofPtr:], uint32(level))
	binary.NativeEndian.PutUint32(b[at+unix.SizeofPtr+4:], uint32(typ))
	copy(b[at+unix.CmsgLen(0):], data)
	return b
}
