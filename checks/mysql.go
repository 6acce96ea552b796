package checks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/keepbeat/keepbeat/conf"
)

// mysqlCheck is checktype negotiate for mysql: MySQL, MariaDB and what speaks
// like them.
//
// Without login it answers the greeting as nobody, whom the server sends away:
// who closes before is counted, and after max_connect_errors the server would
// block this machine.
type mysqlCheck struct{ sqlCheck }

func newMySQL(c conf.Check, e *env) (Checker, error) {
	k, err := newSQL(c, e)
	return mysqlCheck{k}, err
}

func (k mysqlCheck) Check(ctx context.Context) (string, error) {
	password, err := readSecret(k.c.Passwd, k.c.PasswdFile)
	if err != nil {
		return "", err
	}
	s, err := openStream(ctx, k.c, nil)
	if err != nil {
		return "", err
	}
	defer s.Close()
	s.conn.listenFirst()
	m := &mysqlConn{s: s, password: password}
	version, err := m.login(k.c.Login, k.c.Database, k.tls)
	if k.c.Login == "" && err != nil {
		return m.nobody(version, err)
	}
	if err != nil {
		return "", err
	}
	detail := "logged in to " + version
	if k.query != "" {
		rows := sqlRows{receive: k.receive}
		if err := m.query(k.query, &rows); err != nil {
			return "", fmt.Errorf("query: %w", err)
		}
		if detail, err = rows.verdict(k.c); err != nil {
			return "", err
		}
	}
	s.end([]byte{1, 0, 0, 0, mysqlQuit})
	return detail, nil
}

// nobody judges what became of a check without login.
func (m *mysqlConn) nobody(version string, err error) (string, error) {
	var refused mysqlError
	switch {
	case errors.Is(err, errUnknownPlugin):
		// A server asks nobody by the method of some user. Hanging up now would be
		// counted, and a wrong proof is not; that of client_ed25519, the likeliest
		// method, has 64 bytes.
		if m.send(make([]byte, 64)) == nil {
			_, _ = m.receive()
		}
	case !errors.As(err, &refused):
		return "", err
	case refused.code == 1130: // ER_HOST_NOT_PRIVILEGED, in place of the greeting
		return "works, and lets nobody in from this node's address (error 1130)", nil
	case !refused.accessDenied():
		return "", err
	}
	return "greets as " + version, nil
}

// Commands, and what the first byte of an answer says.
const (
	mysqlQuit  = 0x01
	mysqlQuery = 0x03

	mysqlOK     = 0x00
	mysqlMore   = 0x01 // of a login: more data of the method
	mysqlNull   = 0xfb // in a row; at the start of an answer: send a file
	mysqlEOF    = 0xfe // of a login: another method
	mysqlFailed = 0xff
)

// mysqlConn is one check's connection, in the client's protocol version 4.1.
type mysqlConn struct {
	s        *stream
	password []byte
	seq      byte // of the next packet
	secure   bool // TLS
}

// What is wrong with a server that does not speak the protocol, and with one
// whose method to log in is not ours.
var (
	errMySQL         = errors.New("not a well-formed MySQL packet")
	errOutOfOrder    = fmt.Errorf("%w: packets are out of order", errMySQL)
	errUnknownPlugin = errors.New("not known here")
)

// receive reads a packet: at least one byte. An error that the server reports
// is returned as mysqlError.
func (m *mysqlConn) receive() ([]byte, error) {
	head, err := m.s.read(4)
	if err != nil {
		return nil, err
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if n == 0 {
		return nil, errMySQL
	}
	p, err := m.s.read(n)
	if err != nil {
		return nil, err
	}
	if p[0] == mysqlFailed && len(p) >= 3 { // an error may come unasked
		return nil, m.failure(p)
	}
	if head[3] != m.seq {
		return nil, errOutOfOrder
	}
	m.seq++
	return p, nil
}

func (m *mysqlConn) send(p []byte) error {
	head := []byte{byte(len(p)), byte(len(p) >> 8), byte(len(p) >> 16), m.seq}
	m.seq++
	return m.s.write(append(head, p...))
}

// mysqlError is what the server reports.
type mysqlError struct {
	code  int
	words string
}

func (e mysqlError) Error() string { return fmt.Sprintf("error %d: %s", e.code, e.words) }

// accessDenied is true of answers to a login of nobody by a server that lets
// others in: ER_ACCESS_DENIED_ERROR, ..._NO_PASSWORD_ERROR, ER_NOT_SUPPORTED_AUTH_MODE.
func (e mysqlError) accessDenied() bool { return e.code == 1045 || e.code == 1698 || e.code == 1251 }

func (m *mysqlConn) failure(p []byte) error {
	e := mysqlError{code: int(binary.LittleEndian.Uint16(p[1:]))}
	words := p[3:]
	if len(words) >= 6 && words[0] == '#' { // the SQLSTATE
		words = words[6:]
	}
	e.words = quoteWithout(m.password, words)
	return e
}

// query runs a query and reads the rows that are needed.
func (m *mysqlConn) query(text string, rows *sqlRows) error {
	m.seq = 0
	if err := m.send(append([]byte{mysqlQuery}, text...)); err != nil {
		return err
	}
	p, err := m.receive()
	if err != nil {
		return err
	}
	switch p[0] {
	case mysqlOK: // a statement without an answer
		return nil
	case mysqlNull:
		return errors.New("the server asks for a file of this machine")
	}
	columns, rest, ok := lengthEncoded(p)
	if !ok || len(rest) > 0 || columns == 0 || columns > 4096 {
		return errMySQL
	}
	for n := columns; ; n-- { // their descriptions, and an end
		if p, err = m.receive(); err != nil {
			return err
		}
		if end := isMySQLEnd(p); end != (n == 0) {
			return errMySQL
		} else if end {
			break
		}
	}
	for !rows.enough() || (m.s.more() && rows.rows < maxRows) {
		if p, err = m.receive(); err != nil {
			if rows.enough() {
				return nil
			}
			return err
		}
		if isMySQLEnd(p) {
			return nil
		}
		rows.rows++
		for range columns {
			if len(p) > 0 && p[0] == mysqlNull {
				p = p[1:]
				continue
			}
			n, rest, ok := lengthEncoded(p)
			if !ok || n > uint64(len(rest)) {
				return errMySQL
			}
			rows.value(rest[:n])
			p = rest[n:]
		}
	}
	return nil
}

// isMySQLEnd tells the packet that ends descriptions or rows from a row that
// begins with a very long value.
func isMySQLEnd(p []byte) bool { return p[0] == mysqlEOF && len(p) < 9 }

// lengthEncoded takes an integer of variable length from p.
func lengthEncoded(p []byte) (n uint64, rest []byte, ok bool) {
	if len(p) == 0 {
		return 0, nil, false
	}
	size := 0
	switch p[0] {
	case 0xfc:
		size = 2
	case 0xfd:
		size = 3
	case 0xfe:
		size = 8
	case 0xfb, 0xff:
		return 0, nil, false
	default:
		return uint64(p[0]), p[1:], true
	}
	if len(p) < 1+size {
		return 0, nil, false
	}
	for i := size; i > 0; i-- {
		n = n<<8 | uint64(p[i])
	}
	return n, p[1+size:], true
}
