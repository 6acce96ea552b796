package checks

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// maxRedirects is how often a check lets itself be sent on.
const maxRedirects = 3

// httpCheck is checktype negotiate for http, https and http_proxy: one request
// on a connection of its own, answered by a wanted status and a wanted body.
//
// A redirect whose status is not wanted itself is followed, at most
// maxRedirects times, when it stays with the scheme and the host name that were
// asked for, and always on the same real server. One that leads elsewhere is a
// failure: ldirectord followed it and so said "up" because of another machine.
type httpCheck struct {
	c       conf.Check
	version string      // 1.0, 1.1, 2
	proxy   bool        // the request names a whole URL
	scheme  string      // http, https: of what is asked for
	site    string      // host of what is asked for: redirects stay there
	host    string      // Host header
	tls     *tls.Config // nil: no TLS
	fields  []headerField
	status  codeSet
	first   request
	wire    []byte // first, as it is sent
	want    wantedBody
	env     *env
}

func newHTTP(c conf.Check, e *env) (Checker, error) {
	h := &httpCheck{c: c, version: c.HTTPVersion, scheme: c.Service, host: c.VirtualHost, env: e}
	h.first = request{method: c.HTTPMethod, target: c.Request, body: c.Body != ""}
	if err := cmp.Or(needTCPPort(c), sameFamily(c), needHostName("virtualhost", h.host)); err != nil {
		return nil, err
	}
	for _, b := range []byte(c.Request) {
		if b < ' ' || b == 0x7f {
			return nil, fmt.Errorf("request %q holds a control character", c.Request)
		}
	}
	if h.host == "" {
		h.host = defaultHost(c)
	}
	h.site = h.host
	if c.Service == "http_proxy" {
		if err := h.throughProxy(); err != nil {
			return nil, err
		}
	}
	if err := h.method(); err != nil {
		return nil, err
	}
	var err error
	if h.status, err = parseCodes(c.Status); err != nil {
		return nil, err
	}
	if h.fields, err = parseHeaders(c.Headers); err != nil {
		return nil, err
	}
	if h.want, err = parseBody(c.Receive, c.Digest, e); err != nil {
		return nil, err
	}
	if c.Service == "https" {
		if h.tls, err = tlsConfig(c, e); err != nil {
			return nil, err
		}
		h.tls.NextProtos = []string{"http/1.1"}
		if h.version == "2" {
			h.tls.NextProtos = []string{"h2"}
		}
	}
	if h.wire, err = h.render(h.first); err != nil {
		return nil, err
	}
	return h, nil
}

// throughProxy takes the site from the URL that a proxy is asked for.
func (h *httpCheck) throughProxy() error {
	u, err := url.Parse(h.c.Request)
	if err == nil && u.User != nil { // a secret: not shown
		return errors.New("request of service http_proxy holds a user and password; put them into headers, as Authorization")
	}
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "" {
		return fmt.Errorf("request %q of service http_proxy is not the URL of a page to fetch through the proxy, as in http://www.example.com/", h.c.Request)
	}
	if err := needHostName("request", u.Host); err != nil {
		return err
	}
	h.proxy, h.scheme, h.site = true, "http", u.Host
	if h.c.VirtualHost == "" {
		h.host = u.Host
	}
	if u.Path == "" {
		u.Path = "/"
	}
	u.Fragment = ""
	h.first.target = u.String()
	return nil
}

