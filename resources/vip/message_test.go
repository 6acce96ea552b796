package vip

import (
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func addresses() []address {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	return []address{
		{index: 2, prefix: p("10.0.0.5/24"), broadcast: a("10.0.0.255"), label: "eth0:vip", proto: mark, valid: forever, preferred: forever},
		{index: 1, prefix: p("10.0.0.5/32"), peer: a("10.0.0.6"), scope: unix.RT_SCOPE_HOST, flags: unix.IFA_F_NOPREFIXROUTE, valid: 100, preferred: 0},
		{index: 7, prefix: p("fd00::5/64"), flags: unix.IFA_F_NODAD, proto: mark, valid: forever},
	}
}

func TestAddressSurvivesItsMessage(t *testing.T) {
	for _, a := range addresses() {
		got, ok, err := parseAddress(a.encode(false))
		if err != nil || !ok {
			t.Fatalf("%s: %v %v", a.prefix, ok, err)
		}
		if got != a {
			t.Errorf("got  %+v\nwant %+v", got, a)
		}
	}
}

func TestBridgePortLeavingIsNotAnInterfaceGone(t *testing.T) {
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0], b[4] = unix.AF_BRIDGE, 3
	if _, ok, err := parseLink(b); ok || err != nil {
		t.Error("taken for the interface's own message", ok, err)
	}
}

func TestRecordSurvivesTheJournal(t *testing.T) {
	r := record{Version: 1, Address: netip.MustParsePrefix("10.0.0.5/24"), Interface: "eth0", Label: "eth0:vip", Broadcast: netip.MustParseAddr("10.0.0.255")}
	for _, a := range addresses()[:2] {
		r.Loopback = append(r.Loopback, keep(a))
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestBrokenRecordIsRefused(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"not JSON", `x`, "vip: record of the journal: invalid character 'x' looking for beginning of value"},
		{"other version", `{"version":9,"address":"10.0.0.5/24","interface":"eth0"}`, "vip: record of the journal has version 9, this program knows 1"},
		{"no address", `{"version":1,"interface":"eth0"}`, `vip: record of the journal: "invalid Prefix" is not an address with prefix`},
		{"path for an interface", `{"version":1,"address":"10.0.0.5/24","interface":"../x"}`, `vip 10.0.0.5/24: record of the journal: "../x" cannot be the name of an interface`},
		{"another address on lo", `{"version":1,"address":"10.0.0.5/24","interface":"eth0","loopback":[{"address":"10.0.0.6/32","scope":0,"valid_lft":1,"preferred_lft":1}]}`,
			"vip 10.0.0.5/24: record of the journal: what stood on lo (10.0.0.6/32) is not possible"},
		{"unknown key", `{"version":1,"adress":"10.0.0.5/24"}`, `vip: record of the journal: json: unknown field "adress"`},
		{"more after it", `{"version":1,"address":"10.0.0.5/24","interface":"eth0"} {}`, "vip: record of the journal: data after the end"},
	} {
		if _, err := parseRecord([]byte(c.in)); err == nil || err.Error() != c.want {
			t.Errorf("%s: got  %v\nwant %s", c.name, err, c.want)
		}
	}
}

// FuzzMessages: nothing that arrives on a netlink socket makes us panic, and an
// address that was understood is encoded as it was.
func FuzzMessages(f *testing.F) {
	head, _ := hex.DecodeString("1800000014000000" + "0000000000000000")
	f.Add(append(head, 2, 24, 0, 0, 2, 0, 0, 0))
	for _, a := range addresses() {
		f.Add(a.encode(false))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		each := func(b []byte) {
			_, _, _ = parseLink(b)
			_, _, _ = parseRoute(b)
			a, ok, err := parseAddress(b)
			if err != nil || !ok {
				return
			}
			_ = a.text("eth0")
			again, ok, err := parseAddress(a.encode(false))
			if err != nil || !ok || !again.same(a) || again.prefix != a.prefix {
				t.Fatalf("%+v became %+v, %v %v", a, again, ok, err)
			}
		}
		each(b)
		for m := range messages(b) {
			each(m.body)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"address":"10.0.0.5/24","interface":"eth0","loopback":[{"address":"10.0.0.5/32","scope":0,"valid_lft":1,"preferred_lft":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRecord(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		for _, k := range r.Loopback {
			_ = k.address(1).encode(false)
		}
	})
}
