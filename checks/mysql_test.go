package checks

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

const testScramble = "0123456789abcdefghij"

// mysqlServer is a server's side of a connection.
type mysqlServer struct {
	net.Conn
	seq byte
}

func (s *mysqlServer) send(p ...string) {
	for _, p := range p {
		s.Write(append([]byte{byte(len(p)), byte(len(p) >> 8), byte(len(p) >> 16), s.seq}, p...))
		s.seq++
	}
}

func (s *mysqlServer) read() []byte {
	head := make([]byte, 4)
	if _, err := io.ReadFull(s, head); err != nil {
		return nil
	}
	p := make([]byte, int(head[0])|int(head[1])<<8)
	io.ReadFull(s, p)
	s.seq = head[3] + 1
	return p
}

// mysqlGreets is the greeting of a server with a default method.
func mysqlGreets(plugin string) string {
	caps := uint32(mysqlProtocol41 | mysqlTLS | mysqlSecureConnection | mysqlPluginAuth | mysqlConnectWithDB)
	p := append([]byte{10}, "8.0.36\x00\x01\x00\x00\x00"+testScramble[:8]+"\x00"...)
	p = binary.LittleEndian.AppendUint16(p, uint16(caps))
	p = append(p, 33, 2, 0)
	p = binary.LittleEndian.AppendUint16(p, uint16(caps>>16))
	p = append(p, 21)
	p = append(p, make([]byte, 10)...)
	return string(p) + testScramble[8:] + "\x00" + plugin + "\x00"
}

const (
	mysqlOKPacket  = "\x00\x00\x00\x02\x00\x00\x00"
	mysqlEOFPacket = "\xfe\x00\x00\x02\x00"
)

func mysqlTo(addr string) conf.Check {
	return conf.Check{
		Type: conf.Negotiate, Service: "mysql", Target: netip.MustParseAddrPort(addr), Timeout: time.Minute,
		Login: "probe", Passwd: "probe-password",
	}
}

// loginOf takes the proof and the method from an answer to the greeting.
func loginOf(p []byte) (user, proof, plugin string) {
	name, rest, _ := bytes.Cut(p[32:], []byte{0})
	n := int(rest[0])
	rest2, _, _ := bytes.Cut(rest[1+n:], []byte{0})
	return string(name), string(rest[1 : 1+n]), string(rest2)
}

// provesNative is how a server looks at a proof of mysql_native_password, from
// what it keeps of a password: the SHA1 of its SHA1.
func provesNative(proof, scramble, password string) bool {
	once := sha1.Sum([]byte(password))
	kept := sha1.Sum(once[:])
	mix := sha1.Sum(append([]byte(scramble), kept[:]...))
	for i := range min(len(proof), len(mix)) {
		mix[i] ^= proof[i]
	}
	return len(proof) == len(mix) && sha1.Sum(mix[:]) == kept
}

// provesSHA2 is the same of caching_sha2_password.
func provesSHA2(proof, scramble, password string) bool {
	once := sha256.Sum256([]byte(password))
	kept := sha256.Sum256(once[:])
	mix := sha256.Sum256(append(kept[:], scramble...))
	for i := range min(len(proof), len(mix)) {
		mix[i] ^= proof[i]
	}
	return len(proof) == len(mix) && sha256.Sum256(mix[:]) == kept
}

