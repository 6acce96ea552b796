package checks

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/program"
)

func TestMain(m *testing.M) {
	if os.Getenv(serverEnv) != "" {
		serveForBenchmark()
	}
	goleak.VerifyTestMain(m)
}

func httpAt(addr string) conf.Check {
	return conf.Check{
		Type: conf.Negotiate, Service: "http", Target: netip.MustParseAddrPort(addr),
		Request: "/", HTTPMethod: "GET", Interval: time.Second, Timeout: time.Minute, Fall: 1, Rise: 1,
	}
}

// try runs a check once, within its time-out, where a Scheduler would run it.
func try(t *testing.T, c conf.Check) (string, error) {
	t.Helper()
	k, err := NewChecker(c)
	if err != nil {
		t.Fatal(err)
	}
	if runsInLoop(c) {
		return tryInLoop(t, c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), c.Timeout)
	defer cancel()
	return k.Check(ctx)
}

// expect runs a check once; want is the detail, or with a leading "!" the error.
func expect(t *testing.T, c conf.Check, want string) {
	t.Helper()
	got, err := try(t, c)
	if err != nil {
		got = "!" + words(err.Error())
	}
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// serve answers each connection with what handle does.
func serve(t *testing.T, network, addr string, handle func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// raw serves fixed bytes after having read the request.
func raw(t *testing.T, answer string) string {
	return serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, answer)
	})
}

