package checks

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// pgServer is a server's side of a connection.
type pgServer struct{ net.Conn }

func pgMessage(kind byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body))), body...)
}

func pgAuthentication(method uint32, data string) []byte {
	return pgMessage(pgAuth, string(binary.BigEndian.AppendUint32(nil, method))+data)
}

func pgFailed(code, words string) []byte {
	return pgMessage(pgError, "SFATAL\x00C"+code+"\x00M"+words+"\x00\x00")
}

func (s pgServer) send(messages ...[]byte) {
	for _, m := range messages {
		s.Write(m)
	}
}

// first reads the message without a type.
func (s pgServer) first() string {
	head := make([]byte, 4)
	if _, err := io.ReadFull(s, head); err != nil {
		return ""
	}
	p := make([]byte, binary.BigEndian.Uint32(head)-4)
	io.ReadFull(s, p)
	return string(p)
}

func (s pgServer) read() string {
	kind := make([]byte, 1)
	if _, err := io.ReadFull(s, kind); err != nil {
		return ""
	}
	return string(kind) + s.first()
}

// scram is a server's side of SCRAM-SHA-256.
func (s pgServer) scram(password string, iterations int, change func(signature []byte)) bool {
	s.send(pgAuthentication(pgAuthSASL, scramName+"-PLUS\x00"+scramName+"\x00\x00"))
	p := s.read()
	_, bare, _ := strings.Cut(p, "n,,")
	_, nonce, _ := strings.Cut(bare, "r=")
	first := fmt.Sprintf("r=%sserver,s=%s,i=%d", nonce, base64.StdEncoding.EncodeToString([]byte("salt")), iterations)
	s.send(pgAuthentication(pgAuthSASLMore, first))
	final := strings.TrimPrefix(s.read(), "p")
	without, proof64, _ := strings.Cut(final, ",p=")
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		io.WriteString(h, text)
		return h.Sum(nil)
	}
	salted, err := pbkdf2.Key(sha256.New, password, []byte("salt"), iterations, 32)
	if err != nil {
		panic(err)
	}
	clientKey := mac(salted, "Client Key")
	kept := sha256.Sum256(clientKey)
	signed := bare + "," + first + "," + without
	proof, _ := base64.StdEncoding.DecodeString(proof64)
	for i, b := range mac(kept[:], signed) {
		if i < len(proof) {
			proof[i] ^= b
		}
	}
	if got := sha256.Sum256(proof); got != kept || !strings.HasPrefix(p, "p"+scramName+"\x00") || !strings.HasPrefix(final, "c=biws,r="+nonce+"server") {
		s.send(pgFailed("28P01", "password authentication failed"))
		return false
	}
	signature := mac(mac(salted, "Server Key"), signed)
	if change != nil {
		change(signature)
	}
	s.send(pgAuthentication(pgAuthSASLFinal, "v="+base64.StdEncoding.EncodeToString(signature)))
	return true
}

func pgsqlTo(addr string) conf.Check {
	return conf.Check{
		Type: conf.Negotiate, Service: "pgsql", Target: netip.MustParseAddrPort(addr), Timeout: time.Minute,
		Login: "probe", Passwd: "probe-password", Database: "shop",
	}
}

var (
	pgLetIn = append(append(pgAuthentication(pgAuthOK, ""), pgMessage(pgParameter, "a\x00b\x00")...), pgIdle...)
	pgIdle  = append(pgMessage(pgKeyData, "12345678"), pgMessage(pgReady, "I")...)
)

