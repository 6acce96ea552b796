package checks

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
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
	h := &httpCheck{method: "GET", host: "www.example.com"}
	h.c.Service = "http"
	f.Fuzz(func(t *testing.T, from, location string) {
		path, ok := h.redirect(from, location)
		if !ok {
			return
		}
		if r := h.render(path); bytes.Count(r, []byte("\r\n")) != 7 || bytes.Count(r, []byte("\n")) != 7 {
			t.Errorf("%q from %q broke the request: %q", location, from, r)
		}
	})
}