func TestHTTPAnswers(t *testing.T) {
	gz := func() string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(bytes.Repeat([]byte{0}, 10<<20))
		w.Close()
		return b.String()
	}()
	for _, tc := range []struct{ name, receive, answer, want string }{
		{"200 is up", "", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP 200"},
		{"any 2xx is up", "", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204"},
		{"HTTP/1.0 without a length", "ok", "HTTP/1.0 200 OK\r\n\r\nit is ok", `HTTP 200, match for "ok"`},
		{"bare line feeds and no reason", "ok", "HTTP/1.1 200\nContent-Length: 2\n\nok", `HTTP 200, match for "ok"`},
		{"chunks", "^hello, world$", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nTrailer: x\r\n\r\n", `HTTP 200, match for "^hello, world$"`},
		{"interim answers first", "ok", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", `HTTP 200, match for "ok"`},
		{"an expression", "st[a-z]+ ok", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nstatus ok", `HTTP 200, match for "st[a-z]+ ok"`},
		{"what follows the body does not count", "secret", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\noksecret", `!HTTP 200, no match for "secret" in 2 bytes`},
		{"503", "", "HTTP/1.1 503 Service Unavailable\r\n\r\nok", "!HTTP 503, wanted 2xx"},
		{"no match", "ok", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", `!HTTP 200, no match for "ok" in 3 bytes`},
		{"an error page that would match", "ok", "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nok", "!HTTP 500, wanted 2xx"},
		{"not modified has no body", "", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "!HTTP 304, wanted 2xx"},
		{"switching protocols", "", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "!HTTP 101, wanted 2xx"},
		{"redirect elsewhere", "", "HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\n\r\n", `!HTTP 302 to "https://other.example/", wanted 2xx (a redirect away from this server is not followed)`},
		{"redirect without a place", "", "HTTP/1.1 302 Found\r\n\r\n", "!HTTP 302, wanted 2xx"},
		{"redirects without end", "", "HTTP/1.1 301 Moved\r\nLocation: /again\r\n\r\n", `!HTTP 301 to "/again" after 3 redirects, wanted 2xx`},
		{"closes at once", "", "", "!connection closed without an answer"},
		{"closes in the header", "", "HTTP/1.1 200 OK\r\nServer: x\r\n", "!connection closed in the middle of the header"},
		{"closes in the body", "", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", "!connection closed in the middle of the body"},
		{"closes in a chunk", "ok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", "!connection closed in the middle of the body"},
		{"another protocol", "", "SSH-2.0-OpenSSH_9.2\r\n", `!not an HTTP answer: "SSH-2.0-OpenSSH_9.2"`},
		{"another protocol without a line end", "", "\x00\xff\x1b[2J", `!not an HTTP answer: "\x00\xff\x1b[2J"`},
		{"a code of four digits", "", "HTTP/1.1 2000 OK\r\n\r\n", `!not an HTTP answer: "HTTP/1.1 2000 OK"`},
		{"a bad length", "", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", `!bad Content-Length "-1"`},
		{"a huge length", "", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", `!bad Content-Length "99999999999999999999"`},
		{"two lengths", "", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", "!two values of Content-Length, 1 and 2"},
		{"a bad chunk size", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n", `!bad chunk size "fffffffffffffffffff"`},
		{"no chunk size", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;\r\n", `!bad chunk size ";"`},
		{"a chunk that lies", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", `!chunk does not end where it says: "ay"`},
		{"compressed transfer", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", `!Transfer-Encoding "gzip, chunked", which was not asked for`},
		{"a compressed bomb is not unpacked", "ok", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(gz), gz), fmt.Sprintf(`!HTTP 200, no match for "ok" in %d bytes, which are in Content-Encoding "gzip" (not decoded)`, len(gz))},
		{"invalid UTF-8 in the body", "ok$", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\xff\xfe\x80ok", `HTTP 200, match for "ok$"`},
		{"invalid UTF-8 in a Location", "", "HTTP/1.1 302 Found\r\nLocation: http://\xff\x1b[2J/\r\n\r\n", `!HTTP 302 to "http://\xff\x1b[2J/", wanted 2xx (a redirect away from this server is not followed)`},
		{"one endless header line", "", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead), "!header of more than 65536 bytes"},
		{"too many header lines", "", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxHead/6), "!header of more than 65536 bytes"},
		{"a flood of interim answers", "", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxHead/25+1), "!header of more than 65536 bytes"},
		{"a long header that is allowed", "ok", "HTTP/1.1 200 OK\r\nSet-Cookie: " + strings.Repeat("x", 20_000) + "\r\nContent-Length: 2\r\n\r\nok", `HTTP 200, match for "ok"`},
		{"endless trailers", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: y\r\n", maxHead/6), "!header of more than 65536 bytes"},
		{"endless chunk sizes", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\nx\r\n", maxHead/50), "!header of more than 65536 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := httpAt(raw(t, tc.answer))
			c.Receive = tc.receive
			expect(t, c, tc.want)
		})
	}
}

func TestHTTPEndlessBodyIsReadToALimit(t *testing.T) {
	addr := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhead line\n")
		junk := bytes.Repeat([]byte("x"), 64<<10)
		for {
			if _, err := c.Write(junk); err != nil {
				return
			}
		}
	})
	c := httpAt(addr)
	expect(t, c, "HTTP 200")
	c.Receive = "^head line\n"
	expect(t, c, `HTTP 200, match for "^head line\n"`)
	c.Receive = "absent"
	expect(t, c, `!HTTP 200, no match for "absent" in the first 1048576 bytes`)
}

func TestHTTPEarlyMatchIsNotAnAccidentOfPacketSizes(t *testing.T) {
	// "end$" is true of the page cut after the first 40,000 bytes, not of the page.
	page := strings.Repeat("x", 39_997) + "end" + strings.Repeat("y", 1000)
	c := httpAt(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(page), page[:40_000])
		time.Sleep(50 * time.Millisecond) // sent apart; the outcome is the same if not
		io.WriteString(c, page[40_000:])
	}))
	c.Receive = "end$"
	expect(t, c, `!HTTP 200, no match for "end$" in 41000 bytes`)
}

func TestHTTPRequest(t *testing.T) {
	got := make(chan string, 9)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- fmt.Sprintf("%s %s %s %s close=%v", r.Method, r.RequestURI, r.Host, r.Header.Get("Accept-Encoding"), r.Close)
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/login?next=1", http.StatusFound)
		case "/absolute":
			http.Redirect(w, r, "http://www.example.com/login", http.StatusMovedPermanently)
		}
		io.WriteString(w, "ok")
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for _, tc := range []struct {
		name, path, host, method string
		want                     []string
	}{
		{"plain", "/.test.html", "", "GET", []string{"GET /.test.html " + addr + " identity close=true"}},
		{"slash is added", "x?y=1", "", "", []string{"GET /x?y=1 " + addr + " identity close=true"}},
		{"virtual host and HEAD", "/", "www.example.com", "HEAD", []string{"HEAD / www.example.com identity close=true"}},
		{"nothing breaks out of the request line", "/a b\u00e9%20", "", "GET", []string{"GET /a%20b%C3%A9%20 " + addr + " identity close=true"}},
		{"redirect on the server", "/moved", "", "GET", []string{"GET /moved " + addr + " identity close=true", "GET /login?next=1 " + addr + " identity close=true"}},
		{"redirect to the virtual host", "/absolute", "www.example.com", "GET", []string{"GET /absolute www.example.com identity close=true", "GET /login www.example.com identity close=true"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := httpAt(addr)
			c.Request, c.VirtualHost, c.HTTPMethod = tc.path, tc.host, tc.method
			if _, err := try(t, c); err != nil {
				t.Error(err)
			}
			for _, want := range tc.want {
				if g := <-got; g != want {
					t.Errorf("request %s\nwant    %s", g, want)
				}
			}
			if len(got) > 0 {
				t.Errorf("one more request: %s", <-got)
			}
		})
	}
}

func TestHTTPOverIPv6(t *testing.T) {
	got := make(chan string, 1)
	addr := serve(t, "tcp6", "[::1]:0", func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		got <- r.Host
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	c := httpAt(addr)
	c.Receive = "ok"
	expect(t, c, `HTTP 200, match for "ok"`)
	if h := <-got; h != addr {
		t.Errorf("Host %s, want %s", h, addr)
	}
	if h := defaultHost(httpAt("[fe80::1%eth0]:80")); h != "[fe80::1]" {
		t.Errorf("Host %s: the zone means nothing to the server", h)
	}
}

func TestHTTPSilenceAndDripsEndAtTheDeadline(t *testing.T) {
	for name, handle := range map[string]func(c net.Conn){
		"silence": func(c net.Conn) { io.Copy(io.Discard, c) },
		"a header byte at a time": func(c net.Conn) {
			for b := []byte("HTTP/1.1 200 OK\r\nX: "); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
				b = []byte("x")
				time.Sleep(time.Millisecond) // slowness is the case
			}
		},
		"a body byte at a time": func(c net.Conn) {
			for b := []byte("HTTP/1.1 200 OK\r\n\r\n"); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
				b = []byte("x")
				time.Sleep(time.Millisecond) // as above
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := httpAt(serve(t, "tcp", "127.0.0.1:0", handle))
			expectSilence(t, c, "!no answer within TIME")
			c.Service, c.Timeout = "https", 200*time.Millisecond
			_, err := try(t, c)
			if err == nil || name == "silence" && !isTimeout(err) {
				t.Errorf("https: %v", err)
			}
		})
	}
}

func TestHTTPRefusedAndReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, service := range []string{"http", "https"} {
		c := httpAt(addr)
		c.Service = service
		expect(t, c, "!connect "+addr+": connection refused")
	}
	reset := httpAt(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		c.(*net.TCPConn).SetLinger(0)
	}))
	expect(t, reset, "!read: connection reset by peer")
}

// blackhole is an address where connects get no answer: a listener whose queue is full.
func blackhole(t *testing.T) string {
	t.Helper()
	lc := net.ListenConfig{}
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shrink(t, l.(*net.TCPListener))
	t.Cleanup(func() { l.Close() })
	for !full(t, l.(*net.TCPListener)) { // nobody accepts these
		d := net.Dialer{Timeout: 100 * time.Millisecond} // one whose handshake is not over yet may have filled it
		if c, err := d.Dial("tcp", l.Addr().String()); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return l.Addr().String()
}

func TestNoAnswerToTheConnectSaysSo(t *testing.T) {
	addr := blackhole(t)
	for _, c := range []conf.Check{
		{Type: conf.Negotiate, Service: "http"}, {Type: conf.Negotiate, Service: "https"}, {Type: conf.Connect},
	} {
		c.Target = netip.MustParseAddrPort(addr)
		expectSilence(t, c, "!connect "+addr+": no answer within TIME")
	}
}

func TestCancelEndsACheckAtOnce(t *testing.T) {
	addr := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.Copy(io.Discard, c) })
	c := httpAt(addr)
	c.Timeout = time.Hour
	k, err := NewChecker(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := k.Check(ctx); done <- err }()
	cancel()
	if err := <-done; err == nil {
		t.Error("no error")
	}
}

