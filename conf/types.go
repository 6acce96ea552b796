// Package conf reads keepbeat's YAML files and turns them into the typed
// configuration that the rest of the program uses.
package conf

import (
	"net/netip"
	"time"
)

// Local is ha.yaml: what is true of this node only. It is not replicated;
// Cluster, Nodes and Quorum have to be the same on every node.
type Local struct {
	Cluster  string // name in every datagram: two clusters on one wire do not hear each other
	Name     string // this node; default: what `uname -n` says, lower case
	Nodes    []Node // in the order of the file
	Links    []Link // in the order of the file
	AuthKeys string // path; default /etc/keepbeat/authkeys
	DataDir  string // raft log, revocations, journal; default /var/lib/keepbeat
	RunDir   string // control socket; default /run/keepbeat
	ConfDir  string // where replicated files are written; default: the directory of ha.yaml
	Guard    GuardMode
	Quorum   Quorum // who decides when a node is silent; QuorumMajority with three voters and more

	// The four below are for pairs: two voters alone (QuorumFencing, QuorumPing, QuorumUnsafe).
	WaitForAll bool          // a node that has just started takes nothing before it has seen the other; default yes
	InitDead   time.Duration // how long it waits for the other when WaitForAll is off; default 30 s
	PingGroup  []netip.Addr  // QuorumPing: the tie-breaker; one that answers is enough

	Watchdog Watchdog // self-fencing

	// The three below seed version 1 of the specification; afterwards the
	// replicated value counts (Spec.Settings).
	Profile      Profile
	Autoreload   bool          // apply an edited haresources.yaml or pool by itself
	RestartLease time.Duration // lease taken before a planned restart; default 30 s

	SocketGroup string // group that may read the control socket; default: none (root only)
	AdminGroup  string // group that may also give orders there; default: none (root only)
}

// Watchdog is a device that resets this machine unless the daemon feeds it
// (Linux's /dev/watchdog).
type Watchdog struct {
	Device  string        // empty: none
	Timeout time.Duration // from the last feeding to the reset, whole seconds, 1 s to 10 min; default 10 s
}

// Node is an entry of `nodes:`.
type Node struct {
	Name string
	Role Role
}

// Role says whether a node may own resources.
type Role uint8

// Roles. The zero value is invalid.
const (
	_        Role = iota
	Director      // may own resources and votes
	Witness       // votes, owns nothing
)

// Quorum says what decides which half goes on.
type Quorum uint8

// Quorum rules. The zero value is invalid. QuorumMajority needs three voters,
// the others are for two.
const (
	_              Quorum = iota
	QuorumMajority        // `quorum: witness`: a majority of the voters
	QuorumFencing         // the survivor fences the peer before it acts
	QuorumPing            // the side that reaches the tie-breaker goes on
	QuorumUnsafe          // whoever misses the other takes over: two owners when the links are cut
)

// GuardMode says whether the kernel enforces the lease.
type GuardMode uint8

// Guard modes. The zero value is invalid.
const (
	_        GuardMode = iota
	GuardOn            // the daemon refuses to start where the kernel cannot
	GuardOff           // written out by the administrator
)

// Profile is a set of timings, DESIGN section 5.
type Profile struct {
	Name          string        `json:"name"`      // fast, default, calm, custom
	Keepalive     time.Duration `json:"keepalive"` // period of hellos on each link
	Lease         time.Duration `json:"lease"`     // length of a quorum lease
	RaftHeartbeat time.Duration `json:"raft_heartbeat"`
	RaftLease     time.Duration `json:"raft_lease"` // raft's own leader lease; at most half the heartbeat time-out
}

// The profiles of DESIGN section 5. `keepalive` and `deadtime` in ha.yaml make
// one called "custom" of them.
var (
	ProfileFast    = Profile{"fast", 40 * time.Millisecond, 200 * time.Millisecond, 80 * time.Millisecond, 40 * time.Millisecond}
	ProfileDefault = Profile{"default", 100 * time.Millisecond, 500 * time.Millisecond, 200 * time.Millisecond, 100 * time.Millisecond}
	ProfileCalm    = Profile{"calm", 250 * time.Millisecond, 2 * time.Second, 500 * time.Millisecond, 250 * time.Millisecond}
)

// LinkType is the kind of a heartbeat path.
type LinkType uint8

// Link types. The zero value is invalid.
const (
	_ LinkType = iota
	Bcast
	Mcast
	Ucast
	Serial // a null-modem line, between two nodes
)

