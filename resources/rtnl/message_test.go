package rtnl

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func addresses() []Address {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	return []Address{
		{Index: 2, Prefix: p("10.0.0.5/24"), Broadcast: a("10.0.0.255"), Label: "eth0:vip", Proto: 107, Valid: Forever, Preferred: Forever},
		{Index: 1, Prefix: p("10.0.0.5/32"), Peer: a("10.0.0.6"), Scope: unix.RT_SCOPE_HOST, Flags: unix.IFA_F_NOPREFIXROUTE, Valid: 100, Preferred: 0},
		{Index: 7, Prefix: p("fd00::5/64"), Flags: unix.IFA_F_NODAD, Proto: 107, Valid: Forever},
	}
}

func TestAddressSurvivesItsMessage(t *testing.T) {
	for _, a := range addresses() {
		got, ok, err := ParseAddress(a.Encode(false))
		if err != nil || !ok {
			t.Fatalf("%s: %v %v", a.Prefix, ok, err)
		}
		if got != a {
			t.Errorf("got  %+v\nwant %+v", got, a)
		}
	}
}

func TestBridgePortLeavingIsNotAnInterfaceGone(t *testing.T) {
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0], b[4] = unix.AF_BRIDGE, 3
	if _, ok, err := ParseLink(b); ok || err != nil {
		t.Error("taken for the interface's own message", ok, err)
	}
}

// FuzzMessages: nothing that arrives on a netlink socket makes us panic, and an
// address that was understood is encoded as it was.
func FuzzMessages(f *testing.F) {
	head, _ := hex.DecodeString("1800000014000000" + "0000000000000000")
	f.Add(append(head, 2, 24, 0, 0, 2, 0, 0, 0))
	for _, a := range addresses() {
		f.Add(a.Encode(false))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		each := func(b []byte) {
			_, _, _ = ParseLink(b)
			_, _, _ = ParseConnected(b)
			a, ok, err := ParseAddress(b)
			if err != nil || !ok {
				return
			}
			_ = a.Text("eth0")
			again, ok, err := ParseAddress(a.Encode(false))
			if err != nil || !ok || !again.Same(a) || again.Prefix != a.Prefix {
				t.Fatalf("%+v became %+v, %v %v", a, again, ok, err)
			}
		}
		each(b)
		for m := range Messages(b) {
			each(m.Body)
		}
	})
}
