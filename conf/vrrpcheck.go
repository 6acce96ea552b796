package conf

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"gopkg.in/yaml.v3"
)

// together checks what is right by itself against the rest of the file.
func (p *vrrpReader) together() {
	vrids := map[string]*rawInstance{}
	vmacs := map[string]string{}
	many := 0
	for _, raw := range p.instances {
		many += len(raw.addresses) + len(raw.excluded)
	}
	addresses := make(map[addressKey]placed[string], many)
	p.v.Places.Addresses = make(map[netip.Addr]LineColumn, many)
	used := map[string]bool{}
	interfaces := p.interfaces()
	for i := range p.v.Instances {
		raw := p.instances[p.v.Instances[i].Name]
		x := &p.v.Instances[i]
		if raw.vrid.ok && x.Interface != "" && len(x.Addresses) > 0 {
			// Unicast and multicast are told apart by where a packet is sent to.
			key := x.Key() + " " + x.Group.String()
			if len(x.Peers) > 0 {
				key = x.Key() + " unicast"
			}
			if other := vrids[key]; other != nil {
				p.errorf(raw.vrid.at, "duplicate %s: vrrp_instance %s in line %d has it already; a virtual router needs a VRID of its own", x.Key(), quote(other.name), other.vrid.at.Line)
			} else {
				vrids[key] = raw
				p.place(x.Key(), raw.vrid.at)
			}
		}
		if x.VMAC != "" && !p.broken[x.Name] {
			if interfaces[x.VMAC] {
				p.errorf(raw.vmac.at, "use_vmac: %s is an interface that this file uses otherwise; a VMAC is one that keepbeat makes: write a name that is free, or yes", x.VMAC)
			}
			if other, ok := vmacs[x.VMAC]; ok {
				p.errorf(raw.vmac.at, "use_vmac: %s is the name of the VMAC of vrrp_instance %s already; write another name, \"use_vmac: NAME\"", x.VMAC, quote(other))
			}
			vmacs[x.VMAC] = x.Name
		}
		p.ownAddresses(raw, x, addresses)
		for key, tracks := range map[string][]VRRPTrack{"track_script": x.TrackScripts, "track_process": x.TrackProcesses, "track_file": x.TrackFiles} {
			for _, t := range tracks {
				used[key+" "+t.Name] = true
			}
		}
	}
	for _, g := range p.v.SyncGroups {
		for key, tracks := range map[string][]VRRPTrack{"track_script": g.TrackScripts, "track_process": g.TrackProcesses, "track_file": g.TrackFiles} {
			for _, t := range tracks {
				used[key+" "+t.Name] = true
			}
		}
	}
	if len(p.errs) > 0 {
		return
	}
	for _, s := range p.v.Scripts {
		p.unused(used, "track_script", s.Name)
	}
	for _, s := range p.v.Processes {
		p.unused(used, "track_process", s.Name)
	}
	for _, s := range p.v.Files {
		p.unused(used, "track_file", s.Name)
	}
}

// interfaces are those that have to be there without this file.
func (p *vrrpReader) interfaces() map[string]bool {
	all := map[string]bool{}
	tracked := func(tracks []VRRPTrack) {
		for _, t := range tracks {
			all[t.Name] = true
		}
	}
	for i := range p.v.Instances {
		all[p.v.Instances[i].Interface] = true
		tracked(p.v.Instances[i].TrackInterfaces)
	}
	for _, g := range p.v.SyncGroups {
		tracked(g.TrackInterfaces)
	}
	return all
}

func (p *vrrpReader) unused(used map[string]bool, key, name string) {
	if !used[key+" "+name] {
		p.warnf(p.tracked[key][name].at, "%s %s is tracked by no instance and no sync group; add \"%s: [%s]\" to one", sections[key], quote(name), key, name)
	}
}

// ownAddresses claims the addresses of an instance: one that two have would be
// taken from one by the other.
func (p *vrrpReader) ownAddresses(raw *rawInstance, x *VRRPInstance, taken map[addressKey]placed[string]) {
	for _, all := range [][]placed[VRRPAddress]{raw.addresses, raw.excluded} {
		for _, a := range all {
			ip := a.v.Address.Addr()
			key := addressKey{ip: ip}
			if ip.IsLinkLocalUnicast() { // the same one may stand on each interface
				key.dev = cmp.Or(a.v.Interface, x.Interface)
			}
			if first, ok := taken[key]; ok {
				p.errorf(a.at, "duplicate address %s; vrrp_instance %s has it in line %d", ip, quote(first.v), first.at.Line)
				continue
			}
			taken[key] = placed[string]{raw.name, a.at}
			p.v.Places.Addresses[plain(ip)] = LineColumn{int32(a.at.Line), int32(a.at.Column)}
		}
	}
}

