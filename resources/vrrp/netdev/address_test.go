package netdev

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
)

func TestAcquirePutsAndReleaseTakesBack(t *testing.T) {
	a, _ := pair(t)
	h := a.host("")
	before := a.Shown("eth0")
	i := router4("10.0.0.5/24", "10.0.0.6/32")
	i.Addresses[0].Broadcast = netip.MustParseAddr("10.0.0.255")
	i.Addresses[0].Label = "eth0:web"
	i.Excluded = virtual("192.168.7.1/24", "fd00::5/64")
	i.Excluded[0].Scope = unix.RT_SCOPE_LINK
	i.Excluded = append(i.Excluded, conf.VRRPAddress{Address: netip.MustParsePrefix("10.9.9.9/32"), Interface: "lo"})
	i.Routes = []conf.VRRPRoute{
		{To: netip.MustParsePrefix("172.16.0.0/12"), Via: netip.MustParseAddr("192.168.7.254"), Source: netip.MustParseAddr("192.168.7.1"), Interface: "eth0", Metric: 7, MTU: 1400},
		{To: netip.MustParsePrefix("10.66.0.0/16"), Table: 1000, Type: unix.RTN_BLACKHOLE},
		{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00::9"), Interface: "eth0"},
	}
	i.Rules = []conf.VRRPRule{
		{From: netip.MustParsePrefix("10.0.0.5/32"), Table: 1000, Priority: 500},
		{To: netip.MustParsePrefix("fd01::/16"), IIF: "eth0", FWMark: 3, Table: 254},
	}
	for range 2 { // it is idempotent
		ok(t, h.Acquire(i))
		nstest.Same(t, "addresses", a.Shown("eth0"), `
			ip addr add 10.0.0.1/24 dev eth0
			ip addr add 10.0.0.5/24 brd 10.0.0.255 dev eth0 label eth0:web
			ip addr add 10.0.0.6/32 dev eth0
			ip addr add 192.168.7.1/24 dev eth0 scope link
			ip addr add fd00::1/64 dev eth0 nodad
			ip addr add fd00::5/64 dev eth0 preferred_lft 0 nodad`)
		if !strings.Contains(a.Shown("lo"), "10.9.9.9/32") {
			t.Error("not on lo")
		}
		nstest.Same(t, "routes", a.IP("route show proto 108\nroute show table 1000\n-6 route show proto 108"), `
			172.16.0.0/12 via 192.168.7.254 dev eth0 src 192.168.7.1 metric 7 mtu 1400
			blackhole 10.66.0.0/16 proto 108
			default via fd00::9 dev eth0 metric 1024 pref medium`)
		nstest.Same(t, "rules", a.rules(), "500: from 10.0.0.5 lookup 1000 proto 108\n32765: from all to fd01::/16 fwmark 0x3 iif eth0 lookup main proto 108")
	}
	for range 2 {
		ok(t, h.Release(i))
		nstest.Same(t, "addresses", a.Shown("eth0"), before)
		nstest.Same(t, "rest", a.IP("route show table all proto 108")+a.rules(), "")
	}
}

// rules are those with our mark.
func (l lab) rules() string {
	var all []string
	for line := range strings.Lines(l.IP("rule show\n-6 rule show")) {
		if strings.Contains(line, "proto 108") {
			all = append(all, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(all, "\n")
}

func TestReleaseOfAPartLeavesTheRest(t *testing.T) {
	a, _ := pair(t)
	dir := t.TempDir()
	h := a.host(dir)
	i := router4("10.0.0.5/24", "10.0.0.6/24")
	i.Accept = false
	i.Routes = []conf.VRRPRoute{{To: netip.MustParsePrefix("172.16.0.0/12"), Via: netip.MustParseAddr("10.0.0.2")}, {To: netip.MustParsePrefix("172.32.0.0/12"), Via: netip.MustParseAddr("10.0.0.2")}}
	i.Rules = []conf.VRRPRule{{From: netip.MustParsePrefix("10.0.0.5/32"), Table: 1000, Priority: 5}, {From: netip.MustParsePrefix("10.0.0.6/32"), Table: 1000, Priority: 6}}
	ok(t, h.Acquire(i))
	old := *i
	old.Addresses, old.Routes, old.Rules = i.Addresses[:1], i.Routes[:1], i.Rules[:1]
	rest := func(what string) {
		t.Helper()
		nstest.Same(t, what, a.Shown("eth0"), `
			ip addr add 10.0.0.1/24 dev eth0
			ip addr add 10.0.0.6/24 dev eth0
			ip addr add fd00::1/64 dev eth0 nodad`)
		nstest.Same(t, what, a.IP("route show proto 108")+a.rules(), `
			172.32.0.0/12 via 10.0.0.2 dev eth0
			6: from 10.0.0.6 lookup 1000 proto 108`)
		nft := a.Run("nft", "list", "ruleset")
		if strings.Contains(nft, "10.0.0.5") || !strings.Contains(nft, "10.0.0.6") {
			t.Errorf("%s: refused: %s", what, nft)
		}
	}
	ok(t, h.Release(&old))
	rest("released")
	now := *i
	now.Addresses, now.Routes, now.Rules = i.Addresses[1:], i.Routes[1:], i.Rules[1:]
	ok(t, h.Acquire(&now))
	rest("and acquired")
	ok(t, h.Close())
	a.host(dir)
	nstest.Same(t, "cleaned up", a.IP("route show proto 108")+a.rules(), "")
}

func TestWhatStoodBeforeStays(t *testing.T) {
	a, _ := pair(t)
	h := a.host("")
	a.IP("addr add 10.0.0.5/24 dev eth0\nroute add 172.16.0.0/12 via 10.0.0.2\naddr add 192.168.7.2/24 dev eth0")
	before := a.Shown("eth0")
	i := router4("10.0.0.5/24", "192.168.7.1/24")
	i.Routes = []conf.VRRPRoute{{To: netip.MustParsePrefix("172.16.0.0/12"), Via: netip.MustParseAddr("10.0.0.3")}}
	nstest.Refused(t, h.Acquire(i), "vrrp web: route 172.16.0.0/12 via 10.0.0.3: there is one to this destination already that keepbeat has not added; remove it, or give this one another metric")
	ok(t, h.Release(i))
	nstest.Same(t, "addresses", a.Shown("eth0"), before)
	nstest.Same(t, "route", a.IP("route show 172.16.0.0/12"), "172.16.0.0/12 via 10.0.0.2 dev eth0")
}

func TestOthersOfTheNetworkSurviveRelease(t *testing.T) {
	a, _ := pair(t)
	h := a.host("")
	i := router4("192.168.7.1/24", "192.168.7.3/24")
	ok(t, h.Acquire(i)) // the first of its network: the next hang on it
	other := router4("192.168.7.4/24")
	other.Name = "db"
	ok(t, h.Acquire(other))
	a.IP("addr add 192.168.7.2/24 dev eth0")
	ok(t, h.Release(i))
	nstest.Same(t, "addresses", a.Shown("eth0"), `
		ip addr add 10.0.0.1/24 dev eth0
		ip addr add 192.168.7.2/24 dev eth0
		ip addr add 192.168.7.4/24 dev eth0
		ip addr add fd00::1/64 dev eth0 nodad`)
	ok(t, h.Release(other))
}

func TestRestIsDoneWhenSomethingIsImpossible(t *testing.T) {
	a, _ := pair(t)
	h := a.host("")
	i := router4("10.0.0.5/24")
	for n := range 7 {
		i.Excluded = append(i.Excluded, conf.VRRPAddress{Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(n)}), 24), Interface: "eth9"})
	}
	err := h.Acquire(i)
	if err == nil || !strings.HasPrefix(err.Error(), "vrrp web: address 10.1.0.0/24: eth9: no such interface\n") || !strings.HasSuffix(err.Error(), "; and 2 more") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(a.Shown("eth0"), "10.0.0.5/24") {
		t.Error("the address that is possible is not there")
	}
	ok(t, h.Release(i))
}

func TestInterfaceThatWentTakesItsAddressesAlong(t *testing.T) {
	a, b := pair(t)
	h := a.host("")
	i := router4("10.0.0.5/24")
	i.Routes = []conf.VRRPRoute{{To: netip.MustParsePrefix("172.16.0.0/12"), Via: netip.MustParseAddr("10.0.0.2"), Interface: "eth0"}}
	ok(t, h.Acquire(i))
	a.IP("link del eth0")
	nstest.Connect(a.NS, b.NS)
	ok(t, h.Acquire(i))
	if !strings.Contains(a.Shown("eth0"), "10.0.0.5/24") || a.IP("route show proto 108") == "" {
		t.Error("not put on the new interface")
	}
	a.IP("link del eth0")
	ok(t, h.Release(i))
}

func TestRunThatWasKilledIsCleanedUp(t *testing.T) {
	for _, marks := range []bool{true, false} {
		a, _ := pair(t)
		dir := t.TempDir()
		before := a.Shown("eth0")
		links := a.IP("-br link")
		h := a.host(dir)
		h.k.Marks = marks
		i := onVMAC(router4("10.0.0.5/24"))
		i.Accept = false
		i.Excluded = []conf.VRRPAddress{{Address: netip.MustParsePrefix("10.0.0.6/24"), Interface: "eth0"}}
		i.Routes = []conf.VRRPRoute{{To: netip.MustParsePrefix("172.16.0.0/12"), Via: netip.MustParseAddr("10.0.0.2"), Interface: "eth0", Protocol: 99}}
		i.Rules = []conf.VRRPRule{{From: netip.MustParsePrefix("10.0.0.5/32"), Table: 1000}}
		_ = open(t, h, i)
		ok(t, h.Acquire(i))
		ok(t, h.Close()) // it leaves everything where it is, as a kill does
		if strings.Contains(a.IP("-br link"), "vrrp.7") == false || a.rules() == "" {
			t.Fatal("nothing was left to clean up")
		}

		h = a.host(dir)
		nstest.Same(t, "addresses", a.Shown("eth0"), before)
		nstest.Same(t, "interfaces", a.IP("-br link"), links)
		nstest.Same(t, "rest", a.IP("route show proto 99")+a.rules()+a.Run("nft", "list", "ruleset"), "")
		if v, err := h.k.Sysctl("net/ipv4/conf/eth0/arp_ignore"); v != "0" || err != nil {
			t.Errorf("arp_ignore of the parent %q, %v", v, err)
		}
		left, err := os.ReadDir(dir + "/vrrp")
		if len(left) != 0 || err != nil {
			t.Errorf("journal %v, %v", left, err)
		}
	}
}

func TestDamagedJournalIsNoObstacle(t *testing.T) {
	a, _ := pair(t)
	dir := t.TempDir()
	ok(t, os.MkdirAll(dir+"/vrrp", 0o700))
	ok(t, os.WriteFile(dir+"/vrrp/i-web.json", []byte(`{"version":1,`), 0o600))
	h := a.host("")
	ok(t, h.Acquire(router4("10.0.0.5/24")))
	ok(t, h.Close())
	a.host(dir)
	if strings.Contains(a.Shown("eth0"), "10.0.0.5") {
		t.Error("an address with our mark was left")
	}
}

func TestAnnouncementsAreTrue(t *testing.T) {
	for _, c := range []struct {
		name string
		i    *conf.VRRPInstance
		mac  string
	}{
		{"the interface's own address", router4("10.0.0.5/24"), ""},
		{"the virtual one", onVMAC(router4("10.0.0.5/24")), "\x00\x00\x5e\x00\x01\x07"},
		{"IPv6", router6("fd00::5/64"), ""},
		{"IPv6, virtual", onVMAC(router6("fd00::5/64")), "\x00\x00\x5e\x00\x02\x07"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			h := a.host("")
			_ = open(t, h, c.i)
			wire := b.Tap("eth0")
			ok(t, h.Announce(t.Context(), c.i)) // nothing stands, so nothing is said
			ok(t, h.Acquire(c.i))
			ok(t, h.Announce(t.Context(), c.i))
			ip := c.i.Addresses[0].Address.Addr()
			f := wire.Until("the announcement", func(f []byte) bool {
				return len(f) >= 42 && (f[12] == 8 && f[13] == 6 || len(f) >= 86 && f[20] == 58 && f[54] == 136 && string(f[62:78]) == string(ip.AsSlice()))
			})
			source := string(f[6:12])
			if c.mac != "" && source != c.mac {
				t.Errorf("sent by %x", source)
			}
			if ip.Is4() && (f[21] != 1 || string(f[22:28]) != source || string(f[28:32]) != string(ip.AsSlice()) || string(f[38:42]) != string(ip.AsSlice())) {
				t.Errorf("%x is no gratuitous ARP request", f)
			}
			if ip.Is6() && string(f[80:86]) != source {
				t.Errorf("%x tells another link-layer address", f)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := h.Announce(ctx, c.i); !errors.Is(err, context.Canceled) {
				t.Errorf("announced after its end: %v", err)
			}
			ok(t, h.Release(c.i))
		})
	}
}

func TestAnnouncementsAreSpacedPerInterface(t *testing.T) {
	var p paces
	begin := time.Now()
	for n, want := range []time.Duration{0, 10, 20} {
		if got := p.slot(1, 10*time.Millisecond, begin).Sub(begin); got != want*time.Millisecond {
			t.Errorf("packet %d after %v", n, got)
		}
	}
	if got := p.slot(2, 10*time.Millisecond, begin); !got.Equal(begin) {
		t.Error("another interface waits too")
	}
	later := begin.Add(time.Second)
	if got := p.slot(1, 10*time.Millisecond, later); !got.Equal(later) {
		t.Error("it waits for what is over")
	}
}

// TestVirtualInterfaceAnswersForItsAddresses: and for no others, and its parent
// for none of them.
func TestVirtualInterfaceAnswersForItsAddresses(t *testing.T) {
	for _, strict := range []string{"0", "1"} {
		a, b := pair(t)
		a.Inside(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte(strict), 0) })
		h := a.host("")
		four := onVMAC(router4("10.0.0.5/24"))
		six := onVMAC(router6("fd00::5/64"))
		six.Name, six.VMAC = "web6", "vrrp6.7"
		_ = open(t, h, four)
		_ = open(t, h, six)
		ok(t, h.Acquire(four))
		ok(t, h.Acquire(six))
		mac := strings.Fields(strings.TrimSpace(a.IP("-br link show eth0")))[2]
		for ip, want := range map[string]string{"10.0.0.1": mac, "10.0.0.5": "00:00:5e:00:01:07", "fd00::1": mac, "fd00::5": "00:00:5e:00:02:07"} {
			reached(t, b, ip)
			if got := b.IP("neigh show " + ip + " dev eth0"); !strings.Contains(got, "lladdr "+want) {
				t.Errorf("rp_filter %s: %s is at %s, want %s", strict, ip, got, want)
			}
		}
		ok(t, h.Release(four))
		ok(t, h.Release(six))
	}
}

