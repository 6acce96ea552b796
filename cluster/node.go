// Package cluster is one node of a keepbeat cluster: it puts links, streams,
// membership, consensus, leases, placement and resources together.
package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/lease"
	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/membership"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/cluster/transport"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
	"github.com/keepbeat/keepbeat/fencing/watchdog"
	"github.com/keepbeat/keepbeat/resources"
)

// Guard is the kernel's guard, as the node uses it.
type Guard interface {
	resources.Guard
	lease.Deadline
}

// Config is what a Node is given. Everything that touches the machine is in
// it, so that a simulation can give other things.
type Config struct {
	Local     *conf.Local
	UUID      string // of the data directory
	Boot      link.Boot
	Version   string
	Datagrams link.Datagrams
	Streams   transport.Streams
	Stores    consensus.Stores
	Promises  lease.Store
	Promised  lease.Record
	// Generations keeps Generation, the history that this node belongs to; pairs
	// open new ones. nil: in memory.
	Generations pair.Store
	Generation  pair.Record
	Carry       string             // of the daemon that this one replaces in a planned restart (Node.Carry)
	Wire        pair.Wire          // what the rule ping asks; nil: nothing answers
	Fencing     fencing.Service    // nil: none
	Watchdog    *watchdog.Watchdog // nil: none
	Clock       lease.Clock
	Guard       Guard              // nil: `guard: off`
	Registry    resources.Registry // of a director
	Journal     resources.Journal
	Keys        *KeyRing // nil: keys cannot be changed while it runs
	// RealOrders is told what operators have ordered for real servers, each time
	// it changes, and may keep the map; nil: nobody is.
	RealOrders func(map[netip.AddrPort]conf.RealOrder)
	// RealCost says in words what an order for these servers would cost as things
	// are now, by the checks of whoever owns the pools; empty or nil: nothing.
	RealCost func(Status, []RealOrdered, conf.RealOrder) string
	// Files reads and checks this node's own specification files.
	Files func() (*conf.Spec, conf.Files, error)
	// Write puts a version of the files into this node's configuration directory.
	Write func(version uint64, files conf.Files) error
	// SetNodes makes the links know these nodes and no others; WriteNodes writes them and the
	// rule into ha.yaml; CheckNodes says whether that would be possible. nil: not done.
	SetNodes   func(names []string) error
	WriteNodes func(nodes []conf.Node, rule conf.Quorum) error
	CheckNodes func(nodes []conf.Node, rule conf.Quorum) error
	// Membership is left out in simulations that do not look at it.
	NoMembership bool
	// Format is the newest format of the state that this program is said to
	// know, for simulations of an upgrade; 0: state.Format.
	Format int
	// Compaction is consensus.Config's, for simulations.
	Compaction consensus.Compaction
	// Recorder is told of every call of the pure cores; nil: nobody is.
	Recorder Recorder
	Logger   *slog.Logger
}

// Recorder is told what went into the pure cores and what came out, for
// simulations, which make the same calls again.
type Recorder interface {
	lease.Recorder
	consensus.Recorder
	// Decided is told of each call of pair.Decide.
	Decided(pair.Facts, pair.Decision)
}

// format is the newest format of the state that this program knows.
func (n *Node) format() int { return cmp.Or(n.cfg.Format, state.Format) }

