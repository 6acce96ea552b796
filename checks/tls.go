package checks

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// tlsVersions are the values of tls_min.
var tlsVersions = map[string]uint16{
	"":    tls.VersionTLS10,
	"1.0": tls.VersionTLS10,
	"1.1": tls.VersionTLS11,
	"1.2": tls.VersionTLS12,
	"1.3": tls.VersionTLS13,
}

// curves leaves out the post-quantum key exchanges that crypto/tls would offer:
// nothing secret passes in a check, they make the ClientHello longer than one
// packet, which some old servers cannot read, and they cost processor time.
var curves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

// tlsConfig is how a check speaks TLS. Certificates are verified only when
// asked for, as in ldirectord: real servers often have none for their own
// address. Without SNI, which ldirectord lacked, many servers answer for the
// wrong site. Sessions are not resumed: a check is to show that the server can
// do a full handshake.
//
// Files are read here, so that validation names the one that is wrong, and
// again when they have changed.
func tlsConfig(c conf.Check, e *env) (*tls.Config, error) {
	name := c.TLSName
	if name == "" {
		name = hostOnly(c.VirtualHost)
	} else if err := needHostName("tls_name", name); err != nil {
		return nil, err
	}
	if name == "" {
		name = c.Target.Addr().Unmap().WithZone("").String()
	}
	version, ok := tlsVersions[c.TLSMin]
	if !ok {
		return nil, fmt.Errorf("tls_min %q is not known; 1.0, 1.1, 1.2 and 1.3 are", c.TLSMin)
	}
	t := &tls.Config{
		ServerName:         name, // crypto/tls sends no SNI for an address
		InsecureSkipVerify: !c.TLSVerify,
		MinVersion:         version,
		CurvePreferences:   curves,
		CipherSuites:       suitesFrom(version),
	}
	if c.TLSVerify && c.TLSCA != "" {
		roots := e.certs.authorities(c.TLSCA)
		if _, err := roots.get(); err != nil {
			return nil, err
		}
		// crypto/tls would verify against the roots of now for ever.
		t.InsecureSkipVerify = true
		t.VerifyConnection = func(s tls.ConnectionState) error { return verify(s, name, roots) }
	}
	switch {
	case c.TLSCert != "":
		pair := e.certs.pair(c.TLSCert, c.TLSKey)
		if _, err := pair.get(); err != nil {
			return nil, err
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get() }
	case c.TLSKey != "":
		return nil, errors.New("tls_key needs tls_cert, the certificate that it belongs to")
	}
	return t, nil
}

// suitesFrom adds what crypto/tls has and does not offer by itself, RSA key
// exchange and 3DES, where old servers are to be asked at all; RC4 (RFC 7465)
// stays out. SSL 3.0 and finite-field Diffie-Hellman crypto/tls does not have.
// nil: as crypto/tls thinks.
func suitesFrom(version uint16) []uint16 {
	if version > tls.VersionTLS11 {
		return nil
	}
	var ids []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !strings.Contains(s.Name, "RC4") {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// verify is what crypto/tls does with a server's certificates, against the
// roots as they are in their file now.
func verify(s tls.ConnectionState, name string, roots *fresh[*x509.CertPool]) error {
	pool, err := roots.get()
	if err != nil {
		return err
	}
	o := x509.VerifyOptions{Roots: pool, DNSName: name, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := s.PeerCertificates[0].Verify(o); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	return nil
}

// handshake speaks TLS on conn.
func handshake(conn *tcpConn, t *tls.Config) (*tls.Conn, error) {
	if err := conn.connected(); err != nil {
		return nil, err
	}
	tc := tls.Client(conn, t)
	if err := tc.Handshake(); err != nil {
		var cert *tls.CertificateVerificationError
		var record tls.RecordHeaderError
		var local localError
		switch {
		case isTimeout(err):
			return nil, timeoutError{"TLS handshake", conn.timeout}
		case errors.As(err, &local):
			return nil, err
		case errors.As(err, &record):
			return nil, errors.New("TLS handshake: the server does not speak TLS")
		case errors.As(err, &cert):
			return nil, fmt.Errorf("certificate: %w", cert.Err)
		}
		return nil, conn.fail("TLS handshake", err)
	}
	return tc, nil
}

// answerError puts an error of reading an answer into words.
func (c *tcpConn) answerError(err error) error {
	var errno unix.Errno
	if isTimeout(err) || errors.As(err, &errno) {
		return c.ioError("read", err)
	}
	return err
}
