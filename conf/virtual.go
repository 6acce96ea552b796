package conf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// rawVirtual is one entry of `virtual:` as it is written.
type rawVirtual struct {
	checkSettings
	rawScheduling
	rawLife
	settings                  serviceSettings
	odd                       bool // has keys that are not understood
	address, real, fallback   *yaml.Node
	fwmark                    opt[uint32]
	ipv6                      opt[bool]
	checktype                 opt[CheckType]
	service, request, receive opt[string]
	virtualhost, httpmethod   opt[string]
	checkport                 opt[int]
	checkcommand              opt[string]
	protocol                  opt[Protocol]
	tlsVerify                 opt[bool]
	tlsName, tlsCA            opt[string]
}

func (p *poolReader) virtualFields(raw *rawVirtual) []field {
	keep := func(to **yaml.Node) func(*yaml.Node) { return func(n *yaml.Node) { *to = n } }
	fields := slices.Concat(raw.checkSettings.fields(p.reader), raw.settings.fields(p.reader), raw.rawScheduling.fields(p), raw.rawLife.fields(p.reader))
	return append([]field{
		{"address", "Address and port, 192.168.56.200:80 or \"[2001:db8::1]:80\" in quotes; port and address may be names. A range, 192.168.56.200-203:80, or a list is a group: a virtual service for each address, all with the same real servers. A plain number is a firewall mark. Required, or fwmark.", keep(&raw.address)},
		{"fwmark", "Firewall mark of the packets, 1 to 4294967295 (0x... too), in place of address: a service of all the ports that carry it.", into(&raw.fwmark, p.fwmark)},
		{"ipv6", "fwmark only: whether the marked packets are IPv6. Default: the family of the real servers.", into(&raw.ipv6, p.boolean)},
		{"real", "The real servers, a list: `HOST[->HOST][:PORT] gate|masq|ipip [TUNNEL] [WEIGHT] [\"REQUEST\", \"RECEIVE\"] [l:N] [u:N]`, or mappings with address, forward, weight, request, receive and more. The tunnel of ipip is gue:PORT or gre, and then csum or remcsum. A name becomes a server for each of its addresses, once, when a version is made. Required.", keep(&raw.real)},
		{"fallback", "Servers that are in the table while the service has no quorum: ADDRESS[:PORT] [gate|masq|ipip], default gate, or a mapping as of a real server. Of a list the first one that is up is taken. Without settings of a check it counts as up. Default: the global fallback; none with an empty list.", keep(&raw.fallback)},
		{"checktype", "negotiate (request and answer of the service), connect (TCP; for UDP a ping), ping, external (a program), on (always up), off (never). Default negotiate.", into(&raw.checktype, p.checktype)},
		{"service", "What negotiate speaks: http or https. Default: from the port.", into(&raw.service, p.service)},
		{"request", "http, https: what is asked for; a slash is put before it. Default /.", into(&raw.request, p.request)},
		{"receive", "http, https: regular expression (RE2) that the body has to match. Default: anything.", into(&raw.receive, p.receive)},
		{"virtualhost", "http, https: the Host header. Default: the real server's address.", into(&raw.virtualhost, p.virtualhost)},
		{"httpmethod", "http, https: GET or HEAD. Default GET.", into(&raw.httpmethod, p.httpmethod)},
		{"checkport", "Port that is checked, 1 to 65535. Default: the real server's, or the service's.", into(&raw.checkport, p.integer(1, 65535))},
		{"checkcommand", "external: the program, an absolute path. It gets address (or mark), port, real address and real port as arguments; exit status 0 is up.", into(&raw.checkcommand, p.checkcommand)},
		{"protocol", "tcp, udp, sctp, or fwm for a firewall mark. Default: tcp, udp for port 53, fwm for a mark.", into(&raw.protocol, oneOf(p.reader, []string{"tcp", "udp", "sctp", "fwm"}, TCP, UDP, SCTP, FWM))},
		{"tls_verify", "https: whether the certificate is verified. Default no, as in ldirectord.", into(&raw.tlsVerify, p.boolean)},
		{"tls_name", "https: name that is sent as SNI and verified. Default: virtualhost.", into(&raw.tlsName, p.virtualhost)},
		{"tls_ca", "https: file of the PEM certificates that are trusted, an absolute path. Default: the system's.", into(&raw.tlsCA, p.path)},
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

func (p *poolReader) checktype(n *yaml.Node) (CheckType, bool) {
	words := []string{"negotiate", "connect", "ping", "external", "on", "off"}
	s, ok := p.scalar(n, "one of "+strings.Join(words, ", "))
	if !ok {
		return 0, false
	}
	if i := slices.Index(words, s); i >= 0 {
		return []CheckType{Negotiate, Connect, Ping, External, On, Off}[i], true
	}
	if _, err := strconv.Atoi(s); err == nil || s == "external-perl" {
		p.errorf(n, "checktype %s is not built yet; those that are: %s", quote(s), strings.Join(words, ", "))
	} else {
		p.errorf(n, "unknown checktype %s%s", quote(s), didYouMean(s, words))
	}
	return 0, false
}

func (p *poolReader) service(n *yaml.Node) (string, bool) {
	s, ok := p.scalar(n, "http or https")
	if !ok {
		return "", false
	}
	if s == "none" {
		return s, true
	}
	var names []string
	for _, x := range services {
		if x.name == s {
			return s, true
		}
		if x.built {
			names = append(names, x.name)
		}
	}
	p.errorf(n, "unknown service %s%s", quote(s), didYouMean(s, names))
	return "", false
}

// request must not be able to end the request line.
func (p *poolReader) request(n *yaml.Node) (string, bool) {
	s, ok := p.text(n)
	if !ok {
		return "", false
	}
	if err := checkRequest(s); err != nil {
		p.errorf(n, "%s", err)
		return "", false
	}
	return s, true
}

func checkRequest(s string) error {
	if strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F }) {
		return fmt.Errorf("request %s has a blank or another character that has to be written as %%XX", quote(s))
	}
	return nil
}

func (p *poolReader) receive(n *yaml.Node) (string, bool) {
	s, ok := p.scalar(n, "a regular expression")
	if !ok {
		return "", false
	}
	if err := p.regexp(s); err != nil {
		p.errorf(n, "%s", err)
		return "", false
	}
	return s, true
}

func (p *poolReader) virtualhost(n *yaml.Node) (string, bool) {
	s, ok := p.text(n)
	if ok && (len(s) > 255 || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F || strings.ContainsRune("/?#@\\\"<>", c) })) {
		p.errorf(n, "%s cannot be the name of a host", quote(s))
		return "", false
	}
	return s, ok
}

