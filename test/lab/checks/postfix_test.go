package checks

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// postfix is one with a port for each of its services.
type postfix struct {
	*server
	smtp, submission, smtps uint16
	cert                    string
}

func startPostfix(t *testing.T) postfix {
	t.Helper()
	dir := directory(t)
	p := postfix{smtp: freePort(t), submission: freePort(t), smtps: freePort(t)}
	cert, key := certificate(t, dir)
	p.cert = cert
	for _, d := range []string{"queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	uid, _ := ids(t, "postfix")
	if err := os.Chown(filepath.Join(dir, "data"), uid, 0); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "etc/main.cf", fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
myhostname = mx.example.com
mydestination =
local_recipient_maps =
inet_interfaces = loopback-only
inet_protocols = all
alias_maps =
alias_database =
smtpd_peername_lookup = no
smtpd_tls_cert_file = %[2]s
smtpd_tls_key_file = %[3]s
smtpd_tls_security_level = may
maillog_file = /dev/stdout
`, dir, cert, key))
	service := func(port uint16, options string) string {
		return fmt.Sprintf("127.0.0.1:%[1]d inet n - n - - smtpd%[2]s\n[::1]:%[1]d inet n - n - - smtpd%[2]s\n", port, options)
	}
	write(t, dir, "etc/master.cf", service(p.smtp, "")+
		service(p.submission, " -o smtpd_tls_security_level=encrypt")+
		service(p.smtps, " -o smtpd_tls_wrappermode=yes")+
		`pickup    unix  n - n 60   1 pickup
cleanup   unix  n - n -    0 cleanup
qmgr      unix  n - n 300  1 qmgr
rewrite   unix  - - n -    - trivial-rewrite
anvil     unix  - - n -    1 anvil
tlsmgr    unix  - - n 1000 1 tlsmgr
proxymap  unix  - - n -    - proxymap
postlog   unix-dgram n - n - 1 postlogd
`)
	p.server = startServer(t, program{args: []string{"postfix", "-c", filepath.Join(dir, "etc"), "start-fg"}, ready: listening(p.smtp, p.submission, p.smtps)})
	return p
}

func TestPostfix(t *testing.T) {
	t.Run("smtp", func(t *testing.T) {
		p := startPostfix(t)
		story{
			server: p.server, six: true,
			check:   pooled(t, pool(25, p.smtp, "service: smtp")),
			up:      `^220 mx.example.com ESMTP Postfix`,
			wrong:   receive("Exim"),
			wrongly: `^greeting: "220 mx\.example\.com ESMTP Postfix.*", no match for "Exim"$`,
		}.tell(t)
	})
	t.Run("submission", func(t *testing.T) {
		p := startPostfix(t)
		story{
			server: p.server, six: true,
			check:   pooled(t, pool(587, p.submission, "starttls: yes", "tls_verify: yes", "tls_ca: "+p.cert)),
			up:      `^220 mx.example.com ESMTP Postfix`,
			wrong:   tlsName("mail.example.org"),
			wrongly: `^certificate: x509: certificate is valid for localhost, not mail.example.org$`,
		}.tell(t)
	})
	t.Run("smtps", func(t *testing.T) {
		p := startPostfix(t)
		story{
			server: p.server, six: true,
			check:   pooled(t, pool(465, p.smtps, "tls_verify: yes", "tls_ca: "+p.cert)),
			up:      `^220 mx.example.com ESMTP Postfix`,
			wrong:   func(c *conf.Check) { c.Target = local(p.smtp) },
			wrongly: `^TLS handshake: the server does not speak TLS$`,
		}.tell(t)
	})
}
