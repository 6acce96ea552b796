// Package sim runs whole clusters with the real code on virtual time
// (testing/synctest): only sockets, disks, the kernel's tables and its guard
// are stand-ins. It plays schedules of faults from a seed and watches that an
// exclusive group is never active on two nodes at once.
package sim

import (
	"context"
	"encoding/json"
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
	"github.com/keepbeat/keepbeat/cluster/transport"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// clock is a machine's clock: virtual time at a rate that is wrong by up to 1 %.
type clock struct {
	epoch time.Time
	rate  float64
}

func (c clock) Now() time.Duration  { return time.Duration(float64(time.Since(c.epoch)) * c.rate) }
func (c clock) Boot() time.Duration { return c.Now() }

// kernel is what outlives the daemon on a machine: addresses and the guard.
type kernel struct {
	clock clock
	// ignored makes the guard have no effect: a deliberately broken variant.
	ignored bool

	mu       sync.Mutex // guards what follows
	held     map[netip.Addr]bool
	cut      map[netip.Addr]bool
	deadline time.Duration
	active   map[netip.Addr]bool
	off      bool // the machine has no power
}

func newKernel(c clock) *kernel {
	return &kernel{clock: c, held: map[netip.Addr]bool{}, cut: map[netip.Addr]bool{}, active: map[netip.Addr]bool{}}
}

func (k *kernel) Hold(addrs ...netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range addrs {
		k.held[a] = true
		delete(k.cut, a)
	}
	return nil
}

func (k *kernel) Drop(addrs ...netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range addrs {
		delete(k.held, a)
		delete(k.cut, a)
	}
	return nil
}

func (k *kernel) Cut(addrs ...netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range addrs {
		k.held[a], k.cut[a] = true, true
	}
	return nil
}

func (k *kernel) SetDeadline(d time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deadline = d
	return nil
}

// answers says whether the address answers on this machine at this instant.
func (k *kernel) answers(a netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.off || !k.active[a] {
		return false
	}
	if k.ignored || !k.held[a] {
		return true
	}
	return !k.cut[a] && k.clock.Now() < k.deadline
}

// address is the stand-in for a VIP: present or not, after a while.
type address struct {
	k    *kernel
	addr netip.Addr
	slow func() time.Duration
	fail func() error
}

func (r *address) Record() (json.RawMessage, error) { return json.Marshal(r.addr) }

func (r *address) Start(ctx context.Context) error {
	if err := r.wait(ctx); err != nil {
		return err
	}
	if err := r.fail(); err != nil {
		return err
	}
	r.k.mu.Lock()
	r.k.active[r.addr] = true
	r.k.mu.Unlock()
	return nil
}

func (r *address) Stop(ctx context.Context) error {
	if err := r.wait(ctx); err != nil {
		return err
	}
	r.k.mu.Lock()
	delete(r.k.active, r.addr)
	r.k.mu.Unlock()
	return nil
}

func (r *address) wait(ctx context.Context) error {
	d := r.slow()
	if d == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (r *address) Monitor(context.Context) error {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	if !r.k.active[r.addr] {
		return errors.New("the address is gone")
	}
	return nil
}

func (r *address) Close() error            { return nil }
func (r *address) Addresses() []netip.Addr { return []netip.Addr{r.addr} }

// maker makes addresses of one machine.
type maker struct{ m *machine }

func (mk maker) New(_ resources.Env, _ conf.Spec, r conf.Resource) (resources.Resource, error) {
	return &address{k: mk.m.kernel, addr: r.VIP.Address, slow: mk.m.slow, fail: mk.m.startFails}, nil
}

func (mk maker) Recover(_ resources.Env, record json.RawMessage) (resources.Resource, error) {
	var a netip.Addr
	if err := json.Unmarshal(record, &a); err != nil {
		return nil, err
	}
	return &address{k: mk.m.kernel, addr: a, slow: mk.m.slow, fail: mk.m.startFails}, nil
}

// machine is one node of the simulation, with what outlives its daemon.
type machine struct {
	w        *world
	name     string
	role     conf.Role
	kernel   *kernel
	stores   consensus.Stores
	promises *lease.Memory
	uuid     string
	disks    int

	mu       sync.Mutex // guards what follows
	delay    time.Duration
	failures int

	// Only the schedule's goroutine touches these.
	node   *cluster.Node
	cancel context.CancelFunc
	done   chan error
	starts int
}

func (m *machine) slow() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.delay
}

func (m *machine) startFails() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failures > 0 {
		m.failures--
		return errors.New("told to fail")
	}
	return nil
}

