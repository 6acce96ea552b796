package vip

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// vip is one virtual address.
type vip struct {
	m     *Maker
	env   resources.Env
	log   *slog.Logger
	name  string // "vip 10.0.0.5/24"
	alarm chan struct{}
	burst burst
	first atomic.Bool // Start announces: the guard may have the group shut still

	// op is held by whoever changes the kernel for this address (a channel, so
	// that waiting for it obeys a context).
	op        chan struct{}
	recovered bool // made of a record: can only be stopped

	mu        sync.Mutex // guards the rest; may be taken while the Maker's mu is held, not the other way round
	spec      conf.VIP   // only ARPCount and ARPInterval ever change
	rec       *record    // resolved; nil before the first Record or Start and after Stop
	index     int        // of the interface while started
	active    bool
	epoch     uint64 // under which it was started
	router    bool   // IPv6: the interface forwards
	announced uint64 // rounds
	restored  uint64
	recent    []time.Time // the latest times it was put back
	failed    error       // it could not be put back
}

const (
	// A daemon that deletes the address whenever it appears is not fought
	// without end: after fightLimit times within a second the next waits fightPause.
	fightLimit = 20
	fightPause = 250 * time.Millisecond
)

var (
	_ resources.Alarmer  = (*vip)(nil)
	_ resources.Updater  = (*vip)(nil)
	_ resources.Guarded  = (*vip)(nil)
	_ resources.Readier  = (*vip)(nil)
	_ resources.Detailer = (*vip)(nil)
	_ resources.Adopter  = (*vip)(nil)
	_ resources.Maker    = (*Maker)(nil)
)

func newVIP(m *Maker, env resources.Env, spec conf.VIP) *vip {
	if env.Logger == nil {
		env.Logger = slog.New(slog.DiscardHandler)
	}
	v := &vip{m: m, env: env, spec: spec, name: title(&spec), alarm: make(chan struct{}, 1), op: make(chan struct{}, 1)}
	v.log = env.Logger.With("address", spec.Address)
	v.burst.round = v.announce
	v.burst.set(spec.ARPCount, spec.ARPInterval)
	return v
}

func (v *vip) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %w", v.name, fmt.Errorf(format, args...))
}

// do runs f as the only one who changes the kernel for this address. When ctx
// ends first f goes on, and the next call waits for it: what the kernel was
// asked cannot be taken back, only undone after.
func (v *vip) do(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return v.errorf("%w", err)
	}
	select {
	case v.op <- struct{}{}:
	case <-ctx.Done():
		return v.errorf("an earlier call has not ended: %w", ctx.Err())
	}
	if !v.m.begin() {
		<-v.op
		return errClosed
	}
	done := make(chan error, 1)
	go func() {
		defer v.m.wg.Done()
		err := f()
		<-v.op
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return v.errorf("the kernel has not answered: %w", ctx.Err())
	}
}

// Record resolves the address. While it is started it returns what it was started with.
func (v *vip) Record() (json.RawMessage, error) {
	rec, err := v.settle()
	if err != nil {
		return nil, err
	}
	return json.Marshal(rec)
}

