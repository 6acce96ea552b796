package rtnl

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

const testMAC = "\x02\x00\x00\x00\x00\x01"

func TestGratuitousARPBytes(t *testing.T) {
	ip := netip.MustParseAddr("192.168.56.200")
	for _, c := range []struct {
		name string
		op   uint16
		want string
	}{
		{"request form", ARPRequest, "0001 0800 06 04 0001 020000000001 c0a838c8 000000000000 c0a838c8"},
		{"reply form", ARPReply, "0001 0800 06 04 0002 020000000001 c0a838c8 020000000001 c0a838c8"},
	} {
		if got := hex.EncodeToString(GARP(c.op, testMAC, ip)); got != strings.ReplaceAll(c.want, " ", "") {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func TestNeighbourAdvertisementBytes(t *testing.T) {
	got := hex.EncodeToString(Advertisement(testMAC, netip.MustParseAddr("fd00::5"), false))
	want := strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(`
		60000000 0020 3a ff
		fd000000000000000000000000000005
		ff020000000000000000000000000001
		88 00 5a93 20000000
		fd000000000000000000000000000005
		02 01 020000000001`)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if p := Advertisement(testMAC, netip.MustParseAddr("fd00::5"), true); p[44] != 0xa0 {
		t.Errorf("router's flags %#x", p[44])
	}
}
