package netdev

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

// message has VRID 7 where messages have it. What is in it does not matter here.
var message = []byte{0x31, 7, 100, 1, 0, 100, 0, 0, 10, 0, 0, 5}

func TestMessageArrivesAsItWasSent(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		name       string
		instance   *conf.VRRPInstance
		there      *conf.VRRPInstance // of the other router; nil: the same
		from, to   string             // from is empty for a link-local address
		mac        string             // destination on the wire
		sourceMAC  string             // empty: that of the interface
		ttl        uint8
		changeSent bool
	}{
		{name: "IPv4 to the group", instance: router4("10.0.0.5/24"), from: "10.0.0.1", to: "224.0.0.18", mac: "01005e000012", ttl: 255},
		{name: "IPv6 to the group", instance: router6("fd00::5/64"), to: "ff02::12", mac: "333300000012", ttl: 255},
		{name: "IPv4 to a peer", instance: unicast(router4("10.0.0.5/24"), 64, "10.0.0.2"), there: unicast(router4("10.0.0.5/24"), 64, "10.0.0.1"),
			from: "10.0.0.1", to: "10.0.0.2", ttl: 64},
		{name: "IPv6 to a peer", instance: unicast(router6("fd00::5/64"), 255, "fd00::2"), there: unicast(router6("fd00::5/64"), 255, "fd00::1"),
			from: "fd00::1", to: "fd00::2", ttl: 255},
		{name: "IPv4 from a virtual interface", instance: onVMAC(router4("10.0.0.5/24")), there: router4("10.0.0.5/24"),
			from: "10.0.0.1", to: "224.0.0.18", mac: "01005e000012", sourceMAC: "00005e000107", ttl: 255},
		{name: "IPv6 from a virtual interface", instance: onVMAC(router6("fd00::5/64")), there: router6("fd00::5/64"),
			to: "ff02::12", mac: "333300000012", sourceMAC: "00005e000207", ttl: 255},
		{name: "IPv4 with a source that is nowhere", instance: from(router4("10.0.0.5/24"), "192.0.2.9"), there: router4("10.0.0.5/24"),
			from: "192.0.2.9", to: "224.0.0.18", mac: "01005e000012", ttl: 255},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			if c.there == nil {
				c.there = c.instance
			}
			ha, hb := a.host(""), b.host("")
			x, y := open(t, ha, c.instance), open(t, hb, c.there)
			wire := b.Tap("eth0")
			nstest.Eventually(t, "addresses to send from", func() bool { return x.Local().IsValid() && y.Local().IsValid() })
			want := x.Local()
			if c.from != "" {
				want = addr(c.from)
			} else if !want.IsLinkLocalUnicast() {
				t.Errorf("sent from %s", want)
			}
			ok(t, x.Send(message, addr(c.to)))
			p := y.hears(t)
			if p.From != want || p.To != addr(c.to) || p.TTL != int(c.ttl) || p.Interface == 0 {
				t.Errorf("arrived %s -> %s, TTL %d, interface %d", p.From, p.To, p.TTL, p.Interface)
			}
			got := append([]byte(nil), p.Payload...)
			if c.instance.IPv6 { // the kernel has filled in the checksum
				if pseudo6(got, p.From, p.To) != 0xffff {
					t.Errorf("checksum of %x is wrong", got)
				}
				got[6], got[7] = 0, 0
			}
			if string(got) != string(message) {
				t.Errorf("arrived %x", got)
			}
			f := wire.Until("the advertisement", func(f []byte) bool { return vrrpFrame(f) })
			if c.mac != "" && hex.EncodeToString(f[:6]) != c.mac {
				t.Errorf("sent to %x", f[:6])
			}
			if c.sourceMAC != "" && hex.EncodeToString(f[6:12]) != c.sourceMAC {
				t.Errorf("sent by %x", f[6:12])
			}
			tos := f[15]
			if c.instance.IPv6 {
				tos = byte(binary.BigEndian.Uint16(f[14:]) >> 4)
			}
			if tos != 0xc0 {
				t.Errorf("type of service %#x", tos)
			}
			select {
			case p := <-x.heard:
				t.Errorf("it heard itself: %v", p)
			default:
			}
		})
	}
}

func unicast(i *conf.VRRPInstance, ttl uint8, to ...string) *conf.VRRPInstance {
	i.Peers, i.UnicastTTL = peers(to...), ttl
	return i
}

func onVMAC(i *conf.VRRPInstance) *conf.VRRPInstance {
	i.VMAC = "vrrp.7"
	return i
}

func from(i *conf.VRRPInstance, a string) *conf.VRRPInstance {
	i.Source = netip.MustParseAddr(a)
	return i
}

