package conf

import (
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// rawVirtual is one entry of `virtual:` as it is written.
type rawVirtual struct {
	check *checkFields
	rawScheduling
	rawLife
	settings                serviceSettings
	odd                     bool // has keys that are not understood
	address, real, fallback *yaml.Node
	fwmark                  opt[uint32]
	ipv6                    opt[bool]
	protocol                opt[Protocol]
}

func (p *poolReader) virtualFields(raw *rawVirtual) []field {
	keep := func(to **yaml.Node) func(*yaml.Node) { return func(n *yaml.Node) { *to = n } }
	fields := slices.Concat(raw.settings.fields(p.reader), raw.rawScheduling.fields(p), raw.rawLife.fields(p.reader))
	return append([]field{
		{"address", "Address and port, 192.168.56.200:80 or \"[2001:db8::1]:80\" in quotes; port and address may be names. A range, 192.168.56.200-203:80, or a list is a group: a virtual service for each address, all with the same real servers. A plain number is a firewall mark. Without a port, and with persistent, it is a service of all ports. Required, or fwmark.", keep(&raw.address)},
		{"fwmark", "Firewall mark of the packets, 1 to 4294967295 (0x... too), in place of address: a service of all the ports that carry it.", into(&raw.fwmark, p.fwmark)},
		{"ipv6", "fwmark only: whether the marked packets are IPv6. Default: the family of the real servers.", into(&raw.ipv6, p.boolean)},
		{"real", "The real servers, a list: `HOST[->HOST][:PORT] gate|masq|ipip [TUNNEL] [WEIGHT] [\"REQUEST\", \"RECEIVE\"] [l:N] [u:N]`, or mappings with address, forward, weight, request, receive and more. The tunnel of ipip is gue:PORT or gre, and then csum or remcsum. A name becomes a server for each of its addresses, once, when a version is made. Required.", keep(&raw.real)},
		{"fallback", "Servers that are in the table while the service has no quorum: ADDRESS[:PORT] [gate|masq|ipip], default gate, or a mapping as of a real server. Of a list the first one that is up is taken. Without settings of a check it counts as up. Default: the global fallback; none with an empty list.", keep(&raw.fallback)},
		{"protocol", "tcp, udp, sctp, or fwm for a firewall mark. Default: tcp, udp for port 53, fwm for a mark.", into(&raw.protocol, oneOf(p.reader, []string{"tcp", "udp", "sctp", "fwm"}, TCP, UDP, SCTP, FWM))},
	}, fields...)
}

func (p *poolReader) fwmark(n *yaml.Node) (uint32, bool) {
	s, ok := p.scalar(n, "a firewall mark")
	if !ok {
		return 0, false
	}
	if hex, isHex := strings.CutPrefix(strings.ToLower(s), "0x"); isHex {
		if v, err := strconv.ParseUint(hex, 16, 32); err == nil && v > 0 {
			return uint32(v), true
		}
		p.errorf(n, "firewall mark %s is out of range: 0x1 to 0xffffffff", quote(s))
		return 0, false
	}
	v, err := parseNumber(s, 1, 1<<32-1)
	if err != nil {
		p.errorf(n, "firewall mark: %s", err)
		return 0, false
	}
	return uint32(v), true
}

// virtual reads one entry of `virtual:`; the services of a group of addresses
// share all but the address. One that is not understood is not in the result.
func (p *poolReader) virtual(n *yaml.Node) []Virtual {
	if n.Kind != yaml.MappingNode {
		p.mapping(n, "a virtual service", nil, nil) // says so
		return nil
	}
	raw := rawVirtual{check: p.global.inherit(n)}
	odd := p.odd
	if !p.mapping(n, "a virtual service", append(p.virtualFields(&raw), raw.check.fields(p)...), poolElsewhere()) {
		return nil
	}
	raw.odd = p.odd > odd
	raw.check.odd = raw.odd
	var all []Virtual
	for _, v := range p.identities(n, &raw) {
		if other, ok := p.firstAt[v.String()]; ok {
			p.errorf(n, "duplicate virtual %s; it is already in line %d", v, other.Line)
			continue
		}
		p.firstAt[v.String()] = n
		before := len(p.errs)
		p.finish(n, &raw, &v)
		all = append(all, v)
		if len(p.errs) > before {
			break // the others would say the same
		}
	}
	return all
}

// finish gives a service that has its address or mark all the rest.
func (p *poolReader) finish(n *yaml.Node, raw *rawVirtual, v *Virtual) {
	raw.settings.over(&p.settings, v)
	if raw.settings.email.to.at == nil && p.settings.email.to.at == nil {
		raw.settings.email.useless(p.reader)
	}
	p.scheduling(&raw.rawScheduling, v)
	v.life(&raw.rawLife)
	p.readReals(n, raw, v)
	p.fallbacks(n, raw, v)
	p.checkLife(&raw.rawLife, v)
}
