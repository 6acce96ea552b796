package transport

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// alpn separates keepbeat's streams from any other QUIC. Versions of what runs
// inside are told apart by the stream header, whose error is readable.
const alpn = "keepbeat"

// identityKey derives the Ed25519 key of the cluster's members from a secret.
func identityKey(secret []byte, cluster string) (ed25519.PrivateKey, error) {
	seed, err := hkdf.Key(sha256.New, secret, nil, "keepbeat streams ed25519 1\x00"+cluster, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// errStranger is what either side of a handshake reports of a peer that has none of the keys.
var errStranger = errors.New("the peer has no key of this cluster: compare the authkeys of both nodes")

// identity returns the TLS configuration for both sides of a connection. The
// identity comes from the first secret; a peer with any of them is accepted.
func identity(secrets [][]byte, cluster string) (*tls.Config, error) {
	if len(secrets) == 0 {
		return nil, errors.New("streams need at least one key")
	}
	var own ed25519.PrivateKey
	accepted := make([]ed25519.PublicKey, 0, len(secrets))
	for i, s := range secrets {
		key, err := identityKey(s, cluster)
		if err != nil {
			return nil, fmt.Errorf("identity from key %d: %w", i+1, err)
		}
		if i == 0 {
			own = key
		}
		accepted = append(accepted, key.Public().(ed25519.PublicKey))
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "keepbeat"},
		// Never looked at: a node whose clock is wrong must still join.
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no end
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, own.Public(), own)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{alpn},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: own}},
		ClientAuth:   tls.RequireAnyClientCert,
		// The chain, name and dates are not checked; VerifyConnection pins the key.
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
		// Both flights of a handshake fit one packet each; links are encrypted
		// with a symmetric key already, so a larger exchange buys nothing.
		CurvePreferences: []tls.CurveID{tls.X25519},
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) != 1 {
				return errStranger
			}
			got, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			if !ok {
				return errStranger
			}
			for _, a := range accepted {
				if a.Equal(got) {
					return nil
				}
			}
			return errStranger
		},
	}, nil
}
