package vip

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/rtnl"
	"github.com/keepbeat/keepbeat/resources/rtnl/nstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a network namespace.
type host struct{ nstest.NS }

func newHost(t testing.TB) host {
	t.Helper()
	return host{nstest.New(t, "kbvip")}
}

// pair is a director and a neighbour on one wire: eth0 with 10.0.0.1/24, fd00::1/64 and 10.0.0.2/24, fd00::2/64.
func pair(t testing.TB) (director, neighbour host) {
	t.Helper()
	a, b := newHost(t), newHost(t)
	nstest.Connect(a.NS, b.NS)
	return a, b
}

func (h host) maker() *Maker {
	m := NewMaker(Config{Logger: nstest.Logger(h.T), Namespace: h.Path()})
	h.T.Cleanup(func() { _ = m.Close() })
	return m
}

// epoch is the ownership of a test's group.
type epoch struct{ atomic.Uint64 }

func owned() *epoch {
	e := &epoch{}
	e.Store(7)
	return e
}

func env(t testing.TB, e *epoch) resources.Env {
	return resources.Env{Node: "director1", Group: "web", Logger: nstest.Logger(t), Epoch: e.Load}
}

func make1(t testing.TB, m *Maker, v conf.VIP) *vip { return makeOwned(t, m, v, owned()) }

func makeOwned(t testing.TB, m *Maker, v conf.VIP, e *epoch) *vip {
	t.Helper()
	r, err := m.New(env(t, e), conf.Spec{}, conf.Resource{Kind: conf.KindVIP, Name: "vip", VIP: &v})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r.(*vip)
}

func started(t testing.TB, m *Maker, v conf.VIP) *vip {
	t.Helper()
	r := make1(t, m, v)
	recorded(t, r)
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func recorded(t testing.TB, r resources.Resource) json.RawMessage {
	t.Helper()
	b, err := r.Record()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func stop(t testing.TB, r resources.Resource) {
	t.Helper()
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// announced waits for all forms of one announcement of ip.
func announced(p nstest.Tap, ip string) {
	p.T.Helper()
	a := netip.MustParseAddr(ip)
	if a.Is6() {
		f := p.Until("neighbour advertisement", func(f []byte) bool {
			return len(f) >= 86 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_IPV6 && f[20] == 58 && f[54] == 136 &&
				bytes.Equal(f[62:78], a.AsSlice())
		})
		mac := string(f[6:12])
		want := append([]byte(rtnl.AllNodesMAC+mac+"\x86\xdd"), rtnl.Advertisement(mac, a, false)...)
		if !bytes.Equal(f, want) {
			p.T.Errorf("advertisement\n%x want\n%x", f, want)
		}
		return
	}
	for _, op := range []uint16{rtnl.ARPRequest, rtnl.ARPReply} {
		f := p.Until(fmt.Sprintf("gratuitous ARP %d", op), func(f []byte) bool {
			return len(f) >= 42 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_ARP && binary.BigEndian.Uint16(f[20:]) == op &&
				bytes.Equal(f[28:32], a.AsSlice()) && bytes.Equal(f[38:42], a.AsSlice())
		})
		mac := string(f[6:12])
		if want := append([]byte(rtnl.BroadcastMAC+mac+"\x08\x06"), rtnl.GARP(op, mac, a)...); !bytes.Equal(f[:42], want) {
			p.T.Errorf("gratuitous ARP\n%x want\n%x", f, want)
		}
	}
}

func alarmed(t testing.TB, v *vip) {
	t.Helper()
	select {
	case <-v.Alarm():
	case <-time.After(nstest.Patience):
		t.Fatal("no alarm")
	}
}