func TestMySQLLogins(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	defer web.Close()
	cert := &tls.Config{Certificates: web.TLS.Certificates}

	opened := func(sealed []byte, scramble string) string {
		p, err := rsa.DecryptOAEP(sha1.New(), nil, key, sealed, nil)
		if err != nil {
			return err.Error()
		}
		for i := range p {
			p[i] ^= scramble[i%len(scramble)]
		}
		return string(p)
	}
	verdict := func(s *mysqlServer, ok bool) {
		if ok {
			s.send(mysqlOKPacket)
		} else {
			s.send("\xff\x15\x04#28000Access denied")
		}
	}
	const up = `logged in to "8.0.36"`
	for _, tc := range []struct {
		name, plugin, want string
		starttls           bool
		handle             func(s *mysqlServer, proof, plugin string)
	}{
		{"native", "mysql_native_password", up, false, func(s *mysqlServer, proof, plugin string) {
			verdict(s, plugin == "mysql_native_password" && provesNative(proof, testScramble, "probe-password"))
		}},
		{"the wrong password", "mysql_native_password", `!error 1045: "Access denied"`, false, func(s *mysqlServer, proof, _ string) {
			verdict(s, provesNative(proof, testScramble, "another"))
		}},
		{"SHA-256 that the server has in its cache", "caching_sha2_password", up, false, func(s *mysqlServer, proof, _ string) {
			s.send("\x01\x03")
			verdict(s, provesSHA2(proof, testScramble, "probe-password"))
		}},
		{"SHA-256 that it has not, sealed by its key", "caching_sha2_password", up, false, func(s *mysqlServer, _, _ string) {
			s.send("\x01\x04")
			if string(s.read()) != "\x02" {
				return
			}
			s.send("\x01" + public)
			verdict(s, opened(s.read(), testScramble) == "probe-password\x00")
		}},
		{"SHA-256 that it has not, over TLS", "caching_sha2_password", up, true, func(s *mysqlServer, _, _ string) {
			s.send("\x01\x04")
			verdict(s, string(s.read()) == "probe-password\x00")
		}},
		{"sha256_password, sealed", "sha256_password", up, false, func(s *mysqlServer, proof, _ string) {
			s.send("\x01" + public)
			verdict(s, proof == "\x01" && opened(s.read(), testScramble) == "probe-password\x00")
		}},
		{"sha256_password over TLS", "sha256_password", up, true, func(s *mysqlServer, proof, _ string) { verdict(s, proof == "probe-password\x00") }},
		{"another method and scramble", "caching_sha2_password", up, false, func(s *mysqlServer, _, _ string) {
			other := strings.ToUpper(testScramble)
			s.send("\xfemysql_native_password\x00" + other + "\x00")
			verdict(s, provesNative(string(s.read()), other, "probe-password"))
		}},
		{"a default method that is not known", "parsec", up, false, func(s *mysqlServer, proof, plugin string) {
			verdict(s, plugin == "mysql_native_password" && provesNative(proof, testScramble, "probe-password"))
		}},
		{"a method of the user that is not known", "mysql_native_password", `!the server wants to authenticate by "client_ed25519", which is not known here; mysql_native_password and caching_sha2_password are`, false,
			func(s *mysqlServer, _, _ string) { s.send("\xfeclient_ed25519\x00" + testScramble) }},
		{"a method with the password in its name", "mysql_native_password", "!the server wants to authenticate by (words that hold the password and are not shown), which is not known here; mysql_native_password and caching_sha2_password are", false,
			func(s *mysqlServer, _, _ string) { s.send("\xfePROBE-password\x00" + testScramble) }},
		{"in the clear over TLS", "mysql_native_password", up, true, func(s *mysqlServer, _, _ string) {
			s.send("\xfemysql_clear_password\x00")
			verdict(s, string(s.read()) == "probe-password\x00")
		}},
		{"in the clear", "mysql_native_password", "!the server wants the password in the clear: set starttls", false,
			func(s *mysqlServer, _, _ string) { s.send("\xfemysql_clear_password\x00"); s.read() }},
		{"as before 4.1", "mysql_native_password", "!the server wants a password of before MySQL 4.1, which cannot be sent safely: that method is not known here", false,
			func(s *mysqlServer, _, _ string) { s.send("\xfe"); s.read() }},
		{"a key that is none", "sha256_password", "!not a well-formed MySQL packet", false, func(s *mysqlServer, _, _ string) { s.send("\x01no key"); s.read() }},
		{"methods without end", "mysql_native_password", "!not a well-formed MySQL packet", false, func(s *mysqlServer, _, _ string) {
			for range 20 {
				s.send("\xfemysql_native_password\x00" + testScramble + "\x00")
				s.read()
			}
		}},
		{"packets out of order", "mysql_native_password", "!not a well-formed MySQL packet: packets are out of order", false,
			func(s *mysqlServer, _, _ string) { s.seq = 9; s.send(mysqlOKPacket); s.read() }},
		{"words that hold the password", "mysql_native_password", "!error 1045: (words that hold the password and are not shown)", false,
			func(s *mysqlServer, _, _ string) { s.send("\xff\x15\x04#28000not probe-password") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mysqlTo(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				s := &mysqlServer{Conn: c}
				s.send(mysqlGreets(tc.plugin))
				p := s.read()
				if tc.starttls {
					if len(p) != 32 || binary.LittleEndian.Uint32(p)&mysqlTLS == 0 {
						return
					}
					s.Conn = tls.Server(c, cert)
					p = s.read()
				}
				if len(p) < 34 {
					return
				}
				if user, proof, plugin := loginOf(p); user == "probe" {
					tc.handle(s, proof, plugin)
				}
				io.Copy(io.Discard, s)
			}))
			c.STARTTLS = tc.starttls
			expect(t, c, tc.want)
		})
	}
}

