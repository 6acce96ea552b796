package checks

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// transcript plays the server's part of a conversation, line by line:
//
//	S: text     says text and CRLF
//	S| "text"   says a Go string as it is
//	C: text     the client has to say that
//	C~ regexp   the client has to say something like that
//	TLS         handshake
//	DATA: text  takes the data connection, sends text there and closes it; {port} and {pasv} name it
//	DATATLS: text
//	FLOOD "text" says it until the client has enough
//	DRIP "text" says it byte by byte, one in 10 ms, again and again
//	HANG        says nothing more and does not close
//	RESET       resets the connection
type transcript struct {
	t     *testing.T
	lines []string
	cert  tls.Certificate

	conn net.Conn
	r    *bufio.Reader
	data net.Listener
}

// scripted serves each connection by the transcript and closes it.
func scripted(t *testing.T, network, text string) (addr string) {
	t.Helper()
	host := "127.0.0.1:0"
	if network == "tcp6" {
		host = "[::1]:0"
	}
	data, err := net.Listen(network, host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { data.Close() })
	_, port, _ := net.SplitHostPort(data.Addr().String())
	n, _ := strconv.Atoi(port)
	text = strings.NewReplacer("{port}", port, "{pasv}", strconv.Itoa(n>>8)+","+strconv.Itoa(n&255)).Replace(text)
	s := &transcript{t: t, data: data, cert: testCertificate()}
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" {
			s.lines = append(s.lines, l)
		}
	}
	l, err := net.Listen(network, host)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				one := *s
				one.play(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return l.Addr().String()
}

// testCertificate is the one of httptest, for example.com and 127.0.0.1.
func testCertificate() tls.Certificate {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return s.TLS.Certificates[0]
}

func (s *transcript) play(c net.Conn) {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	s.take(c)
	for _, l := range s.lines {
		if !s.step(l) {
			return
		}
	}
	s.conn.Close() // TLS: with close_notify
}

func (s *transcript) take(c net.Conn) { s.conn, s.r = c, bufio.NewReader(c) }

func (s *transcript) step(l string) (on bool) {
	word, rest, _ := strings.Cut(l, " ")
	switch word {
	case "S:":
		return s.write(rest + "\r\n")
	case "S|":
		return s.write(s.unquote(rest))
	case "C:", "C~":
		got, err := s.r.ReadString('\n')
		got = strings.TrimSuffix(got, "\r\n")
		if word == "C:" {
			rest = "^" + regexp.QuoteMeta(rest) + "$"
		}
		if err != nil || !regexp.MustCompile(rest).MatchString(got) {
			s.t.Errorf("the client said %q (%v), the transcript has %s", got, err, l)
			return false
		}
	case "TLS":
		c := tls.Server(s.conn, &tls.Config{Certificates: []tls.Certificate{s.cert}})
		if err := c.Handshake(); err != nil {
			return false
		}
		s.take(c)
	case "DATA:", "DATATLS:":
		c, err := s.data.Accept()
		if err != nil {
			s.t.Error(err)
			return false
		}
		if word == "DATATLS:" {
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{s.cert}})
		}
		io.WriteString(c, rest)
		c.Close()
	case "FLOOD":
		for p := strings.Repeat(s.unquote(rest), 100); s.write(p); {
		}
		return false
	case "DRIP":
		for text := s.unquote(rest); ; {
			for _, b := range []byte(text) {
				time.Sleep(10 * time.Millisecond) // slowness is the case
				if !s.write(string(b)) {
					return false
				}
			}
		}
	case "HANG":
		io.Copy(io.Discard, s.conn) // the client may shut its side alone
		<-s.t.Context().Done()
		return false
	case "RESET":
		s.conn.(*net.TCPConn).SetLinger(0)
		s.conn.Close()
		return false
	default:
		s.t.Errorf("transcript: %q is not known", l)
		return false
	}
	return true
}

func (s *transcript) unquote(q string) string {
	text, err := strconv.Unquote(q)
	if err != nil {
		s.t.Errorf("transcript: %s: %v", q, err)
	}
	return text
}

func (s *transcript) write(text string) bool {
	_, err := io.WriteString(s.conn, text)
	return err == nil
}

// talk is a case of a test by transcripts: want is the detail, or with a
// leading "!" the error. One that ends with "no answer within TIME" is up to
// expectSilence.
type talk struct {
	name string
	with func(*conf.Check) // nil: the plain check
	text string
	want string
}

