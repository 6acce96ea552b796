package link

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Config is what a Mesh needs.
type Config struct {
	Cluster string   // name; datagrams of other clusters are dropped
	Self    string   // this node
	Nodes   []string // all configured names; Self may be among them
	Boot    Boot     // identifies this start of the daemon; default: random
	Keys    []Key    // any of these is accepted
	Active  int      // Key.Index of the one that seals
	Links   []conf.Link

	Keepalive, WarnTime, DeadTime time.Duration // defaults and bounds: Timing

	// Open opens a link. Default: UDP sockets and serial devices. An error is the reason, in words,
	// for which the link is down: it is tried again every 250 ms to 2 s and, for
	// UDP sockets, whenever the kernel reports a change of interfaces or addresses.
	Open   func(conf.Link) (Port, error)
	Logger *slog.Logger // default: discard
}

// Port is one open link. Its methods may be called from several goroutines.
type Port interface {
	// Broadcast sends to everybody on the medium: the broadcast address, the
	// group, or every configured address. It does not block; what does not fit
	// the kernel's buffer is dropped, ErrDropped.
	Broadcast(b []byte) error
	// Send sends to one address; it does not block, as Broadcast.
	Send(b []byte, to netip.AddrPort) error
	// Receive blocks until a datagram arrives or the port is closed.
	Receive(buf []byte) (n int, from netip.AddrPort, err error)
	// Close ends Receive.
	Close() error
}

// Checker is a Port that can tell whether it still fits its interface.
type Checker interface {
	// Check returns why the port must be opened anew; nil: it is good.
	Check() error
}

// ErrDropped is returned by a Port whose buffer is full.
var ErrDropped = errors.New("send buffer is full")

// maxLinks is bounded by the bits of window.links.
const maxLinks = 14

// Mesh is the links of this node to all others. It implements Datagrams.
type Mesh struct {
	self        string
	id          uint32
	cluster     uint32
	clusterName string
	boot        Boot
	ring        atomic.Pointer[keyring] // written with mu held, like roster
	roster      atomic.Pointer[roster]
	open        func(conf.Link) (Port, error)
	watch       func(ctx context.Context, changed func()) // follows interfaces until ctx ends; nil: nothing to follow
	logger      *slog.Logger
	links       []*meshLink
	timing      atomic.Pointer[Timing]
	seq         atomic.Uint64
	handlers    [256]atomic.Pointer[func(string, Boot, []byte)]
	started     time.Time
	running     atomic.Bool
	kick        chan struct{} // cap 1: the beat looks at the clock again
	hurry       atomic.Bool   // and says hello at once
	lines       chan line     // to the logging goroutine
	linesLost   atomic.Uint64
	tx          sync.Pool // *txBuf

	mu       sync.Mutex // guards all below, every peer's fields that say so, and every meshLink's
	meta     []byte
	tick     uint64
	watchers map[chan struct{}]struct{}
}

var _ Datagrams = (*Mesh)(nil)

// txBuf is one datagram being made.
type txBuf struct {
	nonce [12]byte
	b     [maxDatagram]byte
}

// New checks the configuration. It opens nothing.
func New(cfg Config) (*Mesh, error) {
	t, err := Timing{cfg.Keepalive, cfg.WarnTime, cfg.DeadTime}.withDefaults()
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.Cluster == "":
		return nil, errors.New("links: the cluster has no name")
	case cfg.Self == "":
		return nil, errors.New("links: this node has no name")
	case len(cfg.Links) == 0:
		return nil, errors.New("links: none configured; two are wanted")
	case len(cfg.Links) > maxLinks:
		return nil, fmt.Errorf("links: %d configured; at most %d", len(cfg.Links), maxLinks)
	}
	m := &Mesh{
		self: cfg.Self, id: nodeID(cfg.Self), cluster: clusterID(cfg.Cluster), clusterName: cfg.Cluster, boot: cfg.Boot,
		open: cfg.Open, logger: cfg.Logger,
		started: time.Now(), kick: make(chan struct{}, 1), lines: make(chan line, 256),
		watchers: map[chan struct{}]struct{}{},
	}
	m.timing.Store(&t)
	m.tx.New = func() any { return new(txBuf) }
	if m.logger == nil {
		m.logger = slog.New(slog.DiscardHandler)
	}
	for m.boot == 0 {
		m.boot = Boot(random64())
	}
	if err := m.SetKeys(cfg.Keys, cfg.Active); err != nil {
		return nil, err
	}
	if err := m.addLinks(cfg.Links); err != nil {
		return nil, err
	}
	if err := m.SetNodes(cfg.Nodes); err != nil {
		return nil, err
	}
	if m.open == nil {
		s := &sockets{}
		m.open, m.watch = s.open, s.watch
	}
	return m, nil
}

