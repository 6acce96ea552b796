package conf

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Defaults of ha.yaml.
const (
	DefaultCluster      = "linux-ha" // heartbeat's
	DefaultAuthKeys     = "/etc/keepbeat/authkeys"
	DefaultDataDir      = "/var/lib/keepbeat"
	DefaultRunDir       = "/run/keepbeat"
	DefaultRestartLease = 30 * time.Second
)

const (
	maxNodesNamed = 100 // heartbeat's limit
	maxVoters     = 7   // DESIGN section 3: up to seven nodes vote
	maxNodeName   = 64  // HOST_NAME_MAX of Linux
)

// rawLocal is ha.yaml as it is written.
type rawLocal struct {
	cluster, name               opt[string]
	nodes                       []rawNode
	nodesAt, linksAt            *yaml.Node
	nodesFaulty                 bool // so counting them says nothing
	links                       []rawLink
	udpport                     opt[int]
	authkeys, data, run, conf   opt[string]
	socketGroup, adminGroup     opt[string]
	watchdog                    opt[Watchdog]
	guard                       opt[GuardMode]
	quorum                      opt[Quorum]
	profile                     opt[Profile]
	keepalive, deadtime, retain opt[time.Duration]
	autoreload                  opt[bool]
	rawPair
}

type rawNode struct {
	Node
	at *yaml.Node
}

// ParseLocal reads ha.yaml. The name is used in errors, and its directory is
// the default of ConfDir; hostname is what `uname -n` says. The error is of
// type Errors.
func ParseLocal(name string, data []byte, hostname string) (*Local, []Warning, error) {
	r := &reader{file: name}
	var raw rawLocal
	if root := r.document(data); root != nil {
		if r.mapping(root, "ha.yaml", raw.fields(r), localElsewhere()) {
			l := raw.local(r, root, hostname)
			if err := asError(r.errs, oneFile); err != nil {
				return nil, r.warns, err
			}
			return l, r.warns, nil
		}
	}
	return nil, r.warns, asError(r.errs, oneFile)
}

func oneFile(string) int { return 0 }

func (raw *rawLocal) fields(r *reader) []field {
	profiles := []string{"fast", "default", "calm"}
	return slices.Concat([]field{
		{"cluster", "Name of the cluster, in every datagram: two clusters on one wire do not hear each other. The same on every node. Default linux-ha.", into(&raw.cluster, r.clusterName)},
		{"name", "Name of this node. Default: what `uname -n` says. Has to be one of nodes.", into(&raw.name, r.nodeName)},
		{"nodes", "The nodes: NAME: {} for a director, NAME: {role: witness} for a node that votes and owns nothing. The same on every node. Required.", raw.readNodes(r)},
		{"links", "The heartbeat paths between the nodes: `- bcast: eth1`, `- mcast: {interface: eth1, group: 225.0.0.1, port: 694, ttl: 1}`, `- ucast: {interface: eth1, addresses: [10.0.0.1, 10.0.0.2]}`, between two nodes also `- serial: /dev/ttyS0`. There should be two or more, on separate wires. Required.", raw.readLinks(r)},
		{"udpport", "Port of every link that names none, 1 to 65535. Default 694.", into(&raw.udpport, r.integer(1, 65535))},
		{"authkeys", "File of the keys that authenticate and encrypt the links. Default /etc/keepbeat/authkeys.", into(&raw.authkeys, r.path)},
		{"data_dir", "Directory of the replicated log, the revocations and the journal. Default /var/lib/keepbeat.", into(&raw.data, r.path)},
		{"run_dir", "Directory of the control socket. Default /run/keepbeat.", into(&raw.run, r.path)},
		{"conf_dir", "Directory of haresources.yaml and the pools. Default: the directory of ha.yaml.", into(&raw.conf, r.path)},
		{"guard", "on: the kernel cuts the addresses of a node off when its lease has run out, and the daemon refuses to start where the kernel cannot. off: nothing does. Default on.", into(&raw.guard, r.guardMode)},
		{"quorum", "Who decides when a node is silent. witness: the majority of three nodes or more, and the default of those. Two directors alone have to choose: fencing (the survivor fences the other before it acts), ping (the side that reaches ping_group goes on; two owners when both reach it and not each other), unsafe (whoever misses the other takes over: two owners when the links are cut). The same on every node.", into(&raw.quorum, r.quorumRule)},
	}, raw.rawPair.fields(r), []field{
		{"watchdog", "A watchdog device that resets this machine when the daemon no longer feeds it: `/dev/watchdog`, or `{device: /dev/watchdog, timeout: 10s}`. Default: none.", into(&raw.watchdog, r.watchdog)},
		{"profile", "The timings: fast (lease 200ms), default (500ms) or calm (2s, for busy or virtual machines). Seeds the replicated value. Default default.", into(&raw.profile, oneOf(r, profiles, ProfileFast, ProfileDefault, ProfileCalm))},
		{"keepalive", "Period of the hellos on each link, 10ms to 10s. Default: the profile's.", into(&raw.keepalive, r.duration(10*time.Millisecond, 10*time.Second))},
		{"deadtime", "Length of the lease: a silent node is dead after it, 100ms to 60s and more than twice keepalive. Default: the profile's.", into(&raw.deadtime, r.duration(100*time.Millisecond, time.Minute))},
		{"autoreload", "Whether an edited haresources.yaml or pool is applied without `keepbeat apply`. Seeds the replicated value. Default no.", into(&raw.autoreload, r.boolean)},
		{"restart_lease", "Lease taken before a planned restart of the daemon, so that nothing moves meanwhile, 1s to 10m. Seeds the replicated value. Default 30s.", into(&raw.retain, r.duration(time.Second, 10*time.Minute))},
		{"socket_group", "Group that may read the control socket. Default: none, root only.", into(&raw.socketGroup, r.text)},
		{"admin_group", "Group that may also give orders there. Default: none, root only.", into(&raw.adminGroup, r.text)},
	})
}

