package vrrp

import (
	"context"
	"net/netip"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Packet is an IP packet of protocol 112 that has arrived.
type Packet struct {
	Payload   []byte // from the VRRP header on; valid until the handler returns
	From, To  netip.Addr
	TTL       int // hop limit, 0 to 255
	Interface int // index
}

// Endpoint is where a virtual router sends from and listens. Endpoints that
// have interface, family and group in common share sockets.
type Endpoint interface {
	// Send sends a message to the group or to one peer, with the source address
	// and TTL of the instance. It does not wait and does not keep the message.
	// The message is complete: its checksum is that of Local and to.
	Send(message []byte, to netip.Addr) error
	// Local is the address that others see; it decides between equal priorities
	// and is asked before each Send. Invalid: the interface has none.
	Local() netip.Addr
	Close() error
}

// Stranger is a virtual router that is heard where nobody has it: another pair's
// on the same wire, or one of the two that should be a pair has the wrong VRID.
type Stranger struct {
	Interface string     `json:"interface"`
	VRID      uint8      `json:"vrid"`
	From      netip.Addr `json:"from"` // the last
	At        time.Time  `json:"at"`
	Count     uint64     `json:"count"`
}

// Host is what virtual routers need of the machine. Its methods may be called
// from several goroutines. Errors name the instance's item that failed.
type Host interface {
	// Open makes the endpoint of an instance, and its VMAC if it has one, which
	// Close removes. The interface, or its address, may be missing and come later. receive is called for what arrives for this VRID, one call at a time, and must not wait.
	Open(i *conf.VRRPInstance, receive func(Packet)) (Endpoint, error)
	// Acquire puts addresses, routes and rules into the kernel, in this order, in
	// batches; it is idempotent, and what it could not do is in the error, the rest done.
	Acquire(i *conf.VRRPInstance) error
	// Release takes back, of what Acquire did for the instance of this name, what i
	// has, and nothing else: rules, routes, addresses. A reload gives it an instance
	// that has only what the configuration has no more; the rest stays where it is.
	Release(i *conf.VRRPInstance) error
	// Announce sends one gratuitous ARP or unsolicited neighbour advertisement
	// for every address, no faster than GARP.Interval allows, and none after ctx
	// has ended: another router may have the addresses by then.
	Announce(ctx context.Context, i *conf.VRRPInstance) error
	// Links tells the state of all interfaces before it returns, and whenever one
	// changes, until stop is called. What it has not told of is not there.
	Links(changed func(name string, up bool)) (stop func(), err error)
	// Strangers tells of virtual routers that were heard lately and nobody here
	// has, by interface and VRID.
	Strangers() []Stranger
	// Now is the time by which intervals are counted (monotonic).
	Now() time.Time
}
