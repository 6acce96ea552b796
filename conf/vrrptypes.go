package conf

import (
	"net/netip"
	"time"
)

// VRRP is vrrp.yaml: the virtual routers of this machine. It is local, is not
// replicated, and needs no cluster. Words are those of keepalived.conf.
type VRRP struct {
	RouterID string `json:"router_id,omitempty"` // in mails; default: the name of the machine

	// The three below are of a machine without ha.yaml, which has them otherwise.
	RunDir      string `json:"run_dir"`                // control socket and journals; default /run/keepbeat
	SocketGroup string `json:"socket_group,omitempty"` // group that may read the control socket; default: none (root only)
	AdminGroup  string `json:"admin_group,omitempty"`  // group that may also give orders there; default: none (root only)

	Email Email `json:"email,omitzero"` // notification_email, notification_email_from, smtp_server

	Instances  []VRRPInstance  `json:"instances"` // vrrp_instance, in the order of the file
	SyncGroups []VRRPSyncGroup `json:"sync_groups,omitempty"`

	Scripts   []VRRPScript  `json:"scripts,omitempty"`   // vrrp_script
	Processes []VRRPProcess `json:"processes,omitempty"` // vrrp_track_process
	Files     []VRRPFile    `json:"files,omitempty"`     // track_file

	Pools []VRRPPool `json:"pools,omitempty"`

	// Places are where things of the file stand, for messages: addresses,
	// VRRPInstance.Key, "pool ldirectord.yaml".
	Places Places `json:"-"`
}

// Places are where things of a file stand.
type Places struct {
	File      string
	Addresses map[netip.Addr]LineColumn
	Others    map[string]LineColumn // "pool NAME", VRRPInstance.Key
}

// LineColumn is a place in a file, from 1.
type LineColumn struct{ Line, Column int32 }

// VRRPInstance is a virtual router: a VRID on an interface for one family.
type VRRPInstance struct {
	Name      string `json:"name"`
	Version   uint8  `json:"version"` // 2 (RFC 3768) or 3 (RFC 9568); default 2, IPv6: 3
	IPv6      bool   `json:"ipv6,omitempty"`
	VRID      uint8  `json:"vrid"`     // virtual_router_id, 1 to 255
	Priority  uint8  `json:"priority"` // 1 to 255, 255: owner of the addresses; default 100
	Master    bool   `json:"master,omitempty"`
	Interface string `json:"interface"`
	// Interval is advert_int: version 2 whole seconds, 1 to 255; version 3 10 ms to 40.95 s in steps of 10 ms. Default 1 s.
	Interval    time.Duration `json:"interval"`
	DownAdverts int           `json:"down_adverts"` // down_timer_adverts, 1 to 100; default 3 (the RFC's)
	// ChecksumWithoutPseudo is v3_checksum_as_v2: version 3 over IPv4 with a checksum over the message alone.
	ChecksumWithoutPseudo bool `json:"checksum_without_pseudo,omitempty"`

	// Password is auth_pass of auth_type PASS, version 2 only, at most 8 bytes.
	// It goes over the wire in clear text: it keeps mistakes out, nobody else.
	Password string `json:"password,omitempty"`

	Source     netip.Addr `json:"source"`          // mcast_src_ip, unicast_src_ip; invalid: the interface's own
	Group      netip.Addr `json:"group"`           // mcast_dst_ip; default 224.0.0.18, ff02::12
	Peers      []VRRPPeer `json:"peers,omitempty"` // unicast_peer; empty: multicast
	UnicastTTL uint8      `json:"unicast_ttl"`     // of what is sent to peers; default 255

	Preempt      bool          `json:"preempt"`       // default yes
	PreemptDelay time.Duration `json:"preempt_delay"` // 0 to 1000 s: how long a master of lower priority is left to be one
	// LowerAdvert: a master answers an advertisement of lower priority at once (RFC 9568, 6.4.3); default yes.
	LowerAdvert  bool `json:"lower_advert"`
	HigherAdvert bool `json:"higher_advert,omitempty"` // higher_prio_send_advert: a last one before it yields
	Accept       bool `json:"accept"`                  // packets to the addresses are taken; default yes. An owner always does

	VMAC     string `json:"vmac,omitempty"`      // use_vmac: name of the macvlan, default vrrp.VRID, IPv6: vrrp6.VRID; empty: none
	VMACBase bool   `json:"vmac_base,omitempty"` // vmac_xmit_base: advertisements from the interface itself

	Addresses []VRRPAddress `json:"addresses"`          // virtual_ipaddress: in the packet
	Excluded  []VRRPAddress `json:"excluded,omitempty"` // virtual_ipaddress_excluded: beyond it
	Routes    []VRRPRoute   `json:"routes,omitempty"`   // virtual_routes
	Rules     []VRRPRule    `json:"rules,omitempty"`    // virtual_rules

	GARP VRRPAnnounce `json:"garp"`

	TrackInterfaces []VRRPTrack `json:"track_interfaces,omitempty"` // beside its own, which is always tracked unless DontTrack
	TrackScripts    []VRRPTrack `json:"track_scripts,omitempty"`
	TrackProcesses  []VRRPTrack `json:"track_processes,omitempty"`
	TrackFiles      []VRRPTrack `json:"track_files,omitempty"`
	DontTrack       bool        `json:"dont_track,omitempty"` // dont_track_primary

	Notify VRRPNotify `json:"notify,omitzero"`
}

