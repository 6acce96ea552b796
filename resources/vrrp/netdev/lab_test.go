package netdev

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lab is a network namespace.
type lab struct{ nstest.NS }

func newLab(t testing.TB) lab {
	t.Helper()
	return lab{nstest.New(t, "kbnetdev")}
}

// pair is two routers on one wire: eth0 with 10.0.0.1/24, fd00::1/64 and 10.0.0.2/24, fd00::2/64.
func pair(t testing.TB) (a, b lab) {
	t.Helper()
	a, b = newLab(t), newLab(t)
	nstest.Connect(a.NS, b.NS)
	return a, b
}

func (l lab) host(runDir string) *Host {
	l.T.Helper()
	h, err := New(Config{Logger: nstest.Logger(l.T), Namespace: l.Path(), RunDir: runDir})
	if err != nil {
		l.T.Fatal(err)
	}
	l.T.Cleanup(func() { _ = h.Close() })
	return h
}

var (
	group4 = netip.MustParseAddr("224.0.0.18")
	group6 = netip.MustParseAddr("ff02::12")
)

// router4 is an instance for IPv4 with addresses, "10.0.0.5/24".
func router4(addresses ...string) *conf.VRRPInstance {
	i := &conf.VRRPInstance{Name: "web", Version: 2, VRID: 7, Priority: 100, Interface: "eth0", Interval: time.Second,
		Group: group4, UnicastTTL: 255, Accept: true}
	i.Addresses = virtual(addresses...)
	return i
}

func router6(addresses ...string) *conf.VRRPInstance {
	i := router4(addresses...)
	i.IPv6, i.Version, i.Group = true, 3, group6
	return i
}

func virtual(addresses ...string) (all []conf.VRRPAddress) {
	for _, a := range addresses {
		all = append(all, conf.VRRPAddress{Address: netip.MustParsePrefix(a)})
	}
	return all
}

func peers(addresses ...string) (all []conf.VRRPPeer) {
	for _, a := range addresses {
		all = append(all, conf.VRRPPeer{Address: netip.MustParseAddr(a), MaxTTL: 255})
	}
	return all
}

// opened is an endpoint, and what it has heard.
type opened struct {
	vrrp.Endpoint
	heard chan vrrp.Packet
}

func open(t testing.TB, h *Host, i *conf.VRRPInstance) opened {
	t.Helper()
	heard := make(chan vrrp.Packet, 100)
	e, err := h.Open(i, func(p vrrp.Packet) {
		p.Payload = bytes.Clone(p.Payload)
		heard <- p
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return opened{e, heard}
}

// hears waits for a packet.
func (o opened) hears(t testing.TB) vrrp.Packet {
	t.Helper()
	select {
	case p := <-o.heard:
		return p
	case <-time.After(nstest.Patience):
		t.Fatal("nothing was heard")
		panic("unreachable")
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
