package vip

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

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
	fault := m.links[index].Fault()
	there := slices.ContainsFunc(m.addrs[rec.Address.Addr()], func(a rtnl.Address) bool { return a.Index == index && a.Prefix == rec.Address })
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
	v.m.k.Settle(index)
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
	err := v.m.k.Add(rec.address(index))
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
	if m.closed || m.k == nil || !l.Announces() {
		m.mu.Unlock()
		return false
	}
	err := m.k.Announce(l, v.spec.Address, router)
	m.mu.Unlock()
	if errors.Is(err, unix.ENOBUFS) && v.first.Load() {
		return true // the guard dropped it; Opened announces what it lets through
	}
	if err != nil {
		// The next round, or the event of the carrier's return, makes up for it.
		v.log.Warn("announcement not sent", "interface", l.Name, "err", err)
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

// Alarm fires when the interface fails or the address cannot be put back.
func (v *vip) Alarm() <-chan struct{} { return v.alarm }
