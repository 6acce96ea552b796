package netdev

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

// Endpoint is where a virtual router sends from and listens.
type Endpoint struct {
	h       *Host
	i       *conf.VRRPInstance
	group   netip.Addr // invalid: there are peers
	receive func(vrrp.Packet)
	port    *port
	out     *outlet
	vmac    *vmac // nil: none

	way atomic.Pointer[way]

	sending sync.Mutex // held while sending: the addresses in way are written to by their use

	receiving sync.Mutex // held while the handler runs; guards closed
	closed    bool
}

// way is how messages leave.
type way struct {
	local   netip.Addr // invalid: the interface has no address of the family
	index   int        // of the interface by which they leave
	control []byte
	to      []destination
}

// destination is the group, or a peer.
type destination struct {
	addr netip.Addr
	raw  unix.Sockaddr
}

// Reasons why nothing can be sent.
var (
	ErrNoInterface = errors.New("the interface is gone")
	ErrNoAddress   = errors.New("the interface has no address to send from")
	errEnded       = errors.New("the endpoint is closed")
	errStranger    = errors.New("neither the group of the instance nor one of its peers")
)

// Open makes the endpoint of an instance, and its VMAC if it has one. i must not
// change until it is closed. An interface that is not there is no error: the
// endpoint begins to work when it appears, and Links tells of it. receive runs on
// a goroutine of the Host; it may call Send and Local.
func (h *Host) Open(i *conf.VRRPInstance, receive func(vrrp.Packet)) (vrrp.Endpoint, error) {
	if err := check(i); err != nil {
		return nil, err
	}
	e := &Endpoint{h: h, i: i, receive: receive}
	e.way.Store(&way{})
	if len(i.Peers) == 0 {
		e.group = i.Group
	}
	if err := h.view(); err != nil {
		return nil, fmt.Errorf("%s: %w", title(i), err)
	}
	defer h.mu.Unlock()
	if err := h.enter(e); err != nil {
		return nil, fmt.Errorf("%s: %w", title(i), err)
	}
	return e, nil
}

// enter gives the endpoint its sockets. The caller holds mu.
func (h *Host) enter(e *Endpoint) (err error) {
	i := e.i
	dev := i.Interface
	if i.VMAC != "" {
		if e.vmac, err = h.openVMAC(i); err != nil {
			return err
		}
		if !i.VMACBase {
			dev = i.VMAC
		}
	}
	if e.port, err = h.openPort(place{i.Interface, i.IPv6}, e.group); err == nil {
		if e.out, err = h.openOutlet(place{dev, i.IPv6}); err != nil {
			h.closePort(e.port, e.group)
		}
	}
	if err != nil {
		if e.vmac != nil {
			h.closeVMAC(e.vmac)
		}
		return err
	}
	for a := range addressesOf(i) {
		h.virtual[a.Address.Addr()]++
	}
	h.open[e] = struct{}{}
	e.choose()
	e.port.enter(e)
	h.stir() // others may have taken a virtual address for the machine's own
	return nil
}

// check refuses what the sockets of any machine cannot do.
func check(i *conf.VRRPInstance) error {
	fits := func(a netip.Addr) bool { return a.IsValid() && a.Is6() == i.IPv6 && !a.Is4In6() && a.Zone() == "" }
	switch {
	case i.Interface == "":
		return fmt.Errorf("%s: no interface", title(i))
	case i.VRID == 0:
		return fmt.Errorf("%s: virtual_router_id 0; give one of 1 to 255", title(i))
	case len(i.Peers) == 0 && (!fits(i.Group) || !i.Group.IsMulticast()):
		return fmt.Errorf("%s: %v is no multicast group of its family", title(i), i.Group)
	case i.Source.IsValid() && !fits(i.Source):
		return fmt.Errorf("%s: %s is no source address of its family", title(i), i.Source)
	}
	for _, p := range i.Peers {
		if !fits(p.Address) || p.Address.IsMulticast() {
			return fmt.Errorf("%s: %v is no peer of its family", title(i), p.Address)
		}
	}
	return nil
}

// Close ends sending and receiving; no handler runs when it returns, so that the
// handler must not call it. The VMAC goes with its last user: Release comes first.
func (e *Endpoint) Close() error {
	e.silence()
	h := e.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.vmac != nil && !h.closed {
		h.closeVMAC(e.vmac)
	}
	e.vmac = nil
	return nil
}

// silence gives the sockets back.
func (e *Endpoint) silence() {
	e.port.quit(e)
	e.receiving.Lock()
	was := e.closed
	e.closed = true
	e.receiving.Unlock()
	if was {
		return
	}
	h := e.h
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, e)
	for a := range addressesOf(e.i) {
		if h.virtual[a.Address.Addr()]--; h.virtual[a.Address.Addr()] == 0 {
			delete(h.virtual, a.Address.Addr())
		}
	}
	h.closePort(e.port, e.group)
	e.sending.Lock()
	defer e.sending.Unlock()
	h.closeOutlet(e.out)
	e.out = nil
}

// Local is the address that others see; invalid while there is none.
func (e *Endpoint) Local() netip.Addr { return e.way.Load().local }

