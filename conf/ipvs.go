package conf

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Defaults of connection synchronisation, the kernel's.
const (
	DefaultSyncPort = 8848
	DefaultSyncTTL  = 1
)

// DefaultSyncGroup is the multicast group of the kernel's synchronisation, 224.0.0.81.
func DefaultSyncGroup() netip.Addr { return netip.AddrFrom4([4]byte{224, 0, 0, 81}) }

// IPVS are the settings that a kernel has once for all its virtual services,
// `ipvs:` of haresources.yaml. A director has them while a pool is started on
// it; what they replaced is put back. A nil pointer and a zero time-out leave
// the kernel's value alone, but for ExpireQuiescentTemplate.
type IPVS struct {
	Timeouts IPVSTimeouts `json:"timeouts,omitzero"`

	ExpireNodestConn        *bool `json:"expire_nodest_conn,omitempty"`        // connections of a server that was removed end at once
	ExpireQuiescentTemplate *bool `json:"expire_quiescent_template,omitempty"` // persistence ends with weight 0; nil: true while a started pool has a service that is persistent
	ConnReuseMode           *int  `json:"conn_reuse_mode,omitempty"`           // 0 to 3: a client port used again goes to 0 the same server; 1 another when the old connection is in TIME_WAIT; 2, 3 also in FIN_WAIT
	SloppyTCP               *bool `json:"sloppy_tcp,omitempty"`                // a connection may begin without a SYN

	Sync *IPVSSync `json:"sync,omitempty"` // nil: connections are not synchronised
}

// IPVSTimeouts are how long an idle connection stays in the table, whole
// seconds from 1 s to 31 days; 0: the kernel's (15 min, 2 min, 5 min).
type IPVSTimeouts struct {
	TCP    time.Duration `json:"tcp,omitempty"`
	TCPFin time.Duration `json:"tcpfin,omitempty"` // after a FIN was seen
	UDP    time.Duration `json:"udp,omitempty"`
}

// IPVSSync is the synchronisation of the connection table: the kernel of the
// owner sends, those of the other directors receive.
type IPVSSync struct {
	Interface string     `json:"interface"`
	ID        int        `json:"id"`               // 0 to 255; default 1 to 255 from the name of the cluster. A receiver with 0 takes what every sender sends
	Port      uint16     `json:"port"`             // UDP; default 8848
	Group     netip.Addr `json:"group"`            // multicast, of either family; default 224.0.0.81
	TTL       uint8      `json:"ttl"`              // 1 to 255; default 1
	MaxLen    int        `json:"maxlen,omitempty"` // bytes of a message; 0: what the interface's MTU allows
}

// rawIPVS is `ipvs:` of haresources.yaml as it is written.
type rawIPVS struct {
	timeouts, sync          *yaml.Node
	nodest, quiescent, slop opt[bool]
	reuse                   opt[int]
}

func (raw *rawIPVS) fields(r *reader) []field {
	keep := func(to **yaml.Node) func(*yaml.Node) { return func(n *yaml.Node) { *to = n } }
	return []field{
		{"timeouts", "How long an idle connection stays in the table, a mapping.", keep(&raw.timeouts)},
		{"expire_nodest_conn", "Whether the connections of a real server that was removed end at once, so that the clients are told; otherwise their packets are dropped until the server is back. Default: as the kernel has it.", into(&raw.nodest, r.boolean)},
		{"expire_quiescent_template", "Whether persistence ends with a real server's weight 0, be it down or drained: its clients go elsewhere with their next connection. Default: yes while a pool with a service that is persistent is started, otherwise as the kernel has it.", into(&raw.quiescent, r.boolean)},
		{"conn_reuse_mode", "What happens when a client uses a port again: 0 it comes to the same real server, 1 it is scheduled anew when the old connection is in TIME_WAIT (as masq sees it), 2 and 3 also in FIN_WAIT, the last state that gate sees. Default: as the kernel has it.", into(&raw.reuse, r.integer(0, 3))},
		{"sloppy_tcp", "Whether a TCP connection may begin without a SYN, so that one that was not synchronised goes on after a move. Default: as the kernel has it.", into(&raw.slop, r.boolean)},
		{"sync", "Synchronisation of the connection table: the kernel of the owner sends, the others receive; a mapping, or the interface. Default: none.", keep(&raw.sync)},
	}
}

func timeoutFields(r *reader, t *IPVSTimeouts) []field {
	seconds := func(key string, to *time.Duration) func(*yaml.Node) {
		return func(n *yaml.Node) { *to, _ = r.wholeSeconds(key, maxPersistent)(n) }
	}
	return []field{
		{"tcp", "Of a TCP connection, whole seconds from 1s to 744h. Default: as the kernel has it (15m).", seconds("tcp", &t.TCP)},
		{"tcpfin", "Of a TCP connection after a FIN, whole seconds from 1s to 744h. Default: as the kernel has it (2m).", seconds("tcpfin", &t.TCPFin)},
		{"udp", "Of UDP, whole seconds from 1s to 744h. Default: as the kernel has it (5m).", seconds("udp", &t.UDP)},
	}
}

