package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// sockets opens links as UDP sockets.
type sockets struct {
	// ns is the network namespace, by name; empty: that of the process.
	ns string
}

// way is what the kernel's interfaces make of a link: where its datagrams go.
type way struct {
	index int              // of the interface: it changes when the interface is made anew
	v6    bool             // the socket is AF_INET6
	all   []netip.AddrPort // where Broadcast sends
}

func (w way) equal(o way) bool {
	return w.index == o.index && w.v6 == o.v6 && slices.Equal(w.all, o.all)
}

// within runs f in the namespace.
func (s *sockets) within(f func() error) error {
	if s.ns == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		// The thread is not unlocked: it ends with the goroutine and nothing else ever runs in the namespace.
		runtime.LockOSThread()
		done <- func() error {
			h, err := netns.GetFromName(s.ns)
			if err != nil {
				return fmt.Errorf("network namespace %s: %w", s.ns, err)
			}
			defer h.Close()
			if err := netns.Set(h); err != nil {
				return fmt.Errorf("network namespace %s: %w", s.ns, err)
			}
			return f()
		}()
	}()
	return <-done
}

func (s *sockets) open(l conf.Link) (Port, error) {
	if l.Type == conf.Serial {
		line, err := openSerial(l)
		if err != nil {
			return nil, err
		}
		return NewLine(line, l.Baud), nil
	}
	var p *udpPort
	err := s.within(func() error {
		w, err := findWay(l)
		if err != nil {
			return err
		}
		p, err = openUDP(l, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	p.s = s
	return p, nil
}

// findWay asks the kernel. Its errors are reasons for a link to be down.
func findWay(l conf.Link) (way, error) {
	dev, err := netlink.LinkByName(l.Interface)
	if err != nil {
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return way{}, fmt.Errorf("%s: no such interface", l.Interface)
		}
		return way{}, fmt.Errorf("%s: %w", l.Interface, err)
	}
	at := dev.Attrs()
	switch {
	case at.RawFlags&unix.IFF_UP == 0:
		return way{}, fmt.Errorf("%s: interface is down", l.Interface)
	case at.RawFlags&unix.IFF_RUNNING == 0:
		return way{}, fmt.Errorf("%s: no carrier", l.Interface)
	}
	w := way{index: at.Index}
	switch l.Type {
	case conf.Bcast:
		brd, err := broadcastAddress(dev, l.Interface)
		if err != nil {
			return way{}, err
		}
		w.all = []netip.AddrPort{netip.AddrPortFrom(brd, l.Port)}
		return w, nil
	case conf.Mcast:
		w.v6 = l.Group.Is6()
		group := l.Group
		if w.v6 {
			group = group.WithZone("") // the interface says which
		}
		w.all = []netip.AddrPort{netip.AddrPortFrom(group, l.Port)}
	case conf.Ucast:
		own, err := ownAddresses()
		if err != nil {
			return way{}, err
		}
		for _, a := range l.Addresses {
			a = a.Unmap().WithZone("")
			// Own addresses count here: the others may send to ours although we send to none of that family.
			w.v6 = w.v6 || a.Is6()
			if own[a] {
				continue
			}
			w.all = append(w.all, netip.AddrPortFrom(a, l.Port))
		}
		if len(w.all) == 0 {
			return way{}, errors.New("all its addresses are this node's own; name those of the other nodes")
		}
	default:
		return way{}, fmt.Errorf("%v links have no socket", l.Type)
	}
	return w, hasFamily(dev, l.Interface, w)
}

// hasFamily says whether the interface has an address to send from.
func hasFamily(dev netlink.Link, name string, w way) error {
	for _, to := range w.all {
		family, word := netlink.FAMILY_V4, "IPv4"
		if to.Addr().Is6() {
			family, word = netlink.FAMILY_V6, "IPv6"
		}
		addrs, err := netlink.AddrList(dev, family)
		if err != nil {
			return fmt.Errorf("%s: addresses: %w", name, err)
		}
		usable := slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
			return a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
		})
		if !usable {
			return fmt.Errorf("%s: no %s address", name, word)
		}
	}
	return nil
}

// broadcastAddress is that of the first address that has one, else 255.255.255.255.
func broadcastAddress(dev netlink.Link, name string) (netip.Addr, error) {
	addrs, err := netlink.AddrList(dev, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s: addresses: %w", name, err)
	}
	if len(addrs) == 0 {
		return netip.Addr{}, fmt.Errorf("%s: no IPv4 address", name)
	}
	for _, a := range addrs {
		if b, ok := netip.AddrFromSlice(a.Broadcast.To4()); ok && !b.IsUnspecified() {
			return b, nil
		}
	}
	return netip.AddrFrom4([4]byte{255, 255, 255, 255}), nil
}

func ownAddresses() (map[netip.Addr]bool, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("own addresses: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			own[ip.Unmap()] = true
		}
	}
	return own, nil
}

// watch calls changed after every change of an interface or address, until ctx
// ends. The kernel drops events when too many come, and the subscription ends
// then: it is made anew, with a look at everything.
func (s *sockets) watch(ctx context.Context, changed func()) {
	for ctx.Err() == nil {
		s.watchOnce(ctx, changed)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
			changed()
		}
	}
}

func (s *sockets) watchOnce(ctx context.Context, changed func()) {
	done := make(chan struct{})
	links, addrs := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64)
	ignore := func(error) {} // the channel is closed after it
	var opened []func()
	drain := func() {
		close(done)
		for _, f := range opened {
			f()
		}
	}
	defer drain()
	err := s.within(func() error {
		if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: ignore}); err != nil {
			return err
		}
		opened = append(opened, func() {
			for range links {
			}
		})
		if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: ignore}); err != nil {
			return err
		}
		opened = append(opened, func() {
			for range addrs {
			}
		})
		return nil
	})
	if err != nil {
		return // tried again; meanwhile links are retried by time
	}
	changed() // what happened before the subscription
	// Each look costs some netlink questions; a node with thousands of addresses
	// that come and go at once is looked at a few times and not thousands.
	const settle = 5 * time.Millisecond
	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	pending := false
	for {
		ok := true
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			pending = false
			changed()
			continue
		case _, ok = <-links:
		case _, ok = <-addrs:
		}
		if !ok {
			return
		}
		if !pending {
			pending = true
			timer.Reset(settle)
		}
	}
}

// Check implements Checker.
func (p *udpPort) Check() error {
	return p.s.within(func() error {
		w, err := findWay(p.conf)
		if err != nil {
			return err
		}
		if !w.equal(p.way) {
			return fmt.Errorf("%s: it has changed", p.conf.Interface)
		}
		return nil
	})
}

var _ Checker = (*udpPort)(nil)
