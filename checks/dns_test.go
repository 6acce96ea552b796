package checks

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/keepbeat/keepbeat/conf"
)

func dnsTo(target netip.AddrPort, name, kind string) conf.Check {
	return conf.Check{Type: conf.Negotiate, Service: "dns", Target: target, Request: name, RecordType: kind, UDP: true, Timeout: time.Minute}
}

// dnsAnswer answers a query with records in the form of a zone file.
func dnsAnswer(query []byte, change func(*dns.Msg), records ...string) []byte {
	var q, m dns.Msg
	if err := q.Unpack(query); err != nil {
		panic(err)
	}
	m.SetReply(&q)
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if change != nil {
		change(&m)
	}
	p, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return p
}

func TestDNSAnswers(t *testing.T) {
	for _, tc := range []struct {
		name, request, kind, receive string
		change                       func(*dns.Msg)
		records                      []string
		want                         string
	}{
		{"an address", "www.example.com", "", "", nil, []string{"www.example.com. A 192.0.2.1"}, "A 192.0.2.1"},
		{"addresses", "www.example.com", "A", "", nil, []string{"www.example.com. A 192.0.2.1", "www.example.com. A 192.0.2.2"}, "A 192.0.2.1 and 1 more"},
		{"the right address", "www.example.com", "A", `^192\.0\.2\.2$`, nil, []string{"www.example.com. A 192.0.2.1", "www.example.com. A 192.0.2.2"}, `A 192.0.2.2, match for "^192\\.0\\.2\\.2$"`},
		{"another address", "www.example.com", "A", `^192\.0\.2\.3$`, nil, []string{"www.example.com. A 192.0.2.1"}, `!no match for "^192\\.0\\.2\\.3$" in 1 answers, the first: 192.0.2.1`},
		{"an alias and its address", "www.example.com", "A", "", nil, []string{"www.example.com. CNAME a.example.com.", "a.example.com. A 192.0.2.1"}, "A 192.0.2.1 and 1 more"},
		{"an alias that leads nowhere", "www.example.com", "A", "", nil, []string{"www.example.com. CNAME a.example.com."}, "!no A record in 1 answers"},
		{"an IPv6 address", "www.example.com", "AAAA", "", nil, []string{"www.example.com. AAAA 2001:db8::1"}, "AAAA 2001:db8::1"},
		{"an alias", "www.example.com", "CNAME", `^a\.example\.com$`, nil, []string{"www.example.com. CNAME a.example.com."}, `CNAME a.example.com., match for "^a\\.example\\.com$"`},
		{"a mail server", "example.com", "MX", "^10 mx", nil, []string{"example.com. MX 10 mx.example.com."}, `MX 10 mx.example.com., match for "^10 mx"`},
		{"a serial", "example.com", "SOA", " 2026112101 ", nil, []string{"example.com. SOA ns.example.com. root.example.com. 2026112101 1 2 3 4"}, `SOA ns.example.com. root.example.com. 2026112101 1 2 3 4, match for " 2026112101 "`},
		{"a text in two parts", "example.com", "TXT", "^v=spf1 -all$", nil, []string{`example.com. TXT "v=spf1" " -all"`}, `TXT v=spf1 -all, match for "^v=spf1 -all$"`},
		{"a service", "_sip._udp.example.com", "SRV", "5060", nil, []string{"_sip._udp.example.com. SRV 1 2 5060 sip.example.com."}, `SRV 1 2 5060 sip.example.com., match for "5060"`},
		{"name servers of the root", ".", "NS", "", nil, []string{". NS a.root-servers.net."}, "NS a.root-servers.net."},
		{"the name of an address", "192.0.2.1", "", "www", nil, []string{"1.2.0.192.in-addr.arpa. PTR www.example.com."}, `PTR www.example.com., match for "www"`},
		{"the name of an IPv6 address", "2001:db8::1", "PTR", "", nil, []string{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR www.example.com."}, "PTR www.example.com."},
		{"a slash before the name, as ldirectord had it", "/www.example.com", "", "", nil, []string{"www.example.com. A 192.0.2.1"}, "A 192.0.2.1"},
		{"case does not matter", "WWW.example.COM", "", "", func(m *dns.Msg) { m.Question[0].Name = "www.EXAMPLE.com." }, []string{"www.example.com. A 192.0.2.1"}, "A 192.0.2.1"},
		{"no such name", "www.example.com", "", "", func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }, nil, "!RCODE NXDOMAIN"},
		{"server failure", "www.example.com", "", ".", func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }, nil, "!RCODE SERVFAIL"},
		{"a refusal without the question", "www.example.com", "", "", func(m *dns.Msg) { m.Rcode, m.Question = dns.RcodeRefused, nil }, nil, "!RCODE REFUSED"},
		{"an answer in a failure does not count", "www.example.com", "", "192", func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }, []string{"www.example.com. A 192.0.2.1"}, "!RCODE SERVFAIL"},
		{"an RCODE without a name", "www.example.com", "", "", func(m *dns.Msg) { m.Rcode = 12 }, nil, "!RCODE 12"},
		{"nothing", "www.example.com", "", "", nil, nil, "!no A record in 0 answers"},
		{"nothing to match", "www.example.com", "", "x", nil, nil, `!no match for "x" in 0 answers`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dnsTo(serveUDP(t, "127.0.0.1:0", func(q []byte) [][]byte { return [][]byte{dnsAnswer(q, tc.change, tc.records...)} }), tc.request, tc.kind)
			c.Receive = tc.receive
			expect(t, c, tc.want)
		})
	}
}

