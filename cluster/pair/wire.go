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
	// 5227; neighbour solicitation, RFC 4861) and returns those for which another
	// machine answered before ctx ended. An error says that some could not be asked.
	Probe(ctx context.Context, addrs []netip.Addr) ([]netip.Addr, error)
}