// The figures are those of other clients of the protocol.
func TestMySQLProofs(t *testing.T) {
	scramble := []byte{10, 47, 74, 111, 75, 73, 34, 48, 88, 76, 114, 74, 37, 13, 3, 80, 82, 2, 23, 21}
	for password, want := range map[string]string{
		"secret":  "f490e76f66d9d86665ce54d98c78d0acfe2fb0b08b423da807144873d30b312c",
		"secret2": "abc3934a012cf342e876071c8ee202de51785b430258a7a0138bc79c4d800bc6",
	} {
		if got := hex.EncodeToString(sha2Password([]byte(password), scramble)); got != want {
			t.Errorf("%s: %s", password, got)
		}
	}
	if sha2Password(nil, scramble) != nil || nativePassword(nil, scramble) != nil {
		t.Error("no password has a proof")
	}
}

func TestMySQLGreetings(t *testing.T) {
	for _, tc := range []struct{ name, greeting, want string }{
		{"refused as nobody", mysqlGreets("mysql_native_password"), `greets as "8.0.36"`},
		{"this node's address refused", "\xff\x6a\x04Host '10.0.0.1' is not allowed to connect", "works, and lets nobody in from this node's address (error 1130)"},
		{"blocked", "\xff\x69\x04Host '10.0.0.1' is blocked", `!error 1129: "Host '10.0.0.1' is blocked"`},
		{"too many connections", "\xff\x10\x04#08004Too many connections", `!error 1040: "Too many connections"`},
		{"another protocol", "\x09 5.0", `!not a greeting of MySQL: "\t 5.0"`},
		{"a very short greeting", "\x0ax", "!not a well-formed MySQL packet"},
		{"a greeting of 3.23", "\x0a3.23\x00\x01\x00\x00\x0001234567\x00\x00\x00", "!the server is older than MySQL 4.1"},
		{"a greeting that ends early", mysqlGreets("")[:40], "!the server is older than MySQL 4.1"},
		{"an empty packet", "", "!not a well-formed MySQL packet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mysqlTo(serve(t, "tcp", "[::1]:0", func(c net.Conn) {
				s := &mysqlServer{Conn: c}
				s.send(tc.greeting)
				if p := s.read(); p == nil {
					return
				}
				s.send("\xff\x15\x04#28000Access denied for user ''")
				io.Copy(io.Discard, c)
			}))
			c.Login, c.Passwd = "", ""
			expect(t, c, tc.want)
		})
	}
}

// It may know the password from an earlier check.
func TestAGreetingOfMySQLThatHoldsThePasswordIsNotShown(t *testing.T) {
	for greeting, want := range map[string]string{
		"\x09probe-password":         "!not a greeting of MySQL: (words that hold the password and are not shown)",
		"\xff\x69\x04probe-password": "!error 1129: (words that hold the password and are not shown)",
	} {
		c := mysqlTo(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
			(&mysqlServer{Conn: c}).send(greeting)
			io.Copy(io.Discard, c)
		}))
		expect(t, c, want)
	}
}