func TestDNSIgnoresWhatIsNoAnswer(t *testing.T) {
	good := "www.example.com. A 192.0.2.1"
	for _, tc := range []struct {
		name  string
		wrong func(query []byte) []byte
	}{
		{"another ID", func(q []byte) []byte { return dnsAnswer(q, func(m *dns.Msg) { m.Id++ }, good) }},
		{"another name", func(q []byte) []byte {
			return dnsAnswer(q, func(m *dns.Msg) { m.Question[0].Name = "example.org." }, good)
		}},
		{"another type", func(q []byte) []byte {
			return dnsAnswer(q, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }, good)
		}},
		{"a query", func(q []byte) []byte { return q }},
		{"nothing", func(q []byte) []byte { return nil }},
		{"half a header", func(q []byte) []byte { return q[:7] }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dnsTo(serveUDP(t, "[::1]:0", func(q []byte) [][]byte { return [][]byte{tc.wrong(q), dnsAnswer(q, nil, good)} }), "www.example.com", "")
			expect(t, c, "A 192.0.2.1")
		})
	}
	c := dnsTo(serveUDP(t, "127.0.0.1:0", func(q []byte) [][]byte {
		return [][]byte{dnsAnswer(q, func(m *dns.Msg) { m.Id++ }, good)}
	}), "www.example.com", "")
	expectSilence(t, c, "!no answer within TIME; ignored: 1 that were no answer to the request, the last: an answer with another ID")
	garbage := dnsTo(serveUDP(t, "127.0.0.1:0", func(q []byte) [][]byte {
		p := dnsAnswer(q, nil, good)
		return [][]byte{p[:len(p)-2]}
	}), "www.example.com", "")
	expect(t, garbage, "!not a DNS answer: dns: overflowing header size")
	closed := closedUDP(t, "127.0.0.1:0")
	expect(t, dnsTo(closed, "x", ""), "!udp "+closed.String()+": connection refused")
}