// Node is one node of the cluster.
type Node struct {
	cfg      Config
	self     string
	id       string
	director bool
	logger   *slog.Logger
	started  time.Time
	digest   string // of `nodes:`
	said     meta   // what the hellos say now

	cons      *consensus.Consensus
	keeper    *lease.Keeper
	pair      *pairing
	selfReset *selfFence
	manager   *resources.Manager // nil on a witness
	members   *membership.Membership
	calls     *calls
	failed    chan error

	actorWake  chan struct{}
	leaderWake chan struct{}

	jobs   jobs
	aside  aside
	turned atomic.Int64 // when the actor's loop turned last, nanoseconds since started

	files sync.Mutex // held while this node's files are written, or read as a whole

	unfencing  chan struct{} // holds one while it is done; guards what follows
	unfenced   bool
	unfencedAt uint64 // index of the newest fencing of this node that was known then

	accused accuser // foreign routers; the actor's own

	lived bool // a lease has run in this process; the actor's own

	nodesSeen  uint64    // of the change of nodes that was seen last
	nodesSince time.Time // when
	nodesIndex uint64    // of the change of nodes that the links know; the actor's own
	namesSet   []string  // what the links were told last; the actor's own
	present    bool      // this daemon has been admitted; the actor's own
	hears      int       // how many the links know before the log names the nodes, when that is more than ha.yaml; the actor's own

	// What the pools were told last of orders for real servers; the actor's own.
	orders     map[netip.AddrPort]conf.RealOrder
	ordersTold bool

	mu           sync.Mutex                  // guards what follows
	nodesWritten uint64                      // of the change of nodes that stands in ha.yaml
	reports      map[string]resources.Report // the last of each group
	owned        map[string]uint64           // what the manager was told last
	stopping     bool                        // hand over, then end
	halting      bool                        // stop everything, handed over or not
	removed      bool                        // the same, as this is no node of the cluster any more
	fencingHeld  map[string]time.Time        // what orderFencing waits for, as the leader
	specErr      string                      // why this node's files are not what the cluster runs
	specVer      uint64                      // version that the manager follows
	filesVer     uint64                      // version that was written to this node's files
}

