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
	"time"

	"gopkg.in/yaml.v3"
)

// VRRPName is the plain name of the file of the virtual routers.
const VRRPName = "vrrp.yaml"

// Defaults of vrrp.yaml, keepalived's.
const (
	DefaultVRRPPriority   = 100
	DefaultVRRPInterval   = time.Second
	DefaultVRRPAdverts    = 3 // RFC 9568, 6.1: Active_Down_Interval
	DefaultScriptInterval = time.Second
	DefaultUnicastTTL     = 255
	DefaultGARPRepeat     = 5
	DefaultGARPDelay      = 5 * time.Second
)

// DefaultVRRPGroup is the group of a family: 224.0.0.18 or ff02::12 (RFC 9568, 5.1.1.2 and 5.1.2.2).
func DefaultVRRPGroup(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.MustParseAddr("ff02::12")
	}
	return netip.AddrFrom4([4]byte{224, 0, 0, 18})
}

// VRRPFiles are vrrp.yaml and the pools beside it.
type VRRPFiles struct {
	Name  string            // in errors; pools are named as files of the same directory. Default: vrrp.yaml
	Data  []byte            // of vrrp.yaml
	Pools map[string][]byte // by plain file name; those that Data names, and that these execute

	// Secret reads the password of an auth_pass_file. Its error must not have
	// the password in it. nil: ReadSecret.
	Secret func(path string) (string, error)
	// Resolver and Try are those of Files, for the pools.
	Resolver Resolver
	Try      func(Check) error

	parsed *parsedYAML // of Data; nil: not yet
}

// parsedYAML is a file of which no more is known than that it is YAML, or why it is not.
type parsedYAML struct {
	root  *yaml.Node // nil: it is not
	errs  []*Error
	warns []Warning
}

func parseYAML(name string, data []byte) *parsedYAML {
	r := &reader{file: name}
	root := r.document(data)
	return &parsedYAML{root, r.errs, r.warns}
}

// vrrpReader reads one vrrp.yaml. What others refer to is read before them,
// wherever it is written.
type vrrpReader struct {
	*reader
	files  VRRPFiles
	v      *VRRP
	global vrrpGlobals

	tracked   map[string]map[string]placed[VRRPTrack] // by key (track_script) and name: its own weight
	instances map[string]*rawInstance
	broken    map[string]bool // instances with a fault: what is missed elsewhere may be in it
	hosts     *names

	next *rawInstance // what keys read into
	keys []field      // of an instance
}

// rawVRRP is vrrp.yaml as it is written.
type rawVRRP struct {
	globals, scripts, processes, files, files2, groups, instances, pools *yaml.Node
}

// ParseVRRP reads vrrp.yaml and the pools that it names. The names of hosts in
// pools are looked up, for 5 s together. The error is of type Errors, and no
// message has a password in it.
func ParseVRRP(files VRRPFiles) (*VRRP, []Warning, error) {
	files.Name = cmp.Or(files.Name, VRRPName)
	if files.Secret == nil {
		files.Secret = ReadSecret
	}
	if files.parsed == nil {
		files.parsed = parseYAML(files.Name, files.Data)
	}
	resolver := files.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	hosts := newNames()
	v, warns, err := parseVRRP(files, hosts)
	for len(hosts.wanted) > 0 { // twice at most, as in ParseSpec
		hosts.ask(ctx, resolver)
		v, warns, err = parseVRRP(files, hosts)
	}
	return v, warns, err
}

// parseVRRP is ParseVRRP with what is known of names.
func parseVRRP(files VRRPFiles, hosts *names) (*VRRP, []Warning, error) {
	p := &vrrpReader{
		reader: &reader{file: files.Name, flags: true, errs: slices.Clone(files.parsed.errs), warns: slices.Clone(files.parsed.warns)}, files: files,
		v:       &VRRP{Places: Places{files.Name, map[netip.Addr]LineColumn{}, map[string]LineColumn{}}},
		tracked: map[string]map[string]placed[VRRPTrack]{}, instances: map[string]*rawInstance{}, broken: map[string]bool{}, hosts: hosts,
	}
	if root := files.parsed.root; root != nil {
		p.read(root)
	}
	err := asError(p.errs, func(file string) int {
		if file == files.Name {
			return 0
		}
		return 1
	})
	if err != nil {
		return nil, p.warns, err
	}
	return p.v, p.warns, nil
}

func (raw *rawVRRP) fields() []field {
	keep := func(to **yaml.Node) func(*yaml.Node) { return func(n *yaml.Node) { *to = n } }
	return []field{
		{"global_defs", "What holds for all instances, a mapping: the mails, and the defaults of VRRP.", keep(&raw.globals)},
		{"vrrp_script", "Programs that tell whether something is well, by name.", keep(&raw.scripts)},
		{"vrrp_track_process", "Programs that have to run, by name.", keep(&raw.processes)},
		{"track_file", "Files with a number that changes priorities, by name.", keep(&raw.files)},
		{"vrrp_track_file", "The same as track_file.", keep(&raw.files2)},
		{"vrrp_instance", "The virtual routers, by name. Required.", keep(&raw.instances)},
		{"vrrp_sync_group", "Instances that are master together or not at all, by the name of the group.", keep(&raw.groups)},
		{"pools", "IPVS pools that this machine runs without a cluster, a list: `- ldirectord.yaml`, or `- {ldirectord: ldirectord.yaml, instance: VI_1}`. Default: none.", keep(&raw.pools)},
	}
}

