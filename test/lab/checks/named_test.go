package checks

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

const zone = `$TTL 60
@       SOA   ns1 hostmaster 2026112101 3600 600 86400 60
@       NS    ns1
@       MX    10 mail
@       TXT   "v=spf1 mx -all"
ns1     A     192.0.2.53
www     A     192.0.2.80
www     AAAA  2001:db8::80
web     CNAME www
_sip._udp SRV 1 2 5060 sip
sip     A     192.0.2.60
`

// startNamed starts BIND as the authority for example.com and 192.0.2.0/24.
func startNamed(t *testing.T) (*server, uint16) {
	dir, port := directory(t), freePort(t)
	z := zone
	for i := range 100 { // too much for a datagram of 512 bytes
		z += fmt.Sprintf("many A 198.51.100.%d\n", i+1)
	}
	write(t, dir, "example.com", z)
	write(t, dir, "192.0.2", "$TTL 60\n@ SOA ns1.example.com. hostmaster.example.com. 1 3600 600 86400 60\n@ NS ns1.example.com.\n80 PTR www.example.com.\n")
	file := write(t, dir, "named.conf", fmt.Sprintf(`
options {
	directory %q;
	listen-on port %d { 127.0.0.1; };
	listen-on-v6 port %[2]d { ::1; };
	pid-file none; session-keyfile none; lock-file none;
	recursion no; dnssec-validation no; empty-zones-enable no; notify no; minimal-responses yes;
};
controls { };
zone "example.com" { type primary; file "example.com"; };
zone "2.0.192.in-addr.arpa" { type primary; file "192.0.2"; };
`, dir, port))
	return startServer(t, program{args: []string{"named", "-g", "-n", "1", "-c", file, "-D", filepath.Base(dir)}, port: port}), port
}

func dnsAt(t *testing.T, port uint16, kind, name, receive string) conf.Check {
	t.Helper()
	keys := []string{"request: " + name, fmt.Sprintf("receive: '%s'", receive)}
	if kind != "" {
		keys = append(keys, "record_type: "+kind)
	}
	return pooled(t, pool(53, port, keys...))
}

func TestNamed(t *testing.T) {
	s, port := startNamed(t)
	for _, tc := range []struct{ kind, name, receive, up string }{
		{"", "www.example.com", "", `^A 192\.0\.2\.80$`},
		{"", "192.0.2.80", `^www\.example\.com$`, `^PTR www\.example\.com\.`},
		{"AAAA", "www.example.com", `^2001:db8::80$`, "^AAAA 2001:db8::80"},
		{"NS", "example.com", "^ns1", "^NS ns1"},
		{"CNAME", "web.example.com", `^www\.example\.com$`, "^CNAME www"},
		{"SOA", "example.com", " 2026112101 ", "^SOA ns1"},
		{"MX", "example.com", `^10 mail\.example\.com\.$`, "^MX 10 mail"},
		{"TXT", "example.com", "^v=spf1 mx -all$", "^TXT v=spf1"},
		{"PTR", "80.2.0.192.in-addr.arpa", "", "^PTR www"},
		{"SRV", "_sip._udp.example.com", "^1 2 5060 sip", "^SRV 1 2 5060"},
		{"A", "web.example.com", "", `^A 192\.0\.2\.80 and 1 more$`},
		{"A", "many.example.com", "", "^A 198.* and 99 more$"}, // cut, and asked for again by TCP
	} {
		t.Run(strings.TrimSpace(tc.kind+" "+tc.name), func(t *testing.T) {
			for _, udp := range []bool{true, false} {
				c := dnsAt(t, port, tc.kind, tc.name, tc.receive)
				c.UDP = udp
				succeeds(t, c, tc.up)
				succeeds(t, at(c, netip.AddrPortFrom(loopback6, port)), tc.up)
			}
		})
	}
	t.Run("failures", func(t *testing.T) {
		fails(t, dnsAt(t, port, "", "nothing.example.com", ""), patience, "^RCODE NXDOMAIN$")
		fails(t, dnsAt(t, port, "", "www.example.org", ""), patience, "^RCODE REFUSED$")
		fails(t, dnsAt(t, port, "MX", "www.example.com", ""), patience, "^no MX record in 0 answers$")
	})
	story{
		server: s, network: "udp", check: dnsAt(t, port, "A", "www.example.com", `^192\.0\.2\.80$`), six: true,
		up:    `^A 192\.0\.2\.80, match`,
		wrong: func(c *conf.Check) { c.Receive = `192\.0\.2\.81` }, wrongly: `no match for .* in 1 answers, the first: 192\.0\.2\.80`,
	}.tell(t)
}

func TestNamedByTCP(t *testing.T) {
	s, port := startNamed(t)
	c := dnsAt(t, port, "A", "www.example.com", "")
	c.UDP = false
	story{
		server: s, check: c, six: true, up: `^A 192\.0\.2\.80$`,
		wrong: func(c *conf.Check) { c.Request = "nothing.example.com" }, wrongly: "^RCODE NXDOMAIN$",
	}.tell(t)
}

// keepalived's UDP check, of a server that answers and of one that need not.
func TestUDPOfNamed(t *testing.T) {
	s, port := startNamed(t)
	c := pooled(t, pool(5300, port, "protocol: udp", "service: udp",
		`payload: '\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01'`, // www.example.com A
		"reply: abcd8xx0", "reply_min: 49", "reply_max: 512"))
	story{
		server: s, network: "udp", check: c, six: true, up: "^reply of 49 bytes$",
		wrong: func(c *conf.Check) { c.ReplyHex = "abce" }, wrongly: "^reply of 49 bytes begins with abcd8.*, wanted abce$",
	}.tell(t)
	c.ReplyHex, c.ReplyMin, c.ReplyMax = "", 0, 0
	fails(t, c, patience, "connection refused")
	c.Payload = ""
	fails(t, c, patience, "connection refused")
}
