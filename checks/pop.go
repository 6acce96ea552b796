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
		if err := popCommand(d, "USER", "USER "+k.c.Login); err != nil {
			return "", err
		}
		if detail, err = popPassword(d); err != nil {
			return "", err
		}
	}
	return detail, d.goodbye("QUIT", "QUIT", func(line []byte) (last, well bool) { return true, positive(line) })
}

// popPassword ends a login. A mailbox that somebody else has open, perhaps the
// other director's check, and a login that comes too soon after the last one are
// refused by a server that works (RFC 2449, 8.1.1 and 8.1.2).
func popPassword(d *dialogue) (detail string, err error) {
	if err := d.say("PASS", "PASS "+string(d.password)); err != nil {
		return "", err
	}
	line, err := d.line()
	if err != nil {
		return "", err
	}
	switch upper := bytes.ToUpper(line); {
	case positive(line):
		return "logged in", nil
	case bytes.HasPrefix(upper, []byte("-ERR [IN-USE]")):
		return "the mailbox is in use", nil
	case bytes.HasPrefix(upper, []byte("-ERR [LOGIN-DELAY]")):
		return "the server wants more time between logins", nil
	}
	return "", d.unwanted(line, "+OK")
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
