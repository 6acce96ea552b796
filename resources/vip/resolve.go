package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

const maxName = unix.IFNAMSIZ - 1 // characters of an interface name and of a label

// check refuses what cannot work on any node.
func check(v *conf.VIP) error {
	switch a := v.Address; {
	case !a.IsValid():
		return fmt.Errorf("vip: no address")
	case a.Zone() != "":
		return fmt.Errorf("vip %s: the interface goes into the third part: %s/64/%s", a, a.WithZone(""), a.Zone())
	case a.Is4In6():
		return fmt.Errorf("vip %s: write it as the IPv4 address %s", a, a.Unmap())
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("vip %s: not the address of one machine", a)
	case v.Prefix < -1 || v.Prefix == 0 || v.Prefix > a.BitLen():
		return fmt.Errorf("vip %s/%d: prefix out of range 1 to %d", a, v.Prefix, a.BitLen())
	case v.Broadcast.IsValid() && !a.Is4():
		return fmt.Errorf("%s: IPv6 has no broadcast address", title(v))
	case v.Broadcast.IsValid() && !v.Broadcast.Is4():
		return fmt.Errorf("%s: broadcast %s is not an IPv4 address", title(v), v.Broadcast)
	case v.Label != "" && !a.Is4():
		return fmt.Errorf("%s: only IPv4 addresses have labels; leave out %q", title(v), v.Label)
	case v.Interface != "" && !validName(v.Interface):
		return fmt.Errorf("%s: %q cannot be the name of an interface", title(v), v.Interface)
	case a.Is6() && a.IsLinkLocalUnicast() && v.Interface == "":
		return fmt.Errorf("%s: a link-local address needs its interface: %s/64/eth0", title(v), a)
	case v.LVSSupport && v.Interface == "lo":
		return fmt.Errorf("%s: lvs_support takes the address from lo, it cannot be meant to stand there", title(v))
	case v.ARPCount < 0 || v.ARPInterval < 0 || v.ARPCount > 0 && v.ARPInterval == 0:
		return fmt.Errorf("%s: arp_count %d every %v; give a count of 0 and more and an interval", title(v), v.ARPCount, v.ARPInterval)
	}
	return nil
}

func validName(s string) bool {
	return s != "" && len(s) <= maxName && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f })
}

// title is how errors and logs call the address.
func title(v *conf.VIP) string {
	if v.Prefix < 0 {
		return "vip " + v.Address.String()
	}
	return fmt.Sprintf("vip %s/%d", v.Address, v.Prefix)
}

// resolve finds the interface and the prefix of an address, as IPaddr2's findif
// does but without guessing:
//
//   - no interface: the one with the longest connected route that contains the
//     address; two interfaces with routes of that length are an error, whatever
//     the metrics, since a metric does not tell on which wire the clients are;
//   - no prefix: that of the longest connected route on the interface. With none
//     there it is an error (findif: "Unable to find nic or netmask") that tells
//     what to write, not a silent /32.
//
// The default route is not a connected one, and lo (where the kernel makes
// routes for IPv6 addresses of a real server) is taken only when written.
func resolve(v *conf.VIP, links []rtnl.Link, routes []rtnl.Connected) (record, error) {
	fail := func(format string, args ...any) (record, error) {
		return record{}, fmt.Errorf("%s: %w", title(v), fmt.Errorf(format, args...))
	}
	var dev rtnl.Link
	if v.Interface != "" {
		i := slices.IndexFunc(links, func(l rtnl.Link) bool { return l.HasName(v.Interface) })
		if i < 0 {
			return fail("%s: no such interface; this node has %s", v.Interface, names(links))
		}
		dev = links[i]
	}
	bits := v.Prefix
	if dev.Index == 0 || bits < 0 {
		best, bestBits := []rtnl.Link(nil), 0
		for _, r := range routes {
			i := slices.IndexFunc(links, func(l rtnl.Link) bool { return l.Index == r.Index })
			if i < 0 || dev.Index == 0 && links[i].Loopback() || dev.Index != 0 && r.Index != dev.Index || !r.Network.Contains(v.Address) || r.Network.Bits() < bestBits {
				continue
			}
			if r.Network.Bits() > bestBits {
				best, bestBits = nil, r.Network.Bits()
			}
			if !slices.ContainsFunc(best, func(l rtnl.Link) bool { return l.Index == r.Index }) {
				best = append(best, links[i])
			}
		}
		switch {
		case len(best) == 0 && dev.Index != 0:
			return fail("no connected route on %s contains it, so its prefix is not known; write %s/%d/%s, or the network's prefix instead of %[3]d",
				dev.Name, v.Address, v.Address.BitLen(), dev.Name)
		case len(best) == 0:
			return fail("no interface has a connected route that contains it; write the interface: %s/%d/INTERFACE; this node has %s",
				v.Address, pick(v.Prefix, v.Address.BitLen()), names(links))
		case len(best) > 1:
			choices := make([]string, 0, len(best))
			for _, l := range best {
				choices = append(choices, fmt.Sprintf("%s/%d/%s", v.Address, pick(bits, bestBits), l.Name))
			}
			slices.Sort(choices)
			return fail("more than one interface has a connected route that contains it; write one of %s", strings.Join(choices, ", "))
		}
		dev, bits = best[0], pick(bits, bestBits)
	}
	rec := record{Version: recordVersion, Address: netip.PrefixFrom(v.Address, bits), Interface: dev.Name, Broadcast: v.Broadcast}
	if v.Address.Is4() && !rec.Broadcast.IsValid() {
		rec.Broadcast = lastAddress(rec.Address)
	}
	if v.Label != "" {
		// heritage of haresources: eth0:0 is written as INTERFACE:LABEL.
		rec.Label = dev.Name + ":" + strings.TrimPrefix(v.Label, dev.Name+":")
		if len(rec.Label) > maxName {
			return fail("label %q has %d characters, the kernel takes %d with the interface's name", rec.Label, len(rec.Label), maxName)
		}
	}
	return rec, nil
}

// pick is the prefix that was written, or the one found.
func pick(written, found int) int {
	if written >= 0 {
		return written
	}
	return found
}

// lastAddress is the usual broadcast address; invalid where there is none (RFC 3021: /31; /32).
func lastAddress(p netip.Prefix) netip.Addr {
	if p.Bits() > 30 {
		return netip.Addr{}
	}
	b := p.Addr().As4()
	for i := range b {
		host := max(0, min(8, (i+1)*8-p.Bits()))
		b[i] |= byte(1<<host - 1)
	}
	return netip.AddrFrom4(b)
}

// names lists the interfaces for errors.
func names(links []rtnl.Link) string {
	var s []string
	for _, l := range links {
		if !l.Loopback() {
			s = append(s, l.Name)
		}
	}
	if len(s) == 0 {
		return "none but lo"
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}