// Send sends a message to the group or to a peer. It does not wait and does not
// allocate: what does not fit the socket's buffer is lost, which is an error.
func (e *Endpoint) Send(message []byte, to netip.Addr) error {
	e.sending.Lock()
	defer e.sending.Unlock()
	if e.out == nil {
		return errEnded
	}
	e.out.mu.RLock()
	defer e.out.mu.RUnlock()
	return e.send(message, to)
}

// send is Send for the holder of the locks.
func (e *Endpoint) send(message []byte, to netip.Addr) error {
	w := e.way.Load()
	switch {
	case e.out.fd < 0 || e.out.index != w.index:
		return ErrNoInterface
	case !w.local.IsValid():
		return ErrNoAddress
	}
	for n := range w.to {
		if w.to[n].addr == to {
			_, err := unix.SendmsgN(e.out.fd, message, w.control, w.to[n].raw, unix.MSG_DONTWAIT)
			return err
		}
	}
	return errStranger
}

// fits says how well a packet fits the endpoint; the higher the better.
func (e *Endpoint) fits(p *vrrp.Packet) int {
	switch {
	case e.group.IsValid() && e.group == p.To:
		return 2
	case !e.group.IsValid() && !p.To.IsMulticast():
		if slices.ContainsFunc(e.i.Peers, func(o conf.VRRPPeer) bool { return o.Address == p.From }) {
			return 2
		}
		return 1
	}
	return 0
}

// deliver calls the handler.
func (e *Endpoint) deliver(p vrrp.Packet) {
	e.receiving.Lock()
	defer e.receiving.Unlock()
	if !e.closed {
		e.receive(p)
	}
}

// choose finds the address to send from. The caller holds Host.mu.
func (e *Endpoint) choose() {
	local, old := e.source(), e.way.Load()
	if old.local == local && old.index == e.out.index && old.to != nil {
		return
	}
	w := &way{local: local, index: e.out.index}
	ttl := uint8(hopLimit)
	all := []netip.Addr{e.group}
	if !e.group.IsValid() {
		ttl = e.i.UnicastTTL
		if ttl == 0 {
			ttl = hopLimit
		}
		all = all[:0]
		for _, p := range e.i.Peers {
			all = append(all, p.Address)
		}
	}
	for _, a := range all {
		if e.i.IPv6 {
			to := &unix.SockaddrInet6{Addr: a.As16()}
			if a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() {
				to.ZoneId = uint32(w.index)
			}
			w.to = append(w.to, destination{a, to})
		} else {
			w.to = append(w.to, destination{a, &unix.SockaddrInet4{Addr: a.As4()}})
		}
	}
	switch {
	case !local.IsValid():
	case e.i.IPv6:
		w.control = control6(local, w.index, ttl)
	default:
		w.control = control4(local, ttl)
	}
	e.way.Store(w)
	if old.local.IsValid() && old.local != local {
		e.h.log.Info("advertisements leave from another address", "instance", e.i.Name, "address", local, "before", old.local)
	}
}

// source is the administrator's choice, or the first address of the interface
// that is not virtual: in IPv6 a link-local one (RFC 9568, 5.1.2.1) unless the
// peers are elsewhere. Only an owner of the addresses has none but virtual ones.
func (e *Endpoint) source() netip.Addr {
	if e.i.Source.IsValid() {
		return e.i.Source
	}
	far := slices.ContainsFunc(e.i.Peers, func(p conf.VRRPPeer) bool { return !p.Address.IsLinkLocalUnicast() })
	l, ok := e.h.seen.link(e.i.Interface)
	if !ok {
		return netip.Addr{}
	}
	var best netip.Addr
	bestRank := 0
	for _, a := range e.h.seen.own[l.Index] {
		ip := a.Prefix.Addr()
		if ip.Is6() != e.i.IPv6 || a.Flags&unix.IFA_F_DADFAILED != 0 || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC) == unix.IFA_F_TENTATIVE {
			continue
		}
		if n := e.rank(a, far); n > bestRank {
			best, bestRank = ip, n
		}
	}
	return best
}

// rank is the higher the better an address is to send from; 0: not at all.
func (e *Endpoint) rank(a rtnl.Address, far bool) int {
	n := 1
	if e.h.virtual[a.Prefix.Addr()] == 0 {
		n += 4
	}
	if !e.i.IPv6 {
		if a.Flags&unix.IFA_F_SECONDARY == 0 {
			n += 2
		}
		return n
	}
	if a.Prefix.Addr().IsLinkLocalUnicast() == far {
		if !far {
			return 0
		}
		return 1 // better than nothing: the peers may be on the link all the same
	}
	if a.Flags&unix.IFA_F_DEPRECATED == 0 {
		n += 2
	}
	return n
}

// addressesOf are all virtual addresses of an instance.
func addressesOf(i *conf.VRRPInstance) iter.Seq[*conf.VRRPAddress] {
	return func(yield func(*conf.VRRPAddress) bool) {
		for _, all := range [][]conf.VRRPAddress{i.Addresses, i.Excluded} {
			for n := range all {
				if !yield(&all[n]) {
					return
				}
			}
		}
	}
}
