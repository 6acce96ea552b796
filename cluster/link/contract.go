// Package link carries authenticated, encrypted, replay-protected datagrams
// between the nodes of a cluster over several links at once.
package link

import "time"

// Channel tells the receiver what a datagram carries.
type Channel uint8

// Channels. The zero value is invalid; hellos are the mesh's own.
const (
	_             Channel = iota
	ChannelHello          // the mesh's own
	ChannelLease          // Renew, acknowledgements, Revoke, Revoked
	ChannelQUIC           // packets of the streams
	ChannelGossip         // memberlist packets
	ChannelRaft           // raft heartbeats sent past the streams
)

// Boot identifies one start of the daemon: 64 random bits.
type Boot uint64

// Datagrams is what the rest of the cluster needs of the mesh; the simulation has another one.
type Datagrams interface {
	// Send hands one datagram to every link over which the node may be
	// reachable, a serial line only for ChannelLease. It does not block. It returns
	// an error only when no link took it.
	Send(to string, ch Channel, payload []byte) error
	// Handle registers the receiver of a channel, before Run. It is called from
	// receiving goroutines, once per datagram whatever the number of links,
	// must not block and must not keep payload after it returns.
	Handle(ch Channel, f func(from string, boot Boot, payload []byte))
	// SetMeta sets what every hello carries for the cluster above: at most 512 bytes.
	SetMeta(meta []byte)
	// Peers returns the state of every other configured node, sorted by name.
	Peers() []Peer
	// Watch returns a channel that gets a value after any change of what Peers
	// returns except times and rates; changes are merged.
	Watch() (changed <-chan struct{}, stop func())
}

// State of a link towards a peer.
type State uint8

// States. The zero value is invalid.
const (
	_    State = iota
	Up         // a hello that echoes ours arrived within warntime
	Late       // none within warntime (2 keepalives and more)
	Down       // none within deadtime, or the interface is missing or down
)

// Peer is what the mesh knows of another node.
type Peer struct {
	Node  string
	Boot  Boot   // the boot that is believed; 0: none yet
	Meta  []byte // of the last hello of that boot
	State State  // the best of its links
	// OnlySerial: it is heard, but every network link to it is down. A serial line
	// carries hellos and ChannelLease; no stream, and nothing else that is sent.
	OnlySerial bool
	Heard      time.Time // last authenticated datagram of that boot, on any link
	Links      []PeerLink
}

// PeerLink is one link towards one peer.
type PeerLink struct {
	Link  string // conf.Link.Name
	State State
	Why   string        // for Late and Down, in words: "no hello for 1.2 s", "eth2: no such interface", "hears us not"
	RTT   time.Duration // smoothed; 0: not known
	Loss  float64       // share of the peer's last 100 hellos on this link that did not arrive, 0 to 1
	Since time.Time     // of State
}
