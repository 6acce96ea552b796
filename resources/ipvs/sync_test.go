package ipvs

import (
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Put together by hand from include/uapi/linux/ip_vs.h: the port is in the
// machine's byte order, the group in the network's.
func TestEncodeOfASyncDaemon(t *testing.T) {
	if !littleEndian() {
		t.Log("the expected bytes are written down for a little-endian machine; the lab's kernel tests hold here")
		return
	}
	m := newMessage(fakeFamily, unix.NLM_F_ACK, 7, cmdNewDaemon, familyVersion)
	m.daemon(daemonOf(Master, *tuned().Sync))
	want := strings.Join(strings.Fields(`
		4c000000 1f00 0500 07000000 00000000 09 01 0000
		3800 0380
		0800 0100 01000000
		0900 0200 65746831 00 000000
		0800 0300 07000000
		0800 0500 e0000051
		0600 0700 9022 0000
		0500 0800 01 000000`), "")
	if d := cmp.Diff(want, hex.EncodeToString(m.bytes())); d != "" {
		t.Error(d)
	}
}

func TestASyncDaemonIsReadAsItIsWritten(t *testing.T) {
	six := daemonOf(Backup, *tuned().Sync)
	six.Group, six.MaxLen, six.ID, six.TTL = netip.MustParseAddr("ff02::81"), 1400, 255, 64
	for _, d := range []Daemon{daemonOf(Master, *tuned().Sync), six} {
		m := &message{b: []byte{9, 1, 0, 0}}
		m.daemon(d)
		if got, err := decodeDaemon(m.b); err != nil || got != d {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, d)
		}
	}
}

func TestASyncDaemonInNoStateIsMalformed(t *testing.T) {
	for _, s := range []uint32{0, 3, 1<<8 + 1} {
		m := &message{b: []byte{9, 1, 0, 0}}
		m.nest(cmdAttrDaemon, func() {
			m.u32(daemonState, s)
			m.str(daemonInterface, "eth1")
		})
		if d, err := decodeDaemon(m.b); err == nil {
			t.Errorf("state %d: %+v", s, d)
		}
	}
}

func TestAnInterfaceHasItsNumber(t *testing.T) {
	k := NewKernel(KernelConfig{})
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := k.Interface("lo"); err != nil || n != lo.Index {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := k.Interface("nosuch0"); err == nil || err.Error() != "interface nosuch0: this node has no such interface" {
		t.Error(err)
	}
	if _, err := k.Interface("an-interface-of-more-than-15"); err == nil {
		t.Error("accepted")
	}
}