func TestDNSOverTCP(t *testing.T) {
	cut := func(m *dns.Msg) { m.Truncated, m.Answer = true, nil }
	records := make([]string, 200)
	for i := range records {
		records[i] = "www.example.com. A 192.0.2.1"
	}
	for _, tc := range []struct {
		name, want string
		handle     func(c net.Conn, query []byte)
	}{
		{"all of it", "A 192.0.2.1 and 199 more", func(c net.Conn, q []byte) { sendDNS(c, dnsAnswer(q, nil, records...)) }},
		{"cut again", "!the answer by TCP is cut, too", func(c net.Conn, q []byte) { sendDNS(c, dnsAnswer(q, cut)) }},
		{"another ID", "!an answer with another ID", func(c net.Conn, q []byte) { sendDNS(c, dnsAnswer(q, func(m *dns.Msg) { m.Id++ })) }},
		{"nothing", "!connection closed without an answer", func(c net.Conn, q []byte) {}},
		{"less than it says", "!connection closed in the middle of an answer", func(c net.Conn, q []byte) { c.Write([]byte{1, 0, 5}) }},
		{"garbage", `!not a DNS answer: "HTTP"`, func(c net.Conn, q []byte) { sendDNS(c, []byte("HTTP")) }},
		{"silence", "!no answer within TIME", func(c net.Conn, q []byte) { io.Copy(io.Discard, c) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := netip.MustParseAddrPort(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				n := make([]byte, 2)
				io.ReadFull(c, n)
				q := make([]byte, binary.BigEndian.Uint16(n))
				io.ReadFull(c, q)
				tc.handle(c, q)
			}))
			serveUDP(t, addr.String(), func(q []byte) [][]byte { return [][]byte{dnsAnswer(q, cut)} })
			for _, udp := range []bool{true, false} {
				c := dnsTo(addr, "www.example.com", "")
				c.UDP = udp
				expectOrSilence(t, c, tc.want)
			}
		})
	}
}

func sendDNS(c net.Conn, p []byte) {
	c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...))
}

func TestDNSChecksThatCannotBe(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:53")
	for _, tc := range []struct{ name, request, kind, receive, want string }{
		{"no name", "", "", "", `service dns needs "request", the name or address to ask for`},
		{"only the slash", "/", "", "", `service dns needs "request", the name or address to ask for`},
		{"an unknown type", "example.com", "ANY", "", `record_type "ANY" is not known; A, AAAA, NS, CNAME, SOA, MX, TXT, PTR and SRV are`},
		{"a label that is too long", strings.Repeat("x", 64), "", "", `request "` + strings.Repeat("x", 64) + `" is not a name that can be asked for: dns: bad rdata`},
		{"two dots", "a..b", "", "", `request "a..b" is not a name that can be asked for: dns: bad rdata`},
		{"no expression", "example.com", "", "(", "receive \"(\": error parsing regexp: missing closing ): `(` (expressions are RE2: no look-ahead, no back-references)"},
	} {
		c := dnsTo(at, tc.request, tc.kind)
		c.Receive = tc.receive
		if _, err := NewChecker(c); err == nil || err.Error() != tc.want {
			t.Errorf("%s:\ngot  %v\nwant %s", tc.name, err, tc.want)
		}
	}
}

func FuzzDNSAnswer(f *testing.F) {
	k, err := newDNS(dnsTo(netip.MustParseAddrPort("127.0.0.1:53"), "www.example.com", ""), newEnv(nil))
	if err != nil {
		f.Fatal(err)
	}
	d := k.(*dnsCheck)
	query, err := d.query()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(dnsAnswer(query, nil, "www.example.com. A 192.0.2.1", `www.example.com. TXT "a\"\200"`)[2:], "")
	f.Add(dnsAnswer(query, nil, "www.example.com. SOA a. b. 1 2 3 4 5")[2:], "1")
	f.Add([]byte{0x84, 0, 0, 1}, "")
	f.Fuzz(func(t *testing.T, rest []byte, receive string) {
		c := *d
		c.c.Receive = receive
		if c.receive, err = newEnv(nil).wanted(c.c); err != nil {
			return
		}
		detail, cut, err := c.judge(query, append(query[:2:2], rest...))
		if (detail != "") != (err == nil && !cut) {
			t.Errorf("detail %q, cut %v, error %v", detail, cut, err)
		}
	})
}