// localElsewhere are the words of ha.cf that have no place in ha.yaml, and where the thing is now.
func localElsewhere() map[string]string {
	const (
		timings  = "%q has no use here: %s; take it out"
		replaced = "%q is not a key of ha.yaml: %s"
	)
	m := map[string]string{}
	m["stonith"] = `"stonith": devices are the cluster's and belong into haresources.yaml: fencing: {devices: {NAME: {external: ipmi, targets: [NODE], params: {...}}}}`
	m["stonith_host"] = `"stonith_host": devices are the cluster's and belong into haresources.yaml: fencing: {devices: {NAME: {external: ipmi, targets: [NODE], run_on: [NODE], params: {...}}}}`
	m["fencing"] = `"fencing" belongs into haresources.yaml: devices are the cluster's, and that file is replicated`
	m["ping"] = `"ping": a pair with "quorum: ping" lists the addresses that decide: "ping_group: [10.0.0.254]"`
	m["ping6"] = m["ping"]
	m["hbaping"] = `"hbaping": nodes are not reached over Fibre Channel here; take it out`
	m["respawn"] = `"respawn": programs are started by systemd; make a unit of it`
	m["failfast"] = m["respawn"]
	m["apiauth"] = `"apiauth": the control socket is root's; "socket_group" names a group that may read it`
	m["vrrp_instance"] = `"vrrp_instance" belongs into vrrp.yaml`
	m["quorum_server"] = `"quorum_server": use a witness: nodes: {arbiter: {role: witness}}`
	m["autojoin"] = `"autojoin": every node is named under "nodes"`
	for w, why := range map[string]string{
		"warntime":         "a link is late after two keepalives",
		"deadping":         "a node that no longer reaches ping_group stops within its lease (deadtime)",
		"hbgenmethod":      "every start of the daemon has its own incarnation",
		"hopfudge":         "there are no serial rings",
		"compression":      "streams are not compressed",
		"msgfmt":           "there is one format",
		"max_rexmit_delay": "QUIC sends again what is lost",
		"realtime":         "the guard in the kernel keeps the promise when the daemon is late",
		"rtprio":           "the guard in the kernel keeps the promise when the daemon is late",
		"memreserve":       "Go reserves its own memory",
		"uuidfrom":         "the identity of a node is its name and its data directory",
		"use_logd":         "logs go to the journal",
		"logfile":          "logs go to the journal: journalctl -u keepbeat",
		"debugfile":        "logs go to the journal: journalctl -u keepbeat",
		"logfacility":      "logs go to the journal: journalctl -u keepbeat",
		"debug":            "the level of the logs is an option of `keepbeat run`",
		"coredumps":        "systemd decides on core dumps",
		"coreroot":         "systemd decides on core dumps",
		"log_badpack":      "bad datagrams are counted and logged at a limited rate",
		"env":              "set the environment in the systemd unit",
	} {
		m[w] = fmt.Sprintf(timings, w, why)
	}
	for _, w := range strings.Fields("compression_threshold traditional_compression conn_logd_time syslogmsgfmt use_apphbd normalpoll crm_daemon_dir crmd_spawns_pengine record_config_changes record_pengine_inputs enable_config_writes tipc rds") {
		m[w] = fmt.Sprintf("%q of ha.cf has no use here; take it out", w)
	}
	for w, where := range map[string]string{
		"node":          `nodes are listed under "nodes", one line each: "director1: {}"`,
		"bcast":         `links are listed under "links": "- bcast: eth1"`,
		"udp":           `links are listed under "links": "- bcast: eth1"`,
		"mcast":         `links are listed under "links": "- mcast: eth1 225.0.0.1 694 1 0"`,
		"mcast6":        `links are listed under "links": "- mcast: {interface: eth1, group: \"ff02::1234\"}"`,
		"ucast":         `links are listed under "links": "- ucast: eth1 10.0.0.2"`,
		"ucast6":        `links are listed under "links": "- ucast: eth1 2001:db8::2"`,
		"serial":        `links are listed under "links": "- serial: /dev/ttyS0"`,
		"baud":          `it belongs to its link: "- serial: {device: /dev/ttyS0, baud: 19200}"`,
		"auto_failback": "it is in haresources.yaml, for all groups or for each",
		"nice_failback": `it was the opposite of "auto_failback", which is in haresources.yaml`,
		"groups":        "it belongs into haresources.yaml",
		"haresources":   "it belongs into haresources.yaml",
		"virtual":       "it belongs into ldirectord.yaml",
		"crm":           "keepbeat is the resource manager; groups are in haresources.yaml",
		"pacemaker":     "keepbeat is the resource manager; groups are in haresources.yaml",
	} {
		m[w] = fmt.Sprintf(replaced, w, where)
	}
	return m
}

