package sim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp/announce"
)

// machine is one node of the simulation, with what outlives its daemon.
type machine struct {
	w      *world
	name   string
	role   conf.Role
	kernel *kernel
	disks  int
	format int // newest format of the state that its program knows; 0: the newest there is

	mu         sync.Mutex  // guards what follows
	journals   int         // which of its journals is in use
	nodes      []conf.Node // of its ha.yaml
	rule       conf.Quorum // of its ha.yaml
	disk       *disk
	live       *gate // of the daemon that runs; nil: none, or it has just been struck
	delay      time.Duration
	slowStarts bool // delay is for starts only
	// switchedOff: somebody has to switch it on. The schedule's.
	switchedOff bool
	failStarts  int
	failStops   int

	// Only the schedule's goroutine touches these.
	member bool // the operator has made it a node of the cluster
	node   *cluster.Node
	gate   *gate
	paused bool
	dark   int // how many faults keep it without power
	cancel context.CancelFunc
	done   chan error
	carry  string
	starts int // counts daemons: what was begun for an earlier one is void
	seen   watched
	record *recording
	// releasing is the gate of a `keepbeat release` that is under way; systemd starts no daemon before its end.
	releasing *gate
}

func (m *machine) told(n *int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if *n <= 0 {
		return false
	}
	*n--
	return true
}

func (m *machine) powered() bool {
	m.w.tables.Lock()
	defer m.w.tables.Unlock()
	return !m.kernel.off
}

// newDisk gives the machine an empty disk.
func (m *machine) newDisk() {
	m.disks++
	d := newDisk(fmt.Sprintf("%s-disk%d", m.name, m.disks))
	m.mu.Lock()
	m.disk = d
	m.mu.Unlock()
}

func (m *machine) diskNow() *disk {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.disk
}

// openData is what cluster.OpenData does: a log that has been superseded is put
// aside; what was promised and revoked stays.
func (m *machine) openData() *disk {
	old := m.diskNow()
	r := old.generationNow()
	if !r.Discard {
		return old
	}
	m.newDisk()
	d := m.diskNow()
	d.promises, d.generation = old.promises, pair.Record{Current: r.Current, How: r.How}
	m.w.note("    %s puts its log aside and comes back in generation %v", m.name, r.Current)
	return d
}

// journal is in /run: a reboot empties it. What a daemon that is dead still
// does to it goes to a copy that nobody reads.
func (m *machine) journal() resources.Journal {
	m.mu.Lock()
	defer m.mu.Unlock()
	return resources.Journal{Dir: filepath.Join(m.w.dir, fmt.Sprintf("%s.%d", m.name, m.journals))}
}

// leaveJournal makes the next daemon go on from what stands in the journal now.
func (m *machine) leaveJournal() error {
	from := m.journal().Dir
	for try := 0; ; try++ {
		m.emptyJournal()
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			return nil // nothing has been started
		}
		// A file that is being replaced meanwhile is read again.
		if err := os.CopyFS(m.journal().Dir, os.DirFS(from)); err == nil || try == 100 {
			return err
		}
	}
}

// emptyJournal is what a reboot does to it.
func (m *machine) emptyJournal() {
	m.mu.Lock()
	m.journals++
	m.mu.Unlock()
}

// registry makes what groups consist of, for one daemon.
func (m *machine) registry(g *gate) resources.Registry {
	announcers := announce.NewMaker(announce.Config{Open: func() (announce.Host, error) { return airHost{m, g}, nil }})
	return resources.Registry{conf.KindVIP: maker{m, g}, kindStore: maker{m, g}, conf.KindVRRP: announcers}
}

// start starts the daemon.
func (m *machine) start() error {
	if m.node != nil || !m.powered() || m.releasing != nil || !m.member {
		return nil
	}
	m.starts++
	m.seen = watched{}
	g := newGate()
	g.allowed = m.carry != "" // it goes on as the one before it
	d := m.openData()
	boot := link.Boot(m.w.rand.Uint64() | 1)
	logger := slog.New(m.w.handler(m.name))
	local := m.w.local(m)
	open := m.w.medium.Opener(m.name)
	mesh, err := link.New(link.Config{
		Cluster: local.Cluster, Self: m.name, Nodes: namesOf(local.Nodes), Boot: boot,
		Keys: []link.Key{{Index: 1, Secret: []byte("a key of the simulation")}}, Active: 1,
		Links: local.Links, Keepalive: local.Profile.Keepalive, Logger: logger,
		Open: func(l conf.Link) (link.Port, error) {
			p, err := open(l)
			return port{p, g}, err
		},
	})
	if err != nil {
		return err
	}
	streams := m.w.streams.NodeOver(m.name, mesh)
	m.record = m.w.recorded(m)
	registry := m.registry(g)
	n, err := cluster.New(cluster.Config{
		Local: local, UUID: d.uuid, Boot: boot, Version: "sim", Datagrams: mesh, Streams: streams,
		Stores: d.stores(), Promises: promises{d}, Promised: d.promises,
		Clock: m.kernel.clock, Guard: guard{m.kernel, g},
		Registry: registry, Journal: m.journal(),
		Generations: generations{m, d, g}, Generation: d.generationNow(), Carry: m.carry,
		Wire: wires{m.w, m, g}, Fencing: m.w.fencing(m, g),
		SetNodes: func(names []string) error { return errors.Join(mesh.SetNodes(names), streams.SetNodes(names)) },
		WriteNodes: func(nodes []conf.Node, rule conf.Quorum) error {
			return g.do(func() {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.nodes, m.rule = slices.Clone(nodes), rule
			})
		},
		Files: m.w.files, NoMembership: true, Format: m.format, Compaction: m.w.compaction(), Recorder: m.record, Logger: logger,
	})
	if err != nil {
		return errors.Join(err, streams.Close())
	}
	m.carry = ""
	ctx, cancel := context.WithCancel(context.Background())
	m.node, m.gate, m.paused, m.cancel, m.done = n, g, false, cancel, make(chan error, 1)
	m.mu.Lock()
	m.live = g
	m.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := mesh.Run(ctx); err != nil && ctx.Err() == nil {
			m.w.note("%s: links: %v", m.name, err)
		}
	})
	done := m.done
	go func() {
		err := n.Run(ctx)
		cancel()
		wg.Wait()
		done <- errors.Join(err, streams.Close())
		if errors.Is(err, cluster.ErrRemoved) {
			m.w.later(func() {
				if m.node == n {
					m.end()
					m.member = false
					m.clearGuard()
				}
			})
		}
		if errors.Is(err, cluster.ErrRejoin) {
			m.w.later(func() {
				if m.node == n {
					m.end()
					if err := m.start(); err != nil {
						m.w.violate("the simulation itself failed: %v", err)
					}
				}
			})
		}
	}()
	return nil
}

