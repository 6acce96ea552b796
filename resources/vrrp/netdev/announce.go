package netdev

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// paces keeps announcements of all instances on an interface apart.
type paces struct {
	mu   sync.Mutex // guards next
	next map[int]time.Time
}

// slot is the time at which the next packet may leave; the one after it follows
// interval later.
func (p *paces) slot(index int, interval time.Duration, now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == nil {
		p.next = map[int]time.Time{}
	}
	at := p.next[index]
	if at.Before(now) {
		at = now
	}
	p.next[index] = at.Add(interval)
	return at
}

const (
	// Thousands of announcements at once fill queues on the way, and keep a
	// processor from advertisements that are due. The pauses cost a round of
	// 5,000 addresses 25 ms.
	burst      = 200
	burstPause = time.Millisecond

	// fullPause is the wait when the interface has no room; fullTries of them
	// are given to one packet.
	fullPause = time.Millisecond
	fullTries = 100
)

// announcer is an interface by which addresses are announced.
type announcer struct {
	link          rtnl.Link
	router, asked bool // whether it forwards IPv6, and whether that has been asked
}

// Announce sends a gratuitous ARP request (RFC 3768, 6.4.1) or an unsolicited
// neighbour advertisement for each address of the instance that stands. It
// returns when the last has been sent, which GARP.Interval delays, and sends none
// after ctx has ended.
func (h *Host) Announce(ctx context.Context, i *conf.VRRPInstance) error {
	h.use.RLock()
	defer h.use.RUnlock()
	type packet struct {
		from *announcer
		ip   netip.Addr
	}
	all := make([]packet, 0, len(i.Addresses)+len(i.Excluded))
	announcers := map[int]*announcer{}
	if err := h.view(); err != nil {
		return fmt.Errorf("%s: %w", title(i), err)
	}
	for a := range addressesOf(i) {
		l, ok := h.seen.link(device(i, a))
		if !ok || !l.Announces() {
			continue
		}
		if _, there := h.seen.addrs[standing{l.Index, a.Address.Addr()}]; there {
			p := announcers[l.Index]
			if p == nil {
				p = &announcer{link: l}
				announcers[l.Index] = p
			}
			all = append(all, packet{p, a.Address.Addr()})
		}
	}
	h.mu.Unlock()

	var p problems
	for _, a := range all {
		link := &a.from.link
		if a.ip.Is6() && !a.from.asked {
			a.from.router, a.from.asked = h.k.Forwards(link.Name), true
		}
		if i.GARP.Interval > 0 {
			h.until(ctx, h.paces.slot(link.Index, i.GARP.Interval, time.Now()))
		}
		err := ctx.Err()
		select {
		case <-h.done:
			err = errClosed
		default:
		}
		if err != nil {
			return fmt.Errorf("%s: announcing: %w", title(i), err)
		}
		err = h.k.Tell(*link, a.ip, a.from.router)
		for try := 0; try < fullTries && (errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN)); try++ {
			if h.until(ctx, time.Now().Add(fullPause)); ctx.Err() != nil {
				break
			}
			err = h.k.Tell(*link, a.ip, a.from.router)
		}
		if h.announced.Add(1)%burst == 0 {
			h.until(ctx, time.Now().Add(burstPause))
		}
		if err != nil {
			p.add("announcing %s on %s: %w", a.ip, link.Name, err)
		}
	}
	return p.err(title(i))
}

// until waits for a time, or for the end of ctx or of the Host.
func (h *Host) until(ctx context.Context, at time.Time) {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-h.done:
	case <-ctx.Done():
	case <-t.C:
	}
}