func (r *reader) clusterName(n *yaml.Node) (string, bool) {
	s, ok := r.text(n)
	if ok && (len(s) > 64 || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7F })) {
		r.errorf(n, "%s cannot name a cluster: at most 64 ASCII characters, no blanks", quote(s))
		return "", false
	}
	return s, ok
}

func (r *reader) nodeName(n *yaml.Node) (string, bool) {
	s, ok := r.scalar(n, "the name of a node")
	if !ok {
		return "", false
	}
	if err := checkNodeName(s); err != nil {
		r.errorf(n, "%s", err)
		return "", false
	}
	return strings.ToLower(s), true
}

func checkNodeName(s string) error {
	bad := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_')
	}
	if s == "" || len(s) > maxNodeName || strings.ContainsFunc(s, bad) || strings.Trim(s, "-.") != s {
		return fmt.Errorf("%s cannot name a node; write what `uname -n` says there: letters, digits, - . _, at most %d", quote(s), maxNodeName)
	}
	return nil
}

func (r *reader) guardMode(n *yaml.Node) (GuardMode, bool) {
	on, ok := r.boolean(n)
	if on {
		return GuardOn, ok
	}
	return GuardOff, ok
}

// readNodes reads the mapping of nodes, or a list of their names.
func (raw *rawLocal) readNodes(r *reader) func(*yaml.Node) {
	add := func(key *yaml.Node, role Role) {
		name, ok := r.nodeName(key)
		if !ok {
			return
		}
		for _, other := range raw.nodes {
			if other.Name == name {
				r.errorf(key, "duplicate node %q; it is already in line %d", name, other.at.Line)
				return
			}
		}
		if raw.nodes = append(raw.nodes, rawNode{Node{name, role}, key}); len(raw.nodes) == maxNodesNamed+1 {
			r.errorf(key, "more than %d nodes; the limit is %d", maxNodesNamed, maxNodesNamed)
		}
	}
	return func(n *yaml.Node) {
		raw.nodesAt = n
		before := len(r.errs)
		defer func() { raw.nodesFaulty = len(r.errs) > before }()
		if n.Kind == yaml.SequenceNode {
			r.list(n, "nodes", func(_ int, n *yaml.Node) { add(n, Director) })
			return
		}
		r.pairs(n, "nodes", func(key, value *yaml.Node) {
			role := opt[Role]{}
			if !isNull(value) {
				fields := []field{{"role", "director or witness. Default director.", into(&role, oneOf(r, []string{"director", "witness"}, Director, Witness))}}
				r.mapping(value, "node "+quote(key.Value), fields, nil)
			}
			if len(raw.nodes) <= maxNodesNamed {
				add(key, role.or(Director))
			}
		})
	}
}

