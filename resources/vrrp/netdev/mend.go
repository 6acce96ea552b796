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
// address by somebody's hand, what hung on it with it, and the table that
// refuses packets with the rest of a ruleset.
func (h *Host) mender() {
	said := map[string]string{} // why something cannot be put back
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
		before := said
		said = map[string]string{}
		may := func(what, instance string, err error) {
			if err == nil {
				return
			}
			key, text := what+" "+instance, err.Error()
			if said[key] = text; before[key] != text {
				h.log.Error(what+" and cannot be put back; it is tried again", "instance", instance, "every", failedDelay, "err", err)
			}
		}
		for hold := range torn {
			may("addresses were deleted by others", hold.instance, h.mend(hold))
		}
		may("the packet filter of virtual addresses was changed by others", "", h.drops.mend())
		pause := mendPause
		if len(said) > 0 {
			pause = failedDelay
		}
		select {
		case <-h.done:
			return
		case <-time.After(pause):
		}
	}
}

// mend puts back the addresses of an instance. With an error it is called again.
func (h *Host) mend(hold *holding) error {
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
		return nil
	}
	var p problems
	refused := map[int]bool{}
	if err := h.k.Apply(rtnl.AddAddresses(gone), func(n int, err error) {
		if !errors.Is(err, unix.EEXIST) {
			refused[n] = true
			p.add("address %s on %s: %w", gone[n].Prefix, links[gone[n].Index].Name, err)
		}
	}); err != nil {
		p.add("addresses: %w", err)
	} else {
		for n, a := range gone {
			if l := links[a.Index]; !refused[n] && l.Announces() {
				// Neighbours have asked in vain meanwhile. The next refresh makes up for one that is lost.
				_ = h.k.Tell(l, a.Prefix.Addr(), a.Prefix.Addr().Is6() && h.k.Forwards(l.Name))
			}
		}
		if back := len(gone) - len(refused); back > 0 {
			h.log.Warn("addresses were deleted by others, and are put back", "instance", hold.instance, "count", back)
			h.mendRoutes(hold)
		}
	}
	if p.n > 0 {
		h.mu.Lock()
		h.torn[hold] = struct{}{}
		h.mu.Unlock()
		ring(h.tear)
	}
	return p.err(hold.instance)
}

// mendRoutes puts back the routes that have gone with an address: the kernel tells
// nobody of an IPv4 route that left from it, or by an interface on which it was
// the last. The caller holds hold.mu.
func (h *Host) mendRoutes(hold *holding) {
	var p problems
	for _, r := range hold.routes {
		h.addRoute(hold, r, &p) // of one that is there nothing is changed
	}
	if p.n > 0 {
		h.log.Error("routes that may have gone with the addresses cannot be put back; `keepbeat vrrp reload` tries it again", "instance", hold.instance, "err", p.err(hold.instance))
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

// ring wakes who waits for a channel of one place.
func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
