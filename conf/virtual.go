package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// rawVirtual is one entry of `virtual:` as it is written.
type rawVirtual struct {
	checkSettings
	settings                       serviceSettings
	odd                            bool // has keys that are not understood
	address                        opt[string]
	fwmark                         opt[uint32]
	ipv6                           opt[bool]
	real, fallback, netmask, flags *yaml.Node
	checktype                      opt[CheckType]
	service, request, receive      opt[string]
	virtualhost, httpmethod        opt[string]
	checkport                      opt[int]
	checkcommand                   opt[string]
	scheduler                      opt[string]
	persistent                     opt[time.Duration]
	protocol                       opt[Protocol]
	tlsVerify                      opt[bool]
	tlsName, tlsCA, comment        opt[string]
}

func (p *poolReader) virtualFields(raw *rawVirtual) []field {
	keep := func(to **yaml.Node) func(*yaml.Node) { return func(n *yaml.Node) { *to = n } }
	return append(append(raw.checkSettings.fields(p.reader), raw.settings.fields(p.reader)...),
		field{"address", "Address and port, 192.168.56.200:80 or \"[2001:db8::1]:80\" in quotes; a plain number is a firewall mark. Required, or fwmark.", into(&raw.address, func(n *yaml.Node) (string, bool) { return p.scalar(n, "an endpoint, 192.168.56.200:80") })},
		field{"fwmark", "Firewall mark of the packets, 1 to 4294967295 (0x... too), in place of address.", into(&raw.fwmark, p.fwmark)},
		field{"ipv6", "fwmark only: whether the marked packets are IPv6. Default: the family of the real servers.", into(&raw.ipv6, p.boolean)},
		field{"real", "The real servers, a list: `ADDRESS[->ADDRESS][:PORT] gate|masq|ipip [WEIGHT] [\"REQUEST\", \"RECEIVE\"] [l:N] [u:N]`, or mappings with address, forward, weight, request, receive and more. Required.", keep(&raw.real)},
		field{"fallback", "Server that is in the table while no real server is up: ADDRESS[:PORT] [gate|masq|ipip], default gate. It is not checked. Default: the global fallback.", keep(&raw.fallback)},
		field{"checktype", "negotiate (request and answer of the service), connect (TCP; for UDP a ping), ping, external (a program), on (always up), off (never). Default negotiate.", into(&raw.checktype, p.checktype)},
		field{"service", "What negotiate speaks: http or https. Default: from the port.", into(&raw.service, p.service)},
		field{"request", "http, https: what is asked for; a slash is put before it. Default /.", into(&raw.request, p.request)},
		field{"receive", "http, https: regular expression (RE2) that the body has to match. Default: anything.", into(&raw.receive, p.receive)},
		field{"virtualhost", "http, https: the Host header. Default: the real server's address.", into(&raw.virtualhost, p.virtualhost)},
		field{"httpmethod", "http, https: GET or HEAD. Default GET.", into(&raw.httpmethod, p.httpmethod)},
		field{"checkport", "Port that is checked, 1 to 65535. Default: the real server's, or the service's.", into(&raw.checkport, p.integer(1, 65535))},
		field{"checkcommand", "external: the program, an absolute path. It gets address (or mark), port, real address and real port as arguments; exit status 0 is up.", into(&raw.checkcommand, p.checkcommand)},
		field{"scheduler", "Scheduler of the kernel: " + strings.Join(Schedulers(), " ") + ". Default wrr.", into(&raw.scheduler, oneOf(p.reader, Schedulers(), Schedulers()...))},
		field{"schedflags", "Flags of the schedulers sh and mh: sh-port, sh-fallback, mh-port, mh-fallback; a list, or with commas.", keep(&raw.flags)},
		field{"persistent", "How long a client stays with its real server, whole seconds from 1s to 744h. Default: not at all.", into(&raw.persistent, p.persistent)},
		field{"netmask", "With persistent: clients of one network count as one; netmask or prefix length. Default: each for itself.", keep(&raw.netmask)},
		field{"protocol", "tcp, udp, or fwm for a firewall mark. Default: tcp, udp for port 53, fwm for a mark.", into(&raw.protocol, oneOf(p.reader, []string{"tcp", "udp", "fwm"}, TCP, UDP, FWM))},
		field{"tls_verify", "https: whether the certificate is verified. Default no, as in ldirectord.", into(&raw.tlsVerify, p.boolean)},
		field{"tls_name", "https: name that is sent as SNI and verified. Default: virtualhost.", into(&raw.tlsName, p.virtualhost)},
		field{"tls_ca", "https: file of the PEM certificates that are trusted, an absolute path. Default: the system's.", into(&raw.tlsCA, p.path)},
		field{"comment", "Shown in status.", into(&raw.comment, p.text)},
	)
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

func (p *poolReader) persistent(n *yaml.Node) (time.Duration, bool) {
	d, ok := p.duration(time.Second, maxPersistent)(n)
	if ok && d%time.Second != 0 {
		p.errorf(n, "persistent %s: the kernel counts whole seconds; write %q", d, d.Round(time.Second).String())
		return 0, false
	}
	return d, ok
}

// virtual reads one virtual service; false: it is not in the pool.
func (p *poolReader) virtual(n *yaml.Node) (Virtual, bool) {
	var raw rawVirtual
	odd := p.odd
	if !p.mapping(n, "a virtual service", p.virtualFields(&raw), poolElsewhere()) {
		return Virtual{}, false
	}
	v := Virtual{
		Scheduler:  raw.scheduler.or(DefaultScheduler),
		Persistent: raw.persistent.or(0),
		Comment:    raw.comment.or(""),
	}
	if raw.settings.over(&p.settings, &v); v.Email.To == "" {
		raw.settings.email.useless(p.reader)
	}
	if raw.odd = p.odd > odd; !p.identity(n, &raw, &v) {
		return v, false
	}
	if v.Protocol == FWM {
		v.IPv6 = p.markFamily(&raw)
	}
	if other := p.firstAt[v.String()]; other != nil {
		p.errorf(n, "duplicate virtual %s; it is already in line %d", v, other.Line)
		return v, false
	}
	p.firstAt[v.String()] = n
	p.flags(&raw, &v)
	p.persistence(&raw, &v)
	c := p.check(n, &raw, &v)
	p.readReals(n, &raw, &v, c)
	p.readFallback(n, &raw, &v)
	p.at = append(p.at, n)
	return v, true
}

// identity reads address or mark, and the protocol.
func (p *poolReader) identity(n *yaml.Node, raw *rawVirtual, v *Virtual) bool {
	switch {
	case raw.address.at == nil && raw.fwmark.at == nil && raw.odd:
		return false
	case raw.address.at == nil && raw.fwmark.at == nil:
		p.errorf(n, "the virtual service has no address; write \"address: 192.168.56.200:80\" (or \"fwmark: 5\")")
		return false
	case raw.address.at != nil && raw.fwmark.at != nil:
		p.errorf(raw.fwmark.at, "address and fwmark exclude each other; take one out")
		return false
	case raw.address.at != nil && !raw.address.ok || raw.fwmark.at != nil && !raw.fwmark.ok:
		return false
	}
	if raw.fwmark.at == nil {
		if s := raw.address.v; s != "" && !strings.ContainsAny(s, ".:[") {
			// As in ldirectord.cf: a plain number is a mark.
			if m, err := parseNumber(s, 1, 1<<32-1); err == nil {
				raw.fwmark = opt[uint32]{uint32(m), raw.address.at, true}
			}
		}
	}
	if raw.fwmark.ok {
		v.FWMark = raw.fwmark.v
		v.Protocol = FWM
		if raw.protocol.ok && raw.protocol.v != FWM {
			p.errorf(raw.protocol.at, "protocol %s with a firewall mark; write fwm, or take it out", raw.protocol.v)
		}
		return true
	}
	if raw.ipv6.at != nil {
		p.errorf(raw.ipv6.at, "\"ipv6\" is for firewall marks; here the address tells the family")
	}
	a, err := parseEndpoint(raw.address.v)
	if err == nil && a.Port() == 0 {
		err = fmt.Errorf("%s has no port; write %s", quote(raw.address.v), quote(netip.AddrPortFrom(a.Addr(), 80).String()))
	}
	if err == nil && (a.Addr().IsUnspecified() || a.Addr().IsMulticast()) {
		err = fmt.Errorf("%s cannot be the address of a virtual service", a.Addr())
	}
	if err != nil {
		p.errorf(raw.address.at, "%s", err)
		return false
	}
	v.Address, v.IPv6, v.Protocol = a, a.Addr().Is6(), TCP
	if a.Port() == 53 {
		v.Protocol = UDP
	}
	v.Protocol = raw.protocol.or(v.Protocol)
	if v.Protocol == FWM {
		p.errorf(raw.protocol.at, "protocol fwm with an address; write tcp or udp, or \"fwmark: N\" in place of the address")
		return false
	}
	return true
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
				text = n.Content[i+1].Value
			}
		}
	}
	host, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	host, _, _ = strings.Cut(host, "->")
	a, err := parseEndpoint(host)
	return err == nil && a.Addr().Is6()
}

