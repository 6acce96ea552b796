package transport

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// RaftConfig is what NewRaftTransport needs.
type RaftConfig struct {
	Streams Streams
	// Datagrams carries heartbeats past the streams, and tells when a peer is
	// down. NewRaftTransport registers the receiver of link.ChannelRaft, so it is
	// called before the mesh runs. nil: heartbeats go over the streams.
	Datagrams link.Datagrams
	// StreamHeartbeats sends heartbeats over the streams in any case; for comparison.
	StreamHeartbeats bool
	// Self is this node's server address: its name, or name/identity, where the
	// identity tells its data directory from one it replaces. At most 255 bytes.
	// Requests for another identity of this node are refused.
	Self string
	// Reachable says whether a node may answer. Default: the links do not call it down.
	Reachable func(node string) bool
	// HeartbeatTimeout is raft's. A heartbeat waits half of it for the answer. Default 200 ms.
	HeartbeatTimeout time.Duration
	// Timeout of one request over a stream, for sending and for the answer;
	// snapshots get it for each 256 KiB. It covers the follower's disk. Default 2 s.
	Timeout time.Duration
	// Wait is how long replication to an unreachable peer may wait inside one
	// call. Raft doubles a pause after each failed one, up to 10 s, so short
	// waits make a peer that returns after long wait for its entries; long ones
	// keep goroutines of a removed peer. Default 10 min.
	Wait   time.Duration
	Logger *slog.Logger // nil: silent
}

// maxPool is how many idle streams to each peer raft keeps.
const maxPool = 3

// RaftTransport is raft's NetworkTransport over Streams, which differs in three things:
//
//   - Replication to a peer that cannot be reached waits until it can, instead of
//     failing at once: raft pauses longer after each failure, and a peer that
//     returned would get its entries up to 10 s late.
//   - Heartbeats go as datagrams.
//   - A pipeline leaves out requests that would tell the follower nothing, so that
//     a small CommitTimeout, which followers need to learn of commits soon, costs
//     nothing at rest.
//
// It implements raft.Transport, raft.WithPreVote and raft.WithClose. Close it
// before waiting for raft's Shutdown, which waits for its replication.
type RaftTransport struct {
	cfg    RaftConfig
	inner  *raft.NetworkTransport
	rpcs   chan raft.RPC // what raft consumes
	beats  *heartbeats   // nil: over the streams
	closed chan struct{}
	once   sync.Once

	wg sync.WaitGroup

	mu     sync.Mutex       // guards the rest
	term   uint64           // the newest that was seen
	states map[string]error // why each peer is unreachable, or nil
	moved  chan struct{}    // closed and replaced when term or states change
}

var (
	_ raft.Transport   = (*RaftTransport)(nil)
	_ raft.WithPreVote = (*RaftTransport)(nil)
	_ raft.WithClose   = (*RaftTransport)(nil)
)

// NewRaftTransport starts raft's transport on this node.
func NewRaftTransport(cfg RaftConfig) *RaftTransport {
	if cfg.HeartbeatTimeout == 0 {
		cfg.HeartbeatTimeout = 200 * time.Millisecond
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Wait == 0 {
		cfg.Wait = 10 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	t := &RaftTransport{cfg: cfg, rpcs: make(chan raft.RPC), closed: make(chan struct{}), moved: make(chan struct{})}
	if cfg.Datagrams != nil {
		changed, stop := cfg.Datagrams.Watch()
		t.look()
		t.wg.Go(func() {
			defer stop()
			t.follow(changed)
		})
	}
	if cfg.Datagrams != nil && !cfg.StreamHeartbeats {
		t.beats = newHeartbeats(cfg.Datagrams, cfg.Self, cfg.HeartbeatTimeout/2, t.observe)
	}
	t.inner = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  RaftLayer(cfg.Streams, cfg.Self),
		MaxPool: maxPool,
		Timeout: cfg.Timeout,
		Logger:  HCLog(cfg.Logger, "raft-net"),
	})
	t.wg.Go(t.pump)
	return t
}