// Link is one heartbeat path.
type Link struct {
	Type      LinkType
	Interface string       // eth1
	Port      uint16       // UDP; default 694 (IANA ha-cluster)
	Group     netip.Addr   // mcast: the group; default 225.0.0.1 (heartbeat's)
	TTL       uint8        // mcast: default 1
	Addresses []netip.Addr // ucast: the peers; own addresses are ignored, so the file can be the same everywhere
	Device    string       // serial: /dev/ttyS0
	Baud      int          // serial: default 19200, heartbeat's
}

// Name is how status and logs call the link: "bcast eth1", "mcast eth2",
// with ":port" when it is not 694, "serial /dev/ttyS0".
func (l Link) Name() string {
	if l.Type == Serial {
		return l.Type.String() + " " + l.Device
	}
	n := l.Type.String() + " " + l.Interface
	if l.Port != DefaultPort {
		n += ":" + utoa(l.Port)
	}
	return n
}

// DefaultPort is heartbeat's port, ha-cluster in the IANA registry.
const DefaultPort = 694

// Spec is the specification: what the cluster replicates, in canonical form.
// It is stored as JSON; every field must survive a round trip.
type Spec struct {
	Settings Settings        `json:"settings"`
	Groups   []Group         `json:"groups"`            // in the order of the file
	Pools    map[string]Pool `json:"pools"`             // by the plain name of the file
	Fencing  *Fencing        `json:"fencing,omitempty"` // nil: none
}

// Settings are the replicated settings.
type Settings struct {
	Profile      Profile       `json:"profile"`
	RestartLease time.Duration `json:"restart_lease"`
	Autoreload   bool          `json:"autoreload"`
}

// Group is an ordered list of resources that live together.
type Group struct {
	Name         string     `json:"name"`
	Prefer       []string   `json:"prefer"`        // best first; directors not named may own it too, last
	AutoFailback bool       `json:"auto_failback"` // return to the best of Prefer as soon as it is there; default off
	Resources    []Resource `json:"resources"`
	// Priority is what the group weighs when two nodes want to fence each
	// other: the one that has more at stake goes first. 0 to 1000; default 1.
	Priority int `json:"priority,omitempty"`
}

// Class says what makes it safe to start a resource elsewhere (DESIGN, section 4, Handover).
type Class uint8

// Classes. The zero value is invalid.
const (
	_       Class = iota
	Guarded       // the kernel's guard cuts it off: vip, ldirectord
	Fenced        // only "reported stopped" or fencing will do
	Shared        // two copies are harmless
)

// Kind names what a resource is.
type Kind string

// Resource kinds that are built.
const (
	KindVIP        Kind = "vip"
	KindLdirectord Kind = "ldirectord"
)

// Resource is one member of a group.
type Resource struct {
	Kind  Kind   `json:"kind"`
	Name  string `json:"name"` // unique in the group; default: kind and argument, "vip 192.168.56.200"
	Class Class  `json:"class"`

	StartTimeout    time.Duration `json:"start_timeout"`    // default 20 s
	StopTimeout     time.Duration `json:"stop_timeout"`     // default 20 s
	MonitorTimeout  time.Duration `json:"monitor_timeout"`  // default 20 s
	MonitorInterval time.Duration `json:"monitor_interval"` // default 10 s; kernel events are seen at once whatever it is

	VIP  *VIP   `json:"vip,omitempty"`  // kind vip
	Pool string `json:"pool,omitempty"` // kind ldirectord: key of Spec.Pools
}

// VIP is a virtual IP address.
type VIP struct {
	Address    netip.Addr `json:"address"`
	Prefix     int        `json:"prefix"`          // -1: from the routes
	Interface  string     `json:"interface"`       // empty: from the routes
	Label      string     `json:"label,omitempty"` // IPv4: without the interface, "web" of eth1:web; with it and the colon at most 15 characters
	Broadcast  netip.Addr `json:"broadcast"`       // invalid: none given
	LVSSupport bool       `json:"lvs_support,omitempty"`

	ARPCount    int           `json:"arp_count"`    // announcements after the first; default 5
	ARPInterval time.Duration `json:"arp_interval"` // between them; default 1 s
}

// Pool is one ldirectord.yaml.
type Pool struct {
	Virtuals []Virtual `json:"virtuals"`
	// CleanStop and the rest of the global values are already in each Virtual.
	Autoreload bool `json:"autoreload"`
}

