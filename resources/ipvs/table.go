// Package ipvs is the resource `ldirectord`: a pool of virtual services in the
// kernel's IPVS table, whose real servers are taken in and out as their checks
// say.
//
// What the table ought to hold is a function of the pool and of the health of
// its servers (Wanted); what has to be done is a function of that and of what
// the kernel holds (Diff). Both know no clock, no socket and no goroutine.
// Kernel is the only part that talks to the kernel, and pool is what keeps one
// in step with the other.
package ipvs

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// Key is what makes a virtual service the same one for the kernel. It is
// comparable.
type Key struct {
	Protocol conf.Protocol  // TCP, UDP, SCTP or FWM
	Address  netip.AddrPort // invalid when Protocol is FWM
	FWMark   uint32
	IPv6     bool // family; of an fwmark service too
}

// KeyOf returns the key of a virtual service of a pool.
func KeyOf(v conf.Virtual) Key {
	if v.Protocol == conf.FWM {
		return Key{Protocol: conf.FWM, FWMark: v.FWMark, IPv6: v.IPv6}
	}
	a := plain(v.Address)
	return Key{Protocol: v.Protocol, Address: a, IPv6: a.Addr().Is6()}
}

// plain is the address as the kernel gives it back: no IPv4 in IPv6, no zone.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// String is how logs call the service: "192.168.56.200:80 tcp", "fwmark 5".
func (k Key) String() string {
	return conf.Virtual{Address: k.Address, FWMark: k.FWMark, IPv6: k.IPv6, Protocol: k.Protocol}.String()
}

// option is how ipvsadm names the service.
func (k Key) option() string {
	switch k.Protocol {
	case conf.FWM:
		s := "-f " + strconv.FormatUint(uint64(k.FWMark), 10)
		if k.IPv6 {
			s += " -6"
		}
		return s
	case conf.UDP:
		return "-u " + k.Address.String()
	case conf.SCTP:
		return "--sctp-service " + k.Address.String()
	default:
		return "-t " + k.Address.String()
	}
}

func (k Key) compare(o Key) int {
	switch {
	case k.Protocol != o.Protocol:
		return int(k.Protocol) - int(o.Protocol)
	case k.FWMark != o.FWMark:
		if k.FWMark < o.FWMark {
			return -1
		}
		return 1
	case k.IPv6 != o.IPv6:
		if o.IPv6 {
			return -1
		}
		return 1
	default:
		return k.Address.Compare(o.Address)
	}
}

// Flags of a virtual service, include/uapi/linux/ip_vs.h.
const (
	flagPersistent uint32 = 1 << iota
	flagHashed            // set by the kernel, never by us: masked on reading
	flagOnePacket
	flagSched1
	flagSched2
	flagSched3
)

// Service is a virtual service as the kernel keeps it.
type Service struct {
	Key
	Scheduler string
	Flags     uint32 // without the kernel's own
	Timeout   uint32 // of persistence, in seconds; 0 when not persistent
	Netmask   int    // prefix length for persistence; 32 or 128 when not persistent
	PE        string // persistence engine, "sip"; empty: by the client's address
}

func (k Key) bits() int {
	if k.IPv6 {
		return 128
	}
	return 32
}

// normal drops what has no meaning, so that two services that behave the same
// are equal.
func (s Service) normal() Service {
	s.Flags &^= flagHashed
	if s.Flags&flagPersistent == 0 {
		s.Timeout, s.Netmask = 0, s.bits()
	}
	return s
}

// schedFlags names the scheduler's flags as ipvsadm does.
func (s Service) schedFlags() []string {
	names := [3]string{"flag-1", "flag-2", "flag-3"}
	switch s.Scheduler {
	case "sh":
		names = [3]string{"sh-fallback", "sh-port", "flag-3"}
	case "mh":
		names = [3]string{"mh-fallback", "mh-port", "flag-3"}
	}
	var set []string
	for i, n := range names {
		if s.Flags&(flagSched1<<i) != 0 {
			set = append(set, n)
		}
	}
	return set
}

