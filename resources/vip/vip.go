package vip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// vip is one virtual address.
type vip struct {
	m     *Maker
	env   resources.Env
	log   *slog.Logger
	name  string // "vip 10.0.0.5/24"
	alarm chan struct{}
	burst burst

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
	links := make([]link, 0, len(v.m.links))
	for _, l := range v.m.links {
		links = append(links, l)
	}
	var routes []route
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
	return ok && slices.ContainsFunc(v.m.addrs[r.Address.Addr()], func(a address) bool { return a.index == l.index && a.prefix == r.Address })
}

// around looks where the address stands already. It refuses what is not ours,
// notes in rec what is to leave lo, and returns what we left elsewhere. The
// caller holds the Maker's mu.
func (v *vip) around(rec *record) (stray, lo []address, err error) {
	m, ip := v.m, rec.Address.Addr()
	target, _ := m.linkByName(rec.Interface)
	old, known := m.journal[keyOf(ip, rec.Interface)]
	if known && v.spec.LVSSupport && len(rec.Loopback) == 0 {
		rec.Loopback = old.Loopback // a crashed run took it away
	}
	for _, a := range m.addrs[ip] {
		l := m.links[a.index]
		ours := a.proto == mark || known && !m.k.marks && l.hasName(old.Interface)
		switch {
		case a.index == target.index && ours:
			if a.prefix != rec.Address {
				stray = append(stray, a)
			}
		case ours && m.started[place{ip, a.index}] == nil && !(ip.IsLinkLocalUnicast() && ip.Is6()):
			stray = append(stray, a)
		case ours:
			// Another resource's; a link-local address may stand on several interfaces.
		case l.loopback() && !target.loopback():
			if !v.spec.LVSSupport {
				return nil, nil, v.errorf("it stands on %s; write lvs_support: yes if this director is also a real server, or remove it there (ip addr del %s dev %s)",
					l.name, a.prefix, l.name)
			}
			lo = append(lo, a)
		default:
			if ip.Is6() && ip.IsLinkLocalUnicast() && a.index != target.index {
				continue
			}
			return nil, nil, v.errorf("%s is already on %s and keepbeat did not put it there; take it out of this machine's network configuration (ip addr del %s dev %s)",
				a.prefix, l.name, a.prefix, l.name)
		}
	}
	for _, a := range lo {
		if !slices.ContainsFunc(rec.Loopback, func(k kept) bool { return k.Address == a.prefix && k.Peer == a.peer }) {
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

// Start puts the address on the interface and announces it once before it returns.
func (v *vip) Start(ctx context.Context) error {
	if v.recovered {
		return v.errorf("made of a record of the journal, it can only be stopped")
	}
	return v.do(ctx, v.start)
}

func (v *vip) start() error {
	epoch := v.ownEpoch()
	if epoch == 0 {
		return v.errorf("group %s is not owned by this node", v.env.Group)
	}
	v.mu.Lock()
	active, index := v.active, v.index
	var rec record
	settled := v.rec != nil
	if settled {
		rec = *v.rec
		rec.Loopback = slices.Clone(rec.Loopback)
	}
	v.epoch = epoch
	v.mu.Unlock()
	if active {
		return v.inspect(index)
	}

	m := v.m
	if err := m.view(); err != nil {
		return v.errorf("%w", err)
	}
	plan := func() (l link, stray, lo []address, err error) {
		if !settled {
			if rec, err = v.choose(); err != nil {
				return
			}
		}
		l, ok := m.linkByName(rec.Interface)
		if !ok {
			err = v.errorf("%s: no such interface; this node has %s", rec.Interface, m.names())
			return
		}
		if f := l.fault(); f != "" {
			err = v.errorf("%s: %s", l.name, f)
			return
		}
		if stray, lo, err = v.around(&rec); err != nil {
			return
		}
		// From here on a deletion is seen; op makes mend wait for us.
		m.started[place{rec.Address.Addr(), l.index}] = v
		return
	}
	l, stray, lo, err := plan()
	k := m.k
	m.mu.Unlock()
	if err != nil {
		// Stop must not touch what was refused as not ours.
		v.mu.Lock()
		v.rec = nil
		v.mu.Unlock()
		return err
	}
	router := rec.Address.Addr().Is6() && k.forwards(l.name)

	v.mu.Lock()
	v.rec, v.index, v.active, v.router, v.failed = &rec, l.index, true, router, nil
	v.mu.Unlock()

	a := rec.address(l.index)
	err = k.ensure(a)
	if err != nil {
		err = v.explain(l.name, err)
	}
	// The address first, then lo: between them local clients are answered by both.
	for _, old := range append(stray, lo...) {
		if err != nil {
			break
		}
		if err = v.remove(k, old); err != nil {
			err = v.errorf("removing %s from %s: %w", old.prefix, m.linkName(old.index), err)
		}
	}
	if err != nil {
		v.mu.Lock()
		v.active = false // what was done is in rec, and Stop takes it back
		v.mu.Unlock()
		m.forget(v, l.index)
		return err
	}
	for _, old := range stray {
		v.log.Warn("removed what an earlier run had left", "prefix", old.prefix, "interface", m.linkName(old.index))
	}
	v.burst.start()
	v.log.Info("address is up", "interface", l.name, "command", a.text(l.name))
	return nil
}

// explain adds the way out to what the kernel says when it refuses an address.
func (v *vip) explain(dev string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EPERM):
		hint = "; it needs CAP_NET_ADMIN"
	case errors.Is(err, unix.EACCES):
		hint = "; is IPv6 switched off there (sysctl net.ipv6.conf." + dev + ".disable_ipv6)?"
	}
	return v.errorf("adding it to %s: %w%s", dev, err, hint)
}

// remove takes an address away and leaves the others of its network where they are.
func (v *vip) remove(k *kernel, a address) error {
	if !a.prefix.Addr().Is4() || a.prefix.Bits() == 32 {
		return k.remove(a)
	}
	if err := v.m.view(); err != nil {
		return err
	}
	name := v.m.links[a.index].name
	primary := slices.ContainsFunc(v.m.addrs[a.prefix.Addr()], func(o address) bool {
		return o.same(a) && o.flags&unix.IFA_F_SECONDARY == 0
	})
	var others []address
	if primary {
		for _, all := range v.m.addrs {
			for _, o := range all {
				if o.index == a.index && o.flags&unix.IFA_F_SECONDARY != 0 && o.prefix.Masked() == a.prefix.Masked() {
					others = append(others, o)
				}
			}
		}
	}
	v.m.mu.Unlock()
	if len(others) == 0 {
		return k.remove(a)
	}
	return k.removePrimary(a, name, others)
}

// Stop removes the address and puts back what stood on lo.
func (v *vip) Stop(ctx context.Context) error {
	// Before waiting for anything: no announcement of ours may follow the new owner's.
	v.burst.cancel()
	return v.do(ctx, v.stop)
}

func (v *vip) stop() error {
	m := v.m
	v.mu.Lock()
	rec, index, active := v.rec, v.index, v.active
	v.active = false
	ip := v.spec.Address
	v.mu.Unlock()
	v.burst.cancel() // a Start that was still running when Stop was called began one
	m.forget(v, index)

	if err := m.view(); err != nil {
		return v.errorf("%w", err)
	}
	k := m.k
	if old, ok := m.journal[keyOf(ip, v.spec.Interface)]; ok && rec == nil {
		rec = &old // a crashed run's, and Start did not get as far as taking it over
	}
	var gone []address
	dev := ""
	if rec != nil {
		dev = rec.Interface
		if l, ok := m.linkByName(rec.Interface); ok && !active {
			index = l.index
		}
		if index != 0 {
			gone = append(gone, rec.address(index))
		}
	}
	// What bears our mark is ours wherever it is: the interface may have been renamed.
	for _, a := range m.addrs[ip] {
		if a.proto == mark && m.started[place{ip, a.index}] == nil && !slices.ContainsFunc(gone, a.same) &&
			(!ip.IsLinkLocalUnicast() || m.links[a.index].hasName(v.spec.Interface)) {
			gone = append(gone, a)
		}
	}
	lo := 0
	for _, l := range m.links {
		if l.loopback() {
			lo = l.index
		}
	}
	m.mu.Unlock()

	for _, a := range gone {
		if err := v.remove(k, a); err != nil {
			return v.errorf("removing it from %s: %w", m.linkName(a.index), err)
		}
	}
	if rec != nil {
		for _, old := range rec.Loopback {
			if err := k.ensure(old.address(lo)); err != nil {
				return v.errorf("putting %s back on lo: %w", old.Address, err)
			}
		}
		v.log.Info("address is down", "interface", dev)
	}
	v.mu.Lock()
	v.rec, v.index, v.failed = nil, 0, nil
	v.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.journal, keyOf(ip, v.spec.Interface))
	return nil
}