// Protocol of a virtual service.
type Protocol uint8

// Protocols. The zero value is invalid.
const (
	_ Protocol = iota
	TCP
	UDP
	FWM // by firewall mark
)

// Forward is how packets reach a real server.
type Forward uint8

// Forward methods, as ldirectord.cf calls them. The zero value is invalid.
const (
	_    Forward = iota
	Gate         // direct routing
	Masq         // NAT
	IPIP         // tunnel
)

// Virtual is one virtual service.
type Virtual struct {
	Address   netip.AddrPort `json:"address"` // invalid when FWMark is set
	FWMark    uint32         `json:"fwmark,omitempty"`
	IPv6      bool           `json:"ipv6,omitempty"` // family, also of an fwmark service
	Protocol  Protocol       `json:"protocol"`
	Scheduler string         `json:"scheduler"`            // default wrr
	Flags     []string       `json:"schedflags,omitempty"` // sh-port, sh-fallback, mh-port, mh-fallback
	// Persistent is the time-out of persistence in whole seconds; 0: none.
	Persistent time.Duration `json:"persistent,omitempty"`
	// Netmask is the prefix length of the client's network for persistence: 32 or 128 when not given.
	Netmask   int    `json:"netmask"`
	Quiescent bool   `json:"quiescent"` // a failed server gets weight 0; otherwise it is removed. Default yes, as ldirectord's manual says (its code said no)
	CleanStop bool   `json:"cleanstop"` // remove the service when the group stops
	Reals     []Real `json:"reals"`
	Fallback  *Real  `json:"fallback,omitempty"` // in the table while no real server is up; not checked
	Comment   string `json:"comment,omitempty"`
}

// String is how logs and status call the service: "192.168.56.200:80 tcp", "fwmark 5".
func (v Virtual) String() string {
	if v.Protocol == FWM {
		s := "fwmark " + utoa(v.FWMark)
		if v.IPv6 {
			s += " inet6"
		}
		return s
	}
	return v.Address.String() + " " + v.Protocol.String()
}

// Real is one real server of a virtual service.
type Real struct {
	Address netip.AddrPort `json:"address"`
	Forward Forward        `json:"forward"`
	Weight  int            `json:"weight"` // 0 to 65535; default 1
	Lower   uint32         `json:"lower,omitempty"`
	Upper   uint32         `json:"upper,omitempty"`
	Check   Check          `json:"check"` // complete: every inherited value is filled in
}

// CheckType is ldirectord's checktype.
type CheckType uint8

// Check types. The zero value is invalid.
const (
	_         CheckType = iota
	Negotiate           // request and expected answer of Service
	Connect             // TCP connect; never of a UDP service, for which the reader writes Ping, as ldirectord does
	Ping                // ICMP echo
	External            // a program's exit status
	On                  // always up
	Off                 // never up
)

// Check says how a real server is checked. It is comparable: two equal values
// are the same check and are run once.
type Check struct {
	Type    CheckType      `json:"type"`
	Service string         `json:"service,omitempty"` // http, https for Negotiate
	Target  netip.AddrPort `json:"target"`            // the server's address with checkport; port 0 for Ping, On and Off

	Request     string `json:"request,omitempty"`     // path with leading slash
	Receive     string `json:"receive,omitempty"`     // regular expression (RE2) on the body; empty: any
	VirtualHost string `json:"virtualhost,omitempty"` // Host header
	HTTPMethod  string `json:"httpmethod,omitempty"`  // GET or HEAD

	TLSVerify bool   `json:"tls_verify,omitempty"` // default off, as in ldirectord
	TLSName   string `json:"tls_name,omitempty"`   // SNI and the name verified; default: VirtualHost
	TLSCA     string `json:"tls_ca,omitempty"`     // file of PEM certificates; default: the system's

	// External: Command is run with Virtual's address and port (or the mark) and the real server's.
	Command string `json:"command,omitempty"`
	Args    string `json:"args,omitempty"` // the four of ldirectord(8), blank between: address or mark, port or 0, real address, real port or 0

	Interval time.Duration `json:"interval"` // start to start; default 10 s
	Timeout  time.Duration `json:"timeout"`  // the whole check: negotiatetimeout (30 s) or checktimeout (5 s)
	Fall     int           `json:"fall"`     // failurecount: failures in a row until down; default 1
	Rise     int           `json:"rise"`     // successes in a row until up again; default 1
}
