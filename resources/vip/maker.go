// Package vip implements the resource kind vip: a virtual IP address, IPv4 or
// IPv6, on an interface of this node.
//
// It speaks netlink and runs no program. One Maker serves any number of
// addresses with one subscription to the kernel: when an address is deleted it
// is put back by the kernel's own event, and when the interface loses its
// carrier the resource's alarm goes off.
//
// An address that stands on the machine already and that keepbeat did not put
// there (the machine's own network configuration did) is refused by Record,
// Ready and Start: adopting it would mean to remove it at Stop, and that may be
// the address by which the machine is administered; leaving it at Stop would
// mean two owners. What keepbeat left behind after a crash is known by a mark
// on the address (IFA_PROTO, Linux 5.18 and later; on older kernels by the
// journal, by way of Adopt) and is adopted.
package vip

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// Config is what a Maker needs. The zero value is usable.
type Config struct {
	Logger    *slog.Logger // what concerns no single address; nil: nowhere
	Namespace string       // path of a network namespace, /run/netns/a; empty: the process's own
}

// Maker makes virtual addresses. Its sockets are opened when the first resource
// needs them. Close ends it.
type Maker struct {
	cfg  Config
	wake chan struct{} // something is pending
	done chan struct{} // closed by Close
	wg   sync.WaitGroup

	mu      sync.Mutex // guards the rest; never held while waiting for a resource
	closed  bool
	k       *rtnl.Kernel // nil until opened
	watch   *rtnl.Watch  // keeps links and addrs; nil until opened
	renewal bool         // refresh is pending, or runs
	links   map[int]rtnl.Link
	addrs   map[netip.Addr][]rtnl.Address
	started map[place]*vip
	pending []func() // for the worker: what events ask for

	routeFD int // events of routes; -1 until a resource needs routes
	buf     []byte
	routes  map[rtnl.Connected]struct{}

	// journal has the records of what was started, by us or by a daemon before
	// (Adopt, Recover), and not stopped: what was taken from lo, and on kernels
	// without marks which addresses are ours.
	journal map[journalKey]record
}

// place is where an address stands: a link-local one may stand on several interfaces.
type place struct {
	addr  netip.Addr
	index int
}

// journalKey names a virtual address: by itself, or with the interface when it is link-local.
type journalKey struct {
	addr netip.Addr
	dev  string
}

func keyOf(a netip.Addr, dev string) journalKey {
	if !a.IsLinkLocalUnicast() {
		dev = ""
	}
	return journalKey{a, dev}
}

var errClosed = errors.New("vip: closed")

// retryDelay is the wait before a failed resync is tried again.
const retryDelay = 100 * time.Millisecond

// routeBuffer (bytes) is small: nobody reads it between two questions, and an overflow costs one dump.
const routeBuffer = 256 << 10

// NewMaker returns a Maker. It opens nothing.
func NewMaker(cfg Config) *Maker {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Maker{
		cfg: cfg, wake: make(chan struct{}, 1), done: make(chan struct{}), routeFD: -1,
		started: map[place]*vip{}, journal: map[journalKey]record{},
	}
}

// New makes the resource of a specification.
func (m *Maker) New(env resources.Env, _ conf.Spec, r conf.Resource) (resources.Resource, error) {
	if r.VIP == nil {
		return nil, fmt.Errorf("%s: the specification has no address", r.Name)
	}
	if err := check(r.VIP); err != nil {
		return nil, err
	}
	return newVIP(m, env, *r.VIP), nil
}

// Recover makes of a record a resource that can be stopped, and only that.
func (m *Maker) Recover(env resources.Env, b json.RawMessage) (resources.Resource, error) {
	rec, err := parseRecord(b)
	if err != nil {
		return nil, err
	}
	v := newVIP(m, env, conf.VIP{Address: rec.Address.Addr(), Prefix: rec.Address.Bits(), Interface: rec.Interface})
	v.recovered = true
	v.rec = &rec
	m.mu.Lock()
	defer m.mu.Unlock()
	m.journal[keyOf(rec.Address.Addr(), rec.Interface)] = rec
	return v, nil
}

