package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
)

func TestWhatOthersTakeAwayIsPutBack(t *testing.T) {
	all := func() *conf.VRRPInstance {
		i := router4("10.0.0.5/24", "10.0.0.6/32")
		i.Excluded = virtual("fd00::5/64")
		return i
	}
	for _, c := range []struct{ name, commands string }{
		{"one address", "addr del 10.0.0.6/32 dev eth0"},
		{"all of the interface", "addr flush dev eth0 scope global"},
		{"that on which it hung", "addr del 10.0.0.1/24 dev eth0"},
		{"with its interface set down for a moment", "link set eth0 down\nlink set eth0 up"},
		{"again and again", strings.Repeat("addr flush dev eth0 to 10.0.0.6/32\n", 20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			a.Inside(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", []byte("0"), 0) })
			h := a.host("")
			i := all()
			ok(t, h.Acquire(i))
			wire := b.Tap("eth0")
			a.IP(c.commands)
			for _, ip := range []string{"10.0.0.5/24", "10.0.0.6/32", "fd00::5/64"} {
				nstest.Eventually(t, ip+" is back", func() bool { return strings.Contains(a.Shown("eth0"), "ip addr add "+ip+" ") })
			}
			if !strings.Contains(c.commands, "down") {
				wire.Until("neighbours are told", func(f []byte) bool {
					return len(f) >= 42 && f[12] == 8 && f[13] == 6 && (string(f[28:32]) == "\x0a\x00\x00\x05" || string(f[28:32]) == "\x0a\x00\x00\x06")
				})
			}
			ok(t, h.Release(i))
			shown := a.Shown("eth0")
			a.IP("addr add 10.0.0.77/32 dev eth0\naddr del 10.0.0.77/32 dev eth0")
			nstest.Eventually(t, "the Host has seen it", func() bool { ok(t, h.view()); defer h.mu.Unlock(); return len(h.torn) == 0 })
			if strings.Contains(shown, "10.0.0.5") || a.Shown("eth0") != shown {
				t.Errorf("after its release: %s", a.Shown("eth0"))
			}
		})
	}
}

func TestARouteThatWentWithAnAddressIsPutBackWithIt(t *testing.T) {
	for _, c := range []struct{ name, commands string }{
		{"it left from the address", "addr del 10.0.0.5/24 dev eth0"},
		{"it was the last of its interface", "addr flush dev eth0 scope global"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := pair(t)
			h := a.host(t.TempDir())
			i := router4("10.0.0.5/24")
			i.Routes = []conf.VRRPRoute{{To: netip.MustParsePrefix("172.16.0.0/12"), Via: netip.MustParseAddr("10.0.0.2"), Source: netip.MustParseAddr("10.0.0.5")}}
			ok(t, h.Acquire(i))
			a.IP(c.commands)
			nstest.Eventually(t, "the route is back", func() bool {
				return strings.Contains(a.IP("route show proto 108"), "172.16.0.0/12 via 10.0.0.2 dev eth0 src 10.0.0.5")
			})
			ok(t, h.Release(i))
			nstest.Same(t, "routes", a.IP("route show proto 108"), "")
		})
	}
}

func TestInterfaceThatIsRenamedLosesItsAddressesAndRoutes(t *testing.T) {
	a, _ := pair(t)
	h := a.host(t.TempDir())
	i := router4("10.0.0.5/24")
	i.Routes = []conf.VRRPRoute{{To: netip.MustParsePrefix("172.16.0.0/12"), Via: netip.MustParseAddr("10.0.0.2"), Interface: "eth0"}}
	ok(t, h.Acquire(i))
	a.IP("link property add dev eth0 altname uplink\nlink set eth0 down\nlink set eth0 name lan0\nlink set lan0 up")
	a.IP("route replace 172.16.0.0/12 via 10.0.0.2 dev lan0 proto 108") // newer kernels rename what is up
	ok(t, h.Release(i))
	if shown := a.Shown("lan0"); strings.Contains(shown, "10.0.0.5") || a.IP("route show proto 108") != "" {
		t.Errorf("left behind: %s\n%s", shown, a.IP("route show proto 108"))
	}
}

func TestInterfaceThatLeavesAndReturnsIsHeard(t *testing.T) {
	a, b := pair(t)
	h := a.host("")
	x, y := open(t, h, router4("10.0.0.5/24")), open(t, b.host(""), router4("10.0.0.5/24"))
	nstest.Eventually(t, "addresses", func() bool { return x.Local().IsValid() && y.Local().IsValid() })
	other := newLab(t)
	h.mu.Lock() // it learns of both together
	a.IP("link set eth0 netns " + other.Name)
	other.IP("link set eth0 netns " + a.Name) // with the index that it had
	a.IP("addr add 10.0.0.1/24 dev eth0\nlink set eth0 up")
	h.mu.Unlock()
	nstest.Eventually(t, "the group is joined", func() bool {
		return strings.Contains(a.IP("maddr show dev eth0"), "224.0.0.18")
	})
	nstest.Eventually(t, "it is heard", func() bool {
		ok(t, y.Send(message, group4))
		select {
		case <-x.heard:
			return true
		default:
			return false
		}
	})
}

