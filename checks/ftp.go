package checks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"strconv"

	"github.com/keepbeat/keepbeat/conf"
)

// ftp is service ftp (RFC 959): login, with request the file of that name in
// passive mode and receive on its content, QUIT. With STARTTLS (RFC 4217) both
// connections are encrypted.
//
// The data connection goes to the address of the server that is checked,
// whatever an answer to PASV says (RFC 2577, 2: otherwise a server could have us
// connect to somebody else).
type ftp struct {
	lineService
	receive *regexp.Regexp // nil: any content
}

func newFTP(c conf.Check, e *env) (Checker, error) {
	// As ldirectord, which takes this password for any user.
	if c.Login == "" {
		c.Login = "anonymous"
	}
	if c.Passwd == "" && c.PasswdFile == "" {
		c.Passwd = "ldirectord@" + hostname()
	}
	s, err := newLineService(c, e, false)
	if err != nil {
		return nil, err
	}
	if err := sendable("request", []byte(c.Request)); err != nil {
		return nil, err
	}
	if c.Request == "" && c.Receive != "" {
		return nil, errors.New("receive looks at the content of a file: name the file in request, or leave receive out")
	}
	k := &ftp{lineService: s}
	if k.receive, err = e.wanted(c); err != nil {
		return nil, err
	}
	return k, nil
}

func hostname() string {
	if name, err := os.Hostname(); err == nil && sendable("", []byte(name)) == nil {
		return name
	}
	return "localhost"
}

func (k *ftp) Check(ctx context.Context) (string, error) {
	d, err := k.open(ctx)
	if err != nil {
		return "", err
	}
	defer d.close()
	r, err := d.expect(120, 220)
	if err == nil && r.code == 120 { // RFC 959, 5.4: "ready in a moment"
		_, err = d.expect(220)
	}
	if err != nil {
		return "", err
	}
	data := k.tls
	if k.c.STARTTLS {
		// Many servers take a data connection only with the session of the
		// control connection: it shows that both come from one client.
		data = k.tls.Clone()
		data.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if err := k.protect(d, data); err != nil {
			return "", err
		}
	}
	if err := k.login(d); err != nil {
		return "", err
	}
	detail := "logged in"
	if k.c.Request != "" {
		if detail, err = k.retrieve(ctx, d, data); err != nil {
			return "", err
		}
	}
	return detail, d.quit()
}

// protect encrypts the control connection, and the data connection to come.
func (k *ftp) protect(d *dialogue, t *tls.Config) error {
	if err := d.command("AUTH TLS", 234); err != nil {
		return err
	}
	if err := d.startTLS(t); err != nil {
		return err
	}
	if err := d.command("PBSZ 0", 200); err != nil {
		return err
	}
	return d.command("PROT P", 200)
}

func (k *ftp) login(d *dialogue) error {
	if err := d.say("USER", "USER "+k.c.Login); err != nil {
		return err
	}
	r, err := d.expect(230, 331)
	if err != nil || r.code == 230 {
		return err
	}
	if err := d.say("PASS", "PASS "+string(d.password)); err != nil {
		return err
	}
	_, err = d.expect(230, 202)
	return err
}

// retrieve fetches the file and judges its content; t: what the data connection
// is encrypted with, nil for nothing.
func (k *ftp) retrieve(ctx context.Context, d *dialogue, t *tls.Config) (detail string, err error) {
	if err := d.command("TYPE I", 200); err != nil {
		return "", err
	}
	port, err := k.passive(d)
	if err != nil {
		return "", err
	}
	to := k.c
	to.Target = netip.AddrPortFrom(k.c.Target.Addr(), port)
	conn, err := dialCheck(ctx, to)
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	defer conn.Close()
	if err := conn.connected(); err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	conn.listenFirst()
	if err := d.say("RETR", "RETR "+k.c.Request); err != nil {
		return "", err
	}
	if _, err := d.expect(125, 150); err != nil {
		return "", err
	}
	var r io.Reader = conn
	if t != nil {
		if r, err = handshake(conn, t); err != nil {
			return "", fmt.Errorf("data: %w", err)
		}
	}
	content, err := io.ReadAll(io.LimitReader(r, maxBody))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // that one: TLS closed without close_notify
		return "", fmt.Errorf("data: %w", conn.answerError(err))
	}
	if err := conn.Close(); err != nil {
		return "", err
	}
	if k.receive != nil && !k.receive.Match(content) {
		return "", fmt.Errorf("file %q: no match for %q in %d bytes", k.c.Request, k.c.Receive, len(content))
	}
	d.step = "end of RETR"
	if len(content) < maxBody { // otherwise the server says that we hung up
		_, err = d.expect(226, 250)
	} else {
		_, err = d.reply(nil)
	}
	return fmt.Sprintf("file %q, %d bytes", k.c.Request, len(content)), err
}

// passive asks for a port to connect to: EPSV (RFC 2428), or where a server
// does not know that, PASV, which is for IPv4 alone.
func (k *ftp) passive(d *dialogue) (port uint16, err error) {
	if err := d.say("EPSV", "EPSV"); err != nil {
		return 0, err
	}
	r, err := d.reply(nil)
	if err != nil {
		return 0, err
	}
	parse := ftpExtended
	switch {
	case r.code == 229:
	case r.code/100 == 5 && k.c.Target.Addr().Unmap().Is4():
		if err := d.say("PASV", "PASV"); err != nil {
			return 0, err
		}
		if r, err = d.expect(227); err != nil {
			return 0, err
		}
		parse = ftpPassive
	default:
		return 0, d.unwanted(r.line, "229")
	}
	if port = parse(r.line); port == 0 {
		return 0, d.unwanted(r.line, "a port")
	}
	return port, nil
}

// ftpExtended takes the port from "229 text (|||6446|)" (RFC 2428, 3); the
// delimiter may be any character. 0: there is none.
func ftpExtended(line []byte) uint16 {
	i, j := bytes.LastIndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if i < 0 || j < i+6 {
		return 0
	}
	p := line[i+1 : j]
	delimiter := p[0]
	if delimiter < 33 || delimiter > 126 || p[1] != delimiter || p[2] != delimiter || p[len(p)-1] != delimiter {
		return 0
	}
	port, err := strconv.ParseUint(string(p[3:len(p)-1]), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}

// ftpPassive takes the port from "227 text (h1,h2,h3,h4,p1,p2)"; the brackets
// are not always there (RFC 1123, 4.1.2.6). 0: there is none.
func ftpPassive(line []byte) uint16 {
	numbers := passiveNumbers.FindSubmatch(line[min(len(line), 3):])
	if numbers == nil {
		return 0
	}
	high, err := strconv.ParseUint(string(numbers[1]), 10, 8)
	if err != nil {
		return 0
	}
	low, err := strconv.ParseUint(string(numbers[2]), 10, 8)
	if err != nil {
		return 0
	}
	return uint16(high<<8 | low)
}

var passiveNumbers = regexp.MustCompile(`\d{1,3},\d{1,3},\d{1,3},\d{1,3},(\d{1,3}),(\d{1,3})`)
