package resources

import (
	"fmt"
	"slices"
	"sync"
)

// hold is what a group wants of the guard for an address.
type hold uint8

// Holds. The zero value is invalid.
const (
	_    hold = iota
	open      // open while the lease is live
	shut      // closed for a moment: the group's services are not all there; for addresses only
	cut       // closed until it is let go: the group's resources would not stop
)

// holdable is what the guard holds: addresses, and VRIDs.
type holdable interface {
	comparable
	String() string
}

// kept is the guard's part for one sort of what it holds.
type kept[K holdable] struct {
	hold, cut, drop func(...K) error
}

// holds shares the guard among groups: an address may stand in two of them (a
// pool in one, its VIP in another), and so may a VRID (on two interfaces); one
// must not let go what the other holds.
type holds[K holdable] struct {
	guard *kept[K] // nil: `guard: off`

	// mu guards by, and is held across the guard's calls, so that what the
	// kernel has and by agree; the guard takes one call at a time anyway.
	mu sync.Mutex
	by map[K]map[string]hold // address -> group -> what it wants
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
func (h *holds[K]) adopt(group string, addrs []K) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range addrs {
		h.note(a, group, open)
	}
}

func (h *holds[K]) note(a K, group string, want hold) {
	if h.by == nil {
		h.by = map[K]map[string]hold{}
	}
	if h.by[a] == nil {
		h.by[a] = map[string]hold{}
	}
	h.by[a][group] = want
}

// set makes a group's addresses open, shut or cut. After an error nothing counts as changed.
func (h *holds[K]) set(group string, want hold, addrs []K) error {
	if h.guard == nil || len(addrs) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var opened, closed []K
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
		if err := h.guard.cut(closed...); err != nil {
			return fmt.Errorf("the guard does not close %v: %w", some(closed), err)
		}
	}
	if len(opened) > 0 {
		if err := h.guard.hold(opened...); err != nil {
			return fmt.Errorf("the guard does not take %v: %w", some(opened), err)
		}
	}
	for _, a := range addrs {
		h.note(a, group, want)
	}
	return nil
}

// some names a few of what a call was about.
func some[K holdable](all []K) string {
	if len(all) > 3 {
		return fmt.Sprintf("%v and %d more", all[:3], len(all)-3)
	}
	return fmt.Sprint(all)
}

// drop lets a group's addresses go; what another group holds stays held.
func (h *holds[K]) drop(group string, addrs []K) error {
	if h.guard == nil || len(addrs) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var free, opened []K
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
		if err := h.guard.hold(opened...); err != nil {
			return err
		}
	}
	if len(free) > 0 {
		return h.guard.drop(free...)
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
