package checks

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/keepbeat/keepbeat/conf"
)

// readAll reads an answer as a check does; at most maxBody bytes of body.
func readAll(r io.Reader, noBody bool) (ans answer, body []byte, err error) {
	a := newAnswerReader(r, make([]byte, bufSize))
	if ans, err = a.readHead(noBody); err != nil {
		return ans, nil, err
	}
	for len(body) < maxBody {
		p, err := a.next()
		if err == io.EOF {
			return ans, body, nil
		}
		if err != nil {
			return ans, body, err
		}
		if len(p) == 0 {
			panic("an empty piece of body")
		}
		body = append(body, p...)
	}
	return ans, body, nil
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 200\n\nok",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: //[::1\r\nContent-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"", "\n", "HTTP/1.1", "\xff\xfe",
	} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, p []byte, noBody bool) {
		ans, body, err := readAll(bytes.NewReader(p), noBody)
		if err == nil && (ans.code < 100 || ans.code > 999) {
			t.Errorf("code %d without an error", ans.code)
		}
		if len(body) > len(p) {
			t.Errorf("%d bytes of body from %d", len(body), len(p))
		}
		// How the bytes are cut into packets must not matter.
		ans2, body2, err2 := readAll(iotest.OneByteReader(bytes.NewReader(p)), noBody)
		if ans != ans2 || !bytes.Equal(body, body2) || (err == nil) != (err2 == nil) || (err != nil && err.Error() != err2.Error()) {
			t.Errorf("one way %+v %q %v\nbyte by byte %+v %q %v", ans, body, err, ans2, body2, err2)
		}
		if err != nil {
			words(err.Error())
		}
	})
}

func FuzzRedirect(f *testing.F) {
	f.Add("/a", "/b")
	f.Add("/a?x", "http://www.example.com:8080/\r\nX: y")
	f.Add("/%zz", "?q#f")
	var redirecting []*httpCheck
	for _, c := range []conf.Check{
		{Service: "http", Request: "/", VirtualHost: "www.example.com"},
		{Service: "http_proxy", Request: "http://www.example.com/"},
	} {
		c.Target = netip.MustParseAddrPort("10.0.0.1:80")
		k, err := newHTTP(c, newEnv(nil))
		if err != nil {
			f.Fatal(err)
		}
		redirecting = append(redirecting, k.(*httpCheck))
	}
	f.Fuzz(func(t *testing.T, from, location string) {
		for _, h := range redirecting {
			target, ok := h.redirect(from, location)
			if !ok {
				continue
			}
			b, err := h.render(request{method: "GET", target: target})
			if err != nil || bytes.Count(b, []byte("\r\n")) != 7 || bytes.Count(b, []byte("\n")) != 7 {
				t.Errorf("%q from %q broke the request: %q %v", location, from, b, err)
			}
			if h.proxy && !strings.HasPrefix(target, "http://") {
				t.Errorf("%q from %q asks the proxy for %q", location, from, target)
			}
		}
	})
}

// exchange is a server that says what it has to say whatever it is told.
type exchange struct {
	io.Reader
	said int // bytes that it was told
}

func (x *exchange) Write(p []byte) (int, error) { x.said += len(p); return len(p), nil }

// http2Seeds are answers by HTTP/2: a page, one with everything unusual, and floods.
func http2Seeds() [][]byte {
	settings := h2Frame(nil, h2Settings, 0, 0, nil)
	unusual := h2Frame(bytes.Clone(settings), h2Ping, 0, 0, make([]byte, 8))
	unusual = h2Frame(unusual, h2Headers, h2EndHeaders, 1, block(":status", "103"))
	head := block(":status", "200", "content-length", "2")
	unusual = h2Frame(unusual, h2Headers, h2Padded|h2Priority, 1, append(append([]byte{2, 0, 0, 0, 0, 0}, head[:3]...), 0, 0))
	unusual = h2Frame(unusual, h2Continuation, h2EndHeaders, 1, head[3:])
	unusual = h2Frame(unusual, h2WindowUpdate, 0, 0, []byte{0, 0, 0, 1})
	unusual = h2Frame(unusual, h2Data, h2Padded, 1, []byte{1, 'o', 'k', 0})
	unusual = h2Frame(unusual, h2Headers, h2EndHeaders|h2EndStream, 1, block("grpc-status", "0"))
	page := h2Frame(bytes.Clone(settings), h2Headers, h2EndHeaders, 1, block(":status", "200", "location", "/x", "content-encoding", "gzip"))
	page = h2Frame(page, h2Data, h2EndStream, 1, []byte("ok"))
	health := h2Frame(bytes.Clone(settings), h2Headers, h2EndHeaders, 1, block(":status", "200", "content-type", "application/grpc"))
	health = h2Frame(health, h2Data, 0, 1, grpcMessage([]byte{8, 1}))
	health = h2Frame(health, h2Headers, h2EndHeaders|h2EndStream, 1, block("grpc-status", "0", "grpc-message", "fine"))
	return [][]byte{
		page, unusual, health,
		h2Frame(bytes.Clone(settings), h2Reset, 0, 1, []byte{0, 0, 0, 8}),
		h2Frame(bytes.Clone(settings), h2GoAway, 0, 0, []byte{0, 0, 0, 0, 0, 0, 0, 11, 'x'}),
		[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), {}, {0},
	}
}

