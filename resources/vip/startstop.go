package vip

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

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
	plan := func() (l rtnl.Link, stray, lo []rtnl.Address, err error) {
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
		if f := l.Fault(); f != "" {
			err = v.errorf("%s: %s", l.Name, f)
			return
		}
		if stray, lo, err = v.around(&rec); err != nil {
			return
		}
		// From here on a deletion is seen; op makes mend wait for us.
		m.started[place{rec.Address.Addr(), l.Index}] = v
		m.journal[keyOf(rec.Address.Addr(), rec.Interface)] = rec
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
	router := rec.Address.Addr().Is6() && k.Forwards(l.Name)

	v.mu.Lock()
	v.rec, v.index, v.active, v.router, v.failed = &rec, l.Index, true, router, nil
	v.mu.Unlock()

	a := rec.address(l.Index)
	// What is stray goes first: in IPv6 the same address with another prefix is
	// in the way. lo goes last: until then local clients are answered by it.
	err = v.removeAll(k, stray)
	if err == nil {
		if err = k.Ensure(a); err != nil {
			err = v.explain(l.Name, err)
		}
	}
	if err == nil {
		err = v.removeAll(k, lo)
	}
	if err != nil {
		v.mu.Lock()
		v.active = false // what was done is in rec, and Stop takes it back
		v.mu.Unlock()
		m.forget(v, l.Index)
		return err
	}
	for _, old := range stray {
		v.log.Warn("removed what an earlier run had left", "prefix", old.Prefix, "interface", m.linkName(old.Index))
	}
	v.first.Store(true)
	v.burst.start()
	v.first.Store(false)
	v.log.Info("address is up", "interface", l.Name, "command", a.Text(l.Name))
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

func (v *vip) removeAll(k *rtnl.Kernel, all []rtnl.Address) error {
	for _, a := range all {
		if err := v.remove(k, a); err != nil {
			return v.errorf("removing %s from %s: %w", a.Prefix, v.m.linkName(a.Index), err)
		}
	}
	return nil
}

// remove takes an address away and leaves the others of its network where they are.
func (v *vip) remove(k *rtnl.Kernel, a rtnl.Address) error {
	if !a.Prefix.Addr().Is4() || a.Prefix.Bits() == 32 {
		return k.Remove(a)
	}
	if err := v.m.view(); err != nil {
		return err
	}
	name := v.m.links[a.Index].Name
	primary := slices.ContainsFunc(v.m.addrs[a.Prefix.Addr()], func(o rtnl.Address) bool {
		return o.Same(a) && o.Flags&unix.IFA_F_SECONDARY == 0
	})
	var others []rtnl.Address
	if primary {
		for _, all := range v.m.addrs {
			for _, o := range all {
				if o.Index == a.Index && o.Flags&unix.IFA_F_SECONDARY != 0 && o.Prefix.Masked() == a.Prefix.Masked() {
					others = append(others, o)
				}
			}
		}
	}
	v.m.mu.Unlock()
	if len(others) == 0 {
		return k.Remove(a)
	}
	return k.RemovePrimary(a, name, others)
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
	var gone []rtnl.Address
	dev := ""
	if rec != nil {
		dev = rec.Interface
		if l, ok := m.linkByName(rec.Interface); ok && !active {
			index = l.Index
		}
		if index != 0 {
			gone = append(gone, rec.address(index))
		}
	}
	// What bears our mark is ours wherever it is: the interface may have been renamed.
	for _, a := range m.addrs[ip] {
		if a.Proto == mark && m.started[place{ip, a.Index}] == nil && !slices.ContainsFunc(gone, a.Same) &&
			(!ip.IsLinkLocalUnicast() || m.links[a.Index].HasName(v.spec.Interface)) {
			gone = append(gone, a)
		}
	}
	lo := 0
	for _, l := range m.links {
		if l.Loopback() {
			lo = l.Index
		}
	}
	m.mu.Unlock()

	for _, a := range gone {
		if err := v.remove(k, a); err != nil {
			return v.errorf("removing it from %s: %w", m.linkName(a.Index), err)
		}
	}
	if rec != nil {
		for _, old := range rec.Loopback {
			if err := k.Ensure(old.address(lo)); err != nil {
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
