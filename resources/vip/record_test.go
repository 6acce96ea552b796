package vip

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

func TestRecordSurvivesTheJournal(t *testing.T) {
	r := record{Version: 1, Address: netip.MustParsePrefix("10.0.0.5/24"), Interface: "eth0", Label: "eth0:vip", Broadcast: netip.MustParseAddr("10.0.0.255")}
	for _, a := range []rtnl.Address{
		{Index: 2, Prefix: netip.MustParsePrefix("10.0.0.5/24"), Broadcast: netip.MustParseAddr("10.0.0.255"), Label: "eth0:vip", Proto: mark, Valid: rtnl.Forever, Preferred: rtnl.Forever},
		{Index: 1, Prefix: netip.MustParsePrefix("10.0.0.5/32"), Peer: netip.MustParseAddr("10.0.0.6"), Scope: unix.RT_SCOPE_HOST, Flags: unix.IFA_F_NOPREFIXROUTE, Valid: 100},
	} {
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
			_ = k.address(1).Encode(false)
		}
	})
}
