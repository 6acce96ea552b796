package conf

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// rawLink is one entry of `links:`.
type rawLink struct {
	Link
	at *yaml.Node
}

// DefaultGroup is heartbeat's multicast group.
func DefaultGroup() netip.Addr { return netip.AddrFrom4([4]byte{225, 0, 0, 1}) }

const maxLinks = 64 // heartbeat's limit

func (raw *rawLocal) readLinks(r *reader) func(*yaml.Node) {
	return func(n *yaml.Node) {
		raw.linksAt = n
		r.list(n, "links", func(i int, n *yaml.Node) {
			if i == maxLinks {
				r.errorf(n, "more than %d links; the limit is %d", maxLinks, maxLinks)
			}
			if i >= maxLinks {
				return
			}
			raw.readLink(r, n)
		})
	}
}

func (raw *rawLocal) readLink(r *reader, n *yaml.Node) {
	kinds := 0
	r.pairs(n, "a link", func(key, value *yaml.Node) {
		if kinds++; kinds > 1 {
			r.errorf(key, "a link has one kind; put %s into an entry of its own with a \"-\" before it", quote(key.Value))
			return
		}
		var l Link
		ok := false
		switch key.Value {
		case "bcast":
			l, ok = r.bcast(value)
		case "mcast":
			l, ok = r.mcast(value)
		case "ucast":
			l, ok = r.ucast(value)
		case "serial":
			l, ok = r.serial(value)
		case "mcast6", "ucast6":
			r.errorf(key, "%q is %q here; the family follows from the address", key.Value, strings.TrimSuffix(key.Value, "6"))
		case "ping", "ping_group":
			r.errorf(key, "%q is no link; addresses that decide for a pair with \"quorum: ping\" are listed in \"ping_group\", beside \"links\"", key.Value)
		default:
			r.errorf(key, "unknown kind of link %s%s", quote(key.Value), didYouMean(key.Value, []string{"bcast", "mcast", "ucast", "serial"}))
		}
		if ok {
			raw.links = append(raw.links, rawLink{l, key})
		}
	})
	if kinds == 0 && n.Kind == yaml.MappingNode {
		r.errorf(n, "the link is empty; write \"- bcast: eth1\"")
	}
}

func linkFields(r *reader, iface *opt[string], port *opt[int]) []field {
	return []field{
		{"interface", "The network interface, eth1. Required. One that does not exist yet is a link that is down until it does.", into(iface, r.iface)},
		{"port", "UDP port, 1 to 65535. Default: udpport.", into(port, r.integer(1, 65535))},
	}
}

// words splits heartbeat's form of a link and reports whether n has that form.
func (r *reader) words(n *yaml.Node, most int, form string) ([]string, bool) {
	s, ok := r.scalar(n, form)
	if !ok {
		return nil, false
	}
	w := strings.Fields(s)
	if len(w) == 0 || len(w) > most {
		r.errorf(n, "%s is not understood; write %s", quote(s), form)
		return nil, false
	}
	if err := checkInterface(w[0]); err != nil {
		r.errorf(n, "%s", err)
		return nil, false
	}
	return w, true
}

func (r *reader) needInterface(n *yaml.Node, iface opt[string]) bool {
	if iface.at == nil {
		r.errorf(n, "\"interface\" is missing; name the network interface of the link")
	}
	return iface.ok
}

func (r *reader) bcast(n *yaml.Node) (Link, bool) {
	l := Link{Type: Bcast}
	if n.Kind == yaml.ScalarNode {
		w, ok := r.words(n, 1, "one interface, \"- bcast: eth1\", and another entry for the next")
		if ok {
			l.Interface = w[0]
		}
		return l, ok
	}
	var iface opt[string]
	var port opt[int]
	if !r.mapping(n, "a bcast link", linkFields(r, &iface, &port), nil) {
		return l, false
	}
	l.Interface, l.Port = iface.v, uint16(port.or(0))
	return l, r.needInterface(n, iface)
}

func (r *reader) mcast(n *yaml.Node) (Link, bool) {
	l := Link{Type: Mcast, Group: DefaultGroup(), TTL: 1}
	if n.Kind == yaml.ScalarNode {
		return r.mcastWords(n, l)
	}
	var iface opt[string]
	var port, ttl opt[int]
	var group opt[netip.Addr]
	fields := append(linkFields(r, &iface, &port),
		field{"group", "Multicast group. Default 225.0.0.1.", into(&group, r.group)},
		field{"ttl", "How many routers a datagram may pass, 1 to 255. Default 1: none.", into(&ttl, r.integer(1, 255))})
	if !r.mapping(n, "an mcast link", fields, map[string]string{"loop": "\"loop\" has no use here: a node does not listen to itself; take it out"}) {
		return l, false
	}
	l.Interface, l.Port = iface.v, uint16(port.or(0))
	l.Group, l.TTL = group.or(l.Group), uint8(ttl.or(1))
	return l, r.needInterface(n, iface)
}

