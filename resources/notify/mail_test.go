package notify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/textproto"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

var to = conf.Email{To: "admin@example.org, \"The Other\" <other@example.org>", From: "keepbeat@example.org"}

func composed(t *testing.T, e conf.Email, lines ...string) Mail {
	t.Helper()
	m, err := compose(e, "director1", lines, 0, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAMailSaysWhatHasHappened(t *testing.T) {
	m := composed(t, to, "real server 10.0.0.5:80 is down (service 10.0.0.1:80 tcp): refused", "real server 10.0.0.6:80 is down")
	parsed, err := mail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"From": "<keepbeat@example.org>", "To": `<admin@example.org>, "The Other" <other@example.org>`,
		"Subject": "director1: 2 alerts, the first: real server 10.0.0.5:80 is down (service 10.0.0.1:80 tcp): refused",
		"Date":    "Sun, 01 Mar 2026 12:00:00 +0000", "Auto-Submitted": "auto-generated",
	} {
		if got := parsed.Header.Get(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(quotedprintable.NewReader(parsed.Body)); err != nil {
		t.Fatal(err)
	}
	want := "node director1, Sun, 01 Mar 2026 12:00:00 +0000\r\n\r\nreal server 10.0.0.5:80 is down (service 10.0.0.1:80 tcp): refused\r\nreal server 10.0.0.6:80 is down\r\n"
	if body.String() != want {
		t.Errorf("%q", body.String())
	}
	if m.From != "keepbeat@example.org" || strings.Join(m.To, " ") != "admin@example.org other@example.org" {
		t.Errorf("%+v", m)
	}
}

func TestNothingFromOutsideBecomesAHeader(t *testing.T) {
	evil := "x\r\nBcc: victim@example.org\r\n\r\n.\r\nMAIL FROM:<evil>\n\x00 é"
	m, err := compose(to, "director1", []string{evil, evil}, 7, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := mail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(err)
	}
	if parsed.Header.Get("Bcc") != "" || len(parsed.Header) != 9 {
		t.Errorf("%v", parsed.Header)
	}
	if bytes.Contains(m.Data, []byte("\r\n.\r\n")) || bytes.Contains(m.Data, []byte("\nMAIL")) {
		t.Errorf("%s", m.Data)
	}
	for _, bad := range []conf.Email{
		{To: "a@example.org\r\nBcc: b@example.org"}, {To: "a@example.org", From: "x\r\nBcc: <b@example.org>"}, {To: "a@example.org,"}, {To: "a b"}, {To: "root(x)"}, {To: "a@example.org", From: "<root>"},
	} {
		if _, err := compose(bad, "director1", []string{"x"}, 0, time.Now()); err == nil || !final(err) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// ldirectord's files often name root alone: a mailbox of the mail system that takes the mail.
func TestAUserWithoutADomainGetsMail(t *testing.T) {
	m := composed(t, conf.Email{To: "root,admin@example.org", From: "ldirectord"}, "x")
	if m.From != "ldirectord" || strings.Join(m.To, " ") != "root admin@example.org" {
		t.Errorf("envelope: %s to %q", m.From, m.To)
	}
	parsed, err := mail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(err)
	}
	if from, to := parsed.Header.Get("From"), parsed.Header.Get("To"); from != "ldirectord" || to != "root, <admin@example.org>" {
		t.Errorf("From: %s, To: %s", from, to)
	}
	if id := parsed.Header.Get("Message-ID"); !strings.HasSuffix(id, "@localhost>") {
		t.Error(id)
	}
}

// sent collects what a Mailer sends.
type sent struct {
	mu    sync.Mutex // guards mails
	mails []Mail
	err   error
}

func (s *sent) send(_ context.Context, _ conf.Email, m Mail) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, m)
	return s.err
}

func (s *sent) all() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mails
}

func TestAThousandAlertsAreOneMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sent{}
		m := NewMailer(MailConfig{Node: "director1", Logger: (&logBuffer{}).logger(), Send: s.send})
		within(t, m.Run, func() {
			for i := range 1500 {
				m.Add(to, fmt.Sprintf("real server %d is down", i))
			}
			m.Add(conf.Email{To: "else@example.org"}, "something")
			time.Sleep(collect / 2)
			synctest.Wait()
			if len(s.all()) != 0 {
				t.Error("sent at once")
			}
			time.Sleep(collect)
			synctest.Wait()
		})
		if len(s.all()) != 2 || strings.Count(string(s.all()[0].Data), "is down\r\n") < mailLines || !strings.Contains(string(s.all()[0].Data), "and 500 more") {
			t.Errorf("%d mails:\n%.300s", len(s.all()), s.all()[0].Data)
		}
	})
}

