package guard

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// model says in Go what the program says in the kernel: whether a frame is
// dropped when the lease is not live.
type model struct {
	addrs map[netip.Addr]bool
	vrids map[VRID]bool
	dir   direction
}

func (m model) ethernet(f []byte) bool {
	off := 12
	for tags := 0; len(f) >= off+2; tags++ {
		typ := int(binary.BigEndian.Uint16(f[off:]))
		off += 2
		switch typ {
		case ethP8021Q, ethP8021AD, ethPQinQ:
			if tags == maxTags {
				return true
			}
			off += 2
			continue
		case ethPIP:
			return m.ipv4(f[off:])
		case ethPIPv6:
			return m.ipv6(f[off:])
		case ethPARP:
			return m.arp(f[off:])
		}
		return false
	}
	return false
}

func (m model) held(b []byte) bool {
	a, ok := netip.AddrFromSlice(b)
	return ok && m.addrs[a.Unmap()]
}

func (m model) arp(p []byte) bool {
	if len(p) < 8 || binary.BigEndian.Uint16(p[2:]) != ethPIP || p[5] != 4 {
		return false
	}
	n := int(p[4])
	sender, target := 8+n, 8+n+4+n
	if m.dir == egress && len(p) >= sender+4 {
		if m.held(p[sender : sender+4]) {
			return true
		}
		if [4]byte(p[sender:sender+4]) == ([4]byte{}) {
			return false // a probe
		}
	}
	return len(p) >= target+4 && m.held(p[target:target+4])
}

func (m model) ipv4(p []byte) bool {
	if len(p) < 20 {
		return false
	}
	if m.dir == ingress {
		return m.held(p[16:20])
	}
	if m.held(p[12:16]) {
		return true
	}
	first := binary.BigEndian.Uint16(p[6:])&0x1fff == 0
	if n := int(p[0]&15) * 4; first && len(p) >= n && (p[9] == protoVRRP || p[9] == protoAH) {
		return m.chain(p[n:], p[9], false, false)
	}
	return false
}

func (m model) ipv6(p []byte) bool {
	if len(p) < 40 {
		return false
	}
	at := p[8:24]
	if m.dir == ingress {
		at = p[24:40]
	}
	nobody := m.dir == egress && [16]byte(p[8:24]) == [16]byte{}
	return m.held(at) || m.chain(p[40:], p[6], true, nobody)
}

func (m model) chain(p []byte, next byte, v6, nobody bool) bool {
	for i := 0; ; i++ {
		n := 0
		switch next {
		case protoICMPv6:
			return len(p) >= 24 && (p[0] == icmp6NS && !nobody || p[0] == icmp6NA) && m.held(p[8:24])
		case protoVRRP:
			if m.dir == ingress || len(p) < 2 {
				return false
			}
			return m.vrids[VRID{IPv6: v6, ID: p[1]}] || m.vrids[VRID{IPv6: v6, ID: p[1], Ifindex: 1}]
		case protoHopByHop, protoRouting, protoDstOpts, protoMobility, protoHIP, protoShim6:
			if len(p) < 2 {
				return false
			}
			n = (int(p[1]) + 1) * 8
		case protoAH:
			if len(p) < 2 {
				return false
			}
			n = (int(p[1]) + 2) * 4
		case protoFragment:
			if len(p) < 4 || binary.BigEndian.Uint16(p[2:])&0xfff8 != 0 {
				return false
			}
			n = 8
		default:
			return false
		}
		if i == maxExtensions {
			return true
		}
		next = p[0]
		p = p[min(n, len(p)):]
	}
}

func FuzzFrame(f *testing.F) {
	for _, c := range ethernetCases {
		f.Add(c.frame)
	}
	m, ps := loadForTest(f)
	addrs, err := m.listAddrs()
	if err != nil {
		f.Fatal(err)
	}
	vrids, err := m.listVRIDs()
	if err != nil {
		f.Fatal(err)
	}
	want := model{addrs: map[netip.Addr]bool{}, vrids: map[VRID]bool{}}
	for _, a := range addrs {
		want.addrs[a] = true
	}
	for _, v := range vrids {
		want.vrids[v] = true
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 2000 {
			return
		}
		for _, d := range []direction{ingress, egress} {
			r, err := ps[variant{d, framedEthernet}].Run(&ebpf.RunOptions{Data: frame})
			if errors.Is(err, unix.EINVAL) {
				return // the kernel does not make a packet of it
			}
			if err != nil {
				t.Fatal(err)
			}
			want.dir = d
			if got := int32(r) == tcActShot; got != want.ethernet(frame) {
				t.Errorf("%s: dropped %v, want %v: %x", d, got, !got, frame)
			}
		}
	})
}

func FuzzNetlinkMessages(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Add(make([]byte, 20))
	f.Add(cat(make([]byte, 20), []byte{8, 0, 1, 0, 'b', 'p', 'f', 0, 12, 0, 2, 0, 8, 0, 11, 0, 1, 2, 3, 4}))
	f.Add(cat(make([]byte, 16), []byte{7, 0, 3, 0, 'l', 'o', 0, 0}))
	f.Add(cat(make([]byte, 20), []byte{3, 0, 1, 0}, []byte{255, 255, 1, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := parseLink(b); ok && l.index <= 0 {
			t.Errorf("link %+v", l)
		}
		if fl, ok := parseFilter(b); ok != (len(b) >= 20) {
			t.Errorf("filter %+v, %v", fl, ok)
		}
	})
}

func BenchmarkSetDeadline(b *testing.B) {
	m, _ := loadForTest(b)
	g := &Guard{maps: m}
	for b.Loop() {
		if err := g.SetDeadline(BootNow() + 300*time.Millisecond); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPacket is what the guard adds to one packet.
func BenchmarkPacket(b *testing.B) {
	m, ps := loadForTest(b)
	for _, live := range []bool{true, false} {
		for _, c := range []frameCase{ethernetCases[2], ethernetCases[31]} {
			name := "live/"
			m.deadlineWord().Store(^uint64(0))
			if !live {
				name = "not live/"
				m.deadlineWord().Store(0)
			}
			b.Run(name+c.name, func(b *testing.B) {
				if _, err := ps[variant{egress, framedEthernet}].Run(&ebpf.RunOptions{Data: c.frame, Repeat: uint32(b.N)}); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
