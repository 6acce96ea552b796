package checks

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	testSecret   = "shared secret of the two"
	testPassword = "a password of more than sixteen bytes"
)

func radiusTo(target netip.AddrPort) conf.Check {
	return conf.Check{
		Type: conf.Negotiate, Service: "radius", Target: target, Timeout: time.Minute,
		Login: "alice", Passwd: testPassword, Secret: testSecret,
	}
}

// radiusReply is what a server answers to a request.
type radiusReply struct {
	code       byte
	attributes []byte // before the Message-Authenticator
	unsigned   bool   // no Message-Authenticator
	secret     string // default testSecret
}

func (r radiusReply) to(request []byte) []byte {
	secret := []byte(testSecret)
	if r.secret != "" {
		secret = []byte(r.secret)
	}
	p := append([]byte{r.code, request[1], 0, 0}, request[4:20]...)
	p = append(p, r.attributes...)
	at := len(p) + 2
	if !r.unsigned {
		p = append(p, attrMessageAuthenticator, 18)
		p = append(p, make([]byte, 16)...)
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	if !r.unsigned {
		h := hmac.New(md5.New, secret)
		h.Write(p)
		copy(p[at:], h.Sum(nil))
	}
	sum := md5.Sum(append(bytes.Clone(p), secret...))
	copy(p[4:], sum[:])
	return p
}

// A server reads from the request what went into it.
func TestRadiusRequest(t *testing.T) {
	x := radiusExchange{id: [1]byte{7}, secret: []byte(testSecret)}
	for i := range x.authenticator {
		x.authenticator[i] = byte(i)
	}
	for _, tc := range []struct{ name, password, from, want string }{
		{"a short password by IPv4", "x", "127.0.0.1", "80:16 1:alice 2:16 4:\x7f\x00\x00\x01 32:keepbeat"},
		{"no password", "", "127.0.0.1", "80:16 1:alice 2:16 4:\x7f\x00\x00\x01 32:keepbeat"},
		{"sixteen bytes", "0123456789abcdef", "127.0.0.1", "80:16 1:alice 2:16 4:\x7f\x00\x00\x01 32:keepbeat"},
		{"more, by IPv6", testPassword, "::1", "80:16 1:alice 2:48 95:" + strings.Repeat("\x00", 15) + "\x01 32:keepbeat"},
	} {
		p := x.request("alice", []byte(tc.password), netip.MustParseAddr(tc.from))
		if p[0] != accessRequest || p[1] != 7 || int(binary.BigEndian.Uint16(p[2:])) != len(p) || !bytes.Equal(p[4:20], x.authenticator[:]) {
			t.Fatalf("%s: header % x", tc.name, p[:20])
		}
		var got []string
		for at := 20; at < len(p); at += int(p[at+1]) {
			v := p[at+2 : at+int(p[at+1])]
			switch p[at] {
			case attrMessageAuthenticator:
				q := bytes.Clone(p)
				clear(q[at+2 : at+18])
				h := hmac.New(md5.New, x.secret)
				h.Write(q)
				if !hmac.Equal(h.Sum(nil), v) {
					t.Errorf("%s: the Message-Authenticator is wrong", tc.name)
				}
				got = append(got, "80:16")
			case attrUserPassword:
				var plain []byte
				last := x.authenticator[:]
				for b := v; len(b) > 0; b = b[16:] {
					pad := md5.Sum(append([]byte(testSecret), last...))
					for i := range pad {
						plain = append(plain, b[i]^pad[i])
					}
					last = b[:16]
				}
				if string(bytes.TrimRight(plain, "\x00")) != tc.password {
					t.Errorf("%s: the password is %q", tc.name, plain)
				}
				got = append(got, "2:"+map[int]string{16: "16", 48: "48"}[len(v)])
			default:
				got = append(got, map[byte]string{1: "1:", 4: "4:", 32: "32:", 95: "95:"}[p[at]]+string(v))
			}
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%s:\ngot  %q\nwant %q", tc.name, s, tc.want)
		}
	}
}

func TestRadiusAnswers(t *testing.T) {
	message := func(s string) []byte { return append([]byte{attrReplyMessage, byte(len(s) + 2)}, s...) }
	one := func(r radiusReply) func([]byte) [][]byte {
		return func(q []byte) [][]byte { return [][]byte{r.to(q)} }
	}
	for _, tc := range []struct {
		name   string
		answer func([]byte) [][]byte
		want   string
	}{
		{"accepted", one(radiusReply{code: accessAccept, attributes: message("hello")}), "Access-Accept"},
		{"accepted by an old server", one(radiusReply{code: accessAccept, unsigned: true}), "Access-Accept without Message-Authenticator (CVE-2024-3596: update the server)"},
		{"with padding behind it", func(q []byte) [][]byte {
			return [][]byte{append(radiusReply{code: accessAccept}.to(q), 1, 2, 3)}
		}, "Access-Accept"},
		{"rejected", one(radiusReply{code: accessReject}), "!Access-Reject"},
		{"rejected with words", one(radiusReply{code: accessReject, attributes: message("go away\n")}), `!Access-Reject: "go away\n"`},
		{"words that hold the password", one(radiusReply{code: accessReject, attributes: message("not " + strings.ToUpper(testPassword))}), "!Access-Reject: (words that hold the password and are not shown)"},
		{"challenged", one(radiusReply{code: accessChallenge, attributes: message("token?")}), `!Access-Challenge: "token?": this user cannot log in by a password alone`},
		{"something else", one(radiusReply{code: 5}), "!an answer of code 5, wanted Access-Accept (2)"},
		{"foreign ones first", func(q []byte) [][]byte {
			other := bytes.Clone(q)
			other[1]++
			wrong := radiusReply{code: accessReject}.to(q)
			wrong[0] = accessAccept // changed on the way
			return [][]byte{nil, {1, 2}, q, radiusReply{code: accessReject}.to(other), wrong,
				radiusReply{code: accessReject, secret: "another"}.to(q), radiusReply{code: accessAccept}.to(q)}
		}, "Access-Accept"},
		{"another secret", one(radiusReply{code: accessAccept, secret: "another"}),
			"!no answer within TIME; ignored: 1 that were no answer to the request, the last: a wrong Response Authenticator; is the secret the server's?"},
		{"a wrong Message-Authenticator", one(radiusReply{code: accessAccept, unsigned: true, attributes: append([]byte{attrMessageAuthenticator, 18}, make([]byte, 16)...)}),
			"!no answer within TIME; ignored: 1 that were no answer to the request, the last: a wrong Message-Authenticator"},
		{"an empty Message-Authenticator", one(radiusReply{code: accessAccept, unsigned: true, attributes: []byte{attrMessageAuthenticator, 2}}),
			"!no answer within TIME; ignored: 1 that were no answer to the request, the last: a wrong Message-Authenticator"},
		{"an attribute without a length", one(radiusReply{code: accessAccept, unsigned: true, attributes: []byte{1, 0}}),
			"!no answer within TIME; ignored: 1 that were no answer to the request, the last: an answer whose attributes do not end where it ends"},
		{"silence", func([]byte) [][]byte { return nil }, "!no answer within TIME"},
	} {
		for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(tc.name+" "+addr, func(t *testing.T) {
				c := radiusTo(serveUDP(t, addr, tc.answer))
				expectOrSilence(t, c, tc.want)
			})
		}
	}
	closed := closedUDP(t, "127.0.0.1:0")
	expect(t, radiusTo(closed), "!udp "+closed.String()+": connection refused")
}

