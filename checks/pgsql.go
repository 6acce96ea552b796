package checks

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// pgsqlCheck is checktype negotiate for pgsql, by version 3.0 of the protocol.
//
// Without login it does what pg_isready does: it names a user, and a server
// that then asks for a password or refuses the user would let others in. That
// it can speak TLS would say less: a server says so while it starts up, too.
type pgsqlCheck struct{ sqlCheck }

// pgGuest is the user of a check without login.
const pgGuest = "keepbeat"

func newPgSQL(c conf.Check, e *env) (Checker, error) {
	k, err := newSQL(c, e)
	if err == nil && k.tls != nil {
		k.tls.NextProtos = []string{"postgresql"} // servers from 17 on refuse other names
	}
	return pgsqlCheck{k}, err
}

func (k pgsqlCheck) Check(ctx context.Context) (string, error) {
	password, err := readSecret(k.c.Passwd, k.c.PasswdFile)
	if err != nil {
		return "", err
	}
	s, err := openStream(ctx, k.c, nil)
	if err != nil {
		return "", err
	}
	defer s.Close()
	p := &pgConn{s: s, password: password}
	if k.tls != nil {
		if err := p.startTLS(k.tls); err != nil {
			return "", err
		}
	}
	if k.c.Login == "" {
		return p.isReady()
	}
	if err := p.login(k.c.Login, k.c.Database); err != nil {
		return "", err
	}
	detail := "logged in"
	if k.query != "" {
		rows := sqlRows{receive: k.receive}
		if err := p.query(k.query, &rows); err != nil {
			return "", fmt.Errorf("query: %w", err)
		}
		if detail, err = rows.verdict(k.c); err != nil {
			return "", err
		}
	}
	s.end([]byte{pgTerminate, 0, 0, 0, 4})
	return detail, nil
}

// Types of messages.
const (
	pgTerminate = 'X'
	pgQuery     = 'Q'
	pgPassword  = 'p'

	pgAuth      = 'R'
	pgError     = 'E'
	pgNotice    = 'N'
	pgNotify    = 'A'
	pgParameter = 'S'
	pgKeyData   = 'K'
	pgVersion   = 'v'
	pgReady     = 'Z'
	pgColumns   = 'T'
	pgRow       = 'D'
	pgComplete  = 'C'
	pgEmpty     = 'I'
)

// pgTypes are all that a server can send to a client that logs in and asks; not
// COPY, which a query could begin and which has no rows.
const pgTypes = "ACDEIKNRSTZv"

// What an authentication message asks for.
const (
	pgAuthOK        = 0
	pgAuthClear     = 3
	pgAuthMD5       = 5
	pgAuthSASL      = 10
	pgAuthSASLMore  = 11
	pgAuthSASLFinal = 12
)

var errPg = errors.New("not a well-formed PostgreSQL message")

// pgConn is one check's connection.
type pgConn struct {
	s        *stream
	password []byte
}

// send sends a message; kind 0 is the one that has none, the first.
func (p *pgConn) send(kind byte, body []byte) error {
	var m []byte
	if kind != 0 {
		m = append(m, kind)
	}
	m = binary.BigEndian.AppendUint32(m, uint32(4+len(body)))
	return p.s.write(append(m, body...))
}

