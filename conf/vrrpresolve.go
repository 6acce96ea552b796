package conf

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// maxPassword is the length in bytes of what version 2 carries (RFC 2338, 5.3.6.1).
const maxPassword = 8

// MaxVRRPAddresses is how many virtual addresses of a family an advertisement
// carries: the count is one byte, and of IPv6 keepalived puts 89 into a packet
// of 1500 bytes. More than the peer expects would be other addresses to it.
func MaxVRRPAddresses(ipv6 bool) int {
	if ipv6 {
		return 89
	}
	return 255
}

// resolveInstance makes an instance of what is written, with all defaults.
func (p *vrrpReader) resolveInstance(raw *rawInstance) VRRPInstance {
	g := &p.global
	i := VRRPInstance{Name: raw.name}
	p.wire(raw, &i)
	i.Master = raw.master.or(false)
	i.Interface = first("", raw.iface, g.iface)
	if i.Interface == "" && raw.iface.at == nil && (g.iface.at == nil || g.iface.ok) && p.odd == 0 {
		p.errorf(raw.at, "%s has no interface; write \"interface: eth0\"", raw.what)
	}
	if i.Interface == "lo" && raw.peersAt == nil { // with peers it is where the addresses stand, and the routes lead to them
		p.errorf(cmp.Or(raw.iface.at, raw.at), "%s: interface lo reaches no other router by multicast; write the one that does, or name the others under unicast_peer", raw.what)
	}
	i.DownAdverts = first(DefaultVRRPAdverts, raw.adverts, g.adverts)
	i.Preempt = p.opposite(raw.preempt, raw.noPreempt, "preempt", true)
	i.Accept = p.opposite(raw.accept, raw.noAccept, "accept", true)
	i.PreemptDelay = raw.preemptDelay.or(0)
	i.LowerAdvert = !first(false, raw.noLower, g.noLower)
	i.HigherAdvert = first(false, raw.higher, g.higher)
	i.DontTrack = raw.dontTrack.or(false)
	p.source(raw, &i)
	p.vmac(raw, &i)
	for _, a := range raw.excluded {
		i.Excluded = append(i.Excluded, a.v)
	}
	for _, x := range raw.routes {
		var route VRRPRoute
		if err := route.parse(x.v, i.IPv6); err != nil {
			p.errorf(x.at, "virtual_routes: %s", err)
		}
		i.Routes = append(i.Routes, route)
	}
	for _, x := range raw.rules {
		var rule VRRPRule
		if err := rule.parse(x.v); err != nil {
			p.errorf(x.at, "virtual_rules: %s", err)
		}
		i.Rules = append(i.Rules, rule)
	}
	i.GARP = raw.garp.over(&g.garp)
	i.TrackScripts, i.TrackProcesses, i.TrackFiles = raw.tracks.scripts, raw.tracks.processes, raw.tracks.files
	i.TrackInterfaces = p.otherInterfaces(raw, &i)
	i.Notify = p.notify(&raw.notify)
	p.roles(raw, &i)
	return i
}

// wire fills in what is sent, and the family.
func (p *vrrpReader) wire(raw *rawInstance, i *VRRPInstance) {
	g := &p.global
	p.family(raw, i)
	i.VRID = uint8(raw.vrid.or(0))
	if raw.vrid.at == nil && p.odd == 0 {
		p.errorf(raw.at, "%s has no virtual_router_id; write the one that its routers have in common, 1 to 255", raw.what)
	}
	i.Priority = uint8(raw.priority.or(DefaultVRRPPriority))
	i.Version = uint8(first(2, raw.version, g.version))
	if i.IPv6 {
		if raw.version.ok && raw.version.v == 2 {
			p.errorf(raw.version.at, "version 2 is for IPv4 alone (RFC 3768), and %s is IPv6; write version: 3, or leave it out", i.Addresses[0].Address.Addr())
		}
		i.Version = 3
	}
	p.interval(raw, i)
	i.ChecksumWithoutPseudo = first(false, raw.checksum, g.checksum) && i.Version == 3 && !i.IPv6
	if raw.checksum.ok && raw.checksum.v && !i.ChecksumWithoutPseudo && len(i.Addresses) > 0 {
		p.errorf(raw.checksum.at, "v3_checksum_as_v2 is of version 3 with IPv4; take it out")
	}
	p.authentication(raw, i)
	p.peers(raw, i)
	i.Group = DefaultVRRPGroup(i.IPv6)
	if global := map[bool]opt[netip.Addr]{false: g.group4, true: g.group6}[i.IPv6]; global.ok {
		i.Group = global.v
	}
	switch {
	case raw.mcastGroup.ok && len(i.Peers) > 0:
		p.errorf(raw.mcastGroup.at, "mcast_dst_ip has no use with unicast_peer; take one of them out")
	case raw.mcastGroup.ok && raw.mcastGroup.v.Is6() != i.IPv6 && len(i.Addresses) > 0:
		p.errorf(raw.mcastGroup.at, "mcast_dst_ip %s is of another family than virtual_ipaddress %s", raw.mcastGroup.v, i.Addresses[0].Address.Addr())
	case raw.mcastGroup.ok:
		i.Group = raw.mcastGroup.v
	}
}

