package wire

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/keepbeat/keepbeat/checks/icmp"
)

var (
	here, there = mac{2, 0, 0, 0, 0, 1}, mac{2, 0, 0, 0, 0, 2}
	vip4        = netip.MustParseAddr("10.0.0.200")
	vip6        = netip.MustParseAddr("fd00::2:200")
	other6      = netip.MustParseAddr("fe80::1")
)

// arp is a packet of there's.
func arp(op byte, sender, target string) []byte {
	b := arpProbe(there, netip.MustParseAddr(target))
	b[7] = op
	copy(b[14:], netip.MustParseAddr(sender).AsSlice())
	return b
}

func TestWhatARPTells(t *testing.T) {
	const vip, nobody, client = "10.0.0.200", "0.0.0.0", "10.0.0.9"
	longHardware := arp(arpReply, vip, client)
	longHardware[4] = 20
	notIP := arp(arpReply, vip, client)
	notIP[2], notIP[3] = 0x86, 0xdd
	for _, c := range []struct {
		name string
		b    []byte
		want sighting
	}{
		{"a reply", arp(arpReply, vip, client), sighting{vip4, there, inUse}},
		{"the reply to a probe", arp(arpReply, vip, nobody), sighting{vip4, there, inUse}},
		{"with padding", append(arp(arpReply, vip, client), make([]byte, 18)...), sighting{vip4, there, inUse}},
		{"a gratuitous request", arp(arpRequest, vip, vip), sighting{vip4, there, inUse}},
		{"a gratuitous reply", arp(arpReply, vip, vip), sighting{vip4, there, inUse}},
		{"the owner's question to a client", arp(arpRequest, vip, client), sighting{vip4, there, inUse}},
		{"a probe", arp(arpRequest, nobody, vip), sighting{vip4, there, askedFor}},
		{"ours", arpProbe(here, vip4), sighting{vip4, here, askedFor}},
		{"a reply of nobody", arp(arpReply, nobody, vip), sighting{}},
		{"nobody about nothing", arp(arpRequest, nobody, nobody), sighting{}},
		{"another operation", arp(9, vip, client), sighting{}},
		{"cut off", arp(arpReply, vip, client)[:arpSize-1], sighting{}},
		{"longer hardware addresses", longHardware, sighting{}},
		{"not of IPv4", notIP, sighting{}},
		{"empty", nil, sighting{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := readARP(c.b)
			if !ok {
				got = sighting{}
			}
			if got != c.want || ok != (c.want.sign != 0) {
				t.Errorf("%+v, %v; want %+v", got, ok, c.want)
			}
		})
	}
}

// nd is a message of neighbour discovery, with options.
func nd(typ byte, from, to, target netip.Addr, change func(b []byte), options ...byte) []byte {
	b := dadProbe(target)
	b = append(b, options...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-ip6Header))
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	b[40] = typ
	if change != nil {
		change(b)
	}
	b[42], b[43] = 0, 0
	binary.BigEndian.PutUint16(b[42:], icmp.Checksum6(b))
	return b
}

