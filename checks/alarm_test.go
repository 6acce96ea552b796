package checks

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// failing is a poller that waits no more once it was told so.
type failing struct {
	*poller
	now chan struct{}
}

var errFailing = errors.New("no more")

func (f failing) wait(until time.Time) ([]*task, error) {
	select {
	case <-f.now:
		return nil, errFailing
	default:
		return f.poller.wait(until)
	}
}

func TestALoopThatCannotGoOnEndsWhatItHasBegun(t *testing.T) {
	s := NewScheduler(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	broken := failing{p, make(chan struct{})}
	s.runCtx, s.alarm = ctx, p
	s.Subscribe(conf.Check{Type: conf.Connect, Target: netip.MustParseAddrPort(blackhole(t)), Interval: time.Second, Timeout: time.Hour}, nil)
	done := make(chan error, 1)
	go func() { done <- s.loop(ctx, cancel, broken) }()
	for s.Stats().Running == 0 {
		time.Sleep(time.Millisecond)
	}
	close(broken.now)
	if err := <-done; err != errFailing {
		t.Errorf("the loop ended by %v", err)
	}
	if n := s.Stats().Running; n != 0 {
		t.Errorf("%d checks are still under way", n)
	}
}
