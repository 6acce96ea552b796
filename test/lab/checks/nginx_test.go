package checks

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// site is a running nginx with its ports and files.
type site struct {
	*server
	http, h2c, https, strict, old uint16
	a, client                     string // certificates: of a.example, of whom strict lets in
	clientKey                     string
	page                          string
}

// nginx starts one with five doors: HTTP/1 and HTTP/2 in clear, TLS for
// a.example and, to those who name no other, b.example, TLS for clients with a
// certificate, and TLS of 1999.
func nginx(t *testing.T) *site {
	t.Helper()
	dir := directory(t)
	s := &site{http: freePort(t), h2c: freePort(t), https: freePort(t), strict: freePort(t), old: freePort(t), page: strings.Repeat("a page\n", 2000)}
	aCert, aKey := certificateOf(t, dir, "a.example", "a")
	bCert, bKey := certificateOf(t, dir, "b.example", "b")
	s.client, s.clientKey = certificateOf(t, dir, "director", "client")
	s.a = aCert
	write(t, dir, "www/page.html", s.page)
	listen := func(port uint16, how string) string {
		return fmt.Sprintf("listen 127.0.0.1:%d %s; listen [::1]:%d %s;", port, how, port, how)
	}
	locations := fmt.Sprintf(`
		root %s/www;
		location = / { return 200 "$server_name by $server_protocol\n"; }
		location = /moved { return 302 /page.html; }
		location = /away { return 302 https://other.example/; }
		location = /private { return 401; }
		location = /post {
			if ($request_method != POST) { return 405; }
			if ($http_x_key != "7") { return 403; }
			return 200 "$content_length of $content_type\n";
		}`, dir)
	config := write(t, dir, "nginx.conf", fmt.Sprintf(`
daemon off;
user www-data;
worker_processes 2;
pid %[1]s/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server { %[3]s server_name plain; %[2]s }
	server { %[4]s server_name plain; %[2]s }
	server { %[5]s server_name b.example; ssl_certificate %[8]s; ssl_certificate_key %[9]s; %[2]s }
	server { %[5]s server_name a.example; ssl_certificate %[6]s; ssl_certificate_key %[7]s; %[2]s }
	server { %[10]s server_name a.example; ssl_certificate %[6]s; ssl_certificate_key %[7]s; ssl_protocols TLSv1.2 TLSv1.3; ssl_client_certificate %[11]s; ssl_verify_client on; %[2]s }
	server { %[12]s server_name old; ssl_certificate %[6]s; ssl_certificate_key %[7]s; ssl_protocols TLSv1; ssl_ciphers AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0; %[2]s }
}
`, dir, locations, listen(s.http, ""), listen(s.h2c, "http2"), listen(s.https, "ssl http2"), aCert, aKey, bCert, bKey, listen(s.strict, "ssl http2"), s.client, listen(s.old, "ssl")))
	s.server = startServer(t, program{args: []string{"nginx", "-c", config, "-p", dir}, port: s.http})
	return s
}

// negotiate is a check of a service.
func negotiate(service string, port uint16) conf.Check {
	return conf.Check{Type: conf.Negotiate, Service: service, Target: local(port), Request: "/"}
}

func TestNginx(t *testing.T) {
	for name, tell := range map[string]func(t *testing.T, s *site) story{
		"http": func(t *testing.T, s *site) story {
			return story{
				check: pooled(t, pool(80, s.http, "receive: plain by HTTP/1.1")),
				wrong: receive("absent"), wrongly: `^HTTP 200, no match for "absent" in 18 bytes$`,
			}
		},
		"HTTP/2 in clear": func(t *testing.T, s *site) story {
			return story{
				check: pooled(t, pool(80, s.h2c, `http_version: "2"`, "receive: plain by HTTP/2.0")),
				wrong: receive("absent"), wrongly: `^HTTP 200, no match for "absent" in 18 bytes$`,
			}
		},
		"https": func(t *testing.T, s *site) story {
			return story{
				check: pooled(t, pool(443, s.https, "tls_verify: yes", "tls_ca: "+s.a, "virtualhost: a.example", "receive: a.example by HTTP/1.1")),
				wrong: tlsName("b.example"), wrongly: `^certificate: x509: certificate is valid for b.example, not|^certificate: x509: certificate signed by unknown authority`,
			}
		},
		"https with a client certificate by HTTP/2": func(t *testing.T, s *site) story {
			return story{
				check: pooled(t, pool(443, s.strict, "tls_verify: yes", "tls_ca: "+s.a, "virtualhost: a.example", `tls_min: "1.3"`,
					"tls_cert: "+s.client, "tls_key: "+s.clientKey, `http_version: "2"`, "receive: a.example by HTTP/2.0")),
				wrong: func(c *conf.Check) { c.TLSCert, c.TLSKey = "", "" }, wrongly: "^HTTP 400, wanted 2xx$",
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := nginx(t)
			st := tell(t, s)
			st.server, st.six = s.server, true
			st.up = fmt.Sprintf("^HTTP 200, match for %q$", st.check.Receive)
			st.tell(t)
		})
	}
}

