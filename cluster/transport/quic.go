package transport

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// QUICConfig is what NewQUIC needs.
type QUICConfig struct {
	Self  string   // this node's name
	Nodes []string // names of all configured nodes; others are not listened to
	// Datagrams carries the packets. NewQUIC registers the receiver of
	// link.ChannelQUIC, so it is called before the mesh runs.
	Datagrams link.Datagrams
	// Keys are the cluster's secrets. The identity comes from the first, the
	// active one; peers with any of them are accepted, so that keys can be
	// rotated (SetKeys).
	Keys    [][]byte
	Cluster string       // name of the cluster, part of the identity
	Logger  *slog.Logger // nil: silent
}

const (
	// packetSize keeps a datagram under 1500 bytes, with what the link adds and
	// with room for a tunnel. It is also QUIC's minimum.
	packetSize = 1200
	// handshakeIdle ends a handshake whose peer says nothing; it has twice as long at most.
	handshakeIdle = 3 * time.Second
	// maxIdle ends a connection that nobody uses. There are no keep-alives: the
	// links know first whether a peer lives, and a connection that was let go
	// costs one round trip to replace.
	maxIdle = 2 * time.Minute
	// headerTime is how long an opener may take to say what its stream is for.
	headerTime = 5 * time.Second
	// replyTime without one packet from the peer since a stream was opened means
	// that the peer has forgotten the connection.
	replyTime = 500 * time.Millisecond
	// maxStreams bounds the streams a peer may have open at once on a connection:
	// raft uses about 5, gossip 1, commands a few.
	maxStreams = 128
	// maxSessions bounds the connections of a peer: one, two after both dialled at
	// once, and some that a restarted peer left behind.
	maxSessions = 6
)

// Codes with which a connection is closed.
const (
	codeShutdown quic.ApplicationErrorCode = iota + 1
	codePeerLost
	codeTooMany
	codeSilent
)

// streamRefused is the code of streams that are dropped without an answer.
const streamRefused quic.StreamErrorCode = 1

// QUIC implements Streams over QUIC whose packets travel as datagrams on the links.
type QUIC struct {
	cfg    QUICConfig
	log    *slog.Logger
	id     atomic.Pointer[tls.Config]
	conf   *quic.Config
	pc     *packetConn
	tr     *quic.Transport
	ln     *quic.Listener
	lists  *listeners
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards the rest
	closed bool
	peers  map[string]*quicPeer
}

// quicPeer is guarded by QUIC.mu.
type quicPeer struct {
	name     string
	sessions []*session // newest last
	dialing  *dialing
}

// session is one connection with a peer.
type session struct {
	peer string
	conn *quic.Conn
	out  bool      // we dialled it
	boot link.Boot // of the peer, when it was made; 0: not known
}

// dialing is a connection attempt that several Dials may wait for.
type dialing struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when err is final
	err    error
}