// Close ends the subscription and waits for everything the Maker runs. It stops
// no address. Using its resources afterwards is an error.
func (m *Maker) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	close(m.done)
	vips := slices.Collect(maps.Values(m.started))
	watch := m.watch
	m.mu.Unlock()
	if watch != nil {
		watch.Close()
	}
	for _, v := range vips {
		v.burst.cancel()
	}
	m.wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.routeFD >= 0 {
		_ = unix.Close(m.routeFD)
		m.routeFD = -1
	}
	if m.k != nil {
		m.k.Close()
		m.k = nil
	}
	return nil
}

// begin reports whether work may start that Close has to wait for; end with wg.Done.
func (m *Maker) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.wg.Add(1)
	return true
}

// view locks the Maker with everything that the kernel has told so far in its
// caches: they are as fresh as a dump would be. Without an error the caller unlocks mu.
func (m *Maker) view() error {
	m.mu.Lock()
	err := m.open()
	if err == nil {
		err = m.watch.Take()
	}
	if err != nil {
		m.mu.Unlock()
	}
	return err
}

// open opens what is not open. The caller holds mu, as for all below down to worker.
func (m *Maker) open() error {
	if m.closed {
		return errClosed
	}
	if m.k != nil {
		return nil
	}
	k, err := rtnl.Open(m.cfg.Namespace)
	if err != nil {
		return err
	}
	m.k, m.buf = k, make([]byte, 256<<10)
	m.links, m.addrs = map[int]rtnl.Link{}, map[netip.Addr][]rtnl.Address{}
	m.watch = &rtnl.Watch{
		Kernel: k, Groups: []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR},
		Lock: &m.mu, Read: m.resync, Apply: m.apply,
		Lost: func() { m.cfg.Logger.Warn("kernel events were lost, reading the state anew") },
		Failed: func(error) {
			if !m.renewal {
				m.renewal = true
				m.queue(m.refresh)
			}
		},
	}
	m.wg.Go(m.worker)
	return nil
}

// refresh takes the state in anew after a failure, until it succeeds.
func (m *Maker) refresh() {
	for {
		err := m.view()
		if err == nil {
			m.renewal = false
			m.mu.Unlock()
			return
		}
		if errors.Is(err, errClosed) {
			return
		}
		m.cfg.Logger.Error("kernel events cannot be had; deleted addresses and lost carriers are not seen", "err", err)
		select {
		case <-m.done:
			return
		case <-time.After(retryDelay):
		}
	}
}

// resync reads interfaces and addresses anew and treats the differences as events.
func (m *Maker) resync() error {
	links, addrs := map[int]rtnl.Link{}, map[netip.Addr][]rtnl.Address{}
	err := m.k.Links(func(l rtnl.Link) { links[l.Index] = l })
	if err == nil {
		err = m.k.Addresses(func(a rtnl.Address) { addrs[a.Prefix.Addr()] = append(addrs[a.Prefix.Addr()], a) })
	}
	if err != nil {
		return err
	}
	old := m.links
	m.links, m.addrs = links, addrs
	m.dropRoutes()
	for p, v := range m.started {
		m.changed(v, old[p.index], links[p.index])
		if !slices.ContainsFunc(addrs[p.addr], func(a rtnl.Address) bool { return a.Index == p.index }) {
			m.queue(func() { v.mend(p.index) })
		}
	}
	return nil
}