// Monitor tells whether the address can be reached at its interface, and puts it back where it is missing.
func (v *vip) Monitor(ctx context.Context) error {
	v.mu.Lock()
	index, active := v.index, v.active
	v.mu.Unlock()
	if !active {
		return v.errorf("not started")
	}
	return v.do(ctx, func() error { return v.inspect(index) })
}

// inspect is Monitor for the holder of op.
func (v *vip) inspect(index int) error {
	v.mu.Lock()
	if !v.active || v.index != index {
		v.mu.Unlock()
		return v.errorf("not started")
	}
	rec, failed := *v.rec, v.failed
	v.mu.Unlock()
	m := v.m
	if err := m.view(); err != nil {
		return v.errorf("%w", err)
	}
	fault := m.links[index].fault()
	there := slices.ContainsFunc(m.addrs[rec.Address.Addr()], func(a address) bool { return a.index == index && a.prefix == rec.Address })
	m.mu.Unlock()
	if fault != "" {
		return v.errorf("%s: %s", rec.Interface, fault)
	}
	if !there {
		return v.putBack(rec, index)
	}
	if failed != nil {
		v.mu.Lock()
		v.failed = nil
		v.mu.Unlock()
	}
	return nil
}

// mend is called when the kernel has told that the address was deleted.
func (v *vip) mend(index int) {
	v.op <- struct{}{}
	defer func() { <-v.op }()
	v.mu.Lock()
	cut := time.Now().Add(-time.Second)
	v.recent = slices.DeleteFunc(v.recent, func(t time.Time) bool { return t.Before(cut) })
	wait := v.active && len(v.recent) >= fightLimit
	active := v.active && v.index == index
	v.mu.Unlock()
	if !active || v.epochOver() {
		return // the group is being taken from us; Stop is on its way
	}
	if wait {
		v.m.later(fightPause, func() { v.mend(index) })
		return
	}
	// The kernel deletes addresses before it tells that their interface goes.
	v.m.k.settle(index)
	if err := v.inspect(index); err != nil && !errors.Is(err, errClosed) {
		v.log.Error("the address was deleted and cannot be put back", "err", err)
		v.raise()
	}
}