func converse(t *testing.T, service string, talks []talk) {
	for _, tc := range talks {
		t.Run(tc.name, func(t *testing.T) {
			c := negotiate(service, scripted(t, "tcp", tc.text))
			if tc.with != nil {
				tc.with(&c)
			}
			expectOrSilence(t, c, tc.want)
		})
	}
	// The first, once more by IPv6.
	t.Run("by IPv6", func(t *testing.T) {
		c := negotiate(service, scripted(t, "tcp6", talks[0].text))
		if talks[0].with != nil {
			talks[0].with(&c)
		}
		expect(t, c, talks[0].want)
	})
}

func negotiate(service, addr string) conf.Check {
	return conf.Check{Type: conf.Negotiate, Service: service, Target: netip.MustParseAddrPort(addr), Timeout: 10 * time.Second}
}

// expectOrSilence is expectSilence when want is of a deadline, otherwise expect.
func expectOrSilence(t *testing.T, c conf.Check, want string) {
	t.Helper()
	if strings.Contains(want, "no answer within TIME") {
		expectSilence(t, c, want)
	} else {
		expect(t, c, want)
	}
}

// expectSilence runs a check that ends at its deadline, in the step of want. A
// busy machine may spend the time before that step: then the check gets more,
// by little, since after a second a request by UDP is sent again.
func expectSilence(t *testing.T, c conf.Check, want string) {
	t.Helper()
	for c.Timeout = 200 * time.Millisecond; ; c.Timeout += 200 * time.Millisecond {
		got, err := try(t, c)
		if err != nil {
			got = "!" + words(err.Error())
		}
		want := strings.Replace(want, "TIME", c.Timeout.String(), 1)
		if got == want {
			return
		}
		if c.Timeout > 5*time.Second || !isTimeout(err) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

func starttls(c *conf.Check) { c.STARTTLS = true }
func asAlice(c *conf.Check)  { c.Login, c.Passwd = "alice", "wonder land" }

// Whatever the protocol, a hostile server costs a bounded amount of time and
// memory, and what it said is quoted.
func TestHostileGreetings(t *testing.T) {
	long := `"` + strings.Repeat("x", 5000) + `"`
	for _, tc := range []talk{
		{"closed at once", nil, "", "!greeting: connection closed without an answer"},
		{"closed in the middle", nil, `S| "22"`, `!greeting: connection closed in the middle of "22"`},
		{"reset", nil, "RESET", "!greeting: read: connection reset by peer"},
		{"reset in the middle of a line", nil, "S| \"220 he\"\nRESET", "!greeting: read: connection reset by peer"},
		{"silent", nil, "HANG", "!greeting: no answer within TIME"},
		{"a byte now and then", nil, `DRIP "220 hello, this greeting takes all the time that there is, and more than a client would wait"`, "!greeting: no answer within TIME"},
		{"no line end", nil, "FLOOD " + long, "!greeting: the server sent a line of more than 4096 bytes"},
		{"continued without end", nil, `FLOOD "220-and\r\n"`, "!greeting: the server sent more than 65536 bytes"},
		{"empty lines without end", nil, `FLOOD "\r\n"`, `!greeting: "" does not begin with a code of three digits`},
		{"another protocol", nil, "S: SSH-2.0-OpenSSH_9.2", `!greeting: "SSH-2.0-OpenSSH_9.2" does not begin with a code of three digits`},
		{"no UTF-8, and NUL", nil, `S| "554 \xff\xfe\x00\x1b[2J\r\n"`, `!greeting: "554 \xff\xfe\x00\x1b[2J", wanted 220`},
		{"a long refusal", nil, "S: 554 " + strings.Repeat("no ", 100), `!greeting: "554 no no no no no no no no no no no no no no no no no no no"..., wanted 220`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, service := range []string{"smtp", "ftp"} {
				c := negotiate(service, scripted(t, "tcp", tc.text))
				if tc.with != nil {
					tc.with(&c)
				}
				want := tc.want
				if service == "ftp" {
					want = strings.Replace(want, "wanted 220", "wanted 120 or 220", 1)
				}
				switch {
				case strings.Contains(want, "TIME"):
					expectSilence(t, c, want)
				case strings.Contains(tc.text, "RESET"):
					// It may come before a busy client has seen that it is connected.
					if _, err := try(t, c); !errors.Is(err, unix.ECONNRESET) {
						t.Errorf("got %v, want %s", err, want)
					}
				default:
					expect(t, c, want)
				}
			}
		})
	}
}

func TestAServerThatRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, service := range []string{"smtp", "submission", "smtps", "pop", "pops", "imap", "imaps", "nntp", "ftp", "simpletcp", "sip"} {
		expect(t, negotiate(service, addr), "!connect "+addr+": connection refused")
	}
}

