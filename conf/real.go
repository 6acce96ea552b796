package conf

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// serverEntry is one entry of `real:` or `fallback:`.
type serverEntry struct {
	at       *yaml.Node
	where    string // HOST[->HOST][:PORT]
	server   Real   // all but the address and the check
	fallback bool
	checks   []givenKey // settings of its check, which are read for each virtual service
}

// readReals reads the list of real servers and completes their checks.
func (p *poolReader) readReals(n *yaml.Node, raw *rawVirtual, v *Virtual) {
	if raw.real == nil {
		if raw.odd {
			return
		}
		p.errorf(n, "virtual %s has no real servers; write \"real: [192.168.56.103:80 gate]\"", v)
		return
	}
	plan := p.plan(raw.check, v)
	seen := map[netip.AddrPort]int{}
	p.list(raw.real, "real", func(i int, n *yaml.Node) {
		if *p.reals > maxReals {
			return // said already; a range need not be written out to be refused
		}
		if n.Style&yaml.DoubleQuotedStyle != 0 && i > 0 && strings.Contains(raw.real.Content[i-1].Value, ` "`) {
			p.errorf(n, "%s is no server: the comma before it ends the entry; quote that as a whole: '%s, \"%s\"'", quote(n.Value), raw.real.Content[i-1].Value, n.Value)
			return
		}
		e, err := p.readEntry(n, false)
		if err != nil {
			p.errorf(n, "%s", err)
		}
		if e == nil || err != nil {
			return
		}
		servers, err := p.servers(e, v)
		if err != nil && !errors.Is(err, errNotYet) {
			p.errorf(n, "%s", err)
		}
		plan := p.planFor(e, raw.check, plan, v)
		for _, r := range servers {
			if *p.reals++; *p.reals > maxReals {
				if *p.reals == maxReals+1 {
					p.errorf(n, "more than %d real servers in one pool; make two of it", maxReals)
				}
				return
			}
			if err := v.place(&r); err != nil {
				p.errorf(n, "%s", err)
				return
			}
			if line, ok := seen[r.Address]; ok {
				p.errorf(n, "duplicate real server %s; it is already in line %d", ServerName(r.Address), line)
				return
			}
			seen[r.Address] = n.Line
			if err := p.checkServer(n, plan, v, &r); err != nil {
				p.errorf(n, "%s", err)
				return
			}
			if r.NotifyUp == "" {
				r.NotifyUp = raw.notifyUp.or("")
			}
			if r.NotifyDown == "" {
				r.NotifyDown = raw.notifyDown.or("")
			}
			v.Reals = append(v.Reals, r)
		}
	})
	if raw.real.Kind == yaml.SequenceNode && len(raw.real.Content) == 0 {
		p.warnf(raw.real, "virtual %s has no real servers", v)
	}
}

// servers makes the servers of an entry: one, those of a range, or one for each address of a name.
func (p *poolReader) servers(e *serverEntry, v *Virtual) ([]Real, error) {
	network := "ip4"
	if v.IPv6 {
		network = "ip6"
	}
	what := "real server"
	if e.fallback {
		what = "fallback"
	}
	ends, err := p.endpoints(e.at, what, e.where, network, v.Protocol)
	if err != nil {
		return nil, err
	}
	host, _, _ := splitEndpoint(e.where)
	if !isHostName(host) || strings.Contains(host, "->") {
		host = ""
	}
	servers := make([]Real, len(ends))
	for i, a := range ends {
		if err := checkServer(a.Addr()); err != nil {
			return nil, err
		}
		servers[i] = e.server
		servers[i].Address, servers[i].Host = a, host
	}
	return servers, nil
}

// place gives a server the port of the service and refuses what the kernel
// could not deliver.
func (v *Virtual) place(r *Real) error {
	addr, port := r.Address.Addr(), r.Address.Port()
	if addr.Is6() != v.IPv6 && r.Forward != IPIP {
		family := "IPv4"
		if v.IPv6 {
			family = "IPv6"
		}
		return fmt.Errorf("real server %s is of the other family than virtual %s (%s); only ipip can cross", addr, v, family)
	}
	if v.Protocol == FWM {
		if port != 0 && r.Forward != Masq {
			return fmt.Errorf("real server %s: %s of a marked packet keeps its port; take out \":%d\" and write \"checkport: %d\" for the virtual service", ServerName(r.Address), r.Forward, port, port)
		}
		return nil
	}
	want := v.Address.Port()
	if port != 0 && v.allPorts() {
		return fmt.Errorf("real server %s: a service of all ports keeps them; take out \":%d\" and write \"checkport: %d\" for the virtual service", ServerName(r.Address), port, port)
	}
	if port == 0 {
		r.Address = netip.AddrPortFrom(addr, want)
	} else if port != want && r.Forward != Masq {
		return fmt.Errorf("real server %s: %s cannot change the port, %s has %d; write port %d, or masq", ServerName(r.Address), r.Forward, v, want, want)
	}
	return nil
}

