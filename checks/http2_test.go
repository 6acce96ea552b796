package checks

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/keepbeat/keepbeat/conf"
)

// block is a header block of names and values.
func block(pairs ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// frames are what a server says.
type frames []byte

func settings() frames { return h2Frame(nil, h2Settings, 0, 0, []byte{0, 3, 0, 0, 0, 100}) }

func (s frames) frame(kind, flags byte, stream uint32, payload []byte) frames {
	return h2Frame(bytes.Clone(s), kind, flags, stream, payload)
}

func (s frames) head(flags byte, pairs ...string) frames {
	return s.frame(h2Headers, h2EndHeaders|flags, 1, block(pairs...))
}

func (s frames) data(flags byte, p string) frames { return s.frame(h2Data, flags, 1, []byte(p)) }

// again repeats the last n bytes.
func (s frames) again(n, times int) frames {
	return append(bytes.Clone(s), bytes.Repeat(s[len(s)-n:], times)...)
}

func bytes4(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func http2At(addr string) conf.Check {
	c := httpAt(addr)
	c.HTTPVersion = "2"
	return c
}

// plays serves a script after having read the beginning of the request, and
// reads what else comes until the client has had enough.
func plays(t *testing.T, s frames) string {
	return serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(h2Preface)+h2FrameHead))
		c.Write(s)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	})
}