func TestVirtualInterfacesGoWithTheirEndpoints(t *testing.T) {
	a, _ := pair(t)
	h := a.host(t.TempDir())
	arp := func() string {
		v, err := h.k.Sysctl("net/ipv4/conf/eth0/arp_ignore")
		ok(t, err)
		w, err := h.k.Sysctl("net/ipv4/conf/eth0/arp_announce")
		ok(t, err)
		return v + w
	}
	one, two := onVMAC(router4("10.0.0.5/24")), onVMAC(router4("10.0.0.6/24"))
	two.Name, two.VRID, two.VMAC = "db", 8, "vrrp.8"
	x, y := open(t, h, one), open(t, h, two)
	ok(t, x.Close())
	if links := a.IP("-br link"); strings.Contains(links, "vrrp.7") || !strings.Contains(links, "vrrp.8") || arp() != "12" {
		t.Errorf("after one has gone: arp %s, %s", arp(), links)
	}
	a.IP("link del vrrp.8") // somebody's mistake
	nstest.Eventually(t, "it is made again", func() bool { return strings.Contains(a.IP("-br link"), "vrrp.8") })
	ok(t, y.Close())
	if links := a.IP("-br link"); strings.Contains(links, "vrrp.8") || arp() != "00" {
		t.Errorf("after both have gone: arp %s, %s", arp(), links)
	}

	left := a.host("") // it writes nothing down
	_ = open(t, left, one)
	ok(t, left.Close())
	x = open(t, h, one)
	ok(t, x.Close())
	if links := a.IP("-br link"); strings.Contains(links, "vrrp.7") {
		t.Errorf("what was left has not been taken over: %s", links)
	}
	a.IP("link add vrrp.7 link eth0 address 00:00:5e:00:01:07 type macvlan")
	x = open(t, h, one)
	ok(t, x.Close())
	a.IP("link del vrrp.7") // the administrator's own has stayed

	a.IP("link add vrrp.7 type veth peer name other")
	_, err := h.Open(one, nil)
	nstest.Refused(t, err, "vrrp web: vrrp.7 is an interface of another kind or with another link-layer address; give the virtual one another name, or remove it (ip link del vrrp.7)")
}

