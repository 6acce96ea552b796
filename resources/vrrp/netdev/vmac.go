package netdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// alias is noted of macvlans that we have made: one that a run without a journal
// has left is taken over.
const alias = "keepbeat-vrrp"

// errNoInterface is said of an interface that may come.
var errNoInterface = errors.New("no such interface")

// vmac is a macvlan with the link-layer address of a virtual router (RFC 9568, 7.3).
// Guarded by Host.mu.
type vmac struct {
	instance string
	name     string
	parent   string
	mac      string // raw bytes
	ipv6     bool   // it carries IPv6 addresses
	ipv4     bool   // and IPv4 ones
	made     int    // index of the interface that we have made; 0: it is not there, or somebody else's
	ready    bool   // what we have made has its settings, and is up
}

// base is an interface with settings changed for the macvlans on it.
type base struct {
	refs    int
	changed []recordedSysctl
}

// virtualMAC is the link-layer address of a virtual router.
func virtualMAC(i *conf.VRRPInstance) string {
	family := byte(1)
	if i.IPv6 {
		family = 2
	}
	return string([]byte{0, 0, 0x5e, 0, family, i.VRID})
}

// openVMAC makes the macvlan of an instance; its parent may come later. The caller holds mu.
func (h *Host) openVMAC(i *conf.VRRPInstance) (*vmac, error) {
	if other := h.vmacs[i.VMAC]; other != nil {
		return nil, fmt.Errorf("%s is the virtual interface of %s already; give it another name", i.VMAC, other.instance)
	}
	v := &vmac{instance: i.Name, name: i.VMAC, parent: i.Interface, mac: virtualMAC(i), ipv4: !i.IPv6, ipv6: i.IPv6}
	for a := range addressesOf(i) {
		if device(i, a) == v.name {
			v.ipv6 = v.ipv6 || a.Address.Addr().Is6()
			v.ipv4 = v.ipv4 || a.Address.Addr().Is4()
		}
	}
	h.vmacs[v.name] = v
	if v.ipv4 {
		if h.bases[v.parent] == nil {
			h.bases[v.parent] = &base{}
		}
		h.bases[v.parent].refs++
	}
	if err := h.ensureVMAC(v); err != nil && !errors.Is(err, errNoInterface) {
		h.closeVMAC(v)
		return nil, err
	}
	return v, nil
}

// ensureVMAC makes the macvlan if it is not there. The caller holds mu.
func (h *Host) ensureVMAC(v *vmac) error {
	parent, ok := h.seen.link(v.parent)
	if !ok {
		return fmt.Errorf("%s: %w", v.parent, errNoInterface)
	}
	l, ok := h.seen.link(v.name)
	switch {
	case ok && (l.Kind != "macvlan" || l.MAC != v.mac):
		return fmt.Errorf("%s is an interface of another kind or with another link-layer address; give the virtual one another name, or remove it (ip link del %[1]s)", v.name)
	case ok && l.Index == v.made && v.ready, ok && l.Index != v.made && l.Alias != alias:
		return nil
	case ok:
		v.made = l.Index
	case !ok:
		if err := h.makeVMAC(v, parent.Index); err != nil {
			return err
		}
	}
	if err := h.settle(v); err != nil {
		return err
	}
	if err := h.k.Do(rtnl.SetUp(v.made, alias)); err != nil {
		return fmt.Errorf("%s: %w", v.name, err)
	}
	v.ready = true
	return h.drain()
}

// makeVMAC makes the interface, down. The caller holds mu.
func (h *Host) makeVMAC(v *vmac, parent int) error {
	v.made, v.ready = 0, false
	if err := h.journal.update(v.instance, func(r *record) { r.VMAC = &recordedVMAC{v.name, []byte(v.mac)} }); err != nil {
		return err
	}
	if err := h.k.Do(rtnl.AddMacvlan(v.name, parent, v.mac)); err != nil {
		hint := ""
		if errors.Is(err, unix.EOPNOTSUPP) {
			hint = "; this kernel has no macvlan"
		}
		return fmt.Errorf("%s on %s: %w%s", v.name, v.parent, err, hint)
	}
	if err := h.drain(); err != nil {
		// Its index is not known, and without it nobody would take it for ours.
		if e := h.k.Do(rtnl.RemoveNamed(v.name)); e != nil {
			err = errors.Join(err, fmt.Errorf("removing %s: %w", v.name, e))
		}
		return err
	}
	l, ok := h.seen.link(v.name)
	if !ok {
		return fmt.Errorf("%s was made and is gone", v.name)
	}
	v.made = l.Index
	return nil
}