func TestPgSQLLogins(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		handle     func(s pgServer)
	}{
		{"trusted", "logged in", func(s pgServer) { s.send(pgLetIn) }},
		{"with notices between", "logged in", func(s pgServer) {
			s.send(pgMessage(pgNotice, "MNote\x00\x00"), pgMessage(pgVersion, "xxxxyyyy"), pgLetIn)
		}},
		{"in the clear", "logged in", func(s pgServer) {
			s.send(pgAuthentication(pgAuthClear, ""))
			if s.read() == "pprobe-password\x00" {
				s.send(pgLetIn)
			}
		}},
		{"by MD5", "logged in", func(s pgServer) {
			s.send(pgAuthentication(pgAuthMD5, "salt"))
			if s.read() == "pmd5"+hexMD5(hexMD5("probe-passwordprobe")+"salt")+"\x00" {
				s.send(pgLetIn)
			}
		}},
		{"by SCRAM", "logged in", func(s pgServer) {
			if s.scram("probe-password", 4096, nil) {
				s.send(pgLetIn)
			}
		}},
		{"by SCRAM with another password", `!error 28P01: "password authentication failed"`, func(s pgServer) { s.scram("another", 4096, nil) }},
		{"by SCRAM to a server that does not know the password", "!the server has not shown that it knows the password", func(s pgServer) {
			s.scram("probe-password", 4096, func(signature []byte) { signature[5]++ })
			s.send(pgLetIn)
		}},
		{"let in in the middle of SCRAM", "!the server has not shown that it knows the password", func(s pgServer) {
			s.send(pgAuthentication(pgAuthSASL, scramName+"\x00\x00"))
			s.read()
			s.send(pgLetIn)
		}},
		{"SCRAM without end", "!the server asks for 2000000000 iterations of SCRAM-SHA-256; at most 600000 are made", func(s pgServer) {
			s.send(pgAuthentication(pgAuthSASL, scramName+"\x00\x00"))
			_, nonce, _ := strings.Cut(s.read(), "r=")
			s.send(pgAuthentication(pgAuthSASLMore, "r="+nonce+"x,s=c2FsdA==,i=2000000000"))
		}},
		{"SCRAM with another nonce", "!not a well-formed message of SCRAM-SHA-256", func(s pgServer) {
			s.send(pgAuthentication(pgAuthSASL, scramName+"\x00\x00"))
			s.read()
			s.send(pgAuthentication(pgAuthSASLMore, "r=mine,s=c2FsdA==,i=4096"))
		}},
		// Each round costs a tenth of a second of this machine's processor.
		{"SCRAM, and its work once more", "!not a well-formed message of SCRAM-SHA-256", func(s pgServer) {
			s.send(pgAuthentication(pgAuthSASL, scramName+"\x00\x00"))
			_, nonce, _ := strings.Cut(s.read(), "r=")
			for range 2 {
				s.send(pgAuthentication(pgAuthSASLMore, "r="+nonce+"x,s=c2FsdA==,i=4096"))
				s.read()
			}
		}},
		{"SCRAM from the beginning again", "!not a well-formed PostgreSQL message", func(s pgServer) {
			s.send(pgAuthentication(pgAuthSASL, scramName+"\x00\x00"), pgAuthentication(pgAuthSASL, scramName+"\x00\x00"))
		}},
		{"another SASL", `!the server wants to authenticate by "OAUTHBEARER\x00\x00"; SCRAM-SHA-256 is known here`, func(s pgServer) { s.send(pgAuthentication(pgAuthSASL, "OAUTHBEARER\x00\x00")) }},
		{"a method with the password in its name", "!the server wants to authenticate by (words that hold the password and are not shown); SCRAM-SHA-256 is known here", func(s pgServer) { s.send(pgAuthentication(pgAuthSASL, "PROBE-password\x00\x00")) }},
		{"Kerberos", "!the server wants to authenticate by method 7; passwords, md5 and SCRAM-SHA-256 are known here", func(s pgServer) { s.send(pgAuthentication(7, "")) }},
		{"the end of a SCRAM that never began", "!not a well-formed PostgreSQL message", func(s pgServer) { s.send(pgAuthentication(pgAuthSASLFinal, "v=")) }},
		{"passwords without end", "!not a well-formed PostgreSQL message", func(s pgServer) {
			for range 30 {
				s.send(pgAuthentication(pgAuthClear, ""))
			}
		}},
		{"words that hold the password", "!error 28P01: (words that hold the password and are not shown)", func(s pgServer) { s.send(pgFailed("28P01", "not probe-PASSWORD")) }},
		{"an error without words", "!error without a code: without words", func(s pgServer) { s.send(pgMessage(pgError, "")) }},
		{"a shutdown", `!error 57P03: "the database system is shutting down"`, func(s pgServer) { s.send(pgFailed("57P03", "the database system is shutting down")) }},
		{"no PostgreSQL", `!not a well-formed PostgreSQL message: it begins with "HTTP/"`, func(s pgServer) { io.WriteString(s, "HTTP/1.1 400") }},
		{"a row before anybody asked", "!not a well-formed PostgreSQL message: type 'D'", func(s pgServer) { s.send(pgMessage(pgRow, "\x00\x00")) }},
		{"a length of nothing", "!not a well-formed PostgreSQL message", func(s pgServer) { io.WriteString(s, "R\x00\x00\x00\x03") }},
		{"a gigabyte announced", "!an answer of more than 1048576 bytes", func(s pgServer) { io.WriteString(s, "R\x40\x00\x00\x00") }},
		{"notices without end", "!an answer of more than 1048576 bytes", func(s pgServer) {
			s.send(bytesOf(pgMessage(pgNotice, strings.Repeat("x", 100_000)), 12))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := pgsqlTo(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				s := pgServer{c}
				if s.first() == "\x00\x03\x00\x00user\x00probe\x00database\x00shop\x00application_name\x00keepbeat\x00\x00" {
					tc.handle(s)
				}
				io.Copy(io.Discard, c)
			}))
			expect(t, c, tc.want)
		})
	}
}

