package conf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// identities reads addresses or mark, and the protocol: a Virtual for each
// service, with nothing else in it yet.
func (p *poolReader) identities(n *yaml.Node, raw *rawVirtual) []Virtual {
	switch {
	case raw.address == nil && raw.fwmark.at == nil && raw.odd:
		return nil
	case raw.address == nil && raw.fwmark.at == nil:
		p.errorf(n, "the virtual service has no address; write \"address: 192.168.56.200:80\" (or \"fwmark: 5\")")
		return nil
	case raw.address != nil && raw.fwmark.at != nil:
		p.errorf(raw.fwmark.at, "address and fwmark exclude each other; take one out")
		return nil
	case raw.fwmark.at != nil && !raw.fwmark.ok:
		return nil
	case raw.fwmark.ok:
		return p.marked(raw, raw.fwmark.v)
	}
	if raw.address.Kind != yaml.SequenceNode {
		return p.addressed(raw.address, raw)
	}
	if len(raw.address.Content) == 0 {
		p.errorf(raw.address, "the list of addresses is empty; write \"address: 192.168.56.200:80\"")
	}
	var all []Virtual
	p.list(raw.address, "address", func(_ int, n *yaml.Node) { all = append(all, p.addressed(n, raw)...) })
	return all
}

// marked is the service of a firewall mark.
func (p *poolReader) marked(raw *rawVirtual, mark uint32) []Virtual {
	if raw.protocol.ok && raw.protocol.v != FWM {
		p.errorf(raw.protocol.at, "protocol %s with a firewall mark; write fwm, or take it out", raw.protocol.v)
	}
	return []Virtual{{FWMark: mark, Protocol: FWM, IPv6: p.markFamily(raw)}}
}

// addressed reads one word of address: an endpoint, a range, or a mark.
func (p *poolReader) addressed(n *yaml.Node, raw *rawVirtual) []Virtual {
	s, ok := p.scalar(n, "an endpoint, 192.168.56.200:80")
	if !ok {
		return nil
	}
	if s != "" && !strings.ContainsAny(s, ".:[") {
		// As in ldirectord.cf: a plain number is a mark.
		if m, err := parseNumber(s, 1, 1<<32-1); err == nil {
			return p.marked(raw, uint32(m))
		}
	}
	if raw.ipv6.ok {
		p.errorf(raw.ipv6.at, "\"ipv6\" is for firewall marks; here the address tells the family")
	}
	if raw.protocol.ok && raw.protocol.v == FWM {
		p.errorf(raw.protocol.at, "protocol fwm with an address; write tcp or udp, or \"fwmark: N\" in place of the address")
		return nil
	}
	ends, err := p.endpoints(n, "virtual service", s, "ip", raw.protocol.or(TCP))
	if errors.Is(err, errNotYet) {
		return nil
	}
	var all []Virtual
	for _, a := range ends {
		// Without a port it is a service of all, which the kernel has for persistent ones.
		if err == nil && a.Port() == 0 && raw.persistent.at == nil {
			err = fmt.Errorf("%s has no port; write %s, or add \"persistent: 5m\" for a service of all ports", quote(s), quote(s+":80"))
			if a.Addr().Is6() {
				err = fmt.Errorf("%s has no port; an IPv6 address stands in brackets before it: %s", quote(s), quote(bracketed(s, a.Addr())))
			}
		}
		if err == nil && (a.Addr().IsUnspecified() || a.Addr().IsMulticast()) {
			err = fmt.Errorf("%s cannot be the address of a virtual service", a.Addr())
		}
		v := Virtual{Address: a, IPv6: a.Addr().Is6(), Protocol: TCP}
		if a.Port() == 53 {
			v.Protocol = UDP
		}
		v.Protocol = raw.protocol.or(v.Protocol)
		if err == nil && v.allPorts() {
			p.warnf(n, "virtual %s has no port: it is a service of all ports of %s; write one if one is meant", v, a.Addr())
		}
		all = append(all, v)
	}
	if err != nil {
		p.errorf(n, "%s", err)
		return nil
	}
	return all
}

// bracketed is what was likely meant by an IPv6 address without brackets: what
// follows its last colon may be the port.
func bracketed(s string, whole netip.Addr) string {
	if at := strings.LastIndexByte(s, ':'); at > 0 && s[0] != '[' {
		if a, err := netip.ParseAddr(s[:at]); err == nil {
			if port, err := strconv.ParseUint(s[at+1:], 10, 16); err == nil && port > 0 {
				return netip.AddrPortFrom(a, uint16(port)).String()
			}
		}
	}
	return netip.AddrPortFrom(whole, 80).String()
}

// markFamily tells the family of a firewall mark service.
func (p *poolReader) markFamily(raw *rawVirtual) bool {
	if raw.ipv6.ok {
		return raw.ipv6.v
	}
	if raw.real == nil || raw.real.Kind != yaml.SequenceNode || len(raw.real.Content) == 0 {
		return false
	}
	n := p.resolve(raw.real.Content[0])
	text := n.Value
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "address" {
				text = p.resolve(n.Content[i+1]).Value
			}
		}
	}
	where, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	host, _, err := splitEndpoint(where)
	a, aerr := netip.ParseAddr(host)
	return err == nil && aerr == nil && a.Unmap().Is6()
}