// settle writes the settings without which a macvlan does not answer for its
// addresses, or its parent does it too.
func (h *Host) settle(v *vmac) error {
	set := func(name, value string) error {
		if _, err := h.k.SetSysctl(name, value); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		return nil
	}
	conf4 := "net/ipv4/conf/" + v.name
	err := errors.Join(
		// It answers for its own addresses only, and so does its parent below.
		set(conf4+"/arp_ignore", "1"),
		// What is asked on it comes from networks that the parent has the route
		// to. 2 (any interface will do) and not 0: the larger one of this and
		// conf/all counts, and conf/all is not ours.
		set(conf4+"/rp_filter", "2"),
		// Advertisements and connections of the machine itself come back by the wire.
		set(conf4+"/accept_local", "1"),
		// Addresses of one network are released in any order.
		set(conf4+"/promote_secondaries", "1"))
	if err != nil {
		return err
	}
	// IPv6 may be switched off on the whole machine: then these do not exist.
	conf6 := "net/ipv6/conf/" + v.name
	if _, err := h.k.Sysctl(conf6 + "/disable_ipv6"); err == nil {
		off := "1"
		if v.ipv6 {
			off = "0"
		}
		// It has the addresses that it is given and no others; a router that
		// asks for routers, or joins groups for an address of its own, tells
		// switches where the virtual address is while another is the master.
		err = errors.Join(set(conf6+"/addr_gen_mode", "1"), set(conf6+"/accept_ra", "0"), set(conf6+"/autoconf", "0"),
			set(conf6+"/accept_dad", "0"), set(conf6+"/disable_ipv6", off))
		if err != nil {
			return err
		}
	}
	if !v.ipv4 {
		return nil
	}
	return h.settleBase(v)
}

// settleBase writes the settings of the interface below, unless they are as strict already.
func (h *Host) settleBase(v *vmac) error {
	b := h.bases[v.parent]
	var changed []recordedSysctl
	for _, want := range baseSysctls(v.parent) {
		now, err := h.k.Sysctl(want.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", v.parent, err)
		}
		if now < want.Set { // one digit each
			changed = append(changed, recordedSysctl{want.Name, now, want.Set})
		}
	}
	for _, s := range changed { // what somebody has set since is what comes back
		b.changed = slices.DeleteFunc(b.changed, func(o recordedSysctl) bool { return o.Name == s.Name })
	}
	b.changed = append(b.changed, changed...)
	if err := h.journal.update(v.instance, func(r *record) { r.Sysctls = b.changed }); err != nil {
		return err
	}
	for _, s := range changed {
		if _, err := h.k.SetSysctl(s.Name, s.Set); err != nil {
			return fmt.Errorf("%s: %w", v.parent, err)
		}
	}
	return nil
}

// closeVMAC removes the macvlan if it is ours. The caller holds mu.
func (h *Host) closeVMAC(v *vmac) {
	delete(h.vmacs, v.name)
	if l, ok := h.seen.link(v.name); ok && l.Index == v.made {
		if err := h.k.Do(rtnl.RemoveLink(v.made)); err != nil && !errors.Is(err, unix.ENODEV) {
			h.log.Error("a virtual interface could not be removed", "interface", v.name, "err", err)
		}
	}
	if v.ipv4 {
		b := h.bases[v.parent]
		if b.refs--; b.refs == 0 {
			delete(h.bases, v.parent)
			for _, s := range b.changed {
				h.restore(s)
			}
		}
	}
	if err := h.journal.update(v.instance, func(r *record) { r.VMAC, r.Sysctls = nil, nil }); err != nil {
		h.log.Warn("the journal keeps an interface that is gone", "interface", v.name, "err", err)
	}
}

// restore puts a setting back unless somebody else has changed it since.
func (h *Host) restore(s recordedSysctl) {
	now, err := h.k.Sysctl(s.Name)
	if err != nil || now != s.Set {
		return // gone with its interface, or another's
	}
	if _, err := h.k.SetSysctl(s.Name, s.Before); err != nil {
		h.log.Warn("a setting could not be put back", "name", s.Name, "value", s.Before, "err", err)
	}
}

// baseSysctls are the settings of an interface with macvlans on it.
func baseSysctls(dev string) []recordedSysctl {
	dir := "net/ipv4/conf/" + dev
	return []recordedSysctl{
		// It does not answer for the addresses above it, with its own link-layer address.
		{Name: dir + "/arp_ignore", Set: "1"},
		// Nor does it name them when it asks: who is asked would learn from it.
		{Name: dir + "/arp_announce", Set: "2"},
	}
}

// known says whether s is one of those settings: a journal can ask for no others.
func (s recordedSysctl) known() bool {
	parts := strings.Split(s.Name, "/")
	return len(parts) == 5 && parts[3] != "" && parts[3] != "." && parts[3] != ".." &&
		slices.ContainsFunc(baseSysctls(parts[3]), func(o recordedSysctl) bool { return o.Name == s.Name && o.Set == s.Set })
}
