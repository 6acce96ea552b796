package sim

import (
	"errors"
	"net/netip"
	"slices"
	"sync"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// gate stands between one daemon and the machine that it runs on. It lets a
// daemon be stopped (SIGSTOP) and killed between any two things that it does.
//
// A goroutine cannot be frozen. While the gate is shut the daemon goes on
// thinking, without news from outside; whatever it does meanwhile is done when
// the gate opens, as a decision that is old by then. That is more than a real
// pause can do: there, no new decision is made in between.
type gate struct {
	mu      sync.Mutex // guards the rest
	shut    bool
	dead    bool
	allowed bool          // its lease has run, or an operator has confirmed: it may fence
	changed chan struct{} // closed and replaced when shut or dead change
	writes  []func()      // to the guard: made with locks held, so they cannot wait
	frames  []func()      // to the links
}

// inFlight is how many frames can be on their way to the kernel when a daemon
// is stopped: about one for each goroutine that sends.
const inFlight = 8

var errDead = errors.New("the daemon is dead")

func newGate() *gate { return &gate{changed: make(chan struct{})} }

// do runs f when the gate is open, in one step with its being open.
func (g *gate) do(f func()) error {
	for {
		g.mu.Lock()
		if g.dead {
			g.mu.Unlock()
			return errDead
		}
		if !g.shut {
			defer g.mu.Unlock()
			f()
			return nil
		}
		changed := g.changed
		g.mu.Unlock()
		<-changed
	}
}

// allow notes that the daemon may fence.
func (g *gate) allow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.allowed = true
}

func (g *gate) isAllowed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.allowed
}

// turn is closed when the daemon is stopped, goes on, or dies.
func (g *gate) turn() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// open says whether the daemon runs.
func (g *gate) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.shut && !g.dead
}

// later runs f now or when the gate opens; it never waits.
func (g *gate) later(f func()) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.dead:
		return errDead
	case g.shut:
		g.writes = append(g.writes, f)
	default:
		f()
	}
	return nil
}

// send is later for a frame, of which only the first ones are kept.
func (g *gate) send(f func() error) error {
	g.mu.Lock()
	if !g.dead && !g.shut {
		g.mu.Unlock()
		return f()
	}
	defer g.mu.Unlock()
	if g.shut && len(g.frames) < inFlight {
		g.frames = append(g.frames, func() { _ = f() })
	}
	return nil
}

func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	g.touch()
}

// cont opens the gate. The guard goes first: what a daemon sends, it sends
// after it has written there.
func (g *gate) cont() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
	if !g.dead {
		for _, f := range slices.Concat(g.writes, g.frames) {
			f()
		}
	}
	g.writes, g.frames = nil, nil
	g.touch()
}

func (g *gate) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
	g.writes, g.frames = nil, nil
	g.touch()
}

// touch needs g.mu.
func (g *gate) touch() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// port is a link's port behind a gate.
type port struct {
	link.Port
	g *gate
}

func (p port) Broadcast(b []byte) error {
	b = slices.Clone(b)
	return p.g.send(func() error { return p.Port.Broadcast(b) })
}

func (p port) Send(b []byte, to netip.AddrPort) error {
	b = slices.Clone(b)
	return p.g.send(func() error { return p.Port.Send(b, to) })
}

func (p port) Receive(buf []byte) (int, netip.AddrPort, error) {
	n, from, err := p.Port.Receive(buf)
	if gone := p.g.do(func() {}); gone != nil {
		return 0, from, gone
	}
	return n, from, err
}
