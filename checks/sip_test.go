package checks

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// sipHeaders are the fields that an answer brings back.
func sipHeaders(request string) string {
	var b strings.Builder
	for l := range strings.SplitSeq(request, "\r\n") {
		switch name, _, _ := strings.Cut(l, ":"); name {
		case "Via", "From", "To", "Call-ID", "CSeq":
			b.WriteString(l + "\r\n")
		}
	}
	return b.String()
}

// answers makes what a server says to a request; {h} in it are the fields that
// come back, each text is a datagram of its own.
type answers func(request string) []string

func say(texts ...string) answers {
	return func(request string) []string {
		out := make([]string, len(texts))
		for i, s := range texts {
			out[i] = strings.ReplaceAll(strings.ReplaceAll(s, "\n", "\r\n"), "{h}", sipHeaders(request))
		}
		return out
	}
}

func sipUDP(t *testing.T, network, addr string, a answers) string {
	t.Helper()
	pc, err := net.ListenPacket(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, s := range a(string(buf[:n])) {
				pc.WriteTo([]byte(s), from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().String()
}

func sipTCP(t *testing.T, network, addr string, a answers) string {
	return serve(t, network, addr, func(c net.Conn) {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(c)
		var request strings.Builder
		for !strings.HasSuffix(request.String(), "\r\n\r\n") {
			l, err := r.ReadString('\n')
			if err != nil {
				return
			}
			request.WriteString(l)
		}
		for _, s := range a(request.String()) {
			io.WriteString(c, s)
		}
		io.Copy(io.Discard, c)
	})
}

func TestSIP(t *testing.T) {
	const ok = "SIP/2.0 200 OK\n{h}Content-Length: 0\n\n"
	const late = "!no answer within TIME; ignored: 1 that were no answer to the request, the last: "
	for _, tc := range []struct {
		name string
		say  answers
		udp  string
		tcp  string // empty: as udp
	}{
		{"200", say(ok), "SIP/2.0 200 OK", ""},
		{"another word for OK", say("SIP/2.0 200 Fine, thanks\n{h}\n"), "SIP/2.0 200 Fine, thanks", ""},
		{"trying first", say("SIP/2.0 100 Trying\n{h}Content-Length: 3\n\nabc", ok), "SIP/2.0 200 OK", ""},
		{"short names, folded", func(r string) []string {
			return []string{strings.NewReplacer("Via:", "v:", "Call-ID: ", "i:\r\n ", "CSeq:", "cSEQ :").Replace(say(ok)(r)[0])}
		}, "SIP/2.0 200 OK", ""},
		{"proxies in the Via", func(r string) []string {
			return []string{strings.Replace(say(ok)(r)[0], ";rport", ";rport=5060;received=192.0.2.1, SIP/2.0/UDP x;branch=z9hG4bKother", 1)}
		}, "SIP/2.0 200 OK", ""},
		{"404", say("SIP/2.0 404 Not Found\n{h}\n"), `!"SIP/2.0 404 Not Found", wanted 200`, ""},
		{"202", say("SIP/2.0 202 Accepted\n{h}\n"), `!"SIP/2.0 202 Accepted", wanted 200`, ""},
		{"503", say("SIP/2.0 503 Service Unavailable\n{h}\n"), `!"SIP/2.0 503 Service Unavailable", wanted 200`, ""},
		{"the late answer to an earlier check, then ours", say("SIP/2.0 500 Old\nVia: SIP/2.0/UDP x;branch=z9hG4bKold\nCall-ID: old\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n", ok), "SIP/2.0 200 OK", ""},
		{"another branch", func(r string) []string { return []string{strings.Replace(say(ok)(r)[0], "z9hG4bK", "z9hG4bKx", 1)} },
			late + "an answer to another request", "!no answer within TIME"},
		{"another Call-ID", func(r string) []string { return []string{strings.Replace(say(ok)(r)[0], "Call-ID: ", "Call-ID: x", 1)} },
			late + "an answer to another request", "!no answer within TIME"},
		{"another method", func(r string) []string { return []string{strings.Replace(say(ok)(r)[0], "1 OPTIONS", "1 INVITE", 1)} },
			late + "an answer to another request", "!no answer within TIME"},
		{"no SIP", say("HTTP/1.1 200 OK\n{h}\n"), late + `not a SIP answer: "HTTP/1.1 200 OK"`, `!not a SIP answer: "HTTP/1.1 200 OK"`},
		{"trying without end", say("SIP/2.0 100 Trying\n{h}\n"), late + `"SIP/2.0 100 Trying"`, "!no answer within TIME"},
		{"a length of nonsense", say("SIP/2.0 200 OK\n{h}Content-Length: -1\n\n"), late + `bad Content-Length "-1"`, `!bad Content-Length "-1"`},
		{"silent", say(), "!no answer within TIME", ""},
	} {
		for _, udp := range []bool{true, false} {
			name, want := tc.name+" by TCP", tc.tcp
			if udp || want == "" {
				want = tc.udp
			}
			if udp {
				name = tc.name + " by UDP"
			}
			t.Run(name, func(t *testing.T) {
				var addr string
				if udp {
					addr = sipUDP(t, "udp", "127.0.0.1:0", tc.say)
				} else {
					addr = sipTCP(t, "tcp", "127.0.0.1:0", tc.say)
				}
				c := negotiate("sip", addr)
				c.UDP = udp
				expectOrSilence(t, c, want)
			})
		}
	}
	t.Run("by IPv6", func(t *testing.T) {
		expect(t, negotiate("sip", sipTCP(t, "tcp6", "[::1]:0", say(ok))), "SIP/2.0 200 OK")
		c := negotiate("sip", sipUDP(t, "udp6", "[::1]:0", say(ok)))
		c.UDP = true
		expect(t, c, "SIP/2.0 200 OK")
	})
}

func TestASIPServerThatDoesNotListen(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := pc.LocalAddr().String()
	pc.Close()
	c := negotiate("sip", addr)
	c.UDP = true
	expect(t, c, "!udp "+addr+": connection refused")
}

func TestASIPAnswerWithoutEnd(t *testing.T) {
	endless := func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, "SIP/2.0 200 OK\r\n"+strings.Repeat("X: y\r\n", 1000)); err != nil {
				return
			}
		}
	}
	expect(t, negotiate("sip", serve(t, "tcp", "127.0.0.1:0", endless)), "!the server sent more than 65536 bytes")
	skipped := sipTCP(t, "tcp", "127.0.0.1:0", say("SIP/2.0 100 Trying\n{h}Content-Length: 2147483647\n\n"+strings.Repeat("x", maxTalk)))
	expect(t, negotiate("sip", skipped), "!the server sent more than 65536 bytes")
}