// putBack adds the address again. The caller holds op.
func (v *vip) putBack(rec record, index int) error {
	if v.epochOver() {
		return v.errorf("it was deleted, and the group is no longer owned by this node")
	}
	err := v.m.k.add(rec.address(index))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		err = v.explain(rec.Interface, err)
	}
	v.mu.Lock()
	v.failed = err
	if err == nil {
		v.restored++
		v.recent = append(v.recent, time.Now())
	}
	n, first := v.restored, len(v.recent) == 1
	v.mu.Unlock()
	if err != nil {
		return err
	}
	v.burst.start()
	if first { // at most once a second
		v.log.Warn("somebody deleted the address; it was put back", "interface", rec.Interface, "times", n)
	}
	return nil
}

// linkBack is called when the interface works again, or has another link-layer address.
func (v *vip) linkBack(index int) {
	v.op <- struct{}{}
	defer func() { <-v.op }()
	v.mu.Lock()
	active := v.active && v.index == index
	v.mu.Unlock()
	if !active || v.epochOver() {
		return
	}
	if err := v.inspect(index); err != nil {
		v.raise()
		return
	}
	v.burst.start()
}

// announce sends one round and tells whether more may follow.
func (v *vip) announce() bool {
	v.mu.Lock()
	active, index, router := v.active, v.index, v.router
	v.mu.Unlock()
	if !active || v.epochOver() {
		return false
	}
	m := v.m
	m.mu.Lock()
	l := m.links[index]
	if m.closed || m.k == nil || !l.announces() {
		m.mu.Unlock()
		return false
	}
	err := m.k.announce(l, v.spec.Address, router)
	m.mu.Unlock()
	if err != nil {
		// The next round, or the event of the carrier's return, makes up for it.
		v.log.Warn("announcement not sent", "interface", l.name, "err", err)
		return true
	}
	v.mu.Lock()
	v.announced++
	v.mu.Unlock()
	return true
}