func TestAPasswordIsReadFromItsFileForEachCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	c := negotiate("pop", scripted(t, "tcp", "S: +OK\nC: USER alice\nS: +OK\nC: PASS wonder land\nS: +OK\nC: QUIT\nS: +OK"))
	c.Login, c.PasswdFile = "alice", file
	k, err := NewChecker(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ content, want string }{
		{"wonder land\n", ""},
		{"wonder\nland\n", "password from " + file + " holds a line end or NUL, which cannot be sent"},
		{"wonder land", ""},
	} {
		if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Check(t.Context()); tc.want == "" && err != nil || tc.want != "" && (!Local(err) || err.Error() != tc.want) {
			t.Errorf("with %q: %v, want %q", tc.content, err, tc.want)
		}
	}
	os.Remove(file)
	if _, err := k.Check(t.Context()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), file) {
		t.Errorf("without the file: %v", err)
	}
}

// A server that says the password back must not get it into a log.
func TestAPasswordIsNotShown(t *testing.T) {
	const hidden = notShown
	for _, tc := range []struct{ name, service, password, text, want string }{
		{"before we have said it", "pop", "wonder", "S: -ERR it was wonder\n", "greeting: " + hidden + ", wanted +OK"},
		{"POP3", "pop", "wonder", "S: +OK\nC: USER alice\nS: +OK\nC: PASS wonder\nS: -ERR no user alice with wonder\n", "PASS: " + hidden + ", wanted +OK"},
		{"in capitals", "pop", "wonder", "S: +OK\nC: USER alice\nS: +OK\nC: PASS wonder\nS: -ERR WONDER?\n", "PASS: " + hidden + ", wanted +OK"},
		{"in the middle of a line", "pop", "wonder", "S: +OK\nC: USER alice\nS: +OK\nC: PASS wonder\nS| \"-ERR wonder\"\n", "PASS: connection closed in the middle of " + hidden},
		{"IMAP", "imap", `a"b`, "S: * OK\nC: k2 LOGIN \"alice\" \"a\\\"b\"\nS: k2 BAD LOGIN \"alice\" \"a\\\"b\"\n", "LOGIN: " + hidden + ", wanted OK of k2"},
		{"NNTP", "nntp", "wonder", "S: 200\nC: AUTHINFO USER alice\nS: 381\nC: AUTHINFO PASS wonder\nS: 481 AUTHINFO PASS wonder\n", "AUTHINFO PASS: " + hidden + ", wanted 281"},
		{"FTP", "ftp", "wonder", "S: 220\nC: USER alice\nS: 331\nC: PASS wonder\nS: 530 not PASS wonder\n", "PASS: " + hidden + ", wanted 230 or 202"},
		{"FTP, later", "ftp", "wonder", "S: 220\nC: USER alice\nS: 331\nC: PASS wonder\nS: 230\nC: QUIT\nS: 500 wonder\n", "QUIT: " + hidden + ", wanted goodbye"},
		{"none", "pop", "", "S: +OK\nC: USER alice\nS: -ERR go away\n", `USER: "-ERR go away", wanted +OK`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := negotiate(tc.service, scripted(t, "tcp", tc.text))
			c.Login, c.Passwd = "alice", tc.password
			expect(t, c, "!"+tc.want)
		})
	}
}