// settle decides interface, prefix and the rest, and keeps the decision for Start.
func (v *vip) settle() (record, error) {
	if rec, ok := v.settled(); ok {
		return rec, nil
	}
	if err := v.m.view(); err != nil {
		return record{}, v.errorf("%w", err)
	}
	defer v.m.mu.Unlock()
	rec, err := v.choose()
	if err != nil {
		return record{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rec = &rec
	return rec, nil
}

// settled is the record of a started or recovered address.
func (v *vip) settled() (record, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rec != nil && (v.active || v.recovered) {
		return *v.rec, true
	}
	return record{}, false
}

// choose resolves the address on what the machine looks like and refuses what
// stands in the way. The caller holds the Maker's mu.
func (v *vip) choose() (record, error) {
	v.mu.Lock()
	spec := v.spec
	v.mu.Unlock()
	links := make([]rtnl.Link, 0, len(v.m.links))
	for _, l := range v.m.links {
		links = append(links, l)
	}
	var routes []rtnl.Connected
	if spec.Interface == "" || spec.Prefix < 0 {
		// A started address makes a connected route of its own; what a crashed
		// run resolved holds as long as nobody wrote something else.
		if old, ok := v.m.journal[keyOf(spec.Address, spec.Interface)]; ok && (spec.Interface == "" || spec.Interface == old.Interface) &&
			(spec.Prefix < 0 || spec.Prefix == old.Address.Bits()) && v.standsAt(old) {
			spec.Interface, spec.Prefix = old.Interface, old.Address.Bits()
		} else {
			var err error
			if routes, err = v.m.connected(); err != nil {
				return record{}, v.errorf("%w", err)
			}
		}
	}
	rec, err := resolve(&spec, links, routes)
	if err != nil {
		return record{}, err
	}
	_, _, err = v.around(&rec)
	return rec, err
}

// standsAt tells whether the address stands where a record says.
func (v *vip) standsAt(r record) bool {
	l, ok := v.m.linkByName(r.Interface)
	return ok && slices.ContainsFunc(v.m.addrs[r.Address.Addr()], func(a rtnl.Address) bool { return a.Index == l.Index && a.Prefix == r.Address })
}

// around looks where the address stands already. It refuses what is not ours,
// notes in rec what is to leave lo, and returns what we left elsewhere. The
// caller holds the Maker's mu.
func (v *vip) around(rec *record) (stray, lo []rtnl.Address, err error) {
	m, ip := v.m, rec.Address.Addr()
	target, _ := m.linkByName(rec.Interface)
	old, known := m.journal[keyOf(ip, rec.Interface)]
	if known && v.spec.LVSSupport && len(rec.Loopback) == 0 {
		rec.Loopback = old.Loopback // a crashed run took it away
	}
	for _, a := range m.addrs[ip] {
		l := m.links[a.Index]
		ours := a.Proto == mark || known && !m.k.Marks && l.HasName(old.Interface)
		switch {
		case a.Index == target.Index && ours:
			if a.Prefix != rec.Address {
				stray = append(stray, a)
			}
		case ours && m.started[place{ip, a.Index}] == nil && !(ip.IsLinkLocalUnicast() && ip.Is6()):
			stray = append(stray, a)
		case ours:
			// Another resource's; a link-local address may stand on several interfaces.
		case l.Loopback() && !target.Loopback():
			if !v.spec.LVSSupport {
				return nil, nil, v.errorf("it stands on %s; write lvs_support: yes if this director is also a real server, or remove it there (ip addr del %s dev %s)",
					l.Name, a.Prefix, l.Name)
			}
			lo = append(lo, a)
		default:
			if ip.Is6() && ip.IsLinkLocalUnicast() && a.Index != target.Index {
				continue
			}
			return nil, nil, v.errorf("%s is already on %s and keepbeat did not put it there; take it out of this machine's network configuration (ip addr del %s dev %s)",
				a.Prefix, l.Name, a.Prefix, l.Name)
		}
	}
	for _, a := range lo {
		if !slices.ContainsFunc(rec.Loopback, func(k kept) bool { return k.Address == a.Prefix && k.Peer == a.Peer }) {
			rec.Loopback = append(rec.Loopback, keep(a))
		}
	}
	return stray, lo, nil
}

// Adopt takes over what an earlier daemon started.
func (v *vip) Adopt(b json.RawMessage) error {
	rec, err := parseRecord(b)
	if err != nil {
		return err
	}
	if rec.Address.Addr() != v.spec.Address {
		return v.errorf("record of the journal is about %s", rec.Address)
	}
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	v.m.journal[keyOf(v.spec.Address, rec.Interface)] = rec
	return nil
}

// Addresses returns the one address.
func (v *vip) Addresses() []netip.Addr { return []netip.Addr{v.spec.Address} }

// Opened announces the address once more: the guard lets it answer from now on.
func (v *vip) Opened() { v.burst.start() }

// Close ends the announcements and the watch. The address stays as it is.
func (v *vip) Close() error {
	v.burst.cancel()
	v.op <- struct{}{}
	defer func() { <-v.op }()
	v.mu.Lock()
	v.active = false
	index := v.index
	v.mu.Unlock()
	v.burst.cancel()
	v.m.forget(v, index)
	return nil
}
func (v *vip) ownEpoch() uint64 {
	if v.env.Epoch == nil {
		return 1
	}
	return v.env.Epoch()
}

// epochOver tells that the group is no longer owned under the epoch of Start.
func (v *vip) epochOver() bool {
	v.mu.Lock()
	epoch := v.epoch
	v.mu.Unlock()
	return v.ownEpoch() != epoch
}

// Update takes other counts of announcements; everything else needs a restart.
func (v *vip) Update(_ context.Context, _ conf.Spec, r conf.Resource) error {
	if r.VIP == nil {
		return resources.ErrNeedsRestart
	}
	if err := check(r.VIP); err != nil {
		return err
	}
	v.mu.Lock()
	same := v.spec
	same.ARPCount, same.ARPInterval = r.VIP.ARPCount, r.VIP.ARPInterval
	if same != *r.VIP || v.recovered {
		v.mu.Unlock()
		return resources.ErrNeedsRestart
	}
	// Only these two: the rest of spec is read without the lock.
	v.spec.ARPCount, v.spec.ARPInterval = same.ARPCount, same.ARPInterval
	v.mu.Unlock()
	v.burst.set(same.ARPCount, same.ARPInterval)
	return nil
}
