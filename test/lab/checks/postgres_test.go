package checks

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// startPostgres starts PostgreSQL with a user for each way to authenticate.
func startPostgres(t *testing.T) (s *server, port uint16, ca string) {
	dir := directory(t)
	port = freePort(t)
	cert, key := certificate(t, dir)
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("postgresql is not installed (%v); test/lab/deps.sh checks installs what these tests need", err)
	}
	bin := dirs[len(dirs)-1]
	uid, gid := ids(t, "postgres")
	for _, path := range []string{dir, key} {
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	as := func(stdin string, args ...string) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env, cmd.Stdin = "/", []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}, strings.NewReader(stdin)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(t, "postgres")}
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "ERROR") {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	as("", filepath.Join(bin, "initdb"), "-D", data, "-N", "--auth=reject")
	as(`CREATE TABLE director (enabled int, name text)
INSERT INTO director VALUES (1, 'first'), (NULL, 'second')
CREATE ROLE probe LOGIN PASSWORD 'probe-password'
GRANT SELECT ON director TO probe
CREATE ROLE clear LOGIN PASSWORD 'clear-password'
SET password_encryption = md5
CREATE ROLE md5 LOGIN PASSWORD 'md5-password'
`, filepath.Join(bin, "postgres"), "--single", "-D", data, "postgres")
	hba := write(t, dir, "hba.conf", `
hostssl all tlsonly all trust
host all clear all password
host all md5 all md5
host all probe all scram-sha-256
`)
	// It listens before it serves, which a check without login tells apart.
	c := pooled(t, pool(5432, port))
	ready := func() error { _, err := run(t, c, shortly); return err }
	return startServer(t, program{user: "postgres", ready: ready, args: []string{
		filepath.Join(bin, "postgres"), "-D", data, "-p", fmt.Sprint(port), "-c", "listen_addresses=127.0.0.1,::1",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "hba_file=" + hba,
		"-c", "ssl=on", "-c", "ssl_cert_file=" + cert, "-c", "ssl_key_file=" + key,
	}}), port, cert
}

func pgsqlAt(t *testing.T, port uint16) conf.Check {
	t.Helper()
	return pooled(t, pool(5432, port, "login: probe", "passwd: probe-password", "database: postgres", "request: SELECT * FROM director"))
}

func TestPostgres(t *testing.T) {
	s, port, ca := startPostgres(t)
	t.Run("situations", func(t *testing.T) {
		c := pgsqlAt(t, port)
		c.Request = "SELECT * FROM director WHERE enabled = 2"
		fails(t, c, patience, "^the query gave no row$")
		c.Request = "SELECT * FROM cellar"
		fails(t, c, patience, "^query: error 42P01: ")
		c.Request = "SELECT repeat('x', 10000000)"
		fails(t, c, patience, "^query: an answer of more than 1048576 bytes$")
		c.Request, c.Receive = "SELECT generate_series(1, 100000)", "^2000$"
		fails(t, c, patience, `^no match for "\^2000\$" in 1000 rows$`)
		c.Receive = "^900$"
		succeeds(t, c, "^match for")
		c.Request, c.Receive = "SELECT pg_sleep(10)", ""
		fails(t, c, shortly, "no answer within")
		c.Request = "COPY director TO STDOUT"
		fails(t, c, patience, "^query: ")
		c.Request = ""
		succeeds(t, c, "^logged in$")
		c.Database = "cellar"
		fails(t, c, patience, "^error 3D000: ")
		c.Database, c.Passwd = "postgres", "another password"
		fails(t, c, patience, "^error 28P01: ")
	})
	t.Run("ways to authenticate", func(t *testing.T) {
		c := pgsqlAt(t, port)
		c.Request = "SELECT 1"
		for _, user := range []string{"md5", "clear"} {
			c.Login, c.Passwd = user, user+"-password"
			succeeds(t, c, "gave a row")
			c.Passwd = "another password"
			fails(t, c, patience, "^error 28P01: ")
		}
	})
	t.Run("without login", func(t *testing.T) {
		c := pooled(t, pool(5432, port))
		succeeds(t, c, "^accepts logins, not of keepbeat$")
		c.STARTTLS = true
		succeeds(t, c, "^accepts logins, not of keepbeat$")
	})
	t.Run("TLS", func(t *testing.T) {
		c := pgsqlAt(t, port)
		c.STARTTLS, c.TLSVerify, c.TLSCA, c.TLSName = true, true, ca, "localhost"
		succeeds(t, c, "gave a row")
		succeeds(t, at(c, netip.AddrPortFrom(loopback6, port)), "gave a row")
		c.TLSName = "example.org"
		fails(t, c, patience, "^certificate: ")
	})
	c := pgsqlAt(t, port)
	c.Receive = "^second$"
	story{
		server: s, check: c, six: true, up: `^match for "\^second\$"$`,
		wrong: func(c *conf.Check) { c.Receive = "third" }, wrongly: `^no match for "third" in 2 rows$`,
	}.tell(t)
}