// NewQUIC starts the streams of this node. An error means a bad key or configuration.
func NewQUIC(cfg QUICConfig) (*QUIC, error) {
	id, err := identity(cfg.Keys, cfg.Cluster)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	q := &QUIC{
		cfg: cfg, log: cfg.Logger,
		lists: newListeners(cfg.Self),
		peers: map[string]*quicPeer{},
		conf: &quic.Config{
			Versions:                       []quic.Version{1},
			HandshakeIdleTimeout:           handshakeIdle,
			MaxIdleTimeout:                 maxIdle,
			InitialPacketSize:              packetSize,
			DisablePathMTUDiscovery:        true,
			MaxIncomingStreams:             maxStreams,
			MaxIncomingUniStreams:          -1,
			InitialStreamReceiveWindow:     256 << 10,
			MaxStreamReceiveWindow:         2 << 20,
			InitialConnectionReceiveWindow: 512 << 10,
			MaxConnectionReceiveWindow:     8 << 20,
		},
	}
	q.id.Store(id)
	for _, n := range cfg.Nodes {
		if n != cfg.Self {
			q.peers[n] = &quicPeer{name: n}
		}
	}
	// The key is this process's own: a reset is sent only for a connection that
	// this very process has closed while the peer did not hear of it. After a
	// restart the peer learns from the new boot, not from a reset.
	var reset quic.StatelessResetKey
	if _, err := rand.Read(reset[:]); err != nil {
		return nil, err
	}
	q.pc = newPacketConn(cfg.Self, cfg.Nodes, cfg.Datagrams)
	q.tr = &quic.Transport{Conn: q.pc, ConnectionIDLength: 8, StatelessResetKey: &reset, DisableVersionNegotiationPackets: true}
	q.ln, err = q.tr.Listen(q.server(), q.conf)
	if err != nil {
		_ = q.pc.Close()
		return nil, fmt.Errorf("streams: %w", err)
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	q.wg.Go(q.accept)
	changed, stop := cfg.Datagrams.Watch()
	seen := view{}
	seen.losses(cfg.Datagrams.Peers())
	q.wg.Go(func() {
		defer stop()
		q.watch(changed, seen)
	})
	return q, nil
}

// watch closes the connections to a peer as soon as the links call it down or
// another boot. Without it raft would wait for QUIC's retransmissions, whose
// intervals double, and come back late after a partition.
func (q *QUIC) watch(changed <-chan struct{}, seen view) {
	for {
		select {
		case <-changed:
		case <-q.ctx.Done():
			return
		}
		for _, l := range seen.losses(q.cfg.Datagrams.Peers()) {
			q.drop(l)
		}
	}
}

func (q *QUIC) drop(l loss) {
	q.mu.Lock()
	p := q.peers[l.node]
	if p == nil {
		q.mu.Unlock()
		return
	}
	var gone []*session
	var kept []*session
	for _, s := range p.sessions {
		if l.boot != 0 && s.boot == l.boot {
			kept = append(kept, s)
		} else {
			gone = append(gone, s)
		}
	}
	p.sessions = kept
	call := p.dialing
	q.mu.Unlock()
	switch {
	case call == nil:
	case l.boot == 0:
		call.cancel(errors.New(l.why))
	default: // it may be half way with the process that is gone
		call.cancel(errRestarted)
	}
	for _, s := range gone {
		q.closeSession(s, codePeerLost, l.why)
	}
	if len(gone) > 0 {
		q.log.Info("streams closed", "node", l.node, "why", l.why)
	}
}

// closeSession does not wait: closing waits for the connection's own goroutine.
func (q *QUIC) closeSession(s *session, code quic.ApplicationErrorCode, why string) {
	q.wg.Go(func() { _ = s.conn.CloseWithError(code, why) })
}

func (q *QUIC) accept() {
	for {
		c, err := q.ln.Accept(q.ctx)
		if err != nil {
			return
		}
		node := c.RemoteAddr().String()
		if !q.add(&session{peer: node, conn: c, boot: q.pc.boot(node)}) {
			_ = c.CloseWithError(codeShutdown, "shutting down")
		}
	}
}

// add takes a new connection into use.
func (q *QUIC) add(s *session) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.peers[s.peer]
	if p == nil || q.closed {
		return false
	}
	if len(p.sessions) >= maxSessions {
		q.closeSession(p.sessions[0], codeTooMany, "too many connections")
		p.sessions = p.sessions[1:]
	}
	p.sessions = append(p.sessions, s)
	q.wg.Go(func() { q.serve(s) })
	return true
}

// serve accepts the peer's streams on a connection until it ends.
func (q *QUIC) serve(s *session) {
	defer q.remove(s)
	for {
		st, err := s.conn.AcceptStream(q.ctx)
		if err != nil {
			return
		}
		q.wg.Go(func() { q.welcome(s, st) })
	}
}

func (q *QUIC) remove(s *session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p := q.peers[s.peer]; p != nil {
		for i, other := range p.sessions {
			if other == s {
				p.sessions = append(p.sessions[:i:i], p.sessions[i+1:]...)
				return
			}
		}
	}
}

// welcome reads what a stream is for, answers, and hands it to its listener.
func (q *QUIC) welcome(s *session, st *quic.Stream) {
	c := newStream(st, q.cfg.Self, s.peer)
	_ = st.SetDeadline(time.Now().Add(headerTime))
	h, err := readHeader(st)
	if err != nil {
		c.abort()
		return
	}
	code, text := h.check()
	if code == statusOK {
		code, text = q.lists.check(h.kind)
	}
	if _, err := st.Write(appendReply(nil, code, text)); err != nil {
		c.abort()
		return
	}
	if code != statusOK {
		q.log.Debug("stream refused", "node", s.peer, "why", text)
		_ = c.Close()
		return
	}
	_ = st.SetDeadline(time.Time{})
	q.lists.deliver(h.kind, c)
}

// Listen implements Streams.
func (q *QUIC) Listen(kind Kind) net.Listener { return q.lists.listen(kind) }

// Dial implements Streams. It fails at once when the links call the node down.
func (q *QUIC) Dial(ctx context.Context, node string, kind Kind) (net.Conn, error) {
	c, err := q.dial(ctx, node, kind)
	if err != nil {
		return nil, fmt.Errorf("dial %s (%v): %w", node, kind, err)
	}
	return c, nil
}

