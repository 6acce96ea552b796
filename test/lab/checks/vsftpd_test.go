package checks

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// startVsftpd starts one for anonymous users with a file .test.txt. It listens
// at one address: with two it would listen at all of the machine's.
func startVsftpd(t *testing.T, at netip.AddrPort) (s *server, cert string) {
	t.Helper()
	dir := directory(t)
	cert, key := certificate(t, dir)
	write(t, dir, "ftp/.test.txt", "this server is still alive\n")
	write(t, dir, "empty/.keep", "")
	listen := "listen=YES\nlisten_address="
	if at.Addr().Is6() {
		listen = "listen=NO\nlisten_ipv6=YES\nlisten_address6="
	}
	config := write(t, dir, "vsftpd.conf", fmt.Sprintf(`%[1]s%[2]s
listen_port=%[3]d
background=NO
isolate=NO
isolate_network=NO
seccomp_sandbox=NO
anonymous_enable=YES
local_enable=NO
anon_root=%[4]s/ftp
secure_chroot_dir=%[4]s/empty
delay_failed_login=0
connect_from_port_20=NO
xferlog_enable=NO
ssl_enable=YES
allow_anon_ssl=YES
ssl_ciphers=HIGH
rsa_cert_file=%[5]s
rsa_private_key_file=%[6]s
`, listen, at.Addr(), at.Port(), dir, cert, key))
	s = startServer(t, program{args: []string{"vsftpd", config}, ready: func() error { return listensAt(at) }})
	return s, cert
}

func TestVsftpd(t *testing.T) {
	file := []string{"request: .test.txt", "receive: still (alive|kicking)"}
	for _, tc := range []struct {
		name    string
		keys    []string
		up      string
		wrong   func(*conf.Check)
		wrongly string
	}{
		{"ftp", file, `^file "\.test\.txt", 27 bytes$`, receive("kicking$"), `^file "\.test\.txt": no match for "kicking\$" in 27 bytes$`},
		{"ftp without that file", file, `^file "\.test\.txt", 27 bytes$`, func(c *conf.Check) { c.Request = "nothing.txt" }, `^RETR: "550 Failed to open file\.", wanted 125 or 150$`},
		{"ftp without a file", nil, `^logged in$`, func(c *conf.Check) { c.Login, c.Passwd = "alice", "wonderland" }, `^USER: "530 This FTP server is anonymous only\.", wanted 230 or 331$`},
		{"ftp with STARTTLS", append([]string{"starttls: yes", "tls_verify: yes", "tls_ca: CERT"}, file...), `^file "\.test\.txt", 27 bytes$`,
			tlsName("ftp.example.org"), `^certificate: x509: certificate is valid for localhost, not ftp.example.org$`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := local(freePort(t))
			s, cert := startVsftpd(t, at)
			story{
				server: s, check: pooled(t, pool(21, at.Port(), replace(tc.keys, "CERT", cert)...)),
				up: tc.up, wrong: tc.wrong, wrongly: tc.wrongly,
			}.tell(t)
		})
	}
	t.Run("ftp by IPv6", func(t *testing.T) {
		port := freePort(t)
		six := netip.AddrPortFrom(loopback6, port)
		startVsftpd(t, six)
		succeeds(t, at(pooled(t, pool(21, port, file...)), six), `^file "\.test\.txt", 27 bytes$`)
	})
}