// pump hands on what comes from the streams.
func (t *RaftTransport) pump() {
	for {
		select {
		case rpc := <-t.inner.Consumer():
			if !t.Deliver(rpc) {
				return
			}
		case <-t.closed:
			return
		}
	}
}

// Deliver hands raft a request as if a peer had sent it, and waits until raft
// takes it. It returns false when the transport is closed first.
func (t *RaftTransport) Deliver(rpc raft.RPC) bool {
	select {
	case t.rpcs <- rpc:
		return true
	case <-t.closed:
		return false
	}
}

// Consumer implements raft.Transport.
func (t *RaftTransport) Consumer() <-chan raft.RPC { return t.rpcs }

// LocalAddr implements raft.Transport: the server address.
func (t *RaftTransport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.cfg.Self) }

// EncodePeer implements raft.Transport.
func (t *RaftTransport) EncodePeer(id raft.ServerID, a raft.ServerAddress) []byte {
	return t.inner.EncodePeer(id, a)
}

// DecodePeer implements raft.Transport.
func (t *RaftTransport) DecodePeer(b []byte) raft.ServerAddress { return t.inner.DecodePeer(b) }

// SetHeartbeatHandler implements raft.Transport.
func (t *RaftTransport) SetHeartbeatHandler(f func(raft.RPC)) {
	t.inner.SetHeartbeatHandler(f)
	if t.beats != nil {
		t.beats.setHandler(f)
	}
}

// Close implements raft.WithClose. It closes raft's streams, not the Streams.
func (t *RaftTransport) Close() error {
	var err error
	t.once.Do(func() {
		close(t.closed)
		err = t.inner.Close()
		t.inner.CloseStreams()
		if t.beats != nil {
			t.beats.close()
		}
		t.wg.Wait()
	})
	return err
}

// AppendEntries implements raft.Transport. Heartbeats fail fast, the rest waits
// for the peer.
func (t *RaftTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		if err := t.reachable(string(target)); err != nil {
			return fmt.Errorf("heartbeat to %s: %w", target, err)
		}
		if t.beats != nil {
			return t.beats.ask(string(target), args, resp)
		}
		return t.inner.AppendEntries(id, target, args, resp)
	}
	return t.patient(target, args.Term, func() error {
		*resp = raft.AppendEntriesResponse{}
		return t.inner.AppendEntries(id, target, args, resp)
	})
}

// AppendEntriesPipeline implements raft.Transport.
func (t *RaftTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	var p raft.AppendPipeline
	// The newest term seen is the one of the replication that asks, or that one is over.
	t.mu.Lock()
	term := t.term
	t.mu.Unlock()
	err := t.patient(target, term, func() (err error) {
		p, err = t.inner.AppendEntriesPipeline(id, target)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newPipeline(p), nil
}

// InstallSnapshot implements raft.Transport. It is tried again only while
// nothing of the snapshot has been read.
func (t *RaftTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	r := &countingReader{r: data}
	var failed error
	err := t.patient(target, args.Term, func() error {
		*resp = raft.InstallSnapshotResponse{}
		err := t.inner.InstallSnapshot(id, target, args, resp, r)
		if err != nil && r.n > 0 {
			failed = err
			return nil
		}
		return err
	})
	return errors.Join(err, failed)
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// RequestVote implements raft.Transport.
func (t *RaftTransport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	t.observe(args.Term)
	return t.prompt(target, func() error { return t.inner.RequestVote(id, target, args, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (t *RaftTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	// A node that asks for votes leads no longer, so its older replication is over.
	t.observe(args.Term)
	return t.prompt(target, func() error { return t.inner.RequestPreVote(id, target, args, resp) })
}

// TimeoutNow implements raft.Transport.
func (t *RaftTransport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if err := t.reachable(string(target)); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return t.inner.TimeoutNow(id, target, args, resp)
}