func TestAMailThatIsNotTakenIsTriedAgainAndAtLastGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		s := &sent{err: errors.New("connection refused")}
		m := NewMailer(MailConfig{Node: "director1", Logger: log.logger(), Send: s.send})
		within(t, m.Run, func() {
			m.Add(to, "one")
			time.Sleep(5 * time.Second)
			m.Add(to, "two") // goes along with the next try
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if len(s.all()) < 2 || !strings.Contains(string(s.all()[len(s.all())-1].Data), "one\r\ntwo\r\n") {
				t.Errorf("%d mails", len(s.all()))
			}
			time.Sleep(time.Hour)
		})
		if n := len(s.all()); n < 4 || n > 6 {
			t.Errorf("%d tries", n)
		}
		if !strings.Contains(log.String(), "given up") {
			t.Error(log)
		}
	})
}

func TestAMailThatIsRefusedForGoodIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sent{err: fmt.Errorf("smtp: %w", &textproto.Error{Code: 550, Msg: "no such user"})}
		m := NewMailer(MailConfig{Node: "director1", Logger: (&logBuffer{}).logger(), Send: s.send})
		within(t, m.Run, func() {
			m.Add(to, "one")
			time.Sleep(time.Hour)
		})
		if len(s.all()) != 1 {
			t.Errorf("%d tries", len(s.all()))
		}
	})
}

func TestWhatWaitsAtTheEndIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sent{}
		m := NewMailer(MailConfig{Node: "director1", Logger: (&logBuffer{}).logger(), Send: s.send})
		within(t, m.Run, func() { m.Add(to, "the pool is stopping") })
		if len(s.all()) != 1 {
			t.Errorf("%d mails", len(s.all()))
		}
	})
}

// smtpServer answers by a script: lines that begin with "< " are expected, "> "
// is said, "tls" turns to TLS, "data" reads a mail, "hang" says nothing more.
func smtpServer(t *testing.T, scripted string) (address string, got *bytes.Buffer, done chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got, done = &bytes.Buffer{}, make(chan error, 1)
	go func() {
		defer l.Close()
		done <- func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer func() { c.Close() }()
			r := bufio.NewReader(c)
			for line := range strings.Lines(scripted) {
				line = strings.TrimSpace(line)
				switch {
				case strings.HasPrefix(line, "> "):
					if _, err := fmt.Fprintf(c, "%s\r\n", line[2:]); err != nil {
						return err
					}
				case line == "tls":
					t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{selfSigned()}})
					c, r = t, bufio.NewReader(t)
				case line == "data":
					d, err := textproto.NewReader(r).ReadDotBytes()
					if err != nil {
						return err
					}
					got.Write(d)
				case line == "flood":
					for {
						if _, err := c.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
							return nil
						}
					}
				case line == "hang":
					_, err := r.ReadByte()
					if err == nil {
						return errors.New("it said something")
					}
					return nil
				default:
					said, err := r.ReadString('\n')
					if err != nil || strings.TrimSpace(said) != line[2:] {
						return fmt.Errorf("%q for %q, %v", said, line, err)
					}
				}
			}
			return nil
		}()
	}()
	return l.Addr().String(), got, done
}