// rule is everything of the service but the verb, as ipvsadm -Sn has it.
func (s Service) rule() string {
	b := s.option() + " -s " + s.Scheduler
	if s.Flags&flagPersistent != 0 {
		b += " -p " + strconv.FormatUint(uint64(s.Timeout), 10)
	}
	if s.Netmask != s.bits() {
		if s.IPv6 {
			b += " -M " + strconv.Itoa(s.Netmask)
		} else {
			b += " -M " + dotted(s.Netmask)
		}
	}
	if s.PE != "" {
		b += " --pe " + s.PE
	}
	if s.Flags&flagOnePacket != 0 {
		b += " -o"
	}
	if f := s.schedFlags(); f != nil {
		b += " -b " + strings.Join(f, ",")
	}
	return b
}

func dotted(bits int) string {
	p, err := netip.AddrFrom4([4]byte{255, 255, 255, 255}).Prefix(bits)
	if err != nil {
		return "invalid(" + strconv.Itoa(bits) + ")"
	}
	return p.Addr().String()
}

// Method is the kernel's forward method: conf's three, and two that it only
// shows.
type Method uint8

// Methods. The zero value is invalid.
const (
	_ Method = iota
	Gate
	Masq
	IPIP
	Local  // older kernels make this of any method to an address of their own
	Bypass // never set on a real server by us
)

func (m Method) String() string {
	if int(m) < len(methodNames) {
		return methodNames[m]
	}
	return methodNames[0]
}

var methodNames = [...]string{"invalid", "gate", "masq", "ipip", "local", "bypass"}

func methodOf(f conf.Forward) Method {
	switch f {
	case conf.Masq:
		return Masq
	case conf.IPIP:
		return IPIP
	default:
		return Gate
	}
}

func (m Method) option() string {
	switch m {
	case Masq:
		return "-m"
	case IPIP:
		return "-i"
	default: // ipvsadm -Sn has -g for local and bypass as well
		return "-g"
	}
}

// Dest is a real server of a virtual service as the kernel keeps it.
type Dest struct {
	Address netip.AddrPort // unique in its service
	Method  Method
	Weight  uint32
	Upper   uint32 // connections at which it is taken for overloaded; 0: never
	Lower   uint32 // connections at which it is not any more; 0: three quarters of Upper

	// Of method IPIP, zero otherwise.
	Tunnel      uint8  // tunnelIPIP, tunnelGUE, tunnelGRE
	TunnelPort  uint16 // UDP, of GUE
	TunnelFlags uint16 // flagTunnelCsum, flagTunnelRemcsum
}

// Tunnel types and flags, include/uapi/linux/ip_vs.h.
const (
	tunnelIPIP = iota
	tunnelGUE
	tunnelGRE

	flagTunnelCsum    uint16 = 1
	flagTunnelRemcsum uint16 = 2
)

// same tells whether the kernel's dest is what was wanted.
func (d Dest) same(actual Dest) bool {
	if actual.Method == Local {
		actual.Method = d.Method
	}
	if d.Method != IPIP {
		// Whatever it was when the method was another one.
		actual.Tunnel, actual.TunnelPort, actual.TunnelFlags = d.Tunnel, d.TunnelPort, d.TunnelFlags
	}
	return d == actual
}

func (d Dest) rule() string {
	b := fmt.Sprintf("-r %s %s -w %d", d.Address, d.Method.option(), d.Weight)
	if d.Tunnel != tunnelIPIP {
		b += d.tunnelRule()
	}
	if d.Upper != 0 {
		b += " -x " + strconv.FormatUint(uint64(d.Upper), 10)
	}
	if d.Lower != 0 {
		b += " -y " + strconv.FormatUint(uint64(d.Lower), 10)
	}
	return b
}