// What somebody on the way puts behind the agreement to STARTTLS must not pass
// for what the server says under TLS.
func TestResponsesInjectedBeforeTLS(t *testing.T) {
	for _, tc := range []struct{ service, text, step string }{
		{"smtp", "S: 220 x\nC~ EHLO .*\nS: 250 STARTTLS\nC: STARTTLS\nS| \"220 go\\r\\n250 x\\r\\n\"\nHANG", "STARTTLS"},
		{"pop", "S: +OK\nC: STLS\nS| \"+OK\\r\\n+OK\\r\\n\"\nHANG", "STLS"},
		{"imap", "S: * OK\nC: k1 STARTTLS\nS| \"k1 OK\\r\\nk2 OK\\r\\n\"\nHANG", "STARTTLS"},
		{"nntp", "S: 200\nC: STARTTLS\nS| \"382\\r\\n200\\r\\n\"\nHANG", "STARTTLS"},
		{"ftp", "S: 220\nC: AUTH TLS\nS| \"234\\r\\n200\\r\\n\"\nHANG", "AUTH TLS"},
	} {
		c := negotiate(tc.service, scripted(t, "tcp", tc.text))
		c.STARTTLS = true
		_, err := try(t, c)
		if err == nil || !strings.HasPrefix(err.Error(), tc.step+": more in plain text before the TLS handshake: \"") {
			t.Errorf("%s: %v", tc.service, err)
		}
	}
}

func TestLineServicesAreValidated(t *testing.T) {
	for _, tc := range []struct {
		name, service string
		with          func(*conf.Check)
		want          string
	}{
		{"no port", "smtp", func(c *conf.Check) { c.Target = netip.AddrPortFrom(c.Target.Addr(), 0) }, "checktype negotiate of 127.0.0.1 needs a port: give the real server one, or set checkport"},
		{"TLS twice", "imaps", starttls, "service imaps has TLS from the start: leave starttls out"},
		{"a login of two lines", "pop", func(c *conf.Check) { c.Login = "a\r\nb" }, "login holds a line end or NUL, which cannot be sent"},
		{"a password of two lines", "imap", func(c *conf.Check) { c.Login, c.Passwd = "a", "secret\nline" }, "passwd holds a line end or NUL, which cannot be sent"},
		{"NUL in a password", "nntp", func(c *conf.Check) { c.Login, c.Passwd = "a", "\x00" }, "passwd holds a line end or NUL, which cannot be sent"},
		{"a password of nobody", "pop", func(c *conf.Check) { c.Passwd = "x" }, "passwd without login: say whose password it is"},
		{"login of smtp", "smtp", asAlice, "login: a check of service smtp does not log in; take it out"},
		{"a bad expression", "imap", func(c *conf.Check) { c.Receive = "(" }, "receive \"(\": error parsing regexp: missing closing ): `(` (expressions are RE2: no look-ahead, no back-references)"},
		{"a file name of two lines", "ftp", func(c *conf.Check) { c.Request = "a\nDELE b" }, "request holds a line end or NUL, which cannot be sent"},
		{"receive without a file", "ftp", func(c *conf.Check) { c.Receive = "ok" }, "receive looks at the content of a file: name the file in request, or leave receive out"},
		{"authorities that are not there", "pops", func(c *conf.Check) { c.TLSVerify, c.TLSCA = true, "/nonexistent.pem" }, "tls_ca: open /nonexistent.pem: no such file or directory"},
		{"an unknown escape", "simpletcp", func(c *conf.Check) { c.Request = `a\q` }, `request "a\\q": \q is not known; \n, \r, \t, \xNN and \\ are`},
		{"half an escape", "simpletcp", func(c *conf.Check) { c.Request = `a\x1` }, `request "a\\x1": \x needs two hexadecimal digits`},
		{"an escape of nothing", "simpletcp", func(c *conf.Check) { c.Request = `a\` }, `request "a\\": it ends with a single \; write \\ for that character`},
		{"a SIP URI of something else", "sip", func(c *conf.Check) { c.Request = "/" }, `request "/" is no URI of service sip: sip:USER@HOST, or leave it out`},
		{"a SIP URI with a blank", "sip", func(c *conf.Check) { c.Request = "sip:a b" }, `request "sip:a b": ' ' cannot be part of a SIP URI`},
		{"a SIP user that ends the field", "sip", func(c *conf.Check) { c.Login = "a>\r\nX: y" }, `login "a>\r\nX: y": '>' cannot be part of a SIP URI`},
	} {
		c := negotiate(tc.service, "127.0.0.1:1")
		tc.with(&c)
		if _, err := NewChecker(c); err == nil || err.Error() != tc.want {
			t.Errorf("%s:\ngot  %v\nwant %s", tc.name, err, tc.want)
		}
	}
}
