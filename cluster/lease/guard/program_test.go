package guard

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// loadForTest loads the programs without attaching them; the deadline is 0: not live.
func loadForTest(tb testing.TB) (*maps, programs) {
	tb.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		tb.Fatal(err)
	}
	m, err := newMaps()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.close)
	if err := m.mapState(); err != nil {
		tb.Fatal(err)
	}
	ps, err := loadPrograms(m)
	if err != nil {
		tb.Fatalf("%+v", err)
	}
	tb.Cleanup(ps.close)
	for _, a := range []string{"192.0.2.100", "2001:db8::100", "fe80::100"} {
		if err := m.addrs.Put(addrKey(netip.MustParseAddr(a).As16()), uint32(1)); err != nil {
			tb.Fatal(err)
		}
	}
	for _, v := range []VRID{{ID: 51}, {ID: 52, IPv6: true}, {ID: 53, Ifindex: 1}, {ID: 54, Ifindex: 999}} {
		if err := m.vrids.Put(v.key(), uint32(1)); err != nil {
			tb.Fatal(err)
		}
	}
	return m, ps
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func be16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }

func eth(typ int) []byte {
	return cat([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}, be16(typ))
}

func tag(typ int) []byte { return cat(be16(7), be16(typ)) }

func addr(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

type ip4opt struct {
	options int // words
	frag    int
	proto   byte
}

func ip4(src, dst string, o ip4opt, payload ...[]byte) []byte {
	p := cat(payload...)
	n := 20 + 4*o.options
	return cat([]byte{byte(0x40 | n/4), 0}, be16(n+len(p)), be16(1), be16(o.frag), []byte{64, o.proto}, be16(0),
		addr(src), addr(dst), bytes.Repeat([]byte{1}, 4*o.options), p)
}

func ip6(src, dst string, next byte, payload ...[]byte) []byte {
	p := cat(payload...)
	return cat([]byte{0x60, 0, 0, 0}, be16(len(p)), []byte{next, 255}, addr(src), addr(dst), p)
}

// opt is a hop-by-hop, routing or destination header of 8*(words+1) bytes.
func opt(next, words byte) []byte { return cat([]byte{next, words}, make([]byte, 6+8*int(words))) }

func frag6(next byte, offset int) []byte {
	return cat([]byte{next, 0}, be16(offset<<3), be16(0), be16(1))
}

// ah is an authentication header of 4*(words+2) bytes.
func ah(next, words byte) []byte { return cat([]byte{next, words}, make([]byte, 6+4*int(words))) }

func neighbour(typ byte, target string) []byte {
	return cat([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, addr(target))
}

func arpMsg(hln int, sender, target string) []byte {
	return cat(be16(1), be16(ethPIP), []byte{byte(hln), 4}, be16(1),
		bytes.Repeat([]byte{0xaa}, hln), addr(sender), bytes.Repeat([]byte{0xbb}, hln), addr(target))
}

func vrrp(id byte) []byte { return []byte{0x31, id, 100, 1, 0, 100, 0, 0} }

const (
	held4, held6   = "192.0.2.100", "2001:db8::100"
	free4, free4b  = "192.0.2.1", "192.0.2.2"
	free6, free6b  = "2001:db8::1", "2001:db8::2"
	group4, group6 = "224.0.0.18", "ff02::12"
)

// frameCase is a frame and whether each side drops it when the lease is not live.
type frameCase struct {
	name    string
	frame   []byte
	in, out bool
}

func udp() []byte { return make([]byte, 16) }

func repeat(b []byte, n int) []byte { return bytes.Repeat(b, n) }

var ethernetCases = []frameCase{
	{"IPv4 to a held address", cat(eth(ethPIP), ip4(free4, held4, ip4opt{proto: 17}, udp())), true, false},
	{"IPv4 from a held address", cat(eth(ethPIP), ip4(held4, free4, ip4opt{proto: 17}, udp())), false, true},
	{"IPv4 between others", cat(eth(ethPIP), ip4(free4, free4b, ip4opt{proto: 17}, udp())), false, false},
	{"IPv4 with options to a held address", cat(eth(ethPIP), ip4(free4, held4, ip4opt{options: 10, proto: 6}, udp())), true, false},
	{"IPv4 with options from a held address", cat(eth(ethPIP), ip4(held4, free4, ip4opt{options: 10, proto: 6}, udp())), false, true},
	{"later IPv4 fragment to a held address", cat(eth(ethPIP), ip4(free4, held4, ip4opt{frag: 185, proto: 17}, udp())), true, false},
	{"IPIP whose outer destination is held", cat(eth(ethPIP), ip4(free4, held4, ip4opt{proto: 4}, ip4(free4, free4b, ip4opt{}))), true, false},
	{"IPIP whose inner destination is held", cat(eth(ethPIP), ip4(free4, free4b, ip4opt{proto: 4}, ip4(free4, held4, ip4opt{}))), false, false},
	{"IPv4 to a held address in a VLAN", cat(eth(ethP8021Q), tag(ethPIP), ip4(free4, held4, ip4opt{}, udp())), true, false},
	{"IPv4 from a held address in a VLAN", cat(eth(ethP8021Q), tag(ethPIP), ip4(held4, free4, ip4opt{}, udp())), false, true},
	{"IPv4 from a held address in two VLANs", cat(eth(ethP8021AD), tag(ethP8021Q), tag(ethPIP), ip4(held4, free4, ip4opt{}, udp())), false, true},
	{"IPv4 from a held address in an old QinQ", cat(eth(ethPQinQ), tag(ethP8021Q), tag(ethPIP), ip4(held4, free4, ip4opt{}, udp())), false, true},
	{"IPv4 from a held address in eight VLANs", cat(eth(ethP8021Q), repeat(tag(ethP8021Q), 7), tag(ethPIP), ip4(held4, free4, ip4opt{}, udp())), false, true},
	{"IPv4 between others in eight VLANs", cat(eth(ethP8021Q), repeat(tag(ethP8021Q), 7), tag(ethPIP), ip4(free4, free4b, ip4opt{}, udp())), false, false},
	{"nine VLANs cannot be judged", cat(eth(ethP8021Q), repeat(tag(ethP8021Q), 8), tag(ethPIP), ip4(free4, free4b, ip4opt{}, udp())), true, true},
	{"ARP for a held address in a VLAN", cat(eth(ethP8021Q), tag(ethPARP), arpMsg(6, free4, held4)), true, true},

	{"ARP that asks for a held address", cat(eth(ethPARP), arpMsg(6, free4, held4)), true, true},
	{"ARP from a held address", cat(eth(ethPARP), arpMsg(6, held4, free4)), false, true},
	{"gratuitous ARP of a held address", cat(eth(ethPARP), arpMsg(6, held4, held4)), true, true},
	{"an ARP probe for a held address", cat(eth(ethPARP), arpMsg(6, "0.0.0.0", held4)), true, false},
	{"ARP between others", cat(eth(ethPARP), arpMsg(6, free4, free4b)), false, false},
	{"ARP with hardware addresses of 20 bytes", cat(eth(ethPARP), arpMsg(20, free4, held4)), true, true},

	{"IPv6 to a held address", cat(eth(ethPIPv6), ip6(free6, held6, 17, udp())), true, false},
	{"IPv6 from a held address", cat(eth(ethPIPv6), ip6(held6, free6, 17, udp())), false, true},
	{"IPv6 between others", cat(eth(ethPIPv6), ip6(free6, free6b, 17, udp())), false, false},
	{"IPv6 to a held link-local address", cat(eth(ethPIPv6), ip6("fe80::1", "fe80::100", 17, udp())), true, false},
	{"neighbour solicitation for a held address", cat(eth(ethPIPv6), ip6(free6, "ff02::1:ff00:100", 58, neighbour(135, held6))), true, true},
	{"duplicate address detection of a held address", cat(eth(ethPIPv6), ip6("::", "ff02::1:ff00:100", 58, neighbour(135, held6))), true, false},
	{"duplicate address detection in a VLAN", cat(eth(ethP8021Q), tag(ethPIPv6), ip6("::", "ff02::1:ff00:100", 58, neighbour(135, held6))), true, false},
	{"an advertisement by nobody", cat(eth(ethPIPv6), ip6("::", "ff02::1", 58, neighbour(136, held6))), true, true},
	{"neighbour solicitation by almost nobody", cat(eth(ethPIPv6), ip6("::1:0:0:0:0", "ff02::1:ff00:100", 58, neighbour(135, held6))), true, true},
	{"neighbour advertisement of a held address", cat(eth(ethPIPv6), ip6(free6, "ff02::1", 58, neighbour(136, held6))), true, true},
	{"neighbour solicitation for another", cat(eth(ethPIPv6), ip6(free6, "ff02::1:ff00:2", 58, neighbour(135, free6b))), false, false},
	{"echo request that looks like a neighbour message", cat(eth(ethPIPv6), ip6(free6, free6b, 58, neighbour(128, held6))), false, false},
	{"neighbour solicitation behind hop-by-hop options", cat(eth(ethPIPv6), ip6(free6, "ff02::1:ff00:100", 0, opt(58, 0), neighbour(135, held6))), true, true},
	{"neighbour solicitation behind four headers", cat(eth(ethPIPv6), ip6(free6, "ff02::1:ff00:100", 0, opt(60, 1), opt(43, 2), opt(44, 0), frag6(58, 0), neighbour(135, held6))), true, true},
	{"neighbour advertisement behind an authentication header", cat(eth(ethPIPv6), ip6(free6, "ff02::1", 51, ah(58, 4), neighbour(136, held6))), true, true},
	{"neighbour solicitation behind eight headers", cat(eth(ethPIPv6), ip6(free6, "ff02::1", 60, repeat(opt(60, 0), 7), opt(58, 0), neighbour(135, held6))), true, true},
	{"neighbour solicitation for another behind eight headers", cat(eth(ethPIPv6), ip6(free6, "ff02::1", 60, repeat(opt(60, 0), 7), opt(58, 0), neighbour(135, free6b))), false, false},
	{"nine headers cannot be judged", cat(eth(ethPIPv6), ip6(free6, free6b, 60, repeat(opt(60, 0), 8), opt(17, 0), udp())), true, true},
	{"later IPv6 fragment that looks like a neighbour message", cat(eth(ethPIPv6), ip6(free6, free6b, 44, frag6(58, 100), neighbour(135, held6))), false, false},
	{"later IPv6 fragment to a held address", cat(eth(ethPIPv6), ip6(free6, held6, 44, frag6(17, 100), udp())), true, false},
	{"IPv6 in a VLAN from a held address", cat(eth(ethP8021Q), tag(ethPIPv6), ip6(held6, free6, 17, udp())), false, true},

	{"advertisement of a held VRID", cat(eth(ethPIP), ip4(free4, group4, ip4opt{proto: 112}, vrrp(51))), false, true},
	{"advertisement of another VRID", cat(eth(ethPIP), ip4(free4, group4, ip4opt{proto: 112}, vrrp(50))), false, false},
	{"advertisement by unicast with IP options", cat(eth(ethPIP), ip4(free4, free4b, ip4opt{options: 3, proto: 112}, vrrp(51))), false, true},
	{"advertisement behind an authentication header", cat(eth(ethPIP), ip4(free4, group4, ip4opt{proto: 51}, ah(112, 4), vrrp(51))), false, true},
	{"advertisement in a VLAN", cat(eth(ethP8021Q), tag(ethPIP), ip4(free4, group4, ip4opt{proto: 112}, vrrp(51))), false, true},
	{"advertisement by IPv6 of a VRID held for IPv4", cat(eth(ethPIPv6), ip6("fe80::1", group6, 112, vrrp(51))), false, false},
	{"advertisement by IPv6", cat(eth(ethPIPv6), ip6("fe80::1", group6, 112, vrrp(52))), false, true},
	{"advertisement by IPv6 behind options", cat(eth(ethPIPv6), ip6("fe80::1", group6, 60, opt(112, 0), vrrp(52))), false, true},
	{"advertisement of a VRID held on this interface", cat(eth(ethPIP), ip4(free4, group4, ip4opt{proto: 112}, vrrp(53))), false, true},
	{"advertisement of a VRID held on another interface", cat(eth(ethPIP), ip4(free4, group4, ip4opt{proto: 112}, vrrp(54))), false, false},

	{"frame of another protocol", cat(eth(0x88cc), make([]byte, 60)), false, false},
	{"tag without anything behind it", eth(ethP8021Q), false, false},
	{"ARP cut short", cat(eth(ethPARP), arpMsg(6, free4, held4)[:25]), false, false},
}

// verdict runs a program of the kernel on a frame.
func verdict(tb testing.TB, p *ebpf.Program, frame []byte) (dropped bool) {
	tb.Helper()
	r, err := p.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		tb.Fatalf("running the program: %v", err)
	}
	switch int32(r) {
	case tcActShot:
		return true
	case tcActUnspec:
		return false
	}
	tb.Fatalf("the program returned %d", int32(r))
	return false
}

func TestFramesWhenTheLeaseIsNotLive(t *testing.T) {
	_, ps := loadForTest(t)
	for _, c := range ethernetCases {
		t.Run(c.name, func(t *testing.T) {
			if got := verdict(t, ps[variant{ingress, framedEthernet}], c.frame); got != c.in {
				t.Errorf("ingress dropped it: %v, want %v", got, c.in)
			}
			if got := verdict(t, ps[variant{egress, framedEthernet}], c.frame); got != c.out {
				t.Errorf("egress dropped it: %v, want %v", got, c.out)
			}
		})
	}
}

func TestFramesWithoutEthernetHeader(t *testing.T) {
	_, ps := loadForTest(t)
	for _, c := range []frameCase{
		{"IPv4 to a held address", ip4(free4, held4, ip4opt{proto: 17}, udp()), true, false},
		{"IPv4 from a held address", ip4(held4, free4, ip4opt{proto: 17}, udp()), false, true},
		{"IPv4 between others", ip4(free4, free4b, ip4opt{proto: 17}, udp()), false, false},
		{"IPv6 to a held address", ip6(free6, held6, 17, udp()), true, false},
		{"IPv6 from a held address", ip6(held6, free6, 17, udp()), false, true},
		{"IPv6 between others", ip6(free6, free6b, 17, udp()), false, false},
		{"neighbour advertisement of a held address", ip6(free6, "ff02::1", 0, opt(58, 0), neighbour(136, held6)), true, true},
		{"advertisement of a held VRID", ip4(free4, group4, ip4opt{proto: 112}, vrrp(51)), false, true},
		// A link header that the program does not know: the network header decides.
		{"unknown link header, IPv4 to a held address", cat(eth(ethPIP), ip4(free4, held4, ip4opt{proto: 17}, udp())), true, false},
		{"unknown link header, IPv6 from a held address", cat(eth(ethPIPv6), ip6(held6, free6, 17, udp())), false, true},
		{"unknown link header, ARP for a held address", cat(eth(ethPARP), arpMsg(20, free4, held4)), true, true},
		{"unknown link header, IPv4 between others", cat(eth(ethPIP), ip4(free4, free4b, ip4opt{proto: 17}, udp())), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := verdict(t, ps[variant{ingress, framedOther}], c.frame); got != c.in {
				t.Errorf("ingress dropped it: %v, want %v", got, c.in)
			}
			if got := verdict(t, ps[variant{egress, framedOther}], c.frame); got != c.out {
				t.Errorf("egress dropped it: %v, want %v", got, c.out)
			}
		})
	}
}

func TestNothingIsDroppedWhileTheLeaseIsLive(t *testing.T) {
	m, ps := loadForTest(t)
	m.deadlineWord().Store(uint64(BootNow() + MaxAhead))
	for _, c := range ethernetCases {
		for v, p := range ps {
			if verdict(t, p, c.frame) {
				t.Errorf("%s: %s dropped it", c.name, v.name())
			}
		}
	}
	m.deadlineWord().Store(uint64(BootNow()))
	if !verdict(t, ps[variant{ingress, framedEthernet}], ethernetCases[0].frame) {
		t.Error("past the deadline it still passes")
	}
}
