package vip

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// View is what the kernel has told of this machine's interfaces, addresses and
// connected routes. It holds during the call of Look that gives it.
type View struct {
	m      *Maker
	links  []rtnl.Link
	routes []rtnl.Connected
}

// Port is an Ethernet interface that works: it is up and has a carrier.
type Port struct {
	Index int
	Name  string
	MAC   [6]byte
}

// Look calls f with what is so now. f must not wait, and calls nothing of m. The
// error is that of the kernel's subscriptions.
func (m *Maker) Look(f func(View)) error {
	if err := m.view(); err != nil {
		return err
	}
	defer m.mu.Unlock()
	routes, err := m.connected()
	if err != nil {
		return err
	}
	f(View{m, slices.Collect(maps.Values(m.links)), routes})
	return nil
}

// Where returns the interface on which a vip with this address would be started:
// the named one, or without a name that of the longest connected route. It is an
// error when there is none, or neighbours cannot be asked on it.
func (v View) Where(a netip.Addr, dev string) (Port, error) {
	spec := conf.VIP{Address: a, Prefix: a.BitLen(), Interface: dev}
	if err := check(&spec); err != nil {
		return Port{}, err
	}
	rec, err := resolve(&spec, v.links, v.routes)
	if err != nil {
		return Port{}, err
	}
	l, _ := v.m.linkByName(rec.Interface)
	if f := l.Fault(); f != "" {
		return Port{}, fmt.Errorf("%s: %s: %s", title(&spec), l.Name, f)
	}
	if !l.Announces() {
		return Port{}, fmt.Errorf("%s: %s is no Ethernet interface: its neighbours cannot be asked", title(&spec), l.Name)
	}
	return Port{l.Index, l.Name, [6]byte([]byte(l.MAC))}, nil
}

// Has says whether an interface of this machine has the address.
func (v View) Has(a netip.Addr) bool { return len(v.m.addrs[a.WithZone("")]) > 0 }

// Own says whether an interface of this machine has the link-layer address.
func (v View) Own(mac [6]byte) bool {
	return slices.ContainsFunc(v.links, func(l rtnl.Link) bool { return !l.Loopback() && l.MAC == string(mac[:]) })
}
