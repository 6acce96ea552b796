package conf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// realOwn is what a real server may have for itself.
type realOwn struct {
	request, receive, virtualhost opt[string]
	checkport                     opt[int]
}

// readReals reads the list of real servers and completes their checks.
func (p *poolReader) readReals(n *yaml.Node, raw *rawVirtual, v *Virtual, c checkPlan) {
	if raw.real == nil {
		if raw.odd {
			return
		}
		p.errorf(n, "virtual %s has no real servers; write \"real: [192.168.56.103:80 gate]\"", v)
		return
	}
	seen := map[netip.AddrPort]int{}
	p.list(raw.real, "real", func(_ int, n *yaml.Node) {
		servers, own, err := p.readReal(n)
		if err != nil {
			p.errorf(n, "%s", err)
		}
		for _, r := range servers {
			if p.reals++; p.reals > maxReals {
				if p.reals == maxReals+1 {
					p.errorf(n, "more than %d real servers in one pool; make two of it", maxReals)
				}
				return
			}
			if err := v.place(&r); err != nil {
				p.errorf(n, "%s", err)
				return
			}
			if line, ok := seen[r.Address]; ok {
				p.errorf(n, "duplicate real server %s; it is already in line %d", realName(r.Address), line)
				return
			}
			seen[r.Address] = n.Line
			if r.Check, err = p.complete(c, v, r, own); err != nil {
				p.errorf(n, "%s", err)
				return
			}
			v.Reals = append(v.Reals, r)
		}
	})
	if raw.real.Kind == yaml.SequenceNode && len(raw.real.Content) == 0 {
		p.warnf(raw.real, "virtual %s has no real servers", v)
	}
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
			return fmt.Errorf("real server %s: %s of a marked packet keeps its port; take out \":%d\" and write \"checkport: %d\" for the virtual service", realName(r.Address), r.Forward, port, port)
		}
		return nil
	}
	want := v.Address.Port()
	if port == 0 {
		r.Address = netip.AddrPortFrom(addr, want)
	} else if port != want && r.Forward != Masq {
		return fmt.Errorf("real server %s: %s cannot change the port, %s has %d; write port %d, or masq", realName(r.Address), r.Forward, v, want, want)
	}
	return nil
}

func realName(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// readReal reads one entry of `real:`; a range gives several servers.
func (p *poolReader) readReal(n *yaml.Node) ([]Real, realOwn, error) {
	var own realOwn
	if n.Kind != yaml.MappingNode {
		text, ok := p.scalar(n, "a real server, \"192.168.56.103:80 gate\"")
		if !ok {
			return nil, own, nil
		}
		servers, extra, err := parseReal(text, false)
		if err == nil && len(extra) > 0 {
			own.request = opt[string]{extra[0], n, true}
			err = checkRequest(extra[0])
		}
		if err == nil && len(extra) > 1 {
			own.receive = opt[string]{extra[1], n, true}
			err = p.regexp(extra[1])
		}
		if err != nil {
			return nil, own, err
		}
		return servers, own, nil
	}
	before := len(p.errs)
	var address opt[string]
	var forward opt[Forward]
	var weight, lower, upper opt[int]
	if !p.mapping(n, "a real server", p.realFields(&own, &address, &forward, &weight, &lower, &upper), poolElsewhere()) || len(p.errs) > before {
		return nil, own, nil
	}
	if address.at == nil || forward.at == nil {
		return nil, own, errors.New("a real server needs \"address\" and \"forward\" (gate, masq or ipip)")
	}
	servers, err := parseServers(address.v)
	for i := range servers {
		servers[i].Forward, servers[i].Weight = forward.v, weight.or(1)
		servers[i].Lower, servers[i].Upper = uint32(lower.or(0)), uint32(upper.or(0))
		if err == nil {
			err = servers[i].thresholds()
		}
	}
	if err != nil {
		return nil, own, err
	}
	return servers, own, nil
}

func (p *poolReader) realFields(own *realOwn, address *opt[string], forward *opt[Forward], weight, lower, upper *opt[int]) []field {
	threshold := p.integer(0, 1<<32-1)
	return []field{
		{"address", "ADDRESS[:PORT], or FIRST->LAST[:PORT] for a range of IPv4 addresses. Default of the port: the virtual service's. Required.", into(address, func(n *yaml.Node) (string, bool) { return p.scalar(n, "an address") })},
		{"forward", "gate (direct routing), masq (NAT) or ipip (tunnel). Required.", into(forward, oneOf(p.reader, []string{"gate", "masq", "ipip"}, Gate, Masq, IPIP))},
		{"weight", "0 to 65535; 0: no new connections. Default 1.", into(weight, p.integer(0, 65535))},
		{"request", "As for the virtual service, for this server.", into(&own.request, p.request)},
		{"receive", "As for the virtual service, for this server.", into(&own.receive, p.receive)},
		{"virtualhost", "As for the virtual service, for this server.", into(&own.virtualhost, p.virtualhost)},
		{"checkport", "As for the virtual service, for this server.", into(&own.checkport, p.integer(1, 65535))},
		{"lower", "After upper was reached, connections are given again below this number. Default 0: below three quarters of upper.", into(lower, threshold)},
		{"upper", "With this many connections no more are given. Default 0: no limit.", into(upper, threshold)},
	}
}

func (r *Real) thresholds() error {
	if r.Lower > r.Upper {
		return fmt.Errorf("real server %s: the lower threshold %d is above the upper one, %d", realName(r.Address), r.Lower, r.Upper)
	}
	return nil
}

// parseReal reads ldirectord's line:
//
//	ADDRESS[->ADDRESS][:PORT] gate|masq|ipip [WEIGHT] ["REQUEST", "RECEIVE"] [l:N] [u:N]
//
// For a fallback the forward method may be left out and is gate, and it has
// neither a range nor request and answer. The second result has request and receive if given.
func parseReal(s string, fallback bool) ([]Real, []string, error) {
	words, err := splitReal(s)
	if err != nil {
		return nil, nil, err
	}
	if len(words) == 0 {
		return nil, nil, errors.New("the server is empty; write \"192.168.56.103:80 gate\"")
	}
	servers, err := parseServers(words[0].text)
	if err != nil {
		return nil, nil, err
	}
	r := Real{Forward: Gate, Weight: 1}
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
			return nil, nil, fmt.Errorf("forward method %s of %s is not gate, masq or ipip", quote(rest[0].text), words[0].text)
		}
		rest = rest[1:]
	case !fallback:
		return nil, nil, fmt.Errorf("%s has no forward method; write \"%s gate\" (or masq, ipip)", quote(s), words[0].text)
	}
	if len(rest) > 0 && !rest[0].quoted && strings.Trim(rest[0].text, "-0123456789") == "" {
		w, err := parseNumber(rest[0].text, 0, 65535)
		if err != nil {
			return nil, nil, fmt.Errorf("weight: %w", err)
		}
		r.Weight = int(w)
		rest = rest[1:]
	}
	var extra []string
	for _, w := range rest {
		kind, number, _ := strings.Cut(w.text, ":")
		switch {
		case !w.quoted && (kind == "l" || kind == "u"):
			v, err := strconv.ParseUint(number, 10, 32)
			if err != nil {
				return nil, nil, fmt.Errorf("threshold %s is not a number from 0 to %d", quote(w.text), uint32(1<<32-1))
			}
			if kind == "l" {
				r.Lower = uint32(v)
			} else {
				r.Upper = uint32(v)
			}
		case len(extra) < 2 && !fallback:
			if extra = append(extra, w.text); len(extra) == 1 && w.text == "" {
				return nil, nil, errors.New("the request is empty; write \"/\"")
			}
		default:
			return nil, nil, fmt.Errorf("%s: %s is not understood there", quote(s), quote(w.text))
		}
	}
	for i := range servers {
		r.Address = servers[i].Address
		servers[i] = r
	}
	if fallback && len(servers) > 1 {
		return nil, nil, fmt.Errorf("%s: a fallback is one server, not a range", quote(s))
	}
	if err := r.thresholds(); err != nil {
		return nil, nil, err
	}
	return servers, extra, nil
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

