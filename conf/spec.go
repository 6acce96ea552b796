package conf

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// HaresourcesName is the plain name of the file that describes the groups.
const HaresourcesName = "haresources.yaml"

// Files are the replicated files as an administrator wrote them.
type Files struct {
	// Name of Haresources in errors; pools are named as files of the same
	// directory. Default: haresources.yaml.
	Name        string            `json:"name"`
	Haresources []byte            `json:"haresources"`
	Pools       map[string][]byte `json:"pools"` // by plain file name; those that Haresources names, and that these execute
	// Resolver looks up the names of hosts that the pools have, when ParseSpec
	// reads them; nil: this machine's. It is not part of the files.
	Resolver Resolver `json:"-"`
	// Try looks at each check that differs from the others in more than the
	// address, as checks.NewChecker does: at what this machine has to have for
	// it. Its error becomes one of the file. nil: what the files say is enough.
	Try func(Check) error `json:"-"`
	// Warnings are what was said of the files when they were read, for who
	// hands both on. It is not part of the files.
	Warnings []Warning `json:"-"`
}

// specReader reads one haresources.yaml and what it names.
type specReader struct {
	*reader
	local    *Local
	files    Files
	spec     *Spec
	failback bool // default of auto_failback

	groupAt map[string]*yaml.Node
	vipAt   map[netip.Addr]*yaml.Node
	foreign map[string]*yaml.Node     // routers that announcers have fenced
	vridAt  map[string]placed[string] // of announcers by VRRPInstance.Key: the group
	poolAt  map[string]poolUse
	names   *names // of hosts
	tried   map[Check]bool
	fence   fenceReader
	root    *yaml.Node
	beside  string // the file beside which pools are, where it is not haresources.yaml
}

type poolUse struct {
	group string
	by    string // the pool file that executes it; empty: the group names it
	at    *yaml.Node
}

// ParseSpec reads the groups and the pools they name. Local tells the names of
// the nodes and the settings that seed the specification; with nil neither is
// checked and the settings are the defaults. The error is of type Errors.
//
// The names of hosts are looked up, for 5 s together; the result has addresses
// only. Without such names the result depends on the files alone.
func ParseSpec(files Files, local *Local) (*Spec, []Warning, error) {
	names := newNames()
	spec, warns, err := parseSpec(files, local, names)
	resolver := files.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	// Twice at most: the address of a virtual service may be a name, and tells
	// the family in which those of its real servers are looked up.
	for len(names.wanted) > 0 {
		names.ask(ctx, resolver)
		spec, warns, err = parseSpec(files, local, names)
	}
	return spec, warns, err
}

// parseSpec is ParseSpec with what is known of names.
func parseSpec(files Files, local *Local, names *names) (*Spec, []Warning, error) {
	files.Name = cmp.Or(files.Name, HaresourcesName)
	s := &specReader{
		reader: &reader{file: files.Name}, local: local, files: files, names: names,
		spec: &Spec{Settings: Settings{Profile: ProfileDefault, RestartLease: DefaultRestartLease}, Pools: map[string]Pool{}},
	}
	s.init()
	if local != nil {
		s.spec.Settings = Settings{Profile: local.Profile, RestartLease: local.RestartLease, Autoreload: local.Autoreload}
	}
	if root := s.document(files.Haresources); root != nil {
		s.haresources(root)
	}
	s.pools()
	s.together()
	err := asError(s.errs, func(file string) int {
		if file == files.Name {
			return 0
		}
		return 1
	})
	if err != nil {
		return nil, s.warns, err
	}
	return s.spec, s.warns, nil
}

// failbackMode reads on or off, and knows heartbeat's third value.
func (s *specReader) failbackMode(n *yaml.Node) (on, ok bool) {
	if n.Value == "legacy" {
		s.errorf(n, "auto_failback legacy does not exist here; write on or off")
		return false, false
	}
	return s.boolean(n)
}

func (s *specReader) init() {
	s.groupAt, s.vipAt, s.poolAt = map[string]*yaml.Node{}, map[netip.Addr]*yaml.Node{}, map[string]poolUse{}
	s.vridAt, s.foreign = map[string]placed[string]{}, map[string]*yaml.Node{}
}

// fields of haresources.yaml. Groups are read after auto_failback, wherever it is written.
func (s *specReader) fields(failback *opt[bool], groups, lines, fencing, ipvs **yaml.Node) []field {
	keep := func(to **yaml.Node) func(*yaml.Node) { return func(n *yaml.Node) { *to = n } }
	return []field{
		{"auto_failback", "on: a group returns to the node it prefers as soon as that is there again; off: it stays where it is. Default off, since a return is a second interruption.", into(failback, s.failbackMode)},
		{"groups", "The groups by name: resources that live together on one node.", keep(groups)},
		{"haresources", "The groups in heartbeat's form, a list of lines: `- director1 192.168.56.200/32/eth1 ldirectord::ldirectord.yaml`. Each is named after its first resource.", keep(lines)},
		{"fencing", "The devices that make certain from outside that a node does nothing any more (STONITH). Default: none.", keep(fencing)},
		{"ipvs", "Settings that the kernel of a director has once for all pools; what they replaced is put back. Default: as the kernel has them.", keep(ipvs)},
	}
}