// MySQL and MariaDB count who hangs up in the middle of a login, and block a
// machine that has done so often enough.
func TestNobodyNeverHangsUpOnMySQL(t *testing.T) {
	for _, tc := range []struct{ name, method, answer string }{
		{"a method that is known", "mysql_native_password\x00" + testScramble + "\x00", ""},
		{"one that is not", "client_ed25519\x00" + strings.Repeat("x", 32), strings.Repeat("\x00", 64)},
		{"a password in the clear", "mysql_clear_password\x00", "\x00"},
		{"one of before 4.1", "", strings.Repeat("\x00", 64)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mysqlTo(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				s := &mysqlServer{Conn: c}
				s.send(mysqlGreets("mysql_native_password"))
				s.read()
				s.send("\xfe" + tc.method)
				if p := s.read(); p == nil || string(p) != tc.answer {
					t.Errorf("answered %q, want %q", p, tc.answer)
				}
				s.send("\xff\x15\x04#28000Access denied for user ''")
				io.Copy(io.Discard, c)
			}))
			c.Login, c.Passwd = "", ""
			expect(t, c, `greets as "8.0.36"`)
		})
	}
}

func TestMySQLQueries(t *testing.T) {
	column := "\x03def\x00\x00\x00\x01a\x00\x0c\x21\x00\x00\x00\x00\x00\xfd\x00\x00\x00\x00\x00"
	head := []string{"\x02", column, column, mysqlEOFPacket}
	rows := func(rows ...string) []string {
		return append(append(append([]string(nil), head...), rows...), mysqlEOFPacket)
	}
	many := make([]string, maxRows+5)
	for i := range many {
		many[i] = "\x01x\xfb"
	}
	for _, tc := range []struct {
		name, receive string
		answer        []string
		want          string
	}{
		{"a row", "", rows("\x01x\x01y"), "the query gave a row"},
		{"a row of nothing", "", rows("\xfb\xfb"), "the query gave a row"},
		{"no row", "", rows(), "!the query gave no row"},
		{"a value", "^y$", rows("\x01x\xfb", "\xfb\x01y"), `match for "^y$"`},
		{"a long value", "^z+$", rows("\x01x\xfc\x2c\x01" + strings.Repeat("z", 300)), `match for "^z+$"`},
		{"another value", "^z$", rows("\x01x\x01y"), `!no match for "^z$" in 1 rows`},
		{"NULL is no text", "NULL", rows("\xfb\xfb"), `!no match for "NULL" in 1 rows`},
		{"rows without end", "^z$", rows(many...), `!no match for "^z$" in 1000 rows`},
		{"a statement", "", []string{mysqlOKPacket}, "!the query gave no row"},
		{"an error", "", []string{"\xff\x7a\x04#42S02Table 'x' doesn't exist"}, `!query: error 1146: "Table 'x' doesn't exist"`},
		{"an error between rows", "^z$", append(rows("\x01x\x01y")[:5], "\xff\x25\x05#70100interrupted"), `!query: error 1317: "interrupted"`},
		{"a file of this machine", "", []string{"\xfb/etc/shadow"}, "!query: the server asks for a file of this machine"},
		{"a value beyond its row", "", rows("\x05x"), "!query: not a well-formed MySQL packet"},
		{"a row that is too short", "", rows("\x01x"), "!query: not a well-formed MySQL packet"},
		{"a value of 2^63 bytes", "", rows("\x01x\xfe\xff\xff\xff\xff\xff\xff\xff\xff y"), "!query: not a well-formed MySQL packet"},
		{"columns without end", "", []string{"\xfd\xff\xff\xff"}, "!query: not a well-formed MySQL packet"},
		{"fewer columns than it says", "", []string{"\x02", column, mysqlEOFPacket}, "!query: not a well-formed MySQL packet"},
		{"more columns than it says", "", []string{"\x01", column, column}, "!query: not a well-formed MySQL packet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ended := make(chan string, 1)
			c := mysqlTo(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				s := &mysqlServer{Conn: c}
				s.send(mysqlGreets("mysql_native_password"))
				s.read()
				s.send(mysqlOKPacket)
				asked := string(s.read())
				s.send(tc.answer...)
				ended <- asked + "|" + string(s.read())
			}))
			c.Request, c.Receive = "/SELECT * FROM x", tc.receive
			expect(t, c, tc.want)
			want := "\x03SELECT * FROM x|"
			if tc.want[0] != '!' {
				want += "\x01" // COM_QUIT
			}
			if got := <-ended; got != want {
				t.Errorf("the server got %q, want %q", got, want)
			}
		})
	}
}

