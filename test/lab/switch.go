package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Switch is an Ethernet of its own: a bridge without spanning tree and snooping.
type Switch struct {
	Name string

	lab    *Lab
	bridge string
}

// Switch makes a switch. One for each heartbeat link, and one for the service network.
func (l *Lab) Switch(name string) *Switch { l.t.Helper(); return l.bridge(name, nil) }

// Hub is a switch that learns nothing: everybody hears all, also what is for one alone.
func (l *Lab) Hub(name string) *Switch {
	l.t.Helper()
	forgets := uint32(0)
	return l.bridge(name, &forgets)
}

// bridge makes a bridge that knows addresses for so long, in hundredths of a second; nil is the kernel's default.
func (l *Lab) bridge(name string, ageing *uint32) *Switch {
	l.t.Helper()
	s := &Switch{Name: name, lab: l, bridge: fmt.Sprintf("switch%d", len(l.switches)+1)}
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name = s.bridge
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping, AgeingTime: ageing}
	if err := l.fabric.nl.LinkAdd(bridge); err != nil {
		l.t.Fatalf("lab: switch %s: %v", name, err)
	}
	if err := l.fabric.nl.LinkSetUp(bridge); err != nil {
		l.t.Fatalf("lab: switch %s: %v", name, err)
	}
	l.switches = append(l.switches, s)
	return s
}

// Port is where an interface of a host is plugged into a switch.
type Port struct {
	Host      *Host
	Switch    *Switch
	Interface string
	MAC       net.HardwareAddr

	addrs []netip.Prefix
	name  string // of the switch's end, and its index
	index int
}

// Attach gives the host an interface with these addresses (10.0.0.1/24) on the
// switch. After a death and revival it is there again.
func (h *Host) Attach(s *Switch, ifname string, addrs ...string) *Port {
	h.lab.t.Helper()
	h.lab.ports++
	p := &Port{
		Host: h, Switch: s, Interface: ifname, name: fmt.Sprintf("port%d", h.lab.ports),
		// Locally administered; the last bytes tell host and port in a trace.
		MAC: net.HardwareAddr{0x02, 0x6b, 0x62, byte(h.index >> 8), byte(h.index), byte(len(h.ports) + 1)},
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a)
		if err != nil {
			h.lab.t.Fatalf("lab: %s %s: %v", h.Name, ifname, err)
		}
		p.addrs = append(p.addrs, prefix)
	}
	h.ports = append(h.ports, p)
	p.plug()
	return p
}

// Ports are the host's, in the order of Attach.
func (h *Host) Ports() []*Port { return h.ports }

// PortOn is the host's port on the switch.
func (h *Host) PortOn(s *Switch) *Port {
	h.lab.t.Helper()
	i := slices.IndexFunc(h.ports, func(p *Port) bool { return p.Switch == s })
	if i < 0 {
		h.lab.t.Fatalf("lab: %s is not attached to %s", h.Name, s.Name)
	}
	return h.ports[i]
}

func (p *Port) fatal(err error) {
	p.Host.lab.t.Helper()
	p.Host.lab.t.Fatalf("lab: %s %s on %s: %v", p.Host.Name, p.Interface, p.Switch.Name, err)
}

func (p *Port) plug() {
	p.Host.lab.t.Helper()
	fabric, host := p.Host.lab.fabric.nl, p.Host.alive()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = p.name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: p.Interface, PeerHardwareAddr: p.MAC, PeerNamespace: netlink.NsFd(host.net.Fd())}
	if err := fabric.LinkAdd(veth); err != nil {
		p.fatal(err)
	}
	end, err := fabric.LinkByName(p.name)
	if err != nil {
		p.fatal(err)
	}
	p.index = end.Attrs().Index
	bridge, err := fabric.LinkByName(p.Switch.bridge)
	if err != nil {
		p.fatal(err)
	}
	if err := fabric.LinkSetMaster(veth, bridge); err != nil {
		p.fatal(err)
	}
	if err := fabric.LinkSetUp(veth); err != nil {
		p.fatal(err)
	}
	link, err := host.nl.LinkByName(p.Interface)
	if err != nil {
		p.fatal(err)
	}
	for _, a := range p.addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		} else if a.Bits() < 31 {
			addr.Broadcast = lastAddress(a)
		}
		if err := host.nl.AddrAdd(link, addr); err != nil {
			p.fatal(fmt.Errorf("address %s: %w", a, err))
		}
	}
	if err := host.nl.LinkSetUp(link); err != nil {
		p.fatal(err)
	}
	p.waitForwarding()
}

// waitForwarding waits until both ends have carrier: the bridge learns that a
// little later than we bring it about, and drops frames until then.
func (p *Port) waitForwarding() {
	p.Host.lab.t.Helper()
	up := func() bool {
		ends := []struct {
			nl   *netlink.Handle
			name string
		}{{p.Host.lab.fabric.nl, p.name}, {p.Host.alive().nl, p.Interface}}
		for _, end := range ends {
			link, err := end.nl.LinkByName(end.name)
			if err != nil {
				p.fatal(err)
			}
			if link.Attrs().OperState != netlink.OperUp {
				return false
			}
		}
		return true
	}
	p.Host.lab.Eventually(10*time.Second, p.Interface+" of "+p.Host.Name+" to have carrier", up)
}

func lastAddress(p netip.Prefix) net.IP {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

// unplug takes the switch's end away, which may have gone with the host's.
func (p *Port) unplug() error {
	link, err := p.Host.lab.fabric.nl.LinkByName(p.name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.Host.lab.fabric.nl.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("removing %s: %w", p.name, err)
	}
	return nil
}

// Down pulls the cable: the host loses carrier.
func (p *Port) Down() { p.Host.lab.t.Helper(); p.set((*netlink.Handle).LinkSetDown) }

// Up puts the cable back, and returns when the host has carrier. (The interface
// has to be up in the host.)
func (p *Port) Up() {
	p.Host.lab.t.Helper()
	p.set((*netlink.Handle).LinkSetUp)
	p.waitForwarding()
}

func (p *Port) set(change func(*netlink.Handle, netlink.Link) error) {
	p.Host.lab.t.Helper()
	link, err := p.Host.lab.fabric.nl.LinkByName(p.name)
	if err == nil {
		err = change(p.Host.lab.fabric.nl, link)
	}
	if err != nil {
		p.fatal(err)
	}
}

// disablePorts makes the switches ignore the ports, both ways, within
// microseconds and without the hosts seeing it. (To set a link down waits for
// every processor.)
func (l *Lab) disablePorts(ports []*Port) error {
	return l.fabric.do(func() error {
		for _, p := range ports {
			req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
			msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
			msg.Index = int32(p.index)
			req.AddData(msg)
			port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
			const disabled = 0 // BR_STATE_DISABLED
			port.AddRtAttr(nl.IFLA_BRPORT_STATE, []byte{disabled})
			req.AddData(port)
			// ENETDOWN: the cable is out already.
			if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !errors.Is(err, unix.ENETDOWN) {
				return fmt.Errorf("disabling %s on %s: %w", p.Interface, p.Switch.Name, err)
			}
		}
		return nil
	})
}
