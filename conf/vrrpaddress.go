package conf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// scopes are the kernel's RT_SCOPE_*.
var scopes = map[string]uint8{"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}

func parseScope(s string) (uint8, error) {
	if v, ok := scopes[s]; ok {
		return v, nil
	}
	v, err := parseNumber(s, 0, 255)
	if err != nil {
		return 0, fmt.Errorf("scope %s is not one of global, site, link, host, nor a number from 0 to 255", quote(s))
	}
	return uint8(v), nil
}

func scopeName(v uint8) string {
	for name, x := range scopes {
		if x == v {
			return name
		}
	}
	return strconv.Itoa(int(v))
}

// addressWords are words of keepalived behind an address that have no use here.
var addressWords = map[string]string{
	"peer":          "a peer address is for point-to-point links; take it out",
	"use_vmac":      "all addresses of an instance with use_vmac stand on the VMAC; take it out",
	"no_track":      "take it out",
	"home":          "take it out",
	"-nodad":        "addresses are taken without duplicate address detection in any case; take it out",
	"nodad":         "addresses are taken without duplicate address detection in any case; take it out",
	"mngtmpaddr":    "take it out",
	"noprefixroute": "take it out",
	"autojoin":      "take it out",
	"preferred_lft": "take it out",
	"track_group":   "take it out",
}

// parse reads `IP[/PREFIX] [brd IP] [dev IF] [scope S] [label L]`.
func (a *VRRPAddress) parse(text string) error {
	words := strings.Fields(text)
	if len(words) == 0 {
		return fmt.Errorf("the address is empty; write \"192.168.56.200/24 dev eth0\"")
	}
	var err error
	if a.Address, err = parsePrefix(words[0]); err != nil {
		return err
	}
	given := map[string]bool{}
	for i := 1; i < len(words); i += 2 {
		w := words[i]
		if why, ok := addressWords[w]; ok {
			return fmt.Errorf("%s %s has no use here: %s", words[0], w, why)
		}
		if w == "broadcast" {
			w = "brd"
		}
		if !slices.Contains([]string{"brd", "dev", "scope", "label"}, w) {
			if _, err := parsePrefix(w); err == nil {
				return fmt.Errorf("%s: %w", words[0], another(words, i))
			}
			return fmt.Errorf("%s: %s is not understood; write \"ADDRESS/PREFIX [brd IP] [dev IF] [scope S] [label L]\"", words[0], quote(w))
		}
		if i+1 == len(words) {
			return fmt.Errorf("%s: nothing follows %s", words[0], w)
		}
		if given[w] {
			return fmt.Errorf("%s: %s is given twice", words[0], w)
		}
		given[w] = true
		switch value := words[i+1]; w {
		case "brd":
			a.Broadcast, err = parseBroadcast(value, a.Address)
		case "dev":
			a.Interface, err = value, checkInterface(value)
		case "scope":
			a.Scope, err = parseScope(value)
		case "label":
			a.Label = value
		}
		if err != nil {
			return fmt.Errorf("%s: %w", words[0], err)
		}
	}
	return a.check()
}

// parsePrefix reads an address, with a prefix length or without; host bits stay.
func parsePrefix(s string) (netip.Prefix, error) {
	host, length, has := strings.Cut(s, "/")
	a, err := parseAddress(host)
	if err != nil {
		return netip.Prefix{}, err
	}
	if a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%s: write the interface behind it: \"%s dev %s\"", quote(s), a.WithZone(""), a.Zone())
	}
	bits := a.BitLen()
	if has {
		if bits, err = parsePrefixLength(length, bits); err != nil {
			return netip.Prefix{}, fmt.Errorf("%s: %w", quote(s), err)
		}
	}
	return netip.PrefixFrom(a, bits), nil
}