// vrrpFrame says whether a frame carries an advertisement.
func vrrpFrame(f []byte) bool {
	return len(f) > 34 && (binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_IP && f[23] == protocol ||
		binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_IPV6 && f[20] == protocol)
}

// pseudo6 is the sum of a message and its pseudo-header, 0xffff when the checksum is right.
func pseudo6(b []byte, from, to netip.Addr) uint32 {
	all := append(append(from.AsSlice(), to.AsSlice()...), 0, 0, 0, byte(len(b)), 0, 0, 0, protocol)
	all = append(all, b...)
	var n uint32
	for i := 0; i+1 < len(all); i += 2 {
		n += uint32(binary.BigEndian.Uint16(all[i:]))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return n
}

func TestPacketsGoToTheirVirtualRouter(t *testing.T) {
	a, b := pair(t)
	ha, hb := a.host(""), b.host("")
	other := router4("10.0.0.6/24")
	other.Name, other.VRID = "db", 8
	elsewhere := router4("10.0.0.7/24")
	elsewhere.Name, elsewhere.Group = "lan", netip.MustParseAddr("224.0.0.50")
	toPeer := unicast(router4("10.0.0.8/24"), 255, "10.0.0.2")
	toPeer.Name = "peer"
	back := unicast(router4("10.0.0.8/24"), 255, "10.0.0.1")
	back.Name = "peer"

	for _, c := range []struct {
		name string
		from *conf.VRRPInstance
		to   string
		vrid uint8
		want string // name of the instance; empty: nobody
	}{
		{"its VRID and group", router4(), "224.0.0.18", 7, "web"},
		{"another VRID", router4(), "224.0.0.18", 8, "db"},
		{"another group", elsewhere, "224.0.0.50", 7, "lan"},
		{"a peer", toPeer, "10.0.0.2", 7, "peer"},
		{"a VRID that nobody has", router4(), "224.0.0.18", 9, ""},
		{"one that expects a group judges what was sent to the machine", toPeer, "10.0.0.2", 8, "db"},
	} {
		t.Run(c.name, func(t *testing.T) {
			heard := make(chan string, 10)
			listen := func(i *conf.VRRPInstance) {
				e, err := hb.Open(i, func(vrrp.Packet) { heard <- i.Name })
				ok(t, err)
				t.Cleanup(func() { ok(t, e.Close()) })
			}
			listen(router4())
			listen(other)
			listen(elsewhere)
			listen(back)
			last := router4()
			last.Name, last.VRID = "last", 200
			listen(last)
			x, end := open(t, ha, c.from), open(t, ha, last)
			ok(t, x.Send([]byte{0x31, c.vrid, 100, 0, 0, 100, 0, 0}, netip.MustParseAddr(c.to)))
			ok(t, end.Send([]byte{0x31, 200, 100, 0, 0, 100, 0, 0}, group4))
			want := []string{c.want, "last"}
			if c.want == "" {
				want = want[1:]
			}
			for _, w := range want {
				if got := <-heard; got != w {
					t.Errorf("heard by %q, want %q", got, w)
				}
			}
			ok(t, x.Close())
			ok(t, end.Close())
			strangers := hb.Strangers()
			switch {
			case c.want != "":
				if len(strangers) > 0 {
					t.Errorf("heard, and nobody's: %+v", strangers)
				}
			case len(strangers) != 1 || strangers[0].VRID != c.vrid || strangers[0].Count != 1 || strangers[0].Interface != "eth0" || strangers[0].From.String() != "10.0.0.1":
				t.Errorf("heard, and nobody's: %+v", strangers)
			default:
				now := router4()
				now.Name, now.VRID = "new", c.vrid
				if listen(now); hb.Strangers() != nil {
					t.Error("it is no stranger any more")
				}
			}
		})
	}
}

func TestSendingDoesNotAllocate(t *testing.T) {
	a, _ := pair(t)
	for _, i := range []*conf.VRRPInstance{router4("10.0.0.5/24"), router6("fd00::5/64")} {
		x := open(t, a.host(""), i)
		nstest.Eventually(t, "an address", func() bool { return x.Local().IsValid() })
		if n := testing.AllocsPerRun(100, func() { ok(t, x.Send(message, i.Group)) }); n != 0 {
			t.Errorf("IPv6 %v: %v allocations", i.IPv6, n)
		}
	}
}

func TestInterfaceComesBackUnderItsName(t *testing.T) {
	for _, c := range []struct {
		name     string
		instance *conf.VRRPInstance
	}{{"IPv4", router4("10.0.0.5/24")}, {"IPv6", router6("fd00::5/64")}, {"virtual interface", onVMAC(router4("10.0.0.5/24"))}} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newLab(t), newLab(t)
			h := a.host("")
			var mu sync.Mutex
			state := map[string]bool{}
			stop, err := h.Links(func(name string, up bool) { mu.Lock(); state[name] = up; mu.Unlock() })
			ok(t, err)
			defer stop()
			is := func(want bool) func() bool {
				return func() bool { mu.Lock(); defer mu.Unlock(); up, known := state["eth0"]; return known && up == want }
			}
			x := open(t, h, c.instance) // before there is an interface
			if err := x.Send(message, c.instance.Group); !errors.Is(err, ErrNoInterface) {
				t.Errorf("sent without an interface: %v", err)
			}
			for range 2 {
				nstest.Connect(a.NS, b.NS)
				nstest.Eventually(t, "the interface is told to be up", is(true))
				nstest.Eventually(t, "an address", func() bool { return x.Local().IsValid() })
				plain := *c.instance
				plain.VMAC = ""
				y := open(t, b.host(""), &plain)
				nstest.Eventually(t, "the other one's address", func() bool { return y.Local().IsValid() })
				ok(t, x.Send(message, c.instance.Group))
				y.hears(t)
				ok(t, y.Send(message, c.instance.Group))
				x.hears(t)
				a.IP("link del eth0")
				nstest.Eventually(t, "the interface is told to be down", is(false))
				nstest.Eventually(t, "no address", func() bool { return !x.Local().IsValid() })
			}
		})
	}
}