// newDisk gives the machine an empty disk.
func (m *machine) newDisk() {
	m.disks++
	m.uuid = fmt.Sprintf("%s-disk%d", m.name, m.disks)
	m.stores = consensus.MemoryStores()
	m.promises = &lease.Memory{}
}

// start starts the daemon.
func (m *machine) start() error {
	if m.node != nil {
		return nil
	}
	m.starts++
	boot := link.Boot(m.w.rand.Uint64() | 1)
	logger := slog.New(m.w.handler(m.name))
	local := m.w.local(m.name)
	mesh, err := link.New(link.Config{
		Cluster: local.Cluster, Self: m.name, Nodes: m.w.names(), Boot: boot,
		Keys: []link.Key{{Index: 1, Secret: []byte("a key of the simulation")}}, Active: 1,
		Links: local.Links, Keepalive: local.Profile.Keepalive, Open: m.w.medium.Opener(m.name), Logger: logger,
	})
	if err != nil {
		return err
	}
	streams := m.w.streams.NodeOver(m.name, mesh)
	cfg := cluster.Config{
		Local: local, UUID: m.uuid, Boot: boot, Version: "sim", Datagrams: mesh, Streams: streams,
		Stores: m.stores, Promises: m.promises, Promised: m.promises.Record,
		Clock: m.kernel.clock, Guard: m.kernel,
		Registry:     resources.Registry{conf.KindVIP: maker{m}},
		Journal:      resources.Journal{Dir: filepath.Join(m.w.dir, m.name)},
		Files:        func() (*conf.Spec, conf.Files, error) { return m.w.spec, conf.Files{}, nil },
		NoMembership: true, Logger: logger,
	}
	n, err := cluster.New(cfg)
	if err != nil {
		return errors.Join(err, streams.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.node, m.cancel, m.done = n, cancel, make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := mesh.Run(ctx); err != nil && ctx.Err() == nil {
			m.w.note("%s: links: %v", m.name, err)
		}
	})
	go func() {
		err := n.Run(ctx)
		cancel()
		wg.Wait()
		m.done <- errors.Join(err, streams.Close())
	}()
	return nil
}

// kill ends the daemon without warning; the kernel goes on.
func (m *machine) kill() {
	if m.node == nil {
		return
	}
	m.w.cutAll(m.name, true)
	m.w.streams.Kill(m.name)
	m.cancel()
	if err := <-m.done; err != nil {
		m.w.note("%s: daemon ended: %v", m.name, err)
	}
	m.node = nil
	m.w.cutAll(m.name, false)
}

// powerOff ends the machine: the daemon, its addresses and its guard.
func (m *machine) powerOff() {
	m.kernel.mu.Lock()
	m.kernel.off = true
	m.kernel.mu.Unlock()
	m.kill()
	m.kernel.mu.Lock()
	m.kernel.active, m.kernel.held, m.kernel.cut = map[netip.Addr]bool{}, map[netip.Addr]bool{}, map[netip.Addr]bool{}
	m.kernel.deadline = 0
	m.kernel.mu.Unlock()
}

func (m *machine) powerOn() error {
	m.kernel.mu.Lock()
	m.kernel.off = false
	m.kernel.mu.Unlock()
	if err := m.w.clearJournal(m.name); err != nil {
		return err
	}
	return m.start()
}

var _ transport.Streams = (*transport.Memory)(nil)