func TestSQLChecksThatCannotBe(t *testing.T) {
	for _, tc := range []struct {
		change func(*conf.Check)
		want   string
	}{
		{func(c *conf.Check) { c.Login = "" }, "passwd without login: say whose password it is"},
		{func(c *conf.Check) { c.Login, c.Passwd, c.Request = "", "", "SELECT 1" }, "request and database of service mysql need login: nobody is asked before"},
		{func(c *conf.Check) { c.Login, c.Passwd, c.Database = "", "", "x" }, "request and database of service mysql need login: nobody is asked before"},
		{func(c *conf.Check) { c.Receive = "x" }, "receive of service mysql looks at the rows of a query: write it as request"},
		{func(c *conf.Check) { c.Login = "x\x00y" }, "login, passwd, database and request cannot hold NUL"},
		{func(c *conf.Check) { c.Request, c.Receive = "SELECT 1", "(" }, "receive \"(\": error parsing regexp: missing closing ): `(` (expressions are RE2: no look-ahead, no back-references)"},
		{func(c *conf.Check) { c.Target = netip.AddrPortFrom(c.Target.Addr(), 0) }, "checktype negotiate of 127.0.0.1 needs a port: give the real server one, or set checkport"},
	} {
		c := mysqlTo("127.0.0.1:3306")
		tc.change(&c)
		if _, err := NewChecker(c); err == nil || err.Error() != tc.want {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
}

func FuzzMySQL(f *testing.F) {
	packets := func(p ...string) (b []byte) {
		var buf bytes.Buffer
		s := &mysqlServer{Conn: writeOnly{&buf}}
		for _, p := range p {
			s.send(p)
		}
		return buf.Bytes()
	}
	f.Add(packets(mysqlGreets("mysql_native_password")), append(packets("\x00\x00"+mysqlOKPacket), packets("\x01", "\x03def", mysqlEOFPacket, "\x01x", mysqlEOFPacket)...))
	f.Add(packets(mysqlGreets("caching_sha2_password"), "\x01\x04"), []byte{})
	f.Add(packets("\xff\x10\x04#08004no"), []byte{})
	f.Fuzz(func(t *testing.T, greeting, rest []byte) {
		m := &mysqlConn{s: memoryStream(append(append([]byte(nil), greeting...), rest...)), password: []byte("pw")}
		m.login("probe", "shop", nil)
		m = &mysqlConn{s: memoryStream(rest), password: []byte("pw")}
		rows := sqlRows{}
		if m.query("SELECT 1", &rows) == nil && rows.rows > maxRows {
			t.Errorf("%d rows", rows.rows)
		}
	})
}

// writeOnly is a connection to memory.
type writeOnly struct{ io.Writer }

func (writeOnly) Read([]byte) (int, error)         { return 0, io.EOF }
func (writeOnly) Close() error                     { return nil }
func (writeOnly) LocalAddr() net.Addr              { return nil }
func (writeOnly) RemoteAddr() net.Addr             { return nil }
func (writeOnly) SetDeadline(time.Time) error      { return nil }
func (writeOnly) SetReadDeadline(time.Time) error  { return nil }
func (writeOnly) SetWriteDeadline(time.Time) error { return nil }
