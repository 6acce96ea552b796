package transport

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// backlog is how many accepted streams of a kind may wait for Accept. Raft and
// memberlist accept at once; more than this waiting means that nobody does.
const backlog = 64

// listeners holds the one listener of each kind. A kind whose listener was
// closed gets a new one from the next Listen, so that raft can be started again
// in the same process.
type listeners struct {
	self string

	mu     sync.Mutex // guards the rest
	byKind map[Kind]*listener
	closed bool
}

func newListeners(self string) *listeners {
	return &listeners{self: self, byKind: map[Kind]*listener{}}
}

func (ls *listeners) listen(kind Kind) net.Listener {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.byKind[kind]
	if l != nil && (ls.closed || !l.isClosed()) {
		return l
	}
	l = &listener{self: Addr(ls.self), conns: make(chan net.Conn, backlog), done: make(chan struct{})}
	if ls.closed {
		_ = l.Close()
	}
	ls.byKind[kind] = l
	return l
}

// check says whether a stream of the kind would be taken now.
func (ls *listeners) check(kind Kind) (status, string) {
	ls.mu.Lock()
	l := ls.byKind[kind]
	ls.mu.Unlock()
	if l == nil || l.isClosed() {
		return statusBusy, fmt.Sprintf("it does not serve %v yet", kind)
	}
	if len(l.conns) == cap(l.conns) {
		return statusBusy, fmt.Sprintf("%d streams of %v wait there already", backlog, kind)
	}
	return statusOK, ""
}

// deliver gives the stream to the kind's listener, or closes it.
func (ls *listeners) deliver(kind Kind, c net.Conn) bool {
	ls.mu.Lock()
	l := ls.byKind[kind]
	ls.mu.Unlock()
	if l == nil || !l.push(c) {
		_ = c.Close()
		return false
	}
	return true
}

func (ls *listeners) close() {
	ls.mu.Lock()
	ls.closed = true
	all := make([]*listener, 0, len(ls.byKind))
	for _, l := range ls.byKind {
		all = append(all, l)
	}
	ls.mu.Unlock()
	for _, l := range all {
		_ = l.Close()
	}
}

// listener implements net.Listener for one kind.
type listener struct {
	self  Addr
	conns chan net.Conn
	done  chan struct{}

	mu     sync.Mutex // guards closed, and conns against a push after Close
	closed bool
}

func (l *listener) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func (l *listener) push(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case l.conns <- c:
		return true
	default:
		return false
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close closes what waits as well. A second Close is an error, as with sockets.
func (l *listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return errors.New("listener is closed already")
	}
	l.closed = true
	close(l.done)
	l.mu.Unlock()
	for {
		select {
		case c := <-l.conns:
			_ = c.Close()
		default:
			return nil
		}
	}
}

func (l *listener) Addr() net.Addr { return l.self }