func TestHTTP2Answers(t *testing.T) {
	ok := settings().head(0, ":status", "200")
	ping := make([]byte, 8)
	for _, tc := range []struct {
		name, receive string
		s             frames
		want          string
	}{
		{"200 is up", "", settings().head(h2EndStream, ":status", "200"), "HTTP 200"},
		{"a body in frames", "^hello, world$", ok.data(0, "hello").data(0, "").data(h2EndStream, ", world"), `HTTP 200, match for "^hello, world$"`},
		{"padding is no body", "^ok$", ok.frame(h2Data, h2Padded|h2EndStream, 1, []byte("\x03okxxx")), `HTTP 200, match for "^ok$"`},
		{"a header in pieces with priority and padding", "ok", settings().
			frame(h2Headers, h2Padded|h2Priority, 1, append([]byte{1, 0, 0, 0, 0, 7}, append(block(":status", "200", "x-a", "b")[:3], 0)...)).
			frame(h2Continuation, 0, 1, block(":status", "200", "x-a", "b")[3:4]).
			frame(h2Continuation, h2EndHeaders, 1, block(":status", "200", "x-a", "b")[4:]).
			data(h2EndStream, "ok"), `HTTP 200, match for "ok"`},
		{"interim answers first", "ok", settings().head(0, ":status", "103", "link", "x").head(0, ":status", "100").head(0, ":status", "200").data(h2EndStream, "ok"), `HTTP 200, match for "ok"`},
		{"trailers", "ok", ok.data(0, "ok").head(h2EndStream, "x-sum", "1"), `HTTP 200, match for "ok"`},
		{"pings, windows and unknown frames between", "ok", ok.frame(h2Ping, 0, 0, ping).frame(h2WindowUpdate, 0, 0, bytes4(1)).frame(0xfa, 0, 9, ping).frame(2, 0, 3, ping[:5]).data(h2EndStream, "ok"), `HTTP 200, match for "ok"`},
		{"a server that goes away after this answer", "ok", settings().frame(h2GoAway, 0, 0, append(bytes4(1), 0, 0, 0, 0)).head(0, ":status", "200").data(h2EndStream, "ok"), `HTTP 200, match for "ok"`},
		{"the right length", "", settings().head(0, ":status", "200", "content-length", "2").data(h2EndStream, "ok"), "HTTP 200"},
		{"503", "", settings().head(h2EndStream, ":status", "503"), "!HTTP 503, wanted 2xx"},
		{"no match", "ok", ok.data(h2EndStream, "bad"), `!HTTP 200, no match for "ok" in 3 bytes`},
		{"redirect elsewhere", "", settings().head(h2EndStream, ":status", "302", "location", "https://other.example/"), `!HTTP 302 to "https://other.example/", wanted 2xx (a redirect away from this server is not followed)`},
		{"compressed", "ok", settings().head(0, ":status", "200", "content-encoding", "gzip").data(h2EndStream, "zz"), `!HTTP 200, no match for "ok" in 2 bytes, which are in Content-Encoding "gzip" (not decoded)`},
		{"another length", "", settings().head(0, ":status", "200", "content-length", "3").data(h2EndStream, "ok"), "!HTTP/2: body of 2 bytes, with a Content-Length of 3"},
		{"closes at once", "", nil, "!connection closed without an answer"},
		{"closes in the first frame", "", frames("\x00\x00"), `!not an HTTP/2 answer: "\x00\x00"`},
		{"closes in the header", "", settings(), "!connection closed in the middle of the header"},
		{"closes in the body", "", ok.data(0, "x"), "!connection closed in the middle of the body"},
		{"closes in a frame", "", ok.data(h2EndStream, "xyz")[:len(ok)+10], "!connection closed in the middle of the body"},
		{"HTTP/1", "", frames("HTTP/1.1 400 Bad Request\r\n\r\n"), "!not an HTTP/2 answer: the server speaks HTTP/1"},
		{"another protocol", "", frames("SSH-2.0-OpenSSH_9.2\r\n"), `!not an HTTP/2 answer: "SSH-2.0-O"`},
		{"reset", "", settings().frame(h2Reset, 0, 1, bytes4(7)), "!HTTP/2: the server reset the stream: REFUSED_STREAM"},
		{"reset in the body", "", ok.data(0, "x").frame(h2Reset, 0, 1, bytes4(99)), "!HTTP/2: the server reset the stream: code 0x63"},
		{"goes away", "", settings().frame(h2GoAway, 0, 0, append(bytes4(0), 0, 0, 0, 0)), "!HTTP/2: the server went away: NO_ERROR"},
		{"goes away angry", "", settings().frame(h2GoAway, 0, 0, append(append(bytes4(1), bytes4(11)...), "too_many"...)), "!HTTP/2: the server went away: ENHANCE_YOUR_CALM"},
		{"pushes", "", settings().frame(h2PushPromise, h2EndHeaders, 1, append(bytes4(2), block(":method", "GET")...)), "!HTTP/2: frame of type 5 out of place"},
		{"a continuation of nothing", "", settings().frame(h2Continuation, h2EndHeaders, 1, block(":status", "200")), "!HTTP/2: frame of type 9 out of place"},
		{"a header that is interrupted", "", settings().frame(h2Headers, 0, 1, block(":status", "200")).frame(h2Ping, 0, 0, ping), "!HTTP/2: a header block that another frame interrupts"},
		{"an answer to nothing", "", settings().frame(h2Headers, h2EndHeaders, 3, block(":status", "200")), "!HTTP/2: frame of type 1 on stream 3, which nobody opened"},
		{"a body first", "", settings().data(h2EndStream, "ok"), "!HTTP/2: body without a header"},
		{"no status", "", settings().head(h2EndStream, "x", "y"), "!HTTP/2: header without :status"},
		{"two of them", "", settings().head(h2EndStream, ":status", "200", ":status", "200"), `!HTTP/2: bad field ":status": "200"`},
		{"status last", "", settings().head(h2EndStream, "x", "y", ":status", "200"), `!HTTP/2: bad field ":status": "200"`},
		{"a bad status", "", settings().head(h2EndStream, ":status", "2e2"), `!HTTP/2: bad field ":status": "2e2"`},
		{"a request", "", settings().head(h2EndStream, ":path", "/\x1b"), `!HTTP/2: bad field ":path": "/\x1b"`},
		{"switching protocols", "", settings().head(h2EndStream, ":status", "101"), "!HTTP/2: status 101, which it does not have"},
		{"only an interim answer", "", settings().head(h2EndStream, ":status", "100"), "!HTTP/2: an answer that ends with status 100"},
		{"a bad length", "", settings().head(0, ":status", "200", "content-length", "-1"), `!bad Content-Length "-1"`},
		{"trailers in the middle", "", ok.data(0, "x").head(0, "a", "b"), "!HTTP/2: trailers that do not end the answer"},
		{"status in the trailers", "", ok.data(0, "x").head(h2EndStream, ":status", "200"), `!HTTP/2: bad field ":status": "200"`},
		{"more padding than frame", "", ok.frame(h2Data, h2Padded, 1, []byte{5, 'x'}), "!HTTP/2: more padding than frame"},
		{"no room for the padding's length", "", ok.frame(h2Data, h2Padded, 1, nil), "!HTTP/2: more padding than frame"},
		{"a bad ping", "", settings().frame(h2Ping, 0, 0, ping[:7]), "!HTTP/2: bad PING"},
		{"bad settings", "", settings().frame(h2Settings, 0, 0, ping[:5]), "!HTTP/2: bad SETTINGS"},
		{"a short reset", "", settings().frame(h2Reset, 0, 1, nil), "!HTTP/2: frame of type 3 with 0 bytes"},
		{"an index that is none", "", settings().frame(h2Headers, h2EndHeaders, 1, []byte{0xff, 0xff, 0x7f}), "!HTTP/2: header: decoding error: invalid indexed representation index 16510"},
		{"a header cut short", "", settings().frame(h2Headers, h2EndHeaders, 1, []byte{0x40, 0x0a, 'x'}), "!HTTP/2: header: decoding error: truncated headers"},
		{"a huge frame", "", settings().frame(0xfa, 0, 0, make([]byte, h2MaxFrame+1)), "!HTTP/2: frame of 16385 bytes, more than the 16384 that are allowed"},
		{"endless settings", "", settings().again(15, maxHead/15), "!" + errH2Flood.Error()},
		{"endless pings", "", settings().frame(h2Ping, 0, 0, ping).again(17, maxHead/17), "!" + errH2Flood.Error()},
		{"endless windows", "", ok.frame(h2WindowUpdate, 0, 1, bytes4(1)).again(13, maxHead/13), "!" + errH2Flood.Error()},
		{"endless empty bodies", "", ok.data(0, "").again(9, maxHead/9), "!" + errH2Flood.Error()},
		{"endless padding", "", ok.frame(h2Data, h2Padded, 1, append([]byte{255}, make([]byte, 255)...)).again(265, maxHead/265), "!" + errH2Flood.Error()},
		{"endless interim answers", "", settings().head(0, ":status", "103").again(9+len(block(":status", "103")), maxHead/10), "!header of more than 65536 bytes"},
		{"an endless header", "", settings().frame(h2Headers, 0, 1, block(":status", "200")).frame(h2Continuation, 0, 1, nil).again(9, maxHead/9), "!" + errH2Flood.Error()},
		{"a header that unpacks to much", "", settings().frame(h2Headers, h2EndHeaders, 1,
			append(block(":status", "200", "x", strings.Repeat("y", 4000)), bytes.Repeat([]byte{0x80 | 62}, 1000)...)), "!header of more than 65536 bytes"},
		{"a string that is endless", "", settings().frame(h2Headers, 0, 1, append(block(":status", "200"), 0, 1, 'x', 0x7f, 0xff, 0xff, 0x7f)).frame(h2Continuation, 0, 1, make([]byte, 9000)), "!HTTP/2: header: hpack: string too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := http2At(plays(t, tc.s))
			c.Receive = tc.receive
			expect(t, c, tc.want)
		})
	}
}