func TestAddressToSendFromIsFollowed(t *testing.T) {
	a, _ := pair(t)
	h := a.host("")
	i := router4("10.0.1.5/24")
	x := open(t, h, i)
	is := func(want string) {
		t.Helper()
		nstest.Eventually(t, "sending from "+want, func() bool { return x.Local().String() == want })
	}
	is("10.0.0.1")
	a.IP("addr add 10.0.1.5/24 dev eth0") // another program's doing
	a.IP("addr add 192.168.7.9/24 dev eth0\naddr del 10.0.0.1/24 dev eth0")
	is("192.168.7.9")
	a.IP("addr del 192.168.7.9/24 dev eth0")
	is("10.0.1.5") // an owner has none but virtual ones
	a.IP("addr flush dev eth0 scope global")
	nstest.Eventually(t, "no address", func() bool { return !x.Local().IsValid() })
	if err := x.Send(message, group4); !errors.Is(err, ErrNoAddress) {
		t.Errorf("sent without an address: %v", err)
	}
	a.IP("addr add 10.0.0.3/24 dev eth0")
	is("10.0.0.3")
	ok(t, h.Acquire(i))
	is("10.0.0.3")
	ok(t, h.Release(i))
}

func TestWhatNoMachineCanDoIsRefused(t *testing.T) {
	a := newLab(t)
	h := a.host("")
	no := router4("10.0.0.5/24")
	no.Interface = ""
	zero := router4("10.0.0.5/24")
	zero.VRID = 0
	plain := router4("10.0.0.5/24")
	plain.Group = netip.MustParseAddr("10.0.0.18")
	for _, c := range []struct {
		want     string
		instance *conf.VRRPInstance
	}{
		{"vrrp web: no interface", no},
		{"vrrp web: virtual_router_id 0; give one of 1 to 255", zero},
		{"vrrp web: 10.0.0.18 is no multicast group of its family", plain},
		{"vrrp web: fd00::1 is no source address of its family", from(router4("10.0.0.5/24"), "fd00::1")},
		{"vrrp web: fd00::2 is no peer of its family", unicast(router4("10.0.0.5/24"), 255, "fd00::2")},
	} {
		_, err := h.Open(c.instance, func(vrrp.Packet) {})
		nstest.Refused(t, err, c.want)
	}
}

func FuzzPacket(f *testing.F) {
	head, _ := hex.DecodeString("45c00020000000 00ff700000 0a000001 e0000012"[:14] + "00ff700000" + "0a000001" + "e0000012")
	f.Add(append(head, message...), []byte(nil))
	f.Add(message, append(control6(netip.MustParseAddr("fe80::1"), 3, 255), 0, 0))
	f.Fuzz(func(t *testing.T, b, control []byte) {
		if p, ok := parse4(b); ok && (len(p.Payload) > len(b)-20 || !p.From.Is4() || !p.To.Is4() || p.TTL < 0 || p.TTL > 255) {
			t.Errorf("%x became %+v", b, p)
		}
		if p, ok := parse6(b, netip.MustParseAddr("fe80::1"), control); ok && (!p.To.Is6() || p.TTL < 0 || p.TTL > 255) {
			t.Errorf("%x became %+v", control, p)
		}
	})
}
