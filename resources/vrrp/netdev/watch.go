package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

const (
	// retryDelay is the wait before a failed look at the kernel is tried again.
	retryDelay = 100 * time.Millisecond
	// failedDelay is the wait before the kernel is asked again for what it has refused.
	failedDelay = time.Second
)

// picture is what the kernel has told of interfaces and addresses.
type picture struct {
	links map[int]rtnl.Link
	names map[string]int // index of each link by each of its names; nil: to be made anew
	addrs map[standing]rtnl.Address
	// own are the addresses without our mark, in the order of the kernel: of
	// thousands of virtual ones none has to be looked at to find the machine's.
	own map[int][]rtnl.Address
}

// standing is an address on an interface. (IPv4 allows one address with several
// prefixes; the last that was told counts.)
type standing struct {
	index int
	addr  netip.Addr
}

func (p *picture) link(name string) (rtnl.Link, bool) {
	if p.names == nil {
		p.names = make(map[string]int, len(p.links))
		for _, l := range p.links {
			p.names[l.Name] = l.Index
			for _, alt := range l.Alt {
				p.names[alt] = l.Index
			}
		}
	}
	l, ok := p.links[p.names[name]]
	return l, ok
}

// add takes in an address.
func (p *picture) add(a rtnl.Address) {
	p.addrs[standing{a.Index, a.Prefix.Addr()}] = a
	if a.Proto == Mark {
		return
	}
	own := p.own[a.Index]
	if i := slices.IndexFunc(own, a.Same); i >= 0 {
		own[i] = a
	} else {
		p.own[a.Index] = append(own, a)
	}
}

// remove takes out an address and tells whether it was one of the machine's own.
func (p *picture) remove(a rtnl.Address) bool {
	s := standing{a.Index, a.Prefix.Addr()}
	if old, ok := p.addrs[s]; ok && old.Same(a) {
		delete(p.addrs, s)
	}
	n := len(p.own[a.Index])
	p.own[a.Index] = slices.DeleteFunc(p.own[a.Index], a.Same)
	return len(p.own[a.Index]) != n
}

// linkName is for messages and for what is named.
func (h *Host) linkName(index int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l, ok := h.seen.links[index]; ok {
		return l.Name
	}
	return fmt.Sprintf("interface %d", index)
}

// view locks the Host with everything that the kernel has told so far in its
// picture. Without an error the caller unlocks mu.
func (h *Host) view() error {
	h.mu.Lock()
	err := h.drain()
	if err != nil {
		h.mu.Unlock()
	}
	return err
}

// drain takes in what the kernel has told. The caller holds mu.
func (h *Host) drain() error {
	if h.closed {
		return errClosed
	}
	return h.watch.Take()
}

// subscribe makes the Watch that keeps the picture.
func (h *Host) subscribe() {
	h.watch = rtnl.Watch{
		Kernel: h.k, Groups: []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR},
		Lock: &h.mu, Read: h.dump, Apply: h.apply,
		Lost: func() {
			h.log.Warn("kernel events were lost, reading the state anew")
			h.deafen(0) // it may have been said there that an interface went and came back
		},
		Failed: func(error) { h.stir() }, // the worker says it, and tries again
	}
}

// dump reads the picture anew. The caller holds mu.
func (h *Host) dump() error {
	p := picture{links: map[int]rtnl.Link{}, addrs: map[standing]rtnl.Address{}, own: map[int][]rtnl.Address{}}
	err := h.k.Links(func(l rtnl.Link) { p.links[l.Index] = l })
	if err == nil {
		err = h.k.Addresses(p.add)
	}
	if err != nil {
		return err
	}
	h.seen = p
	h.lookFor(0)
	h.stir()
	return nil
}

// apply takes in one event. The caller holds mu.
func (h *Host) apply(m rtnl.Message) {
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok, err := rtnl.ParseLink(m.Body)
		if err != nil || !ok || m.Type == unix.RTM_NEWLINK && l.Name == "" { // wireless events carry a part only
			return
		}
		if m.Type == unix.RTM_DELLINK {
			delete(h.seen.links, l.Index)
			h.deafen(l.Index)
		} else {
			if h.seen.links[l.Index].Flags&unix.IFF_UP == 0 && l.Flags&unix.IFF_UP != 0 {
				h.lookFor(l.Index) // the kernel takes IPv6 addresses from an interface that is set down
			}
			h.seen.links[l.Index] = l
		}
		h.seen.names = nil
		h.stir()
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, ok, err := rtnl.ParseAddress(m.Body)
		if err != nil || !ok {
			return
		}
		if m.Type == unix.RTM_NEWADDR {
			h.seen.add(a)
			if a.Proto != Mark {
				h.stir()
			}
			return
		}
		if h.seen.remove(a) {
			h.stir()
		}
		h.missed(standingOf(a))
	}
}

