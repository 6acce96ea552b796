package transport

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// pollReachable is how often a Reachable of the caller's is asked again while
	// replication waits; the links tell by themselves.
	pollReachable = 200 * time.Millisecond
	// redialMax bounds the pause between attempts to reach a peer whose links are
	// up while its streams fail: a daemon that is just starting.
	redialMin, redialMax = 10 * time.Millisecond, 250 * time.Millisecond
)

var errOldTerm = errors.New("gave up: a newer term has begun")

// follow keeps what the links say of the peers at hand: heartbeats ask for it
// dozens of times a second.
func (t *RaftTransport) follow(changed <-chan struct{}) {
	for {
		select {
		case <-changed:
			t.look()
		case <-t.closed:
			return
		}
	}
}

func (t *RaftTransport) look() {
	states := map[string]error{}
	for _, p := range t.cfg.Datagrams.Peers() {
		states[p.Node] = reachableState(p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.states = states
	close(t.moved)
	t.moved = make(chan struct{})
}

// reachable returns nil, or why a node cannot answer.
func (t *RaftTransport) reachable(address string) error {
	node := nodeOf(address)
	if t.cfg.Reachable != nil {
		if !t.cfg.Reachable(node) {
			return errors.New("node is not reachable")
		}
		return nil
	}
	if t.cfg.Datagrams == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	err, ok := t.states[node]
	if !ok {
		return errors.New("no such node")
	}
	return err
}

// observe notes a term. Replication of an older one that waits is over.
func (t *RaftTransport) observe(term uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if term > t.term {
		t.term = term
		close(t.moved)
		t.moved = make(chan struct{})
	}
}

// await blocks until the node can be reached, until the end, a newer term, or Close.
func (t *RaftTransport) await(node string, term uint64, end time.Time) error {
	if t.reachable(node) == nil && !t.isClosed() {
		return nil // by far the most frequent case costs no timer
	}
	var poll <-chan time.Time
	if t.cfg.Reachable != nil {
		ticker := time.NewTicker(pollReachable)
		defer ticker.Stop()
		poll = ticker.C
	}
	limit := time.NewTimer(time.Until(end))
	defer limit.Stop()
	for {
		t.mu.Lock()
		newest, moved := t.term, t.moved
		t.mu.Unlock()
		if newest > term {
			return errOldTerm
		}
		err := t.reachable(node)
		if err == nil {
			return nil
		}
		select {
		case <-moved:
		case <-poll:
		case <-limit.C:
			return fmt.Errorf("%s: waited %v: %w", node, t.cfg.Wait, err)
		case <-t.closed:
			return raft.ErrTransportShutdown
		}
	}
}

func (t *RaftTransport) isClosed() bool {
	select {
	case <-t.closed:
		return true
	default:
		return false
	}
}

// patient runs an attempt of replication once the peer is reachable, and again
// while nothing could be sent.
func (t *RaftTransport) patient(target raft.ServerAddress, term uint64, attempt func() error) error {
	t.observe(term)
	end := time.Now().Add(t.cfg.Wait)
	pause := redialMin
	for stale := 0; ; {
		if err := t.await(string(target), term, end); err != nil {
			return err
		}
		began := time.Now()
		err := attempt()
		if err == nil {
			return nil
		}
		var dial *DialError
		switch {
		case t.isClosed():
			return raft.ErrTransportShutdown
		case errors.As(err, &dial):
			if time.Now().After(end) {
				return err
			}
			if t.reachable(string(target)) != nil {
				continue // await sleeps
			}
			select {
			case <-time.After(pause):
				pause = min(2*pause, redialMax)
			case <-t.closed:
				return raft.ErrTransportShutdown
			}
			if t.passed(term) {
				return errOldTerm
			}
		case t.stale(began) && stale < maxPool:
			stale++
		default:
			return err
		}
	}
}

func (t *RaftTransport) passed(term uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.term > term
}

// stale says that an attempt failed so soon that its stream was dead before:
// raft keeps idle streams, and after a partition all of them are closed. The
// request is sent again at once, so that an election does not lose a round.
func (t *RaftTransport) stale(began time.Time) bool {
	return time.Since(began) < t.cfg.Timeout/2
}

// prompt runs a request that is worthless when late.
func (t *RaftTransport) prompt(target raft.ServerAddress, attempt func() error) error {
	for stale := 0; ; stale++ {
		if err := t.reachable(string(target)); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		began := time.Now()
		err := attempt()
		var dial *DialError
		if err == nil || stale == maxPool || errors.As(err, &dial) || !t.stale(began) || t.isClosed() {
			return err
		}
	}
}
