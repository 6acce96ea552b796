package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The kernel's numbers (rtnetlink(7)): RTN_*, RTPROT_*, RT_TABLE_*.
var (
	routeTypes     = map[string]uint8{"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
	routeProtocols = map[string]uint8{"redirect": 1, "kernel": 2, "boot": 3, "static": 4, "keepalived": 18}
)

const tableMain = 254

func wordOf(m map[string]uint8, v uint8) string {
	for w, x := range m {
		if x == v {
			return w
		}
	}
	return strconv.Itoa(int(v))
}

// ipWords goes through the words of iproute2.
type ipWords struct {
	words []string
	given map[string]bool
}

func (w *ipWords) next() string {
	if len(w.words) == 0 {
		return ""
	}
	s := w.words[0]
	w.words = w.words[1:]
	return s
}

// value returns what follows a word, which may stand once.
func (w *ipWords) value(word string) (string, error) {
	if w.given[word] {
		return "", fmt.Errorf("%s is given twice", word)
	}
	w.given[word] = true
	if len(w.words) == 0 {
		return "", fmt.Errorf("nothing follows %s", word)
	}
	return w.next(), nil
}

func (w *ipWords) number(word string, least, most int64) (uint32, error) {
	s, err := w.value(word)
	if err != nil {
		return 0, err
	}
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		v, err := strconv.ParseUint(hex, 16, 32)
		if err != nil || int64(v) < least || int64(v) > most {
			return 0, fmt.Errorf("%s %s is not a number from %d to %d", word, quote(s), least, most)
		}
		return uint32(v), nil
	}
	v, err := parseNumber(s, least, most)
	if err != nil {
		return 0, fmt.Errorf("%s %w", word, err)
	}
	return uint32(v), nil
}

func (w *ipWords) address(word string) (netip.Addr, error) {
	s, err := w.value(word)
	if err == nil && (s == "inet" || s == "inet6") && len(w.words) > 0 {
		s = w.next()
	}
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := parseAddress(s)
	if err == nil && (a.Zone() != "" || a.IsMulticast() || a.IsUnspecified()) {
		err = fmt.Errorf("%s cannot be used there", a)
	}
	if err != nil {
		return a, fmt.Errorf("%s %w", word, err)
	}
	return a, nil
}

func (w *ipWords) iface(word string) (string, error) {
	s, err := w.value(word)
	if err == nil {
		err = checkInterface(s)
	}
	return s, err
}

func (w *ipWords) table(word string) (uint32, error) {
	s, err := w.value(word)
	if err != nil {
		return 0, err
	}
	switch s {
	case "main":
		return tableMain, nil
	case "default":
		return 253, nil
	case "local":
		return 255, nil
	}
	v, err := parseNumber(s, 1, 1<<32-1)
	if err != nil {
		return 0, fmt.Errorf("table %s is neither main nor a number from 1 to 4294967295; names of /etc/iproute2/rt_tables are not looked up", quote(s))
	}
	return uint32(v), nil
}

// network reads a destination: an address with a prefix or without, or one of
// the words for all; those are of the family that the rest has.
func network(s string) (p netip.Prefix, all bool, err error) {
	if s == "default" || s == "any" || s == "all" {
		return netip.Prefix{}, true, nil
	}
	host, length, has := strings.Cut(s, "/")
	a, err := parseAddress(host)
	if err != nil {
		return p, false, err
	}
	bits := a.BitLen()
	if has && length != "0" {
		if bits, err = parsePrefixLength(length, bits); err != nil {
			return p, false, fmt.Errorf("%s: %w", quote(s), err)
		}
	} else if has {
		bits = 0
	}
	if a.Zone() != "" {
		return p, false, fmt.Errorf("%s: a zone cannot be used there", quote(s))
	}
	p = netip.PrefixFrom(a, bits)
	if p != p.Masked() {
		return p, false, fmt.Errorf("%s has bits behind its prefix; write %s", s, p.Masked())
	}
	return p, false, nil
}