// VRRPPeer is a unicast peer. Its advertisements are taken with a TTL in the bounds only.
type VRRPPeer struct {
	Address netip.Addr `json:"address"`
	MinTTL  uint8      `json:"min_ttl"` // default 0
	MaxTTL  uint8      `json:"max_ttl"` // default 255
}

// VRRPAddress is a virtual address: `IP[/PREFIX] [brd IP] [dev IF] [scope S] [label L]`.
type VRRPAddress struct {
	Address   netip.Prefix `json:"address"`             // 32 or 128 without a prefix
	Interface string       `json:"interface,omitempty"` // dev; empty: the instance's, or its VMAC
	Broadcast netip.Addr   `json:"broadcast"`           // invalid: none
	Label     string       `json:"label,omitempty"`     // IPv4, at most 15 characters, "eth0:1"
	Scope     uint8        `json:"scope,omitempty"`     // RT_SCOPE_*: 0 global, 253 link, 254 host, 200 site
}

// VRRPRoute is a route that exists while the instance is master, the most used part of iproute2's words.
type VRRPRoute struct {
	To        netip.Prefix `json:"to"` // 0.0.0.0/0: default
	Via       netip.Addr   `json:"via"`
	Source    netip.Addr   `json:"source"`
	Interface string       `json:"interface,omitempty"`
	Table     uint32       `json:"table,omitempty"` // 0: main
	Metric    uint32       `json:"metric,omitempty"`
	MTU       uint32       `json:"mtu,omitempty"`
	OnLink    bool         `json:"onlink,omitempty"`
	Scope     uint8        `json:"scope,omitempty"` // default as `ip route` has it: link without via, otherwise global
	Type      uint8        `json:"type"`            // RTN_*: 1 unicast, 6 blackhole, 7 unreachable, 8 prohibit
	Protocol  uint8        `json:"protocol,omitempty"`
}

// VRRPRule is a policy rule that exists while the instance is master.
type VRRPRule struct {
	From      netip.Prefix `json:"from"` // invalid: all
	To        netip.Prefix `json:"to"`
	IIF       string       `json:"iif,omitempty"`
	OIF       string       `json:"oif,omitempty"`
	FWMark    uint32       `json:"fwmark,omitempty"`
	Table     uint32       `json:"table"`
	Priority  uint32       `json:"priority,omitempty"` // 0: the kernel chooses
	Prohibits bool         `json:"prohibits,omitempty"`
}

// VRRPAnnounce says how a new master tells the network (gratuitous ARP, unsolicited neighbour advertisements).
type VRRPAnnounce struct {
	Repeat        int           `json:"repeat"`         // garp_master_repeat, rounds at once and again after Delay; default 5
	Delay         time.Duration `json:"delay"`          // garp_master_delay; default 5 s, 0: no second burst
	Refresh       time.Duration `json:"refresh"`        // garp_master_refresh; default 0: never again
	RefreshRepeat int           `json:"refresh_repeat"` // default 1
	LowerRepeat   int           `json:"lower_repeat"`   // garp_lower_prio_repeat, after an advertisement of lower priority; default Repeat
	LowerDelay    time.Duration `json:"lower_delay"`    // garp_lower_prio_delay; default Delay
	Interval      time.Duration `json:"interval"`       // vrrp_garp_interval: between two packets on an interface; default 0
}