// parseServers reads ADDRESS[:PORT] or FIRST->LAST[:PORT].
func parseServers(s string) ([]Real, error) {
	from, to, isRange := strings.Cut(s, "->")
	if !isRange {
		a, err := parseEndpoint(s)
		if err == nil {
			err = checkServer(a.Addr())
		}
		if err != nil {
			return nil, err
		}
		return []Real{{Address: a}}, nil
	}
	first, err := parseAddress(from)
	if err != nil {
		return nil, err
	}
	last, err := parseEndpoint(to)
	if err != nil {
		return nil, err
	}
	if !first.Is4() || !last.Addr().Is4() {
		return nil, fmt.Errorf("%s: ranges are for IPv4; list IPv6 servers one by one", quote(s))
	}
	a, b := first.As4(), last.Addr().As4()
	low, high := binary.BigEndian.Uint32(a[:]), binary.BigEndian.Uint32(b[:])
	if low > high {
		return nil, fmt.Errorf("%s runs backwards; the smaller address comes first", quote(s))
	}
	if high-low >= maxRange {
		return nil, fmt.Errorf("%s has %d addresses; the limit of a range is %d", quote(s), uint64(high-low)+1, maxRange)
	}
	servers := make([]Real, 0, high-low+1)
	for i := uint64(low); i <= uint64(high); i++ {
		binary.BigEndian.PutUint32(a[:], uint32(i))
		addr := netip.AddrFrom4(a)
		if err := checkServer(addr); err != nil {
			return nil, err
		}
		servers = append(servers, Real{Address: netip.AddrPortFrom(addr, last.Port())})
	}
	return servers, nil
}

func checkServer(a netip.Addr) error {
	if a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s cannot be a real server", a)
	}
	return nil
}

// readFallback takes the virtual service's own fallback, or the global one.
func (p *poolReader) readFallback(n *yaml.Node, raw *rawVirtual, v *Virtual) {
	if raw.fallback == nil {
		f, forced, err := p.globalFallback(v.IPv6, v.Protocol, v.Address)
		if err != nil {
			return // said once, for the pool
		}
		if forced {
			p.warnf(n, "the global fallback is used with port %d for virtual %s, since %s cannot change the port", f.Address.Port(), v, f.Forward)
		}
		if f != nil {
			v.Fallbacks = []Real{*f}
		}
		return
	}
	text, ok := p.scalar(raw.fallback, "a server, \"127.0.0.1:80 gate\"")
	if !ok {
		return
	}
	servers, _, err := parseReal(text, true)
	if err == nil {
		err = v.place(&servers[0])
	}
	if err != nil {
		p.errorf(raw.fallback, "fallback: %s", err)
		return
	}
	v.Fallbacks = servers
}

// slash puts the slash before a request.
func slash(s string) string {
	if path.IsAbs(s) {
		return s
	}
	return "/" + s
}
