package checks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// lineService is what the services that speak in lines have in common: smtp,
// submission, pop, imap, nntp, ftp.
type lineService struct {
	c       conf.Check
	tls     *tls.Config    // nil: none; otherwise from the start, or with Check.STARTTLS when it is agreed
	greeted *regexp.Regexp // nil: any greeting
	env     *env
}

// newLineService validates what they have in common. implicit: it begins with TLS.
func newLineService(c conf.Check, e *env, implicit bool) (lineService, error) {
	s := lineService{c: c, env: e}
	if err := needTCPPort(c); err != nil {
		return s, err
	}
	if err := sameFamily(c); err != nil {
		return s, err
	}
	if implicit && c.STARTTLS {
		return s, fmt.Errorf("service %s has TLS from the start: leave starttls out", c.Service)
	}
	if implicit || c.STARTTLS {
		var err error
		if s.tls, err = tlsConfig(c, e); err != nil {
			return s, err
		}
	}
	if err := sendable("login", []byte(c.Login)); err != nil {
		return s, err
	}
	if err := sendable("passwd", []byte(c.Passwd)); err != nil {
		return s, err
	}
	if c.Login == "" && (c.Passwd != "" || c.PasswdFile != "") {
		return s, errors.New("passwd without login: say whose password it is")
	}
	return s, nil
}

// greetedBy has the greeting match receive.
func (s *lineService) greetedBy() (err error) {
	s.greeted, err = s.env.wanted(s.c)
	return err
}

// noLogin refuses a login for a service that would not use it.
func noLogin(c conf.Check) error {
	if c.Login != "" {
		return fmt.Errorf("login: a check of service %s does not log in; take it out", c.Service)
	}
	return nil
}

// sendable refuses what would end a line and begin another command. The value
// is not shown, for it may be a secret.
func sendable(name string, value []byte) error {
	if bytes.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("%s holds a line end or NUL, which cannot be sent", name)
	}
	return nil
}

// password reads the password of this check.
func (s *lineService) password() ([]byte, error) {
	p, err := readSecret(s.c.Passwd, s.c.PasswdFile)
	if err != nil || s.c.PasswdFile == "" {
		return p, err
	}
	if err := sendable("password from "+s.c.PasswdFile, p); err != nil {
		return nil, localError{err} // of this machine's file
	}
	return p, nil
}

// dialogue is one check's connection. Errors say at which step and what the
// server said, without secrets.
type dialogue struct {
	s        *lineService
	conn     *tcpConn
	rw       io.ReadWriter // conn, or TLS on it
	in       *lineReader
	storage  *[bufSize]byte
	step     string   // what is being waited for: the greeting, a command
	password []byte   // empty: none
	secrets  [][]byte // it in each form in which a server could say it back, lower case
}