func TestWhatNeighbourDiscoveryTells(t *testing.T) {
	none, all := netip.IPv6Unspecified(), netip.MustParseAddr("ff02::1")
	proxy := []byte{targetLLA, 1, 2, 0, 0, 0, 0, 9}
	source := []byte{sourceLLA, 1, 2, 0, 0, 0, 0, 9}
	badSum := dadProbe(vip6)
	badSum[50]++
	for _, c := range []struct {
		name string
		b    []byte
		want sighting
	}{
		{"the answer to a probe", nd(announcement, other6, all, vip6, nil), sighting{vip6, there, inUse}},
		{"an answer in another machine's name", nd(announcement, other6, all, vip6, nil, proxy...), sighting{vip6, mac{2, 0, 0, 0, 0, 9}, inUse}},
		{"the owner's question to a client", nd(solicitation, vip6, group(other6), other6, nil, source...), sighting{vip6, there, inUse}},
		{"a probe", dadProbe(vip6), sighting{vip6, there, askedFor}},
		{"a probe with a nonce", nd(solicitation, none, group(vip6), vip6, nil, 14, 1, 1, 2, 3, 4, 5, 6), sighting{vip6, there, askedFor}},
		{"with padding", append(dadProbe(vip6), 0, 0, 0), sighting{vip6, there, askedFor}},
		{"a client's question", nd(solicitation, other6, group(vip6), vip6, nil), sighting{other6, there, inUse}},
		{"from behind a router", nd(announcement, other6, all, vip6, func(b []byte) { b[7] = 254 }), sighting{}},
		{"damaged", badSum, sighting{}},
		{"a code", nd(announcement, other6, all, vip6, func(b []byte) { b[41] = 1 }), sighting{}},
		{"a multicast target", nd(announcement, other6, all, all, nil), sighting{}},
		{"of no address", nd(announcement, other6, all, none, nil), sighting{}},
		{"solicited, to all", nd(announcement, other6, all, vip6, func(b []byte) { b[44] = 0x40 }), sighting{}},
		{"a probe with a source option", nd(solicitation, none, group(vip6), vip6, nil, source...), sighting{}},
		{"a probe to another group", nd(solicitation, none, all, vip6, nil), sighting{}},
		{"an option of no length", nd(announcement, other6, all, vip6, nil, 2, 0, 0, 0, 0, 0, 0, 0), sighting{}},
		{"an option that goes on behind the end", nd(announcement, other6, all, vip6, nil, 2, 2, 0, 0, 0, 0, 0, 0), sighting{}},
		{"half an option", nd(announcement, other6, all, vip6, nil, 2, 1, 0), sighting{}},
		{"another message", nd(128, other6, all, vip6, nil), sighting{}},
		{"another protocol", nd(announcement, other6, all, vip6, func(b []byte) { b[6] = 17 }), sighting{}},
		{"IPv4", nd(announcement, other6, all, vip6, func(b []byte) { b[0] = 0x45 }), sighting{}},
		{"longer than it is", nd(announcement, other6, all, vip6, func(b []byte) { b[5]++ }), sighting{}},
		{"shorter than a message", nd(announcement, other6, all, vip6, func(b []byte) { b[5] = lenMessage - 1 }), sighting{}},
		{"cut off", dadProbe(vip6)[:ip6Header+lenMessage-1], sighting{}},
		{"empty", nil, sighting{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := readND(c.b, there)
			if !ok {
				got = sighting{}
			}
			if got != c.want || ok != (c.want.sign != 0) {
				t.Errorf("%+v, %v; want %+v", got, ok, c.want)
			}
		})
	}
}

func TestTheGroupOfAnAddress(t *testing.T) {
	g := group(netip.MustParseAddr("4037::01:800:200e:8c6c"))
	// The example of RFC 4291, 2.7.1.
	if want := netip.MustParseAddr("ff02::1:ff0e:8c6c"); g != want {
		t.Errorf("%v, want %v", g, want)
	}
	if m := groupMAC(g); m != (mac{0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c}) {
		t.Errorf("% x", m)
	}
}

func FuzzARP(f *testing.F) {
	f.Add(arpProbe(here, vip4))
	f.Add(arp(arpReply, "10.0.0.200", "10.0.0.200"))
	f.Add([]byte{0, 1, 8, 0, 6, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := readARP(b); ok && (!s.addr.Is4() || s.addr.IsUnspecified() || s.sign == 0) {
			t.Errorf("% x tells %+v", b, s)
		}
	})
}

func FuzzND(f *testing.F) {
	f.Add(dadProbe(vip6))
	f.Add(nd(announcement, other6, netip.MustParseAddr("ff02::1"), vip6, nil, targetLLA, 1, 2, 0, 0, 0, 0, 9))
	f.Add(nd(solicitation, vip6, group(other6), other6, nil, 1, 0xff))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= ip6Header && len(b) <= 1<<16 { // so that more than the checksum is tried
			b = append([]byte(nil), b...)
			if n := int(binary.BigEndian.Uint16(b[4:])); n >= lenMessage && n <= len(b)-ip6Header {
				b[42], b[43] = 0, 0
				binary.BigEndian.PutUint16(b[42:], icmp.Checksum6(b[:ip6Header+n]))
			}
		}
		if s, ok := readND(b, there); ok && (!s.addr.Is6() || s.addr.IsUnspecified() || s.sign == 0) {
			t.Errorf("% x tells %+v", b, s)
		}
	})
}