func TestHTTPS(t *testing.T) {
	name := make(chan string, 9)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	srv.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name <- h.ServerName
		return nil, nil
	}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	base := httpAt(srv.Listener.Addr().String())
	base.Service, base.Receive = "https", "ok"
	const up = `HTTP 200, match for "ok"`
	for _, tc := range []struct {
		what string
		set  func(c *conf.Check)
		sni  string
		want string
	}{
		{"not verified by default", func(c *conf.Check) {}, "", up},
		{"the virtual host is the SNI", func(c *conf.Check) { c.VirtualHost = "www.example.com:8443" }, "www.example.com", up},
		{"tls_name is before the virtual host", func(c *conf.Check) { c.VirtualHost, c.TLSName = "a.example", "b.example" }, "b.example", up},
		{"verified against a file", func(c *conf.Check) { c.TLSVerify, c.TLSCA, c.TLSName = true, ca, "example.com" }, "example.com", up},
		{"verified by address", func(c *conf.Check) { c.TLSVerify, c.TLSCA = true, ca }, "", up},
		{"the wrong name", func(c *conf.Check) { c.TLSVerify, c.TLSCA, c.TLSName = true, ca, "other.test" }, "other.test",
			"!certificate: x509: certificate is valid for example.com, *.example.com, not other.test"},
		{"unknown to the system", func(c *conf.Check) { c.TLSVerify, c.TLSName = true, "example.com" }, "example.com",
			"!certificate: x509: certificate signed by unknown authority"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			c := base
			tc.set(&c)
			expect(t, c, tc.want)
			if got := <-name; got != tc.sni {
				t.Errorf("SNI %q, want %q", got, tc.sni)
			}
		})
	}
	plain := httpAt(raw(t, "HTTP/1.1 400 Bad Request\r\n\r\n"))
	plain.Service = "https"
	if _, err := try(t, plain); err == nil {
		t.Error("a server without TLS is up")
	}
}

