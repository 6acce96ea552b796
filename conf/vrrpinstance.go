package conf

import (
	"net/netip"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// rawInstance is an entry of vrrp_instance as it is written.
type rawInstance struct {
	name string
	what string // how messages call it
	// otherFamily is where an address goes that is not of the first one's family.
	otherFamily string

	at *yaml.Node // its name

	master                      opt[bool]
	iface                       opt[string]
	vrid, priority, version     opt[int]
	interval                    opt[time.Duration]
	adverts                     opt[int]
	checksum, noLower, higher   opt[bool]
	authentication              *yaml.Node
	mcastSource, unicastSource  opt[netip.Addr]
	mcastGroup                  opt[netip.Addr]
	peersAt                     *yaml.Node
	peers                       []placed[VRRPPeer]
	ttl                         opt[int]
	preempt, noPreempt          opt[bool]
	preemptDelay                opt[time.Duration]
	accept, noAccept, dontTrack opt[bool]
	vmac                        opt[string]
	vmacBase                    opt[bool]
	addressesAt                 *yaml.Node
	addresses, excluded         []placed[VRRPAddress]
	routes, rules               []placed[string]
	garp                        rawGARP
	tracks                      rawTracks
	notify                      rawNotify

	group   string // sync group that has it
	groupAt *yaml.Node
}

// wire are the keys that say what is sent; an announcer of a cluster has them, too.
func (raw *rawInstance) wire(r *reader) []field {
	keep := func(to **yaml.Node, read func(*yaml.Node)) func(*yaml.Node) {
		return func(n *yaml.Node) { *to = n; read(n) }
	}
	return []field{
		{"interface", "Network interface on which it speaks. Required, unless default_interface names it.", into(&raw.iface, r.iface)},
		{"virtual_router_id", "VRID, the same on all routers of the virtual router and of nobody else on the wire, 1 to 255. Required.", into(&raw.vrid, r.integer(1, 255))},
		{"priority", "Who has more is master, 1 to 254; 255 is for the owner, whose own addresses these are. Default 100.", into(&raw.priority, r.integer(1, 255))},
		{"advert_int", "Time between advertisements, the same on all routers. Version 2: whole seconds, 1s to 255s; version 3: 10ms to 40.95s in steps of 10ms. Default 1s.", into(&raw.interval, r.duration(0, 24*time.Hour))},
		{"version", "Of the protocol: 2 (RFC 3768, IPv4) or 3 (RFC 9568). Default: vrrp_version of global_defs, or 2; of IPv6 3.", into(&raw.version, r.integer(2, 3))},
		{"virtual_ipaddress", "The virtual addresses, all of one family: `ADDRESS[/PREFIX] [brd IP] [dev IF] [scope S] [label L]`, or a mapping; one or a list. Without a prefix that of a single host. Required.", keep(&raw.addressesAt, r.vrrpAddresses("virtual_ipaddress", &raw.addresses))},
		{"authentication", "Version 2: the password that all routers have in common, a mapping. It is readable on the wire: it keeps mistakes out, nobody else. Default: none.", func(n *yaml.Node) { raw.authentication = n }},
		{"unicast_peer", "The other routers, where multicast does not reach them: `ADDRESS [min_ttl N] [max_ttl N]`, or a mapping; a list. Default: multicast.", keep(&raw.peersAt, func(n *yaml.Node) {
			r.oneOrList(n, "unicast_peer", func(n *yaml.Node) {
				if p, ok := r.peer(n); ok && r.room(n) {
					raw.peers = append(raw.peers, placed[VRRPPeer]{p, n})
				}
			})
		})},
		{"unicast_ttl", "TTL of what is sent to peers, 1 to 255. Default 255.", into(&raw.ttl, r.integer(1, 255))},
		{"mcast_dst_ip", "Multicast group. Default: the one of global_defs, or 224.0.0.18, ff02::12.", into(&raw.mcastGroup, r.vrrpGroup)},
		{"v3_checksum_as_v2", "Version 3 with IPv4: whether the checksum is over the message alone, without the pseudo-header. Both are taken. Default no.", into(&raw.checksum, r.boolean)},
	}
}

func (raw *rawInstance) fields(p *vrrpReader) []field {
	r := p.reader
	f := append([]field{
		{"state", "MASTER or BACKUP. Priorities decide; MASTER says which router is meant to be it. With priority 255 it is at once. Default BACKUP.", into(&raw.master, oneOf(r, []string{"MASTER", "BACKUP"}, true, false))},
	}, raw.wire(r)...)
	f = append(f, []field{
		{"mcast_src_ip", "Address that multicast comes from, this machine's. Default: the interface's first one, of IPv6 the link-local one.", into(&raw.mcastSource, r.address)},
		{"unicast_src_ip", "Address that unicast comes from, this machine's. Default: the interface's first one.", into(&raw.unicastSource, r.address)},
		{"down_timer_adverts", "So many advertisements of a master have to be missing before a backup takes over, 1 to 100. Default 3.", into(&raw.adverts, r.integer(1, 100))},
		{"preempt", "Whether it takes over from a master of lower priority. Default yes.", into(&raw.preempt, r.boolean)},
		{"nopreempt", "yes: the same as preempt: no.", into(&raw.noPreempt, r.boolean)},
		{"preempt_delay", "How long a master of lower priority is left to be one, from its first advertisement on, 0s to 1000s; a master that leaves or dies is not waited for. Default 0s.", into(&raw.preemptDelay, r.duration(0, 1000*time.Second))},
		{"lower_prio_no_advert", "Whether a master leaves an advertisement of lower priority without an answer. Default no: RFC 9568 has it answer at once.", into(&raw.noLower, r.boolean)},
		{"higher_prio_send_advert", "Whether a master sends a last advertisement before it yields to one of higher priority. Default no.", into(&raw.higher, r.boolean)},
		{"accept", "Whether a master takes packets to the virtual addresses; otherwise it only forwards. Default yes.", into(&raw.accept, r.boolean)},
		{"no_accept", "yes: the same as accept: no.", into(&raw.noAccept, r.boolean)},
		{"use_vmac", "yes, or the name of a macvlan interface: the virtual addresses have the virtual router's own MAC address, 00:00:5e:00:01:VRID. Its name is vrrp.VRID, of IPv6 vrrp6.VRID. Default no.", into(&raw.vmac, r.vmacName)},
		{"vmac_xmit_base", "Whether advertisements leave through the interface itself in spite of use_vmac. Default no.", into(&raw.vmacBase, r.boolean)},
		{"virtual_ipaddress_excluded", "More addresses, of either family, that the master has and the packet does not. Default: none.", r.vrrpAddresses("virtual_ipaddress_excluded", &raw.excluded)},
		{"virtual_routes", "Routes that a master has, as `ip route add` takes them: `[TYPE] DESTINATION [via IP] [dev IF] [src IP] [table T] [metric N] [mtu N] [onlink] [scope S] [proto P]`, TYPE unicast, blackhole, unreachable or prohibit; one or a list. Default: none.", r.lines("virtual_routes", &raw.routes)},
		{"virtual_rules", "Policy rules that a master has, as `ip rule add` takes them: `[from NET] [to NET] [iif IF] [oif IF] [fwmark N] table T|prohibit [priority N]`; one or a list. Default: none.", r.lines("virtual_rules", &raw.rules)},
		{"dont_track_primary", "Whether the state of the interface is left out of account. Default no.", into(&raw.dontTrack, r.boolean)},
	}...)
	f = append(f, raw.tracks.fields(p)...)
	f = append(f, raw.garp.fields(r, "")...)
	return append(f, raw.notify.fields(r)...)
}

// vmacName reads yes, no, or a name; "yes" is returned as it is.
func (r *reader) vmacName(n *yaml.Node) (string, bool) {
	if r.flag(n) {
		return "", false
	}
	s, ok := r.scalar(n, "yes, no or the name of an interface")
	if !ok {
		return "", false
	}
	switch strings.ToLower(s) {
	case "yes", "on", "true":
		return "yes", true
	case "no", "off", "false":
		return "", true
	}
	if err := checkInterface(s); err != nil {
		r.errorf(n, "use_vmac: %s", err)
		return "", false
	}
	return s, true
}

func (p *vrrpReader) instance(key, value *yaml.Node) {
	if p.next == nil { // hundreds of instances have the same keys
		p.next = &rawInstance{}
		p.keys = p.next.fields(p)
	}
	*p.next = rawInstance{name: key.Value, what: "vrrp_instance " + quote(key.Value), at: key, otherFamily: "put it into virtual_ipaddress_excluded, or into an instance of its own"}
	before := len(p.errs)
	if !p.mapping(value, p.next.what, p.keys, vrrpElsewhere()) {
		p.broken[key.Value] = true
		return
	}
	raw := new(rawInstance)
	*raw = *p.next
	i := p.resolveInstance(raw)
	if len(p.errs) > before {
		p.broken[raw.name] = true
	}
	p.instances[raw.name] = raw
	p.v.Instances = append(p.v.Instances, i)
}

func (p *vrrpReader) instanceNames() []string {
	names := make([]string, len(p.v.Instances))
	for i := range p.v.Instances {
		names[i] = p.v.Instances[i].Name
	}
	return names
}
