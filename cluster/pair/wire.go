package pair

import (
	"context"
	"net/netip"
)

// Wire is what the rule ping asks of the network.
type Wire interface {
	// Ping asks an address by an ICMP echo request and says whether it answered before ctx ended.
	Ping(ctx context.Context, to netip.Addr) bool
	// Probe asks on the local networks who has the addresses (an ARP probe, RFC
	// 5227; a neighbour solicitation, RFC 4862), again and again until ctx ends. It returns
	// those for which another machine answered, those for which another machine
	// was asking the same (RFC 5227, 2.1.1), and why others could not be asked:
	// of those nothing is known.
	Probe(ctx context.Context, places []Place) (answered, asked []Place, unasked map[Place]error)
	// Defend has whoever asks for the addresses as Probe does find them answered,
	// from its return until stop is called, whenever while says yes: for one that
	// is about to have them and does not answer by itself yet. It changes nobody's
	// tables. An error says which address cannot be defended, and then none is.
	// while must not wait; stop may be called again.
	Defend(places []Place, while func() bool) (stop func(), err error)
}

// Place is an address, and where it stands or would stand.
type Place struct {
	Addr      netip.Addr
	Interface string // empty: the one with the longest connected route to Addr
}