func TestHTTPSAgainstAServerThatDoesNotSpeakTLS(t *testing.T) {
	c := httpAt(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		c.Read(make([]byte, 4096))
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	}))
	c.Service = "https"
	expect(t, c, "!TLS handshake: the server does not speak TLS")
}

func TestWhatCannotBeCheckedIsToldAtValidation(t *testing.T) {
	notPEM := filepath.Join(t.TempDir(), "x.pem")
	if err := os.WriteFile(notPEM, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort("10.0.0.1:80")
	for _, tc := range []struct {
		c    conf.Check
		want string
	}{
		{conf.Check{Target: at}, "checktype invalid(0) is not known"},
		{conf.Check{Type: conf.Connect}, "checktype connect needs the address of the real server"},
		{conf.Check{Type: conf.Connect, Target: netip.AddrPortFrom(at.Addr(), 0)}, "checktype connect of 10.0.0.1 needs a port: give the real server one, or set checkport"},
		{conf.Check{Type: conf.Negotiate, Service: "gopher", Target: at}, `service "gopher" cannot be negotiated; checktype connect, ping and external work with any service`},
		{conf.Check{Type: conf.Negotiate, Service: "http", Target: at, HTTPMethod: "BREW"}, `httpmethod "BREW" is not known; GET, HEAD, POST, PUT and OPTIONS are`},
		{conf.Check{Type: conf.Negotiate, Service: "http", Target: at, Request: "/\r\nX: y"}, `request "/\r\nX: y" holds a control character`},
		{conf.Check{Type: conf.Negotiate, Service: "http", Target: at, VirtualHost: "a b"}, `virtualhost "a b" is not a host name: ' ' cannot be part of one`},
		{conf.Check{Type: conf.Negotiate, Service: "http", Target: at, Receive: "("}, "receive \"(\": error parsing regexp: missing closing ): `(` (expressions are RE2: no look-ahead, no back-references)"},
		{conf.Check{Type: conf.Negotiate, Service: "http", Target: at, Receive: "x", HTTPMethod: "HEAD"}, "receive looks at the body, and httpmethod HEAD has none: use GET or leave receive out"},
		{conf.Check{Type: conf.Negotiate, Service: "https", Target: at, TLSVerify: true, TLSCA: "/nonexistent.pem"}, "tls_ca: open /nonexistent.pem: no such file or directory"},
		{conf.Check{Type: conf.Negotiate, Service: "https", Target: at, TLSVerify: true, TLSCA: notPEM}, "tls_ca " + notPEM + " holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"},
		{conf.Check{Type: conf.External}, "checktype external needs checkcommand, the program to run"},
		{conf.Check{Type: conf.External, Command: "/nonexistent"}, "checkcommand /nonexistent: no such file or directory"},
		{conf.Check{Type: conf.External, Command: "no-such-program"}, "checkcommand no-such-program: not found in " + program.SearchPath},
		{conf.Check{Type: conf.External, Command: "./x"}, "checkcommand ./x: write the whole path, from /"},
		{conf.Check{Type: conf.External, Command: "/etc"}, "checkcommand /etc: not a file"},
		{conf.Check{Type: conf.External, Command: notPEM}, "checkcommand " + notPEM + ": not executable (chmod +x)"},
	} {
		_, err := NewChecker(tc.c)
		if err == nil || err.Error() != tc.want {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
}

func TestWordsAreFitForAStatusLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain":              "plain",
		"caf\u00e9":          "caf\u00e9",
		"a\tb\nc":            "a b c",
		"\x1b[2J\xff\u202e!": "?[2J??!",
	} {
		if got := words(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := words(strings.Repeat("\u00e9", 300)); len(got) > maxDetail || !strings.HasSuffix(got, "\u00e9...") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if !errors.Is(timeoutError{}, context.DeadlineExceeded) {
		t.Error("a time-out is not known as one")
	}
}
