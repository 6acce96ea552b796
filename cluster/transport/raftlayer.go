package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// DialError says that no stream to a node could be opened; nothing was sent.
type DialError struct {
	Node string
	Err  error
}

func (e *DialError) Error() string { return e.Err.Error() }
func (e *DialError) Unwrap() error { return e.Err }

// nodeOf returns the node's name in a raft server address. An address is the name
// alone, or name/identity where the identity tells one data directory from its
// replacement: streams go by the name, and the other end refuses what is meant
// for another identity, whose votes and promises it does not know.
func nodeOf(address string) string {
	name, _, _ := strings.Cut(address, "/")
	return name
}

// raftLayer fits Streams to raft. Closing it closes what raft has open: raft
// itself leaves the connections it accepted to their peers.
type raftLayer struct {
	net.Listener
	streams Streams
	self    string
	ctx     context.Context
	cancel  context.CancelFunc

	mu     sync.Mutex // guards the rest
	closed bool
	conns  map[*layerConn]struct{}
}

// RaftLayer returns the stream layer of raft on this node, whose server address
// is self: its name, or name/identity, at most 255 bytes. A stream begins with the
// address that is meant. Close ends raft's streams, not the Streams.
func RaftLayer(s Streams, self string) raft.StreamLayer {
	ctx, cancel := context.WithCancel(context.Background())
	return &raftLayer{
		Listener: s.Listen(KindRaft), streams: s, self: self,
		ctx: ctx, cancel: cancel, conns: map[*layerConn]struct{}{},
	}
}

// Dial implements raft.StreamLayer.
func (l *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := l.ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	node := nodeOf(string(address))
	c, err := l.streams.Dial(ctx, node, KindRaft)
	if err != nil {
		return nil, &DialError{Node: node, Err: err}
	}
	if end, ok := ctx.Deadline(); ok {
		_ = c.SetWriteDeadline(end)
	}
	if _, err := c.Write(appendString(nil, []byte(address))); err != nil {
		_ = c.Close()
		return nil, &DialError{Node: node, Err: fmt.Errorf("dial %s (%v): %w", node, KindRaft, err)}
	}
	_ = c.SetWriteDeadline(time.Time{})
	return l.track(&layerConn{Conn: c, layer: l})
}

// Addr implements net.Listener: the server address.
func (l *raftLayer) Addr() net.Addr { return Addr(l.self) }

func (l *raftLayer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.track(&layerConn{Conn: c, layer: l, unread: true})
}

func (l *raftLayer) track(lc *layerConn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = lc.Conn.Close()
		return nil, net.ErrClosed
	}
	l.conns[lc] = struct{}{}
	return lc, nil
}

func (l *raftLayer) Close() error {
	l.cancel()
	l.mu.Lock()
	l.closed = true
	all := l.conns
	l.conns = map[*layerConn]struct{}{}
	l.mu.Unlock()
	for c := range all {
		_ = c.Conn.Close()
	}
	return l.Listener.Close()
}

type layerConn struct {
	net.Conn
	layer  *raftLayer
	unread bool // the address that is meant comes first; only Read uses it
}

// errOtherIdentity ends a stream that is meant for a data directory this node
// has no longer. Only this side sees it: the other side reads the end.
var errOtherIdentity = errors.New("raft stream is meant for another server")

func (c *layerConn) Read(b []byte) (int, error) {
	if c.unread {
		if err := c.readAddress(); err != nil {
			_ = c.Close()
			return 0, err
		}
		c.unread = false
	}
	return c.Conn.Read(b)
}

func (c *layerConn) readAddress() error {
	var n [1]byte
	if _, err := io.ReadFull(c.Conn, n[:]); err != nil {
		return err
	}
	meant := make([]byte, n[0])
	if _, err := io.ReadFull(c.Conn, meant); err != nil {
		return err
	}
	if string(meant) != c.layer.self {
		return fmt.Errorf("%w: %s meant %q, this is %s", errOtherIdentity, c.RemoteAddr(), meant, c.layer.self)
	}
	return nil
}

func (c *layerConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}
