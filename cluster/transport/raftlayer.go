package transport

import (
	"context"
	"net"
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

// raftLayer fits Streams to raft. Closing it closes what raft has open: raft
// itself leaves the connections it accepted to their peers.
type raftLayer struct {
	net.Listener
	streams Streams
	ctx     context.Context
	cancel  context.CancelFunc

	mu     sync.Mutex // guards the rest
	closed bool
	conns  map[*layerConn]struct{}
}

// RaftLayer returns the stream layer of raft on this node. Server addresses are
// node names. Close ends raft's streams, not the Streams.
func RaftLayer(s Streams, self string) raft.StreamLayer {
	ctx, cancel := context.WithCancel(context.Background())
	return &raftLayer{
		Listener: s.Listen(KindRaft), streams: s,
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
	c, err := l.streams.Dial(ctx, string(address), KindRaft)
	if err != nil {
		return nil, &DialError{Node: string(address), Err: err}
	}
	return l.track(c)
}

func (l *raftLayer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.track(c)
}

func (l *raftLayer) track(c net.Conn) (net.Conn, error) {
	lc := &layerConn{Conn: c, layer: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
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
	layer *raftLayer
}

func (c *layerConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}