// family takes the addresses over: the first tells the family, and what the
// packet does not hold is excluded.
func (p *vrrpReader) family(raw *rawInstance, i *VRRPInstance) {
	if len(raw.addresses) == 0 {
		if raw.addressesAt == nil && p.odd == 0 || raw.addressesAt != nil && raw.addressesAt.Kind == yaml.SequenceNode && len(raw.addressesAt.Content) == 0 {
			p.errorf(raw.at, "%s has no virtual_ipaddress; write \"virtual_ipaddress: [192.168.56.200/24]\"", raw.what)
		}
		return
	}
	i.IPv6 = raw.addresses[0].v.Address.Addr().Is6()
	most := MaxVRRPAddresses(i.IPv6)
	i.Addresses = make([]VRRPAddress, 0, min(most, len(raw.addresses)))
	var beyond []string
	for _, a := range raw.addresses {
		switch {
		case a.v.Address.Addr().Is6() != i.IPv6:
			p.errorf(a.at, "%s is of another family than %s, and a packet has one; %s", a.v.Address.Addr(), raw.addresses[0].v.Address.Addr(), raw.otherFamily)
		case len(i.Addresses) < most:
			i.Addresses = append(i.Addresses, a.v)
		default:
			i.Excluded = append(i.Excluded, a.v)
			beyond = append(beyond, a.v.Address.Addr().String())
		}
	}
	if len(beyond) > 0 {
		p.warnf(raw.addressesAt, "%s has %d addresses, and a packet holds %d: these count as virtual_ipaddress_excluded, on every router: %s", raw.what, len(raw.addresses), most, someOf(beyond, 20))
	}
}

func someOf(words []string, most int) string {
	if n := len(words) - most; n > 0 {
		return strings.Join(words[:most-1], ", ") + fmt.Sprintf(" ... %s (%d in all)", words[len(words)-1], len(words))
	}
	return strings.Join(words, ", ")
}

func (p *vrrpReader) interval(raw *rawInstance, i *VRRPInstance) {
	i.Interval = raw.interval.or(DefaultVRRPInterval)
	if !raw.interval.ok {
		return
	}
	d := i.Interval
	switch {
	case i.Version == 2 && (d < time.Second || d > 255*time.Second || d%time.Second != 0):
		hint := ""
		if d >= 10*time.Millisecond && d < 40*time.Second && raw.version.at == nil {
			hint = "; \"version: 3\" on all its routers has 10ms to 40.95s"
		}
		p.errorf(raw.interval.at, "advert_int %s is out of range for version 2: whole seconds, 1s to 255s%s", brief(d), hint)
	case i.Version == 3 && (d < 10*time.Millisecond || d > 40950*time.Millisecond || d%(10*time.Millisecond) != 0):
		p.errorf(raw.interval.at, "advert_int %s is out of range for version 3: 10ms to 40.95s in steps of 10ms", brief(d))
	}
}

type rawAuthentication struct {
	kind           opt[bool]
	pass, passFile opt[string]
}

func (raw *rawAuthentication) fields(p *vrrpReader) []field {
	return []field{
		{"auth_type", "PASS. Default PASS.", into(&raw.kind, p.authType)},
		{"auth_pass", "The password, 1 to 8 bytes.", into(&raw.pass, p.authPass)},
		{"auth_pass_file", "In place of auth_pass: a file, an absolute path, whose first line is the password.", into(&raw.passFile, p.passFile)},
	}
}

func (p *vrrpReader) authType(n *yaml.Node) (bool, bool) {
	s, ok := p.scalar(n, "auth_type PASS")
	switch {
	case !ok:
	case s == "PASS":
		return true, true
	case s == "AH":
		p.errorf(n, "auth_type AH is not built (RFC 3768 has taken it out); write PASS, or leave authentication out")
	default: // it may be the password, at the wrong place
		p.errorf(n, "auth_type is to be PASS, and the password stands under auth_pass")
	}
	return false, false
}

