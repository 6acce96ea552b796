package vrrp

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Sizes in bytes: RFC 3768, 5.1 and RFC 9568, 5.1.
const (
	headerSize = 8
	authSize   = 8 // version 2, behind the addresses
	maxCount   = 255
)

// padded is the longest message that an Ethernet driver may have lengthened: a
// frame carries at least 46 bytes, of which 20 are the IPv4 header. IPv6 packets
// with a message are longer than that by themselves.
const padded = 46 - 20

const (
	typeAdvertisement = 1

	authNone     = 0
	authPassword = 1 // RFC 2338, 5.3.6.2; RFC 3768 has taken it back, everybody still has it
)

// Message is a VRRP message whose lengths are right. It refers to the bytes it was read from.
type Message struct {
	Version, Type, VRID uint8
	Priority            uint8
	Interval            time.Duration // version 2: whole seconds; version 3: centiseconds, 0 to 40.95 s
	AuthType            uint8         // version 2
	AuthData            [authSize]byte
	list                []byte // of addresses, 4 or 16 bytes each
	all                 []byte // without padding
}

// Decode reads the message that an IPv4 or IPv6 packet carries. Nothing but
// versions and lengths is judged.
func Decode(b []byte, ipv6 bool) (m Message, why Reason) {
	if len(b) < headerSize {
		return m, ReasonLength
	}
	m = Message{Version: b[0] >> 4, Type: b[0] & 15, VRID: b[1], Priority: b[2]}
	address, tail := 4, 0
	switch {
	case m.Version == 3:
		// The upper four bits are reserved and ignored (RFC 9568, 5.2.6).
		m.Interval = time.Duration(binary.BigEndian.Uint16(b[4:])&0xfff) * 10 * time.Millisecond
	case m.Version == 2 && !ipv6:
		m.AuthType, m.Interval, tail = b[4], time.Duration(b[5])*time.Second, authSize
	default:
		return m, ReasonVersion
	}
	if ipv6 {
		address = 16
	}
	end := headerSize + int(b[3])*address
	size := end + tail
	if len(b) < size || len(b) > size && (ipv6 || len(b) > padded) {
		return m, ReasonLength
	}
	m.all, m.list = b[:size], b[headerSize:end]
	copy(m.AuthData[:], b[end:size])
	return m, 0
}

// Addresses appends the addresses of the message to to.
func (m *Message) Addresses(to []netip.Addr, ipv6 bool) []netip.Addr {
	size := 4
	if ipv6 {
		size = 16
	}
	for b := m.list; len(b) >= size; b = b[size:] {
		a, _ := netip.AddrFromSlice(b[:size])
		to = append(to, a)
	}
	return to
}

// Form is what a checksum covers.
type Form uint8

// Forms. RFC 9568, 5.2.8, has the pseudo-header for IPv6 only; RFC 5798 was read
// both ways, and keepalived puts it under IPv4 as well.
const (
	FormBad    Form = iota
	FormPlain       // the message
	FormPseudo      // the message and a pseudo-header (RFC 8200, 8.1)
)

// Checksum tells the form of the message's checksum. Where only one is allowed, any other is bad.
func (m *Message) Checksum(from, to netip.Addr) Form {
	plain := sum(0, m.all)
	v6 := from.Is6() && !from.Is4In6()
	switch {
	case plain == 0xffff && !v6:
		return FormPlain
	case m.Version == 3 && sum(pseudo(from, to, len(m.all)), m.all) == 0xffff:
		return FormPseudo
	}
	return FormBad
}

// sum adds b to a one's complement sum (RFC 1071).
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return s
}

func pseudo(from, to netip.Addr, size int) uint32 {
	const protocol = 112
	s := uint32(protocol + size)
	for _, a := range [...]netip.Addr{from.Unmap(), to.Unmap()} {
		if a.Is4() {
			b := a.As4()
			s = sum(s, b[:])
		} else {
			b := a.As16()
			s = sum(s, b[:])
		}
	}
	return s
}

// Encode returns the advertisement of an instance, without a checksum. Addresses
// of the other family, and those beyond the 255 that can be counted, are not in it.
func Encode(i *conf.VRRPInstance, priority uint8) []byte {
	b := make([]byte, headerSize, headerSize+len(i.Addresses)*16+authSize)
	b[0], b[1], b[2] = i.Version<<4|typeAdvertisement, i.VRID, priority
	for _, a := range i.Addresses {
		if ip := a.Address.Addr().Unmap(); ip.Is6() == i.IPv6 && b[3] < maxCount {
			b = append(b, ip.AsSlice()...)
			b[3]++
		}
	}
	if i.Version == 3 {
		binary.BigEndian.PutUint16(b[4:], uint16(i.Interval/(10*time.Millisecond))&0xfff)
		return b
	}
	b[5] = uint8(i.Interval / time.Second)
	if i.Password != "" {
		b[4] = authPassword
	}
	auth := password(i.Password)
	return append(b, auth[:]...)
}

func password(s string) (b [authSize]byte) {
	copy(b[:], s)
	return b
}

// Seal writes the checksum that the message has between two addresses.
func Seal(message []byte, i *conf.VRRPInstance, from, to netip.Addr) {
	message[6], message[7] = 0, 0
	var s uint32
	if i.IPv6 || i.Version == 3 && !i.ChecksumWithoutPseudo {
		s = pseudo(from, to, len(message))
	}
	binary.BigEndian.PutUint16(message[6:], ^uint16(sum(s, message)))
}
