package checks

import (
	"context"
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// connects is checktype N, as ldirectord(8) has it: after a negotiate that has
// succeeded come N plain connects, then a negotiate again. It saves a server
// with a costly answer most of the work.
//
// A connect that fails is no verdict by itself: the negotiate that ldirectord
// would make at the next interval follows at once, within the same deadline,
// and decides. The connect may take half of the time-out, so that a server
// which does not answer at all leaves the other half for it.
type connects struct {
	negotiate, connect Checker
	n                  int // connects after each negotiate
	left               int // of them, until the next negotiate
}

func newConnects(c conf.Check, e *env, negotiate constructor) (Checker, error) {
	if c.Connects > 1_000_000 {
		return nil, fmt.Errorf("checktype %d: more connects in a row than would ever be made", c.Connects)
	}
	slow, err := negotiate(c, e)
	if err != nil {
		return nil, err
	}
	k := &connects{negotiate: slow, n: c.Connects}
	quick := c
	quick.Type, quick.Service, quick.Connects = conf.Connect, "", 0
	if asksByUDP(c) { // nothing to connect to: a ping, as ldirectord does
		quick.Type = conf.Ping
		k.connect, err = newPing(quick, e)
	} else {
		k.connect, err = newConnect(quick, e)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// asksByUDP says whether the negotiate of a check goes by UDP.
func asksByUDP(c conf.Check) bool {
	switch c.Service {
	case "udp", "radius":
		return true
	}
	return c.UDP
}

func (k *connects) Check(ctx context.Context) (string, error) {
	if k.left > 0 {
		detail, err := k.quick(ctx)
		if err == nil {
			k.left--
			return detail, nil
		}
		if Local(err) {
			return "", err
		}
		k.left = 0
		if ctx.Err() != nil { // no time is left for the negotiate
			return "", err
		}
	}
	detail, err := k.negotiate.Check(ctx)
	if err == nil {
		k.left = k.n
	}
	return detail, err
}

func (k *connects) quick(ctx context.Context) (string, error) {
	if end, ok := ctx.Deadline(); ok {
		now := time.Now()
		half, cancel := context.WithDeadline(ctx, now.Add(end.Sub(now)/2))
		defer cancel()
		ctx = half
	}
	return k.connect.Check(ctx)
}
