package checks

import (
	"context"

	"github.com/keepbeat/keepbeat/conf"
)

// nntp is service nntp (RFC 3977): a greeting that begins with 2, with login
// AUTHINFO (RFC 4643), QUIT; with STARTTLS (RFC 4642) before.
type nntp struct{ lineService }

func newNNTP(c conf.Check, e *env) (Checker, error) {
	s, err := newLineService(c, e, false)
	if err == nil {
		err = s.greetedBy()
	}
	if err != nil {
		return nil, err
	}
	return &nntp{s}, nil
}

func (k *nntp) Check(ctx context.Context) (string, error) {
	d, err := k.open(ctx)
	if err != nil {
		return "", err
	}
	defer d.close()
	r, err := d.reply(nil)
	if err != nil {
		return "", err
	}
	if r.code/100 != 2 {
		return "", d.unwanted(r.line, "2xx")
	}
	detail, err := d.greeting(r.line)
	if err != nil {
		return "", err
	}
	if k.c.STARTTLS {
		if err := d.command("STARTTLS", 382); err != nil {
			return "", err
		}
		if err := d.startTLS(k.tls); err != nil {
			return "", err
		}
	}
	if k.c.Login != "" {
		if err := k.login(d); err != nil {
			return "", err
		}
		detail = "logged in"
	}
	return detail, d.quit()
}

func (k *nntp) login(d *dialogue) error {
	if err := d.say("AUTHINFO USER", "AUTHINFO USER "+k.c.Login); err != nil {
		return err
	}
	r, err := d.expect(281, 381)
	if err != nil || r.code == 281 { // RFC 4643, 2.3.2: some users need no password
		return err
	}
	if err := d.say("AUTHINFO PASS", "AUTHINFO PASS "+string(d.password)); err != nil {
		return err
	}
	_, err = d.expect(281)
	return err
}
