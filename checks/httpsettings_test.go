package checks

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

func TestHTTPStatus(t *testing.T) {
	for _, tc := range []struct{ status, answer, want string }{
		{"401", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "HTTP 401"},
		{"200-299, 401", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "HTTP 401"},
		{"200-299,401", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "!HTTP 403, wanted 200-299,401"},
		{"204", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "!HTTP 200, wanted 204"},
		// A redirect that is wanted is the answer, and is not followed.
		{"301,302", "HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\nContent-Length: 0\r\n\r\n", "HTTP 302"},
		{"401", "HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\n\r\n", `!HTTP 302 to "https://other.example/", wanted 401 (a redirect away from this server is not followed)`},
	} {
		t.Run(tc.status+" of "+tc.want, func(t *testing.T) {
			c := httpAt(raw(t, tc.answer))
			c.Status = tc.status
			expect(t, c, tc.want)
		})
	}
}

func TestHTTPDigest(t *testing.T) {
	page := strings.Repeat("page\n", 10_000)
	sum5, sum256 := fmt.Sprintf("md5:%x", md5.Sum([]byte(page))), fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(page)))
	other := "md5:" + strings.Repeat("0", 32)
	large := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", maxBody, bytes.Repeat([]byte("x"), maxBody))
	ok := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(page), page)
	for _, tc := range []struct{ name, digest, receive, answer, want string }{
		{"md5, as keepalived", sum5, "", ok, "HTTP 200, digest as wanted"},
		{"sha256", sum256, "", ok, "HTTP 200, digest as wanted"},
		{"with an expression that matches at once", sum256, "^page", ok, `HTTP 200, match for "^page", digest as wanted`},
		{"with one that does not match", sum256, "absent", ok, `!HTTP 200, no match for "absent" in 50000 bytes`},
		{"another page", other, "", ok, "!HTTP 200, the digest is " + sum5 + ", not the wanted one, of 50000 bytes"},
		{"an empty page", other, "", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "!HTTP 200, the digest is md5:d41d8cd98f00b204e9800998ecf8427e, not the wanted one, of 0 bytes"},
		{"a page that breaks off", sum5, "", ok[:len(ok)-1], "!connection closed in the middle of the body"},
		{"a page that is too long", other, "", large, "!HTTP 200, no digest of a body of 1048576 or more bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := httpAt(raw(t, tc.answer))
			c.Digest, c.Receive = tc.digest, tc.receive
			expect(t, c, tc.want)
		})
	}
}

