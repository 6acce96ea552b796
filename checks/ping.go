package checks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/checks/icmp"
	"github.com/keepbeat/keepbeat/conf"
)

// ping is checktype ping: the server answers an ICMP echo request. A request
// without an answer is sent again, in all checkcount times spread over the
// time-out; three times when that is not given, since one lost packet is not a
// dead server.
type ping struct {
	c conf.Check
	p *icmp.Pinger // nil: one of its own for each check
}

func newPing(c conf.Check, e *env) (Checker, error) {
	if err := sameFamily(c); err != nil {
		return nil, err
	}
	return &ping{c, e.ping}, nil
}

const pingTries = 3

func (k *ping) Check(ctx context.Context) (string, error) {
	p := k.p
	if p == nil {
		p = icmp.NewPinger()
		defer p.Close()
	}
	every := time.Duration(1<<62 - 1)
	if d, ok := ctx.Deadline(); ok {
		every = time.Until(d) / time.Duration(cmp.Or(k.c.Count, pingTries))
	}
	from := icmp.Origin{Source: k.c.Source, Interface: k.c.Interface, Mark: k.c.Mark}
	err := p.PingFrom(ctx, from, k.c.Target.Addr(), every)
	var origin icmp.OriginError
	switch {
	case errors.As(err, &origin):
		return "", localError{err}
	case err == nil:
		return "echo reply", nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return "", timeoutError{fmt.Sprintf("ping %v", k.c.Target.Addr()), k.c.Timeout}
	}
	return "", err
}
