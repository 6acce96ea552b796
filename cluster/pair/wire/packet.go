package wire

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/checks/icmp"
)

// mac is an Ethernet address.
type mac [6]byte

var broadcast = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// sign is what a packet tells of an address.
type sign uint8

// Signs. The zero value is none.
const (
	_        sign = iota
	inUse         // by is the one that has it
	askedFor      // by wants to know who has it, since it would like to have it
	defended      // by answers a question: it is about to have it (Wire.Defend)
)

// sighting is what a packet of another machine tells.
type sighting struct {
	addr netip.Addr
	by   mac
	sign sign
}

const (
	arpSize    = 28
	arpRequest = 1
	arpReply   = 2

	ip6Header = 40
	icmp6     = 58
	// hopLimit of neighbour discovery: who is behind a router cannot send it (RFC 4861, 7.1).
	hopLimit     = 255
	solicitation = 135
	announcement = 136
	sourceLLA    = 1
	targetLLA    = 2
	lenMessage   = 24 // of either, without options
)

// arpProbe asks who has ip, and leaves no trace in anybody's table (RFC 5227, 2.1.1).
func arpProbe(own mac, ip netip.Addr) []byte {
	b := make([]byte, 0, arpSize)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, arpRequest)
	b = append(b, own[:]...)
	b = append(b, 0, 0, 0, 0) // sender: nobody yet
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, ip.AsSlice()...)
}

// question is what is sent by an interface with the link-layer address own to
// learn who has ip: the frame's protocol, where everybody hears it, and the packet.
func question(own mac, ip netip.Addr) (protocol uint16, to mac, b []byte) {
	if ip.Is4() {
		return unix.ETH_P_ARP, broadcast, arpProbe(own, ip)
	}
	return unix.ETH_P_IPV6, groupMAC(group(ip)), dadProbe(ip)
}

// readARP reads an ARP packet, without its link-layer header and with whatever
// padding follows. ok is false for what tells nothing.
func readARP(b []byte) (s sighting, ok bool) {
	if len(b) < arpSize || binary.BigEndian.Uint64(b)>>16 != 0x000108000604 {
		return s, false
	}
	op := binary.BigEndian.Uint16(b[6:])
	sender, target := netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	s.by = mac(b[8:14])
	switch {
	case op != arpRequest && op != arpReply:
		return s, false
	case !sender.IsUnspecified():
		// Any packet in its name, not only an answer: RFC 5227, 2.1.1.
		s.addr, s.sign = sender, inUse
	case op == arpRequest && !target.IsUnspecified():
		s.addr, s.sign = target, askedFor
	default:
		return s, false
	}
	return s, true
}

// group is the solicited-node multicast address of ip (RFC 4291, 2.7.1), and
// groupMAC where its frames go (RFC 2464, 7).
func group(ip netip.Addr) netip.Addr {
	a, g := ip.As16(), [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff}
	copy(g[13:], a[13:])
	return netip.AddrFrom16(g)
}

func groupMAC(group netip.Addr) mac {
	a := group.As16()
	return mac{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// dadProbe is the solicitation of duplicate address detection (RFC 4862, 5.4.2),
// in its IPv6 packet.
func dadProbe(ip netip.Addr) []byte {
	b := make([]byte, ip6Header+lenMessage)
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], lenMessage)
	b[6], b[7] = icmp6, hopLimit
	copy(b[24:], group(ip).AsSlice()) // from nobody, bytes 8 to 23
	b[40] = solicitation
	copy(b[48:], ip.AsSlice())
	binary.BigEndian.PutUint16(b[42:], icmp.Checksum6(b))
	return b
}

// readND reads a message of neighbour discovery in its IPv6 packet, which came
// from a link-layer address. It drops what RFC 4861, 7.1 has hosts drop.
func readND(b []byte, from mac) (s sighting, ok bool) {
	if len(b) < ip6Header+lenMessage || b[0]>>4 != 6 || b[6] != icmp6 || b[7] != hopLimit {
		return s, false
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length < lenMessage || length > len(b)-ip6Header {
		return s, false
	}
	b = b[:ip6Header+length]
	source, to, target := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), netip.AddrFrom16([16]byte(b[48:]))
	if b[41] != 0 || target.IsMulticast() || target.IsUnspecified() || icmp.Checksum6(b) != 0 {
		return s, false
	}
	lla, ok := options(b[ip6Header+lenMessage:])
	if !ok {
		return s, false
	}
	s.by = from
	switch b[40] {
	case solicitation:
		if !source.IsUnspecified() {
			s.addr, s.sign = source, inUse
			return s, true
		}
		if to != group(target) || lla[sourceLLA] != nil {
			return s, false
		}
		s.addr, s.sign = target, askedFor
	case announcement:
		const solicited = 0x40
		if to.IsMulticast() && b[44]&solicited != 0 {
			return s, false
		}
		if a := lla[targetLLA]; len(a) == len(s.by) {
			s.by = mac(a) // somebody else may send it in its name
		}
		s.addr, s.sign = target, inUse
	default:
		return s, false
	}
	return s, true
}

// options returns the link-layer addresses among the options of a message; ok
// is false for options that are none.
func options(b []byte) (lla [3][]byte, ok bool) {
	for len(b) > 0 {
		if len(b) < 8 || b[1] == 0 || int(b[1])*8 > len(b) {
			return lla, false
		}
		n := int(b[1]) * 8
		if t := b[0]; t == sourceLLA || t == targetLLA {
			lla[t] = b[2:n]
		}
		b = b[n:]
	}
	return lla, true
}
