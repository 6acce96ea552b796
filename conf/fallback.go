package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFallbacks of one virtual service; the global ones are in each of them.
const maxFallbacks = 16

// fallbackKeys are the global fallbacks' keys, for IPv4 and for IPv6.
var fallbackKeys = [2]string{"fallback", "fallback6"}

// readFallbacks reads one fallback, or a list of them that are tried in order.
func (p *poolReader) readFallbacks(n *yaml.Node, key string) []*serverEntry {
	var all []*serverEntry
	add := func(n *yaml.Node) {
		e, err := p.readEntry(n, true)
		if err == nil && e != nil && strings.Contains(e.where, "->") {
			err = fmt.Errorf("%s: a fallback is one server, not a range; write a list of those that are to be tried in order", quote(e.where))
		}
		if err != nil {
			p.errorf(n, "%s: %s", key, err)
		} else if e != nil {
			all = append(all, e)
		}
	}
	if n = p.resolve(n); n.Kind == yaml.SequenceNode {
		p.list(n, key, func(_ int, n *yaml.Node) { add(n) })
	} else {
		add(n)
	}
	if len(all) > maxFallbacks {
		p.errorf(n, "%s: more than %d servers; take some out", key, maxFallbacks)
		all = all[:maxFallbacks]
	}
	return all
}

// globalFallbacks looks at the global fallbacks for themselves, so that a
// fault in them is said once and not for each virtual service.
func (p *poolReader) globalFallbacks() {
	for i, key := range fallbackKeys {
		var good []*serverEntry
		for _, e := range p.fallback[i] {
			servers, err := p.servers(e, &Virtual{IPv6: i == 1})
			if err == nil && servers[0].Address.Addr().Is6() != (i == 1) {
				err = fmt.Errorf("%s is of the other family; fallback is for IPv4, fallback6 for IPv6", servers[0].Address.Addr())
			}
			if err == nil {
				good = append(good, e)
			} else if !errors.Is(err, errNotYet) {
				p.errorf(e.at, "%s: %s", key, err)
			}
		}
		p.fallback[i] = good
	}
}

// fallbacks takes the virtual service's own fallbacks, or the global ones of its family.
func (p *poolReader) fallbacks(n *yaml.Node, raw *rawVirtual, v *Virtual) {
	entries, own := p.fallback[0], raw.fallback != nil
	if v.IPv6 {
		entries = p.fallback[1]
	}
	if own {
		entries = p.readFallbacks(raw.fallback, "fallback")
	}
	seen := map[netip.AddrPort]bool{}
	for _, e := range entries {
		servers, err := p.servers(e, v)
		var plan *checkPlan
		if len(e.checks) > 0 {
			plan = p.planFor(e, raw.check, nil, v)
		}
		for _, r := range servers {
			if !own {
				p.globalPort(n, &r, v)
			}
			if err = v.place(&r); err == nil && seen[r.Address] {
				err = fmt.Errorf("duplicate server %s; take one out", ServerName(r.Address))
			}
			seen[r.Address] = true
			r.Check = Check{Type: On}
			if err == nil && plan != nil {
				err = p.checkServer(e.at, plan, v, &r)
			}
			if err != nil {
				break
			}
			v.Fallbacks = append(v.Fallbacks, r)
		}
		if err != nil && !errors.Is(err, errNotYet) {
			p.errorf(e.at, "fallback: %s", err)
		}
	}
	if len(v.Fallbacks) > maxFallbacks {
		p.errorf(n, "fallback: the names stand for %d servers, more than %d; write the addresses that are meant", len(v.Fallbacks), maxFallbacks)
	}
}

// globalPort gives a global fallback the port of the service where that has to
// be: as in ldirectord, when its forward method cannot change it.
func (p *poolReader) globalPort(n *yaml.Node, r *Real, v *Virtual) {
	port := r.Address.Port()
	switch {
	case v.Protocol == FWM && r.Forward != Masq, v.allPorts():
		port = 0
	case v.Protocol != FWM && (port == 0 || r.Forward != Masq):
		port = v.Address.Port()
	}
	if was := r.Address.Port(); was != 0 && was != port && port != 0 {
		p.warnf(n, "the global fallback is used with port %d for virtual %s, since %s cannot change the port", port, v, r.Forward)
	}
	r.Address = netip.AddrPortFrom(r.Address.Addr(), port)
}
