// Package memlink is an in-memory link.Datagrams: the mesh of tests and of the
// simulation. It has no sockets, so it runs inside a testing/synctest bubble.
package memlink

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
)

// Config shapes a network.
type Config struct {
	// Latency of every datagram; 0: delivered as fast as goroutines run.
	Latency time.Duration
	// Loss is the share of datagrams that vanish, 0 to 1.
	Loss float64
	// Seed of the losses.
	Seed uint64
	// DeadTime is how long a pair must be cut, or a node gone, before the
	// other reports it Down. Default 1 s.
	DeadTime time.Duration
}

// Network joins nodes by datagrams.
type Network struct {
	cfg Config

	mu      sync.Mutex // guards all below and every node's mutable fields
	rng     *rand.Rand
	nodes   map[string]*Node
	names   []string
	cut     map[[2]string]bool
	pending map[[2]string]*time.Timer // Down to be reported, by observer and observed
	sent    map[link.Channel]uint64
}

// New makes a network of the named nodes; each joins it by Node.
func New(cfg Config, names ...string) *Network {
	if cfg.DeadTime == 0 {
		cfg.DeadTime = time.Second
	}
	sorted := append([]string(nil), names...)
	sort.Strings(sorted)
	return &Network{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), names: sorted,
		nodes: map[string]*Node{}, cut: map[[2]string]bool{},
		pending: map[[2]string]*time.Timer{}, sent: map[link.Channel]uint64{},
	}
}

type packet struct {
	at      time.Time
	from    string
	boot    link.Boot
	channel link.Channel
	data    []byte
}

// Node is one node's link.Datagrams.
type Node struct {
	net      *Network
	name     string
	boot     link.Boot
	inbox    chan packet
	done     chan struct{}
	finished chan struct{}

	// Guarded by net.mu.
	meta     []byte
	closed   bool
	handlers map[link.Channel]func(string, link.Boot, []byte)
	peers    map[string]*link.Peer
	watchers map[chan struct{}]struct{}
}

// Start puts a node with a boot on the network, in place of an earlier one of
// that name. It hears the others and they hear it from now on.
func (n *Network) Start(name string, boot link.Boot) *Node {
	n.mu.Lock()
	old := n.nodes[name]
	n.mu.Unlock()
	if old != nil {
		old.Close()
	}
	d := &Node{
		net: n, name: name, boot: boot,
		inbox: make(chan packet, 4096), done: make(chan struct{}), finished: make(chan struct{}),
		handlers: map[link.Channel]func(string, link.Boot, []byte){},
		peers:    map[string]*link.Peer{}, watchers: map[chan struct{}]struct{}{},
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, other := range n.names {
		if other != name {
			d.peers[other] = absent(other)
		}
	}
	n.nodes[name] = d
	n.settle()
	go d.run()
	return d
}

func absent(name string) *link.Peer {
	return &link.Peer{Node: name, State: link.Down, Links: []link.PeerLink{{Link: "mem", State: link.Down, Why: "no hello yet"}}}
}

// Cut drops what goes from one node to the other, in that direction only.
func (n *Network) Cut(from, to string) { n.set(from, to, true) }

// Heal undoes Cut.
func (n *Network) Heal(from, to string) { n.set(from, to, false) }

// Isolate cuts a node from all others in both directions; Rejoin heals that.
func (n *Network) Isolate(name string) { n.all(name, true) }

// Rejoin heals what Isolate cut.
func (n *Network) Rejoin(name string) { n.all(name, false) }

// Sent returns how many datagrams of a channel were handed to the network.
func (n *Network) Sent(ch link.Channel) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[ch]
}

func (n *Network) all(name string, cut bool) {
	for _, other := range n.names {
		if other != name {
			n.set(name, other, cut)
			n.set(other, name, cut)
		}
	}
}

func (n *Network) set(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{from, to}] = cut
	n.settle()
}

// OnlySerial tells what a node sees of a peer: that only a serial line is left, or no longer so.
func (n *Network) OnlySerial(observer, peer string, only bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.nodes[observer]
	d.peers[peer].OnlySerial = only
	d.notify()
}