// mcastWords reads heartbeat's `dev group port ttl loop`.
func (r *reader) mcastWords(n *yaml.Node, l Link) (Link, bool) {
	w, ok := r.words(n, 5, "\"eth1 225.0.0.1 694 1 0\" (interface, group, port, ttl, loop)")
	if !ok {
		return l, false
	}
	l.Interface = w[0]
	fail := func(err error) (Link, bool) {
		r.errorf(n, "%s", err)
		return l, false
	}
	for i, s := range w[1:] {
		switch i {
		case 0:
			g, err := parseGroup(s)
			if err != nil {
				return fail(err)
			}
			l.Group = g
		case 1:
			v, err := parseNumber(s, 1, 65535)
			if err != nil {
				return fail(fmt.Errorf("port: %w", err))
			}
			l.Port = uint16(v)
		case 2:
			v, err := parseNumber(s, 1, 255)
			if err != nil {
				return fail(fmt.Errorf("ttl: %w", err))
			}
			l.TTL = uint8(v)
		case 3:
			if s != "0" {
				return fail(fmt.Errorf("loop %s has no use here: a node does not listen to itself; write 0", quote(s)))
			}
		}
	}
	return l, true
}

func (r *reader) group(n *yaml.Node) (netip.Addr, bool) {
	s, ok := r.scalar(n, "a multicast address")
	if !ok {
		return netip.Addr{}, false
	}
	a, err := parseGroup(s)
	if err != nil {
		r.errorf(n, "%s", err)
	}
	return a, err == nil
}

func parseGroup(s string) (netip.Addr, error) {
	a, err := parseAddress(s)
	if err != nil {
		return a, err
	}
	if !a.IsMulticast() || a.Zone() != "" {
		return a, fmt.Errorf("%s is not a multicast address; heartbeat's is %s", quote(s), DefaultGroup())
	}
	return a, nil
}

func (r *reader) ucast(n *yaml.Node) (Link, bool) {
	l := Link{Type: Ucast}
	if n.Kind == yaml.ScalarNode {
		w, ok := r.words(n, 1+maxNodesNamed, "\"eth1 10.0.0.2\" (interface, addresses of the peers)")
		if !ok {
			return l, false
		}
		l.Interface = w[0]
		if len(w) == 1 {
			r.errorf(n, "the peer's address is missing; write \"- ucast: %s 10.0.0.2\"", w[0])
			return l, false
		}
		for _, s := range w[1:] {
			a, err := parseAddress(s)
			if err != nil {
				r.errorf(n, "%s", err)
				return l, false
			}
			if !r.addPeer(n, &l, a) {
				return l, false
			}
		}
		return l, true
	}
	var iface opt[string]
	var port opt[int]
	given, ok := false, true
	fields := append(linkFields(r, &iface, &port),
		field{"addresses", "Addresses of all nodes on this link; those of this node are skipped, so that the file can be the same everywhere. Required.", func(n *yaml.Node) {
			given = true
			listed := r.list(n, "addresses", func(i int, n *yaml.Node) {
				a, good := r.address(n)
				ok = ok && good && i <= maxNodesNamed && r.addPeer(n, &l, a)
			})
			if ok = ok && listed; ok && len(l.Addresses) == 0 {
				given = false
			}
		}})
	if !r.mapping(n, "a ucast link", fields, nil) {
		return l, false
	}
	if !given {
		r.errorf(n, "\"addresses\" is missing; list the addresses of the nodes on this link")
		ok = false
	}
	l.Interface, l.Port = iface.v, uint16(port.or(0))
	return l, r.needInterface(n, iface) && ok
}

func (r *reader) addPeer(n *yaml.Node, l *Link, a netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		r.errorf(n, "%s is not the address of a node", a)
		return false
	}
	for _, b := range l.Addresses {
		if a == b {
			r.errorf(n, "duplicate address %s", a)
			return false
		}
		if a.Is4() != b.Is4() {
			r.errorf(n, "%s and %s are of different families; make a link for each", b, a)
			return false
		}
	}
	l.Addresses = append(l.Addresses, a)
	return true
}

// checkLinks fills in the ports and looks at all links together.
func (raw *rawLocal) checkLinks(r *reader, root *yaml.Node, l *Local) {
	if raw.linksAt == nil {
		if r.odd > 0 {
			return
		}
		r.errorf(root, "\"links\" is missing; list at least two, on separate wires: \"- bcast: eth1\"")
		return
	}
	if raw.linksAt.Kind == yaml.SequenceNode && len(raw.linksAt.Content) == 0 {
		r.errorf(raw.linksAt, "\"links\" is empty; list at least two, on separate wires: \"- bcast: eth1\"")
		return
	}
	sameWire := true
	for _, x := range raw.links {
		if x.Port == 0 && x.Type != Serial {
			x.Port = uint16(raw.udpport.or(DefaultPort))
		}
		for i, other := range l.Links {
			if other.Name() == x.Name() {
				r.errorf(x.at, "duplicate link %s; it is already in line %d", x.Name(), raw.links[i].at.Line)
			}
		}
		sameWire = sameWire && x.Interface == raw.links[0].Interface
		l.Links = append(l.Links, x.Link)
	}
	raw.checkSerial(r, l)
	switch {
	case len(r.errs) > 0: // what is missing may be what is faulty
	case len(l.Links) == 1 && len(raw.linksAt.Content) == 1:
		r.warnf(raw.links[0].at, "a single link (%s): when it fails, every node is alone and the groups stop; add a second one on another wire", l.Links[0].Name())
	case len(l.Links) > 1 && sameWire:
		r.warnf(raw.links[0].at, "all %s links use %s: one wire is one risk; put one of them on another interface", strconv.Itoa(len(l.Links)), l.Links[0].Interface)
	}
}