func FuzzHTTP2(f *testing.F) {
	for _, s := range http2Seeds() {
		f.Add(s, false)
	}
	read := func(r io.Reader, noBody bool) (ans answer, body []byte, fields int, err error) {
		to := &exchange{Reader: r}
		x := newH2Reader(to, make([]byte, bufSize), func(name, value string) { fields += len(name) + len(value) })
		if ans, err = x.readHead(noBody); err != nil {
			return ans, nil, fields, err
		}
		for len(body) < maxBody {
			p, err := x.next()
			if err == io.EOF {
				return ans, body, fields, nil
			}
			if err != nil {
				return ans, body, fields, err
			}
			if len(p) == 0 {
				panic("an empty piece of body")
			}
			body = append(body, p...)
		}
		if to.said > 2*maxHead {
			panic("endless talk")
		}
		return ans, body, fields, nil
	}
	f.Fuzz(func(t *testing.T, p []byte, noBody bool) {
		ans, body, fields, err := read(bytes.NewReader(p), noBody)
		if err == nil && (ans.code < 200 || ans.code > 999) {
			t.Errorf("code %d without an error", ans.code)
		}
		if len(body) > len(p) || fields > maxHead {
			t.Errorf("%d bytes of body and %d of fields from %d", len(body), fields, len(p))
		}
		ans2, body2, _, err2 := read(iotest.OneByteReader(bytes.NewReader(p)), noBody)
		if ans != ans2 || !bytes.Equal(body, body2) || (err == nil) != (err2 == nil) || (err != nil && err.Error() != err2.Error()) {
			t.Errorf("one way %+v %q %v\nbyte by byte %+v %q %v", ans, body, err, ans2, body2, err2)
		}
		if err != nil {
			words(err.Error())
		}
	})
}

func FuzzGRPCAnswer(f *testing.F) {
	for _, s := range http2Seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		status, err := grpcAnswer(&exchange{Reader: bytes.NewReader(p)}, make([]byte, bufSize))
		status2, err2 := grpcAnswer(&exchange{Reader: iotest.OneByteReader(bytes.NewReader(p))}, make([]byte, bufSize))
		if status != status2 || (err == nil) != (err2 == nil) {
			t.Errorf("%v %v, byte by byte %v %v", status, err, status2, err2)
		}
		if err != nil {
			words(err.Error())
		}
		if status, err := parseHealth(p); err == nil {
			words(status.String())
		}
	})
}

func FuzzHTTPSettings(f *testing.F) {
	f.Add("200-299,401", "X-A: b\nAccept: c", "md5:d41d8cd98f00b204e9800998ecf8427e", "www.example.com", "/a b")
	f.Add("-", "Host: x", "sha256:", "[::1]:80", "*")
	f.Fuzz(func(t *testing.T, status, headers, digest, host, path string) {
		for _, version := range []string{"1.0", "1.1", "2"} {
			c := conf.Check{
				Service: "http", Target: netip.MustParseAddrPort("10.0.0.1:80"), HTTPMethod: "OPTIONS", HTTPVersion: version,
				Status: status, Headers: headers, Digest: digest, VirtualHost: host, Request: path,
			}
			k, err := newHTTP(c, newEnv(nil))
			if err != nil {
				continue
			}
			h := k.(*httpCheck)
			lines := 4 + len(h.fields)
			if version != "2" && (bytes.Count(h.wire, []byte("\r\n")) != lines || bytes.Count(h.wire, []byte("\n")) != lines) {
				t.Errorf("%+v broke the request: %q", c, h.wire)
			}
		}
	})
}