func TestHTTPRequestIsWhatTheSettingsSay(t *testing.T) {
	got := make(chan string, 9)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %s %s [%s] %q %d %q", r.Proto, r.Method, r.RequestURI, r.Header.Get("Accept"), r.Header["X-Key"], r.ContentLength, body)
		switch r.URL.Path {
		case "/see-other":
			http.Redirect(w, r, "/page", http.StatusSeeOther)
		case "/again":
			http.Redirect(w, r, "/page", http.StatusPermanentRedirect)
		}
	}))
	defer srv.Close()
	for _, tc := range []struct {
		name string
		set  func(c *conf.Check)
		want []string
	}{
		{"HTTP/1.0", func(c *conf.Check) { c.HTTPVersion = "1.0" }, []string{`HTTP/1.0 GET / [*/*] [] 0 ""`}},
		{"headers", func(c *conf.Check) { c.Headers = "X-Key: a: b\nx-key:\tc \n\nACCEPT: text/html\n" }, []string{`HTTP/1.1 GET / [text/html] ["a: b" "c"] 0 ""`}},
		{"post", func(c *conf.Check) { c.HTTPMethod, c.Body = "POST", "{\r\n}" }, []string{`HTTP/1.1 POST / [*/*] [] 4 "{\r\n}"`}},
		{"post of nothing", func(c *conf.Check) { c.HTTPMethod = "POST" }, []string{`HTTP/1.1 POST / [*/*] [] 0 ""`}},
		{"put by HTTP/1.0", func(c *conf.Check) { c.HTTPMethod, c.Body, c.HTTPVersion = "PUT", "x", "1.0" }, []string{`HTTP/1.0 PUT / [*/*] [] 1 "x"`}},
		{"options", func(c *conf.Check) { c.HTTPMethod = "OPTIONS" }, []string{`HTTP/1.1 OPTIONS / [*/*] [] 0 ""`}},
		{"options of a path with a body", func(c *conf.Check) { c.HTTPMethod, c.Request, c.Body = "OPTIONS", "x", "y" }, []string{`HTTP/1.1 OPTIONS /x [*/*] [] 1 "y"`}},
		{"a redirect to a page", func(c *conf.Check) { c.HTTPMethod, c.Request, c.Body = "POST", "/see-other", "y" },
			[]string{`HTTP/1.1 POST /see-other [*/*] [] 1 "y"`, `HTTP/1.1 GET /page [*/*] [] 0 ""`}},
		{"a redirect of the request", func(c *conf.Check) { c.HTTPMethod, c.Request, c.Body = "POST", "/again", "y" },
			[]string{`HTTP/1.1 POST /again [*/*] [] 1 "y"`, `HTTP/1.1 POST /page [*/*] [] 1 "y"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := httpAt(srv.Listener.Addr().String())
			tc.set(&c)
			expect(t, c, "HTTP 200")
			for _, want := range tc.want {
				if g := <-got; g != want {
					t.Errorf("request %s\nwant    %s", g, want)
				}
			}
		})
	}
	// net/http answers OPTIONS * by itself.
	c := httpAt(srv.Listener.Addr().String())
	c.HTTPMethod, c.Request = "OPTIONS", "*"
	expect(t, c, "HTTP 200")
}

func TestHTTPProxy(t *testing.T) {
	got := make(chan string, 9)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Method + " " + r.RequestURI + " " + r.Host
		switch r.URL.Path {
		case "/moved":
			w.Header().Set("Location", "page?x=1")
			w.WriteHeader(http.StatusFound)
		case "/away":
			w.Header().Set("Location", "http://other.example/")
			w.WriteHeader(http.StatusFound)
		case "/broken":
			w.WriteHeader(http.StatusBadGateway)
		}
		io.WriteString(w, "page")
	}))
	defer proxy.Close()
	for _, tc := range []struct {
		request, want string
		seen          []string
	}{
		{"http://www.example.com", `HTTP 200, match for "page"`, []string{"GET http://www.example.com/ www.example.com"}},
		{"http://www.example.com:8080/a?b=c#d", `HTTP 200, match for "page"`, []string{"GET http://www.example.com:8080/a?b=c www.example.com:8080"}},
		{"http://www.example.com/moved", `HTTP 200, match for "page"`, []string{"GET http://www.example.com/moved www.example.com", "GET http://www.example.com/page?x=1 www.example.com"}},
		{"http://www.example.com/away", `!HTTP 302 to "http://other.example/", wanted 2xx (a redirect away from this server is not followed)`, []string{"GET http://www.example.com/away www.example.com"}},
		{"http://www.example.com/broken", "!HTTP 502, wanted 2xx", []string{"GET http://www.example.com/broken www.example.com"}},
	} {
		t.Run(tc.request, func(t *testing.T) {
			c := httpAt(proxy.Listener.Addr().String())
			c.Service, c.Request, c.Receive = "http_proxy", tc.request, "page"
			expect(t, c, tc.want)
			for _, want := range tc.seen {
				if g := <-got; g != want {
					t.Errorf("request %s\nwant    %s", g, want)
				}
			}
		})
	}
}

func TestHTTPSettingsThatCannotBeAreToldAtValidation(t *testing.T) {
	for _, tc := range []struct {
		c    conf.Check
		want string
	}{
		{conf.Check{Status: "2xx"}, `status "2xx": "2xx" is no code from 200 to 599 and no range of them, as in 200-299,401`},
		{conf.Check{Status: "100"}, `status "100": "100" is no code from 200 to 599 and no range of them, as in 200-299,401`},
		{conf.Check{Status: "200,"}, `status "200,": "" is no code from 200 to 599 and no range of them, as in 200-299,401`},
		{conf.Check{Status: "299-200"}, `status "299-200": the range 299-200 begins after its end`},
		{conf.Check{Digest: "abc"}, `digest "abc" is not md5: with 32, or sha256: with 64 hexadecimal digits`},
		{conf.Check{Digest: "md5:abcd"}, `digest "md5:abcd" is not md5: with 32, or sha256: with 64 hexadecimal digits`},
		{conf.Check{Digest: "md5:" + strings.Repeat("a", 32), HTTPMethod: "HEAD"}, "digest is of the body, and httpmethod HEAD has none: use GET or leave digest out"},
		{conf.Check{Headers: "A: b\nAuthorization secret"}, `headers: line 2 does not begin with the name of a header field and a colon, as "X-Name: value" does`},
		{conf.Check{Headers: "Authorization secret: x"}, `headers: line 1 does not begin with the name of a header field and a colon, as "X-Name: value" does`},
		{conf.Check{Headers: "X-Key: a\rb"}, "headers: the value of X-Key holds a control character"},
		{conf.Check{Headers: "HOST: a"}, `headers: HOST is set by "virtualhost"`},
		{conf.Check{Headers: "Content-Length: 1"}, `headers: Content-Length is set by "body"`},
		{conf.Check{Headers: "Connection: keep-alive"}, "headers: Connection is made by the check itself; leave it out"},
		{conf.Check{Body: "x"}, "httpmethod GET sends no body: use POST, PUT or OPTIONS, or leave body out"},
		{conf.Check{HTTPVersion: "3"}, `http_version "3" is not known; 1.0, 1.1 and 2 are`},
		{conf.Check{HTTPVersion: "2", HTTPMethod: "PUT", Body: strings.Repeat("x", h2Window+1)}, "the body has 65536 bytes, more than the 65535 that HTTP/2 sends unasked"},
		{conf.Check{HTTPVersion: "2", Headers: "X: " + strings.Repeat("\x7e", h2MaxFrame)}, "request and headers take "},
		{conf.Check{Service: "http_proxy", Request: "/"}, `request "/" of service http_proxy is not the URL of a page to fetch through the proxy, as in http://www.example.com/`},
		{conf.Check{Service: "http_proxy", Request: "https://www.example.com/"}, `request "https://www.example.com/" of service http_proxy is not the URL`},
		{conf.Check{Service: "http_proxy", Request: "http://a:secret@www.example.com/"}, "request of service http_proxy holds a user and password; put them into headers, as Authorization"},
		{conf.Check{Service: "http_proxy", Request: "http://www.example.com/", HTTPVersion: "2"}, "http_version 2 is not spoken with a proxy; 1.0 and 1.1 are"},
		{conf.Check{Service: "grpc", Request: "\xff"}, `request "\xff" is not UTF-8, as the name of a gRPC service is`},
		{conf.Check{Service: "grpc", HTTPVersion: "1.1"}, `http_version "1.1": gRPC is spoken over 2 only; leave it out`},
		{conf.Check{Service: "grpc", VirtualHost: "a/b"}, `virtualhost "a/b" is not a host name: '/' cannot be part of one`},
	} {
		tc.c.Type, tc.c.Target = conf.Negotiate, netip.MustParseAddrPort("10.0.0.1:80")
		if tc.c.Service == "" {
			tc.c.Service = "http"
		}
		_, err := NewChecker(tc.c)
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("shows the value of a header: %v", err)
		}
	}
}