// specElsewhere are the words that have no place in haresources.yaml, and where the thing is.
func specElsewhere() map[string]string {
	m := map[string]string{
		"resources":     `"resources" belongs into a group: groups: {web: {resources: [...]}}`,
		"virtual":       `"virtual" belongs into a pool, ldirectord.yaml`,
		"devices":       `"devices" belongs into "fencing": fencing: {devices: {...}}`,
		"topology":      `"topology" belongs into "fencing": fencing: {topology: {...}}`,
		"priority":      `"priority" belongs into a group: groups: {web: {priority: 10, resources: [...]}}`,
		"stonith":       `"stonith" is called "fencing": fencing: {devices: {NAME: {external: ipmi, targets: [NODE], params: {...}}}}`,
		"serial":        `"serial" belongs into ha.yaml: "links: [{serial: /dev/ttyS0}]"`,
		"baud":          `"baud" belongs into ha.yaml, to its link: "- serial: {device: /dev/ttyS0, baud: 19200}"`,
		"ping":          `"ping" is "ping_group" in ha.yaml`,
		"deadping":      `"deadping" has no use here: a node that no longer reaches ping_group stops within its lease (deadtime); take it out`,
		"stonith_host":  "",
		"vrrp":          `"vrrp" belongs into a group, below its vips: groups: {web: {resources: [{vip: 192.168.56.200/24/eth0}, {vrrp: {virtual_router_id: 51}}]}}`,
		"vrrp_instance": `"vrrp_instance" belongs into vrrp.yaml; an announcer of the cluster is a resource of a group: {vrrp: {virtual_router_id: 51}}`,
	}
	m["stonith_host"] = strings.Replace(m["stonith"], "stonith", "stonith_host", 1)
	for _, w := range strings.Fields("cluster nodes links quorum wait_for_all initdead ping_group watchdog guard profile keepalive deadtime authkeys admin_group socket_group") {
		m[w] = fmt.Sprintf("%q belongs into ha.yaml", w)
	}
	return m
}

func (s *specReader) haresources(root *yaml.Node) {
	s.root = root
	var failback opt[bool]
	var groups, lines, fencing, ipvs *yaml.Node
	if !s.mapping(root, "haresources.yaml", s.fields(&failback, &groups, &lines, &fencing, &ipvs), specElsewhere()) {
		return
	}
	s.failback = failback.or(false)
	if groups != nil {
		s.pairs(groups, "groups", s.group)
	}
	if lines != nil {
		s.list(lines, "haresources", func(_ int, n *yaml.Node) { s.oldLine(n) })
	}
	if fencing != nil {
		s.fencing(fencing)
	}
	s.checkForeign()
	if ipvs != nil {
		s.ipvs(ipvs)
	}
	if groups == nil && lines == nil {
		if s.odd > 0 {
			return
		}
		s.errorf(root, "there are no groups; write \"groups:\" (or \"haresources:\" with heartbeat's lines)")
	} else if len(s.spec.Groups) == 0 && len(s.errs) == 0 {
		s.warnf(root, "there are no groups: the cluster runs nothing")
	}
}

// groupName claims the name of a group.
func (s *specReader) groupName(n *yaml.Node, name string) bool {
	if other := s.groupAt[name]; other != nil {
		s.errorf(n, "duplicate group %s; it is already in line %d", quote(name), other.Line)
		return false
	}
	s.groupAt[name] = n
	return true
}

func groupNameOK(name string) bool {
	return name != "" && len(name) <= 64 && !strings.ContainsFunc(name, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._:", c))
	}) && name[0] != '-'
}

func (s *specReader) group(key, value *yaml.Node) {
	g := Group{Name: key.Value, Priority: DefaultPriority}
	if !groupNameOK(g.Name) {
		s.errorf(key, "%s cannot name a group: letters, digits, - . _ : and at most 64 of them", quote(g.Name))
		return
	}
	if !s.groupName(key, g.Name) {
		return
	}
	var failback opt[bool]
	var resources *yaml.Node
	fields := s.groupFields(&g, &failback, &resources)
	if !s.mapping(value, "group "+quote(g.Name), fields, nil) {
		return
	}
	g.AutoFailback = failback.or(s.failback)
	if resources == nil || resources.Kind == yaml.SequenceNode && len(resources.Content) == 0 {
		s.errorf(key, "group %s has no resources; list them: \"resources: [{vip: 192.168.56.200/24}]\"", quote(g.Name))
		return
	}
	s.list(resources, "resources", func(i int, n *yaml.Node) { s.resource(&g, n) })
	s.unannounced(&g, key)
	s.spec.Groups = append(s.spec.Groups, g)
}