func TestHTTP2EndlessBodyIsReadToALimit(t *testing.T) {
	c := http2At(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(h2Preface)))
		c.Write(settings().head(0, ":status", "200"))
		for junk := h2Frame(nil, h2Data, 0, 1, bytes.Repeat([]byte("x"), 8<<10)); ; {
			if _, err := c.Write(junk); err != nil {
				return
			}
		}
	}))
	expect(t, c, "HTTP 200")
	c.Receive = "absent"
	expect(t, c, `!HTTP 200, no match for "absent" in the first 1048576 bytes`)
}

func TestHTTP2ServerThatReadsNothingEndsAtTheDeadline(t *testing.T) {
	c := http2At(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		c.(*net.TCPConn).SetReadBuffer(4096)
		c.Write(settings())
		for ping := h2Frame(nil, h2Ping, 0, 0, make([]byte, 8)); ; {
			if _, err := c.Write(ping); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond) // the limit of control frames is not to come before the deadline
		}
	}))
	expectSilence(t, c, "!no answer within TIME")
}

// http2Server is net/http's, by prior knowledge or by TLS.
func http2Server(t *testing.T, secure bool, h http.Handler) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	var p http.Protocols
	p.SetHTTP2(secure)
	p.SetUnencryptedHTTP2(!secure)
	srv.Config.Protocols = &p
	if srv.EnableHTTP2 = secure; secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func TestHTTP2AgainstNetHTTP(t *testing.T) {
	got := make(chan string, 9)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %s %s %s %d %d %s", r.Proto, r.Method, r.Host, r.RequestURI, len(body), r.ContentLength, r.Header.Get("X-Key"))
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/login", http.StatusFound)
		case "/large":
			w.Write(bytes.Repeat([]byte("x"), 900_000))
			io.WriteString(w, "end")
		}
		io.WriteString(w, "ok")
	})
	for _, secure := range []bool{false, true} {
		addr := http2Server(t, secure, h)
		base := http2At(addr)
		if secure {
			base.Service = "https"
		}
		for _, tc := range []struct {
			name string
			set  func(c *conf.Check)
			want string
			seen []string
		}{
			{"get", func(c *conf.Check) { c.VirtualHost, c.Headers = "www.example.com", "X-Key: 7" }, "HTTP 200", []string{"HTTP/2.0 GET www.example.com / 0 0 7"}},
			{"head", func(c *conf.Check) { c.HTTPMethod = "HEAD" }, "HTTP 200", []string{"HTTP/2.0 HEAD " + addr + " / 0 0 "}},
			{"post", func(c *conf.Check) { c.HTTPMethod, c.Body = "POST", strings.Repeat("b", h2Window) }, "HTTP 200", []string{"HTTP/2.0 POST " + addr + " / 65535 65535 "}},
			{"redirect", func(c *conf.Check) { c.Request = "/moved" }, "HTTP 200", []string{"HTTP/2.0 GET " + addr + " /moved 0 0 ", "HTTP/2.0 GET " + addr + " /login 0 0 "}},
			{"a body that needs a window", func(c *conf.Check) { c.Request, c.Receive = "/large", "endok$" }, `HTTP 200, match for "endok$"`, []string{"HTTP/2.0 GET " + addr + " /large 0 0 "}},
		} {
			t.Run(fmt.Sprintf("%s, TLS %v", tc.name, secure), func(t *testing.T) {
				c := base
				tc.set(&c)
				expect(t, c, tc.want)
				for _, want := range tc.seen {
					if g := <-got; g != want {
						t.Errorf("request %s\nwant    %s", g, want)
					}
				}
			})
		}
	}
}

func TestHTTP2IsNotTakenForGrantedOverTLS(t *testing.T) {
	for _, tc := range []struct {
		name   string
		protos []string
		want   string
	}{
		{"a server that knows no ALPN", nil, `!the server did not choose HTTP/2 (ALPN offered h2, it answered "")`},
		{"a server that wants another", []string{"http/1.1"}, "!TLS handshake: remote error: tls: no application protocol"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(http.NotFoundHandler())
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				return &tls.Config{Certificates: srv.TLS.Certificates, NextProtos: tc.protos}, nil
			}}
			srv.StartTLS()
			defer srv.Close()
			c := http2At(srv.Listener.Addr().String())
			c.Service = "https"
			expect(t, c, tc.want)
		})
	}
}
