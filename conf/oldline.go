package conf

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// oldLine reads one line of heartbeat's haresources:
//
//	director1 192.168.56.200/32/eth1 ldirectord::ldirectord.yaml
//
// The group is named after its first resource: a VIP's address, or the pool.
func (s *specReader) oldLine(n *yaml.Node) {
	text, ok := s.scalar(n, "a line of haresources")
	if !ok {
		return
	}
	words := strings.Fields(text)
	if len(words) < 2 {
		s.errorf(n, "%s: the line needs a node and at least one resource: \"director1 192.168.56.200/32/eth1 ldirectord\"", quote(text))
		return
	}
	if err := checkNodeName(words[0]); err != nil || strings.Contains(words[0], "::") {
		s.errorf(n, "%s cannot name a node; the line begins with the node that is preferred", quote(words[0]))
		return
	}
	g := Group{AutoFailback: s.failback, Priority: DefaultPriority}
	if name := strings.ToLower(words[0]); s.isDirector(n, name) {
		g.Prefer = []string{name}
	}
	named := false
	at := 0
	for _, w := range words {
		offset := at + strings.Index(text[at:], w)
		at = offset + len(w)
		if offset == strings.Index(text, words[0]) {
			continue
		}
		r, err := s.oldWord(w)
		if err != nil {
			s.errorAt(n, offset, "%s", err)
			continue
		}
		if !named {
			named = true
			if g.Name = r.Pool; r.VIP != nil {
				g.Name = r.VIP.Address.String()
			}
			if !s.groupName(n, g.Name) {
				return
			}
		}
		if r.VIP != nil && !s.takeVIP(n, r.VIP.Address) || r.Pool != "" && !s.takePool(n, g.Name, r.Pool) {
			continue
		}
		s.finish(&g, n, r, options{})
	}
	if named {
		s.spec.Groups = append(s.spec.Groups, g)
	}
}

// oldWord reads one resource, NAME::ARGUMENT or an address.
func (s *specReader) oldWord(w string) (Resource, error) {
	name, argument, hasArgument := strings.Cut(w, "::")
	host, _, _ := strings.Cut(w, "/")
	if _, err := parseAddress(host); err == nil {
		name, argument, hasArgument = "IPaddr", w, true
	}
	switch name {
	case "IPaddr", "IPaddr2", "IPv6addr", string(KindVIP):
		if !hasArgument {
			return Resource{}, fmt.Errorf("%s has no address; write %s::192.168.56.200/24/eth1", name, name)
		}
		// Further arguments of the old agents, IPaddr::ADDRESS::..., had no meaning.
		r := DefaultResource(KindVIP)
		r.VIP = &VIP{Prefix: -1, ARPCount: DefaultARPCount, ARPInterval: DefaultARPInterval}
		err := r.VIP.parse(argument)
		if err == nil {
			err = r.VIP.check()
		}
		return r, err
	case string(KindLdirectord):
		r := DefaultResource(KindLdirectord)
		if r.Pool = DefaultPool; hasArgument {
			r.Pool = argument
		}
		return r, checkPoolName(r.Pool, HaresourcesName)
	}
	return Resource{}, fmt.Errorf("unknown kind of resource %s; kinds that exist: %s (IPaddr, IPaddr2, IPv6addr and a bare address are vip)", quote(name), kindList())
}
