package notify

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Mail is one to be delivered.
type Mail struct {
	From string   // address of the sender, for the envelope
	To   []string // addresses, for the envelope
	Data []byte   // header and body, RFC 5322, with CRLF
}

// hopeless is an error that no second try makes better.
type hopeless struct{ error }

// final tells whether there is no use in a second try: RFC 5321, 4.2.1, of replies 5yz.
func final(err error) bool {
	var h hopeless
	var reply *textproto.Error
	return errors.As(err, &h) || errors.As(err, &reply) && reply.Code >= 500
}

// subjectLength is what most programs show of a subject.
const subjectLength = 120

// compose makes a mail of lines. Addresses are parsed and written anew, and
// whatever else comes from outside is one line of the body or an encoded word:
// nothing of it can become a header.
func compose(e conf.Email, node string, lines []string, more int, now time.Time) (Mail, error) {
	var m Mail
	var names []string
	for _, s := range strings.Split(e.To, ",") {
		envelope, header, err := mailbox(s)
		if err != nil {
			return Mail{}, hopeless{fmt.Errorf("emailalert %q: %w", e.To, err)}
		}
		m.To, names = append(m.To, envelope), append(names, header)
	}
	sender := e.From
	if sender == "" {
		sender = "root@" + node
	}
	var from string
	var err error
	if m.From, from, err = mailbox(sender); err != nil {
		return Mail{}, hopeless{fmt.Errorf("emailalertfrom %q: %w", sender, err)}
	}
	subject := node + ": " + lines[0]
	if n := len(lines) + more; n > 1 {
		subject = node + ": " + strconv.Itoa(n) + " alerts, the first: " + lines[0]
	}
	var b strings.Builder
	header := func(name, value string) { b.WriteString(name + ": " + value + "\r\n") }
	header("From", from)
	header("To", strings.Join(names, ",\r\n "))
	header("Subject", mime.QEncoding.Encode("utf-8", bounded(subject, subjectLength)))
	header("Date", now.Format(time.RFC1123Z))
	header("Message-ID", fmt.Sprintf("<%d.%d@%s>", now.UnixNano(), PID, domain(m.From)))
	header("Auto-Submitted", "auto-generated") // RFC 3834: no vacation notices, please
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable") // whatever a server answered: it passes every mail system
	b.WriteString("\r\n")
	body := quotedprintable.NewWriter(&b)
	write := func(text string) { _, _ = io.WriteString(body, text+"\r\n") } // into memory: no error
	write("node " + bounded(node, maxLine) + ", " + now.Format(time.RFC1123Z))
	write("")
	for _, l := range lines {
		write(bounded(l, maxLine))
	}
	if more > 0 {
		write(fmt.Sprintf("and %d more", more))
	}
	_ = body.Close()
	m.Data = []byte(b.String())
	return m, nil
}

// mailbox is an address as the envelope has it, and as a header has it. A user
// without a domain is one of the mail system that takes the mail, and has none there either.
func mailbox(s string) (envelope, header string, err error) {
	const here = "@localhost"
	s = strings.TrimSpace(s)
	if s == "" || strings.Contains(s, "@") {
		a, err := mail.ParseAddress(s)
		if err != nil {
			return "", "", err
		}
		return a.Address, a.String(), nil
	}
	a, err := mail.ParseAddress(s + here)
	if err != nil || a.Address != s+here {
		return "", "", errors.New("not an address")
	}
	return s, s, nil
}

// domain of an address; that of a user without one is this machine's.
func domain(address string) string {
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		return address[at+1:]
	}
	return "localhost"
}