// allPorts tells a service of every port of its address, which the kernel has for persistent ones.
func (v *Virtual) allPorts() bool { return v.Protocol != FWM && v.Address.Port() == 0 }

// ServerName is how a real server is called: one of a firewall mark has no port.
func ServerName(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// readEntry reads one entry of `real:` or `fallback:`; nil: faults were reported.
func (p *poolReader) readEntry(n *yaml.Node, fallback bool) (*serverEntry, error) {
	e := &serverEntry{at: n, fallback: fallback}
	if n.Kind != yaml.MappingNode {
		text, ok := p.scalar(n, "a server, \"192.168.56.103:80 gate\"")
		if !ok {
			return nil, nil
		}
		where, server, extra, err := parseReal(text, fallback)
		for i, text := range extra {
			at := *n
			at.Value = text
			e.checks = append(e.checks, givenKey{keyNamed([]string{"request", "receive"}[i]), &at})
		}
		e.where, e.server = where, server
		return e, err
	}
	before := len(p.errs)
	var raw rawReal
	fields := append(raw.fields(p), givenFields(&e.checks)...)
	if !p.mapping(n, "a server", fields, poolElsewhere()) || len(p.errs) > before {
		return nil, nil
	}
	if at := cmp.Or(raw.notifyUp.at, raw.notifyDown.at); fallback && at != nil {
		p.errorf(at, "notify_up and notify_down are of real servers; that a fallback begins and ends is told to \"fallbackcommand\"")
		return nil, nil
	}
	if fallback && raw.address.at == nil {
		return nil, errors.New("a fallback needs \"address\"")
	}
	if raw.address.at == nil || raw.forward.at == nil && !fallback {
		return nil, errors.New("a real server needs \"address\" and \"forward\" (gate, masq or ipip)")
	}
	var err error
	e.where = raw.address.v
	e.server, err = raw.server()
	return e, err
}

// rawReal is a server written as a mapping, without the settings of its check.
type rawReal struct {
	address              opt[string]
	forward              opt[Forward]
	weight, lower, upper opt[int]
	tunnel               opt[Tunnel]
	tunnelPort           opt[int]
	tunnelChecksum       opt[Checksum]
	notifyUp, notifyDown opt[string]
}

func (raw *rawReal) fields(p *poolReader) []field {
	threshold := p.integer(0, 1<<32-1)
	return append([]field{
		{"address", "HOST[:PORT], or FIRST->LAST[:PORT] for a range of IPv4 addresses. A name becomes a server for each of its addresses. Default of the port: the virtual service's. Required.", into(&raw.address, func(n *yaml.Node) (string, bool) { return p.scalar(n, "an address") })},
		{"forward", "gate (direct routing), masq (NAT) or ipip (tunnel). Required; of a fallback gate is the default.", into(&raw.forward, oneOf(p.reader, []string{"gate", "masq", "ipip"}, Gate, Masq, IPIP))},
		{"tunnel", "forward ipip only: ipip, gue (in UDP, Linux 5.3) or gre (Linux 5.4). Default ipip.", into(&raw.tunnel, oneOf(p.reader, []string{"ipip", "gue", "gre"}, TunnelIPIP, TunnelGUE, TunnelGRE))},
		{"tunnel_port", "tunnel gue only: the UDP port of the real server, 1 to 65535. Required then.", into(&raw.tunnelPort, p.integer(1, 65535))},
		{"tunnel_checksum", "tunnel gue and gre: nocsum, csum, or of gue remcsum (remote checksum offload). Default nocsum.", into(&raw.tunnelChecksum, oneOf(p.reader, []string{"nocsum", "csum", "remcsum"}, ChecksumNone, ChecksumFull, ChecksumRemote))},
		{"weight", "0 to 65535; 0: no new connections. Default 1.", into(&raw.weight, p.integer(0, 65535))},
		{"lower", "After upper was reached, connections are given again below this number. Default 0: below three quarters of upper.", into(&raw.lower, threshold)},
		{"upper", "With this many connections no more are given. Default 0: no limit.", into(&raw.upper, threshold)},
	}, notifyFields(p.reader, &raw.notifyUp, &raw.notifyDown)...)
}

func (raw *rawReal) server() (Real, error) {
	r := Real{
		Forward: raw.forward.or(Gate), Weight: raw.weight.or(1),
		Lower: uint32(raw.lower.or(0)), Upper: uint32(raw.upper.or(0)),
		Tunnel: raw.tunnel.or(TunnelIPIP), TunnelPort: uint16(raw.tunnelPort.or(0)), TunnelChecksum: raw.tunnelChecksum.or(ChecksumNone),
		NotifyUp: raw.notifyUp.or(""), NotifyDown: raw.notifyDown.or(""),
	}
	if r.Forward != IPIP && (raw.tunnel.ok || raw.tunnelPort.ok || raw.tunnelChecksum.ok) {
		return r, fmt.Errorf("real server %s: a tunnel is for forward ipip, this is %s; write \"forward: ipip\", or take the tunnel out", raw.address.v, r.Forward)
	}
	return r, r.valid(raw.address.v)
}

// valid refuses thresholds and tunnels that the kernel would.
func (r *Real) valid(where string) error {
	switch {
	case r.Lower > r.Upper:
		return fmt.Errorf("real server %s: the lower threshold %d is above the upper one, %d", where, r.Lower, r.Upper)
	case r.Tunnel == TunnelGUE && r.TunnelPort == 0:
		return fmt.Errorf("real server %s: tunnel gue needs its UDP port; write gue:6080, or \"tunnel_port: 6080\"", where)
	case r.Tunnel != TunnelGUE && r.TunnelPort != 0:
		return fmt.Errorf("real server %s: a tunnel port is for gue, this is %s; take it out", where, r.Tunnel)
	case r.Tunnel == TunnelIPIP && r.TunnelChecksum != ChecksumNone:
		return fmt.Errorf("real server %s: a plain ipip tunnel has no checksum; take %s out, or write gue or gre", where, r.TunnelChecksum)
	case r.Tunnel == TunnelGRE && r.TunnelChecksum == ChecksumRemote:
		return fmt.Errorf("real server %s: remcsum is for tunnel gue; write csum", where)
	}
	return nil
}

// parseReal reads ldirectord's line:
//
//	HOST[->HOST][:PORT] gate|masq|ipip [TUNNEL] [WEIGHT] ["REQUEST", "RECEIVE"] [l:N] [u:N]
//
// where TUNNEL, of ipip, is ipip, gue:PORT or gre, and a checksum. For a
// fallback the forward method may be left out and is gate, and it has no
// request and answer. Where is its first word; extra has request and receive if given.
func parseReal(s string, fallback bool) (where string, r Real, extra []string, err error) {
	r = Real{Forward: Gate, Weight: 1}
	fail := func(format string, args ...any) (string, Real, []string, error) {
		return "", r, nil, fmt.Errorf(format, args...)
	}
	words, err := splitReal(s)
	if err != nil {
		return "", r, nil, err
	}
	if len(words) == 0 {
		return fail("the server is empty; write \"192.168.56.103:80 gate\"")
	}
	where = words[0].text
	rest := words[1:]
	switch {
	case len(rest) > 0:
		switch rest[0].text {
		case "gate":
		case "masq":
			r.Forward = Masq
		case "ipip":
			r.Forward = IPIP
		default:
			return fail("forward method %s of %s is not gate, masq or ipip%s", quote(rest[0].text), where, forwardHint(rest[0].text))
		}
		rest = rest[1:]
	case !fallback:
		return fail("%s has no forward method; write \"%s gate\" (or masq, ipip)", quote(s), where)
	}
	for len(rest) > 0 && !rest[0].quoted {
		is, err := r.tunnelWord(rest[0].text)
		if err != nil {
			return fail("real server %s: %w", where, err)
		}
		if !is {
			break
		}
		rest = rest[1:]
	}
	if len(rest) > 0 && !rest[0].quoted && strings.Trim(rest[0].text, "-0123456789") == "" {
		w, err := parseNumber(rest[0].text, 0, 65535)
		if err != nil {
			return fail("weight: %w", err)
		}
		r.Weight = int(w)
		rest = rest[1:]
	}
	for _, w := range rest {
		kind, number, _ := strings.Cut(w.text, ":")
		switch {
		case !w.quoted && (kind == "l" || kind == "u"):
			v, err := strconv.ParseUint(number, 10, 32)
			if err != nil {
				return fail("threshold %s is not a number from 0 to %d", quote(w.text), uint32(1<<32-1))
			}
			if kind == "l" {
				r.Lower = uint32(v)
			} else {
				r.Upper = uint32(v)
			}
		case w.quoted && len(extra) < 2 && !fallback:
			if extra = append(extra, w.text); len(extra) == 1 && w.text == "" {
				return fail("the request is empty; write \"/\"")
			}
		default:
			return fail("%s: %s is not understood there; request and receive are written in quotes", quote(s), quote(w.text))
		}
	}
	return where, r, extra, r.valid(where)
}

// forwardHint is the method that a word of keepalived or ipvsadm means.
func forwardHint(word string) string {
	for _, o := range []struct {
		words string
		here  Forward
	}{{"dr -g gatewaying route direct", Gate}, {"nat -m masquerading masquerade", Masq}, {"tun -i tunnel ip-ip", IPIP}} {
		if slices.Contains(strings.Fields(o.words), strings.ToLower(word)) {
			return fmt.Sprintf("; write %s", o.here)
		}
	}
	if n := nearest(word, []string{"gate", "masq", "ipip"}); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

// tunnelWord takes a word that stands between ipip and the weight; false: it is none of these.
func (r *Real) tunnelWord(word string) (bool, error) {
	if r.Forward != IPIP {
		return false, nil
	}
	kind, port, hasPort := strings.Cut(word, ":")
	switch kind {
	case "gue":
		v, err := parseNumber(port, 1, 65535)
		if err != nil {
			return true, fmt.Errorf("tunnel gue needs its UDP port; write gue:6080")
		}
		r.Tunnel, r.TunnelPort = TunnelGUE, uint16(v)
	case "gre", "ipip":
		if hasPort {
			return true, fmt.Errorf("a tunnel port is for gue, this is %s; take it out", kind)
		}
		if r.Tunnel, r.TunnelPort = TunnelIPIP, 0; kind == "gre" {
			r.Tunnel = TunnelGRE
		}
	case "nocsum":
		r.TunnelChecksum = ChecksumNone
	case "csum":
		r.TunnelChecksum = ChecksumFull
	case "remcsum":
		r.TunnelChecksum = ChecksumRemote
	default:
		return false, nil
	}
	return true, nil
}

type realWord struct {
	text   string
	quoted bool
}

// splitReal splits at blanks and commas outside of quotes.
func splitReal(s string) ([]realWord, error) {
	var words []realWord
	for i := 0; i < len(s); {
		switch c := s[i]; c {
		case ' ', '\t', ',':
			i++
		case '"', '\'':
			var b strings.Builder
			j := i + 1
			for ; j < len(s) && s[j] != c; j++ {
				if s[j] == '\\' && j+1 < len(s) && s[j+1] == c {
					j++
				}
				b.WriteByte(s[j])
			}
			if j >= len(s) {
				return nil, fmt.Errorf("%s: a quote is not closed", quote(s))
			}
			words = append(words, realWord{b.String(), true})
			i = j + 1
		default:
			j := i
			for j < len(s) && !strings.ContainsRune(" \t,", rune(s[j])) {
				j++
			}
			if strings.ContainsFunc(s[i:j], func(c rune) bool { return c < ' ' || c == 0x7F }) {
				return nil, fmt.Errorf("%s has a control character", quote(s))
			}
			words = append(words, realWord{s[i:j], false})
			i = j
		}
	}
	return words, nil
}

// checkServer refuses what the kernel takes for no server of anybody's:
// ip_vs_new_dest wants unicast, 0.0.0.0/8 is broadcast to it (RFC 1122, 3.2.1.3),
// and a link-local address leads nowhere without its interface.
func checkServer(a netip.Addr) error {
	switch {
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}), a.Is4() && a.As4()[0] == 0:
		return fmt.Errorf("%s cannot be a real server", a)
	case a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("%s cannot be a real server: the kernel takes no link-local address; write a global one, or a unique local one (fd00::/8)", a)
	}
	return nil
}

// slash puts the slash before a request.
func slash(s string) string {
	if path.IsAbs(s) {
		return s
	}
	return "/" + s
}
