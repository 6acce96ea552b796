// Package linktest is the wire of tests and of the simulation: links between
// any number of nodes that can be cut, lossy, slow or doubling, in each
// direction by itself, from a seed. It uses no socket and fits testing/synctest.
package linktest

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/conf"
)

// Condition is what happens to the frames of one direction. The zero value is
// a perfect wire without delay.
type Condition struct {
	Cut       bool
	Loss      float64       // probability, 0 to 1
	Duplicate float64       // probability that a frame arrives twice
	Corrupt   float64       // probability that one bit is flipped
	Delay     time.Duration // of every frame
	Jitter    time.Duration // added, uniform from 0 to this: frames overtake each other
}

// Frame is a frame that was sent, as Tap sees it.
type Frame struct {
	Link string         // conf.Link.Name
	From string         // node
	To   string         // node
	Addr netip.AddrPort // of the sender
	Data []byte         // a copy
}

// queueLen is the receive buffer of a port, in frames; more are dropped, as a kernel does.
const queueLen = 4096

// Medium is all the wires of a cluster. Ports of links with the same
// conf.Link.Name are on one wire; nodes need not have all links.
type Medium struct {
	seed uint64

	mu    sync.Mutex // guards all below
	nodes []string   // in the order of their first port: they make the addresses
	links []string
	ports map[place]*Port
	conds map[direction]Condition
	dice  map[direction]*rand.Rand
	down  map[place]error
	tap   func(Frame)
	order uint64 // of frames that arrive at the same instant
}

type place struct{ link, node string }

type direction struct{ link, from, to string }

// New makes a medium. All that is random follows from the seed, for each
// direction of each link by itself.
func New(seed uint64) *Medium {
	return &Medium{
		seed: seed, ports: map[place]*Port{}, conds: map[direction]Condition{},
		dice: map[direction]*rand.Rand{}, down: map[place]error{},
	}
}

// Opener returns link.Config.Open for a node.
func (m *Medium) Opener(node string) func(conf.Link) (link.Port, error) {
	return func(l conf.Link) (link.Port, error) { return m.Open(node, l) }
}

// Open opens a node's port; one that is open is closed, as when a machine restarts.
func (m *Medium) Open(node string, l conf.Link) (link.Port, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := place{l.Name(), node}
	if err := m.down[at]; err != nil {
		return nil, err
	}
	if old := m.ports[at]; old != nil {
		old.fail(net.ErrClosed)
	}
	p := &Port{m: m, at: at, addr: m.address(at, l.Port), wake: make(chan struct{}, 1), closed: make(chan struct{})}
	m.ports[at] = p
	return p, nil
}

// Address returns the address of a node on a link.
func (m *Medium) Address(node string, l conf.Link) netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.address(place{l.Name(), node}, l.Port)
}

func (m *Medium) address(at place, port uint16) netip.AddrPort {
	index := func(list *[]string, name string) int {
		i := slices.Index(*list, name)
		if i < 0 {
			i = len(*list)
			*list = append(*list, name)
		}
		return i
	}
	l, n := index(&m.links, at.link), index(&m.nodes, at.node)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(l), byte((n + 1) >> 8), byte(n + 1)}), cmp.Or(port, conf.DefaultPort))
}

// Set sets the condition of a link from one node to another. An empty string
// means any; a more exact condition goes before a general one, and link before from before to.
func (m *Medium) Set(link, from, to string, c Condition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conds[direction{link, from, to}] = c
}

// Clear forgets all conditions.
func (m *Medium) Clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.conds)
}

// Cut cuts a node off on a link in both directions, or joins it again. An empty link means all.
func (m *Medium) Cut(link, node string, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range []direction{{link, node, ""}, {link, "", node}} {
		if cut {
			m.conds[d] = Condition{Cut: true}
		} else {
			delete(m.conds, d)
		}
	}
}

// Interface takes an interface away from a node, for this reason; nil gives it
// back. The open port fails, and opening fails with the reason.
func (m *Medium) Interface(link, node string, reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := place{link, node}
	if reason == nil {
		delete(m.down, at)
		return
	}
	m.down[at] = reason
	if p := m.ports[at]; p != nil {
		p.fail(reason)
	}
}

// Tap has f called for every frame that is put on a wire, one call for each
// receiver, whatever becomes of it; nil ends that. f must not call the medium.
func (m *Medium) Tap(f func(Frame)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tap = f
}

// Inject puts a frame into a node's port, as somebody on the wire could.
func (m *Medium) Inject(link, to string, from netip.AddrPort, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.ports[place{link, to}]; p != nil {
		p.put(m.frame(from, b, time.Now()))
	}
}

// condition is found from exact to general.
func (m *Medium) condition(d direction) Condition {
	for _, l := range []string{d.link, ""} {
		for _, k := range []direction{{l, d.from, d.to}, {l, d.from, ""}, {l, "", d.to}, {l, "", ""}} {
			if c, ok := m.conds[k]; ok {
				return c
			}
		}
	}
	return Condition{}
}

