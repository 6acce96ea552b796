package checks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// sip is service sip: OPTIONS (RFC 3261, 11), to which the final answer has to
// be 200, by UDP or TCP as the virtual service. From and To are login, default
// ldirectord@HOST; the request is for the URI in request, default sip:LOGIN.
type sip struct {
	c     conf.Check
	login string
	uri   string
	env   *env
}

func newSIP(c conf.Check, e *env) (Checker, error) {
	k := &sip{c: c, login: c.Login, uri: c.Request, env: e}
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	if err := sameFamily(c); err != nil {
		return nil, err
	}
	if k.login == "" {
		k.login = "ldirectord@" + hostname()
	}
	k.login = strings.TrimPrefix(k.login, "sip:")
	if k.uri == "" {
		k.uri = "sip:" + k.login
	}
	if err := inHeader("login", k.login); err != nil {
		return nil, err
	}
	if err := inHeader("request", k.uri); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(k.uri, "sip:") {
		return nil, fmt.Errorf("request %q is no URI of service sip: sip:USER@HOST, or leave it out", c.Request)
	}
	return k, nil
}

// inHeader refuses what would end a URI or a header field.
func inHeader(name, value string) error {
	for _, r := range value {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`<>"`, r) {
			return fmt.Errorf("%s %q: %q cannot be part of a SIP URI", name, value, r)
		}
	}
	return nil
}

func (k *sip) Check(ctx context.Context) (string, error) {
	if !k.c.UDP {
		return k.askTCP(ctx)
	}
	conn, err := dialUDPCheck(ctx, k.c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	q := newSIPQuestion("UDP", localAddr(conn.f), k.uri, k.login)
	storage := k.env.buffers.Get().(*[bufSize]byte)
	defer k.env.buffers.Put(storage)
	var detail string
	err = conn.ask(q.render(), storage[:], func(datagram []byte) error {
		a, err := readSIP(linesOf(datagram))
		if err != nil {
			return foreign(err.Error())
		}
		detail, err = q.judge(a)
		return err
	})
	return detail, err
}

// linesOf hands out the lines of a datagram, and an empty one at its end, which
// it may lack.
func linesOf(p []byte) func() ([]byte, error) {
	ended := false
	return func() ([]byte, error) {
		if ended {
			return nil, errors.New("not a SIP answer: nothing but empty lines")
		}
		line, rest, found := bytes.Cut(p, []byte("\n"))
		p = rest
		if !found && len(line) == 0 {
			ended = true
		}
		return bytes.TrimSuffix(line, []byte("\r")), nil
	}
}

// askTCP asks over a connection of its own.
func (k *sip) askTCP(ctx context.Context) (string, error) {
	conn, err := dialCheck(ctx, k.c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.connected(); err != nil {
		return "", err
	}
	q := newSIPQuestion("TCP", localAddr(conn.f), k.uri, k.login)
	if _, err := conn.Write(q.render()); err != nil {
		return "", err
	}
	storage := k.env.buffers.Get().(*[bufSize]byte)
	defer k.env.buffers.Put(storage)
	in := newLineReader(conn, storage[:])
	for {
		a, err := readSIP(in.line)
		if err != nil {
			if err == io.EOF {
				err = errClosed
			}
			return "", conn.answerError(err)
		}
		detail, err := q.judge(a)
		var other foreign
		if !errors.As(err, &other) {
			return detail, err
		}
		if err := in.skip(a.length); err != nil {
			return "", conn.answerError(err)
		}
	}
}

// localAddr is this end of a socket; none when the kernel does not say.
func localAddr(f *os.File) (a netip.AddrPort) {
	rc, err := f.SyscallConn()
	if err != nil {
		return a
	}
	rc.Control(func(fd uintptr) {
		sa, err := unix.Getsockname(int(fd))
		if err != nil {
			return
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			a = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			a = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		}
	})
	return a
}
