package checks

import (
	"bytes"
	"context"

	"github.com/keepbeat/keepbeat/conf"
)

// pop is service pop and pops (RFC 1939): the greeting, with login USER and
// PASS, QUIT; with STARTTLS (RFC 2595, 4) after STLS.
type pop struct{ lineService }

func newPOP(c conf.Check, e *env) (Checker, error) {
	s, err := newLineService(c, e, c.Service == "pops")
	if err == nil {
		err = s.greetedBy()
	}
	if err != nil {
		return nil, err
	}
	return &pop{s}, nil
}

func (k *pop) Check(ctx context.Context) (string, error) {
	password, err := k.password()
	if err != nil {
		return "", err
	}
	d, err := k.open(ctx)
	if err != nil {
		return "", err
	}
	defer d.close()
	line, err := popOK(d)
	if err != nil {
		return "", err
	}
	detail, err := d.greeting(line)
	if err != nil {
		return "", err
	}
	if k.c.STARTTLS {
		if err := popCommand(d, "STLS", "STLS"); err != nil {
			return "", err
		}
		if err := d.startTLS(k.tls); err != nil {
			return "", err
		}
	}
	if k.c.Login != "" {
		d.hide(password)
		if err := popCommand(d, "USER", "USER "+k.c.Login); err != nil {
			return "", err
		}
		if err := popCommand(d, "PASS", "PASS "+string(password)); err != nil {
			return "", err
		}
		detail = "logged in"
	}
	return detail, d.goodbye("QUIT", "QUIT", func(line []byte) (last, well bool) { return true, positive(line) })
}

func popCommand(d *dialogue, step, line string) error {
	if err := d.say(step, line); err != nil {
		return err
	}
	_, err := popOK(d)
	return err
}

func popOK(d *dialogue) ([]byte, error) {
	line, err := d.line()
	if err == nil && !positive(line) {
		err = d.unwanted(line, "+OK")
	}
	return line, err
}

// positive is RFC 1939, 3: the status indicator, then nothing or a blank.
func positive(line []byte) bool {
	word, _, _ := bytes.Cut(line, []byte(" "))
	return string(word) == "+OK"
}
