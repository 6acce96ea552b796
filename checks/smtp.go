package checks

import (
	"bytes"
	"cmp"
	"context"

	"github.com/keepbeat/keepbeat/conf"
)

// smtp is service smtp, submission and smtps: the greeting, EHLO, with STARTTLS
// (RFC 3207) both sides of it, QUIT. ldirectord looked at the greeting alone.
// Nothing is sent that would make a message.
type smtp struct{ lineService }

func newSMTP(c conf.Check, e *env) (Checker, error) {
	s, err := newLineService(c, e, c.Service == "smtps") // RFC 8314, 3.3
	if err == nil {
		err = noLogin(c)
	}
	if err == nil {
		err = sendable("helo_name", []byte(c.HeloName))
	}
	if err == nil {
		err = s.greetedBy()
	}
	if err != nil {
		return nil, err
	}
	return &smtp{s}, nil
}

func (k *smtp) Check(ctx context.Context) (string, error) {
	d, err := k.open(ctx)
	if err != nil {
		return "", err
	}
	defer d.close()
	r, err := d.expect(220)
	if err != nil {
		return "", err
	}
	detail, err := d.greeting(r.line)
	if err != nil {
		return "", err
	}
	starttls, err := k.hello(d)
	if err != nil {
		return "", err
	}
	if k.c.STARTTLS {
		if !starttls {
			return "", errNoSTARTTLS
		}
		if err := d.command("STARTTLS", 220); err != nil {
			return "", err
		}
		if err := d.startTLS(k.tls); err != nil {
			return "", err
		}
		// RFC 3207, 4.2: everything learned before is forgotten.
		if _, err := k.hello(d); err != nil {
			return "", err
		}
	}
	return detail, d.quit()
}

// hello introduces us, with HELO to a server that knows no EHLO (RFC 5321, 3.2).
func (k *smtp) hello(d *dialogue) (starttls bool, err error) {
	name := cmp.Or(k.c.HeloName, d.conn.literal())
	if err := d.say("EHLO", "EHLO "+name); err != nil {
		return false, err
	}
	r, err := d.reply(func(text []byte) {
		starttls = starttls || bytes.EqualFold(bytes.TrimSpace(text), []byte("STARTTLS"))
	})
	switch {
	case err != nil:
		return false, err
	case r.code == 250:
		return starttls, nil
	case r.code/100 != 5:
		return false, d.unwanted(r.line, "250")
	}
	if err := d.say("HELO", "HELO "+name); err != nil {
		return false, err
	}
	_, err = d.expect(250)
	return false, err
}

// literal is this end's address as an SMTP server wants it of a client without
// a name (RFC 5321, 4.1.3).
func (c *tcpConn) literal() string {
	a := localAddr(c.f).Addr()
	if a.Is6() {
		return "[IPv6:" + a.String() + "]"
	}
	return "[" + a.String() + "]"
}
