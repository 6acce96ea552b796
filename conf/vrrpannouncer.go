package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// DefaultAnnouncerPriority is the highest of a backup. Raft has decided who has
// the addresses when an announcer speaks, so no router that merely stands by
// should outbid it: keepalived's default of 100 would tie with every such one.
// 255 is for addresses that are an interface's own (RFC 9568, 6.1), and two that
// claim it never yield.
const DefaultAnnouncerPriority = 254

// announcerFields are the keys of a resource of kind vrrp.
func announcerFields(r *reader, raw *rawInstance, conflict *opt[Conflict], foreign *opt[string]) []field {
	fields := raw.wire(r)
	for i := range fields {
		f := &fields[i]
		switch f.name {
		case "interface":
			f.doc = "Network interface on which it speaks, the same on every director. Default: the interface of the group's first vip that names one."
		case "priority":
			f.doc = "What the owner announces, 1 to 255. Default 254: more than any router that merely stands by, and not 255, which is for an interface's own addresses."
		case "version":
			f.doc = "Of the protocol: 2 (RFC 3768, IPv4) or 3 (RFC 9568). Default 2, of IPv6 3."
		case "virtual_ipaddress":
			f.doc = "Which of the vips that stand before it in the group are announced, addresses of one family; one or a list. Default: all of the family of the first one."
		case "mcast_dst_ip":
			f.doc = "Multicast group. Default 224.0.0.18, of IPv6 ff02::12."
		}
	}
	return append(fields, field{"on_conflict", "What the owner does about a foreign master of higher priority; each time it is reported. yield: it is silent, and the group has failed here. keep: it goes on, and there are two masters. fence: as keep, and foreign is fenced. Default yield.",
		into(conflict, oneOf(r, []string{"yield", "keep", "fence"}, ConflictYield, ConflictKeep, ConflictFence))},
		field{"foreign", "on_conflict: fence: name of the foreign router among the targets of the devices of fencing; no node of the cluster.", into(foreign, r.nodeName)})
}

// announcerElsewhere are words of a vrrp_instance that an announcer of a cluster has no use for.
func announcerElsewhere() map[string]string {
	m := map[string]string{}
	p := &vrrpReader{reader: &reader{}}
	for _, f := range new(rawInstance).fields(p) {
		m[f.name] = fmt.Sprintf("%q has no use in a group: raft decides who is the owner, and vrrp tells it only; take it out, or write a router into %s", f.name, VRRPName)
	}
	return m
}

// announcer reads the argument of kind vrrp. The vips before it in the group are what it announces.
func (s *specReader) announcer(g *Group, key, value *yaml.Node) (*Announcer, bool) {
	raw := &rawInstance{name: g.Name, what: "group " + quote(g.Name) + ": vrrp", at: key, otherFamily: "announce it by a vrrp of its own"}
	var conflict opt[Conflict]
	var foreign opt[string]
	before := len(s.errs)
	if !s.mapping(value, "vrrp", announcerFields(s.reader, raw, &conflict, &foreign), announcerElsewhere()) {
		return nil, false
	}
	vips := g.vips()
	if len(vips) == 0 {
		s.errorf(key, "group %s: no vip stands before vrrp, so there is nothing to announce; put \"- vip: ...\" above it", quote(g.Name))
		return nil, false
	}
	s.announced(g, raw, vips)
	s.foreignMaster(conflict, foreign)
	if len(s.errs) > before {
		return nil, false
	}
	// The rest is what an instance of vrrp.yaml is.
	p := &vrrpReader{reader: s.reader}
	x := VRRPInstance{Name: g.Name, Master: true, Preempt: true, Accept: true, LowerAdvert: true, DownAdverts: DefaultVRRPAdverts}
	if raw.priority.at == nil {
		raw.priority = opt[int]{v: DefaultAnnouncerPriority, ok: true, at: key}
	}
	p.wire(raw, &x)
	x.Excluded = nil // what does not fit is announced by nobody; a warning has named it
	x.GARP = raw.garp.over(&rawGARP{})
	if x.Interface = raw.iface.or(""); x.Interface == "" {
		for _, v := range vips {
			if v.Interface != "" && x.Interface == "" {
				x.Interface = v.Interface
			}
		}
	}
	if x.Interface == "" {
		s.errorf(key, "group %s: vrrp has no interface, and none of the vips before it names one; write \"interface: eth0\"", quote(g.Name))
	}
	if len(s.errs) > before {
		return nil, false
	}
	if other, twice := s.vridAt[x.Key()]; twice {
		s.errorf(raw.vrid.at, "duplicate %s; group %s has it in line %d, and one node may own both groups", x.Key(), quote(other.v), other.at.Line)
		return nil, false
	}
	s.vridAt[x.Key()] = placed[string]{g.Name, raw.vrid.at}
	for _, r := range g.Resources {
		for _, a := range x.Addresses {
			if r.VRRP != nil && slices.Contains(r.VRRP.Instance.Addresses, a) {
				s.errorf(key, "group %s: %s is announced by %s already; name the others under virtual_ipaddress", quote(g.Name), a.Address.Addr(), r.VRRP.Instance.Key())
				return nil, false
			}
		}
	}
	return &Announcer{Instance: x, OnConflict: conflict.or(ConflictYield), Foreign: foreign.or("")}, true
}

