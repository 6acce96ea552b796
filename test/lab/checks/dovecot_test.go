package checks

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// dovecot is one that knows alice, whose password is wonderland.
type dovecot struct {
	*server
	imap, imaps, pop, pops uint16
	cert                   string
}

func startDovecot(t *testing.T) dovecot {
	t.Helper()
	dir := directory(t)
	d := dovecot{imap: freePort(t), imaps: freePort(t), pop: freePort(t), pops: freePort(t)}
	cert, key := certificate(t, dir)
	d.cert = cert
	uid, gid := ids(t, "nobody")
	mail := filepath.Join(dir, "mail")
	if err := os.Mkdir(mail, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(mail, uid, gid); err != nil {
		t.Fatal(err)
	}
	users := write(t, dir, "users", "alice:{PLAIN}wonderland\n")
	config := write(t, dir, "dovecot.conf", fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
protocols = imap pop3
listen = 127.0.0.1, ::1
ssl = yes
ssl_cert = <%[2]s
ssl_key = <%[3]s
disable_plaintext_auth = no
auth_failure_delay = 0
mail_location = maildir:%[1]s/mail/%%u
first_valid_uid = 1
passdb {
  driver = passwd-file
  args = %[4]s
}
userdb {
  driver = static
  args = uid=%[5]d gid=%[6]d home=%[1]s/mail/%%u
}
service imap-login {
  inet_listener imap {
    port = %[7]d
  }
  inet_listener imaps {
    port = %[8]d
  }
}
service pop3-login {
  inet_listener pop3 {
    port = %[9]d
  }
  inet_listener pop3s {
    port = %[10]d
  }
}
`, dir, cert, key, users, uid, gid, d.imap, d.imaps, d.pop, d.pops))
	d.server = startServer(t, program{args: []string{"dovecot", "-F", "-c", config}, ready: listening(d.imap, d.imaps, d.pop, d.pops)})
	return d
}

func TestDovecot(t *testing.T) {
	const login, passwd = "login: alice", "passwd: wonderland"
	wrongPassword := func(c *conf.Check) { c.Passwd = "not her password" }
	secret := func(t *testing.T) string {
		return "passwd_file: " + write(t, directory(t), "passwd", "wonderland\n")
	}
	for _, tc := range []struct {
		name    string
		check   func(t *testing.T, d dovecot) conf.Check
		up      string
		wrong   func(*conf.Check)
		wrongly string
	}{
		{"imap", func(t *testing.T, d dovecot) conf.Check { return pooled(t, pool(143, d.imap, login, passwd)) },
			"^logged in$", wrongPassword, `^LOGIN: "k2 NO \[AUTHENTICATIONFAILED\] Authentication failed\.", wanted OK of k2$`},
		{"imap without login", func(t *testing.T, d dovecot) conf.Check { return pooled(t, pool(143, d.imap)) },
			`^\* OK \[CAPABILITY IMAP4rev1`, receive("Cyrus"), `^greeting: "\* OK .*, no match for "Cyrus"$`},
		{"imap with STARTTLS", func(t *testing.T, d dovecot) conf.Check {
			return pooled(t, pool(143, d.imap, login, passwd, "starttls: yes", "tls_verify: yes", "tls_ca: "+d.cert))
		}, "^logged in$", tlsName("mail.example.org"), `^certificate: x509: certificate is valid for localhost, not mail.example.org$`},
		{"imaps", func(t *testing.T, d dovecot) conf.Check {
			return pooled(t, pool(993, d.imaps, login, secret(t), "tls_verify: yes", "tls_ca: "+d.cert))
		}, "^logged in$", func(c *conf.Check) { c.Login = "bob" }, `^LOGIN: "k2 NO \[AUTHENTICATIONFAILED\]`},
		{"pop", func(t *testing.T, d dovecot) conf.Check { return pooled(t, pool(110, d.pop, login, passwd)) },
			"^logged in$", wrongPassword, `^PASS: "-ERR \[AUTH\] Authentication failed\.", wanted \+OK$`},
		{"pop without login", func(t *testing.T, d dovecot) conf.Check { return pooled(t, pool(110, d.pop)) },
			`^\+OK Dovecot`, receive("Cyrus"), `^greeting: "\+OK Dovecot.*", no match for "Cyrus"$`},
		{"pop with STARTTLS", func(t *testing.T, d dovecot) conf.Check {
			return pooled(t, pool(110, d.pop, login, passwd, "starttls: yes", "tls_verify: yes", "tls_ca: "+d.cert))
		}, "^logged in$", tlsName("mail.example.org"), `^certificate: x509: certificate is valid for localhost, not mail.example.org$`},
		{"pops", func(t *testing.T, d dovecot) conf.Check {
			return pooled(t, pool(995, d.pops, login, secret(t), "tls_verify: yes", "tls_ca: "+d.cert))
		}, "^logged in$", wrongPassword, `^PASS: "-ERR \[AUTH\] Authentication failed\.", wanted \+OK$`},
		{"simpletcp", func(t *testing.T, d dovecot) conf.Check {
			return pooled(t, pool(1110, d.pop, "service: simpletcp", `request: CAPA\r\nQUIT\r\n`, `receive: ^STLS$`))
		}, `^match for "\^STLS\$"$`, receive("^XYZZY$"), `^no match for "\^XYZZY\$" in [0-9]+ bytes, "\+OK Dovecot`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := startDovecot(t)
			wrong := tc.wrong
			if tc.name == "imaps" || tc.name == "pops" { // the password is in a file
				wrong = func(c *conf.Check) { c.PasswdFile = ""; c.Passwd = "wonderland"; tc.wrong(c) }
			}
			story{server: d.server, six: true, check: tc.check(t, d), up: tc.up, wrong: wrong, wrongly: tc.wrongly}.tell(t)
		})
	}
}
