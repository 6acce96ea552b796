package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/vrrp"
)

// port hears an interface for all virtual routers of one family on it.
type port struct {
	at place

	// Guarded by Host.mu.
	refs   int
	groups map[netip.Addr]*membership
	file   *os.File // nil: not attached
	fd     int
	index  int

	mu        sync.RWMutex // guards members; never held while a handler runs
	members   [256][]*Endpoint
	strangers strangers
}

// membership is a group that virtual routers of a port share.
type membership struct {
	refs   int
	joined bool
}

// openPort returns the port of a place with one user more. The caller holds mu.
func (h *Host) openPort(at place, group netip.Addr) (*port, error) {
	p := h.ports[at]
	if p == nil {
		p = &port{at: at, groups: map[netip.Addr]*membership{}}
		h.ports[at] = p
	}
	p.refs++
	if group.IsValid() {
		m := p.groups[group]
		if m == nil {
			m = &membership{}
			p.groups[group] = m
		}
		m.refs++
	}
	if err := h.attachPort(p); err != nil {
		h.closePort(p, group)
		return nil, err
	}
	return p, nil
}

// closePort is the end of one use. The caller holds mu.
func (h *Host) closePort(p *port, group netip.Addr) {
	if m := p.groups[group]; m != nil {
		if m.refs--; m.refs == 0 {
			if m.joined {
				leave(p.fd, group, p.index)
			}
			delete(p.groups, group)
		}
	}
	if p.refs--; p.refs == 0 {
		p.detach()
		delete(h.ports, p.at)
	}
}

// attachPort makes the socket one of the interface that has the name now, if
// there is one. The caller holds mu.
func (h *Host) attachPort(p *port) error {
	l, ok := h.seen.link(p.at.dev)
	if !ok || l.Index != p.index {
		p.detach()
	}
	if !ok {
		return nil
	}
	if p.file == nil {
		fd, err := h.receiveSocket(l.Name, p.at.ipv6)
		if err != nil {
			return fmt.Errorf("%s: %w", p.at.dev, err)
		}
		file := pollable(fd)
		p.file, p.fd, p.index = file, fd, l.Index
		h.readers.Go(func() {
			r := reader{ipv6: p.at.ipv6, index: l.Index}
			if err := r.run(file, p.take); err != nil {
				h.lost(p, file, err)
			}
		})
	}
	var all error
	for group, m := range p.groups {
		if m.joined {
			continue
		}
		err := join(p.fd, group, p.index)
		m.joined = err == nil
		// IPv6 has no groups on an interface that is down: once more when it comes up.
		if err != nil && !(errors.Is(err, unix.ENODEV) && l.Flags&unix.IFF_UP == 0) {
			all = errors.Join(all, fmt.Errorf("%s: %w", p.at.dev, err))
		}
	}
	return all
}

// detach closes the socket, which ends its reader. The caller holds Host.mu.
func (p *port) detach() {
	if p.file == nil {
		return
	}
	_ = p.file.Close()
	p.file, p.fd, p.index = nil, -1, 0
	for _, m := range p.groups {
		m.joined = false
	}
}

// lost makes the socket of a port anew.
func (h *Host) lost(p *port, file *os.File, err error) {
	h.log.Error("receiving advertisements failed, opening the socket again", "interface", p.at.dev, "err", err)
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.file == file {
		p.detach()
		h.stir()
	}
}

// take hands a packet to the virtual router that it is for: that of its VRID
// whose group it was sent to, or which has its sender for a peer. One of the same
// VRID that expects something else gets it if nobody else does, and judges it.
func (p *port) take(pk vrrp.Packet) {
	if len(pk.Payload) < 2 {
		return
	}
	p.mu.RLock()
	var to *Endpoint
	best := -1
	for _, e := range p.members[pk.Payload[1]] {
		if n := e.fits(&pk); n > best {
			to, best = e, n
		}
	}
	p.mu.RUnlock()
	if to != nil {
		to.deliver(pk)
	} else {
		p.strangers.hear(p.at.dev, &pk, time.Now())
	}
}

func (p *port) enter(e *Endpoint) {
	p.strangers.forget(e.i.VRID)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members[e.i.VRID] = append(p.members[e.i.VRID], e)
}

func (p *port) quit(e *Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members[e.i.VRID] = slices.DeleteFunc(p.members[e.i.VRID], func(o *Endpoint) bool { return o == e })
}

// outlet sends by an interface for all virtual routers of one family on it.
type outlet struct {
	at   place
	refs int // guarded by Host.mu

	mu    sync.RWMutex // guards the rest; changed with Host.mu held too
	fd    int          // -1: not attached
	index int
}

// openOutlet returns the outlet of a place with one user more. The caller holds mu.
func (h *Host) openOutlet(at place) (*outlet, error) {
	o := h.outlets[at]
	if o == nil {
		o = &outlet{at: at, fd: -1}
		h.outlets[at] = o
	}
	o.refs++
	if err := h.attachOutlet(o); err != nil {
		h.closeOutlet(o)
		return nil, err
	}
	return o, nil
}

// closeOutlet is the end of one use. The caller holds mu.
func (h *Host) closeOutlet(o *outlet) {
	if o.refs--; o.refs == 0 {
		o.set(-1, 0)
		delete(h.outlets, o.at)
	}
}

// attachOutlet is attachPort for what is sent. The caller holds mu.
func (h *Host) attachOutlet(o *outlet) error {
	l, ok := h.seen.link(o.at.dev)
	if !ok {
		o.set(-1, 0)
		return nil
	}
	if o.fd >= 0 && o.index == l.Index {
		return nil
	}
	fd, err := h.sendSocket(l.Name, l.Index, o.at.ipv6)
	if err != nil {
		o.set(-1, 0)
		return fmt.Errorf("%s: %w", o.at.dev, err)
	}
	o.set(fd, l.Index)
	return nil
}

// set takes another socket; who is sending by the old one has sent.
func (o *outlet) set(fd, index int) {
	o.mu.Lock()
	old := o.fd
	o.fd, o.index = fd, index
	o.mu.Unlock()
	if old >= 0 {
		_ = unix.Close(old)
	}
}