// receive reads the next message that is not told by the way. An error that the
// server reports is returned as pgFailure.
func (p *pgConn) receive() (kind byte, body []byte, err error) {
	for {
		head, err := p.s.read(5)
		if err != nil {
			return 0, nil, err
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n < 4 {
			return 0, nil, errPg
		}
		if !strings.ContainsRune(pgTypes, rune(head[0])) {
			return 0, nil, fmt.Errorf("%w: it begins with %s", errPg, quoteWithout(p.password, head))
		}
		if n > maxBody {
			return 0, nil, errTooMuch
		}
		if body, err = p.s.read(int(n - 4)); err != nil {
			return 0, nil, err
		}
		switch head[0] {
		case pgNotice, pgNotify, pgParameter, pgVersion:
		case pgError:
			return 0, nil, p.failure(body)
		default:
			return head[0], body, nil
		}
	}
}

// pgFailure is what the server reports.
type pgFailure struct {
	code  string // SQLSTATE
	words string
}

func (e pgFailure) Error() string { return fmt.Sprintf("error %s: %s", e.code, e.words) }

func (p *pgConn) failure(body []byte) error {
	e := pgFailure{code: "without a code", words: "without words"}
	for len(body) > 1 {
		value, rest, ok := bytes.Cut(body[1:], []byte{0})
		if !ok {
			break
		}
		switch body[0] {
		case 'C':
			e.code = strings.Trim(quoteWithout(p.password, value), `"`)
		case 'M':
			e.words = quoteWithout(p.password, value)
		}
		body = rest
	}
	return e
}

// startTLS asks whether the server speaks TLS, and does.
func (p *pgConn) startTLS(t *tls.Config) error {
	if err := p.send(0, binary.BigEndian.AppendUint32(nil, 80877103)); err != nil { // SSLRequest
		return err
	}
	answer, err := p.s.read(1)
	if err != nil {
		return err
	}
	switch answer[0] {
	case 'S':
		return p.s.startTLS(t)
	case 'N':
		return errors.New("the server offers no TLS")
	}
	return fmt.Errorf("%w: %s where S or N belongs", errPg, quoteWithout(p.password, answer))
}

// start says who wants to log in.
func (p *pgConn) start(user, database string) error {
	m := binary.BigEndian.AppendUint32(nil, 3<<16)
	m = append(m, "user\x00"+user+"\x00"...)
	if database != "" {
		m = append(m, "database\x00"+database+"\x00"...)
	}
	m = append(m, "application_name\x00keepbeat\x00\x00"...)
	return p.send(0, m)
}

// isReady says whether the server would let somebody log in.
func (p *pgConn) isReady() (string, error) {
	if err := p.start(pgGuest, ""); err != nil {
		return "", err
	}
	kind, body, err := p.receive()
	var f pgFailure
	switch {
	case err == nil && kind == pgAuth && len(body) >= 4:
		// Who is asked for a password and says goodbye instead of hanging up
		// is logged as an error.
		if binary.BigEndian.Uint32(body) == pgAuthOK {
			p.s.end([]byte{pgTerminate, 0, 0, 0, 4})
		}
		return "accepts logins", nil
	case err == nil:
		return "", fmt.Errorf("%w: type %q", errPg, kind)
	case errors.As(err, &f) && (strings.HasPrefix(f.code, "28") || f.code == "3D000"):
		// invalid authorization, or no database of that name
		return "accepts logins, not of " + pgGuest, nil
	}
	return "", err
}

// login authenticates and waits until the server is ready.
func (p *pgConn) login(user, database string) error {
	if err := p.start(user, database); err != nil {
		return err
	}
	var scram *scramClient
	for range 20 { // SCRAM takes five
		kind, body, err := p.receive()
		switch {
		case err != nil:
			return err
		case kind == pgReady:
			return nil
		case kind == pgKeyData:
			continue
		case kind != pgAuth || len(body) < 4:
			return fmt.Errorf("%w: type %q", errPg, kind)
		}
		data := body[4:]
		switch method := binary.BigEndian.Uint32(body); method {
		case pgAuthOK:
			if scram != nil && !scram.proved {
				return errors.New("the server has not shown that it knows the password")
			}
			continue
		case pgAuthClear:
			err = p.send(pgPassword, append(bytes.Clone(p.password), 0))
		case pgAuthMD5:
			if len(data) != 4 {
				return errPg
			}
			err = p.send(pgPassword, append([]byte("md5"+hexMD5(hexMD5(string(p.password)+user)+string(data))), 0))
		case pgAuthSASL:
			if !bytes.Contains(append([]byte{0}, data...), []byte("\x00"+scramName+"\x00")) {
				return fmt.Errorf("the server wants to authenticate by %s; %s is known here", quoteWithout(p.password, data), scramName)
			}
			if scram != nil {
				return errPg
			}
			scram = newScramClient(p.password)
			first := scram.first()
			m := binary.BigEndian.AppendUint32(append([]byte(scramName), 0), uint32(len(first)))
			err = p.send(pgPassword, append(m, first...))
		case pgAuthSASLMore, pgAuthSASLFinal:
			if scram == nil {
				return errPg
			}
			if method == pgAuthSASLFinal {
				if err := scram.verify(string(data)); err != nil {
					return err
				}
				continue
			}
			var final string
			if final, err = scram.final(string(data)); err == nil {
				err = p.send(pgPassword, []byte(final))
			}
		default:
			return fmt.Errorf("the server wants to authenticate by method %d; passwords, md5 and %s are known here", method, scramName)
		}
		if err != nil {
			return err
		}
	}
	return errPg
}

func hexMD5(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// query runs a query and reads the rows that are needed.
func (p *pgConn) query(text string, rows *sqlRows) error {
	if err := p.send(pgQuery, append([]byte(text), 0)); err != nil {
		return err
	}
	for !rows.enough() || (p.s.more() && rows.rows < maxRows) {
		kind, body, err := p.receive()
		switch {
		case err != nil && rows.enough():
			return nil
		case err != nil:
			return err
		case kind == pgReady:
			return nil
		case kind == pgColumns, kind == pgComplete, kind == pgEmpty:
		case kind == pgRow:
			if err := pgValues(body, rows); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: type %q", errPg, kind)
		}
	}
	return nil
}

// pgValues reads a row.
func pgValues(p []byte, rows *sqlRows) error {
	if len(p) < 2 {
		return errPg
	}
	columns := binary.BigEndian.Uint16(p)
	p = p[2:]
	rows.rows++
	for range columns {
		if len(p) < 4 {
			return errPg
		}
		n := int32(binary.BigEndian.Uint32(p))
		p = p[4:]
		if n < 0 { // NULL
			continue
		}
		if int(n) > len(p) {
			return errPg
		}
		rows.value(p[:n])
		p = p[n:]
	}
	return nil
}
