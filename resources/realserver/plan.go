// Package realserver makes this machine a real server of forward method gate
// or ipip: it takes the virtual address without answering for it on the wire,
// and gives back exactly what it has changed.
//
// What a virtual address needs is a list of steps (Steps), a pure function.
// What was found before each step stands in a Store on disk before the step is
// made, so that stop, or start after a crash, knows what to put back.
package realserver

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/keepbeat/keepbeat/conf"
)

// Kind is what a step changes.
type Kind uint8

// Kinds, in the order in which they are made: an address comes last, when
// nobody answers for it any more. The zero value is invalid.
const (
	_       Kind = iota
	Module       // a kernel module is loaded
	Link         // an interface is set up
	Sysctl       // a value below /proc/sys
	Address      // an address is added
)

// Step is one change of the machine. It is comparable.
type Step struct {
	Kind Kind
	Name string // module, interface, or sysctl with dots: net.ipv4.conf.all.arp_ignore
	// Value is what a sysctl gets; of an address the interface that gets it, and
	// Name is the prefix, 192.168.56.200/32.
	Value string
}

// String is the step as an administrator would type it.
func (s Step) String() string {
	switch s.Kind {
	case Module:
		return "modprobe " + s.Name
	case Link:
		return "ip link set " + s.Name + " up"
	case Sysctl:
		return "sysctl -w " + s.Name + "=" + s.Value
	case Address:
		return "ip address add " + s.Name + " dev " + s.Value
	}
	return "invalid step"
}

const (
	arpIgnore   = "net.ipv4.conf.all.arp_ignore"
	arpAnnounce = "net.ipv4.conf.all.arp_announce"
	tunnel4     = "tunl0"   // of module ipip, made with it
	tunnel6     = "ip6tnl0" // of module ip6_tunnel
	filterAll   = "net.ipv4.conf.all.rp_filter"
	filter4     = "net.ipv4.conf." + tunnel4 + ".rp_filter"
)

// Check refuses what cannot be a virtual address of a real server, and a forward
// method that needs nothing of one.
func Check(a conf.RealServer) error {
	switch {
	case !a.Address.IsValid() || a.Address.IsUnspecified() || a.Address.IsLoopback() || a.Address.IsMulticast() || a.Address.IsLinkLocalUnicast():
		return fmt.Errorf("%v cannot be the virtual address of a real server", a.Address)
	case a.Forward == conf.Masq:
		return fmt.Errorf("virtual address %v: a real server of forward method masq needs nothing of this kind: its default route leads through the director", a.Address)
	case a.Forward != conf.Gate && a.Forward != conf.IPIP:
		return fmt.Errorf("virtual address %v: forward method %v is not gate or ipip", a.Address, a.Forward)
	}
	return nil
}

// Steps returns what a machine needs for a virtual address.
//
// IPv4: the machine must not answer ARP for the address (arp_ignore 1: only for
// addresses of the interface that was asked) nor use it as the sender of its own
// ARP (arp_announce 2), Documentation/networking/ip-sysctl. The kernel takes the
// larger of the value for all interfaces and the interface's own, so setting
// the former covers every interface, new ones too.
//
// IPv6 needs neither: a neighbour solicitation is answered only for addresses
// of the interface on which it came.
//
// ipip: what comes out of the tunnel has the client's address, whose route leads
// elsewhere: the reverse path filter of the tunnel has to be loose (2), which
// beats a strict one for all since the larger counts.
func Steps(a conf.RealServer) []Step {
	prefix := netip.PrefixFrom(a.Address, a.Address.BitLen()).String()
	var steps []Step
	device := "lo"
	if a.Forward == conf.IPIP {
		if a.Address.Is4() {
			device = tunnel4
			steps = append(steps, Step{Module, "ipip", ""}, Step{Link, tunnel4, ""}, Step{Sysctl, filter4, "2"})
		} else {
			device = tunnel6
			steps = append(steps, Step{Module, "ip6_tunnel", ""}, Step{Link, tunnel6, ""})
		}
	}
	if a.Address.Is4() {
		steps = append(steps, Step{Sysctl, arpIgnore, "1"}, Step{Sysctl, arpAnnounce, "2"})
	}
	return append(steps, Step{Address, prefix, device})
}

// All are the steps of several addresses, each once, in the order in which they are made.
func All(addresses []conf.RealServer) []Step {
	var all []Step
	for _, a := range addresses {
		for _, s := range Steps(a) {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Step) int { return int(a.Kind) - int(b.Kind) })
	return all
}

// enough tells whether a sysctl already does what its step is for. other is the
// value for all interfaces, of an interface's sysctl.
func enough(s Step, value, other string) bool {
	n, err := strconv.Atoi(value)
	if err != nil {
		return value == s.Value
	}
	switch s.Name {
	case arpIgnore: // 3 spares scope host, which our addresses have; 8 answers for nothing
		return n == 1 || n == 2 || n == 3 || n == 8
	case arpAnnounce:
		return n == 2
	case filter4: // strict is 1, and the larger of the two counts
		all, _ := strconv.Atoi(other)
		return max(n, all) != 1
	}
	return value == s.Value
}