func (p *poolReader) httpmethod(n *yaml.Node) (string, bool) {
	s, ok := p.scalar(n, "GET or HEAD")
	if !ok {
		return "", false
	}
	if u := strings.ToUpper(s); u == "GET" || u == "HEAD" {
		return u, true
	}
	p.errorf(n, "httpmethod %s is not GET or HEAD", quote(s))
	return "", false
}

func (p *poolReader) checkcommand(n *yaml.Node) (string, bool) {
	s, ok := p.path(n)
	if ok && strings.ContainsAny(s, " \t") {
		p.errorf(n, "checkcommand %s: no arguments can be given here; write a small script", quote(s))
		return "", false
	}
	return s, ok
}

// virtual reads one entry of `virtual:`; the services of a group of addresses
// share all but the address. One that is not understood is not in the result.
func (p *poolReader) virtual(n *yaml.Node) []Virtual {
	var raw rawVirtual
	odd := p.odd
	if !p.mapping(n, "a virtual service", p.virtualFields(&raw), poolElsewhere()) {
		return nil
	}
	raw.odd = p.odd > odd
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
	c := p.check(n, raw, v)
	p.readReals(n, raw, v, c)
	p.fallbacks(n, raw, v, c)
	p.checkLife(&raw.rawLife, v)
}