// endpoints reads what stands for one or several addresses with the same port:
//
//	ADDRESS[:PORT]  NAME[:PORT]  FIRST->LAST[:PORT]  192.168.56.200-203[:PORT]
//
// The port may be the name of a service; it is 0 when there is none. What a
// name stands for is of the family that network wants: ip4, ip6, or ip for
// either, IPv4 first.
func (p *poolReader) endpoints(n *yaml.Node, what, s, network string, protocol Protocol) ([]netip.AddrPort, error) {
	from, to, isRange := strings.Cut(s, "->")
	if !isRange {
		if host, _, _ := strings.Cut(s, ":"); strings.Contains(host, "-") {
			first, last, _ := strings.Cut(host, "-")
			if a, err := netip.ParseAddr(first); err == nil {
				isRange, from, to = true, first, last+s[len(host):]
				if !strings.Contains(last, ".") { // as keepalived writes it: the last number only
					four := a.String()
					to = four[:strings.LastIndexByte(four, '.')+1] + to
				}
			}
		}
	}
	host, port, err := splitEndpoint(s)
	if isRange {
		host, port, err = splitEndpoint(to)
	}
	if err != nil {
		return nil, err
	}
	var number uint16
	if port != "" {
		if number, err = parsePort(port, protocol); err != nil {
			return nil, err
		}
	}
	if isRange {
		return p.span(n, s, from, host, number)
	}
	if !isHostName(host) {
		a, err := parseHost(s, host)
		return []netip.AddrPort{netip.AddrPortFrom(a, number)}, err
	}
	addrs, err := p.lookup(n, what, host, network)
	ends := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		ends[i] = netip.AddrPortFrom(a, number)
	}
	return ends, err
}

// span lists the addresses of a range. A name at one of its ends has to stand for one address.
func (p *poolReader) span(n *yaml.Node, s, from, to string, port uint16) ([]netip.AddrPort, error) {
	var ends [2]netip.Addr
	for i, host := range []string{from, to} {
		if !isHostName(host) {
			a, err := parseHost(host, host)
			if err != nil {
				return nil, err
			}
			ends[i] = a
			continue
		}
		addrs, err := p.lookup(n, "range", host, "ip4")
		if err != nil {
			return nil, err
		}
		if len(addrs) != 1 {
			return nil, fmt.Errorf("%s: %s has %d addresses, and a range ends at one; write the address that is meant", quote(s), host, len(addrs))
		}
		ends[i] = addrs[0]
	}
	if !ends[0].Is4() || !ends[1].Is4() {
		return nil, fmt.Errorf("%s: ranges are for IPv4; list IPv6 addresses one by one", quote(s))
	}
	a, b := ends[0].As4(), ends[1].As4()
	low, high := binary.BigEndian.Uint32(a[:]), binary.BigEndian.Uint32(b[:])
	if low > high {
		return nil, fmt.Errorf("%s runs backwards; the smaller address comes first", quote(s))
	}
	if high-low >= maxRange {
		return nil, fmt.Errorf("%s has %d addresses; the limit of a range is %d", quote(s), uint64(high-low)+1, maxRange)
	}
	all := make([]netip.AddrPort, 0, high-low+1)
	for i := uint64(low); i <= uint64(high); i++ {
		binary.BigEndian.PutUint32(a[:], uint32(i))
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4(a), port))
	}
	return all, nil
}

// parseHost reads an address; s is the endpoint in which it stands.
func parseHost(s, host string) (netip.Addr, error) {
	a, err := parseAddress(host)
	if err != nil {
		if strings.Count(s, ":") > 1 && s[0] != '[' {
			return a, fmt.Errorf("%s is not an endpoint; an IPv6 address with a port is written like \"[2001:db8::1]:80\"", quote(s))
		}
		if looksLikeName(host) {
			return a, fmt.Errorf("%s is neither an IP address nor the name of a host", quote(host))
		}
		if words := strings.Fields(s); len(words) == 2 {
			return a, fmt.Errorf("%s is not an endpoint; a colon stands between address and port: %s", quote(s), quote(words[0]+":"+words[1]))
		}
		return a, fmt.Errorf("%s is not an IP address", quote(host))
	}
	if a.Zone() != "" {
		return a, fmt.Errorf("%s: an address with a zone cannot be used here", quote(s))
	}
	return a, nil
}

// splitEndpoint takes HOST[:PORT] apart; an IPv6 address stands in brackets
// when a port follows. The port is empty when there is none.
func splitEndpoint(s string) (host, port string, err error) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		inside, after, closed := strings.Cut(rest, "]")
		if !closed || (after != "" && after[0] != ':') || after == ":" {
			return "", "", fmt.Errorf("%s is not an endpoint; write it like \"[2001:db8::1]:80\"", quote(s))
		}
		if a, err := netip.ParseAddr(inside); err != nil || a.Is4() {
			return "", "", fmt.Errorf("%s: brackets are for IPv6; write %s", quote(s), quote(strings.NewReplacer("[", "", "]", "").Replace(s)))
		}
		return inside, strings.TrimPrefix(after, ":"), nil
	}
	if strings.Count(s, ":") != 1 {
		return s, "", nil
	}
	if host, port, _ = strings.Cut(s, ":"); port == "" {
		return "", "", fmt.Errorf("%s has no port after the colon", quote(s))
	}
	return host, port, nil
}

// parsePort reads a port by number, or by the name of a service: one that
// ldirectord checks, or of /etc/services.
func parsePort(s string, protocol Protocol) (uint16, error) {
	if p := servicePort(s); p != 0 {
		return p, nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil && strings.Trim(s, "0123456789") != "" {
		if p := namedPort(s, protocol); p != 0 {
			return p, nil
		}
		return 0, fmt.Errorf("port %s is neither a number nor a service that is known here", quote(s))
	}
	if err != nil || v < 1 || v > 65535 {
		return 0, fmt.Errorf("port %s is out of range: 1 to 65535", s[:min(len(s), 20)])
	}
	if s[0] == '0' {
		return 0, fmt.Errorf("port %s could be octal; write %d", quote(s), v)
	}
	return uint16(v), nil
}
