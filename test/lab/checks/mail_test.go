package checks

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/notify"
)

// mailbox is a postfix that takes mail for admin@example.org into a file, from
// those who speak TLS. It returns its port and the file.
func mailbox(t *testing.T) (port uint16, file string) {
	t.Helper()
	dir := directory(t)
	port = freePort(t)
	cert, key := certificate(t, dir)
	uid, gid := ids(t, "postfix")
	for _, d := range []string{"queue", "data", "mail"} {
		path := filepath.Join(dir, d)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if d != "queue" {
			if err := os.Chown(path, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, dir, "etc/main.cf", fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
myhostname = mx.example.com
mydestination =
local_recipient_maps =
virtual_mailbox_domains = example.org
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = inline:{admin@example.org=admin}
virtual_minimum_uid = 1
virtual_uid_maps = static:%[4]d
virtual_gid_maps = static:%[5]d
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
alias_database =
smtpd_peername_lookup = no
smtpd_tls_cert_file = %[2]s
smtpd_tls_key_file = %[3]s
smtpd_tls_security_level = encrypt
maillog_file = /dev/stdout
`, dir, cert, key, uid, gid))
	write(t, dir, "etc/master.cf", fmt.Sprintf(`127.0.0.1:%d inet n - n - - smtpd
pickup    unix  n - n 60   1 pickup
cleanup   unix  n - n -    0 cleanup
qmgr      unix  n - n 300  1 qmgr
rewrite   unix  - - n -    - trivial-rewrite
bounce    unix  - - n -    0 bounce
defer     unix  - - n -    0 bounce
virtual   unix  - n n -    - virtual
anvil     unix  - - n -    1 anvil
tlsmgr    unix  - - n 1000 1 tlsmgr
proxymap  unix  - - n -    - proxymap
postlog   unix-dgram n - n - 1 postlogd
`, port))
	startServer(t, program{args: []string{"postfix", "-c", filepath.Join(dir, "etc"), "start-fg"}, port: port})
	return port, filepath.Join(dir, "mail", "admin")
}

func TestAlertsArriveInAMailboxOfPostfix(t *testing.T) {
	port, file := mailbox(t)
	m := notify.NewMailer(notify.MailConfig{Node: "director1", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	defer func() { cancel(); <-done }()
	to := conf.Email{To: "Admin <admin@example.org>", From: "keepbeat@example.org", Server: fmt.Sprintf("127.0.0.1:%d", port)}
	m.Add(to, "real server 10.0.0.5:80 is down (service 10.0.0.1:80 tcp): connection refused")
	m.Add(to, ".")
	var got *mail.Message
	for end := time.Now().Add(time.Minute); got == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no mail within a minute")
		}
		b, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(string(b), "\n\n") { // mbox: an empty line ends a mail
			continue
		}
		_, rest, _ := strings.Cut(string(b), "\n") // From_
		if got, err = mail.ReadMessage(strings.NewReader(rest)); err != nil {
			t.Fatal(err)
		}
	}
	body, err := io.ReadAll(quotedprintable.NewReader(got.Body))
	if err != nil {
		t.Fatal(err)
	}
	if s := got.Header.Get("Subject"); s != "director1: 2 alerts, the first: real server 10.0.0.5:80 is down (service 10.0.0.1:80 tcp): connection refused" {
		t.Error(s)
	}
	if !strings.HasSuffix(string(body), "\nreal server 10.0.0.5:80 is down (service 10.0.0.1:80 tcp): connection refused\n.\n\n") {
		t.Errorf("%q", body)
	}
	if r := got.Header.Get("Received"); !strings.Contains(r, "with ESMTPS") {
		t.Errorf("not by TLS: %s", r)
	}
}
