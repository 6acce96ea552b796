package checks

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// identity makes a certificate for name, 127.0.0.1 and itself, and its key, in PEM.
func identity(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certify(t, name, k.Public(), k)
}

func certify(t *testing.T, name string, public, private any) (cert, key []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func put(t *testing.T, path string, content ...[]byte) {
	t.Helper()
	var all []byte
	for _, c := range content {
		all = append(all, c...)
	}
	if err := os.WriteFile(path+".new", all, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// tlsServer answers by TLS as set; said is who the client said it was, by common name.
func tlsServer(t *testing.T, set *tls.Config) (addr string, said chan string) {
	t.Helper()
	said = make(chan string, 99)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		said <- name
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = set
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), said
}

func httpsAt(addr string) conf.Check {
	c := httpAt(addr)
	c.Service = "https"
	return c
}

func TestTLSMin(t *testing.T) {
	cert, key := identity(t, "web.test")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		min    string
		server uint16
		want   string
	}{
		{"", tls.VersionTLS10, "HTTP 200"},
		{"1.0", tls.VersionTLS10, "HTTP 200"},
		{"1.1", tls.VersionTLS10, "!TLS handshake: remote error: tls: protocol version not supported"},
		{"1.1", tls.VersionTLS11, "HTTP 200"},
		{"1.2", tls.VersionTLS11, "!TLS handshake: remote error: tls: protocol version not supported"},
		{"1.2", tls.VersionTLS12, "HTTP 200"},
		{"1.3", tls.VersionTLS12, "!TLS handshake: remote error: tls: protocol version not supported"},
		{"1.3", tls.VersionTLS13, "HTTP 200"},
	} {
		t.Run(tc.min+" of "+tls.VersionName(tc.server), func(t *testing.T) {
			addr, _ := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS10, MaxVersion: tc.server})
			c := httpsAt(addr)
			c.TLSMin = tc.min
			expect(t, c, tc.want)
		})
	}
}

// What crypto/tls does not offer by itself any more, old servers still need.
func TestTLSWithOldCiphers(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certify(t, "old.test", k.Public(), k))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		suite uint16
		min   string
		want  string
	}{
		"RSA key exchange":             {tls.TLS_RSA_WITH_AES_128_CBC_SHA, "", "HTTP 200"},
		"3DES":                         {tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, "1.0", "HTTP 200"},
		"RC4 not":                      {tls.TLS_RSA_WITH_RC4_128_SHA, "", "!TLS handshake: remote error: tls: handshake failure"},
		"not when 1.2 is the oldest":   {tls.TLS_RSA_WITH_AES_128_CBC_SHA, "1.2", "!TLS handshake: remote error: tls: handshake failure"},
		"ECDHE when 1.2 is the oldest": {tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "1.2", "HTTP 200"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tc.suite}})
			c := httpsAt(addr)
			c.TLSMin = tc.min
			expect(t, c, tc.want)
		})
	}
}

// A check goes on through the renewal of every file that it uses.
func TestTLSFilesThatChangeAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	serverCert, serverKey := identity(t, "web.test")
	pair, err := tls.X509KeyPair(serverCert, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	addr, said := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})
	other, _ := identity(t, "web.test")
	firstCert, firstKey := identity(t, "first")
	nextCert, nextKey := identity(t, "next")
	put(t, ca, serverCert)
	put(t, cert, firstCert)
	put(t, key, firstKey)
	c := httpsAt(addr)
	c.TLSVerify, c.TLSCA, c.TLSCert, c.TLSKey, c.TLSName = true, ca, cert, key, "web.test"
	k, err := NewChecker(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what  string
		do    func()
		want  string // client's name, or "!" and the error
		local bool
	}{
		{"as it was", func() {}, "first", false},
		{"nothing has changed", func() {}, "first", false},
		{"the certificate is new, the key not yet", func() { put(t, cert, nextCert) }, "!tls_cert " + cert + " with tls_key " + key + ": tls: private key does not match public key", true},
		{"both are new", func() { put(t, key, nextKey) }, "next", false},
		{"another authority", func() { put(t, ca, other) }, "!certificate: x509: certificate signed by unknown authority", false},
		{"no authority at all", func() { put(t, ca, []byte("rubbish")) }, "!tls_ca " + ca + " holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", true},
		{"both authorities", func() { put(t, ca, other, serverCert) }, "next", false},
		{"no key", func() { os.Remove(key) }, "!tls_key: open " + key + ": no such file or directory", true},
		{"the key again", func() { put(t, key, nextKey) }, "next", false},
	} {
		step.do()
		_, err := k.Check(t.Context())
		if Local(err) != step.local {
			t.Errorf("%s: Local is %v of %v", step.what, !step.local, err)
		}
		got := ""
		if err == nil {
			got = <-said
		} else {
			// x509 adds whom it took for a candidate.
			got, _, _ = strings.Cut("!"+err.Error(), " (possibly because")
		}
		if got != step.want {
			t.Errorf("%s: got  %s\nwant %s", step.what, got, step.want)
		}
	}
}

