package checks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/keepbeat/keepbeat/conf"
)

// Codes of RADIUS packets (RFC 2865, 4).
const (
	accessRequest   = 1
	accessAccept    = 2
	accessReject    = 3
	accessChallenge = 11
)

// Types of RADIUS attributes: RFC 2865, 5; RFC 3162, 2.1; RFC 3579, 3.2.
const (
	attrUserName             = 1
	attrUserPassword         = 2
	attrNASIPAddress         = 4
	attrReplyMessage         = 18
	attrNASIdentifier        = 32
	attrMessageAuthenticator = 80
	attrNASIPv6Address       = 95
)

const (
	radiusHeader = 20      // code, identifier, length, authenticator
	radiusMax    = bufSize // RFC 2865, 3: 4,096 bytes
	maxRadiusPw  = 128     // RFC 2865, 5.2
	maxAttribute = 253     // value of one, RFC 2865, 5
)

// radiusCheck is checktype negotiate for radius: a login by PAP that the server
// has to accept (RFC 2865). What is sent carries a Message-Authenticator as its
// first attribute, and what comes is believed only with the right Response
// Authenticator and, when there is one, the right Message-Authenticator.
//
// Servers from before the summer of 2024 answer without one, which lets
// somebody on the way turn a reject into an accept (CVE-2024-3596). All that he
// wins here is that a server counts as up, so they are not refused; the detail
// says it.
type radiusCheck struct {
	c   conf.Check
	env *env
}

func newRadius(c conf.Check, e *env) (Checker, error) {
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	if err := sameFamily(c); err != nil {
		return nil, err
	}
	switch {
	case c.Login == "":
		return nil, errors.New(`service radius needs "login", a user that the server accepts`)
	case c.Secret == "" && c.SecretFile == "":
		return nil, errors.New(`service radius needs "secret" or "secret_file", which it shares with the server`)
	case len(c.Login) > maxAttribute:
		return nil, fmt.Errorf("login of %d bytes: radius has room for %d", len(c.Login), maxAttribute)
	case len(c.Passwd) > maxRadiusPw:
		return nil, fmt.Errorf("passwd of %d bytes: radius has room for %d", len(c.Passwd), maxRadiusPw)
	case c.Receive != "":
		return nil, errors.New("service radius wants an accept and looks at nothing else: take receive out")
	}
	return radiusCheck{c, e}, nil
}