// parseBroadcast reads an address, or + for the last one of the network.
func parseBroadcast(s string, p netip.Prefix) (netip.Addr, error) {
	if p.Addr().Is6() {
		return netip.Addr{}, fmt.Errorf("brd %s: IPv6 has no broadcast addresses; take it out", s)
	}
	if s == "+" {
		four := p.Addr().As4()
		host := ^uint32(0)
		if p.Bits() > 0 {
			host = uint32(1)<<(32-p.Bits()) - 1
		}
		binary.BigEndian.PutUint32(four[:], binary.BigEndian.Uint32(four[:])|host)
		return netip.AddrFrom4(four), nil
	}
	a, err := parseAddress(s)
	if err == nil && !a.Is4() {
		err = fmt.Errorf("brd %s is not an IPv4 address", s)
	}
	return a, err
}

// check looks at the parts of an address together.
func (a *VRRPAddress) check() error {
	ip := a.Address.Addr()
	if ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s cannot be a virtual address", ip)
	}
	switch {
	case a.Label == "":
	case ip.Is6():
		return fmt.Errorf("label %s: IPv6 addresses have no labels; take it out", quote(a.Label))
	case len(a.Label) > maxInterface:
		return fmt.Errorf("label %s is too long: it has %d characters, the kernel allows %d", quote(a.Label), len(a.Label), maxInterface)
	case strings.ContainsFunc(a.Label, func(c rune) bool { return c <= ' ' || c >= 0x7F || c == '/' }):
		return fmt.Errorf("label %s has characters that cannot be in a label", quote(a.Label))
	}
	if a.Broadcast.IsValid() && (ip.Is6() || !a.Broadcast.Is4()) {
		return fmt.Errorf("broadcast %s: IPv6 has no broadcast addresses; take it out", a.Broadcast)
	}
	return nil
}

// String is the address in keepalived's form.
func (a VRRPAddress) String() string {
	s := a.Address.String()
	if a.Broadcast.IsValid() {
		s += " brd " + a.Broadcast.String()
	}
	if a.Interface != "" {
		s += " dev " + a.Interface
	}
	if a.Scope != 0 {
		s += " scope " + scopeName(a.Scope)
	}
	if a.Label != "" {
		s += " label " + a.Label
	}
	return s
}

// rawAddress is an address as a mapping.
type rawAddress struct{ address, broadcast, dev, scope, label opt[string] }

func (raw *rawAddress) fields(r *reader) []field {
	word := func(n *yaml.Node) (string, bool) {
		s, ok := r.text(n)
		if ok && strings.ContainsAny(s, " \t") {
			r.errorf(n, "%s is more than one word", quote(s))
			return "", false
		}
		return s, ok
	}
	return []field{
		{"address", "The virtual address, ADDRESS[/PREFIX], of either family. Without a prefix that of a single host. Required.", into(&raw.address, word)},
		{"broadcast", "IPv4: broadcast address, + for the last address of the network. Default: none.", into(&raw.broadcast, word)},
		{"dev", "The interface that has it. Default: the instance's, or its VMAC.", into(&raw.dev, word)},
		{"scope", "global, site, link or host. Default global.", into(&raw.scope, word)},
		{"label", "IPv4: what ifconfig shows in place of the interface, eth0:1, at most 15 characters. Default: none.", into(&raw.label, word)},
	}
}

// vrrpAddress reads an address in either form.
func (r *reader) vrrpAddress(n *yaml.Node) (VRRPAddress, bool) {
	var a VRRPAddress
	var text string
	if n.Kind == yaml.MappingNode {
		var raw rawAddress
		before := len(r.errs)
		if !r.mapping(n, "a virtual address", raw.fields(r), nil) {
			return a, false
		}
		if raw.address.at == nil {
			r.errorf(n, "\"address\" is missing; write the virtual address")
		}
		if len(r.errs) > before {
			return a, false
		}
		text = raw.address.v
		for _, w := range []struct {
			word string
			o    opt[string]
		}{{"brd", raw.broadcast}, {"dev", raw.dev}, {"scope", raw.scope}, {"label", raw.label}} {
			if w.o.ok {
				text += " " + w.word + " " + w.o.v
			}
		}
	} else {
		var ok bool
		if text, ok = r.scalar(n, "a virtual address, \"192.168.56.200/24 dev eth0\""); !ok {
			return a, false
		}
	}
	if err := a.parse(text); err != nil {
		r.errorf(n, "%s", err)
		return a, false
	}
	return a, true
}

// placed is a value with the place where it is written.
type placed[T any] struct {
	v  T
	at *yaml.Node
}

