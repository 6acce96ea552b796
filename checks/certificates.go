package checks

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// certificates are the certificate files of all checks, each held once: 5,000
// servers are often asked with the same two.
type certificates struct {
	mu    sync.Mutex // guards the maps
	roots map[string]*fresh[*x509.CertPool]
	pairs map[[2]string]*fresh[*tls.Certificate]
}

// maxCertificates keeps years of edited pools from piling up; checks keep the
// ones they hold.
const maxCertificates = 1000

// maxPEM bounds a file, in bytes: all authorities of a distribution take a quarter.
const maxPEM = 1 << 20

// authorities is the file of a tls_ca.
func (s *certificates) authorities(path string) *fresh[*x509.CertPool] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roots == nil || len(s.roots) >= maxCertificates {
		s.roots = map[string]*fresh[*x509.CertPool]{}
	}
	f := s.roots[path]
	if f == nil {
		f = &fresh[*x509.CertPool]{paths: []string{path}, what: "tls_ca"}
		f.load = func() (*x509.CertPool, error) {
			pem, err := readRegular(path, maxPEM)
			if err != nil {
				return nil, fmt.Errorf("tls_ca: %w", err)
			}
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("tls_ca %s holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", path)
			}
			return pool, nil
		}
		s.roots[path] = f
	}
	return f
}

// pair is a tls_cert with its tls_key, which may be in the same file.
func (s *certificates) pair(cert, key string) *fresh[*tls.Certificate] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pairs == nil || len(s.pairs) >= maxCertificates {
		s.pairs = map[[2]string]*fresh[*tls.Certificate]{}
	}
	f := s.pairs[[2]string{cert, key}]
	if f == nil {
		f = &fresh[*tls.Certificate]{paths: []string{cert}, what: "tls_cert"}
		if key != "" {
			f.paths = append(f.paths, key)
		}
		f.load = func() (*tls.Certificate, error) { return loadPair(cert, key) }
		s.pairs[[2]string{cert, key}] = f
	}
	return f
}

func loadPair(cert, key string) (*tls.Certificate, error) {
	certPEM, err := readRegular(cert, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("tls_cert: %w", err)
	}
	keyPEM, where := certPEM, ""
	if key != "" {
		if keyPEM, err = readRegular(key, maxPEM); err != nil {
			return nil, fmt.Errorf("tls_key: %w", err)
		}
		where = " with tls_key " + key
	}
	if bytes.Contains(keyPEM, []byte("ENCRYPTED")) { // RFC 7468, 11, and RFC 1421, 4.6.1.1
		return nil, fmt.Errorf("tls_cert %s%s: the key has a password; take that away (openssl pkey -in FILE), nobody could type it", cert, where)
	}
	// Its errors hold nothing of a key.
	p, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("tls_cert %s%s: %w", cert, where, err)
	}
	return &p, nil
}

// fresh is a value made of files, made again when one of them has changed. That
// costs a stat of each file.
type fresh[T any] struct {
	paths []string
	what  string // the setting that names the first
	load  func() (T, error)

	mu     sync.Mutex // guards the fields below
	stamps []stamp    // of the files when value was made; nil: there is none
	value  T
}

// stamp is what changes of a file when it is written or another one takes its place.
type stamp struct {
	dev, ino    uint64
	size        int64
	mtim, ctime unix.Timespec
}

// get returns the value. Its error is that of this machine, not of the server.
// While files are being replaced it may fail for a moment.
func (f *fresh[T]) get() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := make([]stamp, len(f.paths))
	same := f.stamps != nil
	for i, p := range f.paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil && !errors.Is(err, unix.ENOENT) {
			return f.value, localError{fmt.Errorf("%s: stat %s: %w", f.what, p, err)}
		}
		now[i] = stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
		same = same && now[i] == f.stamps[i]
	}
	if same {
		return f.value, nil
	}
	v, err := f.load()
	if err != nil {
		var none T
		f.value, f.stamps = none, nil
		return none, localError{err}
	}
	// The stamps are older than what was read: a file written in between is
	// read again.
	f.value, f.stamps = v, now
	return v, nil
}