// New makes a node. Run starts it.
func New(cfg Config) (*Node, error) {
	i := slices.IndexFunc(cfg.Local.Nodes, func(n conf.Node) bool { return n.Name == cfg.Local.Name })
	if i < 0 {
		return nil, fmt.Errorf("node %s is not in nodes: of this file", cfg.Local.Name)
	}
	n := &Node{
		cfg: cfg, self: cfg.Local.Name, id: consensus.ID(cfg.Local.Name, cfg.UUID),
		director: cfg.Local.Nodes[i].Role == conf.Director, logger: cfg.Logger, started: time.Now(),
		digest: consensus.NodesDigest(cfg.Local.Nodes),
		failed: make(chan error, 1), actorWake: make(chan struct{}, 1), leaderWake: make(chan struct{}, 1), unfencing: make(chan struct{}, 1),
		reports: map[string]resources.Report{}, owned: map[string]uint64{},
	}
	n.jobs.init()
	profile := cfg.Local.Profile
	if err := n.openGeneration(); err != nil {
		return nil, err
	}
	n.calls = newCalls(n, cfg.Streams)
	n.selfReset = newSelfFence(cfg.Watchdog)
	var turned func()
	if n.director {
		turned = n.selfReset.register("lease").Turn
	}
	n.keeper = lease.NewKeeper(lease.Config{
		Node: n.self, ID: consensus.ServerID(n.self, cfg.UUID, n.cfg.Generation.Current), Boot: uint64(cfg.Boot), Holds: n.director, Length: profile.Lease,
		Clock: cfg.Clock, Store: cfg.Promises, Stored: cfg.Promised, Guard: cfg.Guard,
		Send: func(node string, b []byte) {
			// A lost datagram is a lost datagram: the next round comes in a quarter of a lease.
			_ = cfg.Datagrams.Send(node, link.ChannelLease, b)
		},
		Changed: n.wake, Turned: turned, Recorder: cfg.Recorder, Logger: cfg.Logger,
	})
	cfg.Datagrams.Handle(link.ChannelLease, func(from string, boot link.Boot, b []byte) {
		n.keeper.Receive(from, uint64(boot), b)
	})
	if n.director {
		n.manager = resources.NewManager(resources.ManagerConfig{
			Node: n.self, Registry: cfg.Registry, Guard: cfg.Guard, Journal: cfg.Journal, Live: n.keeper.Live,
			Report: n.report, Permit: func(ctx context.Context, group string, r conf.Resource) (func(), error) {
				return n.pair.permit(ctx, group, r)
			}, Logger: cfg.Logger,
		})
	}
	var err error
	n.cons, err = consensus.New(consensus.Config{
		Node: n.self, UUID: cfg.UUID, Boot: uint64(cfg.Boot), Nodes: cfg.Local.Nodes, Profile: profile,
		Stores: cfg.Stores, Generation: n.cfg.Generation.Current, Transport: n.raftTransport, Forward: n.calls.forward, Members: n.heard,
		Current: n.currentNodes,
		Pair: func() bool {
			_, _, ok := n.pairRule(n.State())
			return ok
		},
		// A voter that has helped to make a configuration names it in every promise from
		// then on. That waits for no loop: each may be late, and the keeper's for the disk.
		Configured: func(self string, index uint64, ids []string) {
			n.keeper.Rename(self)
			n.keeper.Latest(lease.Voters{Index: index, IDs: ids})
		},
		Changed: n.wake, Failed: n.fail, Now: time.Now, Recorder: cfg.Recorder, Compaction: cfg.Compaction, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	n.pair = newPairing(n)
	if !cfg.NoMembership {
		if n.members, err = membership.New(membership.Config{
			Self: n.self, Nodes: n.names(), Streams: cfg.Streams, Datagrams: cfg.Datagrams, Boot: cfg.Boot,
			Meta: func() membership.Meta {
				return membership.Meta{Boot: cfg.Boot, Version: cfg.Version, SpecVersion: n.State().SpecInfo.Version, UUID: cfg.UUID}
			},
			Logger: cfg.Logger,
		}); err != nil {
			return nil, errors.Join(err, n.cons.Shutdown())
		}
	}
	n.sayMeta()
	return n, nil
}

// raftTransport makes the transport of a raft.
func (n *Node) raftTransport(self string) consensus.Transport {
	return transport.NewRaftTransport(transport.RaftConfig{
		Streams: n.cfg.Streams, Datagrams: n.cfg.Datagrams, Self: self,
		HeartbeatTimeout: n.cfg.Local.Profile.RaftHeartbeat, Timeout: time.Second, Logger: n.cfg.Logger,
	})
}

// openGeneration finishes what an earlier daemon has begun: an intent that was
// not completed is dropped, a log that was to be forced is.
func (n *Node) openGeneration() error {
	if n.cfg.Generations == nil {
		n.cfg.Generations = &pair.Memory{}
	}
	r := n.cfg.Generation
	if r.Intent == nil && !r.Force {
		return nil
	}
	if r.Force {
		if err := consensus.Force(n.cfg.Stores, consensus.ServerID(n.self, n.cfg.UUID, r.Current)); err != nil {
			return err
		}
	}
	r.Intent, r.Force = nil, false
	n.cfg.Generation = r
	return n.cfg.Generations.Save(r)
}

func (n *Node) names() []string {
	var names []string
	for _, c := range n.cfg.Local.Nodes {
		names = append(names, c.Name)
	}
	return names
}

// State returns the replicated state as far as this node knows it.
func (n *Node) State() *state.State {
	if n.cons == nil {
		return state.New()
	}
	return n.cons.State()
}

// Name returns this node's name.
func (n *Node) Name() string { return n.self }

// Live says whether this node's lease runs at this moment.
func (n *Node) Live() bool { return n.keeper.Live() }

// Turning says whether this node's own loop has turned within d.
func (n *Node) Turning(d time.Duration) bool {
	return time.Since(n.started)-time.Duration(n.turned.Load()) < d
}

// wake makes both loops look again.
func (n *Node) wake() {
	for _, c := range []chan struct{}{n.actorWake, n.leaderWake} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// Run works until ctx ends or the node cannot go on. It stops no resource:
// call Stop before for a clean end. What runs stays in the journal, and the
// guard cuts it off when the lease ends.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if n.manager != nil {
		if err := n.manager.Recover(); err != nil {
			n.logger.Error("what an earlier daemon started is not all known", "err", err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { n.fallible(ctx, "lease", n.keeper.Run) })
	wg.Go(func() { n.fallible(ctx, "consensus", n.cons.Run) })
	wg.Go(func() { n.calls.serve(ctx) })
	wg.Go(func() { n.act(ctx) })
	wg.Go(func() { n.lead(ctx) })
	wg.Go(func() { n.pair.run(ctx) })
	if n.cfg.Fencing != nil {
		wg.Go(func() { n.fallible(ctx, "fencing", n.cfg.Fencing.Run) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-n.failed:
	}
	cancel()
	n.jobs.wait()
	if n.members != nil {
		err = errors.Join(err, n.members.Close())
	}
	err = errors.Join(err, n.cons.Halt())
	wg.Wait()
	if n.manager != nil {
		n.manager.Close()
	}
	return errors.Join(err, n.cons.Shutdown())
}

func (n *Node) fallible(ctx context.Context, what string, run func(context.Context) error) {
	if err := run(ctx); err != nil && ctx.Err() == nil {
		n.fail(fmt.Errorf("%s: %w", what, err))
	}
}

// meta is what this node's hellos say of it: at most 512 bytes.
type meta struct {
	UUID  string `json:"u"`
	Empty bool   `json:"e,omitempty"`
	Nodes string `json:"n"` // digest of `nodes:`
	Index uint64 `json:"i"`
	// Behind are the nodes, with commas, that it hears and that do not have the log.
	Behind string `json:"b,omitempty"`
	// Of a pair: the generation, and whether the node may not act yet.
	Counter    uint64 `json:"c,omitempty"`
	Generation string `json:"g,omitempty"`
	Cold       bool   `json:"w,omitempty"`
	Acts       bool   `json:"a,omitempty"` // it runs groups, or may
	// The id of the intent that this node has recorded, and of the other's that it has heard of.
	Intent string `json:"t,omitempty"`
	Echo   string `json:"h,omitempty"`
	Rule   string `json:"r,omitempty"` // of the pair
}

func (m meta) generation() pair.Generation {
	return pair.Generation{Counter: m.Counter, ID: m.Generation}
}

// parseMeta reads what another node says of itself.
func parseMeta(b []byte) (meta, bool) {
	var m meta
	if json.Unmarshal(b, &m) != nil || m.UUID == "" || !m.generation().Valid() {
		return meta{}, false
	}
	return m, true
}

// maxBehind is how many bytes of names a node says that are behind: what it says of
// itself has link.MaxMeta for everything.
const maxBehind = 128

// joinShort joins with commas the first of these names that together have at most so many bytes.
func joinShort(names []string, atMost int) string {
	s := strings.Join(names, ",")
	for len(s) > atMost {
		names = names[:len(names)-1]
		s = strings.Join(names, ",")
	}
	return s
}

// sayMeta is called by New, and then by the actor alone.
func (n *Node) sayMeta() {
	m := meta{
		UUID: n.cfg.UUID, Empty: n.cons.Empty(), Nodes: n.digest, Index: n.State().Index, Behind: joinShort(n.cons.Behind(), maxBehind),
	}
	g := n.cons.Generation()
	m.Counter, m.Generation = g.Counter, g.ID
	if n.pair != nil {
		n.pair.fill(&m)
	}
	if m == n.said {
		return
	}
	if b, err := json.Marshal(m); err == nil {
		n.cfg.Datagrams.SetMeta(b)
		n.said = m
	}
}

// heard returns what the nodes that are heard say of themselves.
func (n *Node) heard() map[string]consensus.Member {
	all := map[string]consensus.Member{}
	for _, p := range n.cfg.Datagrams.Peers() {
		m, ok := parseMeta(p.Meta)
		if p.State == link.Down || p.Boot == 0 || !ok {
			continue
		}
		all[p.Node] = consensus.Member{
			UUID: m.UUID, Empty: m.Empty, Nodes: m.Nodes, Index: m.Index, Behind: strings.Split(m.Behind, ","), Generation: m.generation(),
			Steady: !slices.ContainsFunc(p.Links, func(l link.PeerLink) bool { return l.State != link.Up }),
		}
	}
	return all
}