// reached says whether a machine answers at an address: it refuses a connection.
func reached(t *testing.T, from lab, ip string) {
	t.Helper()
	nstest.Eventually(t, ip+" answers", func() bool { return dial(from, ip, time.Second) })
}

func dial(from lab, ip string, wait time.Duration) (answered bool) {
	from.Inside(func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, "9"), wait)
		if err == nil {
			_ = c.Close()
		}
		answered = err == nil || errors.Is(err, unix.ECONNREFUSED)
		return nil
	})
	return answered
}

func TestPacketsAreNotTakenWithoutAcceptMode(t *testing.T) {
	a, b := pair(t)
	h := a.host("")
	i := router4("10.0.0.5/24")
	i.Accept = false
	i.Excluded = virtual("fd00::5/64")
	accepted := router4("10.0.0.6/24")
	accepted.Name = "db"
	owner := router4("10.0.0.7/24")
	owner.Name, owner.Accept, owner.Priority = "owner", false, 255
	for _, i := range []*conf.VRRPInstance{i, accepted, owner} {
		ok(t, h.Acquire(i))
	}
	for _, ip := range []string{"10.0.0.1", "10.0.0.6", "10.0.0.7", "fd00::1"} {
		reached(t, b, ip)
	}
	for _, ip := range []string{"10.0.0.5", "fd00::5"} {
		if dial(b, ip, 300*time.Millisecond) {
			t.Errorf("%s answers", ip)
		}
		if got := b.IP("neigh show " + ip + " dev eth0"); !strings.Contains(got, "lladdr") {
			t.Errorf("%s has no neighbour: %s", ip, got)
		}
		reached(t, a, ip)
	}
	for _, command := range []string{"flush ruleset", "delete table inet keepbeat-vrrp", "flush set inet keepbeat-vrrp addresses4", "flush chain inet keepbeat-vrrp input"} {
		a.Run(append([]string{"nft"}, strings.Fields(command)...)...)
		nstest.Eventually(t, "after nft "+command+" it is refused again", func() bool {
			rules := a.Run("nft", "list", "ruleset")
			return strings.Contains(rules, "10.0.0.5") && strings.Contains(rules, "ip daddr @addresses4 drop")
		})
	}
	if dial(b, "10.0.0.5", 300*time.Millisecond) {
		t.Error("10.0.0.5 answers")
	}
	ok(t, h.Release(i))
	nstest.Same(t, "packet filter", a.Run("nft", "list", "ruleset"), "")
	ok(t, h.Acquire(i))
	i.Accept = true
	ok(t, h.Acquire(i)) // after a reload
	reached(t, b, "10.0.0.5")
	nstest.Same(t, "packet filter", a.Run("nft", "list", "ruleset"), "")
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"boot":"x","instance":"web","addresses":[{"interface":"eth0","address":"10.0.0.5/24"}],"sysctls":[{"name":"net/ipv4/conf/eth0/arp_ignore","before":"0","set":"1"}]}`))
	f.Add([]byte(`{"version":1,"instance":"web","sysctls":[{"name":"../../etc/passwd","before":"0","set":"1"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		for _, s := range r.Sysctls {
			if !strings.HasPrefix(s.Name, "net/ipv4/conf/") || !strings.HasSuffix(s.Name, "/arp_ignore") && !strings.HasSuffix(s.Name, "/arp_announce") || strings.Contains(s.Name, "/../") {
				t.Errorf("setting %q", s.Name)
			}
		}
	})
}