func TestMoreGroupsThanTheKernelAllowsNameTheSetting(t *testing.T) {
	a, _ := pair(t)
	h := a.host("")
	for n := range 21 {
		i := router4("10.0.0.5/24")
		i.Name, i.VRID, i.Group = fmt.Sprint("VI_", n), uint8(n+1), netip.AddrFrom4([4]byte{239, 0, 0, byte(n)})
		e, err := h.Open(i, nil)
		if n == 20 {
			nstest.Refused(t, err, "vrrp VI_20: eth0: joining 239.0.0.20: no buffer space available: a socket cannot join more groups; raise the sysctl net.ipv4.igmp_max_memberships, or let virtual routers share a group")
			break
		}
		ok(t, err)
		defer e.Close()
	}
}

func TestNoDescriptorIsLeftAfterReloads(t *testing.T) {
	a, _ := pair(t)
	h := a.host(t.TempDir())
	count := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		ok(t, err)
		return len(all)
	}
	four, six := onVMAC(router4("10.0.0.5/24")), router6("fd00::5/64")
	six.Name = "web6"
	four.Accept = false
	round := func() {
		for _, i := range []*conf.VRRPInstance{four, six} {
			e, err := h.Open(i, nil)
			ok(t, err)
			ok(t, h.Acquire(i))
			ok(t, h.Release(i))
			ok(t, e.Close())
		}
	}
	round()
	before := count()
	for range 10 {
		round()
	}
	nstest.Eventually(t, "as many as before", func() bool { return count() <= before })
}

func TestSettingsOfTheInterfaceBelowAreAllPutBack(t *testing.T) {
	a, _ := pair(t)
	h := a.host("")
	value := func(name string) string {
		v, err := h.k.Sysctl("net/ipv4/conf/eth0/" + name)
		ok(t, err)
		return v
	}
	one, two := onVMAC(router4("10.0.0.5/24")), onVMAC(router4("10.0.0.6/24"))
	two.Name, two.VRID, two.VMAC = "db", 8, "vrrp.8"
	x := open(t, h, one)
	_, err := h.k.SetSysctl("net/ipv4/conf/eth0/arp_announce", "1") // somebody else
	ok(t, err)
	y := open(t, h, two)
	if value("arp_ignore") != "1" || value("arp_announce") != "2" {
		t.Errorf("arp_ignore %s, arp_announce %s", value("arp_ignore"), value("arp_announce"))
	}
	ok(t, x.Close())
	ok(t, y.Close())
	if value("arp_ignore") != "0" || value("arp_announce") != "1" {
		t.Errorf("in the end arp_ignore %s, arp_announce %s", value("arp_ignore"), value("arp_announce"))
	}
}

// TestRefusalOfThousandsFits: one message has room for a thousand, one datagram
// for the usual buffer of a socket.
func TestRefusalOfThousandsFits(t *testing.T) {
	a := newLab(t)
	h := a.host("")
	d := h.drops
	var all []netip.Addr
	for n := range 12000 {
		all = append(all, netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(n >> 8), 15: byte(n)}))
	}
	ok(t, d.add(all, all))
	a.Run("nft", "delete", "element", "inet", "keepbeat-vrrp", "addresses6", "{ fd00::1 }")
	ok(t, d.remove(all[:6000]))
	d.mu.Lock()
	lost := d.fd
	d.fd, _ = unix.Open("/dev/null", unix.O_RDWR, 0) // nobody answers on it
	d.mu.Unlock()
	err := d.remove(all[6000:6001])
	if err == nil {
		t.Error("no error when the kernel cannot be asked")
	}
	_ = unix.Close(lost)
	nstest.Eventually(t, "what failed is made good", func() bool {
		return !strings.Contains(a.Run("nft", "list", "set", "inet", "keepbeat-vrrp", "addresses6"), "fd00::1770 ")
	})
	ok(t, d.remove(all[6001:]))
	nstest.Same(t, "packet filter", a.Run("nft", "list", "ruleset"), "")
}

func TestVirtualInterfaceThatCannotBeSeenIsNotLeftBehind(t *testing.T) {
	a, _ := pair(t)
	h := a.host("")
	h.watch.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	parent, _ := h.seen.link("eth0")
	h.subscribe() // anew, and in vain
	h.watch.Read = func() error { return errors.New("interrupted") }
	err := h.makeVMAC(&vmac{instance: "web", name: "vrrp.7", parent: "eth0", mac: virtualMAC(router4())}, parent.Index)
	nstest.Refused(t, err, "interrupted")
	if links := a.IP("-br link"); strings.Contains(links, "vrrp.7") {
		t.Errorf("left behind: %s", links)
	}
}
