package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// meshLink is one configured link.
type meshLink struct {
	conf     conf.Link
	serial   bool
	name     string
	idx      int
	changed  chan struct{} // cap 1: look at the interface again
	port     atomic.Pointer[openPort]
	lastErr  atomic.Pointer[error] // of sending
	poked    atomic.Int64          // when a failure of sending last made us look, Unix nanoseconds
	counters [counterKinds]atomic.Uint64
	alarms   alarms
	other    atomic.Uint32 // serial: the node at the other end; 0: not known. Written with Mesh.mu held

	// Guarded by Mesh.mu.
	problem string // why the port is not open, in words; empty: it is
	ring    ring
	entries []entry // scratch of compose

	// Of a serial link, guarded by Mesh.mu.
	beats     uint64 // hellos so far
	nextHello time.Time
	parts     partsOut
}

// openPort is a Port behind an atomic pointer.
type openPort struct{ Port }

const (
	retryFirst = 250 * time.Millisecond // after a failure of which the kernel tells nothing
	retryMax   = 2 * time.Second
)

func (l *meshLink) poke() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// send reports whether the link took the datagram. The class counts on a serial link.
func (l *meshLink) send(b []byte, to netip.AddrPort, c class) bool {
	port := l.port.Load()
	if port == nil {
		return false
	}
	var err error
	if l.serial {
		err = l.sendLine(port, b, c)
	} else if to.IsValid() {
		err = port.Send(b, to)
	} else {
		err = port.Broadcast(b)
	}
	switch {
	case err == nil:
		l.counters[cSent].Add(1)
		return true
	case errors.Is(err, ErrDropped):
		l.counters[cDropped].Add(1)
	case errors.Is(err, net.ErrClosed):
	default:
		l.lastErr.Store(&err)
		l.counters[cSendErrors].Add(1)
		l.alarms.note(cSendErrors, to)
		// Perhaps the interface has gone. A look costs questions to the kernel, so
		// not after every datagram that a firewall refuses.
		now := time.Now().UnixNano()
		if last := l.poked.Load(); now-last > int64(retryFirst) && l.poked.CompareAndSwap(last, now) {
			l.poke()
		}
	}
	return false
}

func (l *meshLink) sendLine(port *openPort, b []byte, c class) error {
	b = squeeze(make([]byte, 0, len(b)), b)
	if p, ok := port.Port.(prioritised); ok {
		dropped, err := p.offer(c, b)
		l.counters[cDropped].Add(dropped)
		return err
	}
	return port.Broadcast(b)
}

// keepOpen opens the link, receives, and opens it again whatever happens, until ctx ends.
func (m *Mesh) keepOpen(ctx context.Context, l *meshLink) {
	wait := retryFirst
	for ctx.Err() == nil {
		port, err := m.open(l.conf)
		if err == nil {
			opened := time.Now()
			m.setProblem(l, "", port)
			err = m.serve(ctx, l, port)
			if time.Since(opened) > retryMax {
				wait = retryFirst
			}
			if errors.Is(err, errStale) {
				continue // the interface has changed: what open says now is the reason
			}
		}
		if ctx.Err() != nil {
			return
		}
		m.setProblem(l, err.Error(), nil)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-l.changed:
			wait = retryFirst
		case <-timer.C:
			wait = min(2*wait, retryMax)
		}
		timer.Stop()
	}
}

// errStale: the port no longer fits its interface.
var errStale = errors.New("the interface has changed")

// serve receives from an open port until it fails, gets stale, or ctx ends. The
// port is closed and its goroutine has ended when it returns.
func (m *Mesh) serve(ctx context.Context, l *meshLink, port Port) error {
	failed := make(chan error, 1)
	go func() { failed <- m.receive(l, port) }()
	stop := func() {
		l.port.Store(nil)
		port.Close()
	}
	for {
		select {
		case err := <-failed:
			stop()
			if c, ok := port.(Checker); ok && c.Check() != nil {
				return errStale
			}
			return err
		case <-ctx.Done():
			stop()
			<-failed
			return ctx.Err()
		case <-l.changed:
			if c, ok := port.(Checker); ok && c.Check() != nil {
				stop()
				<-failed
				return errStale
			}
		}
	}
}

func (m *Mesh) receive(l *meshLink, port Port) error {
	r := &receiver{m: m, l: l}
	for {
		n, from, err := port.Receive(r.buf[:])
		if l.serial && (err == nil || errors.Is(err, ErrNoise)) {
			from = lineTo
			if err == nil {
				n = expand(r.buf[:], n, m.cluster)
			}
			if err != nil || n == 0 {
				l.count(cMalformed, from)
				continue
			}
		}
		if err != nil {
			return err
		}
		r.take(r.buf[:n], from)
	}
}

// setProblem notes whether the link is open; problem is why not.
func (m *Mesh) setProblem(l *meshLink, problem string, port Port) {
	if port != nil {
		l.port.Store(&openPort{port})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.problem == problem {
		return
	}
	l.problem = problem
	l.nextHello = time.Time{}
	if problem == "" {
		m.say(slog.LevelInfo, "link "+l.name+" is open")
		m.hurry.Store(true)
	} else {
		m.say(slog.LevelWarn, "link "+l.name+": "+problem)
	}
	now := time.Now()
	for _, p := range m.roster.Load().peers {
		m.judgeLink(p, l, now)
	}
	m.wake()
}
