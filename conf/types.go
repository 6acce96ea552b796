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
	IPVS     *IPVS           `json:"ipvs,omitempty"`    // nil: the kernel's settings are left as they are
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
	Guarded       // the kernel's guard cuts it off: vip, ldirectord, vrrp
	Fenced        // only "reported stopped" or fencing will do
	Shared        // two copies are harmless
)

// Kind names what a resource is.
type Kind string

// Resource kinds that are built.
const (
	KindVIP        Kind = "vip"
	KindLdirectord Kind = "ldirectord"
	KindRealServer Kind = "realserver"
	KindVRRP       Kind = "vrrp"
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

	VIP        *VIP         `json:"vip,omitempty"`        // kind vip
	Pool       string       `json:"pool,omitempty"`       // kind ldirectord: key of Spec.Pools
	RealServer []RealServer `json:"realserver,omitempty"` // kind realserver
	VRRP       *Announcer   `json:"vrrp,omitempty"`       // kind vrrp
}

// RealServer is a virtual address that a machine takes without answering for it
// on the wire: the other side of forward methods gate and ipip. It is comparable.
type RealServer struct {
	Address netip.Addr `json:"address"`
	Forward Forward    `json:"forward"` // Gate or IPIP
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

// Pool is one ldirectord.yaml, with the files that it executes.
type Pool struct {
	Virtuals []Virtual `json:"virtuals"`
	// CleanStop and the rest of the global values are already in each Virtual.
	Autoreload bool `json:"autoreload"`
	// Executes are the plain names of the files that are parts of the pool; their services are in Virtuals.
	Executes []string `json:"executes,omitempty"`

	// MaintenanceDir is a directory, on each director for itself, in which a
	// file named after a server (ADDRESS:PORT, ADDRESS, NAME or NAME:PORT) takes it out.
	MaintenanceDir string `json:"maintenancedir,omitempty"`
	// Callback is a program, an absolute path, that is run on every director
	// after a new version has been written to its files, with the path of the
	// pool as argument. Its failure is logged and changes nothing.
	Callback string `json:"callback,omitempty"`
	Email    Email  `json:"email,omitzero"` // about starting, stopping and reloading the pool
}

// Email says who is told what. It is comparable.
type Email struct {
	To     string        `json:"to,omitempty"`     // addresses with commas between; empty: nobody is told
	From   string        `json:"from,omitempty"`   // default: root@NODE
	Server string        `json:"server,omitempty"` // HOST[:PORT] of an SMTP server, port 25 without one; empty: the local sendmail
	Every  time.Duration `json:"every,omitempty"`  // emailalertfreq: said again while the server is down; 0: once
	Status string        `json:"status,omitempty"` // emailalertstatus: all, none, or of starting, running, stopping, reloading, with commas; default all
}

// Protocol of a virtual service.
type Protocol uint8

// Protocols. The zero value is invalid.
const (
	_ Protocol = iota
	TCP
	UDP
	FWM // by firewall mark
	SCTP
)

// Forward is how packets reach a real server.
type Forward uint8

// Forward methods, as ldirectord.cf calls them. The zero value is invalid.
const (
	_    Forward = iota
	Gate         // direct routing
	Masq         // NAT
	IPIP         // tunnel; Real.Tunnel says of which kind
)

// Tunnel is what packets of forward method ipip are put into.
type Tunnel uint8

// Tunnels. The zero value is a plain IP-in-IP tunnel.
const (
	TunnelIPIP Tunnel = iota
	TunnelGUE         // UDP to Real.TunnelPort (Linux 5.3)
	TunnelGRE         // Linux 5.4
)

// Checksum says what the UDP or GRE header of a tunnel carries.
type Checksum uint8

// Checksums. The zero value is none.
const (
	ChecksumNone   Checksum = iota
	ChecksumFull            // csum
	ChecksumRemote          // remcsum: remote checksum offload, GUE only
)

// Virtual is one virtual service.
type Virtual struct {
	Address   netip.AddrPort `json:"address"` // invalid when FWMark is set
	FWMark    uint32         `json:"fwmark,omitempty"`
	IPv6      bool           `json:"ipv6,omitempty"` // family, also of an fwmark service
	Protocol  Protocol       `json:"protocol"`
	Scheduler string         `json:"scheduler"`                    // default wrr
	Flags     []string       `json:"schedflags,omitempty"`         // sh-port, sh-fallback, mh-port, mh-fallback, flag-1 to flag-3
	OPS       bool           `json:"ops,omitempty"`                // one-packet scheduling, UDP only
	Engine    string         `json:"persistence_engine,omitempty"` // "sip": persistence by the Call-ID, UDP only
	// Persistent is the time-out of persistence in whole seconds; 0: none.
	Persistent time.Duration `json:"persistent,omitempty"`
	// Netmask is the prefix length of the client's network for persistence: 32 or 128 when not given.
	Netmask   int  `json:"netmask"`
	Quiescent bool `json:"quiescent"` // a failed server gets weight 0; otherwise it is removed. Default yes, as ldirectord's manual says (its code said no)
	CleanStop bool `json:"cleanstop"` // remove the service when the group stops
	// ReaddQuiescent: a server that somebody has removed from the table comes back with weight 0 until its next check.
	ReaddQuiescent bool   `json:"readdquiescent,omitempty"`
	Reals          []Real `json:"reals"`
	Name           string `json:"servicename,omitempty"` // shown in status, logs and mails
	Comment        string `json:"comment,omitempty"`

	// Fallbacks stand in the table while the service has no quorum: the first
	// one that is up, with its weight. Their Check is On unless one is asked for.
	Fallbacks []Real `json:"fallbacks,omitempty"`
	// FallbackCommand is a program, an absolute path, that is run with "start"
	// when the fallback begins and "stop" when it ends, then address:port (or
	// the mark), protocol and the name of the service.
	FallbackCommand string `json:"fallbackcommand,omitempty"`

	// Quorum is the sum of weights of servers that are up which the service
	// needs: it is lost below Quorum-Hysteresis, or without any server, and is
	// there again from Quorum+Hysteresis (keepalived's rule). Default 1, 0.
	Quorum     int    `json:"quorum,omitempty"` // 0 counts as 1
	Hysteresis int    `json:"hysteresis,omitempty"`
	QuorumUp   string `json:"quorum_up,omitempty"`   // program run when quorum is gained
	QuorumDown string `json:"quorum_down,omitempty"` // and when it is lost
	// Alpha: servers are down until a check has succeeded; otherwise one that
	// was in the table when the pool started stays until a check has failed.
	Alpha bool `json:"alpha,omitempty"`
	// Omega: QuorumDown and the servers' NotifyDown are run too when the pool stops.
	Omega bool `json:"omega,omitempty"`
	// SlowStart is the time in which the weight of a server that has come up
	// grows from 1 to what is configured; 0: at once.
	SlowStart   time.Duration `json:"slow_start,omitempty"`
	MonitorFile string        `json:"monitorfile,omitempty"` // a line for every change of a server's state, an absolute path
	Email       Email         `json:"email,omitzero"`
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
	Host    string         `json:"host,omitempty"` // the name that Address was resolved from when the version was made
	Forward Forward        `json:"forward"`
	Weight  int            `json:"weight"` // 0 to 65535; default 1
	Lower   uint32         `json:"lower,omitempty"`
	Upper   uint32         `json:"upper,omitempty"`

	// Tunnel, TunnelPort and TunnelChecksum are for IPIP.
	Tunnel         Tunnel   `json:"tunnel,omitempty"`
	TunnelPort     uint16   `json:"tunnel_port,omitempty"` // GUE
	TunnelChecksum Checksum `json:"tunnel_checksum,omitempty"`

	Check Check   `json:"check"`          // complete: every inherited value is filled in
	Also  []Check `json:"also,omitempty"` // more checks: the server is up while all of them say so

	NotifyUp   string `json:"notify_up,omitempty"`   // program run when the server comes up
	NotifyDown string `json:"notify_down,omitempty"` // and when it goes down
}

// CheckType is ldirectord's checktype.
type CheckType uint8

// Check types. The zero value is invalid.
const (
	_         CheckType = iota
	Negotiate           // request and expected answer of Service
	Connect             // TCP or SCTP connect; never of a UDP service, for which the reader writes Ping, as ldirectord does
	Ping                // ICMP echo
	External            // a program's exit status
	On                  // always up
	Off                 // never up
	File                // a file's content: the operator's switch
)

// Check says how a real server is checked. It is comparable: two equal values
// are the same check and are run once.
type Check struct {
	Type    CheckType      `json:"type"`
	Service string         `json:"service,omitempty"` // of Negotiate, a name of Services(); "sctp" of a Connect by SCTP
	Target  netip.AddrPort `json:"target"`            // the server's address with checkport; port 0 for Ping, On, Off and File
	// Connects is ldirectord's checktype N: so many plain connects follow each
	// negotiate that succeeded; a connect that fails is followed by a negotiate.
	Connects int `json:"connects,omitempty"`
	Count    int `json:"count,omitempty"` // Ping: checkcount, echoes until it has failed; 0 counts as 3

	// Request and Receive mean what the service makes of them: path and
	// expression on the body (http), DN and expression on it (ldap), query and
	// expression on a value (mysql, pgsql), name and expression on the answers
	// (dns), file and expression on its content (ftp), text and expression on
	// the answer (simpletcp), URI (sip).
	Request string `json:"request,omitempty"`
	Receive string `json:"receive,omitempty"` // regular expression (RE2); empty: any

	Login      string `json:"login,omitempty"`
	Passwd     string `json:"passwd,omitempty"`      // a secret: never shown
	PasswdFile string `json:"passwd_file,omitempty"` // in place of Passwd: an absolute path on each director
	Database   string `json:"database,omitempty"`
	Secret     string `json:"secret,omitempty"` // radius; a secret: never shown
	SecretFile string `json:"secret_file,omitempty"`

	// http, https, http_proxy, grpc.
	VirtualHost string `json:"virtualhost,omitempty"` // Host header
	HTTPMethod  string `json:"httpmethod,omitempty"`  // GET, HEAD, POST, PUT, OPTIONS
	Status      string `json:"status,omitempty"`      // wanted codes, "200-299,401"; empty: 200-299
	Digest      string `json:"digest,omitempty"`      // of the body in lower-case hex: "md5:..." or "sha256:..."
	Headers     string `json:"headers,omitempty"`     // "Name: value" lines, \n between
	Body        string `json:"body,omitempty"`
	HTTPVersion string `json:"http_version,omitempty"` // "1.0", "1.1", "2"; empty: 1.1, and 2 of grpc

	HeloName string `json:"helo_name,omitempty"` // smtp, smtps, submission: who says EHLO; empty: the address literal of the probe's source

	// UDP: dns and sip ask by UDP, otherwise over TCP; as the virtual service, UDP for a mark.
	UDP        bool   `json:"udp,omitempty"`
	RecordType string `json:"record_type,omitempty"` // dns: A, AAAA, NS, CNAME, SOA, MX, TXT, PTR, SRV; empty: A, or PTR of an address

	// udp: Payload is sent; a reply must come when ReplyHex or a length is given.
	Payload  string `json:"payload,omitempty"`   // hex
	ReplyHex string `json:"reply_hex,omitempty"` // hex, x matches any digit; the reply begins with it
	ReplyMin int    `json:"reply_min,omitempty"` // bytes, 0 to 65507
	ReplyMax int    `json:"reply_max,omitempty"` // 0: no limit

	STARTTLS  bool   `json:"starttls,omitempty"`   // smtp, submission, pop, imap, nntp, ftp, ldap, pgsql, mysql
	TLSVerify bool   `json:"tls_verify,omitempty"` // default off, as in ldirectord
	TLSName   string `json:"tls_name,omitempty"`   // SNI and the name verified; default: VirtualHost
	TLSCA     string `json:"tls_ca,omitempty"`     // file of PEM certificates; default: the system's
	TLSMin    string `json:"tls_min,omitempty"`    // 1.0, 1.1, 1.2, 1.3; empty: 1.0, as old servers need
	TLSCert   string `json:"tls_cert,omitempty"`   // client certificate, PEM file
	TLSKey    string `json:"tls_key,omitempty"`    // its key, PEM file; empty: in TLSCert

	// External: Command is run with Virtual's address and port (or the mark) and the real server's.
	Command string `json:"command,omitempty"`
	Args    string `json:"args,omitempty"` // the four of ldirectord(8), blank between: address or mark, port or 0, real address, real port or 0
	Perl    bool   `json:"perl,omitempty"` // external-perl: Command is a file for perl
	User    string `json:"user,omitempty"` // whom it runs as; empty: the daemon's user
	// Dynamic: exit statuses 2 to 255 give the weight, status - 2, as
	// keepalived's misc_dynamic; of File, the number in the file is the weight.
	Dynamic bool   `json:"dynamic,omitempty"`
	Path    string `json:"path,omitempty"` // File: an absolute path

	// Where the probe comes from; what is zero is the kernel's choice.
	Source    netip.Addr `json:"source,omitzero"`
	Interface string     `json:"interface,omitempty"`
	Mark      uint32     `json:"mark,omitempty"` // SO_MARK

	Interval     time.Duration `json:"interval"`                // start to start; default 10 s
	IntervalDown time.Duration `json:"interval_down,omitempty"` // while the server is down; 0: Interval
	Jitter       time.Duration `json:"jitter,omitempty"`        // each start is put off by a random part of it
	Timeout      time.Duration `json:"timeout"`                 // the whole check: negotiatetimeout (30 s) or checktimeout (5 s)
	Fall         int           `json:"fall"`                    // failurecount: failures in a row until down; default 1
	Rise         int           `json:"rise"`                    // successes in a row until up again; default 1
}
