package checks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/keepbeat/keepbeat/conf"
)

// maxRedirects is how often a check lets itself be sent on.
const maxRedirects = 3

// httpCheck is checktype negotiate for http and https: one request on a
// connection of its own, answered by 2xx and, with receive, by a body in which
// the expression matches.
//
// A redirect is followed, at most maxRedirects times, when it stays with the
// scheme and the host name that were asked for, and always on the same real
// server. One that leads elsewhere is a failure: ldirectord followed it and so
// said "up" because of another machine.
type httpCheck struct {
	c       conf.Check
	method  string
	host    string      // Host header
	tls     *tls.Config // nil: http
	request []byte
	receive *regexp.Regexp // nil: any body
	literal []byte         // receive, when it is plain text
	env     *env
}

func newHTTP(c conf.Check, e *env) (Checker, error) {
	h := &httpCheck{c: c, method: c.HTTPMethod, host: c.VirtualHost, env: e}
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	switch h.method {
	case "":
		h.method = "GET"
	case "GET", "HEAD":
	default:
		return nil, fmt.Errorf("httpmethod %q is not known; GET and HEAD are", c.HTTPMethod)
	}
	if err := needHostName("virtualhost", h.host); err != nil {
		return nil, err
	}
	if h.host == "" {
		h.host = defaultHost(c)
	}
	for _, b := range []byte(c.Request) {
		if b < ' ' || b == 0x7f {
			return nil, fmt.Errorf("request %q holds a control character", c.Request)
		}
	}
	h.request = h.render(c.Request)
	if c.Receive != "" {
		if h.method == "HEAD" {
			return nil, errors.New("receive looks at the body, and httpmethod HEAD has none: use GET or leave receive out")
		}
		re, err := e.compile(c.Receive)
		if err != nil {
			return nil, fmt.Errorf("receive %q: %w", c.Receive, err)
		}
		h.receive = re
		if s, complete := re.LiteralPrefix(); complete {
			h.literal = []byte(s)
		}
	}
	if c.Service == "https" {
		var err error
		if h.tls, err = tlsConfig(c, e); err != nil {
			return nil, err
		}
		h.tls.NextProtos = []string{"http/1.1"}
	}
	return h, nil
}

// needHostName refuses what cannot be a host name, with or without a port.
func needHostName(setting, name string) error {
	for _, r := range name {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune("/?#@\\", r) {
			return fmt.Errorf("%s %q is not a host name: %q cannot be part of one", setting, name, r)
		}
	}
	return nil
}

// defaultHost is the Host header without virtualhost.
func defaultHost(c conf.Check) string {
	a := c.Target.Addr().Unmap().WithZone("")
	if (c.Service == "http" && c.Target.Port() == 80) || (c.Service == "https" && c.Target.Port() == 443) {
		if a.Is6() {
			return "[" + a.String() + "]"
		}
		return a.String()
	}
	return netip.AddrPortFrom(a, c.Target.Port()).String()
}

// render makes the request for a path. Bytes that cannot stand in a request
// line are percent-encoded, so that nothing can add a line to it.
func (h *httpCheck) render(path string) []byte {
	var b bytes.Buffer
	b.WriteString(h.method)
	b.WriteByte(' ')
	if !strings.HasPrefix(path, "/") {
		b.WriteByte('/')
	}
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	fmt.Fprintf(&b, " HTTP/1.1\r\nHost: %s\r\nUser-Agent: keepbeat\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n", h.host)
	return b.Bytes()
}

func (h *httpCheck) Check(ctx context.Context) (string, error) {
	request, path := h.request, h.c.Request
	for redirects := 0; ; redirects++ {
		code, location, detail, err := h.ask(ctx, request)
		if location == "" {
			return detail, err
		}
		next, ok := h.redirect(path, location)
		switch {
		case !ok:
			return "", fmt.Errorf("HTTP %d to %q, wanted 2xx (a redirect away from this server is not followed)", code, location)
		case redirects == maxRedirects:
			return "", fmt.Errorf("HTTP %d to %q after %d redirects, wanted 2xx", code, location, redirects)
		}
		path = next
		request = h.render(path)
	}
}