func (m *Mesh) addLinks(links []conf.Link) error {
	type place struct {
		iface string
		port  uint16
	}
	taken := map[place]string{}
	for i, l := range links {
		if l.Port == 0 && l.Type != conf.Serial {
			l.Port = conf.DefaultPort
		}
		if l.Type == conf.Mcast {
			if !l.Group.IsValid() {
				l.Group = netip.AddrFrom4([4]byte{225, 0, 0, 1})
			}
			if l.TTL == 0 {
				l.TTL = 1
			}
			if !l.Group.IsMulticast() {
				return fmt.Errorf("link %s: %v is not a multicast group", l.Name(), l.Group)
			}
		}
		switch l.Type {
		case conf.Bcast, conf.Mcast:
		case conf.Ucast:
			if len(l.Addresses) == 0 {
				return fmt.Errorf("link %s: no addresses; name those of the other nodes", l.Name())
			}
		case conf.Serial:
			if l.Device == "" {
				return fmt.Errorf("link %s: no device; name one, as /dev/ttyS0", l.Name())
			}
			if l.Baud = cmp.Or(l.Baud, conf.DefaultBaud); l.Baud < 300 {
				return fmt.Errorf("link %s: %d baud are too slow", l.Name(), l.Baud)
			}
		default:
			return fmt.Errorf("link %s: no kind of link; use bcast, mcast, ucast or serial", l.Name())
		}
		at := place{l.Interface, l.Port}
		if l.Type == conf.Serial {
			at = place{l.Device, 0}
		}
		if other, ok := taken[at]; ok {
			if l.Type == conf.Serial {
				return fmt.Errorf("link %s is there twice", l.Name())
			}
			// Two sockets on one port share what arrives, so neither would hear all of it.
			return fmt.Errorf("link %s: %s has the same interface and port; give one of them another port", l.Name(), other)
		}
		taken[at] = l.Name()
		m.links = append(m.links, &meshLink{
			conf: l, serial: l.Type == conf.Serial, name: l.Name(), idx: i, changed: make(chan struct{}, 1), problem: "not open yet",
		})
	}
	return nil
}

// Boot is the boot id of this node.
func (m *Mesh) Boot() Boot { return m.boot }

// Timing returns the timing in force.
func (m *Mesh) Timing() Timing { return *m.timing.Load() }

// SetTiming changes the timing while the mesh runs. Zero fields get their defaults.
func (m *Mesh) SetTiming(t Timing) error {
	t, err := t.withDefaults()
	if err != nil {
		return err
	}
	m.timing.Store(&t)
	m.wake()
	return nil
}

// Handle implements Datagrams.
func (m *Mesh) Handle(ch Channel, f func(from string, boot Boot, payload []byte)) {
	m.handlers[ch].Store(&f)
}

// SetMeta implements Datagrams. A meta that is too long is an error of the
// program: it is logged and the former one stays.
func (m *Mesh) SetMeta(meta []byte) {
	if len(meta) > MaxMeta {
		m.say(slog.LevelError, "meta is not sent: too long", "bytes", len(meta), "at_most", MaxMeta)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.meta = slices.Clone(meta)
}

// Peers implements Datagrams.
func (m *Mesh) Peers() []Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	peers := m.roster.Load().peers
	out := make([]Peer, 0, len(peers))
	for _, p := range peers {
		s := p.sess.Load()
		pub := Peer{Node: p.name, State: Down, Links: make([]PeerLink, 0, len(m.links))}
		if s != nil {
			pub.Boot, pub.Meta = s.boot, slices.Clone(s.meta)
			pub.Heard = m.started.Add(time.Duration(p.heard.Load()))
		}
		network := false
		for i, l := range m.links {
			t := m.timingOf(p, l)
			_, why, _ := judge(m.evidence(p, l), now, t)
			pl := PeerLink{Link: l.name, State: p.links[i].state, Since: p.links[i].since}
			if pl.State != Up {
				pl.Why = cmp.Or(why, p.links[i].why)
			}
			if s != nil {
				rx := &s.links[i]
				pl.RTT = rx.rtt
				overdue := 0
				if !rx.hello.IsZero() {
					overdue = int(now.Sub(rx.hello)/t.Keepalive) - 1 // one may be on its way
				}
				pl.Loss = rx.loss.share(overdue)
			}
			if pl.State.better(pub.State) {
				pub.State = pl.State
			}
			network = network || !l.serial && pl.State != Down
			pub.Links = append(pub.Links, pl)
		}
		pub.OnlySerial = pub.State != Down && !network
		out = append(out, pub)
	}
	return out
}

