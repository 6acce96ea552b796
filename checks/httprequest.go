package checks

import (
	"bytes"
	"fmt"
	"strings"
)

// request is what is asked; a redirect changes it.
type request struct {
	method string
	target string // path and query; a whole URL of http_proxy; "*" of OPTIONS
	body   bool   // with the configured body
}

// headerField is a line of a request's header.
type headerField struct{ name, value string }

// defaultFields are sent unless the configuration has its own. What comes back
// is matched as it comes, so no content coding is asked for.
var defaultFields = []headerField{{"User-Agent", "keepbeat"}, {"Accept", "*/*"}, {"Accept-Encoding", "identity"}}

// ownFields are those that the check makes itself, by what they are to be set with.
var ownFields = map[string]string{
	"host": "virtualhost", "content-length": "body",
	"connection": "", "keep-alive": "", "proxy-connection": "", "transfer-encoding": "", "te": "", "trailer": "", "upgrade": "", "expect": "",
}

// parseHeaders reads "Name: value" lines and adds the default fields that are
// missing. Its errors show no value, nor what may be one: some are secrets.
func parseHeaders(s string) ([]headerField, error) {
	var own []headerField
	has := map[string]bool{}
	n := 0
	for line := range strings.Lines(s) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		name, value, colon := strings.Cut(line, ":")
		lower := strings.ToLower(name)
		instead, mine := ownFields[lower]
		value = strings.Trim(value, " \t")
		switch {
		case !colon || !isToken(name):
			return nil, fmt.Errorf("headers: line %d does not begin with the name of a header field and a colon, as \"X-Name: value\" does", n)
		case instead != "":
			return nil, fmt.Errorf("headers: %s is set by %q", name, instead)
		case mine:
			return nil, fmt.Errorf("headers: %s is made by the check itself; leave it out", name)
		case strings.ContainsFunc(value, func(r rune) bool { return (r < ' ' && r != '\t') || r == 0x7f }):
			return nil, fmt.Errorf("headers: the value of %s holds a control character", name)
		}
		has[lower] = true
		own = append(own, headerField{name, value})
	}
	var all []headerField
	for _, f := range defaultFields {
		if !has[strings.ToLower(f.name)] {
			all = append(all, f)
		}
	}
	return append(all, own...), nil
}

// isToken: RFC 9110, 5.6.2.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// wireTarget is a target as it is sent. Bytes that cannot stand in a request
// line are percent-encoded, so that nothing can add a line to it.
func (h *httpCheck) wireTarget(r request) string {
	var b strings.Builder
	if !h.proxy && !strings.HasPrefix(r.target, "/") && (r.target != "*" || r.method != "OPTIONS") {
		b.WriteByte('/')
	}
	for _, c := range []byte(r.target) {
		if c <= ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// sendsLength: RFC 9110, 8.6, of methods that mean something by their content.
func sendsLength(r request) bool { return r.body || r.method == "POST" || r.method == "PUT" }

// render makes the bytes of a request.
func (h *httpCheck) render(r request) ([]byte, error) {
	var body []byte
	if r.body {
		body = []byte(h.c.Body)
	}
	if h.version == "2" {
		fields := []headerField{{":method", r.method}, {":scheme", h.scheme}, {":authority", h.host}, {":path", h.wireTarget(r)}}
		fields = append(fields, h.fields...)
		if sendsLength(r) {
			fields = append(fields, headerField{"content-length", fmt.Sprint(len(body))})
		}
		return h2Request(fields, body)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/%s\r\nHost: %s\r\n", r.method, h.wireTarget(r), h.version, h.host)
	for _, f := range h.fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.name, f.value)
	}
	if sendsLength(r) {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("Connection: close\r\n\r\n")
	b.Write(body)
	return b.Bytes(), nil
}
