package checks

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// tlsConfig is how a check speaks TLS. Certificates are verified only when
// asked for, as in ldirectord: real servers often have none for their own
// address. Without SNI, which ldirectord lacked, many servers answer for the
// wrong site. Sessions are not resumed: a check is to show that the server can
// do a full handshake.
func tlsConfig(c conf.Check) (*tls.Config, error) {
	name := c.TLSName
	if name == "" {
		name = hostOnly(c.VirtualHost)
	}
	if name == "" {
		name = c.Target.Addr().Unmap().WithZone("").String()
	}
	t := &tls.Config{
		ServerName:         name, // crypto/tls sends no SNI for an address
		InsecureSkipVerify: !c.TLSVerify,
		NextProtos:         []string{"http/1.1"},
	}
	if !c.TLSVerify || c.TLSCA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("tls_ca: %w", err)
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls_ca %s holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", c.TLSCA)
	}
	return t, nil
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
		switch {
		case isTimeout(err):
			return nil, timeoutError{"TLS handshake", conn.timeout}
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
