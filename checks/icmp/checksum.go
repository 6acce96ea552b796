package icmp

import "encoding/binary"

// Checksum6 is that of the ICMPv6 message behind the header of p, an IPv6 packet
// without extension headers (RFC 8200, 8.1). A message is complete when it is 0;
// with a checksum field of 0 it is what belongs there.
func Checksum6(p []byte) uint16 {
	const header, protocol = 40, 58
	return fold(sum(p[8:]) + uint32(len(p)-header) + protocol)
}

// sum adds up 16-bit words (RFC 1071) of at most 64 KiB.
func sum(b []byte) uint32 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
