package checks

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

// directory makes a directory with a short path, which every user may enter,
// for the configuration and the data of a server; it ends with the test.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", directoryPrefix, os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// directoryPrefix is followed by the number of the process whose directory it is.
const directoryPrefix = "keepbeat-checks-"

// removeAbandoned removes the directories of tests that were killed.
func removeAbandoned() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), directoryPrefix+"*"))
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), directoryPrefix), "-")
		if pid, err2 := strconv.Atoi(owner); err2 == nil && unix.Kill(pid, 0) == unix.ESRCH {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// write writes a file of the directory, with those above it, and returns its path.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// freePort is a port that nobody uses on loopback: TCP, UDP, IPv4 and IPv6.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		err = errors.Join(l.Close(), unused(port))
		if _, given := portsGiven.LoadOrStore(port, true); given {
			continue // the kernel may draw the same again for the next listener of one server
		}
		if err == nil {
			return port
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	t.Fatal("100 ports of 127.0.0.1 were in use by others")
	return 0
}

var portsGiven sync.Map // port: true

func unused(port uint16) error {
	for _, a := range []netip.Addr{loopback4, loopback6} {
		at := netip.AddrPortFrom(a, port).String()
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		l.Close()
		p, err := net.ListenPacket("udp", at)
		if err != nil {
			return err
		}
		p.Close()
	}
	return nil
}

// certificate makes a certificate for localhost, 127.0.0.1 and ::1 that stands
// for itself: cert is also the file for tls_ca. Everybody may read the key.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	return certificateOf(t, dir, "localhost", "server")
}

// certificateOf makes one for another name, in file.crt and file.key.
func certificateOf(t *testing.T, dir, name, file string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        true, BasicConstraintsValid: true,
		DNSNames:    []string{name},
		IPAddresses: []net.IP{loopback4.AsSlice(), loopback6.AsSlice()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, dir, file+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, dir, file+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}
