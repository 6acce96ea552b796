package checks

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// startMariaDB starts MariaDB with a database "shop" and a user who may read it.
func startMariaDB(t *testing.T, more ...string) (s *server, port uint16, ca string) {
	dir := directory(t)
	port = freePort(t)
	cert, key := certificate(t, dir)
	install, err := lookPath("mariadb-install-db")
	if err != nil {
		t.Fatal(err)
	}
	data := dir + "/data"
	cmd := exec.Command(install, "--no-defaults", "--datadir="+data, "--user=root", "--skip-test-db",
		"--auth-root-authentication-method=normal", "--innodb-log-file-size=4M", "--innodb-flush-log-at-trx-commit=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	init := write(t, dir, "init.sql", `
DELETE FROM mysql.global_priv WHERE User = '';
CREATE DATABASE shop;
CREATE TABLE shop.director (enabled INT, name VARCHAR(20));
INSERT INTO shop.director VALUES (1, 'first'), (NULL, 'second');
CREATE USER probe IDENTIFIED BY 'probe-password';
GRANT SELECT ON shop.* TO probe;
CREATE USER empty;
CREATE USER tlsonly IDENTIFIED BY 'tls-password' REQUIRE SSL;
FLUSH PRIVILEGES;
`)
	return startServer(t, program{args: append([]string{
		"mariadbd", "--no-defaults", "--user=root", "--datadir=" + data, fmt.Sprintf("--port=%d", port), "--bind-address=127.0.0.1,::1",
		"--socket=" + dir + "/socket", "--pid-file=" + dir + "/pid", "--init-file=" + init, "--skip-name-resolve",
		"--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M", "--ssl-cert=" + cert, "--ssl-key=" + key,
	}, more...), port: port}), port, cert
}

func mysqlAt(t *testing.T, port uint16) conf.Check {
	t.Helper()
	return pooled(t, pool(3306, port, "login: probe", "passwd: probe-password", "database: shop", "request: SELECT * FROM director"))
}

func TestMariaDB(t *testing.T) {
	s, port, ca := startMariaDB(t)
	t.Run("situations", func(t *testing.T) {
		c := mysqlAt(t, port)
		c.Request = "SELECT * FROM director WHERE enabled = 2"
		fails(t, c, patience, "^the query gave no row$")
		c.Request = "SELECT * FROM cellar"
		fails(t, c, patience, "^query: error 1146: ")
		c.Request = "SET @a = 1"
		fails(t, c, patience, "^the query gave no row$")
		c.Request = "SELECT REPEAT('x', 10000000)"
		fails(t, c, patience, "^query: an answer of more than 1048576 bytes$")
		c.Request, c.Receive = "SELECT seq FROM seq_1_to_100000", "^2000$"
		fails(t, c, patience, `^no match for "\^2000\$" in 1000 rows$`)
		c.Receive = "^900$"
		succeeds(t, c, "^match for")
		c.Request, c.Receive = "SELECT SLEEP(10)", ""
		fails(t, c, shortly, "no answer within")
		c.Request = ""
		succeeds(t, c, `^logged in to ".*MariaDB`)
		c.Database = "cellar"
		fails(t, c, patience, "^error 10[0-9]+: ")
		c.Database, c.Passwd = "", "another password"
		fails(t, c, patience, "^error 1045: ")
		c.Login, c.Passwd = "empty", ""
		succeeds(t, c, "^logged in")
	})
	t.Run("without login", func(t *testing.T) {
		c := pooled(t, pool(3306, port))
		succeeds(t, c, `^greets as ".*MariaDB`)
		c.STARTTLS = true
		succeeds(t, c, `^greets as ".*MariaDB`)
	})
	t.Run("TLS", func(t *testing.T) {
		c := mysqlAt(t, port)
		c.Login, c.Passwd, c.Database, c.Request = "tlsonly", "tls-password", "", "SELECT 1"
		fails(t, c, patience, "^error 1045: ")
		c.STARTTLS, c.TLSVerify, c.TLSCA, c.TLSName = true, true, ca, "localhost"
		succeeds(t, c, "gave a row")
		succeeds(t, at(c, netip.AddrPortFrom(loopback6, port)), "gave a row")
		c.TLSName = "example.org"
		fails(t, c, patience, "^certificate: ")
	})
	c := mysqlAt(t, port)
	c.Receive = "^second$"
	story{
		server: s, check: c, six: true, up: `^match for "\^second\$"$`,
		wrong: func(c *conf.Check) { c.Receive = "third" }, wrongly: `^no match for "third" in 2 rows$`,
	}.tell(t)
}

// A server counts clients that hang up before they have logged in, of all
// addresses but 127.0.0.1, and in the end blocks them.
func TestMariaDBDoesNotBlockWhoChecksWithoutLogin(t *testing.T) {
	_, port, _ := startMariaDB(t, "--skip-name-resolve=0", "--max-connect-errors=2")
	c := pooled(t, pool(3306, port, "checksource: 127.0.0.2"))
	for range 5 {
		succeeds(t, c, "^greets as")
	}
	connect := c
	connect.Type, connect.Service = conf.Connect, ""
	// The server counts what broke off a little later, and forgets it when it is
	// greeted in time: so the two take turns until it has counted enough.
	var err error
	for end := time.Now().Add(patience); err == nil && time.Now().Before(end); {
		for range 5 {
			succeeds(t, connect, "^connected$")
		}
		_, err = run(t, c, patience)
	}
	if err == nil {
		t.Fatal("plain connects do not block anybody any more: the manual warns of them for nothing")
	}
	matches(t, err.Error(), "^error 1129: .*blocked")
}