func TestPgSQLWithoutLogin(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		answer     []byte
	}{
		{"asked for a password", "accepts logins", pgAuthentication(pgAuthSASL, scramName+"\x00\x00")},
		{"let in", "accepts logins", pgLetIn},
		{"no such user", "accepts logins, not of keepbeat", pgFailed("28000", "role does not exist")},
		{"no such database", "accepts logins, not of keepbeat", pgFailed("3D000", "database does not exist")},
		{"starting up", `!error 57P03: "the database system is starting up"`, pgFailed("57P03", "the database system is starting up")},
		{"too many connections", `!error 53300: "sorry, too many clients already"`, pgFailed("53300", "sorry, too many clients already")},
		{"something else", "!not a well-formed PostgreSQL message: type 'Z'", pgMessage(pgReady, "I")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := pgsqlTo(serve(t, "tcp", "[::1]:0", func(c net.Conn) {
				pgServer{c}.first()
				c.Write(tc.answer)
				io.Copy(io.Discard, c)
			}))
			c.Login, c.Passwd, c.Database = "", "", ""
			expect(t, c, tc.want)
		})
	}
}

func TestPgSQLTLSThatIsNone(t *testing.T) {
	for _, tc := range []struct{ name, answer, want string }{
		{"not offered", "N", "!the server offers no TLS"},
		{"more than the answer", "Smore", "!the server sent more before TLS began than was asked for"},
		{"an error", "E\x00\x00", `!not a well-formed PostgreSQL message: "E" where S or N belongs`},
		{"nothing", "", "!connection closed without an answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := pgsqlTo(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				if (pgServer{c}).first() == "\x04\xd2\x16\x2f" {
					io.WriteString(c, tc.answer)
				}
			}))
			c.STARTTLS = true
			expect(t, c, tc.want)
		})
	}
}