// settle compares what every node ought to see with what it sees. A peer comes
// up at once and goes down after DeadTime, as with hellos. Needs n.mu.
func (n *Network) settle() {
	for _, a := range n.nodes {
		if a.closed {
			continue
		}
		for name, p := range a.peers {
			b := n.nodes[name]
			// A hello must echo ours, so that a one-way cut is Down on both sides.
			heard := b != nil && !b.closed && b.peers[a.name] != nil && !n.cut[[2]string{name, a.name}] && !n.cut[[2]string{a.name, name}]
			key := [2]string{a.name, name}
			if heard {
				if t := n.pending[key]; t != nil {
					t.Stop()
					delete(n.pending, key)
				}
				if p.State != link.Up || p.Boot != b.boot {
					p.Boot, p.Meta = b.boot, b.meta
					a.setState(p, link.Up, "")
				}
				continue
			}
			if p.State == link.Down || n.pending[key] != nil {
				continue
			}
			n.pending[key] = time.AfterFunc(n.cfg.DeadTime, func() {
				n.mu.Lock()
				defer n.mu.Unlock()
				if n.pending[key] == nil || n.nodes[a.name] != a {
					return
				}
				delete(n.pending, key)
				a.setState(p, link.Down, fmt.Sprintf("no hello for %v", n.cfg.DeadTime))
			})
		}
	}
}

// setState needs net.mu.
func (d *Node) setState(p *link.Peer, s link.State, why string) {
	p.State = s
	p.Links = []link.PeerLink{{Link: "mem", State: s, Why: why, Since: time.Now()}}
	d.notify()
}

// notify needs net.mu.
func (d *Node) notify() {
	for w := range d.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (d *Node) run() {
	defer close(d.finished)
	for {
		select {
		case p := <-d.inbox:
			if d.net.cfg.Latency > 0 {
				if wait := time.Until(p.at); wait > 0 {
					time.Sleep(wait)
				}
			}
			d.net.mu.Lock()
			f := d.handlers[p.channel]
			if d.net.cut[[2]string{p.from, d.name}] || d.peers[p.from] == nil {
				f = nil
			}
			d.net.mu.Unlock()
			if f != nil {
				f(p.from, p.boot, p.data)
			}
		case <-d.done:
			return
		}
	}
}

// Close takes the node off the network, as a crash does: the others notice by
// its silence.
func (d *Node) Close() {
	d.net.mu.Lock()
	was := d.closed
	d.closed = true
	if !was {
		d.net.settle()
		for _, other := range d.net.names {
			key := [2]string{d.name, other}
			if t := d.net.pending[key]; t != nil {
				t.Stop()
				delete(d.net.pending, key)
			}
		}
	}
	d.net.mu.Unlock()
	if !was {
		close(d.done)
	}
	<-d.finished
}

// Send implements link.Datagrams.
func (d *Node) Send(to string, ch link.Channel, payload []byte) error {
	n := d.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if d.closed {
		return fmt.Errorf("send to %s: closed", to)
	}
	n.sent[ch]++
	peer := n.nodes[to]
	if peer == nil || peer.closed || n.cut[[2]string{d.name, to}] {
		return nil // the wire does not tell
	}
	if n.cfg.Loss > 0 && n.rng.Float64() < n.cfg.Loss {
		return nil
	}
	p := packet{from: d.name, boot: d.boot, channel: ch, data: append([]byte(nil), payload...)}
	if n.cfg.Latency > 0 {
		p.at = time.Now().Add(n.cfg.Latency)
	}
	select {
	case peer.inbox <- p:
	default: // a full socket buffer drops
	}
	return nil
}

// Handle implements link.Datagrams.
func (d *Node) Handle(ch link.Channel, f func(string, link.Boot, []byte)) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.handlers[ch] = f
}

// SetMeta implements link.Datagrams.
func (d *Node) SetMeta(meta []byte) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.meta = append([]byte(nil), meta...)
	for _, other := range d.net.nodes {
		if p := other.peers[d.name]; p != nil && p.Boot == d.boot && p.State == link.Up {
			p.Meta = d.meta
			other.setState(p, link.Up, "")
		}
	}
}

// Peers implements link.Datagrams.
func (d *Node) Peers() []link.Peer {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	var out []link.Peer
	for _, name := range slices.Sorted(maps.Keys(d.peers)) {
		out = append(out, *d.peers[name])
	}
	return out
}

// SetNodes tells this node which nodes there are, as link.Mesh.SetNodes does; the network may not know them yet.
func (d *Node) SetNodes(names []string) error {
	n := d.net
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(d.peers, func(name string, _ *link.Peer) bool { return !slices.Contains(names, name) })
	for _, name := range names {
		if name != d.name && d.peers[name] == nil {
			d.peers[name] = absent(name)
		}
		if i, known := slices.BinarySearch(n.names, name); !known {
			n.names = slices.Insert(n.names, i, name)
		}
	}
	n.settle()
	d.notify()
	return nil
}

// Watch implements link.Datagrams.
func (d *Node) Watch() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.watchers[ch] = struct{}{}
	return ch, func() {
		d.net.mu.Lock()
		defer d.net.mu.Unlock()
		delete(d.watchers, ch)
	}
}
