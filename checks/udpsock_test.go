package checks

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// serveUDP answers each datagram with what answer returns.
func serveUDP(t *testing.T, addr string, answer func(request []byte) [][]byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, p := range answer(buf[:n]) {
				conn.WriteToUDPAddrPort(p, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// closedUDP is a port of loopback on which nobody listens.
func closedUDP(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func udpTo(target netip.AddrPort) conf.Check {
	return conf.Check{Type: conf.Negotiate, Service: "udp", Target: target, Timeout: time.Minute}
}

func TestALostDatagramIsSentAgain(t *testing.T) {
	asked := 0
	c := udpTo(serveUDP(t, "127.0.0.1:0", func(p []byte) [][]byte {
		if asked++; asked < 2 {
			return nil
		}
		return [][]byte{p}
	}))
	c.Payload, c.ReplyHex = "0102", "01"
	expect(t, c, "reply of 2 bytes")
}

func TestAFloodOfForeignDatagramsEndsTheCheck(t *testing.T) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, from, err := server.ReadFromUDPAddrPort(make([]byte, 10))
		for err == nil || errors.Is(err, unix.ECONNREFUSED) {
			_, err = server.WriteToUDPAddrPort([]byte{7}, from)
		}
	}()
	defer func() { server.Close(); <-done }()
	conn, err := dialUDPCheck(t.Context(), udpTo(server.LocalAddr().(*net.UDPAddr).AddrPort()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.ask([]byte("x"), make([]byte, 10), func(p []byte) error { return foreign("not mine") })
	if err == nil || err.Error() != "1000 datagrams that were no answer, the last: not mine" {
		t.Errorf("got %v", err)
	}
}

func TestAUDPCheckEndsWithItsContext(t *testing.T) {
	target := serveUDP(t, "127.0.0.1:0", func([]byte) [][]byte { return [][]byte{{7}} })
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	c := udpTo(target)
	conn, err := dialUDPCheck(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.ask([]byte("x"), make([]byte, 10), func(p []byte) error {
		time.AfterFunc(50*time.Millisecond, func() { cancel(context.DeadlineExceeded) })
		return foreign("not mine")
	})
	if want := "no answer within 1m0s; ignored: 1 that were no answer to the request, the last: not mine"; err == nil || err.Error() != want || !isTimeout(err) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := conn.receive(make([]byte, 1), time.Now().Add(time.Hour)); err == nil {
		t.Error("received after the end")
	}
}

func TestUDPFromWhereTheCheckSays(t *testing.T) {
	from := make(chan netip.Addr, 1)
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		_, a, _ := conn.ReadFromUDPAddrPort(make([]byte, 10))
		conn.WriteToUDPAddrPort(nil, a)
		from <- a.Addr()
	}()
	c := udpTo(conn.LocalAddr().(*net.UDPAddr).AddrPort())
	c.Source, c.Payload = netip.MustParseAddr("127.0.0.77"), "00"
	expect(t, c, "reply of 0 bytes")
	if a := <-from; a != c.Source {
		t.Errorf("came from %v", a)
	}
	c.Source = netip.MustParseAddr("192.0.2.1")
	if _, err := try(t, c); err == nil || !Local(err) || !strings.Contains(err.Error(), "source 192.0.2.1") {
		t.Errorf("an address that is not ours: %v", err)
	}
	c.Source = netip.MustParseAddr("::1")
	if _, err := NewChecker(c); err == nil || err.Error() != "source ::1 and server 127.0.0.1 are not of the same IP version" {
		t.Errorf("an address of the other version: %v", err)
	}
	c.Source, c.Interface = netip.Addr{}, "nosuchif0"
	if _, err := try(t, c); err == nil || !Local(err) || !strings.Contains(err.Error(), "interface nosuchif0") {
		t.Errorf("an interface that is not there: %v", err)
	}
}

func TestUDPChecks(t *testing.T) {
	echo := func(p []byte) [][]byte { return [][]byte{p} }
	for _, tc := range []struct {
		name         string
		payload, hex string
		min, max     int
		answer       func([]byte) [][]byte
		want         string
	}{
		{name: "any reply", payload: "0102", answer: echo, want: "reply of 2 bytes"},
		{name: "an empty reply to nothing", answer: func([]byte) [][]byte { return [][]byte{{}} }, want: "reply of 0 bytes"},
		{name: "the wanted bytes", payload: "0102ff", hex: "01x2FX", answer: echo, want: "reply of 3 bytes"},
		{name: "more than the wanted bytes", payload: "0102ff", hex: "01", answer: echo, want: "reply of 3 bytes"},
		{name: "other bytes", payload: "0102ff", hex: "01x3", answer: echo, want: "!reply of 3 bytes begins with 0102ff, wanted 01x3"},
		{name: "fewer bytes", payload: "01", hex: "0102", answer: echo, want: "!reply of 1 bytes begins with 01, wanted 0102"},
		{name: "long enough", payload: "0102", min: 2, max: 2, answer: echo, want: "reply of 2 bytes"},
		{name: "too short", payload: "01", min: 2, answer: echo, want: "!reply of 1 bytes, wanted at least 2"},
		{name: "too long", payload: "010203", max: 2, answer: echo, want: "!reply of 3 bytes, wanted at most 2"},
		{name: "much more than the wanted bytes", payload: strings.Repeat("01", 600), hex: "01", answer: echo, want: "reply of 512 bytes or more"},
		{name: "the greatest length", payload: strings.Repeat("01", 600), max: 600, answer: echo, want: "reply of 600 bytes"},
		{name: "one more", payload: strings.Repeat("01", 600), max: 599, answer: echo, want: "!reply of 600 bytes or more, wanted at most 599"},
		{name: "silence where a reply is wanted", payload: "01", min: 1, answer: func([]byte) [][]byte { return nil }, want: "!no answer within TIME"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := udpTo(serveUDP(t, "[::1]:0", tc.answer))
			c.Payload, c.ReplyHex, c.ReplyMin, c.ReplyMax = tc.payload, tc.hex, tc.min, tc.max
			expectOrSilence(t, c, tc.want)
		})
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		c := udpTo(closedUDP(t, addr))
		c.Payload = "01"
		expect(t, c, "!udp "+c.Target.String()+": connection refused")
		c.ReplyMin = 1
		expect(t, c, "!udp "+c.Target.String()+": connection refused")
	}
}

// The quarter of the time-out that is left is no part of this: a busy machine may need it.
func TestSilenceIsGoodEnoughWhenNoReplyIsAskedFor(t *testing.T) {
	c := udpTo(serveUDP(t, "[::1]:0", func([]byte) [][]byte { return nil }))
	c.Timeout = 200 * time.Millisecond
	conn, err := dialUDPCheck(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	k := udpCheck{c: c}
	if got, err := k.quiet(conn, make([]byte, 10)); err != nil || got != "not refused within 150ms (no reply is asked for)" {
		t.Errorf("%q %v", got, err)
	}
}

func TestUDPChecksThatCannotBe(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*conf.Check)
		want   string
	}{
		{"no port", func(c *conf.Check) { c.Target = netip.AddrPortFrom(c.Target.Addr(), 0) }, "checktype negotiate of 127.0.0.1 needs a port: give the real server one, or set checkport"},
		{"payload in half bytes", func(c *conf.Check) { c.Payload = "012" }, `payload "012": it has to be the hex digits of 0 to 65507 bytes, two for each`},
		{"payload in words", func(c *conf.Check) { c.Payload = "ping" }, `payload "ping": it has to be the hex digits of 0 to 65507 bytes, two for each`},
		{"reply in half bytes", func(c *conf.Check) { c.ReplyHex = "xxx" }, `reply "xxx": it has to be the hex digits of at most 65507 bytes, two for each, with x for any digit`},
		{"an expression", func(c *conf.Check) { c.Receive = "x" }, "service udp compares bytes: write reply in place of receive"},
		{"lengths", func(c *conf.Check) { c.ReplyMin = -1 }, "reply_min -1, reply_max 0: both have to be from 0 to 65507 bytes"},
		{"lengths that exclude each other", func(c *conf.Check) { c.ReplyHex, c.ReplyMax = "010203", 2 }, "no reply can be right: it has to have at least 3 bytes and at most reply_max, 2"},
	} {
		c := udpTo(netip.MustParseAddrPort("127.0.0.1:9"))
		tc.change(&c)
		if _, err := NewChecker(c); err == nil || err.Error() != tc.want {
			t.Errorf("%s:\ngot  %v\nwant %s", tc.name, err, tc.want)
		}
	}
}

func FuzzUDPReply(f *testing.F) {
	f.Add("01x2", 0, 0, []byte{1, 2})
	f.Add("", 1, 2, []byte{})
	f.Add("XXff", 0, 1, []byte{1, 255, 3})
	f.Fuzz(func(t *testing.T, reply string, least, most int, p []byte) {
		c := udpTo(netip.MustParseAddrPort("127.0.0.1:9"))
		c.ReplyHex, c.ReplyMin, c.ReplyMax = reply, least, most
		k, err := newUDP(c, newEnv(nil))
		if err != nil {
			return
		}
		err = k.(*udpCheck).judge(p)
		if f := foreign(""); errors.As(err, &f) {
			t.Error("a reply was ignored")
		}
		if err == nil && (len(p) < len(reply)/2 || len(p) < least) {
			t.Errorf("%x is a reply of %q with at least %d bytes", p, reply, least)
		}
	})
}