// foreignMaster takes the name of who is fenced over.
func (s *specReader) foreignMaster(conflict opt[Conflict], foreign opt[string]) {
	fences := conflict.ok && conflict.v == ConflictFence
	switch {
	case fences && foreign.at == nil:
		s.errorf(conflict.at, "on_conflict fence needs \"foreign\", the name of the foreign router among the targets of a device of fencing")
	case !fences && foreign.at != nil && (conflict.ok || conflict.at == nil):
		s.errorf(foreign.at, "foreign is for \"on_conflict: fence\"; add that, or take it out")
	case foreign.ok:
		s.foreign[foreign.v] = foreign.at
	}
}

// fenceable says whether devices may be for that name: a director, or a router that an announcer has fenced.
func (s *specReader) fenceable(n *yaml.Node, name string) bool {
	return s.foreign[name] != nil || s.isDirector(n, name)
}

// checkForeign wants a device for each foreign router that is to be fenced.
func (s *specReader) checkForeign() {
	for name, at := range s.foreign {
		for _, device := range slices.Concat(s.spec.Fencing.Levels(name)...) {
			if d := s.spec.Fencing.Device(device); d != nil && d.Type == FenceWatchdog {
				s.errorf(at, "device %s waits for a watchdog that keepbeat stops feeding, and %s runs no keepbeat; name a device that switches it off, or cuts it off", quote(device), quote(name))
			}
		}
		if len(s.spec.Fencing.Levels(name)) == 0 && !s.fence.faulty {
			s.errorf(at, "no device of fencing has %s among its targets; add one: fencing: {devices: {NAME: {..., targets: [%s]}}}", quote(name), name)
		}
	}
}

// vips are the virtual addresses that the group has so far.
func (g *Group) vips() []*VIP {
	var vips []*VIP
	for _, r := range g.Resources {
		if r.VIP != nil {
			vips = append(vips, r.VIP)
		}
	}
	return vips
}

// announced fills in what is announced from the vips, or holds what is written against them.
func (s *specReader) announced(g *Group, raw *rawInstance, vips []*VIP) {
	have := map[netip.Addr]bool{}
	var names []string
	for _, v := range vips {
		have[v.Address] = true
		names = append(names, v.Address.String())
		if raw.addressesAt == nil && v.Address.Is6() == vips[0].Address.Is6() {
			raw.addresses = append(raw.addresses, placed[VRRPAddress]{VRRPAddress{Address: netip.PrefixFrom(v.Address, v.Address.BitLen())}, raw.at})
		}
	}
	if raw.addressesAt == nil {
		raw.addressesAt = raw.at
		return
	}
	seen := map[netip.Addr]bool{}
	for i, a := range raw.addresses {
		ip := a.v.Address.Addr()
		switch {
		case !have[ip]:
			s.errorf(a.at, "virtual_ipaddress %s is no vip that stands before vrrp in group %s (%s); only what the owner has is announced", ip, quote(g.Name), someOf(names, 20))
		case seen[ip]:
			s.errorf(a.at, "duplicate virtual_ipaddress %s", ip)
		}
		seen[ip] = true
		raw.addresses[i].v = VRRPAddress{Address: netip.PrefixFrom(ip, ip.BitLen())}
	}
}

// announcerName is the default of the resource's name: what it has for itself on its node.
func (a *Announcer) name() string {
	words := []string{string(KindVRRP), a.Instance.Interface, utoa(uint16(a.Instance.VRID))}
	if a.Instance.IPv6 {
		words = append(words, "inet6")
	}
	return strings.Join(words, " ")
}

// unannounced warns of vips that stand after the announcer, which does not tell of them.
func (s *specReader) unannounced(g *Group, key *yaml.Node) {
	i := slices.IndexFunc(g.Resources, func(r Resource) bool { return r.VRRP != nil })
	if i < 0 {
		return
	}
	for _, r := range g.Resources[i+1:] {
		if r.VIP != nil && !slices.ContainsFunc(g.Resources, func(x Resource) bool {
			return x.VRRP != nil && slices.ContainsFunc(x.VRRP.Instance.Addresses, func(a VRRPAddress) bool { return a.Address.Addr() == r.VIP.Address })
		}) {
			s.warnf(key, "group %s: vip %s stands after vrrp and is not announced; put it above, if it should be", quote(g.Name), r.VIP.Address)
		}
	}
}
