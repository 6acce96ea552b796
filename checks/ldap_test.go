package checks

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// ldapMessage makes a message of a server.
func ldapMessage(id, op byte, body []byte) []byte {
	return berAppend(nil, berSequence, berAppend(berByte(nil, berInteger, id), op, body))
}

func ldapResult(code byte, words string) []byte {
	return berAppend(berAppend(berByte(nil, berEnumerated, code), berOctets, ""), berOctets, words)
}

// ldapEntryOf makes an entry from its DN and "name: value" lines.
func ldapEntryOf(dn string, lines ...string) []byte {
	var list []byte
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		a := berAppend(nil, berOctets, name)
		list = berAppend(list, berSequence, berAppend(a, berSet, berAppend(nil, berOctets, value)))
	}
	return berAppend(berAppend(nil, berOctets, dn), berSequence, list)
}

// readLDAP reads one message of a client; nil at the end.
func readLDAP(c net.Conn) []byte {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil
	}
	n, more, err := berLength(head[1])
	if err != nil || more > 0 {
		return nil
	}
	body := make([]byte, n)
	io.ReadFull(c, body)
	return body
}

func ldapTo(addr string) conf.Check {
	return conf.Check{
		Type: conf.Negotiate, Service: "ldap", Target: netip.MustParseAddrPort(addr), Timeout: time.Minute,
		Login: "cn=probe", Passwd: "probe-password", Request: "dc=example",
	}
}

func TestLDAPAnswers(t *testing.T) {
	bound := ldapMessage(1, ldapBindResponse, ldapResult(0, ""))
	done := ldapMessage(2, ldapSearchDone, ldapResult(0, ""))
	entry := func(lines ...string) []byte {
		return ldapMessage(2, ldapSearchEntry, ldapEntryOf("dc=example", lines...))
	}
	for _, tc := range []struct {
		name, receive string
		bind          []byte
		search        [][]byte
		want          string
	}{
		{"an entry", "", bound, [][]byte{entry(), done}, `entry "dc=example"`},
		{"its DN", "^dc=ex", bound, [][]byte{entry(), done}, `entry "dc=example", match for "^dc=ex"`},
		{"an attribute", "^o: Ex", bound, [][]byte{entry("dc: example", "o: Example"), done}, `entry "dc=example", match for "^o: Ex"`},
		{"another entry", "^o=", bound, [][]byte{entry("dc: example"), done}, `!no match for "^o=" in entry "dc=example" and its 1 values`},
		{"a reference to elsewhere is passed over", "", bound, [][]byte{ldapMessage(2, ldapSearchReference, berAppend(nil, berOctets, "ldap://x/")), entry(), done}, `entry "dc=example"`},
		{"only a reference", "", bound, [][]byte{ldapMessage(2, ldapSearchReference, berAppend(nil, berOctets, "ldap://x/")), done}, "!search: no entry"},
		{"no entry", "", bound, [][]byte{done}, "!search: no entry"},
		{"two entries", "", bound, [][]byte{entry(), entry(), done}, "!search: more than one entry where one was asked for"},
		{"an entry and then an error", "", bound, [][]byte{entry(), ldapMessage(2, ldapSearchDone, ldapResult(51, "later"))}, `!search: busy: "later"`},
		{"no such object", "", bound, [][]byte{ldapMessage(2, ldapSearchDone, ldapResult(32, ""))}, "!search: noSuchObject"},
		{"a referral", "", bound, [][]byte{ldapMessage(2, ldapSearchDone, ldapResult(10, ""))}, "!search: referral"},
		{"a result without a name", "", bound, [][]byte{ldapMessage(2, ldapSearchDone, ldapResult(99, ""))}, "!search: result 99"},
		{"the wrong password", "", ldapMessage(1, ldapBindResponse, ldapResult(49, "")), nil, "!bind: invalidCredentials"},
		{"words that hold the password", "", ldapMessage(1, ldapBindResponse, ldapResult(49, "not PROBE-password")), nil, "!bind: invalidCredentials: (words that hold the password and are not shown)"},
		{"an answer to another request", "", ldapMessage(7, ldapBindResponse, ldapResult(0, "")), nil, "!bind: an answer to request 7, wanted 1"},
		{"a notice of disconnection", "", ldapMessage(0, ldapExtendedReply, ldapResult(52, "shutting down")), nil, `!bind: the server ends the connection: unavailable: "shutting down"`},
		{"another operation", "", ldapMessage(1, ldapSearchDone, ldapResult(0, "")), nil, "!bind: not a well-formed LDAP message: operation 0x65"},
		{"no LDAP", "", []byte("220 mail ESMTP\r\n"), nil, `!bind: not a well-formed LDAP message: it begins with "22"`},
		{"the indefinite form of a length", "", []byte{0x30, 0x80, 0, 0}, nil, `!bind: not a well-formed LDAP message: it begins with "0\x80"`},
		{"a gigabyte announced", "", []byte{0x30, 0x84, 0x40, 0, 0, 0}, nil, "!bind: an answer of more than 1048576 bytes"},
		{"a long name before many values", "o", bound, [][]byte{longNames(), done}, "!search: an answer of more than 1048576 bytes"},
		{"half a million empty values", "o", bound, [][]byte{emptyValues(), done}, "!search: an answer of more than 1048576 bytes"},
		{"entries without end", "", bound, [][]byte{bytesOf(ldapMessage(2, ldapSearchReference, berAppend(nil, berOctets, strings.Repeat("x", 60_000))), 20)}, "!search: an answer of more than 1048576 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := ldapTo(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				readLDAP(c)
				c.Write(tc.bind)
				if readLDAP(c) == nil {
					return
				}
				for _, p := range tc.search {
					c.Write(p)
				}
				io.Copy(io.Discard, c)
			}))
			c.Receive = tc.receive
			expect(t, c, tc.want)
		})
	}
}

