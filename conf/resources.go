package conf

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Defaults of resources, those of the OCF agents.
const (
	DefaultOpTimeout       = 20 * time.Second
	DefaultMonitorInterval = 10 * time.Second
	DefaultARPCount        = 5
	DefaultARPInterval     = time.Second
	DefaultPool            = "ldirectord.yaml"
	DefaultPriority        = 1 // of a group
)

// Kinds returns the kinds of resources that are built.
func Kinds() []Kind { return []Kind{KindVIP, KindLdirectord, KindRealServer, KindVRRP} }

func kindList() string {
	s := ""
	for i, k := range Kinds() {
		if i > 0 {
			s += ", "
		}
		s += string(k)
	}
	return s
}

// DefaultResource returns a resource of a kind with the defaults of all that is not the kind's own.
func DefaultResource(k Kind) Resource {
	return Resource{Kind: k, Class: Guarded,
		StartTimeout: DefaultOpTimeout, StopTimeout: DefaultOpTimeout,
		MonitorTimeout: DefaultOpTimeout, MonitorInterval: DefaultMonitorInterval}
}

// options are the keys of a resource beside its kind.
type options struct {
	name                       opt[string]
	class                      opt[Class]
	start, stop, monitor, each opt[time.Duration]
}

func (s *specReader) optionFields(o *options) []field {
	const day = 24 * time.Hour
	timeout := s.duration(10*time.Millisecond, day)
	return []field{
		{"name", "Name, unique in the group. Default: kind and argument, \"vip 192.168.56.200\".", into(&o.name, s.text)},
		{"class", "What makes it safe to start the resource elsewhere: guarded (the kernel cuts it off), fenced (only a stop that was reported, or fencing), shared (two copies are harmless). Default: guarded for vip, ldirectord and vrrp, shared for realserver.", into(&o.class, s.class)},
		{"start_timeout", "How long a start may take, 10ms to 24h. Default 20s.", into(&o.start, timeout)},
		{"stop_timeout", "How long a stop may take, 10ms to 24h. Default 20s.", into(&o.stop, timeout)},
		{"monitor_timeout", "How long a look at the resource may take, 10ms to 24h. Default 20s.", into(&o.monitor, timeout)},
		{"monitor_interval", "Time between two looks, 10ms to 24h; what the kernel tells is seen at once. Default 10s.", into(&o.each, timeout)},
	}
}

func (s *specReader) class(n *yaml.Node) (Class, bool) {
	return oneOf(s.reader, []string{"guarded", "fenced", "shared"}, Guarded, Fenced, Shared)(n)
}

// resource reads one entry of `resources:`.
func (s *specReader) resource(g *Group, n *yaml.Node) {
	var o options
	var kindKey, kindValue *yaml.Node
	fields := s.optionFields(&o)
	isOption := func(key string) *field {
		for i := range fields {
			if fields[i].name == key {
				return &fields[i]
			}
		}
		return nil
	}
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		s.errorf(n, "a resource is its kind and its argument, not %s; write \"- vip: ADDRESS/PREFIX/INTERFACE\" or \"- ldirectord: %s\"", quote(n.Value), DefaultPool)
		return
	}
	seen := map[string]*yaml.Node{}
	var unknown []*yaml.Node
	if !s.pairs(n, "a resource", func(key, value *yaml.Node) {
		if first := seen[key.Value]; first != nil {
			s.errorf(key, "duplicate key %s; it is already in line %d", quote(key.Value), first.Line)
			return
		}
		seen[key.Value] = key
		switch f := isOption(key.Value); {
		case f != nil:
			f.read(value)
		case !slices.Contains(Kinds(), Kind(key.Value)):
			unknown = append(unknown, key)
		case kindKey != nil:
			s.errorf(key, "a resource has one kind, and this one is %s already; put %s into an entry of its own with a \"-\" before it", quote(kindKey.Value), quote(key.Value))
		default:
			kindKey, kindValue = key, value
		}
	}) {
		return
	}
	for _, key := range unknown {
		s.unknownKind(key, key.Value, kindKey != nil, fields)
	}
	if kindKey == nil {
		if len(unknown) == 0 {
			s.errorf(n, "the resource has no kind; kinds that exist: %s", kindList())
		}
		return
	}
	if r, ok := s.kind(g, kindKey, kindValue); ok {
		s.finish(g, kindKey, r, o)
	}
}

func (s *specReader) unknownKind(n *yaml.Node, word string, hasKind bool, fields []field) {
	known := []string{}
	for _, k := range Kinds() {
		known = append(known, string(k))
	}
	if hasKind {
		for _, f := range fields {
			known = append(known, f.name)
		}
		s.errorf(n, "unknown key %s%s", quote(word), didYouMean(word, known))
		return
	}
	for _, f := range fields {
		known = append(known, f.name)
	}
	hint := ""
	if m := nearest(word, known); m != "" {
		hint = fmt.Sprintf("; did you mean %q?", m)
	}
	s.errorf(n, "unknown kind of resource %s; kinds that exist: %s%s", quote(word), kindList(), hint)
}