// strike ends the daemon, or with power the machine, at this very moment:
// nothing that it does from now on is seen by anybody. Any goroutine may call
// it; the schedule's clears up, and starts it again after a while, unless that is negative. left is the
// disk as it is now; nil: that is looked at here.
func (m *machine) strike(power bool, left *disk, again time.Duration) {
	m.mu.Lock()
	g, d := m.live, m.disk
	m.live = nil
	m.mu.Unlock()
	if g != nil {
		g.kill()
		if err := m.leaveJournal(); err != nil {
			m.w.violate("the simulation itself failed: %v", err)
		}
		m.w.streams.Kill(m.name)
	}
	if power {
		m.kernel.change("power off", func() { m.kernel.off = true })
	}
	if g != nil {
		if left == nil {
			left = d.leave()
		}
		m.mu.Lock()
		m.disk = left
		m.mu.Unlock()
	}
	m.w.later(func() {
		if power {
			m.powerOff()
		} else if m.gate == g {
			m.kill()
		}
		if again >= 0 {
			m.w.again(m, again)
		} else {
			m.switchedOff = true
		}
	})
}

// kill ends the daemon without warning (SIGKILL); the kernel goes on.
func (m *machine) kill() {
	if m.node == nil {
		return
	}
	m.gate.kill()
	if err := m.leaveJournal(); err != nil {
		m.w.violate("the simulation itself failed: %v", err)
	}
	m.w.net.dying = m.name
	m.w.net.apply()
	m.w.streams.Kill(m.name)
	m.mu.Lock()
	if m.live != nil {
		m.live, m.disk = nil, m.disk.leave()
	}
	m.mu.Unlock()
	m.end()
	m.w.net.dying = ""
	m.w.net.apply()
}

// end waits for the daemon to end.
func (m *machine) end() {
	m.cancel()
	if err := <-m.done; err != nil {
		m.w.note("    %s: daemon ended: %v", m.name, err)
	}
	m.node, m.gate, m.paused = nil, nil, false
	m.mu.Lock()
	m.live = nil
	m.mu.Unlock()
	delete(m.w.net.paused, m.name)
}

// pause is SIGSTOP: nothing comes in and nothing goes out until cont.
func (m *machine) pause() {
	m.gate.stop()
	m.paused = true
	m.w.net.paused[m.name] = true
	m.w.net.apply()
}

func (m *machine) cont() {
	m.paused = false
	m.gate.cont()
	delete(m.w.net.paused, m.name)
	m.w.net.apply()
}

// release is `keepbeat release`: it takes back what a dead daemon left. g is
// dead when the power goes off meanwhile.
func (m *machine) release(ctx context.Context, g *gate) {
	if err := resources.Release(ctx, m.journal(), m.registry(g), m.name, slog.New(slog.DiscardHandler)); err != nil {
		m.w.note("    %s: release: %v", m.name, err)
		return
	}
	if err := g.do(m.clearGuard); err == nil {
		m.w.note("    %s: released", m.name)
	}
}

// clearGuard takes the guard away, as `release` and a clean stop do at their end.
func (m *machine) clearGuard() {
	m.kernel.change("the guard's removal", func() {
		m.kernel.held, m.kernel.cut, m.kernel.deadline = map[netip.Addr]bool{}, map[netip.Addr]bool{}, 0
	})
}

// powerOff ends the machine: the daemon, its addresses and its guard.
func (m *machine) powerOff() {
	m.kernel.change("power off", func() { m.kernel.off = true })
	if m.releasing != nil {
		m.releasing.kill()
		m.releasing = nil
	}
	m.kill()
	m.w.tables.Lock()
	m.kernel.clear()
	m.w.tables.Unlock()
}

func (m *machine) powerOn() error {
	if m.powered() {
		return m.start()
	}
	if m.dark > 0 {
		return nil
	}
	m.w.tables.Lock()
	m.kernel.clear()
	m.kernel.off = false
	m.w.tables.Unlock()
	m.emptyJournal()
	return m.start()
}