// longNames is an entry of half a megabyte whose lines would take 25 gigabytes.
func longNames() []byte {
	var set []byte
	for range 100_000 {
		set = berAppend(set, berOctets, "")
	}
	a := berAppend(berAppend(nil, berOctets, strings.Repeat("n", 250_000)), berSet, set)
	return ldapMessage(2, ldapSearchEntry, berAppend(berAppend(nil, berOctets, "x"), berSequence, berAppend(nil, berSequence, a)))
}

// emptyValues is an entry of a megabyte whose lines would take thirty.
func emptyValues() []byte {
	a := berAppend(berAppend(nil, berOctets, "n"), berSet, bytesOf(berAppend(nil, berOctets, ""), 500_000))
	return ldapMessage(2, ldapSearchEntry, berAppend(berAppend(nil, berOctets, "x"), berSequence, berAppend(nil, berSequence, a)))
}

func bytesOf(p []byte, times int) (b []byte) {
	for range times {
		b = append(b, p...)
	}
	return b
}

func TestLDAPSaysWhoAsksForWhat(t *testing.T) {
	var got [][]byte
	ended := make(chan struct{})
	c := ldapTo(serve(t, "tcp", "[::1]:0", func(c net.Conn) {
		defer close(ended)
		got = append(got, readLDAP(c))
		c.Write(ldapMessage(1, ldapBindResponse, ldapResult(0, "")))
		got = append(got, readLDAP(c))
		c.Write(ldapMessage(2, ldapSearchEntry, ldapEntryOf("")))
		c.Write(ldapMessage(2, ldapSearchDone, ldapResult(0, "")))
		got = append(got, readLDAP(c))
	}))
	c.Request, c.Login, c.Passwd = "/", "", ""
	expect(t, c, "root DSE")
	<-ended
	for i, want := range []string{
		"\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00",
		"\x02\x01\x02\x63\x25\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00\x87\x0bobjectClass\x30\x05\x04\x031.1",
		"\x02\x01\x03\x42\x00",
	} {
		if string(got[i]) != want {
			t.Errorf("message %d:\ngot  %q\nwant %q", i+1, got[i], want)
		}
	}
}

func TestLDAPStartTLSThatIsNone(t *testing.T) {
	for _, tc := range []struct{ name, answer, want string }{
		{"not offered", string(ldapMessage(1, ldapExtendedReply, ldapResult(2, "no TLS here"))), `!StartTLS: protocolError: "no TLS here"`},
		{"more than the answer", string(ldapMessage(1, ldapExtendedReply, ldapResult(0, ""))) + "more", "!StartTLS: the server sent more before TLS began than was asked for"},
		{"another operation", string(ldapMessage(1, ldapBindResponse, ldapResult(0, ""))), "!StartTLS: not a well-formed LDAP message: operation 0x61"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := ldapTo(serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				readLDAP(c)
				io.WriteString(c, tc.answer)
				io.Copy(io.Discard, c)
			}))
			c.STARTTLS = true
			expect(t, c, tc.want)
		})
	}
}

func TestLDAPChecksThatCannotBe(t *testing.T) {
	for _, tc := range []struct {
		change func(*conf.Check)
		want   string
	}{
		{func(c *conf.Check) { c.Login = "" }, "passwd without login: say whose password it is (a DN)"},
		{func(c *conf.Check) { c.Passwd = "" }, `login without "passwd" or "passwd_file" proves nothing with LDAP: give one, or take login out`},
		{func(c *conf.Check) { c.Service, c.STARTTLS = "ldaps", true }, "service ldaps has TLS from the start: leave starttls out, or write service ldap"},
		{func(c *conf.Check) { c.Receive = "[" }, "receive \"[\": error parsing regexp: missing closing ]: `[` (expressions are RE2: no look-ahead, no back-references)"},
		{func(c *conf.Check) { c.Target = netip.AddrPortFrom(c.Target.Addr(), 0) }, "checktype negotiate of 127.0.0.1 needs a port: give the real server one, or set checkport"},
	} {
		c := ldapTo("127.0.0.1:389")
		tc.change(&c)
		if _, err := NewChecker(c); err == nil || err.Error() != tc.want {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
}

func FuzzLDAP(f *testing.F) {
	f.Add(ldapMessage(1, ldapBindResponse, ldapResult(0, "")), ldapMessage(2, ldapSearchEntry, ldapEntryOf("dc=x", "o: y")), ldapMessage(2, ldapSearchDone, ldapResult(0, "")))
	f.Add(ldapMessage(0, ldapExtendedReply, ldapResult(52, "bye")), []byte{0x30, 0x84, 255, 255, 255, 255}, []byte{})
	f.Fuzz(func(t *testing.T, bind, entry, done []byte) {
		l := &ldapConn{s: memoryStream(append(append(append([]byte(nil), bind...), entry...), done...)), password: []byte("pw")}
		if l.bind("cn=x") != nil {
			return
		}
		e, err := l.lookUp("dc=x", true)
		size := 0
		for _, v := range e.values {
			size += len(v)
		}
		if size > maxBody {
			t.Errorf("%d bytes of values", size)
		}
		if err != nil && errors.Is(err, io.EOF) {
			t.Error("an end that is not in words")
		}
	})
}
