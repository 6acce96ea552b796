package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// machine reads interfaces and connected routes as `ip route` prints them:
// "10.0.0.0/24 dev eth0 metric 100". Interfaces are those named, and lo.
func machine(t *testing.T, text string) (links []rtnl.Link, routes []rtnl.Connected) {
	t.Helper()
	links = []rtnl.Link{{Index: 1, Name: "lo", Flags: unix.IFF_LOOPBACK}}
	index := func(name string) int {
		for _, l := range links {
			if l.Name == name {
				return l.Index
			}
		}
		links = append(links, rtnl.Link{Index: len(links) + 1, Name: name})
		return len(links)
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case f[0] == "dev":
			index(f[1])
		default:
			r := rtnl.Connected{Network: netip.MustParsePrefix(f[0]), Index: index(f[2])}
			if len(f) > 4 {
				_, _ = fmt.Sscan(f[4], &r.Metric)
			}
			routes = append(routes, r)
		}
	}
	return links, routes
}

// written reads ADDRESS[/PREFIX[/INTERFACE[:LABEL]][/BROADCAST]].
func written(s string) conf.VIP {
	f := strings.Split(s, "/")
	v := conf.VIP{Address: netip.MustParseAddr(f[0]), Prefix: -1, ARPCount: 5, ARPInterval: 1e9}
	if len(f) > 1 && f[1] != "" {
		_, _ = fmt.Sscan(f[1], &v.Prefix)
	}
	if len(f) > 2 {
		v.Interface, v.Label, _ = strings.Cut(f[2], ":")
	}
	if len(f) > 3 {
		v.Broadcast = netip.MustParseAddr(f[3])
	}
	return v
}

func TestInterfaceAndPrefixComeFromTheRoutes(t *testing.T) {
	const two = `
		10.0.0.0/24 dev eth0
		10.0.0.0/16 dev eth1
		192.168.1.0/24 dev eth1
		fd00::/64 dev eth0
		fe80::/64 dev eth0
		fe80::/64 dev eth1`
	for _, c := range []struct{ name, machine, vip, want string }{
		{"address alone", two, "192.168.1.5", "ip addr add 192.168.1.5/24 brd 192.168.1.255 dev eth1"},
		{"the longest route wins", two, "10.0.0.5", "ip addr add 10.0.0.5/24 brd 10.0.0.255 dev eth0"},
		{"outside the longer one", two, "10.0.9.5", "ip addr add 10.0.9.5/16 brd 10.0.255.255 dev eth1"},
		{"prefix written", two, "10.0.0.5/32", "ip addr add 10.0.0.5/32 dev eth0"},
		{"interface written, prefix from its own route", two, "10.0.0.5//eth1", "ip addr add 10.0.0.5/16 brd 10.0.255.255 dev eth1"},
		{"all written, no route needed", "dev eth7", "10.9.9.9/32/eth7", "ip addr add 10.9.9.9/32 dev eth7"},
		{"label and broadcast", two, "10.0.0.5/24/eth0:web/10.0.0.127", "ip addr add 10.0.0.5/24 brd 10.0.0.127 dev eth0 label eth0:web"},
		{"/31 has no broadcast", two, "10.0.0.5/31", "ip addr add 10.0.0.5/31 dev eth0"},
		{"odd prefix", two, "10.0.0.5/13", "ip addr add 10.0.0.5/13 brd 10.7.255.255 dev eth0"},
		{"IPv6", two, "fd00::5", "ip addr add fd00::5/64 dev eth0 preferred_lft 0 nodad"},
		{"link-local with interface", two, "fe80::5//eth1", "ip addr add fe80::5/64 dev eth1 preferred_lft 0 nodad"},
		{"two routes on one interface", "10.0.0.0/24 dev eth0 metric 1\n10.0.0.0/24 dev eth0 metric 2", "10.0.0.5", "ip addr add 10.0.0.5/24 brd 10.0.0.255 dev eth0"},

		{"lo is not chosen", "fd00::5/128 dev lo\nfd00::/64 dev eth0", "fd00::5", "ip addr add fd00::5/64 dev eth0 preferred_lft 0 nodad"},
		{"no such interface", two, "10.0.0.5/24/eth7", "vip 10.0.0.5/24: eth7: no such interface; this node has eth0, eth1"},
		{"ambiguous whatever the metric", "10.0.0.0/24 dev eth0 metric 100\n10.0.0.0/24 dev wlan0 metric 600", "10.0.0.5",
			"vip 10.0.0.5: more than one interface has a connected route that contains it; write one of 10.0.0.5/24/eth0, 10.0.0.5/24/wlan0"},
		{"no route", two, "172.16.0.1", "vip 172.16.0.1: no interface has a connected route that contains it; write the interface: 172.16.0.1/32/INTERFACE; this node has eth0, eth1"},
		{"no route on the interface", two, "172.16.0.1//eth0", "vip 172.16.0.1: no connected route on eth0 contains it, so its prefix is not known; write 172.16.0.1/32/eth0, or the network's prefix instead of 32"},
		{"label too long", two, "10.0.0.5/24/eth0:elevenchars", `vip 10.0.0.5/24: label "eth0:elevenchars" has 16 characters, the kernel takes 15 with the interface's name`},
		{"link-local without interface", two, "fe80::5", "vip fe80::5: a link-local address needs its interface: fe80::5/64/eth0"},
		{"prefix out of range", two, "10.0.0.5/33/eth0", "vip 10.0.0.5/33: prefix out of range 1 to 32"},
		{"label in IPv6", two, "fd00::5/64/eth0:web", `vip fd00::5/64: only IPv4 addresses have labels; leave out "web"`},
		{"multicast", two, "224.0.0.1/24/eth0", "vip 224.0.0.1: not the address of one machine"},
		{"interface that is no name", two, "10.0.0.5/24/../x", `vip 10.0.0.5/24: ".." cannot be the name of an interface`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "interface that is no name" {
				c.vip = "10.0.0.5/24/.."
			}
			v := written(c.vip)
			links, routes := machine(t, c.machine)
			for range 3 { // the order of a dump means nothing
				err := check(&v)
				var rec record
				if err == nil {
					rec, err = resolve(&v, links, routes)
				}
				got := ""
				if err != nil {
					got = err.Error()
				} else {
					got = rec.address(1).Text(rec.Interface)
				}
				if got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				slices.Reverse(links)
				slices.Reverse(routes)
			}
		})
	}
}