// VRRPTrack is what an instance looks at besides its interface.
type VRRPTrack struct {
	Name string `json:"name"`
	// Weight changes the priority: while it is well for a positive one, while it
	// is not for a negative one. 0: while it is not well, the instance is in
	// state FAULT. -253 to 253, of a process or file -254 to 254.
	Weight  int  `json:"weight"`
	Reverse bool `json:"reverse,omitempty"` // the weight counts with its sign changed; with 0, well is what is wrong
}

// VRRPScript is a program that tells by its exit status, 0, that something is well.
type VRRPScript struct {
	Name     string        `json:"name"`
	Command  []string      `json:"command"` // the program and its arguments; without a shell unless it is one
	Interval time.Duration `json:"interval"`
	Timeout  time.Duration `json:"timeout"` // default: Interval
	Weight   int           `json:"weight"`
	Reverse  bool          `json:"reverse,omitempty"`
	Rise     int           `json:"rise"`
	Fall     int           `json:"fall"`
	User     string        `json:"user,omitempty"`      // default: script_user, else the daemon's
	InitFail bool          `json:"init_fail,omitempty"` // not well until it has said so
}

// VRRPProcess is a program that has to run.
type VRRPProcess struct {
	Name    string        `json:"name"`
	Process []string      `json:"process"` // its name, and the beginning of its arguments with Arguments
	Weight  int           `json:"weight"`
	Reverse bool          `json:"reverse,omitempty"`
	Quorum  int           `json:"quorum"`     // so many at least; default 1
	Most    int           `json:"quorum_max"` // and so many at most; 0: no limit
	Delay   time.Duration `json:"delay"`      // before a change counts (fork_delay and terminate_delay as well)
	Full    bool          `json:"full_command,omitempty"`
}

// VRRPFile is a file with a number in it, which is multiplied by the weight and added to the priority.
type VRRPFile struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Weight  int    `json:"weight"` // default 1
	Reverse bool   `json:"reverse,omitempty"`
}

// VRRPNotify says what is run when the state changes: an absolute path and
// arguments each. Notify gets INSTANCE or GROUP, the name, the state and the priority after its own.
type VRRPNotify struct {
	Master []string `json:"master,omitempty"`
	Backup []string `json:"backup,omitempty"`
	Fault  []string `json:"fault,omitempty"`
	Stop   []string `json:"stop,omitempty"`
	Notify []string `json:"notify,omitempty"`
	User   string   `json:"user,omitempty"`
	Mail   bool     `json:"mail,omitempty"` // smtp_alert
}

// VRRPSyncGroup is instances that are master together, or none of them.
type VRRPSyncGroup struct {
	Name      string     `json:"name"`
	Instances []string   `json:"instances"`
	Notify    VRRPNotify `json:"notify,omitzero"`
	Weights   bool       `json:"weights,omitempty"` // sync_group_tracking_weight: weights count in its instances too

	TrackInterfaces []VRRPTrack `json:"track_interfaces,omitempty"`
	TrackScripts    []VRRPTrack `json:"track_scripts,omitempty"`
	TrackProcesses  []VRRPTrack `json:"track_processes,omitempty"`
	TrackFiles      []VRRPTrack `json:"track_files,omitempty"`
}

// VRRPPool is a pool that this machine runs without a cluster.
type VRRPPool struct {
	File     string `json:"file"`               // ldirectord.yaml beside vrrp.yaml
	Instance string `json:"instance,omitempty"` // while this one is master; empty: always, as keepalived has it
	Pool     Pool   `json:"pool"`
}

// Conflict says what the owner of a group does about a foreign master of higher priority.
type Conflict uint8

// What is done about a foreign master. The zero value is invalid.
const (
	_             Conflict = iota
	ConflictYield          // the group is reported as failed here, and nothing is announced
	ConflictKeep           // it goes on announcing; there are two masters
	ConflictFence          // as keep, and Foreign is fenced
)

// Announcer is a resource of kind vrrp: the owner of a group tells by VRRP which
// addresses it has. Raft decides, VRRP tells.
type Announcer struct {
	Instance   VRRPInstance `json:"instance"` // Addresses: those of the group's vips, unless given
	OnConflict Conflict     `json:"on_conflict"`
	Foreign    string       `json:"foreign,omitempty"` // ConflictFence: a target of fencing devices that is no node of the cluster
}