// passFile reads the name of a file. No message has it in it unless it is a path: it may be the password.
func (p *vrrpReader) passFile(n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.Style&yaml.TaggedStyle != 0 || !filepath.IsAbs(n.Value) {
		p.errorf(n, "auth_pass_file is to be an absolute path of a file with the password; begin it with /")
		return "", false
	}
	return p.path(n)
}

// authPass reads a password. No message has it in it.
func (p *vrrpReader) authPass(n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode || isNull(n) || n.Style&yaml.TaggedStyle != 0 {
		p.errorf(n, "auth_pass is to be a password of 1 to %d bytes", maxPassword)
		return "", false
	}
	if err := checkPassword(n.Value); err != nil {
		p.errorf(n, "auth_pass %s", err)
		return "", false
	}
	return n.Value, true
}

func checkPassword(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("is empty; write 1 to %d bytes, or leave authentication out", maxPassword)
	case len(s) > maxPassword:
		return fmt.Errorf("has %d bytes, and a packet carries %d; keepalived cuts the rest off: write the first %d, here and there", len(s), maxPassword, maxPassword)
	case strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7F }):
		return fmt.Errorf("has a control character")
	}
	return nil
}

func (p *vrrpReader) authentication(raw *rawInstance, i *VRRPInstance) {
	n := raw.authentication
	if n == nil {
		return
	}
	// What stands at the wrong place may be the password, and is not repeated.
	if n.Kind != yaml.MappingNode {
		p.errorf(n, "authentication is to be a mapping: {auth_type: PASS, auth_pass: ...}")
		return
	}
	var a rawAuthentication
	for i := 0; i+1 < len(n.Content); i += 2 {
		known := func(f field) bool { return f.name == n.Content[i].Value }
		if !slices.ContainsFunc(a.fields(p), known) {
			p.errorf(n.Content[i], "authentication has auth_type, auth_pass and auth_pass_file, and nothing else: {auth_type: PASS, auth_pass: ...}")
			return
		}
	}
	before := len(p.errs)
	p.mapping(n, "authentication", a.fields(p), nil)
	if i.Version == 3 {
		p.errorf(n, "version 3 has no authentication (RFC 9568, 9); take it out")
		return
	}
	if len(p.errs) > before {
		return
	}
	switch {
	case a.pass.at != nil && a.passFile.at != nil:
		p.errorf(a.passFile.at, "auth_pass and auth_pass_file exclude each other; take one out")
	case a.pass.ok:
		i.Password = a.pass.v
	case !a.passFile.ok:
		p.errorf(n, "authentication has no password; add auth_pass or auth_pass_file")
	case p.files.Secret == nil:
		p.errorf(a.passFile.at, "auth_pass_file is not for a file that the cluster replicates; write auth_pass")
	default:
		s, err := p.files.Secret(a.passFile.v)
		if err == nil {
			err = checkPassword(s)
		}
		if err != nil {
			p.errorf(a.passFile.at, "auth_pass_file: the password of %s %s", a.passFile.v, oneLine(err.Error()))
			return
		}
		i.Password = s
	}
}

// peers takes the unicast peers over.
func (p *vrrpReader) peers(raw *rawInstance, i *VRRPInstance) {
	i.UnicastTTL = uint8(raw.ttl.or(DefaultUnicastTTL))
	lines := map[netip.Addr]int{}
	for _, x := range raw.peers {
		a := x.v.Address
		switch line, twice := lines[a]; {
		case a.Is6() != i.IPv6 && len(i.Addresses) > 0:
			p.errorf(x.at, "unicast_peer %s is of another family than virtual_ipaddress %s", a, i.Addresses[0].Address.Addr())
		case twice:
			p.errorf(x.at, "duplicate unicast_peer %s; it is already in line %d", a, line)
		default:
			lines[a] = x.at.Line
			i.Peers = append(i.Peers, x.v)
		}
	}
	if raw.ttl.at != nil && raw.peersAt == nil {
		p.errorf(raw.ttl.at, "unicast_ttl is for unicast_peer, and there is none; take it out (multicast is sent with 255)")
	}
	if raw.peersAt != nil && raw.peersAt.Kind == yaml.SequenceNode && len(raw.peersAt.Content) == 0 {
		p.errorf(raw.peersAt, "unicast_peer is empty; name the other routers, or take it out to speak by multicast")
	}
}