func (k radiusCheck) Check(ctx context.Context) (string, error) {
	password, err := readSecret(k.c.Passwd, k.c.PasswdFile)
	if err != nil {
		return "", err
	}
	if len(password) > maxRadiusPw {
		return "", localError{fmt.Errorf("password of %d bytes: radius has room for %d", len(password), maxRadiusPw)}
	}
	secret, err := readSecret(k.c.Secret, k.c.SecretFile)
	if err != nil {
		return "", err
	}
	conn, err := dialUDPCheck(ctx, k.c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	x := radiusExchange{secret: secret}
	rand.Read(x.authenticator[:]) // never fails
	rand.Read(x.id[:])
	request := x.request(k.c.Login, password, conn.local())
	var detail string
	buf := k.env.buffers.Get().(*[bufSize]byte)
	defer k.env.buffers.Put(buf)
	err = conn.ask(request, buf[:radiusMax], func(p []byte) error {
		var err error
		detail, err = x.judge(p, password)
		return err
	})
	return detail, err
}

// radiusExchange is one request and the answers to it.
type radiusExchange struct {
	id            [1]byte
	authenticator [16]byte // of the request; random
	secret        []byte
}

// request makes an Access-Request. from is this machine's address.
func (x *radiusExchange) request(login string, password []byte, from netip.Addr) []byte {
	p := append([]byte{accessRequest, x.id[0], 0, 0}, x.authenticator[:]...)
	add := func(kind byte, value []byte) {
		p = append(append(p, kind, byte(2+len(value))), value...)
	}
	// First, so that nothing an attacker can choose comes before it.
	add(attrMessageAuthenticator, make([]byte, md5.Size))
	add(attrUserName, []byte(login))
	add(attrUserPassword, x.hide(password))
	if a := from.Unmap().WithZone(""); a.Is4() {
		add(attrNASIPAddress, a.AsSlice())
	} else if a.Is6() {
		add(attrNASIPv6Address, a.AsSlice())
	}
	add(attrNASIdentifier, []byte("keepbeat"))
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	h := hmac.New(md5.New, x.secret)
	h.Write(p)
	h.Sum(p[:radiusHeader+2]) // into its place
	return p
}

// hide encrypts a password (RFC 2865, 5.2).
func (x *radiusExchange) hide(password []byte) []byte {
	p := make([]byte, max(1, (len(password)+15)/16)*16)
	copy(p, password)
	last := x.authenticator[:]
	for block := p; len(block) > 0; block = block[16:] {
		pad := md5.Sum(append(append([]byte(nil), x.secret...), last...))
		for i := range pad {
			block[i] ^= pad[i]
		}
		last = block[:16]
	}
	return p
}

// judge looks at an answer. An error that is foreign says that it does not come
// from somebody who knows the secret and this request. The password is for not
// being shown.
func (x *radiusExchange) judge(p, password []byte) (detail string, err error) {
	if len(p) < radiusHeader {
		return "", foreign("not a RADIUS packet: " + quote(p))
	}
	n := int(binary.BigEndian.Uint16(p[2:]))
	if n < radiusHeader || n > len(p) {
		return "", foreign("not a RADIUS packet: " + quote(p))
	}
	p = p[:n] // RFC 2865, 3: what follows is padding
	if p[1] != x.id[0] {
		return "", foreign("an answer with another identifier")
	}
	h := md5.New()
	h.Write(p[:4])
	h.Write(x.authenticator[:])
	h.Write(p[radiusHeader:])
	h.Write(x.secret)
	if !hmac.Equal(h.Sum(nil), p[4:radiusHeader]) {
		return "", foreign("a wrong Response Authenticator; is the secret the server's?")
	}
	signed, message, err := x.attributes(p)
	if err != nil {
		return "", err
	}
	if len(message) > 0 {
		message = append([]byte(": "), quoteWithout(password, message)...)
	}
	switch p[0] {
	case accessAccept:
		if !signed {
			return "Access-Accept without Message-Authenticator (CVE-2024-3596: update the server)", nil
		}
		return "Access-Accept", nil
	case accessReject:
		return "", fmt.Errorf("Access-Reject%s", message)
	case accessChallenge:
		return "", fmt.Errorf("Access-Challenge%s: this user cannot log in by a password alone", message)
	}
	return "", fmt.Errorf("an answer of code %d, wanted Access-Accept (2)", p[0])
}

// attributes walks over those of an answer: is it signed by a
// Message-Authenticator, and what does it say to the user?
func (x *radiusExchange) attributes(p []byte) (signed bool, message []byte, err error) {
	for at := radiusHeader; at < len(p); at += int(p[at+1]) {
		if len(p)-at < 2 || p[at+1] < 2 || int(p[at+1]) > len(p)-at {
			return false, nil, foreign("an answer whose attributes do not end where it ends")
		}
		value := p[at+2 : at+int(p[at+1])]
		switch p[at] {
		case attrReplyMessage:
			if message == nil {
				message = value
			}
		case attrMessageAuthenticator:
			// RFC 3579, 3.2: over the answer with the request's authenticator
			// and zeros in this place.
			q := bytes.Clone(p)
			copy(q[4:], x.authenticator[:])
			clear(q[at+2 : at+2+len(value)])
			h := hmac.New(md5.New, x.secret)
			h.Write(q)
			if !hmac.Equal(h.Sum(nil), value) {
				return false, nil, foreign("a wrong Message-Authenticator")
			}
			signed = true
		}
	}
	return signed, message, nil
}