// rawSync is `sync:` as it is written.
type rawSync struct {
	iface       opt[string]
	id, port    opt[int]
	group       opt[netip.Addr]
	ttl, maxlen opt[int]
}

func (raw *rawSync) fields(r *reader) []field {
	return []field{
		{"interface", "Interface on which it is sent and received, the same on every director. Required.", into(&raw.iface, r.iface)},
		{"id", "Number that sender and receivers have in common, 0 to 255; with 0 a receiver takes what any sender sends. Default: 1 to 255, from the name of the cluster.", into(&raw.id, r.integer(0, 255))},
		{"port", "UDP port, 1 to 65535. Default 8848.", into(&raw.port, r.integer(1, 65535))},
		{"group", "Multicast group, IPv4 or IPv6. Default 224.0.0.81.", into(&raw.group, r.address)},
		{"ttl", "How many routers it may pass, 1 to 255. Default 1.", into(&raw.ttl, r.integer(1, 255))},
		{"maxlen", "Bytes of one message, 1 to 65507. Default: what the interface's MTU allows.", into(&raw.maxlen, r.integer(1, 65507))},
	}
}

// ipvs reads the settings that a director's kernel has once for all pools.
func (s *specReader) ipvs(n *yaml.Node) {
	var raw rawIPVS
	if !s.mapping(n, "ipvs", raw.fields(s.reader), nil) {
		return
	}
	v := &IPVS{}
	if raw.timeouts != nil {
		s.mapping(raw.timeouts, "timeouts", timeoutFields(s.reader, &v.Timeouts), nil)
	}
	v.ExpireNodestConn, v.ExpireQuiescentTemplate, v.SloppyTCP = given(raw.nodest), given(raw.quiescent), given(raw.slop)
	v.ConnReuseMode = given(raw.reuse)
	if raw.sync != nil {
		v.Sync = s.sync(raw.sync)
	}
	if *v != (IPVS{}) {
		s.spec.IPVS = v
	}
}

// keepsTemplates says that persistence is to go on with weight 0.
func (s *Spec) keepsTemplates() bool {
	return s.IPVS != nil && s.IPVS.ExpireQuiescentTemplate != nil && !*s.IPVS.ExpireQuiescentTemplate
}

func given[T any](o opt[T]) *T {
	if !o.ok {
		return nil
	}
	return &o.v
}

func (s *specReader) sync(n *yaml.Node) *IPVSSync {
	var raw rawSync
	if n.Kind == yaml.ScalarNode {
		into(&raw.iface, s.iface)(n)
	} else if !s.mapping(n, "sync", raw.fields(s.reader), nil) {
		return nil
	}
	if raw.iface.at == nil {
		s.errorf(n, "sync needs \"interface\", the one that the directors reach each other by; write \"sync: {interface: eth1}\"")
	}
	cluster := ""
	if s.local != nil {
		cluster = s.local.Cluster
	}
	v := &IPVSSync{
		Interface: raw.iface.or(""), ID: raw.id.or(syncID(cluster)), Port: uint16(raw.port.or(DefaultSyncPort)),
		Group: raw.group.or(DefaultSyncGroup()), TTL: uint8(raw.ttl.or(DefaultSyncTTL)), MaxLen: raw.maxlen.or(0),
	}
	if !v.Group.IsMulticast() || v.Group.Zone() != "" {
		s.errorf(raw.group.at, "%s is not a multicast group; write one like 224.0.0.81 or ff02::81", v.Group)
	}
	return v
}

// syncID makes 1 to 255 of the name of a cluster. Two clusters on one link may
// still agree; then one of them has to write its id.
func syncID(cluster string) int {
	h := fnv.New32a()
	h.Write([]byte(cluster))
	return int(h.Sum32()%255) + 1
}

// mixed returns a server of another family than the service's; nil: there is none.
func (v *Virtual) mixed() *Real {
	for _, servers := range [][]Real{v.Reals, v.Fallbacks} {
		for i := range servers {
			if servers[i].Address.Addr().Is6() != v.IPv6 {
				return &servers[i]
			}
		}
	}
	return nil
}

// String is how a difference shows it.
func (s IPVSSync) String() string {
	words := []string{s.Interface, fmt.Sprintf("id %d", s.ID), fmt.Sprintf("group %s port %d ttl %d", s.Group, s.Port, s.TTL)}
	if s.MaxLen > 0 {
		words = append(words, fmt.Sprintf("maxlen %d", s.MaxLen))
	}
	return strings.Join(words, ", ")
}
