package transport

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// queued is how many packets may wait for the QUIC stack; more are dropped, as
// a full socket buffer does.
const queued = 1024

// packetConn is the net.PacketConn under QUIC: it sends by node name on the links.
type packetConn struct {
	self string
	d    link.Datagrams
	in   chan inPacket
	done chan struct{}

	// from is the other nodes by name. A map in use is never changed; setNodes puts another in its place.
	from atomic.Pointer[map[string]*sender]

	mu       sync.Mutex // guards the rest
	closed   bool
	deadline time.Time
	wake     chan struct{} // closed and replaced when the deadline changes
}

type inPacket struct {
	from *nodeAddr
	data []byte
}

// nodeAddr exists so that a packet's net.Addr costs no allocation.
type nodeAddr struct{ Addr }

// sender is a node whose packets are taken.
type sender struct {
	addr *nodeAddr
	last atomic.Uint64 // boot of its latest packet
}

func newPacketConn(self string, nodes []string, d link.Datagrams) *packetConn {
	c := &packetConn{
		self: self, d: d,
		in: make(chan inPacket, queued), done: make(chan struct{}), wake: make(chan struct{}),
	}
	c.setNodes(nodes)
	d.Handle(link.ChannelQUIC, func(from string, boot link.Boot, payload []byte) {
		s := (*c.from.Load())[from]
		if s == nil {
			return
		}
		s.last.Store(uint64(boot))
		select {
		case c.in <- inPacket{s.addr, append([]byte(nil), payload...)}:
		default:
		}
	})
	return c
}

// boot returns the boot that sent the latest packet of a node; 0: none yet.
func (c *packetConn) boot(node string) link.Boot {
	if s := (*c.from.Load())[node]; s != nil {
		return link.Boot(s.last.Load())
	}
	return 0
}

// setNodes is not called twice at once.
func (c *packetConn) setNodes(names []string) {
	from := make(map[string]*sender, len(names))
	for _, n := range names {
		if n == c.self {
			continue
		}
		if old := c.from.Load(); old != nil && (*old)[n] != nil {
			from[n] = (*old)[n]
		} else {
			from[n] = &sender{addr: &nodeAddr{Addr(n)}}
		}
	}
	c.from.Store(&from)
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline, wake := c.deadline, c.wake
		c.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return 0, nil, os.ErrDeadlineExceeded
			}
			t := time.NewTimer(left)
			defer t.Stop()
			expired = t.C
		}
		select {
		case p := <-c.in:
			return copy(b, p.data), p.from, nil
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-wake:
		case <-c.done:
			return 0, nil, net.ErrClosed
		}
	}
}

// WriteTo never reports an error: to QUIC a packet that no link took is a lost
// packet. The watch on the peers decides when a connection is over.
func (c *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	_ = c.d.Send(addr.String(), link.ChannelQUIC, b)
	return len(b), nil
}

func (c *packetConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.done)
	}
	return nil
}

func (c *packetConn) LocalAddr() net.Addr { return Addr(c.self) }

func (c *packetConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.wake)
	c.wake = make(chan struct{})
	return nil
}

func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer exist because quic-go prints a warning about
// a connection that lacks them; the buffers are the links'.
func (c *packetConn) SetReadBuffer(int) error { return nil }

// SetWriteBuffer: see SetReadBuffer.
func (c *packetConn) SetWriteBuffer(int) error { return nil }