func (d Dest) tunnelRule() string {
	b := " --tun-type "
	switch d.Tunnel {
	case tunnelGUE:
		b += "gue --tun-port " + strconv.Itoa(int(d.TunnelPort))
	case tunnelGRE:
		b += "gre"
	default:
		return b + strconv.Itoa(int(d.Tunnel))
	}
	switch {
	case d.TunnelFlags&flagTunnelCsum != 0:
		return b + " --tun-csum"
	case d.TunnelFlags&flagTunnelRemcsum != 0:
		return b + " --tun-remcsum"
	}
	return b + " --tun-nocsum"
}

// Counters are what the kernel has counted for a real server.
type Counters struct {
	Active     uint32 `json:"active"`     // established connections
	Inactive   uint32 `json:"inactive"`   // others that it remembers
	Persistent uint32 `json:"persistent"` // persistence templates
	Total      uint64 `json:"total"`      // connections since the server was added
	PacketsIn  uint64 `json:"packets_in"`
	PacketsOut uint64 `json:"packets_out"`
	BytesIn    uint64 `json:"bytes_in"`
	BytesOut   uint64 `json:"bytes_out"`
}

// Entry is a virtual service with its real servers. Counters, when read from
// the kernel, has one element for each of Dests.
type Entry struct {
	Service  Service
	Dests    []Dest
	Counters []Counters
}

// Text renders entries as `ipvsadm -Sn` does.
func Text(entries []Entry) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString("-A " + e.Service.rule() + "\n")
		for _, d := range e.Dests {
			b.WriteString("-a " + e.Service.option() + " " + d.rule() + "\n")
		}
	}
	return b.String()
}

// Verb is what an operation does.
type Verb uint8

// Verbs, named as ipvsadm's options. The zero value is invalid.
const (
	_             Verb = iota
	AddService         // -A
	EditService        // -E: in place, connections and counters stay
	DeleteService      // -D: its servers with it
	AddDest            // -a
	EditDest           // -e: in place, connections and counters stay
	DeleteDest         // -d
)

// Op is one change of the table.
type Op struct {
	Verb    Verb
	Service Service // only Key counts but for AddService and EditService
	Dest    Dest    // only Address counts for DeleteDest; unused for services
}

// String is the op as a line for `ipvsadm -R`.
func (o Op) String() string {
	switch o.Verb {
	case AddService:
		return "-A " + o.Service.rule()
	case EditService:
		return "-E " + o.Service.rule()
	case DeleteService:
		return "-D " + o.Service.option()
	case AddDest:
		return "-a " + o.Service.option() + " " + o.Dest.rule()
	case EditDest:
		return "-e " + o.Service.option() + " " + o.Dest.rule()
	case DeleteDest:
		return "-d " + o.Service.option() + " -r " + o.Dest.Address.String()
	default:
		return "invalid operation"
	}
}

// OpsText renders operations, one on a line.
func OpsText(ops []Op) string {
	var b strings.Builder
	for _, o := range ops {
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

// Table is the kernel's table, or what stands for it in a test. Its methods
// may be called by several goroutines and obey the context.
type Table interface {
	// Ready returns an error in words when the kernel has no IPVS. It is cheap.
	Ready() error
	// Load makes the kernel have IPVS where that is possible: it loads the module.
	Load(ctx context.Context) error
	// List returns those of the services that are in the table, sorted by key,
	// each with its real servers sorted by address.
	List(ctx context.Context, keys []Key) ([]Entry, error)
	// Services is List without the real servers, which takes far less time
	// where there are many services.
	Services(ctx context.Context, keys []Key) ([]Entry, error)
	// Apply does the operations in their order. One that the kernel refuses
	// does not keep the others from being done; refused ones are returned.
	// The error is for all of them: how many were done is then not known.
	Apply(ctx context.Context, ops []Op) ([]Refused, error)
}

// Refused is an operation that the kernel would not do.
type Refused struct {
	Op  Op
	Err error
}

func sortEntries(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return a.Service.Key.compare(b.Service.Key) })
}