func (p *poolReader) flags(raw *rawVirtual, v *Virtual) {
	if raw.flags == nil {
		return
	}
	known := []string{"sh-port", "sh-fallback", "mh-port", "mh-fallback"}
	add := func(n *yaml.Node, s string) {
		switch {
		case !slices.Contains(known, s):
			p.errorf(n, "unknown flag %s%s", quote(s), didYouMean(s, known))
		case s[:2] != v.Scheduler:
			p.errorf(n, "flag %s is for scheduler %s; this one is %s", s, s[:2], v.Scheduler)
		case !slices.Contains(v.Flags, s):
			v.Flags = append(v.Flags, s)
		}
	}
	if raw.flags.Kind == yaml.SequenceNode {
		p.list(raw.flags, "schedflags", func(_ int, n *yaml.Node) {
			if s, ok := p.scalar(n, "a flag"); ok {
				add(n, s)
			}
		})
	} else if s, ok := p.scalar(raw.flags, "a flag"); ok {
		for _, w := range strings.Split(s, ",") {
			add(raw.flags, strings.TrimSpace(w))
		}
	}
	slices.Sort(v.Flags)
}

func (p *poolReader) persistence(raw *rawVirtual, v *Virtual) {
	v.Netmask = 32
	if v.IPv6 {
		v.Netmask = 128
	}
	if raw.netmask != nil {
		if m, ok := p.netmask(v.Netmask)(raw.netmask); ok {
			v.Netmask = m
		}
		if raw.persistent.at == nil {
			p.errorf(raw.netmask, "netmask without persistent has no effect; add \"persistent: 5m\", or take it out")
		}
	}
	if raw.persistent.ok && v.Quiescent {
		p.warnf(raw.persistent.at, "persistent with quiescent: a client stays with a real server that is down until its time is over; \"quiescent: no\", or sysctl net.ipv4.vs.expire_quiescent_template=1, sends it elsewhere")
	}
}