func TestPgSQLQueries(t *testing.T) {
	row := func(values ...string) []byte {
		b := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
		for _, v := range values {
			if v == "NULL" {
				b = append(b, 255, 255, 255, 255)
				continue
			}
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
		}
		return pgMessage(pgRow, string(b))
	}
	columns, end := pgMessage(pgColumns, "\x00\x00"), append(pgMessage(pgComplete, "SELECT\x00"), pgMessage(pgReady, "I")...)
	for _, tc := range []struct {
		name, receive string
		answer        [][]byte
		want          string
	}{
		{"a row", "", [][]byte{columns, row("x", "y"), end}, "the query gave a row"},
		{"a row of nothing", "", [][]byte{columns, row(), end}, "the query gave a row"},
		{"no row", "", [][]byte{columns, end}, "!the query gave no row"},
		{"a value", "^y$", [][]byte{columns, row("x", "NULL"), pgMessage(pgNotice, "\x00"), row("NULL", "y"), end}, `match for "^y$"`},
		{"another value", "^z$", [][]byte{columns, row("x", "y"), end}, `!no match for "^z$" in 1 rows`},
		{"NULL is no text", "^$", [][]byte{columns, row("NULL"), end}, `!no match for "^$" in 1 rows`},
		{"rows without end", "^z$", [][]byte{columns, bytes.Repeat(row("x"), 2000)}, `!no match for "^z$" in 1000 rows`},
		{"an empty query", "", [][]byte{pgMessage(pgEmpty, ""), pgMessage(pgReady, "I")}, "!the query gave no row"},
		{"an error", "", [][]byte{pgFailed("42P01", "relation does not exist"), pgMessage(pgReady, "I")}, `!query: error 42P01: "relation does not exist"`},
		{"a copy", "", [][]byte{pgMessage('H', "\x00\x00\x00")}, `!query: not a well-formed PostgreSQL message: it begins with "H\x00\x00\x00\a"`},
		{"a value beyond its row", "", [][]byte{pgMessage(pgRow, "\x00\x01\x00\x00\x00\x05x")}, "!query: not a well-formed PostgreSQL message"},
		{"a row without its values", "", [][]byte{pgMessage(pgRow, "\xff\xff")}, "!query: not a well-formed PostgreSQL message"},
		{"a row without their number", "", [][]byte{pgMessage(pgRow, "")}, "!query: not a well-formed PostgreSQL message"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ended := make(chan string, 1)
			c := pgsqlTo(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				s := pgServer{c}
				s.first()
				s.send(pgLetIn)
				asked := s.read()
				s.send(tc.answer...)
				ended <- asked + "|" + s.read()
			}))
			c.Request, c.Receive = "SELECT * FROM x", tc.receive
			expect(t, c, tc.want)
			want := "QSELECT * FROM x\x00|"
			if tc.want[0] != '!' {
				want += "X"
			}
			if got := <-ended; got != want {
				t.Errorf("the server got %q, want %q", got, want)
			}
		})
	}
}

// The example of RFC 7677, 3, but for its user, which PostgreSQL leaves empty.
func TestScram(t *testing.T) {
	c := &scramClient{password: []byte("pencil"), nonce: "rOprNGfwEbeRWgbNEkqO"}
	if got := c.first(); got != "n,,n=,r=rOprNGfwEbeRWgbNEkqO" {
		t.Errorf("first message %q", got)
	}
	c.bare = "n=user,r=rOprNGfwEbeRWgbNEkqO"
	final, err := c.final("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
	if want := "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="; final != want || err != nil {
		t.Errorf("got  %q, %v\nwant %q", final, err, want)
	}
	if err := c.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="); err != nil || !c.proved {
		t.Errorf("the server's signature: %v", err)
	}
	if err := c.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl94G4="); err == nil {
		t.Error("another signature is believed")
	}
}

func FuzzScram(f *testing.F) {
	f.Add("r=abcd,s=c2FsdA==,i=1", "v=AAAA")
	f.Add("r=abc,s=,i=", "e=other-error")
	f.Add("r=abcx,s=c2FsdA==,i=99999999999999999999,m=x", "")
	f.Fuzz(func(t *testing.T, first, last string) {
		if _, n, _ := strings.Cut(first, "i="); len(n) > 4 && len(n) < 8 {
			return // work, and no other code
		}
		c := &scramClient{password: []byte("pw"), nonce: "abc", bare: "n=,r=abc"}
		c.final(first)
		if c.verify(last) == nil {
			t.Errorf("believed %q", last)
		}
	})
}

func FuzzPgSQL(f *testing.F) {
	f.Add(pgLetIn, pgMessage(pgRow, "\x00\x01\x00\x00\x00\x01x"))
	f.Add(pgAuthentication(pgAuthSASL, scramName+"\x00\x00"), pgAuthentication(pgAuthSASLMore, "r=x,s=c2FsdA==,i=1"))
	f.Add(pgFailed("57P03", "no"), []byte("Z"))
	f.Fuzz(func(t *testing.T, login, rest []byte) {
		p := &pgConn{s: memoryStream(append(append([]byte(nil), login...), rest...)), password: []byte("pw")}
		p.login("probe", "shop")
		p = &pgConn{s: memoryStream(rest), password: []byte("pw")}
		rows := sqlRows{}
		if p.query("SELECT 1", &rows) == nil && rows.rows > maxRows {
			t.Errorf("%d rows", rows.rows)
		}
		p = &pgConn{s: memoryStream(login)}
		p.isReady()
	})
}