// apply takes in one event.
func (m *Maker) apply(msg rtnl.Message) {
	switch msg.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok, err := rtnl.ParseLink(msg.Body)
		if err != nil || !ok {
			return
		}
		old := m.links[l.Index]
		if msg.Type == unix.RTM_DELLINK {
			delete(m.links, l.Index)
			l = rtnl.Link{}
		} else {
			if l.Name == "" { // wireless events carry a part only
				return
			}
			m.links[l.Index] = l
		}
		if l.Flags&unix.IFF_UP == 0 {
			m.dropRoutes() // the kernel deletes the IPv4 routes of an interface that goes down without a word
		}
		index := max(old.Index, l.Index)
		if old.Fault() == l.Fault() && old.MAC == l.MAC {
			return
		}
		for p, v := range m.started {
			if p.index == index {
				m.changed(v, old, l)
			}
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, ok, err := rtnl.ParseAddress(msg.Body)
		if err != nil || !ok {
			return
		}
		ip := a.Prefix.Addr()
		all := slices.DeleteFunc(m.addrs[ip], a.Same)
		if msg.Type == unix.RTM_NEWADDR {
			all = append(all, a)
		}
		if len(all) == 0 {
			delete(m.addrs, ip)
		} else {
			m.addrs[ip] = all
		}
		if v := m.started[place{ip, a.Index}]; v != nil && msg.Type == unix.RTM_DELADDR {
			m.queue(func() { v.mend(a.Index) })
		}
	}
}

// changed tells a started address what became of its interface.
func (m *Maker) changed(v *vip, old, now rtnl.Link) {
	was, is := old.Fault(), now.Fault()
	switch {
	case is != "" && is != was:
		v.raise()
	case is == "" && (was != "" || old.MAC != now.MAC):
		m.queue(func() { v.linkBack(now.Index) })
	}
}

func (m *Maker) queue(f func()) {
	m.pending = append(m.pending, f)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *Maker) linkByName(name string) (rtnl.Link, bool) {
	for _, l := range m.links {
		if l.HasName(name) {
			return l, true
		}
	}
	return rtnl.Link{}, false
}

func (m *Maker) names() string { return names(slices.Collect(maps.Values(m.links))) }

// connected returns the connected routes. They are followed by events once asked for.
func (m *Maker) connected() ([]rtnl.Connected, error) {
	if m.routeFD >= 0 && rtnl.Receive(m.routeFD, m.buf, func(msg rtnl.Message) {
		r, ok, err := rtnl.ParseConnected(msg.Body)
		switch {
		case err != nil || !ok:
		case msg.Type == unix.RTM_NEWROUTE:
			m.routes[r] = struct{}{}
		case msg.Type == unix.RTM_DELROUTE:
			delete(m.routes, r)
		}
	}) != nil {
		m.dropRoutes()
	}
	if m.routeFD < 0 {
		fd, err := m.k.Subscribe(routeBuffer, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
		if err != nil {
			return nil, err
		}
		routes := map[rtnl.Connected]struct{}{}
		if err := m.k.DumpConnected(func(r rtnl.Connected) { routes[r] = struct{}{} }); err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
		m.routeFD, m.routes = fd, routes
	}
	return slices.Collect(maps.Keys(m.routes)), nil
}

// dropRoutes makes the next look at routes a full one.
func (m *Maker) dropRoutes() {
	if m.routeFD >= 0 {
		_ = unix.Close(m.routeFD)
		m.routeFD, m.routes = -1, nil
	}
}

// worker does what events ask for, outside the lock.
func (m *Maker) worker() {
	for {
		select {
		case <-m.done:
			return
		case <-m.wake:
		}
		m.mu.Lock()
		todo := m.pending
		m.pending = nil
		m.mu.Unlock()
		for _, f := range todo {
			f()
		}
	}
}

// later runs f after d unless the Maker is closed.
func (m *Maker) later(d time.Duration, f func()) {
	if !m.begin() {
		return
	}
	go func() {
		defer m.wg.Done()
		select {
		case <-m.done:
		case <-time.After(d):
			f()
		}
	}()
}

// forget ends the watch over an address.
func (m *Maker) forget(v *vip, index int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := (place{v.spec.Address, index}); m.started[p] == v {
		delete(m.started, p)
	}
}

// linkName is for messages.
func (m *Maker) linkName(index int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l, ok := m.links[index]; ok {
		return l.Name
	}
	return fmt.Sprintf("interface %d", index)
}
