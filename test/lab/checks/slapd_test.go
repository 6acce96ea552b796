package checks

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

const people = `dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people
description: those who work
`

// startSlapd starts OpenLDAP for dc=example,dc=com; cn=monitor there may read.
func startSlapd(t *testing.T) (s *server, plain, tls uint16, ca string) {
	dir := directory(t)
	plain, tls = freePort(t), freePort(t)
	cert, key := certificate(t, dir)
	write(t, dir, "data/.keep", "")
	file := write(t, dir, "slapd.conf", fmt.Sprintf(`
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile %s
TLSCertificateKeyFile %s
database mdb
suffix "dc=example,dc=com"
rootdn "cn=monitor,dc=example,dc=com"
rootpw monitor-password
directory %s/data
`, cert, key, dir))
	ldif := write(t, dir, "people.ldif", people)
	add, err := lookPath("slapadd")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(add, "-f", file, "-l", ldif).CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	urls := fmt.Sprintf("ldap://127.0.0.1:%d ldap://[::1]:%[1]d ldaps://127.0.0.1:%d ldaps://[::1]:%[2]d", plain, tls)
	return startServer(t, program{args: []string{"slapd", "-d", "0", "-f", file, "-h", urls}, port: tls}), plain, tls, cert
}

func ldapAt(t *testing.T, service string, port uint16) conf.Check {
	t.Helper()
	return pooled(t, pool(10389, port, "service: "+service, "request: ou=people,dc=example,dc=com"))
}

func TestSlapd(t *testing.T) {
	s, plain, secure, ca := startSlapd(t)
	monitor := func(c conf.Check) conf.Check {
		c.Login, c.Passwd = "cn=monitor,dc=example,dc=com", "monitor-password"
		return c
	}
	t.Run("situations", func(t *testing.T) {
		c := ldapAt(t, "ldap", plain)
		succeeds(t, c, `^entry "ou=people,dc=example,dc=com"$`)
		c.Receive = "^ou=people,"
		succeeds(t, c, "match for")
		c.Receive = "^description: those who"
		succeeds(t, c, "match for")
		c.Request = ""
		c.Receive = ""
		succeeds(t, c, "^root DSE$")
		c.Request = "/ou=people,dc=example,dc=com"
		succeeds(t, c, "^entry")
		c.Request = "ou=nobody,dc=example,dc=com"
		fails(t, c, patience, "^search: noSuchObject$")
		c.Request = "no DN"
		fails(t, c, patience, "^search: invalidDNSyntax")
		c = monitor(ldapAt(t, "ldap", plain))
		succeeds(t, c, "^entry")
		c.Passwd = "another password"
		fails(t, c, patience, "^bind: invalidCredentials$")
	})
	t.Run("STARTTLS", func(t *testing.T) {
		c := monitor(ldapAt(t, "ldap", plain))
		c.STARTTLS = true
		succeeds(t, c, "^entry")
		c.TLSVerify, c.TLSCA, c.TLSName = true, ca, "localhost"
		succeeds(t, c, "^entry")
		succeeds(t, at(c, netip.AddrPortFrom(loopback6, plain)), "^entry")
		c.TLSName = "example.org"
		fails(t, c, patience, "^StartTLS: certificate: ")
	})
	t.Run("ldaps", func(t *testing.T) {
		c := monitor(ldapAt(t, "ldaps", secure))
		c.TLSVerify, c.TLSCA, c.TLSName = true, ca, "localhost"
		succeeds(t, c, "^entry")
		c.TLSCA = ""
		fails(t, c, patience, "^certificate: ")
		fails(t, ldapAt(t, "ldaps", plain), patience, "TLS handshake")
	})
	story{
		server: s, check: ldapAt(t, "ldap", plain), six: true, up: `^entry "ou=people,dc=example,dc=com"$`,
		wrong: func(c *conf.Check) { c.Receive = "ou=machines" }, wrongly: `no match for "ou=machines" in entry .* and its [0-9]+ values`,
	}.tell(t)
}

func TestSlapdWithTLS(t *testing.T) {
	s, _, secure, _ := startSlapd(t)
	story{
		server: s, check: ldapAt(t, "ldaps", secure), six: true, up: "^entry",
		wrong: func(c *conf.Check) { c.Request = "dc=example,dc=org" }, wrongly: "^search: ",
	}.tell(t)
}
