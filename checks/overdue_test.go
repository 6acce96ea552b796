package checks

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// lines is a log that several goroutines write.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

func TestAResultOlderThanTheScheduleAllowsIsAnAlarmThatIsSaidOnce(t *testing.T) {
	for _, tc := range []struct {
		name string
		ails func(ctx context.Context) (string, error) // for a while
	}{
		{"this node lacks descriptors", func(context.Context) (string, error) {
			return "", fmt.Errorf("connect: %w", unix.EMFILE)
		}},
		{"a file of this node cannot be read", func(context.Context) (string, error) {
			return "", localError{fmt.Errorf("file /x: input/output error")}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				s, _, stop := start(t, 100, func(ctx context.Context, _ conf.Check, _ int) (string, error) {
					if d := time.Since(begin); d > 20*time.Second && d < 60*time.Second {
						return tc.ails(ctx)
					}
					return "fine", nil
				})
				defer stop()
				var log lines
				s.log = slog.New(slog.NewTextHandler(&log, nil))
				for i := range 50 {
					c := target(i)
					c.Jitter = 100 * time.Millisecond
					s.Subscribe(c, nil)
				}
				on := target(51)
				on.Type = conf.On
				s.Subscribe(on, nil)
				c := target(1)
				c.Jitter = 100 * time.Millisecond
				limit := c.Interval + c.Jitter + c.Timeout + grace + overdueLeast
				// Asked at the end of the one allowance and the other.
				for _, look := range []struct {
					at      time.Duration
					overdue bool
				}{{19 * time.Second, false}, {20*time.Second + limit - c.Interval - c.Jitter, false}, {20*time.Second + limit, true}, {59 * time.Second, true}, {62 * time.Second, false}} {
					time.Sleep(look.at - time.Since(begin))
					if st, _ := s.Status(c); st.Overdue != look.overdue || !st.Up {
						t.Errorf("at %v: %+v, want overdue %v, and up", look.at, st, look.overdue)
					}
					if st, _ := s.Status(on); st.Overdue {
						t.Error("checktype on is never overdue")
					}
				}
				synctest.Wait()
				if n := s.Stats().Overdue; n != 0 {
					t.Errorf("%d are overdue at the end", n)
				}
				if n := log.count("have no result for longer"); n != 1 {
					t.Errorf("said %d times: %s", n, log.b.String())
				}
				if n := log.count("within their schedules again"); n != 1 {
					t.Errorf("the end was said %d times", n)
				}
			})
		})
	}
}

func TestChecksThatNeverGetADescriptorAreOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		s, _, stop := start(t, 1, func(context.Context, conf.Check, int) (string, error) {
			<-end // heeds nothing
			return "at last", nil
		})
		defer stop()
		for i := range 3 {
			s.Subscribe(target(i), nil)
		}
		time.Sleep(30 * time.Second)
		if n := s.Stats().Overdue; n != 2 {
			t.Errorf("%d of 3 checks are overdue, want the two that wait; the one that hangs is down", n)
		}
		close(end)
		time.Sleep(5 * time.Second)
		if n := s.Stats().Overdue; n != 0 {
			t.Errorf("%d are overdue after all have run", n)
		}
	})
}

func TestASlowServerIsNotOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, stop := start(t, 100, func(ctx context.Context, c conf.Check, n int) (string, error) {
			if n%2 == 0 {
				return hang(ctx, c, n)
			}
			time.Sleep(c.Timeout - time.Millisecond)
			return "slow", nil
		})
		defer stop()
		for i, timeout := range []time.Duration{500 * time.Millisecond, 3 * time.Second, 30 * time.Second} {
			c := target(i)
			c.Timeout, c.Fall, c.IntervalDown = timeout, 1+i, 5*time.Second
			s.Subscribe(c, nil)
		}
		for range 600 {
			time.Sleep(time.Second)
			if n := s.Stats().Overdue; n > 0 {
				t.Fatalf("%d are overdue", n)
			}
		}
	})
}

func TestRunsMadeUpForAreNoPauseOfThisProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s, _, stop := start(t, 100, func(ctx context.Context, c conf.Check, n int) (string, error) {
			if time.Since(begin) > 10*time.Second {
				return hang(ctx, c, n)
			}
			return "fine", nil
		})
		defer stop()
		for i := range 20 {
			c := target(i)
			c.Timeout, c.Fall = time.Duration(2+i)*time.Second, 3
			s.Subscribe(c, nil)
		}
		time.Sleep(60 * time.Second)
		if st := s.Stats(); st.Excused > 0 {
			t.Errorf("%d time-outs were not counted", st.Excused)
		}
	})
}