func TestRadiusSecretsFromFiles(t *testing.T) {
	dir := t.TempDir()
	c := radiusTo(serveUDP(t, "127.0.0.1:0", func(q []byte) [][]byte { return [][]byte{radiusReply{code: accessAccept}.to(q)} }))
	c.Secret, c.SecretFile = "", filepath.Join(dir, "secret")
	c.Passwd, c.PasswdFile = "", filepath.Join(dir, "password")
	if _, err := try(t, c); !Local(err) {
		t.Errorf("files that are not there: %v", err)
	}
	for name, s := range map[string]string{"secret": testSecret + "\n", "password": testPassword} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, c, "Access-Accept")
	if err := os.WriteFile(c.PasswdFile, make([]byte, 129), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "!password of 129 bytes: radius has room for 128")
}

func TestRadiusChecksThatCannotBe(t *testing.T) {
	for _, tc := range []struct {
		change func(*conf.Check)
		want   string
	}{
		{func(c *conf.Check) { c.Login = "" }, `service radius needs "login", a user that the server accepts`},
		{func(c *conf.Check) { c.Secret = "" }, `service radius needs "secret" or "secret_file", which it shares with the server`},
		{func(c *conf.Check) { c.Login = strings.Repeat("x", 254) }, "login of 254 bytes: radius has room for 253"},
		{func(c *conf.Check) { c.Passwd = strings.Repeat("x", 129) }, "passwd of 129 bytes: radius has room for 128"},
		{func(c *conf.Check) { c.Receive = "x" }, "service radius wants an accept and looks at nothing else: take receive out"},
	} {
		c := radiusTo(netip.MustParseAddrPort("127.0.0.1:1812"))
		tc.change(&c)
		if _, err := NewChecker(c); err == nil || err.Error() != tc.want {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
}

func FuzzRadiusAnswer(f *testing.F) {
	x := radiusExchange{id: [1]byte{7}, secret: []byte(testSecret)}
	request := x.request("alice", []byte("pw"), netip.MustParseAddr("127.0.0.1"))
	f.Add(radiusReply{code: accessAccept}.to(request)[20:], false)
	f.Add([]byte{attrReplyMessage, 4, 'h', 'i', attrMessageAuthenticator, 3, 0}, true)
	f.Add([]byte{0, 0}, true)
	f.Fuzz(func(t *testing.T, rest []byte, sign bool) {
		var p []byte
		if sign { // so that the fuzzer gets behind the first authenticator
			if len(rest) > radiusMax-100 {
				return
			}
			p = radiusReply{code: accessAccept, attributes: rest, unsigned: true}.to(request)
		} else {
			p = append([]byte{accessAccept, 7, 0, byte(20 + len(rest))}, make([]byte, 16)...)
			p = append(p, rest...)
		}
		detail, err := x.judge(p, []byte("pw"))
		if err == nil && (!sign || detail == "") {
			t.Errorf("believed %x: %q", p, detail)
		}
	})
}
