package checks

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// shrink makes a listener's queue as short as the kernel allows.
func shrink(t *testing.T, l *net.TCPListener) {
	t.Helper()
	rc, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := rc.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
}

// full tells whether a listener's queue has no room, after which the kernel answers no connect.
func full(t *testing.T, l *net.TCPListener) bool {
	t.Helper()
	rc, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var i *unix.TCPInfo
	if e := rc.Control(func(fd uintptr) { i, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return i.Unacked > i.Sacked // of a listener: how many wait, and how many may
}

func TestConnect(t *testing.T) {
	for _, a := range []struct{ network, addr string }{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}} {
		seen := make(chan error, 1)
		addr := serve(t, a.network, a.addr, func(c net.Conn) {
			_, err := c.Read(make([]byte, 1))
			seen <- err
		})
		c := conf.Check{Type: conf.Connect, Target: netip.MustParseAddrPort(addr), Timeout: time.Minute}
		expect(t, c, "connected")
		if err := <-seen; err != io.EOF {
			t.Errorf("the server saw %v, want an orderly end: its log should stay clean", err)
		}
	}
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	expect(t, conf.Check{Type: conf.Connect, Target: netip.MustParseAddrPort(addr), Timeout: time.Minute}, "!connect "+addr+": connection refused")
	expect(t, conf.Check{Type: conf.Connect, Target: netip.MustParseAddrPort("[fe80::1%nosuchif0]:80"), Timeout: time.Second},
		"!connect [fe80::1%nosuchif0]:80: interface nosuchif0: route ip+net: no such network interface")
}
