package checks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// LDAP operations (RFC 4511, 4.2 to 4.14), with their class and form.
const (
	ldapBindRequest     = 0x60
	ldapBindResponse    = 0x61
	ldapUnbindRequest   = 0x42
	ldapSearchRequest   = 0x63
	ldapSearchEntry     = 0x64
	ldapSearchDone      = 0x65
	ldapSearchReference = 0x73
	ldapExtendedRequest = 0x77
	ldapExtendedReply   = 0x78

	ldapSimple       = 0x80 // authentication by a password
	ldapRequestName  = 0x80 // of an extended request
	ldapFilterExists = 0x87 // filter (attribute=*)

	startTLSName = "1.3.6.1.4.1.1466.20037" // RFC 4511, 4.14
)

// ldapCheck is checktype negotiate for ldap and ldaps: a bind, and a search for
// the entry of request itself, which has to be there; without request for the
// root DSE, as ldirectord does. With receive the expression has to match its DN
// or one of its attributes as "name: value".
type ldapCheck struct {
	c       conf.Check
	base    string
	receive *regexp.Regexp // nil: any entry
	tls     *tls.Config    // nil: none
}

func newLDAP(c conf.Check, e *env) (Checker, error) {
	k := &ldapCheck{c: c, base: strings.TrimPrefix(c.Request, "/")} // ldirectord put a slash before every request
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	switch {
	case c.Login == "" && (c.Passwd != "" || c.PasswdFile != ""):
		return nil, errors.New("passwd without login: say whose password it is (a DN)")
	case c.Login != "" && c.Passwd == "" && c.PasswdFile == "":
		// RFC 4513, 5.1.2: servers say yes to a DN without a password.
		return nil, errors.New(`login without "passwd" or "passwd_file" proves nothing with LDAP: give one, or take login out`)
	case c.Service == "ldaps" && c.STARTTLS:
		return nil, errors.New("service ldaps has TLS from the start: leave starttls out, or write service ldap")
	}
	var err error
	if c.Service == "ldaps" || c.STARTTLS {
		if k.tls, err = tlsConfig(c, e); err != nil {
			return nil, err
		}
	}
	k.receive, err = e.wanted(c)
	return k, err
}

func (k *ldapCheck) Check(ctx context.Context) (string, error) {
	password, err := readSecret(k.c.Passwd, k.c.PasswdFile)
	if err != nil {
		return "", err
	}
	first := k.tls
	if k.c.STARTTLS {
		first = nil
	}
	s, err := openStream(ctx, k.c, first)
	if err != nil {
		return "", err
	}
	defer s.Close()
	l := &ldapConn{s: s, password: password}
	if k.c.STARTTLS {
		if err := l.startTLS(k.tls); err != nil {
			return "", fmt.Errorf("StartTLS: %w", err)
		}
	}
	if err := l.bind(k.c.Login); err != nil {
		return "", fmt.Errorf("bind: %w", err)
	}
	entry, err := l.lookUp(k.base, k.receive != nil)
	if err != nil {
		return "", fmt.Errorf("search: %w", err)
	}
	if l.send(ldapUnbindRequest, nil) == nil {
		s.conn.awaitClose()
	}
	name := "entry " + quoteWithout(password, entry.dn)
	if len(entry.dn) == 0 {
		name = "root DSE"
	}
	switch {
	case k.receive == nil:
		return name, nil
	case entry.matches(k.receive):
		return fmt.Sprintf("%s, match for %q", name, k.c.Receive), nil
	}
	return "", fmt.Errorf("no match for %q in %s and its %d values", k.c.Receive, name, len(entry.values))
}

// ldapConn is one check's connection.
type ldapConn struct {
	s        *stream
	password []byte
	id       int // of the last request
}

// send sends a request.
func (l *ldapConn) send(op byte, body []byte) error {
	l.id++
	m := berByte(nil, berInteger, byte(l.id))
	m = berAppend(m, op, body)
	return l.s.write(berAppend(nil, berSequence, m))
}

// receive reads the next message about the last request.
func (l *ldapConn) receive() (op byte, body []byte, err error) {
	head, err := l.s.read(2)
	if err != nil {
		return 0, nil, err
	}
	n, more, err := berLength(head[1])
	if err != nil || head[0] != berSequence {
		return 0, nil, fmt.Errorf("%w: it begins with %s", errBER, quoteWithout(l.password, head))
	}
	length, err := l.s.read(more)
	if err != nil {
		return 0, nil, err
	}
	for _, b := range length {
		n = n<<8 | int(b)
	}
	p, err := l.s.read(n)
	if err != nil {
		return 0, nil, err
	}
	return l.message(p)
}

// message takes a message apart.
func (l *ldapConn) message(p []byte) (op byte, body []byte, err error) {
	value, rest, err := berWanted(p, berInteger)
	if err != nil {
		return 0, nil, err
	}
	id, err := berInt(value)
	if err != nil {
		return 0, nil, err
	}
	if op, body, _, err = berNext(rest); err != nil {
		return 0, nil, err
	}
	if id == 0 && op == ldapExtendedReply { // RFC 4511, 4.4.1
		if err := l.result(body); err != nil {
			return 0, nil, fmt.Errorf("the server ends the connection: %w", err)
		}
		return 0, nil, errors.New("the server ends the connection")
	}
	if id != l.id {
		return 0, nil, fmt.Errorf("an answer to request %d, wanted %d", id, l.id)
	}
	return op, body, nil
}

