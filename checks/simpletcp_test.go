package checks

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func TestSimpleTCP(t *testing.T) {
	ask := func(request, receive string) func(*conf.Check) {
		return func(c *conf.Check) { c.Request, c.Receive = request, receive }
	}
	converse(t, "simpletcp", []talk{
		{"a line matches", ask(`PING\r\n`, "^PONG$"), "C: PING\nS: hello\nS: PONG", `match for "^PONG$"`},
		{"a line of a server that never closes", ask(`PING\n`, "PONG"), "C~ PING\nS: PONG\nHANG", `match for "PONG"`},
		{"a last line without an end", ask(`PING\n`, "^PONG$"), "C~ PING\nS| \"hello\\nPONG\"", `match for "^PONG$"`},
		{"several lines together", ask("", `one\r\ntwo`), "S: one\nS: two", `match for "one\\r\\ntwo"`},
		{"no line matches", ask(`PING\n`, "PONG"), "C~ PING\nS: NO\nS: NEVER", `!no match for "PONG" in 11 bytes, "NO\r\nNEVER\r\n"`},
		{"any answer", ask(`\x50\x49\tNG\r\n`, ""), "C: PI\tNG\nS: x\nHANG", `answer "x\r\n"`},
		{"no answer", ask("", ""), "", "!connection closed without an answer"},
		{"no answer to match", ask("", "x"), "", "!connection closed without an answer"},
		{"silent", func(c *conf.Check) { c.Receive = "x" }, "HANG", "!no answer within TIME"},
		{"a byte now and then", func(c *conf.Check) { c.Receive = "x" }, `DRIP "no line end, and it goes on and on and on"`, "!no answer within TIME"},
		{"without end", ask("", "y"), `FLOOD "` + strings.Repeat("x", 1000) + `\n"`, `!no match for "y" in 1048576 bytes, "` + strings.Repeat("x", 60) + `"...`},
		{"without end and without lines", ask("", "y"), `FLOOD "xxxxxxxx"`, `!no match for "y" in 1048576 bytes, "` + strings.Repeat(`x`, 60) + `"...`},
		{"a reset", ask("", "y"), "S: x\nRESET", "!read: connection reset by peer"},
	})
}

// The server is told that no more comes: some wait for that.
func TestSimpleTCPShutsItsSide(t *testing.T) {
	addr := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		if p, err := io.ReadAll(c); err == nil {
			io.WriteString(c, strings.ToUpper(string(p)))
		}
	})
	c := negotiate("simpletcp", addr)
	c.Request, c.Receive = "ping", "^PING$"
	expect(t, c, `match for "^PING$"`)
}

func TestEscapes(t *testing.T) {
	for in, want := range map[string]string{
		``: "", `a\nb`: "a\nb", `\r\n`: "\r\n", `\\n`: `\n`, `\x00\xfF`: "\x00\xff", `\t`: "\t", "ä": "ä",
	} {
		if got, err := expand(in); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzEscapes(f *testing.F) {
	for _, s := range []string{``, `GET / HTTP/1.0\r\n\r\n`, `\`, `\x`, `\xg0`, `\\x41`, "\xff\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := expand(s)
		if err == nil && !strings.Contains(s, `\`) && string(b) != s {
			t.Errorf("%q became %q", s, b)
		}
		escaped := strings.ReplaceAll(s, `\`, `\\`)
		if b, err := expand(escaped); err != nil || string(b) != s {
			t.Errorf("%q became %q, %v", escaped, b, err)
		}
	})
}
