package checks

import (
	"context"

	"github.com/keepbeat/keepbeat/conf"
)

// connect is checktype connect: the server accepts a TCP connection,
// or an SCTP association.
type connect struct{ c conf.Check }

func newConnect(c conf.Check, _ *env) (Checker, error) {
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	if err := sameFamily(c); err != nil {
		return nil, err
	}
	return connect{c}, nil
}

func (k connect) Check(ctx context.Context) (string, error) {
	conn, err := dialCheck(ctx, k.c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.connected(); err != nil {
		return "", err
	}
	return "connected", nil
}