// room counts what takes memory for each use of an alias; false: it is too much.
func (r *reader) room(n *yaml.Node) bool {
	if r.items++; r.items == maxItems+1 {
		r.errorf(n, "more than %d addresses, peers, routes and rules; the limit is %d", maxItems, maxItems)
	}
	return r.items <= maxItems
}

func (r *reader) vrrpAddresses(key string, to *[]placed[VRRPAddress]) func(*yaml.Node) {
	return func(n *yaml.Node) {
		*to = slices.Grow(*to, max(1, min(len(r.resolve(n).Content), maxItems-r.items)))
		r.oneOrList(n, key, func(n *yaml.Node) {
			if a, ok := r.vrrpAddress(n); ok && r.room(n) {
				*to = append(*to, placed[VRRPAddress]{a, n})
			}
		})
	}
}

// rawPeer is a unicast peer as a mapping.
type rawPeer struct {
	address  opt[netip.Addr]
	min, max opt[int]
}

func (raw *rawPeer) fields(r *reader) []field {
	return []field{
		{"address", "Address of the peer. Required.", into(&raw.address, r.address)},
		{"min_ttl", "Its advertisements are taken with a TTL of no less, 0 to 255. Default 0.", into(&raw.min, r.integer(0, 255))},
		{"max_ttl", "And of no more, 0 to 255. Default 255.", into(&raw.max, r.integer(0, 255))},
	}
}

// peer reads `IP [min_ttl N] [max_ttl N]`, or the same as a mapping.
func (r *reader) peer(n *yaml.Node) (VRRPPeer, bool) {
	var raw rawPeer
	before := len(r.errs)
	if n.Kind == yaml.MappingNode {
		r.mapping(n, "a peer", raw.fields(r), nil)
		if raw.address.at == nil && len(r.errs) == before {
			r.errorf(n, "\"address\" is missing; write the address of the peer")
		}
	} else {
		s, ok := r.scalar(n, "the address of a peer")
		if !ok {
			return VRRPPeer{}, false
		}
		words := strings.Fields(s)
		part := func(s string) *yaml.Node {
			return &yaml.Node{Kind: yaml.ScalarNode, Value: s, Line: n.Line, Column: n.Column}
		}
		if len(words) == 0 {
			r.errorf(n, "the peer is empty; write its address")
			return VRRPPeer{}, false
		}
		into(&raw.address, r.address)(part(words[0]))
		for i := 1; i < len(words); i += 2 {
			to := map[string]*opt[int]{"min_ttl": &raw.min, "max_ttl": &raw.max}[words[i]]
			if _, err := parseAddress(words[i]); err == nil {
				r.errorf(n, "peer %s: %s", words[0], another(words, i))
				break
			}
			if to == nil || i+1 == len(words) {
				r.errorf(n, "peer %s: %s is not understood; write \"ADDRESS [min_ttl N] [max_ttl N]\"", words[0], quote(strings.Join(words[i:], " ")))
				break
			}
			into(to, r.integer(0, 255))(part(words[i+1]))
		}
	}
	if len(r.errs) > before {
		return VRRPPeer{}, false
	}
	p := VRRPPeer{Address: raw.address.v, MinTTL: uint8(raw.min.or(0)), MaxTTL: uint8(raw.max.or(255))}
	switch {
	case p.Address.IsMulticast() || p.Address.IsUnspecified() || p.Address.IsLoopback() || p.Address.Zone() != "":
		r.errorf(n, "%s cannot be the address of a peer", p.Address)
	case p.MinTTL > p.MaxTTL:
		r.errorf(n, "peer %s: min_ttl %d is more than max_ttl, %d: nothing would be taken", p.Address, p.MinTTL, p.MaxTTL)
	default:
		return p, true
	}
	return p, false
}

// String is the peer in keepalived's form.
func (p VRRPPeer) String() string {
	s := p.Address.String()
	if p.MinTTL != 0 {
		s += fmt.Sprintf(" min_ttl %d", p.MinTTL)
	}
	if p.MaxTTL != 255 {
		s += fmt.Sprintf(" max_ttl %d", p.MaxTTL)
	}
	return s
}