func TestTLSClientCertificate(t *testing.T) {
	cert, key := identity(t, "director")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	both := filepath.Join(t.TempDir(), "both.pem")
	put(t, both, key, cert)
	for _, max := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		addr, said := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: max})
		c := httpsAt(addr)
		if _, err := try(t, c); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
			t.Errorf("%s: a server that asks for a certificate is content without: %v", tls.VersionName(max), err)
		}
		c.TLSCert = both
		expect(t, c, "HTTP 200")
		if got := <-said; got != "director" {
			t.Errorf("the server took the check for %q", got)
		}
	}
}

// Many checks with the same files hold them once.
func TestTLSFilesAreShared(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	cert, _ := identity(t, "web.test")
	put(t, ca, cert)
	e := newEnv(nil)
	if a, b := e.certs.authorities(ca), e.certs.authorities(ca); a != b {
		t.Error("two copies of one file")
	}
	if a, b := e.certs.pair(ca, ""), e.certs.pair(ca, ca); a == b {
		t.Error("two pairs for one")
	}
	for range 2 * maxCertificates {
		e.certs.authorities(rand.Text())
		e.certs.pair(rand.Text(), "")
	}
	if len(e.certs.roots) > maxCertificates || len(e.certs.pairs) > maxCertificates {
		t.Errorf("%d and %d files are held", len(e.certs.roots), len(e.certs.pairs))
	}
}

func TestTLSSettingsThatCannotBeAreToldAtValidation(t *testing.T) {
	dir := t.TempDir()
	cert, key := identity(t, "director")
	_, otherKey := identity(t, "director")
	at := func(name string, content ...[]byte) string {
		p := filepath.Join(dir, name)
		put(t, p, content...)
		return p
	}
	onlyCert, onlyKey, other, rubbish := at("cert", cert), at("key", key), at("other", otherKey), at("rubbish", []byte("secret rubbish"))
	locked := at("locked", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	for _, tc := range []struct {
		c    conf.Check
		want string
	}{
		{conf.Check{TLSMin: "1.4"}, `tls_min "1.4" is not known; 1.0, 1.1, 1.2 and 1.3 are`},
		{conf.Check{TLSName: "a b"}, `tls_name "a b" is not a host name: ' ' cannot be part of one`},
		{conf.Check{TLSKey: onlyKey}, "tls_key needs tls_cert, the certificate that it belongs to"},
		{conf.Check{TLSCert: "/nonexistent"}, "tls_cert: open /nonexistent: no such file or directory"},
		{conf.Check{TLSCert: dir}, "tls_cert: read " + dir + ": it is not a regular file"},
		{conf.Check{TLSCert: "/dev/zero"}, "tls_cert: read /dev/zero: it is not a regular file"},
		{conf.Check{TLSCert: at("huge", make([]byte, maxPEM+1))}, "tls_cert: read " + filepath.Join(dir, "huge") + ": it holds more than 1048576 bytes"},
		{conf.Check{TLSCert: onlyCert, TLSKey: "/nonexistent"}, "tls_key: open /nonexistent: no such file or directory"},
		{conf.Check{TLSCert: onlyCert, TLSKey: locked}, "tls_cert " + onlyCert + " with tls_key " + locked + ": the key has a password; take that away (openssl pkey -in FILE), nobody could type it"},
		{conf.Check{TLSCert: onlyCert}, "tls_cert " + onlyCert + ": tls: found a certificate rather than a key in the PEM for the private key"},
		{conf.Check{TLSCert: onlyCert, TLSKey: other}, "tls_cert " + onlyCert + " with tls_key " + other + ": tls: private key does not match public key"},
		{conf.Check{TLSCert: rubbish, TLSKey: rubbish}, "tls_cert " + rubbish + " with tls_key " + rubbish + ": tls: failed to find any PEM data in certificate input"},
		{conf.Check{TLSVerify: true, TLSCA: dir + "/cert/x"}, "tls_ca: stat " + dir + "/cert/x: not a directory"},
	} {
		for _, service := range []string{"https", "grpcs"} {
			tc.c.Type, tc.c.Service, tc.c.Target = conf.Negotiate, service, netip.MustParseAddrPort("10.0.0.1:443")
			if _, err := NewChecker(tc.c); err == nil || err.Error() != tc.want {
				t.Errorf("%s: got  %v\nwant %s", service, err, tc.want)
			}
		}
	}
}
