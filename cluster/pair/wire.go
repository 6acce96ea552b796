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
	// 5227; a neighbour solicitation, RFC 4861), again and again until ctx ends. It returns
	// those for which another machine answered, and those for which another machine
	// was asking the same (RFC 5227, 2.1.1). An error says that some could not be asked.
	Probe(ctx context.Context, addrs []netip.Addr) (answered, asked []netip.Addr, err error)
}