var allOf = map[bool]netip.Prefix{false: netip.PrefixFrom(netip.IPv4Unspecified(), 0), true: netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// parse reads `[TYPE] [to] DESTINATION [via IP] [src IP] [dev IF] [table T]
// [metric N] [mtu N] [onlink] [scope S] [proto P]`; ipv6 is the family of a
// default route that does not tell.
func (x *VRRPRoute) parse(text string, ipv6 bool) error {
	w := &ipWords{words: strings.Fields(text), given: map[string]bool{}}
	x.Type = routeTypes["unicast"]
	var all bool
	for len(w.words) > 0 {
		var err error
		switch word := w.next(); word {
		case "unicast", "blackhole", "unreachable", "prohibit":
			x.Type = routeTypes[word]
		case "via", "gw":
			x.Via, err = w.address("via")
		case "src", "from":
			x.Source, err = w.address("src")
		case "dev", "oif":
			x.Interface, err = w.iface("dev")
		case "table":
			if x.Table, err = w.table("table"); x.Table == tableMain {
				x.Table = 0
			}
		case "metric", "priority", "preference":
			x.Metric, err = w.number("metric", 0, 1<<32-1)
		case "mtu":
			if len(w.words) > 0 && w.words[0] == "lock" {
				return fmt.Errorf("%s: mtu lock is not built; write \"mtu N\"", quote(text))
			}
			x.MTU, err = w.number("mtu", 68, 65535)
		case "onlink":
			x.OnLink = true
		case "scope":
			var s string
			if s, err = w.value("scope"); err == nil {
				x.Scope, err = parseScope(s)
			}
		case "proto", "protocol":
			var s string
			if s, err = w.value("proto"); err == nil {
				var ok bool
				if x.Protocol, ok = routeProtocols[s]; !ok {
					var v int64
					if v, err = parseNumber(s, 1, 255); err != nil {
						err = fmt.Errorf("proto %s is not one of kernel, boot, static, nor a number from 1 to 255", quote(s))
					}
					x.Protocol = uint8(v)
				}
			}
		case "nexthop", "or":
			return fmt.Errorf("%s: a route with several next hops is not built; write it with one via", quote(text))
		case "encap", "vrf", "tos", "dsfield", "realm", "nhid", "add", "append", "prepend", "no_track", "pref", "advmss", "window", "rtt", "hoplimit", "initcwnd", "initrwnd", "quickack", "features", "congctl", "as", "throw", "nat", "local", "broadcast", "multicast", "anycast":
			return fmt.Errorf("%s: %q is not built; take it out", quote(text), word)
		default:
			if word == "to" {
				word = w.next()
			}
			if w.given["to"] {
				return fmt.Errorf("%s: %s is not understood; write \"DESTINATION [via IP] [dev IF] [src IP] [table T] [metric N] [mtu N] [onlink] [scope S] [proto P]\"", quote(text), quote(word))
			}
			w.given["to"] = true
			x.To, all, err = network(word)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", quote(text), err)
		}
	}
	if !w.given["to"] {
		return fmt.Errorf("%s has no destination; write \"10.0.0.0/8 via 192.168.56.1\", or \"default via ...\"", quote(text))
	}
	for _, a := range []netip.Addr{x.Via, x.Source} {
		if all && a.IsValid() {
			ipv6 = a.Is6()
			break
		}
	}
	if all {
		x.To = allOf[ipv6]
	}
	if !w.given["scope"] {
		x.Scope = x.defaultScope()
	}
	return x.check(text)
}

// defaultScope is iproute2's: what is reached without a gateway is on the link.
// IPv6 has no scopes of routes.
func (x *VRRPRoute) defaultScope() uint8 {
	if x.Type == routeTypes["unicast"] && !x.Via.IsValid() && x.To.Addr().Is4() {
		return scopes["link"]
	}
	return 0
}

func (x *VRRPRoute) check(text string) error {
	for _, a := range []netip.Addr{x.Via, x.Source} {
		// RFC 5549: an IPv4 route by way of an IPv6 neighbour is not built.
		if a.IsValid() && a.Is6() != x.To.Addr().Is6() {
			return fmt.Errorf("%s: %s is of another family than %s", quote(text), a, x.To)
		}
	}
	unicast := x.Type == routeTypes["unicast"]
	if unicast && !x.Via.IsValid() && x.Interface == "" {
		return fmt.Errorf("%s leads nowhere; add \"via IP\" or \"dev IF\"", quote(text))
	}
	if !unicast && (x.Via.IsValid() || x.Interface != "" || x.OnLink) {
		return fmt.Errorf("%s: a %s route has no via, dev or onlink; take them out", quote(text), wordOf(routeTypes, x.Type))
	}
	if x.OnLink && !x.Via.IsValid() {
		return fmt.Errorf("%s: onlink is of a via; add one, or take it out", quote(text))
	}
	return nil
}

// String is the route in iproute2's form.
func (x VRRPRoute) String() string {
	var b strings.Builder
	if x.Type != routeTypes["unicast"] {
		b.WriteString(wordOf(routeTypes, x.Type) + " ")
	}
	b.WriteString(x.To.String())
	add := func(format string, is bool, v any) {
		if is {
			fmt.Fprintf(&b, format, v)
		}
	}
	add(" via %v", x.Via.IsValid(), x.Via)
	add(" src %v", x.Source.IsValid(), x.Source)
	add(" dev %v", x.Interface != "", x.Interface)
	add(" table %v", x.Table != 0, x.Table)
	add(" metric %v", x.Metric != 0, x.Metric)
	add(" mtu %v", x.MTU != 0, x.MTU)
	add("%v", x.OnLink, " onlink")
	add(" scope %v", x.Scope != x.defaultScope(), scopeName(x.Scope))
	add(" proto %v", x.Protocol != 0, wordOf(routeProtocols, x.Protocol))
	return b.String()
}

// parse reads `[from NET] [to NET] [iif IF] [oif IF] [fwmark N] {table T | prohibit} [priority N]`.
func (x *VRRPRule) parse(text string) error {
	w := &ipWords{words: strings.Fields(text), given: map[string]bool{}}
	for len(w.words) > 0 {
		var err error
		switch word := w.next(); word {
		case "from", "to":
			var s string
			if s, err = w.value(word); err != nil {
				break
			}
			var p netip.Prefix
			if p, _, err = network(s); word == "from" {
				x.From = p
			} else {
				x.To = p
			}
		case "iif", "dev":
			x.IIF, err = w.iface("iif")
		case "oif":
			x.OIF, err = w.iface("oif")
		case "fwmark":
			if len(w.words) > 0 && strings.Contains(w.words[0], "/") {
				return fmt.Errorf("%s: a mask of fwmark is not built; write the mark alone", quote(text))
			}
			x.FWMark, err = w.number("fwmark", 1, 1<<32-1)
		case "table", "lookup":
			x.Table, err = w.table("table")
		case "priority", "pref", "preference", "order":
			x.Priority, err = w.number("priority", 1, 1<<32-1)
		case "prohibit":
			x.Prohibits = true
		default:
			if slices.Contains(strings.Fields("not tos dsfield uidrange ipproto sport dport realms nat goto suppress_prefixlength suppress_ifgroup tun_id l3mdev protocol unreachable blackhole no_track"), word) {
				return fmt.Errorf("%s: %q is not built; take it out", quote(text), word)
			}
			return fmt.Errorf("%s: %s is not understood; write \"[from NET] [to NET] [iif IF] [oif IF] [fwmark N] table T [priority N]\"", quote(text), quote(word))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", quote(text), err)
		}
	}
	switch {
	case x.From.IsValid() && x.To.IsValid() && x.From.Addr().Is6() != x.To.Addr().Is6():
		return fmt.Errorf("%s: from and to are of different families", quote(text))
	case x.Prohibits && x.Table != 0:
		return fmt.Errorf("%s: prohibit and table exclude each other", quote(text))
	case !x.Prohibits && x.Table == 0:
		return fmt.Errorf("%s does nothing; add \"table N\" or \"prohibit\"", quote(text))
	case !x.From.IsValid() && !x.To.IsValid() && x.IIF == "" && x.OIF == "" && x.FWMark == 0:
		return fmt.Errorf("%s is of all packets; say of which: from, to, iif, oif or fwmark", quote(text))
	}
	return nil
}

// String is the rule in iproute2's form.
func (x VRRPRule) String() string {
	from := "all"
	if x.From.IsValid() {
		from = x.From.String()
	}
	words := []string{"from", from}
	add := func(word string, is bool, v any) {
		if is {
			words = append(words, word, fmt.Sprint(v))
		}
	}
	add("to", x.To.IsValid(), x.To)
	add("iif", x.IIF != "", x.IIF)
	add("oif", x.OIF != "", x.OIF)
	add("fwmark", x.FWMark != 0, x.FWMark)
	add("table", x.Table != 0, x.Table)
	if x.Prohibits {
		words = append(words, "prohibit")
	}
	add("priority", x.Priority != 0, x.Priority)
	return strings.Join(words, " ")
}

// lines reads one line of iproute2, or a list of them, with its place.
func (r *reader) lines(key string, to *[]placed[string]) func(*yaml.Node) {
	return func(n *yaml.Node) {
		r.oneOrList(n, key, func(n *yaml.Node) {
			if s, ok := r.text(n); ok && r.room(n) {
				*to = append(*to, placed[string]{s, n})
			}
		})
	}
}
