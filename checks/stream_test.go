package checks

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// binaryChecks are checks of the services whose messages say their length.
func binaryChecks() map[string]conf.Check {
	c := conf.Check{Type: conf.Negotiate, Timeout: time.Minute, Login: "probe", Passwd: "probe-password"}
	m := map[string]conf.Check{}
	for _, s := range []string{"ldap", "mysql", "pgsql", "oracle"} {
		c.Service = s
		m[s] = c
	}
	return m
}

// A server may send what it likes: each of these ends the check with an error,
// at once where it can be told and in any case with the deadline.
func TestHostileServersOfBinaryProtocols(t *testing.T) {
	long := bytes.Repeat([]byte("y"), 4<<20)
	for _, tc := range []struct {
		name   string
		handle func(c *net.TCPConn)
		want   string // what the error holds
		slow   bool   // the deadline ends it
	}{
		{"closes at once", func(c *net.TCPConn) {}, "connection ", false}, // closed, or reset with what we sent
		{"resets", func(c *net.TCPConn) { c.SetLinger(0) }, "", false},
		{"speaks HTTP", func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, "", false},
		{"sends zeros", func(c *net.TCPConn) { c.Write(make([]byte, 1000)) }, "", false},
		{"sends ones", func(c *net.TCPConn) { c.Write(bytes.Repeat([]byte{0xff}, 1000)) }, "", false},
		{"sends without end", func(c *net.TCPConn) { c.Write(long) }, "", false},
		{"says nothing", func(c *net.TCPConn) { c.Read(make([]byte, 1)); io.Copy(io.Discard, c) }, "no answer within 300ms", true},
		{"drips what announces a megabyte", func(c *net.TCPConn) {
			for _, b := range []byte{0x30, 0x83, 0x0f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00} {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond) // slowness is the case
			}
			io.Copy(io.Discard, c)
		}, "", true},
	} {
		for service, c := range binaryChecks() {
			t.Run(tc.name+" "+service, func(t *testing.T) {
				c.Target = netip.MustParseAddrPort(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) { tc.handle(c.(*net.TCPConn)) }))
				if c.Timeout = 20 * time.Second; tc.slow {
					c.Timeout = 300 * time.Millisecond
				}
				detail, err := try(t, c)
				if err == nil {
					t.Fatalf("up: %s", detail)
				}
				if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "probe-password") {
					t.Errorf("got %v, want %s", err, tc.want)
				}
			})
		}
	}
}

func TestBinaryProtocolsRefused(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, c := range binaryChecks() {
		c.Target = netip.MustParseAddrPort(addr)
		expect(t, c, "!connect "+addr+": connection refused")
	}
}

// memoryStream is a stream that reads from memory.
func memoryStream(p []byte) *stream {
	rw := struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(p), io.Discard}
	return &stream{conn: &tcpConn{io: (*os.File)(nil)}, rw: rw, r: bufio.NewReader(rw), left: maxBody}
}

// What a server announces costs nothing; what it sends does.
func TestAStreamHoldsWhatWasSent(t *testing.T) {
	var before, after runtime.MemStats
	s := memoryStream([]byte("ten bytes."))
	runtime.ReadMemStats(&before)
	_, err := s.read(maxBody)
	runtime.ReadMemStats(&after)
	if err == nil || err.Error() != "connection closed in the middle of an answer" {
		t.Errorf("got %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 100<<10 {
		t.Errorf("took %d bytes for ten", n)
	}
	s = memoryStream(make([]byte, maxBody+1))
	if _, err := s.read(maxBody); err != nil {
		t.Error(err)
	}
	if _, err := s.read(1); err != errTooMuch {
		t.Errorf("one byte more: %v", err)
	}
	if _, err := memoryStream(nil).read(-1); err != errTooMuch {
		t.Errorf("less than nothing: %v", err)
	}
}

// A server that speaks first waits for the end of the handshake, which dialCheck
// would hold back for 200 ms.
func TestAServerThatSpeaksFirstIsHeardAtOnce(t *testing.T) {
	c := conf.Check{Type: conf.Negotiate, Service: "mysql", Timeout: time.Minute}
	c.Target = netip.MustParseAddrPort(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		c.Write([]byte{4, 0, 0, 0, 0xff, 0x10, 4, 'x'})
		io.Copy(io.Discard, c) // a close would change the option that is looked at
	}))
	expect(t, c, `!error 1040: "x"`)
	conn, err := dialCheck(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.connected(); err != nil {
		t.Fatal(err)
	}
	conn.listenFirst()
	if n, err := unix.GetsockoptInt(conn.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK); n != 1 || err != nil {
		t.Errorf("TCP_QUICKACK is %d, %v", n, err)
	}
}