// kind reads the argument of a resource.
func (s *specReader) kind(g *Group, key, value *yaml.Node) (Resource, bool) {
	r := DefaultResource(Kind(key.Value))
	switch r.Kind {
	case KindVIP:
		v, ok := s.vip(value)
		if !ok || !s.takeVIP(value, v.Address) {
			return r, false
		}
		r.VIP = &v
	case KindLdirectord:
		name, ok := s.scalar(value, "the name of a pool file, "+DefaultPool)
		if !ok {
			return r, false
		}
		if err := checkPoolName(name, HaresourcesName); err != nil {
			s.errorf(value, "%s", err)
			return r, false
		}
		if !s.takePool(value, g.Name, name) {
			return r, false
		}
		r.Pool = name
	case KindRealServer:
		r.Class = Shared // every real server has the address
		var ok bool
		if r.RealServer, ok = s.realServers(value); !ok {
			return r, false
		}
	case KindVRRP:
		var ok bool
		if r.VRRP, ok = s.announcer(g, key, value); !ok {
			return r, false
		}
	}
	return r, true
}

// finish lays the options over the defaults and appends the resource to its group.
func (s *specReader) finish(g *Group, n *yaml.Node, r Resource, o options) {
	switch r.Kind {
	case KindVIP:
		r.Name = "vip " + r.VIP.Address.String()
	case KindLdirectord:
		r.Name = "ldirectord " + r.Pool
	case KindRealServer:
		r.Name = "realserver " + r.RealServer[0].Address.String()
	case KindVRRP:
		r.Name = r.VRRP.name()
	}
	r.Name = o.name.or(r.Name)
	r.Class = o.class.or(r.Class)
	r.StartTimeout, r.StopTimeout = o.start.or(r.StartTimeout), o.stop.or(r.StopTimeout)
	r.MonitorTimeout, r.MonitorInterval = o.monitor.or(r.MonitorTimeout), o.each.or(r.MonitorInterval)
	for _, other := range g.Resources {
		if other.Name == r.Name {
			s.errorf(n, "duplicate resource name %s in group %s", quote(r.Name), quote(g.Name))
			return
		}
	}
	if r.Class == Fenced && s.fence.fencedAt == nil {
		s.fence.fencedAt = n
	}
	g.Resources = append(g.Resources, r)
}

// checkPoolName refuses what could lead out of the directory of the configuration.
func checkPoolName(s, beside string) error {
	bad := func(c rune) bool { return c <= ' ' || c == '/' || c == '\\' || c >= 0x7F }
	switch {
	case s == "" || strings.ContainsFunc(s, bad) || s[0] == '.' || len(s) > 100 || filepath.Base(s) != s:
		return fmt.Errorf("%s is not a plain file name; pools are files beside %s, such as %s", quote(s), beside, DefaultPool)
	case strings.HasSuffix(s, ".cf"):
		return fmt.Errorf("%s: pools are YAML here; write %s", quote(s), strings.TrimSuffix(s, ".cf")+".yaml")
	case s == HaresourcesName || s == "ha.yaml" || s == "authkeys" || s == VRRPName:
		return fmt.Errorf("%s is not a pool", quote(s))
	}
	return nil
}

// vip reads the argument of kind vip, short or long.
func (s *specReader) vip(n *yaml.Node) (VIP, bool) {
	v := VIP{Prefix: -1, ARPCount: DefaultARPCount, ARPInterval: DefaultARPInterval}
	if n.Kind == yaml.ScalarNode {
		text, ok := s.scalar(n, "ADDRESS[/PREFIX[/INTERFACE[:LABEL]]][/BROADCAST]")
		if !ok {
			return v, false
		}
		err := v.parse(text)
		if err == nil {
			err = v.check()
		}
		if err != nil {
			s.errorf(n, "%s", err)
		}
		return v, err == nil
	}
	before := len(s.errs)
	var address, broadcast opt[netip.Addr]
	if !s.mapping(n, "a vip", s.vipFields(&v, &address, &broadcast), nil) {
		return v, false
	}
	if address.at == nil {
		s.errorf(n, "\"address\" is missing; write the virtual IP address")
		return v, false
	}
	v.Address, v.Broadcast = address.v, broadcast.v
	if len(s.errs) > before {
		return v, false
	}
	if err := v.check(); err != nil {
		s.errorf(n, "%s", err)
		return v, false
	}
	return v, true
}

