package netdev

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// mendPause is the wait between two rounds of putting addresses back: whoever
// takes them away again and again has the last word for so long.
const mendPause = 100 * time.Millisecond

// missed notes that an address which is minded is gone. The caller holds mu.
func (h *Host) missed(at standing) {
	if hold := h.minds[at]; hold != nil {
		h.torn[hold] = struct{}{}
		ring(h.tear)
	}
}

// lookFor notes what is gone from an interface; 0: from any. The caller holds mu.
func (h *Host) lookFor(index int) {
	for at := range h.minds {
		if index != 0 && at.index != index {
			continue
		}
		if _, there := h.seen.addrs[at]; !there {
			h.missed(at)
		}
	}
}

// mender puts back what others have taken away from instances that have it: an
// address by somebody's hand, those that hung on it with it, and the table that
// refuses packets with the rest of a ruleset.
func (h *Host) mender() {
	for {
		select {
		case <-h.done:
			return
		case <-h.tear:
		}
		h.mu.Lock()
		torn := h.torn
		h.torn = map[*holding]struct{}{}
		h.mu.Unlock()
		for hold := range torn {
			h.mend(hold)
		}
		if err := h.drops.mend(); err != nil {
			h.log.Error("packets to virtual addresses are taken: the packet filter was removed and cannot be put back", "err", err)
			ring(h.tear)
		}
		select {
		case <-h.done:
			return
		case <-time.After(mendPause):
		}
	}
}

// mend puts back the addresses of an instance.
func (h *Host) mend(hold *holding) {
	h.use.RLock()
	defer h.use.RUnlock()
	hold.mu.Lock()
	defer hold.mu.Unlock()
	gone, links := h.tornFrom(hold)
	for index := range links {
		h.k.Settle(index) // the kernel deletes addresses before it tells that their interface goes
	}
	if len(gone) > 0 {
		gone, links = h.tornFrom(hold)
	}
	if len(gone) == 0 {
		return
	}
	changes := rtnl.AddAddresses(gone)
	refused := map[int]error{}
	if err := h.k.Apply(changes, func(n int, err error) {
		if !errors.Is(err, unix.EEXIST) {
			refused[n] = err
		}
	}); err != nil {
		h.log.Error("addresses were deleted by others and cannot be put back", "instance", hold.instance, "err", err)
		h.missedAll(gone)
		return
	}
	back := 0
	for n, a := range gone {
		if err := refused[n]; err != nil {
			h.log.Error("an address was deleted by others and cannot be put back", "instance", hold.instance, "address", a.Prefix, "interface", links[a.Index].Name, "err", err)
			h.missedAll(gone[n : n+1])
			continue
		}
		back++
		if l := links[a.Index]; l.Announces() {
			// Neighbours have asked in vain meanwhile.
			_ = h.k.Tell(l, a.Prefix.Addr(), a.Prefix.Addr().Is6() && h.k.Forwards(l.Name)) // the next refresh makes up for it
		}
	}
	if back > 0 {
		h.log.Warn("addresses were deleted by others, and are put back", "instance", hold.instance, "count", back)
	}
}

// tornFrom finds the addresses that an instance has, and the kernel has not, on
// interfaces that are up. The caller holds hold.mu.
func (h *Host) tornFrom(hold *holding) (gone []rtnl.Address, links map[int]rtnl.Link) {
	if h.view() != nil {
		return nil, nil // the worker says it; what is missing is seen when all is read anew
	}
	defer h.mu.Unlock()
	links = map[int]rtnl.Link{}
	for _, a := range hold.addrs {
		at := standingOf(a)
		l := h.seen.links[a.Index]
		if _, there := h.seen.addrs[at]; !there && h.minds[at] == hold && l.Flags&unix.IFF_UP != 0 {
			gone = append(gone, a)
			links[a.Index] = l
		}
	}
	return gone, links
}

// missedAll has addresses tried again.
func (h *Host) missedAll(all []rtnl.Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range all {
		h.missed(standingOf(a))
	}
}

// ring wakes who waits for a channel of one place.
func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