// local checks what is written as a whole.
func (raw *rawLocal) local(r *reader, root *yaml.Node, hostname string) *Local {
	l := &Local{
		Cluster:      raw.cluster.or(DefaultCluster),
		Name:         raw.name.or(strings.ToLower(hostname)),
		AuthKeys:     raw.authkeys.or(DefaultAuthKeys),
		DataDir:      raw.data.or(DefaultDataDir),
		RunDir:       raw.run.or(DefaultRunDir),
		ConfDir:      raw.conf.or(filepath.Dir(r.file)),
		Guard:        raw.guard.or(GuardOn),
		Quorum:       raw.quorum.or(QuorumMajority),
		Profile:      raw.profile.or(ProfileDefault),
		Autoreload:   raw.autoreload.or(false),
		RestartLease: raw.retain.or(DefaultRestartLease),
		SocketGroup:  raw.socketGroup.or(""),
		AdminGroup:   raw.adminGroup.or(""),
		Watchdog:     raw.watchdog.or(Watchdog{}),
	}
	if raw.guard.ok && l.Guard == GuardOff {
		r.warnf(raw.guard.at, "guard: off: a daemon that hangs keeps its addresses while another node takes them over; for tests only")
	}
	raw.timings(r, l)
	raw.checkNodes(r, root, l, hostname)
	raw.checkLinks(r, root, l)
	return l
}

// timings lays keepalive and deadtime over the profile.
func (raw *rawLocal) timings(r *reader, l *Local) {
	if !raw.keepalive.ok && !raw.deadtime.ok {
		return
	}
	p := &l.Profile
	name := p.Name
	p.Name = "custom"
	p.Keepalive = raw.keepalive.or(p.Keepalive)
	if raw.deadtime.ok {
		// The proportions are those of the profiles: raft's own time-outs fit into a lease twice.
		p.Lease = raw.deadtime.v
		p.RaftHeartbeat = p.Lease * 2 / 5
		p.RaftLease = p.RaftHeartbeat / 2
	}
	if p.Lease <= 2*p.Keepalive {
		at := raw.deadtime.at
		if at == nil {
			at = raw.keepalive.at
		}
		r.errorf(at, "deadtime (%s) has to be more than twice keepalive (%s); leave both out to have those of profile %s", brief(p.Lease), brief(p.Keepalive), name)
	}
}

func (raw *rawLocal) checkNodes(r *reader, root *yaml.Node, l *Local, hostname string) {
	if raw.nodesAt == nil {
		if r.odd > 0 {
			return
		}
		r.errorf(root, "\"nodes\" is missing; name the nodes, one line each: \"director1: {}\"")
		return
	}
	if len(raw.nodes) == 0 {
		if !raw.nodesFaulty {
			r.errorf(raw.nodesAt, "\"nodes\" is empty; name the nodes, one line each: \"director1: {}\"")
		}
		return
	}
	directors := 0
	names := make([]string, len(raw.nodes))
	for i, n := range raw.nodes {
		l.Nodes = append(l.Nodes, n.Node)
		names[i] = n.Name
		if n.Role == Director {
			directors++
		}
	}
	at := raw.nodes[0].at
	switch {
	case raw.name.at != nil && !raw.name.ok:
	case slices.Contains(names, l.Name):
	case raw.name.ok:
		r.errorf(raw.name.at, "this node, %s, is not among the nodes (%s)", quote(l.Name), strings.Join(names, ", "))
	default:
		r.errorf(at, "this node is called %s (uname -n) and is not among the nodes (%s); correct the list, or the host name", quote(hostname), strings.Join(names, ", "))
	}
	if raw.nodesFaulty {
		return
	}
	if directors == 0 {
		r.errorf(at, "no node is a director, so none may own anything; take out the role of those that should")
	}
	switch n := len(raw.nodes); {
	case n == 1:
		r.warnf(at, "one node alone: nobody takes over when it dies")
	case n > maxVoters:
		r.warnf(raw.nodes[maxVoters].at, "only the first %d nodes vote; %s and those after it follow without a vote", maxVoters, raw.nodes[maxVoters].Name)
	}
	raw.checkQuorum(r, l, directors)
}
