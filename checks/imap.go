package checks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keepbeat/keepbeat/conf"
)

// imap is service imap and imaps (RFC 3501, which RFC 9051 keeps for all that
// is said here): the greeting, with login LOGIN, LOGOUT; with STARTTLS before.
type imap struct{ lineService }

func newIMAP(c conf.Check, e *env) (Checker, error) {
	s, err := newLineService(c, e, c.Service == "imaps")
	if err == nil {
		err = s.greetedBy()
	}
	if err != nil {
		return nil, err
	}
	return &imap{s}, nil
}

func (k *imap) Check(ctx context.Context) (string, error) {
	d, err := k.open(ctx)
	if err != nil {
		return "", err
	}
	defer d.close()
	line, err := d.line()
	if err != nil {
		return "", err
	}
	state := imapParse(line, "*")
	if state != imapOK && state != imapPreauth {
		return "", d.unwanted(line, "* OK")
	}
	detail, err := d.greeting(line)
	if err != nil {
		return "", err
	}
	if k.c.STARTTLS {
		// RFC 3501, 7.1.4: of a connection that is logged in already there is no way to TLS.
		if state == imapPreauth {
			return "", d.unwanted(line, "* OK, for STARTTLS")
		}
		if err := imapCommand(d, "STARTTLS", "k1", "STARTTLS"); err != nil {
			return "", err
		}
		if err := d.startTLS(k.tls); err != nil {
			return "", err
		}
	}
	if k.c.Login != "" && state != imapPreauth { // RFC 3501, 7.1.4: no LOGIN is needed, and 6.2: none is allowed
		if k.tls == nil && imapDisabled(line) {
			return "", errLoginDisabled
		}
		if err := imapCommand(d, "LOGIN", "k2", "LOGIN", []byte(k.c.Login), d.password); err != nil {
			return "", err
		}
		detail = "logged in"
	}
	return detail, d.goodbye("LOGOUT", "k3 LOGOUT", func(line []byte) (last, well bool) {
		switch imapParse(line, "k3") {
		case imapOK:
			return true, true
		case imapUntagged:
			return false, true
		}
		return true, false
	})
}

var errLoginDisabled = errors.New("greeting: the server wants no password without TLS (LOGINDISABLED): set starttls")

// imapDisabled reads the capabilities in a greeting, where there are some. RFC
// 3501, 6.2.3: with LOGINDISABLED among them a client must not send LOGIN.
func imapDisabled(greeting []byte) bool {
	_, list, found := bytes.Cut(bytes.ToUpper(greeting), []byte("[CAPABILITY "))
	list, _, closed := bytes.Cut(list, []byte("]"))
	return found && closed && slices.ContainsFunc(bytes.Fields(list), func(c []byte) bool { return string(c) == "LOGINDISABLED" })
}

// imapCommand sends a command and waits until it has been done. An argument
// that a quoted string cannot hold goes as a literal, for which the server has
// to ask (RFC 3501, 4.3).
func imapCommand(d *dialogue, step, tag, command string, arguments ...[]byte) error {
	line := tag + " " + command
	for _, a := range arguments {
		if quoted := imapQuoted(a); quoted != "" {
			line += " " + quoted
			continue
		}
		if err := d.say(step, fmt.Sprintf("%s {%d}", line, len(a))); err != nil {
			return err
		}
		if err := imapAwait(d, tag, imapContinue); err != nil {
			return err
		}
		line = string(a)
	}
	if err := d.say(step, line); err != nil {
		return err
	}
	return imapAwait(d, tag, imapOK)
}

// imapAwait reads up to the answer to a command, past what the server says unasked.
func imapAwait(d *dialogue, tag string, want imapState) error {
	for {
		line, err := d.line()
		if err != nil {
			return err
		}
		switch state := imapParse(line, tag); {
		case state == want:
			return nil
		case state == imapUntagged && imapParse(line, "*") != imapBye:
		default:
			return d.unwanted(line, fmt.Sprintf("%s of %s", want, tag))
		}
	}
}

// imapState is what a line of a server says.
type imapState uint8

const (
	_            imapState = iota
	imapOK                 // of the tag
	imapRefused            // NO or BAD of the tag
	imapPreauth            // PREAUTH of the tag, which is "*" there
	imapBye                // likewise
	imapUntagged           // something that was not asked for, or a part of the answer
	imapContinue           // the server waits for the rest of the command
	imapNonsense
)

func (s imapState) String() string {
	if s == imapContinue {
		return `"+"`
	}
	return "OK"
}

// imapParse reads a line of a server that owes an answer to the command tag;
// with "*" it reads untagged status responses (RFC 3501, 7.1).
func imapParse(line []byte, tag string) imapState {
	first, rest, _ := bytes.Cut(line, []byte(" "))
	if string(first) == "+" {
		return imapContinue
	}
	if string(first) != tag {
		if string(first) == "*" {
			return imapUntagged
		}
		return imapNonsense
	}
	word, _, _ := bytes.Cut(rest, []byte(" "))
	switch {
	case is(word, "ok"):
		return imapOK
	case is(word, "no"), is(word, "bad"):
		return imapRefused
	case tag == "*" && is(word, "preauth"):
		return imapPreauth
	case tag == "*" && is(word, "bye"):
		return imapBye
	case tag == "*":
		return imapUntagged
	}
	return imapNonsense
}

// imapQuoted is s as a quoted string (RFC 3501, 4.3), or empty where s holds
// something that such a string cannot.
func imapQuoted(s []byte) string {
	b := []byte{'"'}
	for _, c := range s {
		if c < ' ' || c >= 0x7f {
			return ""
		}
		if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return string(append(b, '"'))
}
