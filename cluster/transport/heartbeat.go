package transport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// heartbeats carries raft's heartbeats as datagrams: a datagram goes out on
// every link, so losing one costs no beat, and it costs a fraction of a QUIC
// round trip, dozens of times a second.
type heartbeats struct {
	d       link.Datagrams
	self    string // server address
	timeout time.Duration
	again   time.Duration // an unanswered request is sent again after this
	closed  chan struct{}
	queue   chan question
	observe func(term uint64)
	wg      sync.WaitGroup

	mu      sync.Mutex // guards the rest
	next    uint64
	waiting map[uint64]waiter
	handler func(raft.RPC)
}

type waiter struct {
	peer   string
	answer chan beat // buffered, one
}

// question is a request of a leader that waits for raft to look at it.
type question struct {
	from string
	beat beat
}

// isHeartbeat uses the same test as raft's own transport: only such requests
// may go past the main loop of the follower.
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	return r.Term != 0 && len(r.Addr) > 0 && r.PrevLogEntry == 0 && r.PrevLogTerm == 0 &&
		len(r.Entries) == 0 && r.LeaderCommitIndex == 0
}

func newHeartbeats(d link.Datagrams, self string, timeout time.Duration, observe func(uint64)) *heartbeats {
	h := &heartbeats{
		d: d, self: self, timeout: timeout, observe: observe,
		// A leader steps down after its lease without an answer, so one lost
		// datagram must not cost the whole timeout.
		again:   timeout / 4,
		closed:  make(chan struct{}),
		queue:   make(chan question, 64),
		waiting: map[uint64]waiter{},
		next:    rand.Uint64(), // so that answers to an earlier start match nothing
	}
	h.wg.Go(h.serve)
	d.Handle(link.ChannelRaft, h.receive)
	return h
}

func (h *heartbeats) close() {
	close(h.closed)
	h.wg.Wait()
}

func (h *heartbeats) setHandler(f func(raft.RPC)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handler = f
}

// ask sends a heartbeat and waits for the answer of that very peer.
func (h *heartbeats) ask(target string, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	node := nodeOf(target)
	w := waiter{peer: node, answer: make(chan beat, 1)}
	h.mu.Lock()
	h.next++
	id := h.next
	h.waiting[id] = w
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.waiting, id)
		h.mu.Unlock()
	}()
	msg := appendBeatRequest(make([]byte, 0, 160), id, target, args)
	if err := h.d.Send(node, link.ChannelRaft, msg); err != nil {
		return fmt.Errorf("heartbeat to %s: %w", target, err)
	}
	end := time.Now().Add(h.timeout)
	timer := time.NewTimer(h.again)
	defer timer.Stop()
	for {
		select {
		case m := <-w.answer:
			*resp = m.resp
			if m.err != "" {
				return fmt.Errorf("heartbeat to %s: it answers %q", target, m.err)
			}
			return nil
		case <-timer.C:
			left := time.Until(end)
			if left <= 0 {
				return fmt.Errorf("heartbeat to %s: no answer within %v", target, h.timeout)
			}
			_ = h.d.Send(node, link.ChannelRaft, msg)
			timer.Reset(min(h.again, left))
		case <-h.closed:
			return raft.ErrTransportShutdown
		}
	}
}

// receive runs on the goroutines of the links and does not block.
func (h *heartbeats) receive(from string, _ link.Boot, payload []byte) {
	m, err := parseBeat(payload)
	if err != nil {
		return
	}
	if m.kind == beatResponse {
		h.mu.Lock()
		w, ok := h.waiting[m.id]
		h.mu.Unlock()
		if ok && w.peer == from {
			select {
			case w.answer <- m:
			default: // a second answer to a request that was sent twice
			}
		}
		return
	}
	// The links know who sends; a node can only speak as leader for itself. What
	// is meant for an earlier data directory of this node is not ours to answer.
	if nodeOf(string(m.req.Addr)) != from || m.to != h.self {
		return
	}
	select {
	case h.queue <- question{from, m}:
	default: // raft does not keep up; the leader will ask again
	}
}

// serve hands requests to raft, which may write to its disk when the term is new.
func (h *heartbeats) serve() {
	for {
		select {
		case q := <-h.queue:
			h.answer(q)
		case <-h.closed:
			return
		}
	}
}

func (h *heartbeats) answer(q question) {
	h.mu.Lock()
	handler := h.handler
	h.mu.Unlock()
	if handler == nil {
		return // raft has not started
	}
	h.observe(q.beat.req.Term)
	reply := make(chan raft.RPCResponse, 1)
	handler(raft.RPC{Command: &q.beat.req, RespChan: reply})
	timer := time.NewTimer(h.timeout)
	defer timer.Stop()
	select {
	case r := <-reply:
		resp, ok := r.Response.(*raft.AppendEntriesResponse)
		if !ok || resp == nil {
			resp = &raft.AppendEntriesResponse{}
			if r.Error == nil {
				r.Error = errors.New("raft gave no answer")
			}
		}
		_ = h.d.Send(q.from, link.ChannelRaft, appendBeatResponse(make([]byte, 0, 96), q.beat.id, resp, r.Error))
	case <-timer.C: // raft is shutting down and answers nothing
	case <-h.closed:
	}
}