func (s *specReader) groupFields(g *Group, failback *opt[bool], resources **yaml.Node) []field {
	return []field{
		{"prefer", "Directors that should own the group, the best first; a single name or a list. Directors that are not named may own it too, last.", func(n *yaml.Node) { s.prefer(g, n) }},
		{"auto_failback", "The same for this group. Default: the value for all.", into(failback, s.failbackMode)},
		{"priority", "What the group weighs when the two nodes of a pair want to fence each other: the one that has more at stake goes first. 0 to 1000. Default 1.", func(n *yaml.Node) {
			if p, ok := s.integer(0, 1000)(n); ok {
				g.Priority = p
			}
		}},
		{"resources", "What is started, in this order, and stopped in the reverse order. Required.", func(n *yaml.Node) { *resources = n }},
	}
}

func (s *specReader) prefer(g *Group, n *yaml.Node) {
	add := func(n *yaml.Node) {
		name, ok := s.nodeName(n)
		if !ok {
			return
		}
		if slices.Contains(g.Prefer, name) {
			s.errorf(n, "duplicate node %q in prefer", name)
			return
		}
		if s.isDirector(n, name) {
			g.Prefer = append(g.Prefer, name)
		}
	}
	if n.Kind == yaml.ScalarNode {
		add(n)
		return
	}
	s.list(n, "prefer", func(_ int, n *yaml.Node) { add(n) })
}

func (s *specReader) isDirector(n *yaml.Node, name string) bool {
	if s.local == nil {
		return true
	}
	var directors []string
	for _, x := range s.local.Nodes {
		if x.Name == name && x.Role == Witness {
			s.errorf(n, "%q is a witness and owns nothing; name a director", name)
			return false
		}
		if x.Name == name {
			return true
		}
		if x.Role == Director {
			directors = append(directors, x.Name)
		}
	}
	s.errorf(n, "no node is called %s%s", quote(name), didYouMean(name, directors))
	return false
}

// takeVIP claims an address.
func (s *specReader) takeVIP(n *yaml.Node, a netip.Addr) bool {
	if other := s.vipAt[a]; other != nil {
		s.errorf(n, "duplicate address %s; it is already in line %d", a, other.Line)
		return false
	}
	s.vipAt[a] = n
	return true
}

// takePool claims a pool: two groups with the same one would fight over the kernel's table.
func (s *specReader) takePool(n *yaml.Node, group, name string) bool {
	if other, ok := s.poolAt[name]; ok {
		s.errorf(n, "duplicate pool %s; group %s in line %d has it already", quote(name), quote(other.group), other.at.Line)
		return false
	}
	s.poolAt[name] = poolUse{group: group, at: n}
	return true
}

// pools reads every pool that a group names, in the order of their names.
func (s *specReader) pools() {
	names := make([]string, 0, len(s.poolAt))
	for name := range s.poolAt {
		names = append(names, name)
	}
	slices.Sort(names)
	dir := filepath.Dir(s.files.Name)
	services := map[string]located{}
	for _, name := range names {
		use := s.poolAt[name]
		if _, ok := s.files.Pools[name]; !ok {
			s.errorf(use.at, "pool %s: no such file beside haresources.yaml%s", quote(name), s.otherPools())
			continue
		}
		p := newPoolReader(filepath.Join(dir, name))
		p.names, p.try, p.stays = s.names, s.tryOnce(), s.spec.keepsTemplates()
		pool, at := s.pool(p, name, use)
		for i, v := range pool.Virtuals {
			key, here := v.String(), at[i]
			if other, ok := services[key]; ok && other.file != here.file {
				says := &reader{file: here.file}
				says.errorf(here.at, "duplicate virtual %s; it is already in %s:%d", key, other.file, other.at.Line)
				s.errs = append(s.errs, says.errs...)
			} else if !ok {
				services[key] = here
			}
			if r := v.mixed(); r != nil && s.spec.IPVS != nil && s.spec.IPVS.Sync != nil {
				says := &reader{file: here.file}
				says.errorf(here.at, "real server %s is of the other family than virtual %s, and the kernel synchronises no connections while there is such a server; take it out, or \"sync\" out of \"ipvs\" in haresources.yaml", r.Address.Addr(), v)
				s.errs = append(s.errs, says.errs...)
			}
			if a := v.Address.Addr(); len(s.errs) == 0 && v.Protocol != FWM && !s.groupHas(use.group, a) {
				s.warns = append(s.warns, Warning{File: here.file, Line: here.at.Line, Column: here.at.Column,
					Msg: fmt.Sprintf("group %s has no vip %s, so nothing brings this virtual service its packets", quote(use.group), a)})
			}
		}
		s.spec.Pools[name] = pool
	}
}

func (s *specReader) groupHas(group string, a netip.Addr) bool {
	for _, g := range s.spec.Groups {
		if g.Name != group {
			continue
		}
		for _, r := range g.Resources {
			if r.VIP != nil && r.VIP.Address == a {
				return true
			}
		}
	}
	return false
}

// otherPools suggests a file that is there and that no group names.
func (s *specReader) otherPools() string {
	var free []string
	for name := range s.files.Pools {
		if _, used := s.poolAt[name]; !used {
			free = append(free, name)
		}
	}
	if len(free) == 0 {
		return ""
	}
	slices.Sort(free)
	return didYouMean("", free)
}