// Watch implements Datagrams.
func (m *Mesh) Watch() (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers[ch] = struct{}{}
	return ch, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, ch)
	}
}

// notify is called with m.mu held.
func (m *Mesh) notify() {
	for ch := range m.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (m *Mesh) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Send implements Datagrams.
func (m *Mesh) Send(to string, ch Channel, payload []byte) error {
	p := m.roster.Load().byName[to]
	switch {
	case p == nil:
		return fmt.Errorf("send to %s: no such node in the configuration; there are %s", to, m.nodeNames())
	case ch <= ChannelHello:
		return fmt.Errorf("send to %s: channel %d is not for sending", to, ch)
	case len(payload) > MaxPayload:
		return fmt.Errorf("send to %s: %d bytes are too many for a datagram; at most %d", to, len(payload), MaxPayload)
	}
	tx := m.tx.Get().(*txBuf)
	defer m.tx.Put(tx)
	tx.b[headerLen] = byte(ch)
	n := copy(tx.b[headerLen+1:], payload)
	b := m.sealTo(tx, p.id, m.seq.Add(1), 1+n)
	took := false
	targets := *p.targets.Load()
	for i := range targets {
		if l := targets[i].link; l.serial && !(ch == ChannelLease && l.leadsTo(p)) {
			continue
		}
		if targets[i].link.send(b, targets[i].addr, classOf(p.id, payload)) {
			took = true
		}
	}
	if took {
		return nil
	}
	return m.untaken(p, ch, targets)
}

func (m *Mesh) nodeNames() string {
	peers := m.roster.Load().peers
	names := make([]string, len(peers))
	for i, p := range peers {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}

// untaken says why no link took a datagram.
func (m *Mesh) untaken(p *peer, ch Channel, targets []target) error {
	var why []string
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(targets) == 1 && targets[0].link.serial && ch != ChannelLease {
		return fmt.Errorf("send to %s: only the link %s is left, and a serial line carries no streams", p.name, targets[0].link.name)
	}
	for _, t := range targets {
		if t.link.serial && ch != ChannelLease {
			continue
		}
		reason := cmp.Or(t.link.problem, m.elsewhere(p, t.link))
		if reason == "" {
			reason = "sending failed"
			if err := t.link.lastErr.Load(); err != nil {
				reason = (*err).Error()
			}
		}
		why = append(why, "link "+t.link.name+": "+reason)
	}
	return fmt.Errorf("send to %s: no link took it: %s", p.name, strings.Join(why, "; "))
}

// sealTo seals the n bytes of plain text after the header in tx.
func (m *Mesh) sealTo(tx *txBuf, dst uint32, seq uint64, n int) []byte {
	ring := m.ring.Load()
	header{cluster: m.cluster, key: ring.active, src: m.id, dst: dst, boot: m.boot, seq: seq}.put(tx.b[:headerLen])
	putNonce(&tx.nonce, seq)
	sealed := ring.seal.Seal(tx.b[headerLen:headerLen], tx.nonce[:], tx.b[headerLen:headerLen+n], tx.b[:headerLen])
	return tx.b[:headerLen+len(sealed)]
}

// Run opens the links and works until ctx ends; it returns nil then. It can be
// called once. All goroutines have ended when it returns.
func (m *Mesh) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		return errors.New("links: Run was called twice")
	}
	logStop, logDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(logDone)
		m.writeLines(logStop)
	}()
	var wg sync.WaitGroup
	for _, l := range m.links {
		wg.Go(func() { m.keepOpen(ctx, l) })
	}
	if m.watch != nil {
		wg.Go(func() {
			m.watch(ctx, func() {
				for _, l := range m.links {
					l.poke()
				}
			})
		})
	}
	m.beat(ctx)
	wg.Wait()
	close(logStop)
	<-logDone
	return nil
}

func random64() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand
	return binary.BigEndian.Uint64(b[:])
}