func selfSigned() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"elsewhere.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestSMTP(t *testing.T) {
	const envelope = `< MAIL FROM:<keepbeat@example.org>
		> 250 ok
		< RCPT TO:<admin@example.org>
		> 250 ok
		< RCPT TO:<other@example.org>
		> 250 ok
		< DATA
		> 354 go on
		data
		> 250 taken
		< QUIT
		> 221 bye`
	t.Run("a mail is delivered", func(t *testing.T) {
		address, got, done := smtpServer(t, `> 220 mail.example.org
			< EHLO example.org
			> 250-mail.example.org
			> 250 SMTPUTF8
			`+envelope)
		m := composed(t, to, "one", ".")
		if err := bySMTP(t.Context(), address, m); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if want := bytes.ReplaceAll(m.Data, []byte("\r\n"), []byte("\n")); !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%q", got)
		}
	})
	t.Run("STARTTLS is used where it is offered", func(t *testing.T) {
		address, got, done := smtpServer(t, `> 220 mail.example.org
			< EHLO example.org
			> 250-mail.example.org
			> 250 STARTTLS
			< STARTTLS
			> 220 go on
			tls
			< EHLO example.org
			> 250-mail.example.org
			> 250 SMTPUTF8
			`+envelope)
		if err := bySMTP(t.Context(), address, composed(t, to, "one")); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil || got.Len() == 0 {
			t.Fatal(err)
		}
	})
	t.Run("a server that refuses", func(t *testing.T) {
		address, _, done := smtpServer(t, `> 220 mail.example.org
			< EHLO example.org
			> 250 mail.example.org
			< MAIL FROM:<keepbeat@example.org>
			> 550 who are you?`)
		err := bySMTP(t.Context(), address, composed(t, to, "one"))
		if err == nil || !final(err) || !strings.Contains(err.Error(), "who are you?") {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("one of two recipients is refused", func(t *testing.T) {
		address, got, done := smtpServer(t, `> 220 mail.example.org
			< EHLO example.org
			> 250-mail.example.org
			> 250 SMTPUTF8
			`+strings.Replace(envelope, "RCPT TO:<admin@example.org>\n\t\t> 250 ok", "RCPT TO:<admin@example.org>\n\t\t> 550 gone", 1))
		err := bySMTP(t.Context(), address, composed(t, to, "one"))
		if err == nil || !final(err) || !strings.Contains(err.Error(), "not to all") {
			t.Error(err)
		}
		if err := <-done; err != nil || got.Len() == 0 {
			t.Error(err)
		}
	})
	t.Run("a silent server ends with the time", func(t *testing.T) {
		address, _, done := smtpServer(t, "> 220 mail.example.org\n< EHLO example.org\nhang")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := bySMTP(ctx, address, composed(t, to, "one")); err == nil || final(err) {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("an endless greeting is cut off", func(t *testing.T) {
		address, _, done := smtpServer(t, "flood")
		if err := bySMTP(t.Context(), address, composed(t, to, "one")); err == nil {
			t.Error("taken")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestServersOfMail(t *testing.T) {
	for server, want := range map[string]string{
		"mail.example.org": "mail.example.org 25", "mail.example.org:587": "mail.example.org 587", "10.0.0.1": "10.0.0.1 25",
		"2001:db8::1": "2001:db8::1 25", "[2001:db8::1]": "2001:db8::1 25", "[2001:db8::1]:26": "2001:db8::1 26",
	} {
		if host, port := hostPort(server); host+" "+port != want {
			t.Errorf("%s: %s %s", server, host, port)
		}
	}
}

func TestSendmail(t *testing.T) {
	out := filepath.Join(t.TempDir(), "mail")
	m := composed(t, to, "real server 10.0.0.5:80 is down")
	if err := bySendmail(t.Context(), script(t, `echo "$@" >`+out+`; cat >>`+out), m); err != nil {
		t.Fatal(err)
	}
	want := "-t -oi -f keepbeat@example.org\n" + strings.ReplaceAll(string(m.Data), "\r\n", "\n")
	if got := read(t, out); got != want {
		t.Errorf("%q", got)
	}
	if err := bySendmail(t.Context(), script(t, "echo disk full; exit 75"), m); err == nil || !strings.Contains(err.Error(), "exit status 75: disk full") {
		t.Error(err)
	}
	if err := bySendmail(t.Context(), "/nonexistent/sendmail", m); err == nil || !strings.Contains(err.Error(), "name an SMTP server") {
		t.Error(err)
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("admin@example.org", "keepbeat@example.org", "director1", "a line")
	f.Add("a@b, \"c\nd\" <e@f>", "", "x\r\ny", "\r\n.\r\n")
	f.Add("root,a@b", "daemon", "x", "y")
	f.Fuzz(func(t *testing.T, to, from, node, line string) {
		m, err := compose(conf.Email{To: to, From: from}, node, []string{line}, 0, time.Now())
		if err != nil {
			return
		}
		parsed, err := mail.ReadMessage(bytes.NewReader(m.Data))
		if err != nil {
			t.Fatalf("%v\n%q", err, m.Data)
		}
		if len(parsed.Header) != 9 {
			t.Errorf("%v", parsed.Header)
		}
		for _, l := range bytes.Split(m.Data, []byte("\r\n")) {
			if bytes.ContainsAny(l, "\r\n\x00") || len(l) > 998 {
				t.Errorf("%q", l)
			}
		}
	})
}