func (s *specReader) vipFields(v *VIP, address, broadcast *opt[netip.Addr]) []field {
	str := func(to *string, parse func(*yaml.Node) (string, bool)) func(*yaml.Node) {
		return func(n *yaml.Node) { *to, _ = parse(n) }
	}
	return []field{
		{"address", "The virtual IP address, IPv4 or IPv6. Required.", into(address, s.address)},
		{"prefix", "Length of its prefix, or an IPv4 netmask. Default: from the routes.", func(n *yaml.Node) {
			if text, ok := s.scalar(n, "the length of a prefix"); ok {
				bits := 128 // the address may come later; check compares
				if strings.Contains(text, ".") {
					bits = 32
				}
				p, err := parsePrefixLength(text, bits)
				if err != nil {
					s.errorf(n, "%s", err)
					return
				}
				v.Prefix = p
			}
		}},
		{"interface", "The network interface. Default: the one of the route to the address.", str(&v.Interface, s.iface)},
		{"label", "IPv4: what follows the interface and a colon in the label that ifconfig shows, eth1:web; together at most 15 characters. Default: none.", str(&v.Label, s.text)},
		{"broadcast", "IPv4: broadcast address. Default: none.", into(broadcast, s.address)},
		{"lvs_support", "Take the address from lo while it is active here, and put it back afterwards: for a director that is also a real server. Default no.", func(n *yaml.Node) { v.LVSSupport, _ = s.boolean(n) }},
		{"arp_count", "Announcements (gratuitous ARP, neighbour advertisements) after the first, 0 to 100. Default 5.", func(n *yaml.Node) {
			if c, ok := s.integer(0, 100)(n); ok {
				v.ARPCount = c
			}
		}},
		{"arp_interval", "Time between announcements, 10ms to 1m. Default 1s.", func(n *yaml.Node) {
			if d, ok := s.duration(10*time.Millisecond, time.Minute)(n); ok {
				v.ARPInterval = d
			}
		}},
	}
}

// parse reads heartbeat's ADDRESS[/PREFIX[/INTERFACE[:LABEL]]][/BROADCAST].
func (v *VIP) parse(text string) error {
	parts := strings.Split(text, "/")
	var err error
	if v.Address, err = parseAddress(parts[0]); err != nil {
		return err
	}
	bits := 128
	if v.Address.Is4() {
		bits = 32
	}
	rest := parts[1:]
	if len(rest) > 0 {
		if v.Prefix, err = parsePrefixLength(rest[0], bits); err != nil {
			return err
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		if b, err := netip.ParseAddr(rest[0]); err == nil && len(rest) == 1 {
			v.Broadcast = b.Unmap()
			return nil
		}
		var hasLabel bool
		if v.Interface, v.Label, hasLabel = strings.Cut(rest[0], ":"); hasLabel && v.Label == "" {
			return fmt.Errorf("%s: the label after the colon is empty", quote(text))
		}
		if err := checkInterface(v.Interface); err != nil {
			return err
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		b, err := netip.ParseAddr(rest[0])
		if err != nil || len(rest) > 1 {
			return fmt.Errorf("%s is not understood; write ADDRESS[/PREFIX[/INTERFACE[:LABEL]]][/BROADCAST]", quote(text))
		}
		v.Broadcast = b.Unmap()
	}
	return nil
}

// parsePrefixLength reads a prefix length, or for IPv4 a netmask.
func parsePrefixLength(s string, bits int) (int, error) {
	if bits == 32 || strings.Count(s, ".") == 3 {
		if m, err := netip.ParseAddr(s); err == nil && m.Is4() {
			b := m.As4()
			mask := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
			ones := 0
			for ; ones < 32 && mask&(1<<(31-ones)) != 0; ones++ {
			}
			if mask<<ones != 0 && ones < 32 || ones == 0 || bits == 128 {
				return 0, fmt.Errorf("%s is not a netmask that can be used here; write the length of the prefix, 1 to %d", quote(s), bits)
			}
			return ones, nil
		}
	}
	v, err := parseNumber(s, 1, int64(bits))
	if err != nil {
		return 0, fmt.Errorf("prefix: %w", err)
	}
	return int(v), nil
}

// check looks at the parts of a VIP together.
func (v *VIP) check() error {
	a := v.Address
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s cannot be a virtual IP address", a)
	}
	if a.Zone() != "" {
		return fmt.Errorf("%s: write the interface behind the prefix, %s/64/%s", a, a.WithZone(""), a.Zone())
	}
	if v.Prefix > a.BitLen() {
		return fmt.Errorf("prefix: %d is out of range: 1 to %d", v.Prefix, a.BitLen())
	}
	if a.Is6() && v.Label != "" {
		return fmt.Errorf("label %s: IPv6 addresses have no labels; take it out", quote(v.Label))
	}
	if v.Broadcast.IsValid() && (a.Is6() || !v.Broadcast.Is4()) {
		return fmt.Errorf("broadcast %s: IPv6 has no broadcast addresses; take it out", v.Broadcast)
	}
	if v.Label != "" {
		if strings.ContainsFunc(v.Label, func(c rune) bool { return c <= ' ' || c >= 0x7F || c == '/' }) {
			return fmt.Errorf("label %s has characters that cannot be in a label", quote(v.Label))
		}
		if n := max(1, len(v.Interface)) + 1 + len(v.Label); n > maxInterface {
			return fmt.Errorf("label %s is too long: interface, colon and label have %d characters, the kernel allows %d", quote(v.Label), n, maxInterface)
		}
	}
	return nil
}