// source takes the address over that advertisements come from.
func (p *vrrpReader) source(raw *rawInstance, i *VRRPInstance) {
	o, key := raw.mcastSource, "mcast_src_ip"
	unicast := raw.peersAt != nil
	switch {
	case raw.mcastSource.at != nil && unicast:
		p.errorf(raw.mcastSource.at, "mcast_src_ip is for multicast; with unicast_peer write unicast_src_ip")
		return
	case raw.unicastSource.at != nil && !unicast:
		p.errorf(raw.unicastSource.at, "unicast_src_ip is for unicast_peer, and there is none; write mcast_src_ip")
		return
	case unicast:
		o, key = raw.unicastSource, "unicast_src_ip"
	}
	if !o.ok {
		return
	}
	switch a := o.v; {
	case a.IsMulticast() || a.IsUnspecified() || a.Zone() != "":
		p.errorf(o.at, "%s %s cannot be the address of this machine", key, a)
	case a.Is6() != i.IPv6 && len(i.Addresses) > 0:
		p.errorf(o.at, "%s %s is of another family than virtual_ipaddress %s", key, a, i.Addresses[0].Address.Addr())
	default:
		i.Source = a
	}
	for _, x := range i.Peers {
		if x.Address == i.Source {
			p.errorf(o.at, "%s %s is a unicast_peer, too; list the other routers only", key, i.Source)
		}
	}
}

func (p *vrrpReader) vmac(raw *rawInstance, i *VRRPInstance) {
	i.VMACBase = raw.vmacBase.or(false)
	switch i.VMAC = raw.vmac.or(""); {
	case i.VMAC == "" && raw.vmacBase.at != nil && raw.vmac.at == nil:
		p.errorf(raw.vmacBase.at, "vmac_xmit_base is for use_vmac; add that, or take it out")
	case i.VMAC != "" && raw.peersAt != nil && !i.VMACBase:
		p.errorf(raw.vmac.at, "use_vmac with unicast_peer needs \"vmac_xmit_base: yes\": the peers know this machine by the address of its interface")
	}
	if i.VMAC == "yes" {
		i.VMAC = "vrrp."
		if i.IPv6 {
			i.VMAC = "vrrp6."
		}
		i.VMAC += strconv.Itoa(int(i.VRID))
	}
}

// opposite reads a key that exists in two forms, yes and no.
func (p *vrrpReader) opposite(yes, no opt[bool], name string, fallback bool) bool {
	if yes.at != nil && no.at != nil {
		p.errorf(no.at, "%s and its opposite are both written; take one out", name)
	}
	if no.ok {
		return !no.v
	}
	return yes.or(fallback)
}

// otherInterfaces are the tracked interfaces beside the instance's own.
func (p *vrrpReader) otherInterfaces(raw *rawInstance, i *VRRPInstance) []VRRPTrack {
	var others []VRRPTrack
	for _, t := range raw.tracks.interfaces {
		if t.Name != i.Interface || i.DontTrack {
			others = append(others, t)
		} else if t.Weight != 0 || t.Reverse {
			p.errorf(raw.tracks.at["track_interface "+t.Name], "%s is the instance's own interface: the state is FAULT while it is down, so a weight says nothing; take it out, or add \"dont_track_primary: yes\"", t.Name)
		}
	}
	return others
}

// roles refuses what contradicts itself about who is master.
func (p *vrrpReader) roles(raw *rawInstance, i *VRRPInstance) {
	if i.Master && raw.priority.at == nil {
		p.errorf(raw.master.at, "state MASTER without priority: keepalived would take 255, the owner of the addresses; write the priority that is meant, such as \"priority: 150\"")
	}
	if at := cmp.Or(raw.noPreempt.at, raw.preempt.at); !i.Preempt {
		switch {
		case raw.priority.ok && i.Priority == 255:
			p.errorf(at, "the owner, priority 255, always takes over (RFC 9568, 6.1); take nopreempt out, or write a priority of 254 or less")
		case i.Master:
			p.errorf(at, "nopreempt with state MASTER: keepalived leaves nopreempt out then; write \"state: BACKUP\" on both routers, or take nopreempt out")
		case raw.preemptDelay.ok && i.PreemptDelay > 0:
			p.errorf(raw.preemptDelay.at, "preempt_delay has no effect with nopreempt; take one of them out")
		}
	}
	if i.Priority != 255 {
		return
	}
	for _, kind := range []struct {
		key    string
		tracks []VRRPTrack
	}{{"track_interface", i.TrackInterfaces}, {"track_script", i.TrackScripts}, {"track_process", i.TrackProcesses}, {"track_file", i.TrackFiles}} {
		for _, t := range kind.tracks {
			if t.Weight != 0 {
				p.errorf(raw.tracks.at[kind.key+" "+t.Name], "%s %s has weight %d, and priority 255, the owner's, is never changed; write a priority of 254 or less, or \"weight 0\" for state FAULT", kind.key, t.Name, t.Weight)
			}
		}
	}
}
