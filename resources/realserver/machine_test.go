package realserver

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestAModuleThatATunnelOfSomebodyElsesNeedsIsNotUnloaded(t *testing.T) {
	named := func(name string) netlink.LinkAttrs { return netlink.LinkAttrs{Name: name} }
	for _, tc := range []struct {
		name, module string
		links        []netlink.Link
		want         string
	}{
		{"the one that the module makes is no reason", "ipip", []netlink.Link{&netlink.Iptun{LinkAttrs: named("tunl0")}}, ""},
		{"another one is", "ipip", []netlink.Link{&netlink.Iptun{LinkAttrs: named("tunl0")}, &netlink.Iptun{LinkAttrs: named("office")}}, "office"},
		{"one of another module is not", "ipip", []netlink.Link{&netlink.Ip6tnl{LinkAttrs: named("six")}, &netlink.Dummy{LinkAttrs: named("ipip")}}, ""},
		{"IPv6", "ip6_tunnel", []netlink.Link{&netlink.Ip6tnl{LinkAttrs: named("ip6tnl0")}, &netlink.Ip6tnl{LinkAttrs: named("six")}}, "six"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := anotherOf(tc.module, tc.links); got != tc.want {
				t.Errorf("%q", got)
			}
		})
	}
}

// Any interface of that name will do.
func TestATunnelThatSomebodyUsesMeanwhileStaysUp(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		if _, err := netlink.LinkByName(tunnel4); err == nil { // the kernel has tunnels built in
			command(t, "ip", "link", "set", tunnel4, "name", "kernels")
		}
		command(t, "ip", "link", "add", tunnel4, "type", "veth", "peer", "name", "other")
		up := func() bool { return strings.Contains(command(t, "ip", "-o", "link", "show", tunnel4), ",UP") }
		step := Done{Kind: Link, Name: tunnel4}
		m := machine{}
		if err := m.make(step.step()); err != nil || !up() {
			t.Errorf("%v, up %v", err, up())
			return
		}
		command(t, "ip", "address", "add", "192.0.2.9/32", "dev", tunnel4)
		note, err := m.undo(step)
		if err != nil || note != "tunl0 stays up: somebody has given it 192.0.2.9/32" || !up() {
			t.Errorf("%q, %v, up %v", note, err, up())
		}
		command(t, "ip", "address", "del", "192.0.2.9/32", "dev", tunnel4)
		if note, err = m.undo(step); err != nil || note != "" || up() {
			t.Errorf("%q, %v, up %v", note, err, up())
		}
		command(t, "ip", "link", "del", tunnel4)
		if note, err = m.undo(step); err != nil || note != "" {
			t.Errorf("it is gone: %q, %v", note, err)
		}
	})
}