// open reads the password, connects, and speaks TLS where that comes first.
func (s *lineService) open(ctx context.Context) (*dialogue, error) {
	password, err := s.password()
	if err != nil {
		return nil, err
	}
	conn, err := dialCheck(ctx, s.c)
	if err != nil {
		return nil, err
	}
	d := &dialogue{s: s, conn: conn, rw: conn, step: "greeting", password: password}
	d.hide(password) // the server may know it from an earlier check
	if err = conn.connected(); err == nil && s.tls != nil && !s.c.STARTTLS {
		d.rw, err = handshake(conn, s.tls)
	} else if err == nil {
		conn.listenFirst()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	d.storage = s.env.buffers.Get().(*[bufSize]byte)
	d.in = newLineReader(d.rw, d.storage[:])
	return d, nil
}

func (d *dialogue) close() {
	d.conn.Close()
	d.s.env.buffers.Put(d.storage)
}

// startTLS speaks TLS from now on. Nothing may have come after the agreement: a
// server speaks second there, and what stands in between was put there by
// somebody on the way (CVE-2021-38371 and its kin).
func (d *dialogue) startTLS(t *tls.Config) error {
	if rest := d.in.rest(); len(rest) > 0 {
		return fmt.Errorf("%s: more in plain text before the TLS handshake: %s", d.step, d.quote(rest))
	}
	c, err := handshake(d.conn, t)
	if err != nil {
		return err
	}
	d.rw, d.in.r = c, c
	return nil
}

// hide keeps a password out of what is shown.
func (d *dialogue) hide(password []byte) {
	if len(password) == 0 {
		return
	}
	d.secrets = append(d.secrets, bytes.ToLower(password))
	if quoted := imapQuoted(password); quoted != "" {
		d.secrets = append(d.secrets, bytes.ToLower([]byte(quoted[1:len(quoted)-1])))
	}
}

const notShown = "an answer that holds the password and is not shown"

// tells says whether something holds the password.
func (d *dialogue) tells(p []byte) bool {
	lower := bytes.ToLower(p)
	return slices.ContainsFunc(d.secrets, func(s []byte) bool { return bytes.Contains(lower, s) })
}

// quote shows what a server said. What holds the password is not shown at all:
// a blank in the place of a short one would tell it as well.
func (d *dialogue) quote(p []byte) string {
	if d.tells(p) {
		return notShown
	}
	return quote(p)
}

// say sends a command. step is how errors call it: never what holds a secret.
func (d *dialogue) say(step, line string) error {
	d.step = step
	if _, err := io.WriteString(d.rw, line+"\r\n"); err != nil {
		if isTimeout(err) {
			return timeoutError{step, d.conn.timeout}
		}
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

// failed puts an error of reading or writing into words.
func (d *dialogue) failed(err error) error {
	switch {
	case isTimeout(err):
		return timeoutError{d.step, d.conn.timeout}
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF): // the latter: TLS closed without close_notify
		if rest := d.in.rest(); len(rest) > 0 {
			return fmt.Errorf("%s: connection closed in the middle of %s", d.step, d.quote(rest))
		}
		return fmt.Errorf("%s: %w", d.step, errClosed)
	}
	return fmt.Errorf("%s: %w", d.step, d.conn.answerError(err))
}

var (
	errClosed     = errors.New("connection closed without an answer")
	errNoSTARTTLS = errors.New("EHLO: the server does not offer STARTTLS")
)

// line reads one line.
func (d *dialogue) line() ([]byte, error) {
	p, err := d.in.line()
	if err != nil {
		return nil, d.failed(err)
	}
	return p, nil
}

// reply reads an answer with a code; each is handed the text of every line.
func (d *dialogue) reply(each func(text []byte)) (reply, error) {
	r, err := d.in.reply(each)
	if err == errNoReply {
		return r, fmt.Errorf("%s: %s %w", d.step, d.quote(r.line), err)
	}
	if err != nil {
		return r, d.failed(err)
	}
	return r, nil
}

// expect reads an answer that has to have one of the codes.
func (d *dialogue) expect(codes ...int) (reply, error) {
	r, err := d.reply(nil)
	if err == nil && !slices.Contains(codes, r.code) {
		err = d.unwanted(r.line, wanted(codes))
	}
	return r, err
}

// command sends a command without secrets and wants one of the codes.
func (d *dialogue) command(line string, codes ...int) error {
	if err := d.say(line, line); err != nil {
		return err
	}
	_, err := d.expect(codes...)
	return err
}

func wanted(codes []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(codes), " ", " or "), "[]")
}

// unwanted is a failure with what the server said.
func (d *dialogue) unwanted(line []byte, want string) error {
	return fmt.Errorf("%s: %s, wanted %s", d.step, d.quote(line), want)
}

// greeting judges a greeting by receive, and is the detail of the check.
func (d *dialogue) greeting(line []byte) (detail string, err error) {
	if d.s.greeted != nil && !d.s.greeted.Match(line) {
		return "", fmt.Errorf("greeting: %s, no match for %q", d.quote(line), d.s.c.Receive)
	}
	if d.tells(line) {
		return notShown, nil
	}
	return string(line), nil
}

// goodbye sends the last command. The server may close instead of answering it,
// since it has worked up to here; otherwise judge is handed its lines, and says
// which is the last and whether it is well. The server then closes first, so
// that the TIME_WAIT socket is its.
func (d *dialogue) goodbye(step, command string, judge func(line []byte) (last, well bool)) error {
	if err := d.say(step, command); err != nil {
		return unlessClosed(err)
	}
	for {
		line, err := d.in.line()
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return unlessClosed(d.failed(err))
		}
		last, well := judge(line)
		if !well {
			return d.unwanted(line, "goodbye")
		}
		if last {
			d.conn.awaitClose()
			return nil
		}
	}
}

func unlessClosed(err error) error {
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// quit is goodbye where answers have codes.
func (d *dialogue) quit() error {
	return d.goodbye("QUIT", "QUIT", func(line []byte) (last, well bool) {
		code, more, ok := replyCode(line)
		return !more, ok && code/100 == 2
	})
}