// redirect returns the path that a Location means, if it is on this server.
func (h *httpCheck) redirect(from, location string) (path string, ok bool) {
	ref, err := url.Parse(location)
	if err != nil {
		return "", false
	}
	base := &url.URL{Scheme: h.c.Service, Host: h.host}
	if base, err = base.Parse("/" + strings.TrimPrefix(from, "/")); err != nil {
		return "", false
	}
	to := base.ResolveReference(ref)
	// The port is not compared: a server behind checkport names its virtual port.
	if to.Scheme != base.Scheme || !strings.EqualFold(to.Hostname(), base.Hostname()) {
		return "", false
	}
	return to.RequestURI(), true
}

func (h *httpCheck) ask(ctx context.Context, request []byte) (code int, location, detail string, err error) {
	conn, err := dialCheck(ctx, h.c)
	if err != nil {
		return 0, "", "", err
	}
	defer conn.Close()
	var rw io.ReadWriter = conn
	if h.tls != nil {
		t, err := handshake(conn, h.tls)
		if err != nil {
			return 0, "", "", err
		}
		rw = t
	}
	if _, err := rw.Write(request); err != nil {
		return 0, "", "", err
	}
	storage := h.env.buffers.Get().(*[bufSize]byte)
	defer h.env.buffers.Put(storage)
	r := newAnswerReader(rw, storage[:])
	ans, err := r.readHead(h.method == "HEAD")
	if err != nil {
		return 0, "", "", conn.answerError(err)
	}
	switch ans.code {
	case 301, 302, 303, 307, 308:
		if ans.location != "" {
			return ans.code, ans.location, "", nil
		}
	}
	if ans.code < 200 || ans.code > 299 {
		return ans.code, "", "", fmt.Errorf("HTTP %d, wanted 2xx", ans.code)
	}
	detail, err = h.body(r, ans)
	if err != nil {
		return ans.code, "", "", conn.answerError(err)
	}
	if r.state == bodyDone && (ans.length >= 0 || ans.chunked || h.method == "HEAD") {
		conn.awaitClose()
	}
	return ans.code, "", detail, nil
}

// body reads the body to its end, to maxBody, or until receive has matched.
// Without receive it is read as well: an answer that breaks off is no answer.
func (h *httpCheck) body(r *answerReader, ans answer) (string, error) {
	var got []byte
	size, tried := 0, 16<<10
	for size < maxBody {
		p, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
		p = p[:min(len(p), maxBody-size)]
		size += len(p)
		if h.receive == nil {
			continue
		}
		got = append(got, p...)
		// Now and then (in all, no more work than one more pass) look whether
		// the rest is needed.
		if len(got) >= 2*tried {
			tried = len(got)
			if h.matchesEarly(got) {
				return fmt.Sprintf("HTTP %d, match for %q", ans.code, h.c.Receive), nil
			}
		}
	}
	if h.receive == nil {
		return httpOK(ans.code), nil
	}
	if h.matches(got) {
		return fmt.Sprintf("HTTP %d, match for %q", ans.code, h.c.Receive), nil
	}
	msg := fmt.Sprintf("HTTP %d, no match for %q in %d bytes", ans.code, h.c.Receive, size)
	if size >= maxBody {
		msg = fmt.Sprintf("HTTP %d, no match for %q in the first %d bytes", ans.code, h.c.Receive, size)
	}
	if ans.encoding != "" {
		msg += ", which are in Content-Encoding " + ans.encoding + " (not decoded)"
	}
	return "", errors.New(msg)
}

func httpOK(code int) string {
	if code == 200 {
		return "HTTP 200"
	}
	return fmt.Sprintf("HTTP %d", code)
}

func (h *httpCheck) matches(body []byte) bool {
	if h.literal != nil {
		return bytes.Contains(body, h.literal)
	}
	return h.receive.Match(body)
}

// matchesEarly is true when the beginning of a body has a match that no
// continuation can take away: it ends before the last character, so that
// neither $ nor \b in it looked at the end.
func (h *httpCheck) matchesEarly(body []byte) bool {
	if h.literal != nil {
		return bytes.Contains(body, h.literal)
	}
	loc := h.receive.FindIndex(body)
	return loc != nil && loc[1] <= len(body)-utf8.UTFMax
}

// hostOnly is the name or address in a Host header.
func hostOnly(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}