func (q *QUIC) dial(ctx context.Context, node string, kind Kind) (net.Conn, error) {
	// A connection may end between finding and using it; a second attempt makes
	// a new one.
	for attempt := 0; ; attempt++ {
		if err := reachable(q.cfg.Datagrams, node); err != nil {
			return nil, err
		}
		s, err := q.session(ctx, node)
		if err != nil {
			return nil, err
		}
		c, err := q.open(ctx, s, kind)
		if err == nil {
			return c, nil
		}
		if connectionEnded(err) {
			q.remove(s) // its goroutines may not have noticed yet; it must not be picked again
		}
		if ctx.Err() != nil || attempt == 2 || errors.Is(err, errRefused) {
			return nil, err
		}
	}
}

// connectionEnded tells the end of a connection from that of one stream.
func connectionEnded(err error) bool {
	var (
		application *quic.ApplicationError
		protocol    *quic.TransportError
		idle        *quic.IdleTimeoutError
		reset       *quic.StatelessResetError
	)
	return errors.As(err, &application) || errors.As(err, &protocol) || errors.As(err, &idle) || errors.As(err, &reset)
}

// open opens a stream on a connection and waits for the peer's answer.
func (q *QUIC) open(ctx context.Context, s *session, kind Kind) (_ net.Conn, err error) {
	began, before := time.Now(), s.conn.ConnectionStats().PacketsReceived
	defer func() {
		if err != nil && time.Since(began) >= replyTime && s.conn.ConnectionStats().PacketsReceived == before {
			q.closeSession(s, codeSilent, "no answer")
		}
	}()
	st, err := s.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	c := newStream(st, q.cfg.Self, s.peer)
	if d, ok := ctx.Deadline(); ok {
		_ = st.SetDeadline(d)
	}
	stop := context.AfterFunc(ctx, func() { _ = st.SetDeadline(time.Unix(1, 0)) })
	_, err = st.Write(appendHeader(nil, header{streamVersion, kind}))
	if err == nil {
		err = readReply(st)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.abort()
		if cause := context.Cause(ctx); cause != nil {
			return nil, fmt.Errorf("no answer: %w", cause)
		}
		return nil, err
	}
	return c, st.SetDeadline(time.Time{})
}

// session returns a live connection, or makes one. Concurrent callers share the
// attempt, and one that the peer makes meanwhile ends their wait as well.
func (q *QUIC) session(ctx context.Context, node string) (*session, error) {
	for {
		q.mu.Lock()
		p := q.peers[node]
		switch {
		case q.closed:
			q.mu.Unlock()
			return nil, net.ErrClosed
		case p == nil:
			q.mu.Unlock()
			return nil, errors.New("no such node")
		}
		if s := q.pick(p); s != nil {
			q.mu.Unlock()
			return s, nil
		}
		call := p.dialing
		if call == nil {
			dctx, cancel := context.WithCancelCause(q.ctx)
			call = &dialing{cancel: cancel, done: make(chan struct{})}
			p.dialing = call
			q.wg.Go(func() { q.connect(dctx, p, call) })
		}
		q.mu.Unlock()
		select {
		case <-call.done:
			if call.err != nil && !errors.Is(call.err, errRestarted) && !errors.Is(call.err, errRekeyed) {
				return nil, call.err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// pick returns the connection to open streams on. When both sides dialled at
// once there are two: both nodes then choose the one that the node with the
// lesser name made, and the other falls idle. Needs q.mu.
func (q *QUIC) pick(p *quicPeer) *session {
	var best *session
	for _, s := range p.sessions {
		if s.conn.Context().Err() != nil {
			continue
		}
		if best == nil || s.out == (q.cfg.Self < p.name) || best.out == s.out {
			best = s
		}
	}
	return best
}

func (q *QUIC) connect(ctx context.Context, p *quicPeer, call *dialing) {
	defer call.cancel(nil)
	conn, err := q.tr.Dial(ctx, Addr(p.name), q.id.Load(), q.conf)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
	} else if !q.add(&session{peer: p.name, conn: conn, out: true, boot: q.pc.boot(p.name)}) {
		_ = conn.CloseWithError(codeShutdown, "shutting down")
		err = net.ErrClosed
	}
	q.mu.Lock()
	p.dialing = nil
	call.err = err
	q.mu.Unlock()
	close(call.done)
}

// Close implements Streams.
func (q *QUIC) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	var all []*session
	for _, p := range q.peers {
		all = append(all, p.sessions...)
	}
	q.mu.Unlock()
	q.lists.close()
	q.cancel()
	var closing sync.WaitGroup
	for _, s := range all {
		closing.Go(func() { _ = s.conn.CloseWithError(codeShutdown, "shutting down") })
	}
	closing.Wait()
	err := errors.Join(q.ln.Close(), q.tr.Close(), q.pc.Close())
	q.wg.Wait()
	return err
}