// deafen closes the sockets that hear an interface which has gone; 0: any. It may
// be back, with the index that it had, before the worker looks, and is in none of
// the groups that were joined on it. The caller holds mu.
func (h *Host) deafen(index int) {
	for _, p := range h.ports {
		if p.file == nil || index != 0 && p.index != index {
			continue
		}
		// The descriptor is closed when its reader has let go of it. Memberships
		// that it had by then would be taken from who has the index now.
		for group, m := range p.groups {
			if m.joined {
				leave(p.fd, group, p.index)
			}
		}
		p.detach()
	}
}

// stir wakes the worker.
func (h *Host) stir() { ring(h.wake) }

// worker does what events ask for: sockets follow their interfaces, endpoints
// their addresses, and then subscribers are told.
func (h *Host) worker() {
	var again <-chan time.Time
	for {
		select {
		case <-h.done:
			return
		case <-h.wake:
		case <-again:
		}
		if err := h.view(); err != nil {
			if errors.Is(err, errClosed) {
				return
			}
			h.log.Error("kernel events cannot be had; changes of interfaces and addresses are not seen", "err", err)
			select {
			case <-h.done:
				return
			case <-time.After(retryDelay):
			}
			h.stir()
			continue
		}
		again = nil
		if !h.follow() {
			again = time.After(failedDelay)
		}
		h.mu.Unlock()
		h.tell()
	}
}

// follow makes macvlan interfaces and sockets anew whose interface is another
// one now, and lets endpoints choose their addresses. It tells whether all of it
// was possible. The caller holds mu.
func (h *Host) follow() (done bool) {
	said := h.said
	h.said = map[string]string{}
	may := func(what, dev string, err error) {
		if err == nil {
			return
		}
		key, text := what+" "+dev, err.Error()
		if h.said[key] = text; said[key] != text {
			h.log.Error(what+"; it is tried again", "interface", dev, "every", failedDelay, "err", err)
		}
	}
	for _, v := range h.vmacs {
		if err := h.ensureVMAC(v); !errors.Is(err, errNoInterface) {
			may("a virtual interface cannot be made again", v.name, err)
		}
	}
	for _, p := range h.ports {
		may("advertisements cannot be received", p.at.dev, h.attachPort(p))
	}
	for _, o := range h.outlets {
		may("advertisements cannot be sent", o.at.dev, h.attachOutlet(o))
	}
	for e := range h.open {
		e.choose()
	}
	return len(h.said) == 0
}

// subscribers are those whom Links tells.
type subscribers struct {
	mu  sync.Mutex // held while they are told
	all []*subscriber
}

type subscriber struct {
	changed func(string, bool)
	known   map[string]bool
}

// Links tells the state of interfaces, by each of their names, before it returns
// and whenever one changes. Up is: set up, and with a carrier; an interface that
// is gone is down. Sockets are ready before their interface is told to be up.
// stop must not be called by changed; after it nothing is told.
func (h *Host) Links(changed func(name string, up bool)) (stop func(), err error) {
	s := &subscriber{changed, map[string]bool{}}
	h.subs.mu.Lock()
	defer h.subs.mu.Unlock()
	if err := h.view(); err != nil {
		return nil, fmt.Errorf("vrrp: %w", err)
	}
	states := h.states()
	h.mu.Unlock()
	s.tell(states)
	h.subs.all = append(h.subs.all, s)
	return func() {
		h.subs.mu.Lock()
		defer h.subs.mu.Unlock()
		h.subs.all = slices.DeleteFunc(h.subs.all, func(o *subscriber) bool { return o == s })
	}, nil
}

// states is the state of every interface by name. The caller holds mu.
func (h *Host) states() map[string]bool {
	states := make(map[string]bool, len(h.seen.links))
	for _, l := range h.seen.links {
		up := l.Fault() == ""
		states[l.Name] = up
		for _, name := range l.Alt {
			states[name] = up
		}
	}
	return states
}

// tell tells subscribers what has changed.
func (h *Host) tell() {
	h.subs.mu.Lock()
	defer h.subs.mu.Unlock()
	if len(h.subs.all) == 0 {
		return
	}
	h.mu.Lock()
	states := h.states()
	h.mu.Unlock()
	for _, s := range h.subs.all {
		s.tell(states)
	}
}

func (s *subscriber) tell(states map[string]bool) {
	for name := range s.known {
		if _, ok := states[name]; !ok {
			if s.known[name] {
				s.changed(name, false)
			}
			delete(s.known, name)
		}
	}
	for name, up := range states {
		if was, ok := s.known[name]; !ok || was != up {
			s.known[name] = up
			s.changed(name, up)
		}
	}
}
