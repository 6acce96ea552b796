package rtnl

import (
	"encoding/binary"
	"net/netip"

	"github.com/keepbeat/keepbeat/checks/icmp"
)

// The two forms of ARP (RFC 826).
const (
	ARPRequest = 1
	ARPReply   = 2
)

// packetSize (bytes) is that of the longest announcement.
const packetSize = 72

// GARP is a gratuitous ARP packet (without link-layer header): whoever knows ip
// now finds it at mac. Some devices believe requests only and some replies
// only, so both forms are sent.
func GARP(op uint16, mac string, ip netip.Addr) []byte { return appendGARP(nil, op, mac, ip) }

func appendGARP(b []byte, op uint16, mac string, ip netip.Addr) []byte {
	b = append(b,
		0, 1, // Ethernet
		8, 0, // IPv4
		6, 4)
	b = binary.BigEndian.AppendUint16(b, op)
	address := ip.As4()
	b = append(b, mac...)
	b = append(b, address[:]...)
	if op == ARPReply {
		// RFC 5944, 4.6: in a reply the target hardware address too is the one to learn.
		b = append(b, mac...)
	} else {
		b = append(b, 0, 0, 0, 0, 0, 0)
	}
	return append(b, address[:]...)
}

// Link-layer addresses of those to whom it is said.
var (
	BroadcastMAC = "\xff\xff\xff\xff\xff\xff"
	AllNodesMAC  = "\x33\x33\x00\x00\x00\x01" // RFC 2464, 7
	allNodes     = netip.MustParseAddr("ff02::1")
)

// Advertisement is an unsolicited neighbour advertisement in its IPv6 packet
// (RFC 4861, 4.4 and 7.2.6): override, to all nodes, hop limit 255, with the
// target's link-layer address. router says whether this machine forwards:
// without that flag hosts strike the address from their default routers.
func Advertisement(mac string, ip netip.Addr, router bool) []byte {
	return appendAdvertisement(nil, mac, ip, router)
}

func appendAdvertisement(b []byte, mac string, ip netip.Addr, router bool) []byte {
	const payload = 32
	source, group := ip.As16(), allNodes.As16()
	b = append(b, 6<<4, 0, 0, 0, 0, payload,
		58,  // ICMPv6
		255) // receivers drop anything less
	b = append(b, source[:]...)
	b = append(b, group[:]...)

	flags := byte(0x20) // override
	if router {
		flags |= 0x80
	}
	b = append(b, 136, 0, 0, 0, flags, 0, 0, 0)
	b = append(b, source[:]...)
	b = append(b, 2, 1) // target link-layer address, in units of 8 bytes
	b = append(b, mac...)
	binary.BigEndian.PutUint16(b[42:], icmp.Checksum6(b))
	return b
}