// addressKey is what an address is told by; dev is empty unless it is link-local.
type addressKey struct {
	ip  netip.Addr
	dev string
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// CheckWorlds refuses what stands in both worlds: an address, a VRID or a
// virtual service of vrrp.yaml that is the cluster's, too. VRRP alone decides
// about the one and the cluster about the other, so that two machines would have
// it. The error is of type Errors and names both places.
func CheckWorlds(v *VRRP, spec *Spec) error {
	if v == nil || spec == nil {
		return nil
	}
	type vrid struct {
		id   uint8
		ipv6 bool
	}
	vips, vrids := map[netip.Addr]string{}, map[vrid]string{} // of the node, on whatever interface: so the guard holds them
	services := map[string]string{}
	for _, g := range spec.Groups {
		for _, r := range g.Resources {
			where := fmt.Sprintf("group %s, resource %s of %s", quote(g.Name), quote(r.Name), HaresourcesName)
			switch {
			case r.VIP != nil:
				vips[plain(r.VIP.Address)] = where
			case r.VRRP != nil:
				vrids[vrid{r.VRRP.Instance.VRID, r.VRRP.Instance.IPv6}] = where
			}
		}
	}
	for name, pool := range spec.Pools {
		for _, s := range pool.Virtuals {
			services[s.String()] = "pool " + name + " of " + HaresourcesName
		}
	}
	var errs []*Error
	say := func(at LineColumn, format string, args ...any) {
		errs = append(errs, &Error{File: cmp.Or(v.Places.File, VRRPName), Line: int(at.Line), Column: int(at.Column), Msg: fmt.Sprintf(format, args...)})
	}
	for i := range v.Instances {
		x := &v.Instances[i]
		for _, a := range slices.Concat(x.Addresses, x.Excluded) {
			ip := plain(a.Address.Addr())
			if where, both := vips[ip]; both {
				say(v.Places.Addresses[ip], "address %s of vrrp_instance %s is the cluster's, too: %s; an address belongs to one of the two: take it out here or there", ip, quote(x.Name), where)
			}
		}
		if where, both := vrids[vrid{x.VRID, x.IPv6}]; both {
			say(v.Places.Others[x.Key()], "%s of vrrp_instance %s is the cluster's, too: %s; the guard silences it on every interface of a node without a lease: write another virtual_router_id here or there", x.Key(), quote(x.Name), where)
		}
	}
	for _, pool := range v.Pools {
		for _, s := range pool.Pool.Virtuals {
			if where, both := services[s.String()]; both {
				say(v.Places.Others["pool "+pool.File], "virtual %s of pool %s is the cluster's, too: %s; a virtual service belongs to one of the two: take it out here or there", s, pool.File, where)
			}
		}
	}
	return asError(errs, oneFile)
}

type rawPool struct {
	file, instance opt[string]
}

func (raw *rawPool) fields(r *reader) []field {
	return []field{
		{"ldirectord", "Plain name of the pool's file beside vrrp.yaml, ldirectord.yaml. Required.", into(&raw.file, r.poolName)},
		{"instance", "Name of the vrrp_instance while whose state is MASTER the kernel's table has the pool; the servers are checked all the time. Default: the table has it always, as with keepalived.", into(&raw.instance, r.text)},
	}
}

func (r *reader) poolName(n *yaml.Node) (string, bool) {
	name, ok := r.scalar(n, "the name of a pool file, "+DefaultPool)
	if !ok {
		return "", false
	}
	if err := checkPoolName(name, VRRPName); err != nil {
		r.errorf(n, "%s", err)
		return "", false
	}
	return name, true
}

func (r *reader) poolEntry(n *yaml.Node, raw *rawPool) bool {
	if n.Kind == yaml.ScalarNode {
		into(&raw.file, r.poolName)(n)
		return raw.file.ok
	}
	if !r.mapping(n, "a pool", raw.fields(r), nil) {
		return false
	}
	if raw.file.at == nil {
		r.errorf(n, "\"ldirectord\" is missing; name the pool's file: {ldirectord: %s}", DefaultPool)
	}
	return raw.file.ok
}

// readPools reads the pools with the parser of those of a cluster.
func (p *vrrpReader) readPools(n *yaml.Node) {
	if n == nil {
		return
	}
	s := &specReader{
		reader: &reader{file: p.file}, names: p.hosts, spec: &Spec{}, beside: VRRPName,
		files: Files{Name: p.file, Pools: p.files.Pools, Try: p.files.Try},
	}
	s.init()
	var entries []rawPool
	p.list(n, "pools", func(_ int, n *yaml.Node) {
		var raw rawPool
		if !p.poolEntry(n, &raw) {
			return
		}
		if raw.instance.ok && p.instances[raw.instance.v] == nil && !p.broken[raw.instance.v] {
			p.errorf(raw.instance.at, "pool %s: no vrrp_instance is called %s%s", raw.file.v, quote(raw.instance.v), didYouMean(raw.instance.v, p.instanceNames()))
		}
		if other, twice := s.poolAt[raw.file.v]; twice {
			p.errorf(raw.file.at, "duplicate pool %s; it is already in line %d", quote(raw.file.v), other.at.Line)
			return
		}
		s.poolAt[raw.file.v] = poolUse{group: raw.instance.v, by: VRRPName, at: raw.file.at}
		entries = append(entries, raw)
	})
	if len(n.Content) == 0 && n.Kind == yaml.SequenceNode {
		p.errorf(n, "\"pools\" is empty; name a pool: [%s], or take it out", DefaultPool)
	}
	p.readPoolFiles(s, entries)
}

// readPoolFiles parses what was named.
func (p *vrrpReader) readPoolFiles(s *specReader, entries []rawPool) {
	dir := filepath.Dir(p.files.Name)
	services := map[string]located{}
	for _, raw := range entries {
		name := raw.file.v
		if _, ok := p.files.Pools[name]; !ok {
			p.errorf(raw.file.at, "pool %s: no such file beside %s%s", quote(name), VRRPName, s.otherPools())
			continue
		}
		r := newPoolReader(filepath.Join(dir, name))
		r.names, r.try = p.hosts, s.tryOnce()
		pool, at := s.pool(r, name, s.poolAt[name])
		for i, v := range pool.Virtuals {
			key, here := v.String(), at[i]
			says := &reader{file: here.file}
			if other, ok := services[key]; ok && other.file != here.file {
				says.errorf(here.at, "duplicate virtual %s; it is already in %s:%d", key, other.file, other.at.Line)
			}
			services[key] = here
			if a := v.Address.Addr(); len(p.errs)+len(s.errs)+len(says.errs) == 0 && v.Protocol != FWM && raw.instance.ok && !p.has(raw.instance.v, a) {
				says.warnf(here.at, "vrrp_instance %s has no virtual_ipaddress %s, so nothing brings this virtual service its packets", quote(raw.instance.v), a)
			}
			s.errs, s.warns = append(s.errs, says.errs...), append(s.warns, says.warns...)
		}
		p.place("pool "+name, raw.file.at)
		p.v.Pools = append(p.v.Pools, VRRPPool{File: name, Instance: raw.instance.or(""), Pool: pool})
	}
	p.errs, p.warns = append(p.errs, s.errs...), append(p.warns, s.warns...)
}

// has says whether an instance, or one of its sync group, brings an address.
func (p *vrrpReader) has(name string, a netip.Addr) bool {
	own := p.instances[name]
	for _, i := range p.instances {
		if i != own && (own.group == "" || i.group != own.group) {
			continue
		}
		for _, x := range slices.Concat(i.addresses, i.excluded) {
			if x.v.Address.Addr() == a {
				return true
			}
		}
	}
	return false
}

// namedVRRPPools returns the plain names of the pools that a vrrp.yaml names,
// as far as it can be understood.
func namedVRRPPools(root *yaml.Node) []string {
	if root == nil {
		return nil
	}
	r := &reader{}
	var names []string
	r.pairs(root, VRRPName, func(key, value *yaml.Node) {
		if key.Value != "pools" || value.Kind != yaml.SequenceNode {
			return
		}
		r.list(value, "pools", func(_ int, n *yaml.Node) {
			var raw rawPool
			if r.poolEntry(n, &raw) && !slices.Contains(names, raw.file.v) {
				names = append(names, raw.file.v)
			}
		})
	})
	return names
}