func TestASIPQuestion(t *testing.T) {
	at := netip.MustParseAddrPort("[2001:db8::1]:40000")
	q := newSIPQuestion("UDP", at, "sip:ping@example.com", "alice@example.org")
	q.branch, q.callID, q.tag = "z9hG4bKB", "C", "T"
	want := "OPTIONS sip:ping@example.com SIP/2.0\n" +
		"Via: SIP/2.0/UDP [2001:db8::1]:40000;branch=z9hG4bKB;rport\n" +
		"Max-Forwards: 70\n" +
		"To: <sip:alice@example.org>\n" +
		"From: <sip:alice@example.org>;tag=T\n" +
		"Call-ID: C\n" +
		"CSeq: 1 OPTIONS\n" +
		"Contact: <sip:[2001:db8::1]:40000>\n" +
		"Accept: application/sdp\n" +
		"User-Agent: keepbeat\n" +
		"Content-Length: 0\n\n"
	if got := strings.ReplaceAll(string(q.render()), "\r\n", "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r := newSIPQuestion("UDP", at, "x", "y"); r.branch == newSIPQuestion("UDP", at, "x", "y").branch || !strings.HasPrefix(r.branch, "z9hG4bK") {
		t.Errorf("branch %s twice, or of before RFC 3261", r.branch)
	}
}

func FuzzSIP(f *testing.F) {
	for _, s := range []string{
		"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nCall-ID: c\r\nCSeq: 1  OPTIONS\r\nContent-Length: 0\r\n\r\n",
		"\r\n\r\nSIP/2.0 100\r\nv:x\r\n ;branch = y ,z;branch=q\r\nl: 99999999999\r\n", "SIP/2.0 99 x\n\n", "SIP/2.0 200 OK", "", "\n", " \n", "SIP/2.0 200\n: x\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		a, err := readSIP(linesOf(bytes.Clone(p)))
		if err == nil && (a.code < 100 || a.code > 699 || a.length < 0) {
			t.Errorf("%+v", a)
		}
		// Over TCP the same bytes mean the same, when they have an end.
		b, err2 := readSIP(linesFrom(bytes.NewReader(p)).line)
		if err2 == nil && (err != nil || a != b) {
			t.Errorf("by UDP %+v, %v; by TCP %+v", a, err, b)
		}
	})
}
