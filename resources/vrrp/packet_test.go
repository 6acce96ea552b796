package vrrp

import (
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func addresses(s ...string) (a []conf.VRRPAddress) {
	for _, p := range s {
		a = append(a, conf.VRRPAddress{Address: netip.MustParsePrefix(p)})
	}
	return a
}

func virtual(version uint8, change func(*conf.VRRPInstance)) *conf.VRRPInstance {
	i := &conf.VRRPInstance{
		Name: "VI_1", Version: version, VRID: 51, Priority: 100, Interface: "eth0", Interval: time.Second,
		DownAdverts: 3, Preempt: true, LowerAdvert: true, Group: netip.MustParseAddr("224.0.0.18"),
		Addresses: addresses("192.0.2.10/24", "192.0.2.11/24"),
	}
	if change != nil {
		change(i)
	}
	return i
}

func v6(i *conf.VRRPInstance) {
	i.IPv6, i.Group = true, netip.MustParseAddr("ff02::12")
	i.Addresses = addresses("fe80::10/64", "2001:db8::10/64")
}

// packet is what another router of the same configuration sends.
func packet(i *conf.VRRPInstance, priority uint8) Packet {
	p := Packet{Payload: Encode(i, priority), From: upper, To: i.Group, TTL: 255}
	if i.IPv6 {
		p.From = netip.MustParseAddr("fe80::6%eth0")
	}
	if len(i.Peers) > 0 {
		p.To = local
	}
	Seal(p.Payload, i, p.From, p.To)
	return p
}

// The bytes, and their checksums, were worked out from RFC 3768, 5.1, and RFC 9568, 5.1.
func TestMessagesAreThoseOfTheRFCs(t *testing.T) {
	for _, c := range []struct {
		name string
		i    *conf.VRRPInstance
		want string
	}{
		{"version 2", virtual(2, nil), "213364020001f6b2c000020ac000020b0000000000000000"},
		{"version 2 with a password", virtual(2, func(i *conf.VRRPInstance) { i.Password = "secret" }), "213364020101b966c000020ac000020b7365637265740000"},
		{"version 3 as keepalived has it", virtual(3, nil), "31336402006443b6c000020ac000020b"},
		{"version 3 without a pseudo-header", virtual(3, func(i *conf.VRRPInstance) { i.ChecksumWithoutPseudo = true }), "313364020064e64fc000020ac000020b"},
		{"version 3 over IPv6", virtual(3, v6), "3133640200643fd8fe80000000000000000000000000001020010db8000000000000000000000010"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := hex.EncodeToString(packet(c.i, 100).Payload); got != c.want {
				t.Errorf("%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestWhatIsTaken(t *testing.T) {
	password := func(i *conf.VRRPInstance) { i.Password = "secret" }
	none := func(i *conf.VRRPInstance) { i.Addresses = nil }
	plain := func(i *conf.VRRPInstance) { i.ChecksumWithoutPseudo = true }
	peers := func(i *conf.VRRPInstance) {
		i.Peers = []conf.VRRPPeer{{Address: upper, MinTTL: 60, MaxTTL: 64}}
	}
	for _, c := range []struct {
		name    string
		ours    *conf.VRRPInstance
		theirs  *conf.VRRPInstance // nil: the same
		change  func(*Packet)
		refused Reason
		remark  Reason
	}{
		{name: "version 2", ours: virtual(2, nil)},
		{name: "version 2 with a password", ours: virtual(2, password)},
		{name: "version 3", ours: virtual(3, nil)},
		{name: "version 3 over IPv6", ours: virtual(3, v6)},
		{name: "a unicast peer", ours: virtual(3, peers), change: func(p *Packet) { p.TTL = 64 }},
		{name: "Ethernet padding", ours: virtual(3, nil), change: func(p *Packet) { p.Payload = append(p.Payload, make([]byte, 10)...) }},
		{name: "no addresses at all in version 2", ours: virtual(2, nil), theirs: virtual(2, none), remark: ReasonAddresses},
		{name: "checksum without the pseudo-header", ours: virtual(3, nil), theirs: virtual(3, plain), remark: ReasonChecksumForm},
		{name: "checksum with the pseudo-header", ours: virtual(3, plain), theirs: virtual(3, nil), remark: ReasonChecksumForm},
		{name: "addresses in another order", ours: virtual(2, nil), theirs: virtual(2, func(i *conf.VRRPInstance) { i.Addresses = addresses("192.0.2.11/24", "192.0.2.10/24") })},
		{name: "other addresses", ours: virtual(2, nil), theirs: virtual(2, func(i *conf.VRRPInstance) { i.Addresses = addresses("192.0.2.11/24", "192.0.2.12/24") }), remark: ReasonAddresses},
		{name: "fewer addresses", ours: virtual(2, nil), theirs: virtual(2, func(i *conf.VRRPInstance) { i.Addresses = addresses("192.0.2.10/24") }), remark: ReasonAddresses},
		{name: "another interval in version 3", ours: virtual(3, nil), theirs: virtual(3, func(i *conf.VRRPInstance) { i.Interval = 2 * time.Second }), remark: ReasonOtherInterval},

		{name: "nothing", ours: virtual(2, nil), change: func(p *Packet) { p.Payload = nil }, refused: ReasonLength},
		{name: "half a header", ours: virtual(2, nil), change: func(p *Packet) { p.Payload = p.Payload[:7] }, refused: ReasonLength},
		{name: "cut short", ours: virtual(2, nil), change: func(p *Packet) { p.Payload = p.Payload[:20] }, refused: ReasonLength},
		{name: "longer than padding", ours: virtual(2, nil), change: func(p *Packet) { p.Payload = append(p.Payload, 0, 0, 0) }, refused: ReasonLength},
		{name: "padding in IPv6", ours: virtual(3, v6), change: func(p *Packet) { p.Payload = append(p.Payload, 0) }, refused: ReasonLength},
		{name: "TTL 254 to the group", ours: virtual(2, nil), change: func(p *Packet) { p.TTL = 254 }, refused: ReasonTTL},
		{name: "TTL above the peer's bounds", ours: virtual(3, peers), refused: ReasonTTL},
		{name: "TTL below the peer's bounds", ours: virtual(3, peers), change: func(p *Packet) { p.TTL = 59 }, refused: ReasonTTL},
		{name: "version 3 to version 2", ours: virtual(2, nil), theirs: virtual(3, nil), refused: ReasonVersion},
		{name: "version 2 to version 3", ours: virtual(3, nil), theirs: virtual(2, nil), refused: ReasonVersion},
		{name: "version 4", ours: virtual(3, nil), change: func(p *Packet) { p.Payload[0] = 0x41 }, refused: ReasonVersion},
		{name: "version 2 over IPv6", ours: virtual(3, v6), change: func(p *Packet) { p.Payload[0] = 0x21 }, refused: ReasonVersion},
		{name: "another type", ours: virtual(2, nil), change: func(p *Packet) { p.Payload[0] = 0x22 }, refused: ReasonType},
		{name: "another VRID", ours: virtual(2, nil), change: func(p *Packet) { p.Payload[1] = 52 }, refused: ReasonVRID},
		{name: "a password where none is configured", ours: virtual(2, nil), theirs: virtual(2, password), refused: ReasonAuthType},
		{name: "no password where one is configured", ours: virtual(2, password), theirs: virtual(2, nil), refused: ReasonAuthType},
		{name: "AH", ours: virtual(2, password), change: func(p *Packet) { p.Payload[4] = 2 }, refused: ReasonAuthType},
		{name: "another password", ours: virtual(2, password), theirs: virtual(2, func(i *conf.VRRPInstance) { i.Password = "secret2" }), refused: ReasonPassword},
		{name: "another interval in version 2", ours: virtual(2, nil), theirs: virtual(2, func(i *conf.VRRPInstance) { i.Interval = 2 * time.Second }), refused: ReasonInterval},
		{name: "interval 0 in version 3", ours: virtual(3, nil), theirs: virtual(3, func(i *conf.VRRPInstance) { i.Interval = 0 }), refused: ReasonInterval},
		{name: "a bad checksum", ours: virtual(2, nil), change: func(p *Packet) { p.Payload[7] ^= 1 }, refused: ReasonChecksum},
		{name: "a bad checksum in version 3", ours: virtual(3, nil), change: func(p *Packet) { p.Payload[2]++ }, refused: ReasonChecksum},
		{name: "IPv6 without the pseudo-header", ours: virtual(3, v6), change: func(p *Packet) { Seal(p.Payload, virtual(3, plain), p.From, p.To) }, refused: ReasonChecksum},
		{name: "no addresses at all in version 3", ours: virtual(3, nil), theirs: virtual(3, none), refused: ReasonNoAddresses},
		{name: "to the group of others", ours: virtual(3, nil), theirs: virtual(3, func(i *conf.VRRPInstance) { i.Group = netip.MustParseAddr("224.0.0.99") }), refused: ReasonDestination},
		{name: "to the group, to one that has peers", ours: virtual(3, peers), theirs: virtual(3, nil), refused: ReasonDestination},
		{name: "to one of us, to one that has none", ours: virtual(3, nil), theirs: virtual(3, peers), refused: ReasonDestination},
		{name: "from nobody's peer", ours: virtual(2, peers), change: func(p *Packet) { p.From, p.TTL = lower, 64 }, refused: ReasonSource},
		{name: "from ourselves", ours: virtual(2, nil), change: func(p *Packet) { p.From = local }, refused: ReasonOwn},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.theirs == nil {
				c.theirs = c.ours
			}
			p := packet(c.theirs, 120)
			if c.change != nil {
				c.change(&p)
			}
			a, remarks, refused := newJudge(c.ours).take(p, local)
			if refused != c.refused {
				t.Fatalf("refused for %s, want %s", refused, c.refused)
			}
			var want Reasons
			if c.remark != 0 {
				want.add(c.remark)
			}
			if remarks != want {
				t.Errorf("remarks %b, want %b", remarks, want)
			}
			if refused == 0 && (a.Priority != 120 || a.Interval != c.theirs.Interval || a.From != p.From.WithZone("")) {
				t.Errorf("read as %+v", a)
			}
		})
	}
}

func TestThePacketCountsNoMoreAddressesThanItCan(t *testing.T) {
	i := virtual(3, nil)
	for n := range 300 {
		i.Addresses = append(i.Addresses, conf.VRRPAddress{Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 32)})
	}
	i.Addresses = append(i.Addresses, addresses("2001:db8::1/64")...)
	m, why := Decode(Encode(i, 1), false)
	if got := len(m.Addresses(nil, false)); why != 0 || got != 255 {
		t.Errorf("%d addresses (%s), want 255", got, why)
	}
}

func TestJudgingAllocatesNothing(t *testing.T) {
	i := virtual(3, nil)
	j, p := newJudge(i), packet(i, 120)
	other := packet(virtual(3, func(i *conf.VRRPInstance) { i.Addresses = addresses("192.0.2.11/24", "192.0.2.12/24") }), 120)
	if n := testing.AllocsPerRun(100, func() { j.take(p, local); j.take(other, local) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzPacket feeds hostile bytes to every kind of instance: no panic, and what
// is taken is what its bytes say.
func FuzzPacket(f *testing.F) {
	kinds := []*conf.VRRPInstance{
		virtual(2, nil), virtual(2, func(i *conf.VRRPInstance) { i.Password = "secret" }), virtual(3, nil), virtual(3, v6),
		virtual(3, func(i *conf.VRRPInstance) { i.Peers = []conf.VRRPPeer{{Address: upper, MaxTTL: 255}} }),
	}
	for n, i := range kinds {
		f.Add(packet(i, 120).Payload, uint8(n), uint8(255))
	}
	f.Fuzz(func(t *testing.T, b []byte, kind, ttl uint8) {
		i := kinds[int(kind)%len(kinds)]
		p := packet(i, 1)
		p.Payload, p.TTL = b, int(ttl)
		a, _, refused := newJudge(i).take(p, local)
		m, why := Decode(b, i.IPv6)
		if refused == 0 && (why != 0 || a.Priority != b[2] || a.Interval != m.Interval || a.Interval <= 0 || m.VRID != i.VRID) {
			t.Fatalf("taken as %+v", a)
		}
		if why == 0 {
			m.Addresses(nil, i.IPv6)
			if m.Checksum(p.From.WithZone(""), p.To) == FormBad && refused == 0 {
				t.Fatal("taken with a bad checksum")
			}
		}
	})
}
