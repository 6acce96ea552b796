package resources

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// hold is what a group wants of the guard for an address.
type hold uint8

// Holds. The zero value is invalid.
const (
	_    hold = iota
	open      // open while the lease is live
	shut      // closed for a moment: the group's services are not all there
	cut       // closed until it is let go: the group's resources would not stop
)

// holds shares the guard among groups: an address may stand in two of them (a
// pool in one, its VIP in another), and one must not let go what the other holds.
type holds struct {
	guard Guard // nil: `guard: off`

	// mu guards by, and is held across the guard's calls, so that what the
	// kernel has and by agree; the guard takes one call at a time anyway.
	mu sync.Mutex
	by map[netip.Addr]map[string]hold // address -> group -> what it wants
}

// together is what is done with an address that several groups want.
func together(wants map[string]hold) hold {
	result := hold(0)
	for _, w := range wants {
		switch {
		case w == cut:
			return cut // it may be active elsewhere: safety first
		case w == open || result == 0:
			result = w
		}
	}
	return result
}

// adopt notes what the kernel holds for a group since an earlier daemon.
func (h *holds) adopt(group string, addrs []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range addrs {
		h.note(a, group, open)
	}
}

func (h *holds) note(a netip.Addr, group string, want hold) {
	if h.by == nil {
		h.by = map[netip.Addr]map[string]hold{}
	}
	if h.by[a] == nil {
		h.by[a] = map[string]hold{}
	}
	h.by[a][group] = want
}

// set makes a group's addresses open, shut or cut. After an error nothing counts as changed.
func (h *holds) set(group string, want hold, addrs []netip.Addr) error {
	if h.guard == nil || len(addrs) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var opened, closed []netip.Addr
	for _, a := range addrs {
		wants := map[string]hold{group: want}
		for g, w := range h.by[a] {
			if g != group {
				wants[g] = w
			}
		}
		if together(wants) == open {
			opened = append(opened, a)
		} else {
			closed = append(closed, a)
		}
	}
	if len(closed) > 0 {
		if err := h.guard.Cut(closed...); err != nil {
			return fmt.Errorf("the guard does not close the addresses: %w", err)
		}
	}
	if len(opened) > 0 {
		if err := h.guard.Hold(opened...); err != nil {
			return fmt.Errorf("the guard does not take the addresses: %w", err)
		}
	}
	for _, a := range addrs {
		h.note(a, group, want)
	}
	return nil
}

// drop lets a group's addresses go; what another group holds stays held.
func (h *holds) drop(group string, addrs []netip.Addr) error {
	if h.guard == nil || len(addrs) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var free, opened []netip.Addr
	for _, a := range addrs {
		before := together(h.by[a])
		delete(h.by[a], group)
		switch after := together(h.by[a]); {
		case len(h.by[a]) == 0:
			delete(h.by, a)
			free = append(free, a)
		case after == open && before != open:
			opened = append(opened, a)
		}
	}
	if len(opened) > 0 {
		if err := h.guard.Hold(opened...); err != nil {
			return err
		}
	}
	if len(free) > 0 {
		return h.guard.Drop(free...)
	}
	return nil
}

// manyGuarded says whether two members or more have addresses: then the group
// answers only when all of them are there, and not while they go.
func manyGuarded(ms []*member) bool {
	return slices.IndexFunc(ms, guarded) != lastGuarded(ms)
}

func lastGuarded(ms []*member) int {
	for i, mb := range slices.Backward(ms) {
		if guarded(mb) {
			return i
		}
	}
	return -1
}

func guarded(mb *member) bool {
	g, ok := mb.res.(Guarded)
	return ok && len(g.Addresses()) > 0
}
