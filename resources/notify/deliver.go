package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/keepbeat/keepbeat/conf"
)

// sendmail is where every mail system has it.
const sendmail = "/usr/sbin/sendmail"

// deliver sends a mail by the server that e names, or by the local sendmail.
func deliver(ctx context.Context, e conf.Email, m Mail) error {
	if e.Server == "" {
		return bySendmail(ctx, sendmail, m)
	}
	return bySMTP(ctx, e.Server, m)
}

// bySendmail hands a mail to the local mail system, which takes the recipients from its header.
func bySendmail(ctx context.Context, path string, m Mail) error {
	// Programs want the lines of the machine, not those of the network.
	output, err := run(ctx, path, []string{"-t", "-oi", "-f", m.From}, nil, bytes.ReplaceAll(m.Data, []byte("\r\n"), []byte("\n")))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s is not there: install a mail system, or name an SMTP server with \"smtp\"", path)
	case err != nil && output != "":
		return fmt.Errorf("%s: %w: %s", path, err, output)
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// maxReply bounds what an SMTP server may send in one delivery, its certificates too.
const maxReply = 256 << 10

// bySMTP delivers a mail to a server until ctx ends. Where the server offers
// STARTTLS it is used, and as between mail servers its certificate is not
// verified: an alert that is not sent helps nobody.
func bySMTP(ctx context.Context, server string, m Mail) (err error) {
	host, port := hostPort(server)
	defer func() {
		if err != nil {
			err = fmt.Errorf("smtp %s: %w", server, err)
		}
	}()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, err := smtp.NewClient(&bounding{Conn: conn, r: io.LimitReader(conn, maxReply)}, host)
	if err != nil {
		return err
	}
	if err := c.Hello(domain(m.From)); err != nil {
		return err
	}
	if ok, _ := c.Extension("STARTTLS"); ok {
		if err := c.StartTLS(&tls.Config{ServerName: host, InsecureSkipVerify: true}); err != nil { //nolint:gosec // see above
			return err
		}
	}
	if err := from(c, m.From); err != nil {
		return err
	}
	taken := 0
	var refused error
	for _, to := range m.To {
		if err := c.Rcpt(to); err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		taken++
	}
	if taken == 0 {
		return refused
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(m.Data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // it has been taken
	if refused != nil {
		return hopeless{fmt.Errorf("delivered, but not to all: %w", refused)}
	}
	return nil
}

// from begins a mail. An address of plain ASCII is sent without the SMTPUTF8
// that c.Mail asks for where it is offered: a server further on may not have it.
func from(c *smtp.Client, address string) error {
	for _, r := range address {
		if r >= utf8.RuneSelf {
			return c.Mail(address)
		}
	}
	id, err := c.Text.Cmd("MAIL FROM:<%s>", address)
	if err != nil {
		return err
	}
	c.Text.StartResponse(id)
	defer c.Text.EndResponse(id)
	_, _, err = c.Text.ReadResponse(250)
	return err
}

// hostPort takes HOST[:PORT] apart; an IPv6 address without a port needs no brackets.
func hostPort(server string) (host, port string) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return strings.Trim(server, "[]"), "25"
	}
	return host, port
}

// bounding is a connection of which no more than a bounded number of bytes is read.
type bounding struct {
	net.Conn
	r io.Reader
}

func (b *bounding) Read(p []byte) (int, error) { return b.r.Read(p) }