// cutAnywhere: a cut holds whatever more exact condition there is beside it, so that the two ends of a
// wire can be cut one after the other.
func (m *Medium) cutAnywhere(d direction) bool {
	for _, l := range []string{d.link, ""} {
		for _, k := range []direction{{l, d.from, d.to}, {l, d.from, ""}, {l, "", d.to}, {l, "", ""}} {
			if m.conds[k].Cut {
				return true
			}
		}
	}
	return false
}

func (m *Medium) rand(d direction) *rand.Rand {
	r := m.dice[d]
	if r == nil {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s\x00%s\x00%s", d.link, d.from, d.to)
		r = rand.New(rand.NewPCG(m.seed, h.Sum64()))
		m.dice[d] = r
	}
	return r
}

func (m *Medium) frame(from netip.AddrPort, b []byte, at time.Time) frame {
	m.order++
	return frame{at: at, order: m.order, from: from, data: slices.Clone(b)}
}

// carry takes a frame from one port to another, with m.mu held.
func (m *Medium) carry(from, to *Port, b []byte) {
	d := direction{from.at.link, from.at.node, to.at.node}
	if m.tap != nil {
		m.tap(Frame{Link: d.link, From: d.from, To: d.to, Addr: from.addr, Data: slices.Clone(b)})
	}
	if m.cutAnywhere(d) {
		return
	}
	c, r := m.condition(d), m.rand(d)
	copies := 1
	if c.Duplicate > 0 && r.Float64() < c.Duplicate {
		copies = 2
	}
	for range copies {
		if c.Loss > 0 && r.Float64() < c.Loss {
			continue
		}
		delay := c.Delay
		if c.Jitter > 0 {
			delay += time.Duration(r.Int64N(int64(c.Jitter) + 1))
		}
		f := m.frame(from.addr, b, time.Now().Add(delay))
		if c.Corrupt > 0 && r.Float64() < c.Corrupt {
			bit := r.IntN(8 * len(f.data))
			f.data[bit/8] ^= 1 << (bit % 8)
		}
		to.put(f)
	}
}

// Port is one node's end of one wire.
type Port struct {
	m      *Medium
	at     place
	addr   netip.AddrPort
	wake   chan struct{} // cap 1: look at the queue
	closed chan struct{} // closed with the port

	// Guarded by Medium.mu.
	queue frames
	err   error
}

var _ link.Port = (*Port)(nil)

// Broadcast implements link.Port.
func (p *Port) Broadcast(b []byte) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	for _, node := range p.m.nodes { // in a fixed order, for the sake of the seed
		if to := p.m.ports[place{p.at.link, node}]; to != nil && to != p {
			p.m.carry(p, to, b)
		}
	}
	return nil
}

// Send implements link.Port. What is sent to nobody's address is lost.
func (p *Port) Send(b []byte, to netip.AddrPort) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	for _, node := range p.m.nodes {
		if q := p.m.ports[place{p.at.link, node}]; q != nil && q.addr == to && q != p {
			p.m.carry(p, q, b)
		}
	}
	return nil
}

// Receive implements link.Port.
func (p *Port) Receive(buf []byte) (int, netip.AddrPort, error) {
	for {
		p.m.mu.Lock()
		if p.err != nil {
			p.m.mu.Unlock()
			return 0, netip.AddrPort{}, p.err
		}
		var wait time.Duration = -1
		if len(p.queue) > 0 {
			if wait = time.Until(p.queue[0].at); wait <= 0 {
				f := heap.Pop(&p.queue).(frame)
				p.m.mu.Unlock()
				return copy(buf, f.data), f.from, nil
			}
		}
		p.m.mu.Unlock()
		var due <-chan time.Time
		if wait > 0 {
			timer := time.NewTimer(wait)
			due = timer.C
		}
		select {
		case <-due:
		case <-p.wake:
		case <-p.closed:
		}
	}
}

// Close implements link.Port.
func (p *Port) Close() error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.fail(net.ErrClosed)
	return nil
}

// fail ends the port, with m.mu held.
func (p *Port) fail(err error) {
	if p.err != nil {
		return
	}
	p.err = cmp.Or(err, errors.New("closed"))
	if p.m.ports[p.at] == p {
		delete(p.m.ports, p.at)
	}
	close(p.closed)
}

// put queues a frame, with m.mu held.
func (p *Port) put(f frame) {
	if len(p.queue) >= queueLen {
		return
	}
	heap.Push(&p.queue, f)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

type frame struct {
	at    time.Time
	order uint64
	from  netip.AddrPort
	data  []byte
}

// frames is a heap by time of arrival.
type frames []frame

func (f frames) Len() int      { return len(f) }
func (f frames) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f frames) Less(i, j int) bool {
	if !f[i].at.Equal(f[j].at) {
		return f[i].at.Before(f[j].at)
	}
	return f[i].order < f[j].order
}
func (f *frames) Push(x any) { *f = append(*f, x.(frame)) }
func (f *frames) Pop() any {
	old := *f
	last := old[len(old)-1]
	*f = old[:len(old)-1]
	return last
}