// result reads an LDAPResult (RFC 4511, 4.1.9); nil is success.
func (l *ldapConn) result(p []byte) error {
	value, rest, err := berWanted(p, berEnumerated)
	if err != nil {
		return err
	}
	code, err := berInt(value)
	if err != nil || code == 0 {
		return err
	}
	if _, rest, err = berWanted(rest, berOctets); err != nil { // matchedDN
		return err
	}
	words, _, err := berWanted(rest, berOctets)
	if err != nil {
		return err
	}
	name := ldapCodes[code]
	if name == "" {
		name = fmt.Sprintf("result %d", code)
	}
	if len(words) > 0 {
		name += ": " + quoteWithout(l.password, words)
	}
	return errors.New(name)
}

// ldapCodes are the results that a check may well get (RFC 4511, appendix A).
var ldapCodes = map[int]string{
	1: "operationsError", 2: "protocolError", 3: "timeLimitExceeded", 7: "authMethodNotSupported", 8: "strongerAuthRequired",
	10: "referral", 11: "adminLimitExceeded", 13: "confidentialityRequired", 32: "noSuchObject", 34: "invalidDNSyntax",
	48: "inappropriateAuthentication", 49: "invalidCredentials", 50: "insufficientAccessRights", 51: "busy", 52: "unavailable",
	53: "unwillingToPerform", 80: "other",
}

func (l *ldapConn) startTLS(t *tls.Config) error {
	if err := l.send(ldapExtendedRequest, berAppend(nil, ldapRequestName, startTLSName)); err != nil {
		return err
	}
	op, body, err := l.receive()
	if err != nil {
		return err
	}
	if op != ldapExtendedReply {
		return fmt.Errorf("%w: operation %#x", errBER, op)
	}
	if err := l.result(body); err != nil {
		return err
	}
	return l.s.startTLS(t)
}

func (l *ldapConn) bind(dn string) error {
	p := berByte(nil, berInteger, 3) // the version
	p = berAppend(p, berOctets, dn)
	if err := l.send(ldapBindRequest, berAppend(p, ldapSimple, l.password)); err != nil {
		return err
	}
	op, body, err := l.receive()
	if err != nil {
		return err
	}
	if op != ldapBindResponse {
		return fmt.Errorf("%w: operation %#x", errBER, op)
	}
	return l.result(body)
}

// ldapEntry is one entry of a directory.
type ldapEntry struct {
	dn     []byte
	values [][]byte // "name: value"
}

func (e *ldapEntry) matches(re *regexp.Regexp) bool {
	if re.Match(e.dn) {
		return true
	}
	for _, v := range e.values {
		if re.Match(v) {
			return true
		}
	}
	return false
}

// lookUp reads one entry, with its attributes when they are wanted.
func (l *ldapConn) lookUp(base string, attributes bool) (e ldapEntry, err error) {
	p := berAppend(nil, berOctets, base)
	p = berByte(p, berEnumerated, 0) // baseObject
	p = berByte(p, berEnumerated, 0) // neverDerefAliases
	p = berByte(p, berInteger, 0)    // no limit of entries but the server's
	p = berByte(p, berInteger, 0)    // nor of time: the check has its own
	p = berByte(p, berBoolean, 0)    // values, too
	p = berAppend(p, ldapFilterExists, "objectClass")
	var names []byte // none: all of the user's
	if !attributes {
		names = berAppend(nil, berOctets, "1.1") // RFC 4511, 4.5.1.8: none
	}
	if err := l.send(ldapSearchRequest, berAppend(p, berSequence, names)); err != nil {
		return e, err
	}
	found := 0
	for {
		op, body, err := l.receive()
		if err != nil {
			return e, err
		}
		switch op {
		case ldapSearchEntry:
			if found++; found > 1 {
				return e, errors.New("more than one entry where one was asked for")
			}
			if e, err = parseEntry(body); err != nil {
				return e, err
			}
		case ldapSearchReference: // to another server, which is not checked here
		case ldapSearchDone:
			if err := l.result(body); err != nil {
				return e, err
			}
			if found == 0 {
				return e, errors.New("no entry")
			}
			return e, nil
		default:
			return e, fmt.Errorf("%w: operation %#x", errBER, op)
		}
	}
}

// What the values of an entry may take in memory, each with valueCost beside its
// bytes: a message of 1 MiB could hold half a million empty ones.
const (
	maxEntry  = 4 * maxBody
	valueCost = 40
)

// parseEntry reads a SearchResultEntry (RFC 4511, 4.5.2).
func parseEntry(p []byte) (e ldapEntry, err error) {
	if e.dn, p, err = berWanted(p, berOctets); err != nil {
		return e, err
	}
	list, _, err := berWanted(p, berSequence)
	room := maxEntry
	for err == nil && len(list) > 0 {
		var attribute, name, set []byte
		if attribute, list, err = berWanted(list, berSequence); err != nil {
			break
		}
		if name, attribute, err = berWanted(attribute, berOctets); err != nil {
			break
		}
		if set, _, err = berWanted(attribute, berSet); err != nil {
			break
		}
		for len(set) > 0 {
			var value []byte
			if value, set, err = berWanted(set, berOctets); err != nil {
				break
			}
			// A long name before many short values would need more room than
			// the message itself.
			if room -= valueCost + len(name) + 2 + len(value); room < 0 {
				return e, errTooMuch
			}
			line := append(append(append(make([]byte, 0, len(name)+2+len(value)), name...), ": "...), value...)
			e.values = append(e.values, line)
		}
	}
	return e, err
}
