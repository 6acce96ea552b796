package checks

import (
	"context"

	"github.com/keepbeat/keepbeat/conf"
)

// connect is checktype connect: the server accepts a TCP connection.
type connect struct{ c conf.Check }

func newConnect(c conf.Check, _ *env) (Checker, error) {
	if err := needTCPPort(c); err != nil {
		return nil, err
	}
	return connect{c}, nil
}

func (k connect) Check(ctx context.Context) (string, error) {
	conn, err := dialTCP(ctx, k.c.Target, k.c.Timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.connected(); err != nil {
		return "", err
	}
	return "connected", nil
}
