// Package membership says who is in the cluster, since which boot and with which
// metadata, as memberlist's gossip has it. It suggests; it never decides: groups
// move by the replicated log and leases only.
package membership

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/transport"
)

// State of a member as gossip has it.
type State uint8

// States. The zero value is invalid.
const (
	_      State = iota
	Absent       // configured, and never seen by this start of the daemon
	Alive
	Dead // did not answer
	Left // said that it stops
)

// String is the word that status prints.
func (s State) String() string {
	switch s {
	case Absent:
		return "absent"
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	case Left:
		return "left"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Member is what gossip knows of a configured node.
type Member struct {
	Name  string
	State State
	Boot  link.Boot // 0: not known
	Meta  Meta      // the last one that was seen
	Since time.Time // of State and Boot
	Joins int       // how often it joined; a new boot counts even when nobody missed the old one
}

// Config is what New needs. Intervals have calm defaults: the links detect
// failures, gossip spreads what each node knows.
type Config struct {
	Self    string
	Nodes   []string // all configured nodes, Self among them
	Streams transport.Streams
	// Datagrams carries the packets. New registers the receiver of
	// link.ChannelGossip, so it is called before the mesh runs.
	Datagrams link.Datagrams
	Boot      link.Boot
	// Meta returns what this node tells of itself; asked by New and Update. nil: the boot only.
	Meta func() Meta

	// ProbeInterval between probes; each goes to one member, in turn. A silent
	// member is dead after about 5 of them. Default 1 s.
	ProbeInterval time.Duration
	// GossipInterval between the packets that spread a change. Default 250 ms.
	GossipInterval time.Duration
	// PushPullInterval between full exchanges with one member. Default 30 s.
	PushPullInterval time.Duration
	// RejoinInterval between attempts to join configured nodes that are not
	// alive in gossip while the links hear them. Default 3 s.
	RejoinInterval time.Duration

	Logger *slog.Logger // nil: silent
}

// maxPacket is the largest gossip packet: with the links' own bytes it fits an
// Ethernet frame.
const maxPacket = 1200

// streamTime bounds a dial and an exchange over a stream. The default of 10 s
// would hold the joining loop on a node that just went away.
const streamTime = time.Second

// Membership is this node's part in the gossip.
type Membership struct {
	cfg    Config
	list   *memberlist.Memberlist
	gossip *transport.Gossip
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// mu guards the rest. memberlist calls the delegates with its own lock held,
	// so nothing that calls memberlist may hold mu.
	mu       sync.Mutex
	members  map[string]*Member
	meta     []byte
	watchers map[chan struct{}]struct{}
}

// New starts the gossip. It needs no other node to be there.
func New(cfg Config) (*Membership, error) {
	if !slices.Contains(cfg.Nodes, cfg.Self) {
		return nil, fmt.Errorf("membership: this node, %s, is none of %s", cfg.Self, strings.Join(cfg.Nodes, ", "))
	}
	defaults := []struct {
		d *time.Duration
		v time.Duration
	}{
		{&cfg.ProbeInterval, time.Second}, {&cfg.GossipInterval, 250 * time.Millisecond},
		{&cfg.PushPullInterval, 30 * time.Second}, {&cfg.RejoinInterval, 3 * time.Second},
	}
	for _, d := range defaults {
		if *d.d == 0 {
			*d.d = d.v
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Membership{cfg: cfg, log: cfg.Logger, members: map[string]*Member{}, watchers: map[chan struct{}]struct{}{}}
	now := time.Now()
	for _, n := range cfg.Nodes {
		m.members[n] = &Member{Name: n, State: Absent, Since: now}
	}
	if err := m.readMeta(false); err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	gossip := transport.NewGossip(transport.GossipConfig{
		Self: cfg.Self, Nodes: cfg.Nodes, Streams: cfg.Streams, Datagrams: cfg.Datagrams,
	})
	list, err := memberlist.Create(m.settings(gossip))
	if err != nil {
		_ = gossip.Shutdown()
		return nil, fmt.Errorf("membership: %w", err)
	}
	m.list, m.gossip = list, gossip
	m.ctx, m.cancel = context.WithCancel(context.Background())
	changed, stop := cfg.Datagrams.Watch()
	m.wg.Go(func() {
		defer stop()
		m.rejoin(changed)
	})
	return m, nil
}

func (m *Membership) settings(t memberlist.Transport) *memberlist.Config {
	addr := transport.GossipAddr(m.cfg.Self).String()
	c := memberlist.DefaultLANConfig()
	c.Name = m.cfg.Self
	c.Transport = t
	c.BindAddr, c.BindPort = addr, transport.GossipPort
	c.AdvertiseAddr, c.AdvertisePort = addr, transport.GossipPort
	c.RequireNodeNames = true
	c.TCPTimeout = streamTime
	c.ProbeInterval = m.cfg.ProbeInterval
	c.ProbeTimeout = m.cfg.ProbeInterval / 2
	c.GossipInterval = m.cfg.GossipInterval
	c.PushPullInterval = m.cfg.PushPullInterval
	c.SuspicionMult = 3
	// With few members nobody can confirm a suspicion: do not wait for it.
	c.SuspicionMaxTimeoutMult = 1
	// In a pair every failed probe would make the next one slower.
	c.AwarenessMaxMultiplier = 1
	// A stream travels by the same datagrams as a probe and proves nothing more.
	c.DisableTcpPings = true
	// The links encrypt, and packets are too small to gain.
	c.EnableCompression = false
	c.UDPBufferSize = maxPacket
	c.DNSConfigPath = ""
	c.Logger = stdLogger(m.log)
	c.Delegate, c.Events, c.Alive = (*delegate)(m), (*delegate)(m), (*delegate)(m)
	return c
}

// Members returns every configured node, sorted by name, this one too.
func (m *Membership) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Member, 0, len(m.members))
	for _, x := range m.members {
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// SetNodes tells which nodes there are, this one among them. One that is new is
// Absent until it joins; one that is gone is a stranger to the gossip. Streams
// and links have to be told as well.
func (m *Membership) SetNodes(names []string) error {
	if !slices.Contains(names, m.cfg.Self) {
		return fmt.Errorf("membership: this node, %s, is none of %s", m.cfg.Self, strings.Join(names, ", "))
	}
	m.gossip.SetNodes(names)
	m.mu.Lock()
	var added []string
	maps.DeleteFunc(m.members, func(name string, _ *Member) bool { return !slices.Contains(names, name) })
	for _, n := range names {
		if m.members[n] == nil {
			m.members[n] = &Member{Name: n, State: Absent, Since: time.Now()}
			added = append(added, n)
		}
	}
	(*delegate)(m).notify()
	m.mu.Unlock()
	// memberlist tells nothing anew of a node that it has not missed: one that was
	// taken away and is back within the time of detection.
	for _, n := range m.list.Members() {
		if slices.Contains(added, n.Name) {
			(*delegate)(m).alive(n)
		}
	}
	return nil
}

// Watch returns a channel that gets a value after any change of Members; changes
// are merged.
func (m *Membership) Watch() (changed <-chan struct{}, stop func()) {
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

// Update asks Config.Meta again and spreads it. It does not wait for the others.
func (m *Membership) Update() error {
	if err := m.readMeta(false); err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	// The shortest time: to wait until the news is out is of no use here, and an
	// error of UpdateNode only says that it is not out yet.
	_ = m.list.UpdateNode(time.Nanosecond)
	return nil
}

func (m *Membership) readMeta(leaving bool) error {
	var meta Meta
	if m.cfg.Meta != nil {
		meta = m.cfg.Meta()
	}
	meta.Boot = m.cfg.Boot
	b, err := meta.encode(leaving)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.meta = b
	return nil
}

// Leave tells the others that this node stops, and waits at most that long for
// the news to get out. Close has to follow; a node that left cannot join again.
func (m *Membership) Leave(limit time.Duration) error {
	if err := m.readMeta(true); err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	if err := m.list.UpdateNode(limit / 2); err != nil {
		return fmt.Errorf("membership: leaving: %w", err)
	}
	if err := m.list.Leave(limit / 2); err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	return nil
}

// Close stops the gossip without a word: the others find this node dead.
func (m *Membership) Close() error {
	m.cancel()
	m.wg.Wait()
	return m.list.Shutdown()
}

// rejoin keeps joining the configured nodes that gossip does not have. That is
// how a start in any order comes together, and how a node that others believe
// dead after mass restarts (memberlist#311) is believed again.
func (m *Membership) rejoin(changed <-chan struct{}) {
	ticker := time.NewTicker(m.cfg.RejoinInterval)
	defer ticker.Stop()
	for {
		m.join()
		select {
		case <-changed: // a peer that came up is joined at once
		case <-ticker.C:
		case <-m.ctx.Done():
			return
		}
	}
}

func (m *Membership) join() {
	var seeds []string
	for _, p := range m.cfg.Datagrams.Peers() {
		if p.State == link.Down || p.OnlySerial {
			continue
		}
		m.mu.Lock()
		x := m.members[p.Node]
		missing := x != nil && x.State != Alive
		m.mu.Unlock()
		if missing {
			seeds = append(seeds, transport.GossipSeed(p.Node))
		}
	}
	for _, s := range seeds {
		if m.ctx.Err() != nil {
			return
		}
		if _, err := m.list.Join([]string{s}); err != nil {
			m.log.Debug("gossip join failed; trying again", "seed", s, "err", err)
		}
	}
}

// delegate is what memberlist calls. It holds the node lock of memberlist in the
// event callbacks: nothing here calls back.
type delegate Membership

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.alive(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.alive(n) }

func (d *delegate) alive(n *memberlist.Node) {
	meta, leaving, err := decodeMeta(n.Meta)
	if err != nil {
		d.log.Warn("gossip metadata of a node cannot be read; it runs another version", "node", n.Name, "err", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.members[n.Name]
	if x == nil {
		return
	}
	// A crash and return within the time of detection is seen as an update only.
	switch {
	case leaving:
		x.Since = time.Now()
	case x.State != Alive || meta.Boot != x.Boot:
		x.Joins++
		x.Since = time.Now()
	}
	x.State, x.Boot, x.Meta = Alive, meta.Boot, meta
	if leaving {
		x.State = Left
	}
	d.notify()
}

// NotifyLeave implements memberlist.EventDelegate.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.members[n.Name]
	if x == nil {
		return
	}
	if x.State == Left {
		return // its last metadata said so
	}
	x.State, x.Since = Dead, time.Now()
	d.notify()
}

// notify needs d.mu.
func (d *delegate) notify() {
	for w := range d.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// NotifyAlive implements memberlist.AliveDelegate: nodes that are not configured,
// or come with an address that is not their name's, are not let in.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	d.mu.Lock()
	known := d.members[n.Name] != nil
	d.mu.Unlock()
	if !known {
		return fmt.Errorf("%q is not a configured node", n.Name)
	}
	if want := transport.GossipAddr(n.Name); !slices.Equal(n.Addr.To16(), want.AsSlice()) || n.Port != transport.GossipPort {
		return fmt.Errorf("%s comes with the address %v, its name has %v", n.Name, n.Addr, want)
	}
	return nil
}

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(limit int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.meta) > limit {
		return nil
	}
	return d.meta
}

// NotifyMsg implements memberlist.Delegate. keepbeat sends no messages by gossip.
func (d *delegate) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState([]byte, bool) {}