// raise sets off the alarm.
func (v *vip) raise() {
	select {
	case v.alarm <- struct{}{}:
	default:
	}
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

// Alarm fires when the interface fails or the address cannot be put back.
func (v *vip) Alarm() <-chan struct{} { return v.alarm }

// Addresses returns the one address.
func (v *vip) Addresses() []netip.Addr { return []netip.Addr{v.spec.Address} }

// Ready tells why the address could not be started here: no such interface, no
// carrier, more than one possible interface, or it stands there and is not ours.
func (v *vip) Ready() error {
	if err := v.m.view(); err != nil {
		return v.errorf("%w", err)
	}
	defer v.m.mu.Unlock()
	rec, ok := v.settled()
	if !ok {
		var err error
		if rec, err = v.choose(); err != nil {
			return err
		}
	}
	l, ok := v.m.linkByName(rec.Interface)
	if !ok {
		return v.errorf("%s: no such interface; this node has %s", rec.Interface, v.m.names())
	}
	if f := l.fault(); f != "" {
		return v.errorf("%s: %s", l.name, f)
	}
	return nil
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

// Detail is what status shows of an address.
type Detail struct {
	Address       string `json:"address"` // with the prefix once it is known
	Interface     string `json:"interface,omitempty"`
	Label         string `json:"label,omitempty"`
	Carrier       bool   `json:"carrier"`
	Announcements uint64 `json:"announcements"` // rounds sent; in IPv4 each is a request and a reply
	Restored      uint64 `json:"restored"`      // times that somebody deleted it and it was put back
	Fault         string `json:"fault,omitempty"`
}

// Detail returns a Detail.
func (v *vip) Detail() any {
	v.mu.Lock()
	d := Detail{Address: v.spec.Address.String(), Interface: v.spec.Interface, Label: v.spec.Label,
		Announcements: v.announced, Restored: v.restored}
	if v.spec.Prefix >= 0 {
		d.Address = fmt.Sprintf("%s/%d", v.spec.Address, v.spec.Prefix)
	}
	if v.rec != nil {
		d.Address, d.Interface, d.Label = v.rec.Address.String(), v.rec.Interface, v.rec.Label
	}
	if v.failed != nil {
		d.Fault = v.failed.Error()
	}
	v.mu.Unlock()
	if err := v.m.view(); err != nil {
		d.Fault = err.Error()
		return d
	}
	defer v.m.mu.Unlock()
	if l, ok := v.m.linkByName(d.Interface); ok {
		d.Carrier = l.fault() == ""
	}
	return d
}

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