// method fills in method and version and refuses what does not go together.
func (h *httpCheck) method() error {
	r := &h.first
	switch r.method {
	case "":
		r.method = "GET"
	case "GET", "HEAD", "POST", "PUT", "OPTIONS":
	default:
		return fmt.Errorf("httpmethod %q is not known; GET, HEAD, POST, PUT and OPTIONS are", r.method)
	}
	switch {
	case r.body && (r.method == "GET" || r.method == "HEAD"):
		return fmt.Errorf("httpmethod %s sends no body: use POST, PUT or OPTIONS, or leave body out", r.method)
	case r.method == "HEAD" && h.c.Receive != "":
		return errors.New("receive looks at the body, and httpmethod HEAD has none: use GET or leave receive out")
	case r.method == "HEAD" && h.c.Digest != "":
		return errors.New("digest is of the body, and httpmethod HEAD has none: use GET or leave digest out")
	}
	switch h.version {
	case "":
		h.version = "1.1"
	case "1.0", "1.1":
	case "2":
		if h.proxy {
			return errors.New("http_version 2 is not spoken with a proxy; 1.0 and 1.1 are")
		}
	default:
		return fmt.Errorf("http_version %q is not known; 1.0, 1.1 and 2 are", h.version)
	}
	return nil
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

func (h *httpCheck) Check(ctx context.Context) (string, error) {
	r, wire := h.first, h.wire
	for redirects := 0; ; redirects++ {
		code, location, detail, err := h.ask(ctx, r, wire)
		if location == "" {
			return detail, err
		}
		next, ok := h.redirect(r.target, location)
		switch {
		case !ok:
			return "", fmt.Errorf("HTTP %d to %q, wanted %v (a redirect away from this server is not followed)", code, location, h.status)
		case redirects == maxRedirects:
			return "", fmt.Errorf("HTTP %d to %q after %d redirects, wanted %v", code, location, redirects, h.status)
		}
		// RFC 9110, 15.4: 307 and 308 repeat the request, 303 asks for a page,
		// and so does the world after 301 and 302.
		if r.target = next; code < 307 && r.method != "HEAD" {
			r.method, r.body = "GET", false
		}
		if wire, err = h.render(r); err != nil {
			return "", err
		}
	}
}

// redirect returns the target that a Location means, if it is on this server.
func (h *httpCheck) redirect(from, location string) (target string, ok bool) {
	ref, err := url.Parse(location)
	if err != nil {
		return "", false
	}
	if !h.proxy {
		from = "/" + strings.TrimPrefix(from, "/")
	}
	base := &url.URL{Scheme: h.scheme, Host: h.site}
	page, err := base.Parse(from)
	if err != nil {
		return "", false
	}
	to := page.ResolveReference(ref)
	// The port is not compared: a server behind checkport names its virtual port.
	if to.Scheme != base.Scheme || !strings.EqualFold(to.Hostname(), base.Hostname()) {
		return "", false
	}
	if !h.proxy {
		return to.RequestURI(), true
	}
	return to.Scheme + "://" + to.Host + to.RequestURI(), true
}

// ask makes one request. location is not empty when the answer is a redirect.
func (h *httpCheck) ask(ctx context.Context, r request, wire []byte) (code int, location, detail string, err error) {
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
		if h.version == "2" {
			if err := choseHTTP2(t); err != nil {
				return 0, "", "", err
			}
		}
		rw = t
	}
	if _, err := rw.Write(wire); err != nil {
		return 0, "", "", err
	}
	if err := conn.idle(); err != nil {
		return 0, "", "", conn.answerError(err)
	}
	storage := h.env.buffers.Get().(*[bufSize]byte)
	defer h.env.buffers.Put(storage)
	var ans answer
	var body bodyReader
	if h.version == "2" {
		body.two = newH2Reader(rw, storage[:], nil)
		ans, err = body.two.readHead(r.method == "HEAD")
	} else {
		body.one = newAnswerReader(rw, storage[:])
		ans, err = body.one.readHead(r.method == "HEAD")
	}
	if err != nil {
		return 0, "", "", conn.answerError(err)
	}
	if !h.status.has(ans.code) {
		switch ans.code {
		case 301, 302, 303, 307, 308:
			if ans.location != "" {
				return ans.code, ans.location, "", nil
			}
		}
		return ans.code, "", "", fmt.Errorf("HTTP %d, wanted %v", ans.code, h.status)
	}
	detail, err = h.want.read(body, ans)
	if err != nil {
		return ans.code, "", "", conn.answerError(err)
	}
	if body.one != nil && body.one.state == bodyDone && (ans.length >= 0 || ans.chunked || r.method == "HEAD") {
		conn.awaitClose()
	}
	return ans.code, "", detail, nil
}

// hostOnly is the name or address in a Host header.
func hostOnly(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}