func TestNginxIsAskedAsTheSettingsSay(t *testing.T) {
	s := nginx(t)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s.page)))
	for _, tc := range []struct {
		name string
		set  func(c *conf.Check)
		want string // "!" before the error
	}{
		{"status", func(c *conf.Check) { c.Request, c.Status = "/private", "200,401" }, "HTTP 401"},
		{"another status", func(c *conf.Check) { c.Request = "/private" }, "!HTTP 401, wanted 2xx"},
		{"no such page", func(c *conf.Check) { c.Request = "/absent" }, "!HTTP 404, wanted 2xx"},
		{"digest", func(c *conf.Check) { c.Request, c.Digest = "/page.html", digest }, "HTTP 200, digest as wanted"},
		{"another digest", func(c *conf.Check) { c.Digest = digest }, "!HTTP 200, the digest is sha256:[0-9a-f]{64}, not the wanted one, of [0-9]+ bytes"},
		{"a redirect here", func(c *conf.Check) { c.Request, c.Digest = "/moved", digest }, "HTTP 200, digest as wanted"},
		{"a redirect away", func(c *conf.Check) { c.Request = "/away" }, `!HTTP 302 to "https://other.example/", wanted 2xx \(a redirect away from this server is not followed\)`},
		{"head", func(c *conf.Check) { c.HTTPMethod, c.Request = "HEAD", "/page.html" }, "HTTP 200"},
		{"a body with headers", func(c *conf.Check) {
			c.HTTPMethod, c.Request, c.Headers, c.Body, c.Receive = "POST", "/post", "X-Key: 7\nContent-Type: text/x", "1234567", "^7 of text/x$|^7 of text/x\n"
		}, `HTTP 200, match for "\^7 of text/x\$\|\^7 of text/x\\n"`},
		{"without the header", func(c *conf.Check) { c.HTTPMethod, c.Request, c.Body = "POST", "/post", "1234567" }, "!HTTP 403, wanted 2xx"},
		{"put", func(c *conf.Check) { c.HTTPMethod, c.Request, c.Body = "PUT", "/post", "1234567" }, "!HTTP 405, wanted 2xx"},
		{"options", func(c *conf.Check) { c.HTTPMethod, c.Request = "OPTIONS", "/page.html" }, "!HTTP 405, wanted 2xx"},
	} {
		for _, how := range []struct {
			service, version string
			port             uint16
		}{{"http", "1.0", s.http}, {"http", "1.1", s.http}, {"http", "2", s.h2c}, {"https", "1.1", s.https}, {"https", "2", s.https}} {
			t.Run(tc.name+", "+how.service+" "+how.version, func(t *testing.T) {
				c := negotiate(how.service, how.port)
				c.HTTPVersion = how.version
				tc.set(&c)
				if words, failing := strings.CutPrefix(tc.want, "!"); failing {
					fails(t, c, patience, "^"+words+"$")
				} else {
					succeeds(t, c, "^"+words+"$")
				}
			})
		}
	}
}

// ldirectord sent no server name, and so was answered by whatever site is first.
func TestNginxKnowsTheSiteByName(t *testing.T) {
	s := nginx(t)
	for _, tc := range []struct {
		name string
		set  func(c *conf.Check)
		site string
	}{
		{"none", func(c *conf.Check) {}, "b.example"},
		{"tls_name", func(c *conf.Check) { c.TLSName, c.VirtualHost = "a.example", "a.example" }, "a.example"},
		{"virtualhost", func(c *conf.Check) { c.VirtualHost = "a.example" }, "a.example"},
	} {
		for _, six := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, IPv6 %v", tc.name, six), func(t *testing.T) {
				c := negotiate("https", s.https)
				tc.set(&c)
				c.Receive = "^" + tc.site + " by"
				if six {
					c = at(c, netip.AddrPortFrom(loopback6, s.https))
				}
				succeeds(t, c, "match")
			})
		}
	}
}

func TestNginxWithTLSOf1999(t *testing.T) {
	s := nginx(t)
	c := negotiate("https", s.old)
	succeeds(t, c, "^HTTP 200$")
	c.TLSMin = "1.0"
	succeeds(t, c, "^HTTP 200$")
	c.TLSMin = "1.2"
	fails(t, c, patience, "^TLS handshake: remote error: tls: protocol version not supported$")
}

func TestNginxWantsAClientCertificate(t *testing.T) {
	s := nginx(t)
	c := negotiate("https", s.strict)
	fails(t, c, patience, "^HTTP 400, wanted 2xx$")
	c.TLSCert, c.TLSKey = s.client, s.clientKey
	succeeds(t, c, "^HTTP 200$")
	c.TLSMin = "1.3"
	succeeds(t, c, "^HTTP 200$")
	// HTTP/2 from a port that speaks HTTP/1, and the other way about.
	c = negotiate("http", s.http)
	c.HTTPVersion = "2"
	fails(t, c, patience, "^not an HTTP/2 answer: the server speaks HTTP/1$")
	fails(t, negotiate("http", s.h2c), patience, `^not an HTTP answer: `)
	fails(t, negotiate("https", s.http), patience, "^TLS handshake: the server does not speak TLS$")
}
