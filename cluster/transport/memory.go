package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// MemoryConfig shapes a MemoryNetwork.
type MemoryConfig struct {
	// Latency of every byte, one way. 0: none.
	Latency time.Duration
	// FailAfter is how long a cut may last before the connections that cross it
	// fail and dials give up. 0: they wait for Heal, Fail or Kill.
	FailAfter time.Duration
}

// MemoryNetwork joins Streams without sockets: for testing/synctest. All its
// goroutines end when every node is closed.
type MemoryNetwork struct {
	cfg MemoryConfig

	mu      sync.Mutex // guards the rest; never taken with a pipe's lock held
	nodes   map[string]*Memory
	cut     map[[2]string]bool
	changed chan struct{} // closed and replaced when nodes or cut change
	conns   map[*memPair]struct{}
}

// Memory is one node's Streams on a MemoryNetwork.
type Memory struct {
	net    *MemoryNetwork
	name   string
	d      link.Datagrams // may be nil
	lists  *listeners
	nodes  atomic.Pointer[map[string]bool] // nil: all
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// memPair is a connection: two pipes.
type memPair struct {
	a, b     string // a dialled
	ab, ba   *memPipe
	nodeA    *Memory
	nodeB    *Memory
	detached sync.Once

	// Guarded by MemoryNetwork.mu.
	failing        *time.Timer
	endedA, endedB bool
}

var (
	errMemLost = errors.New("connection lost: the network between the nodes is cut")
	errMemFail = errors.New("connection failed")
)

// NewMemoryNetwork makes an empty network.
func NewMemoryNetwork(cfg MemoryConfig) *MemoryNetwork {
	return &MemoryNetwork{
		cfg: cfg, nodes: map[string]*Memory{}, cut: map[[2]string]bool{},
		changed: make(chan struct{}), conns: map[*memPair]struct{}{},
	}
}

// Node puts a node on the network; one of that name that is there already is killed.
func (n *MemoryNetwork) Node(name string) *Memory { return n.NodeOver(name, nil) }

// NodeOver is Node, with links that tell of peers that are down: dials to those
// fail at once and connections with them are closed, as QUIC's are.
func (n *MemoryNetwork) NodeOver(name string, d link.Datagrams) *Memory {
	n.Kill(name)
	m := &Memory{net: n, name: name, d: d, lists: newListeners(name)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	n.mu.Lock()
	n.nodes[name] = m
	n.notify()
	n.mu.Unlock()
	if d != nil {
		changed, stop := d.Watch()
		seen := view{}
		seen.losses(d.Peers())
		m.wg.Go(func() {
			defer stop()
			for {
				select {
				case <-changed:
					for _, l := range seen.losses(d.Peers()) {
						m.lose(l)
					}
				case <-m.ctx.Done():
					return
				}
			}
		})
	}
	return m
}

// notify needs n.mu.
func (n *MemoryNetwork) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Cut stalls everything that goes from one node to the other, in that direction only.
func (n *MemoryNetwork) Cut(from, to string) { n.setCut(from, to, true) }

// Heal undoes Cut; what was stalled is delivered.
func (n *MemoryNetwork) Heal(from, to string) { n.setCut(from, to, false) }

// Isolate cuts a node from all that are on the network now, in both directions.
func (n *MemoryNetwork) Isolate(name string) { n.around(name, n.Cut) }

// Rejoin heals what Isolate cut.
func (n *MemoryNetwork) Rejoin(name string) { n.around(name, n.Heal) }

func (n *MemoryNetwork) around(name string, f func(from, to string)) {
	n.mu.Lock()
	var others []string
	for other := range n.nodes {
		if other != name {
			others = append(others, other)
		}
	}
	n.mu.Unlock()
	slices.Sort(others) // the simulation wants one order
	for _, other := range others {
		f(name, other)
		f(other, name)
	}
}

func (n *MemoryNetwork) setCut(from, to string, cut bool) {
	n.mu.Lock()
	n.cut[[2]string{from, to}] = cut
	n.notify()
	var pipes []*memPipe
	for p := range n.conns {
		switch {
		case p.a == from && p.b == to:
			pipes = append(pipes, p.ab)
		case p.b == from && p.a == to:
			pipes = append(pipes, p.ba)
		default:
			continue
		}
		n.watchCut(p)
	}
	n.mu.Unlock()
	for _, p := range pipes {
		p.stall(cut)
	}
}

// watchCut starts or stops the clock of a connection that crosses a cut. Needs n.mu.
func (n *MemoryNetwork) watchCut(p *memPair) {
	crosses := n.cut[[2]string{p.a, p.b}] || n.cut[[2]string{p.b, p.a}]
	switch {
	case crosses && p.failing == nil && n.cfg.FailAfter > 0:
		p.failing = time.AfterFunc(n.cfg.FailAfter, func() { p.fail(errMemLost) })
	case !crosses && p.failing != nil:
		p.failing.Stop()
		p.failing = nil
	}
}

// Fail ends all connections between two nodes with an error on both sides.
func (n *MemoryNetwork) Fail(a, b string) {
	for _, p := range n.pairs(func(p *memPair) bool { return p.a == a && p.b == b || p.a == b && p.b == a }) {
		p.fail(errMemFail)
	}
}

// Kill takes a node off the network as a crash of its daemon does: its
// connections are reset, which the peers see unless they are cut off.
func (n *MemoryNetwork) Kill(name string) {
	n.mu.Lock()
	m := n.nodes[name]
	n.mu.Unlock()
	if m != nil {
		_ = m.Close()
	}
}

func (n *MemoryNetwork) pairs(want func(*memPair) bool) []*memPair {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*memPair
	for p := range n.conns {
		if want(p) {
			out = append(out, p)
		}
	}
	return out
}

// fail ends both directions at once.
func (p *memPair) fail(err error) {
	p.ab.fail(err)
	p.ba.fail(err)
	p.detach()
}

func (p *memPair) detach() {
	p.detached.Do(func() {
		n := p.nodeA.net
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.conns, p)
		if p.failing != nil {
			p.failing.Stop()
		}
	})
}

// lose ends this node's side of what it has with a peer.
func (m *Memory) lose(l loss) {
	for _, p := range m.net.pairs(func(p *memPair) bool {
		return p.nodeA == m && p.b == l.node || p.nodeB == m && p.a == l.node
	}) {
		if l.boot == 0 || p.old() {
			p.reset(m, fmt.Errorf("%s: %s", l.node, l.why))
		}
	}
}

// old says that one side is no longer the node of that name.
func (p *memPair) old() bool {
	n := p.nodeA.net
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[p.a] != p.nodeA || n.nodes[p.b] != p.nodeB
}

// reset ends the connection on a node's side at once; the other side learns by
// what still gets through to it.
func (p *memPair) reset(m *Memory, err error) {
	p.end(p.nodeA == m, errors.New("connection reset by the peer"), err)
}

// end closes one end: its own calls fail with own, the other end reads what is
// under way and then far.
func (p *memPair) end(a bool, far, own error) {
	in, out, mine := p.ab, p.ba, &p.endedB
	if a {
		in, out, mine = p.ba, p.ab, &p.endedA
	}
	in.closeReader(own)
	out.end(far, own)
	n := p.nodeA.net
	n.mu.Lock()
	*mine = true
	both := p.endedA && p.endedB
	n.mu.Unlock()
	if both {
		p.detach()
	}
}

// SetNodes tells which nodes there are, as QUIC.SetNodes does; before the first
// call all on the network are. Connections with a node that is gone are reset.
func (m *Memory) SetNodes(names []string) error {
	nodes := map[string]bool{}
	for _, n := range names {
		if n == "" {
			return errors.New("streams: a node has no name")
		}
		nodes[n] = true
	}
	m.nodes.Store(&nodes)
	for _, p := range m.net.pairs(func(p *memPair) bool {
		return p.nodeA == m && !m.has(p.b) || p.nodeB == m && !m.has(p.a)
	}) {
		p.reset(m, errRemoved)
	}
	return nil
}

func (m *Memory) has(node string) bool {
	nodes := m.nodes.Load()
	return nodes == nil || (*nodes)[node]
}

// Listen implements Streams.
func (m *Memory) Listen(kind Kind) net.Listener { return m.lists.listen(kind) }

// Dial implements Streams. It takes one round trip.
func (m *Memory) Dial(ctx context.Context, node string, kind Kind) (net.Conn, error) {
	c, err := m.dial(ctx, node, kind)
	if err != nil {
		return nil, fmt.Errorf("dial %s (%v): %w", node, kind, err)
	}
	return c, nil
}

func (m *Memory) dial(ctx context.Context, node string, kind Kind) (net.Conn, error) {
	if m.net.cfg.FailAfter > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, m.net.cfg.FailAfter, errMemLost)
		defer cancel()
	}
	var changed <-chan struct{}
	if m.d != nil {
		c, stop := m.d.Watch()
		defer stop()
		changed = c
	}
	for {
		if m.ctx.Err() != nil {
			return nil, net.ErrClosed
		}
		if !m.has(node) {
			return nil, errors.New("no such node")
		}
		if m.d != nil {
			if err := reachable(m.d, node); err != nil {
				return nil, err
			}
		}
		m.net.mu.Lock()
		peer, topology := m.net.nodes[node], m.net.changed
		cut := m.net.cut[[2]string{m.name, node}] || m.net.cut[[2]string{node, m.name}]
		m.net.mu.Unlock()
		if peer != nil && !cut {
			break
		}
		select { // what is not there does not answer
		case <-topology:
		case <-changed:
		case <-m.ctx.Done():
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if m.net.cfg.Latency > 0 {
		select {
		case <-time.After(2 * m.net.cfg.Latency):
		case <-m.ctx.Done():
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return m.connect(node, kind)
}

func (m *Memory) connect(node string, kind Kind) (net.Conn, error) {
	n := m.net
	n.mu.Lock()
	peer := n.nodes[node]
	if peer == nil || n.nodes[m.name] != m {
		n.mu.Unlock()
		return nil, errMemFail
	}
	p := &memPair{a: m.name, b: node, nodeA: m, nodeB: peer, ab: newMemPipe(n.cfg.Latency), ba: newMemPipe(n.cfg.Latency)}
	p.ab.stalled, p.ba.stalled = n.cut[[2]string{p.a, p.b}], n.cut[[2]string{p.b, p.a}]
	n.conns[p] = struct{}{}
	n.watchCut(p)
	n.mu.Unlock()
	// Looked at with the connection in n.conns: SetNodes comes before this, or resets it.
	if !m.has(node) || !peer.has(m.name) {
		p.detach()
		return nil, fmt.Errorf("%s: %w", node, errRemoved)
	}
	if code, text := peer.lists.check(kind); code != statusOK {
		p.detach()
		return nil, fmt.Errorf("%w: %q", errRefused, text)
	}
	if !peer.lists.deliver(kind, &memConn{pair: p, in: p.ab, out: p.ba, local: Addr(node), remote: Addr(m.name)}) {
		p.detach()
		return nil, fmt.Errorf("%w: it is closing", errRefused)
	}
	return &memConn{pair: p, in: p.ba, out: p.ab, local: Addr(m.name), remote: Addr(node)}, nil
}

// Close implements Streams.
func (m *Memory) Close() error {
	n := m.net
	n.mu.Lock()
	if n.nodes[m.name] == m {
		delete(n.nodes, m.name)
		n.notify()
	}
	n.mu.Unlock()
	m.cancel()
	m.lists.close()
	for _, p := range n.pairs(func(p *memPair) bool { return p.nodeA == m || p.nodeB == m }) {
		p.reset(m, net.ErrClosed)
	}
	m.wg.Wait()
	return nil
}
