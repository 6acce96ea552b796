package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/lease"
	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// machine is one node of the simulation, with what outlives its daemon.
type machine struct {
	w        *world
	name     string
	role     conf.Role
	kernel   *kernel
	stores   consensus.Stores
	promises *lease.Memory
	// generations outlives a discarded log, and not the disk.
	generations *pair.Memory
	uuid        string
	disks       int

	mu         sync.Mutex // guards what follows
	delay      time.Duration
	failStarts int
	failStops  int

	// Only the schedule's goroutine touches these.
	node   *cluster.Node
	gate   *gate
	paused bool
	cancel context.CancelFunc
	done   chan error
	carry  string
	starts int // counts daemons: what was begun for an earlier one is void
	seen   watched
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
	m.uuid = fmt.Sprintf("%s-disk%d", m.name, m.disks)
	m.stores = consensus.MemoryStores()
	m.promises = &lease.Memory{}
	m.generations = &pair.Memory{}
}

func (m *machine) journal() resources.Journal {
	return resources.Journal{Dir: filepath.Join(m.w.dir, m.name)}
}

// start starts the daemon.
func (m *machine) start() error {
	if m.node != nil || !m.powered() || m.releasing != nil {
		return nil
	}
	m.starts++
	m.seen = watched{}
	g := newGate()
	boot := link.Boot(m.w.rand.Uint64() | 1)
	logger := slog.New(m.w.handler(m.name))
	local := m.w.local(m.name)
	open := m.w.medium.Opener(m.name)
	mesh, err := link.New(link.Config{
		Cluster: local.Cluster, Self: m.name, Nodes: m.w.names(), Boot: boot,
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
	n, err := cluster.New(cluster.Config{
		Local: local, UUID: m.uuid, Boot: boot, Version: "sim", Datagrams: mesh, Streams: streams,
		Stores: m.stores, Promises: m.promises, Promised: m.promises.Record,
		Clock: m.kernel.clock, Guard: guard{m.kernel, g},
		Registry: resources.Registry{conf.KindVIP: maker{m, g}}, Journal: m.journal(),
		Generations: generations{m.generations, g}, Generation: m.generations.Record, Carry: m.carry,
		Wire: wires{m.w, m, g}, Fencing: m.w.fencing(m, g),
		Files: m.w.files, NoMembership: true, Logger: logger,
	})
	if err != nil {
		return errors.Join(err, streams.Close())
	}
	m.carry = ""
	ctx, cancel := context.WithCancel(context.Background())
	m.node, m.gate, m.paused, m.cancel, m.done = n, g, false, cancel, make(chan error, 1)
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
		if errors.Is(err, cluster.ErrRejoin) {
			m.w.later(func() {
				if m.node == n {
					m.end()
					m.rejoin()
					if err := m.start(); err != nil {
						m.w.violate("the simulation itself failed: %v", err)
					}
				}
			})
		}
	}()
	return nil
}

// kill ends the daemon without warning (SIGKILL); the kernel goes on.
func (m *machine) kill() {
	if m.node == nil {
		return
	}
	m.gate.kill()
	m.w.net.dying = m.name
	m.w.net.apply()
	m.w.streams.Kill(m.name)
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
	reg := resources.Registry{conf.KindVIP: maker{m, g}}
	if err := resources.Release(ctx, m.journal(), reg, m.name, slog.New(slog.DiscardHandler)); err != nil {
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
	m.w.tables.Lock()
	m.kernel.clear()
	m.kernel.off = false
	m.w.tables.Unlock()
	if err := m.w.clearJournal(m.name); err != nil {
		return err
	}
	return m.start()
}