func (p *vrrpReader) read(root *yaml.Node) {
	var raw rawVRRP
	if !p.mapping(root, VRRPName, raw.fields(), vrrpElsewhere()) {
		return
	}
	p.readGlobals(raw.globals)
	p.section(raw.scripts, "vrrp_script", p.script)
	p.section(raw.processes, "vrrp_track_process", p.process)
	if raw.files != nil && raw.files2 != nil {
		p.errorf(raw.files2, "track_file and vrrp_track_file are the same; write all files under one of them")
	}
	p.section(raw.files, "track_file", p.trackFile)
	p.section(raw.files2, "vrrp_track_file", p.trackFile)
	if raw.instances == nil && p.odd == 0 {
		p.errorf(root, "\"vrrp_instance\" is missing; write \"vrrp_instance: {VI_1: {interface: eth0, virtual_router_id: 51, virtual_ipaddress: [192.168.56.200/24]}}\"")
	}
	if raw.instances != nil {
		p.v.Instances = make([]VRRPInstance, 0, min(len(raw.instances.Content)/2, maxSection))
	}
	p.section(raw.instances, "vrrp_instance", p.instance)
	if raw.instances != nil && len(p.instances) == 0 && len(p.errs) == 0 {
		p.errorf(raw.instances, "\"vrrp_instance\" is empty; write at least one: \"VI_1: {interface: eth0, virtual_router_id: 51, virtual_ipaddress: [192.168.56.200/24]}\"")
	}
	p.section(raw.groups, "vrrp_sync_group", p.syncGroup)
	p.together()
	p.readPools(raw.pools)
}

// vrrpNamed are the keys of the file behind which keepalived.conf has a name.
// (track_file, which is one, too, stands also in instances, without a name.)
var vrrpNamed = map[string]bool{
	"vrrp_instance": true, "vrrp_script": true, "vrrp_sync_group": true, "vrrp_track_process": true, "vrrp_track_file": true,
}

// another is the fault of a value in which several lines of keepalived.conf have
// become one: YAML folds them. next is the word with which the second begins.
func another(words []string, next int) error {
	first := strings.Join(words[:next], " ")
	return fmt.Errorf("%s begins another one; write a list, each behind a dash: %s, %s", quote(words[next]), quote("- "+first), quote("- "+words[next]))
}

// Limits of one file, ten times what anybody has. An alias makes much of little.
const (
	maxSection = 10_000  // instances, sync groups, scripts, processes, files: each
	maxItems   = 100_000 // addresses, peers, routes and rules together
)

// section reads a mapping of names; each name once.
func (p *vrrpReader) section(n *yaml.Node, what string, each func(key, value *yaml.Node)) {
	if n == nil {
		return
	}
	seen := map[string]*yaml.Node{}
	p.pairs(n, what, func(key, value *yaml.Node) {
		name := key.Value
		if len(seen) >= maxSection {
			if len(seen) == maxSection {
				seen[""] = key // said once
				p.errorf(key, "more than %d entries of %s; the limit is %d", maxSection, what, maxSection)
			}
			return
		}
		if !vrrpNameOK(name) {
			p.errorf(key, "%s cannot name a %s: at most 64 ASCII characters, no blanks or quotes, not beginning with -", quote(name), what)
			return
		}
		if first := seen[name]; first != nil {
			p.errorf(key, "duplicate %s %s; it is already in line %d", what, quote(name), first.Line)
			return
		}
		seen[name] = key
		each(key, value)
	})
}

// vrrpNameOK: names are arguments of programs, and words of lines in this file.
func vrrpNameOK(name string) bool {
	return name != "" && len(name) <= 64 && name[0] != '-' &&
		!strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7F || strings.ContainsRune("\"'`\\", c) })
}

// place remembers where something stands, for what is found later.
func (p *vrrpReader) place(what string, n *yaml.Node) {
	p.v.Places.Others[what] = LineColumn{int32(n.Line), int32(n.Column)}
}

// LoadVRRP reads vrrp.yaml and the pools beside it.
func LoadVRRP(path string) (*VRRP, []Warning, error) {
	files, err := ReadVRRPFiles(path)
	if err != nil {
		return nil, nil, err
	}
	v, warns, err := ParseVRRP(files)
	if w, is := exposed(path, files.Data); is {
		warns = append(warns, w)
	}
	return v, append(warns, Exposed(Files{Name: path, Pools: files.Pools})...), err
}

// ReadVRRPFiles reads vrrp.yaml, the pools that it names and the files that
// these execute, unchecked. A pool that does not exist is left out; ParseVRRP
// says where it is named. Data is not to be changed any more.
func ReadVRRPFiles(path string) (VRRPFiles, error) {
	data, err := readFile(path)
	if err != nil {
		return VRRPFiles{}, err
	}
	files := VRRPFiles{Name: path, Data: data, parsed: parseYAML(path, data)}
	files.Pools, err = readPools(filepath.Dir(path), namedVRRPPools(files.parsed.root))
	return files, err
}

// Key is what has to be unique on a machine: two with the same one would answer
// for the same virtual router.
func (i *VRRPInstance) Key() string {
	family := "IPv4"
	if i.IPv6 {
		family = "IPv6"
	}
	return fmt.Sprintf("VRID %d of %s on %s", i.VRID, family, i.Interface)
}
