package transport

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// GossipPort is the port in every gossip address; nothing listens on it.
const GossipPort = 694

// GossipConfig is what NewGossip needs.
type GossipConfig struct {
	Self    string   // this node's name
	Nodes   []string // all configured nodes
	Streams Streams
	// Datagrams carries the packets. NewGossip registers the receiver of
	// link.ChannelGossip, so it is called before the mesh runs.
	Datagrams link.Datagrams
}

// Gossip is memberlist's transport. A node's address in it is made from its name
// and never changes: the links find the way, and memberlist refuses a live node
// that comes with another address.
type Gossip struct {
	cfg     GossipConfig
	nodes   atomic.Pointer[gossipNodes]
	listen  net.Listener
	packets chan *memberlist.Packet
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*Gossip)(nil)

// gossipNodes is the configured nodes, both ways. One in use is never changed.
type gossipNodes struct {
	names map[netip.Addr]string
	addrs map[string]net.Addr
}

// GossipAddr returns the address that stands for a node in memberlist: one of
// fd00::/8 (RFC 4193) whose other bits are a hash of the name.
func GossipAddr(node string) netip.Addr {
	sum := sha256.Sum256([]byte("keepbeat gossip\x00" + node))
	sum[0] = 0xfd
	return netip.AddrFrom16([16]byte(sum[:16]))
}

// GossipSeed returns a node as memberlist's Join wants it.
func GossipSeed(node string) string {
	return node + "/" + netip.AddrPortFrom(GossipAddr(node), GossipPort).String()
}

// NewGossip starts memberlist's transport on this node.
func NewGossip(cfg GossipConfig) *Gossip {
	g := &Gossip{
		cfg:     cfg,
		listen:  cfg.Streams.Listen(KindGossip),
		packets: make(chan *memberlist.Packet, 256),
		conns:   make(chan net.Conn),
		done:    make(chan struct{}),
	}
	g.SetNodes(cfg.Nodes)
	cfg.Datagrams.Handle(link.ChannelGossip, func(node string, _ link.Boot, payload []byte) {
		addr := g.nodes.Load().addrs[node]
		if addr == nil {
			return
		}
		select {
		case g.packets <- &memberlist.Packet{Buf: append([]byte(nil), payload...), From: addr, Timestamp: time.Now()}:
		default: // memberlist does not keep up; gossip repeats itself
		}
	})
	g.wg.Go(g.accept)
	return g
}

// SetNodes tells which nodes there are, this one among them: packets of others are dropped.
func (g *Gossip) SetNodes(names []string) {
	nodes := &gossipNodes{names: map[netip.Addr]string{}, addrs: map[string]net.Addr{}}
	for _, n := range names {
		nodes.names[GossipAddr(n)] = n
		nodes.addrs[n] = net.UDPAddrFromAddrPort(netip.AddrPortFrom(GossipAddr(n), GossipPort))
	}
	g.nodes.Store(nodes)
}

func (g *Gossip) accept() {
	for {
		c, err := g.listen.Accept()
		if err != nil {
			return
		}
		select {
		case g.conns <- c:
		case <-g.done:
			_ = c.Close()
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport: it is the address of the name, whatever is asked.
func (g *Gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(GossipAddr(g.cfg.Self).AsSlice()), GossipPort, nil
}

// node finds the node that an address means.
func (g *Gossip) node(a memberlist.Address) (string, error) {
	if a.Name != "" {
		return a.Name, nil
	}
	ap, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return "", fmt.Errorf("gossip address %q: %w", a.Addr, err)
	}
	if n, ok := g.nodes.Load().names[ap.Addr()]; ok {
		return n, nil
	}
	return "", fmt.Errorf("gossip address %s belongs to no configured node", a.Addr)
}

// WriteTo implements memberlist.Transport.
func (g *Gossip) WriteTo(b []byte, addr string) (time.Time, error) {
	return g.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. Its error is always a
// bare *net.OpError of udp: with any other, memberlist never suspects the peer.
func (g *Gossip) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	node, err := g.node(a)
	if err == nil {
		err = g.cfg.Datagrams.Send(node, link.ChannelGossip, b)
	}
	if err != nil {
		return time.Time{}, &net.OpError{Op: "write", Net: "udp", Addr: Addr(node), Err: err}
	}
	return time.Now(), nil
}

// PacketCh implements memberlist.Transport.
func (g *Gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }

// DialTimeout implements memberlist.Transport.
func (g *Gossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. Errors: see WriteToAddress.
func (g *Gossip) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	node, err := g.node(a)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		var c net.Conn
		if c, err = g.dial(ctx, node); err == nil {
			return c, nil
		}
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: Addr(node), Err: err}
}

func (g *Gossip) dial(ctx context.Context, node string) (net.Conn, error) {
	select {
	case <-g.done:
		return nil, net.ErrClosed
	default:
	}
	return g.cfg.Streams.Dial(ctx, node, KindGossip)
}

// StreamCh implements memberlist.Transport.
func (g *Gossip) StreamCh() <-chan net.Conn { return g.conns }

// Shutdown implements memberlist.Transport. The Streams stay open.
func (g *Gossip) Shutdown() error {
	g.once.Do(func() {
		close(g.done)
		_ = g.listen.Close()
		g.wg.Wait()
	})
	return nil
}
