package checks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// simpleTCP is service simpletcp: request is sent, the sending side is shut,
// and receive has to match a line of the answer, or all of it. Without receive
// an answer is enough.
//
// A line counts as soon as it is complete, so that a server which never closes
// can be up; the answer as a whole counts when the server has closed, or after
// maxBody bytes.
type simpleTCP struct {
	c       conf.Check
	request []byte
	receive *regexp.Regexp // nil: any answer
}

func newSimpleTCP(c conf.Check, e *env) (Checker, error) {
	k := &simpleTCP{c: c}
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	if err := sameFamily(c); err != nil {
		return nil, err
	}
	var err error
	if k.request, err = expand(c.Request); err != nil {
		return nil, fmt.Errorf("request %q: %w", c.Request, err)
	}
	if k.receive, err = e.wanted(c); err != nil {
		return nil, err
	}
	return k, nil
}

// expand replaces the escapes of a request: \n, \r, \t, \\ and \xNN.
func expand(s string) ([]byte, error) {
	var b []byte
	for {
		before, after, found := strings.Cut(s, `\`)
		b = append(b, before...)
		if !found {
			return b, nil
		}
		if after == "" {
			return nil, errors.New(`it ends with a single \; write \\ for that character`)
		}
		escape := after[0]
		s = after[1:]
		switch escape {
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case '\\':
			b = append(b, '\\')
		case 'x':
			if len(s) < 2 {
				return nil, errors.New(`\x needs two hexadecimal digits`)
			}
			n, err := strconv.ParseUint(s[:2], 16, 8)
			if err != nil {
				return nil, errors.New(`\x needs two hexadecimal digits`)
			}
			b = append(b, byte(n))
			s = s[2:]
		default:
			return nil, fmt.Errorf(`\%c is not known; \n, \r, \t, \xNN and \\ are`, escape)
		}
	}
}

func (k *simpleTCP) Check(ctx context.Context) (string, error) {
	conn, err := dialCheck(ctx, k.c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.connected(); err != nil {
		return "", err
	}
	if len(k.request) > 0 {
		if _, err := conn.Write(k.request); err != nil {
			return "", err
		}
	}
	// ENOTCONN: the server has reset the connection, which reading tells.
	if err := unix.Shutdown(conn.fd, unix.SHUT_WR); err != nil && err != unix.ENOTCONN {
		return "", conn.fail("shutdown", err)
	}
	answer, err := k.read(conn)
	if err != nil {
		return "", conn.answerError(err)
	}
	return answer, nil
}

// read reads until the answer is known to be right or wrong.
func (k *simpleTCP) read(r io.Reader) (detail string, err error) {
	answer := make([]byte, 0, 512)
	for line := 0; ; { // where the first line begins that has not been looked at
		if len(answer) == maxBody {
			break
		}
		if len(answer) == cap(answer) {
			answer = append(answer, 0)[:len(answer)]
		}
		n, err := r.Read(answer[len(answer):min(cap(answer), maxBody)])
		fresh := len(answer)
		answer = answer[:fresh+n]
		if n > 0 && k.receive == nil {
			return "answer " + quote(answer), nil
		}
		for {
			i := bytes.IndexByte(answer[max(line, fresh):], '\n')
			if i < 0 {
				break
			}
			end := max(line, fresh) + i
			if l := bytes.TrimSuffix(answer[line:end], []byte{'\r'}); k.receive.Match(l) {
				return k.matched(), nil
			}
			line = end + 1
		}
		if err == io.EOF {
			if len(answer) == 0 {
				return "", errClosed
			}
			if k.receive.Match(answer[line:]) {
				return k.matched(), nil
			}
			break
		}
		if err != nil {
			return "", err
		}
	}
	if k.receive.Match(answer) {
		return k.matched(), nil
	}
	return "", fmt.Errorf("no match for %q in %d bytes, %s", k.c.Receive, len(answer), quote(answer))
}

func (k *simpleTCP) matched() string { return fmt.Sprintf("match for %q", k.c.Receive) }
