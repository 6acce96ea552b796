package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// fakes is a world of servers without sockets.
type fakes struct {
	mu      sync.Mutex // guards the rest
	starts  map[netip.AddrPort][]time.Time
	running map[netip.AddrPort]int
	twice   int // runs that began beside another of the same check
	answer  func(ctx context.Context, c conf.Check, n int) (string, error)
}

type fake struct {
	w *fakes
	c conf.Check
}

func (f fake) Check(ctx context.Context) (string, error) {
	w, t := f.w, f.c.Target
	w.mu.Lock()
	w.starts[t] = append(w.starts[t], time.Now())
	n := len(w.starts[t])
	if w.running[t]++; w.running[t] > 1 {
		w.twice++
	}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.running[t]--
		w.mu.Unlock()
	}()
	return w.answer(ctx, f.c, n)
}

func (w *fakes) runs(c conf.Check) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Time(nil), w.starts[c.Target]...)
}

// start runs a scheduler of fakes until stop, which fails the test when
// something is left over.
func start(t *testing.T, limit int, answer func(ctx context.Context, c conf.Check, n int) (string, error)) (s *Scheduler, w *fakes, stop func()) {
	t.Helper()
	w = &fakes{starts: map[netip.AddrPort][]time.Time{}, running: map[netip.AddrPort]int{}, answer: answer}
	s = NewScheduler(Config{
		Concurrency: limit,
		NewChecker:  func(c conf.Check) (Checker, error) { return fake{w, c}, nil },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, w, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if w.twice > 0 {
			t.Errorf("%d runs began while one of the same check was under way", w.twice)
		}
	}
}

func target(i int) conf.Check {
	return conf.Check{
		Type: conf.Negotiate, Service: "http", Request: "/",
		Target:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80),
		Interval: time.Second, Timeout: 3 * time.Second, Fall: 1, Rise: 1,
	}
}

func ok(context.Context, conf.Check, int) (string, error) { return "fine", nil }

func hang(ctx context.Context, c conf.Check, _ int) (string, error) {
	<-ctx.Done()
	return "", timeoutError{after: c.Timeout}
}

func TestFiveThousandChecksStayOnTimeWhileSomeHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := func(c conf.Check) bool { return c.Target.Addr().As4()[3]%10 == 0 }
		s, w, stop := start(t, 10_000, func(ctx context.Context, c conf.Check, n int) (string, error) {
			if hangs(c) {
				return hang(ctx, c, n)
			}
			time.Sleep(5 * time.Millisecond)
			return "fine", nil
		})
		defer stop()
		begin := time.Now()
		for i := range 5000 {
			s.Subscribe(target(i), nil)
		}
		const seconds = 10
		time.Sleep(seconds * time.Second)
		busiest := map[time.Duration]int{}
		for i := range 5000 {
			c := target(i)
			runs := w.runs(c)
			if len(runs) == 0 || runs[0].Sub(begin) > c.Interval/10 {
				t.Fatalf("%v: the first check did not come within a tenth of the interval", c.Target)
			}
			if hangs(c) {
				if st, _ := s.Status(c); !st.Known || st.Up || st.Detail != "no answer within 3s" {
					t.Fatalf("%v hangs and is shown as %+v", c.Target, st)
				}
				continue
			}
			if len(runs) < seconds {
				t.Fatalf("%v: %d runs in %d s", c.Target, len(runs), seconds)
			}
			for j, at := range runs {
				busiest[at.Sub(begin).Truncate(50*time.Millisecond)]++
				if j == 0 {
					continue
				}
				if gap := at.Sub(runs[j-1]); gap > c.Interval+c.Interval/10 || (j > 1 && gap != c.Interval) {
					t.Fatalf("%v: %v between runs %d and %d", c.Target, gap, j, j+1)
				}
			}
			if st, _ := s.Status(c); !st.Up {
				t.Fatalf("%v works and is shown as %+v", c.Target, st)
			}
		}
		for at, n := range busiest {
			if at > 2*time.Second && n > 450 { // 4,500 a second are 225 in 50 ms
				t.Errorf("%d starts in the 50 ms from %v: not spread over the interval", n, at)
			}
		}
		if st := s.Stats(); st.Waits+st.Missed+st.Excused > 0 || st.MaxLate > 100*time.Millisecond {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestEqualChecksAreRunOnceUntilTheLastCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, stop := start(t, 100, ok)
		defer stop()
		c := target(1)
		first := s.Subscribe(c, nil)
		time.Sleep(10*time.Second + time.Second/2)
		before := len(w.runs(c))
		second := s.Subscribe(c, nil)
		told := make(chan Status, 1)
		third := s.Subscribe(c, func(st Status) { told <- st })
		if st := <-told; !st.Up || time.Since(st.Since) < 9*time.Second {
			t.Errorf("a new holder of a known check was told %+v", st)
		}
		first()
		first() // cancelling twice is harmless
		third()
		time.Sleep(10 * time.Second)
		if n := len(w.runs(c)) - before; n != 10 {
			t.Errorf("%d runs in 10 s after holders came and went, want 10", n)
		}
		if st, _ := s.Status(c); st.Successes != len(w.runs(c)) {
			t.Errorf("history lost: %+v after %d runs", st, len(w.runs(c)))
		}
		second()
		before = len(w.runs(c))
		time.Sleep(10 * time.Second)
		if n := len(w.runs(c)); n != before {
			t.Errorf("%d runs after the last cancel", n-before)
		}
		if _, held := s.Status(c); held {
			t.Error("a status of a check that nobody holds")
		}
	})
}

func TestCancelEndsARunAndANewHolderStartsNoSecondOneBesideIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, stop := start(t, 100, func(ctx context.Context, c conf.Check, n int) (string, error) {
			if n == 1 {
				<-ctx.Done()
				time.Sleep(100 * time.Millisecond) // slow to give up
				return "", ctx.Err()
			}
			return "fine", nil
		})
		defer stop()
		c := target(1)
		c.Interval = 10 * time.Second // its second place is far from here
		cancel := s.Subscribe(c, nil)
		time.Sleep(time.Second)
		cancel()
		if _, held := s.Status(c); held {
			t.Error("still there after the last cancel")
		}
		s.Subscribe(c, nil)
		time.Sleep(200 * time.Millisecond)
		if st, _ := s.Status(c); !st.Up || len(w.runs(c)) != 2 {
			t.Errorf("%d runs, status %+v: the ended run must not be a verdict and the next must follow at once", len(w.runs(c)), st)
		}
	})
}

func TestFailuresAreCountedWithinIntervalTimesFallPlusTimeout(t *testing.T) {
	for _, tc := range []struct {
		interval, timeout time.Duration
		fall              int
		obeys             bool // the checker heeds its context
	}{
		{time.Second, 500 * time.Millisecond, 1, true},
		{time.Second, 500 * time.Millisecond, 3, true},
		{time.Second, time.Second, 3, true},
		{time.Second, 3 * time.Second, 1, true},
		{time.Second, 3 * time.Second, 3, true},
		{time.Second, 30 * time.Second, 4, true},
		{time.Second, 3 * time.Second, 3, false},
		{2 * time.Second, time.Second, 2, false},
	} {
		t.Run(fmt.Sprintf("interval %v timeout %v fall %d obeys %v", tc.interval, tc.timeout, tc.fall, tc.obeys), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dead := time.Now().Add(10*tc.interval - time.Millisecond)
				end := make(chan struct{})
				s, _, stop := start(t, 100, func(ctx context.Context, c conf.Check, n int) (string, error) {
					if time.Now().Before(dead) {
						return "fine", nil
					}
					if !tc.obeys {
						<-end
						return "", errors.New("at last")
					}
					return hang(ctx, c, n)
				})
				defer stop()
				defer close(end)
				c := target(7)
				c.Interval, c.Timeout, c.Fall = tc.interval, tc.timeout, tc.fall
				down := make(chan Status, 4)
				s.Subscribe(c, func(st Status) {
					if !st.Up {
						down <- st
					}
				})
				st := <-down
				budget := time.Duration(tc.fall)*tc.interval + tc.timeout
				if took := time.Since(dead); took > budget+grace {
					t.Errorf("down after %v, budget %v", took, budget)
				}
				if want := "no answer within " + tc.timeout.String(); st.Detail != want || st.Fails != tc.fall {
					t.Errorf("status %+v, want detail %q and %d failures", st, want, tc.fall)
				}
			})
		})
	}
}

func TestASlowServerWithinItsTimeoutIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, stop := start(t, 100, func(_ context.Context, c conf.Check, _ int) (string, error) {
			time.Sleep(2500 * time.Millisecond)
			return "slow", nil
		})
		defer stop()
		c := target(3) // every second, 3 s
		s.Subscribe(c, nil)
		time.Sleep(31 * time.Second)
		if st, _ := s.Status(c); !st.Up || st.Fails > 0 || st.Duration != 2500*time.Millisecond {
			t.Errorf("status %+v", st)
		}
		if n := len(w.runs(c)); n < 10 || n > 11 {
			t.Errorf("%d runs in 31 s, want one each 3 s", n)
		}
	})
}

func TestADownServerThatAnswersSlowlyComesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, stop := start(t, 100, func(ctx context.Context, c conf.Check, n int) (string, error) {
			if n <= 4 {
				return hang(ctx, c, n)
			}
			select { // needs most of its time-out
			case <-time.After(2900 * time.Millisecond):
				return "slow", nil
			case <-ctx.Done():
				return "", timeoutError{after: c.Timeout}
			}
		})
		defer stop()
		c := target(3)
		c.Fall = 3
		s.Subscribe(c, nil)
		time.Sleep(30 * time.Second)
		if st, _ := s.Status(c); !st.Up {
			t.Errorf("status %+v", st)
		}
	})
}

func TestASubscriberThatBlocksHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, stop := start(t, 100, func(_ context.Context, _ conf.Check, n int) (string, error) {
			if n%2 == 0 {
				return "", errors.New("even")
			}
			return "odd", nil
		})
		defer stop()
		c := target(1)
		release := make(chan struct{})
		var slow, quick []bool
		s.Subscribe(c, func(st Status) {
			slow = append(slow, st.Up)
			<-release
		})
		s.Subscribe(c, func(st Status) { quick = append(quick, st.Up) })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(w.runs(c)); n < 10 || len(quick) != n {
			t.Errorf("%d runs, the quick subscriber was told %d", n, len(quick))
		}
		for i, up := range quick {
			if up != (i%2 == 0) {
				t.Fatalf("out of order: %v", quick)
			}
		}
		st, _ := s.Status(c)
		close(release)
		synctest.Wait()
		if len(slow) != 2 || slow[1] != st.Up {
			t.Errorf("the slow one was told %v, want the first and the latest (%v)", slow, st.Up)
		}
	})
}

func TestChecksBeyondTheLimitWaitTheirTurnAndAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, stop := start(t, 4, func(context.Context, conf.Check, int) (string, error) {
			time.Sleep(50 * time.Millisecond)
			return "fine", nil
		})
		defer stop()
		for i := range 100 {
			c := target(i)
			c.Interval = 10 * time.Second
			s.Subscribe(c, nil)
		}
		for range 200 {
			time.Sleep(10 * time.Millisecond)
			if st := s.Stats(); st.Running > 4 {
				t.Fatalf("%d at once, the limit is 4", st.Running)
			}
		}
		st := s.Stats()
		if st.Runs < 100 || st.Waits == 0 {
			t.Errorf("stats %+v: all 100 must have run, some after a wait", st)
		}
	})
}

func TestOnAndOffNeedNoRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, stop := start(t, 10, ok)
		defer stop()
		on, off := target(1), target(2)
		on.Type, off.Type = conf.On, conf.Off
		told := make(chan Status, 1)
		s.Subscribe(on, func(st Status) { told <- st })
		s.Subscribe(off, nil)
		if st := <-told; !st.Up {
			t.Errorf("on: told %+v", st)
		}
		time.Sleep(time.Minute)
		if st, _ := s.Status(on); !st.Up || time.Since(st.Last) > 0 {
			t.Errorf("on: %+v", st)
		}
		if st, _ := s.Status(off); !st.Known || st.Up || st.Detail != "checktype off: never up" {
			t.Errorf("off: %+v", st)
		}
		if len(w.starts) > 0 {
			t.Error("something was run")
		}
	})
}

func TestWantOfDescriptorsIsNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, stop := start(t, 10, func(_ context.Context, _ conf.Check, n int) (string, error) {
			if n == 1 {
				return "fine", nil
			}
			return "", fmt.Errorf("connect 10.0.0.1:80: socket: %w", unix.EMFILE)
		})
		defer stop()
		c := target(1)
		s.Subscribe(c, nil)
		time.Sleep(10 * time.Second)
		st, _ := s.Status(c)
		if !st.Up || st.OK || st.Fails > 0 || !strings.Contains(st.Detail, "too many open files") {
			t.Errorf("status %+v", st)
		}
	})
}

func TestACheckerThatPanicsFailsItsServerOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, stop := start(t, 10, func(_ context.Context, c conf.Check, _ int) (string, error) {
			if c.Target == target(1).Target {
				panic("oops")
			}
			return "fine", nil
		})
		defer stop()
		s.Subscribe(target(1), nil)
		s.Subscribe(target(2), nil)
		time.Sleep(5 * time.Second)
		if st, _ := s.Status(target(1)); st.Up || st.Detail != "fault in the checker: oops" {
			t.Errorf("status %+v", st)
		}
		if st, _ := s.Status(target(2)); !st.Up {
			t.Errorf("status %+v", st)
		}
	})
}

func TestNowRunsAtOnceAndKeepsTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w, stop := start(t, 10, ok)
		defer stop()
		c := target(1)
		c.Interval = time.Hour
		s.Subscribe(c, nil)
		time.Sleep(10 * time.Minute)
		before := time.Now()
		n := len(w.runs(c))
		s.Now(c)
		time.Sleep(time.Second)
		runs := w.runs(c)
		if len(runs) != n+1 || !runs[n].Equal(before) {
			t.Fatalf("%d runs before, after Now %v", n, runs)
		}
	})
}

func TestSubscribedBeforeRunStartsSoonAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakes{starts: map[netip.AddrPort][]time.Time{}, running: map[netip.AddrPort]int{}, answer: ok}
		s := NewScheduler(Config{NewChecker: func(c conf.Check) (Checker, error) { return fake{w, c}, nil }})
		c := target(1)
		c.Interval = time.Minute
		s.Subscribe(c, nil)
		time.Sleep(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(c.Interval / 10)
		if len(w.runs(c)) != 1 {
			t.Errorf("runs %v", w.runs(c))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A process that was stopped sees no time pass and then much of it. The machine
// is driven by hand here: step and finish with times of our choice.
func TestAfterAPauseNothingIsMadeUpForInABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakes{starts: map[netip.AddrPort][]time.Time{}, running: map[netip.AddrPort]int{}, answer: ok}
		s := NewScheduler(Config{Concurrency: 10_000, NewChecker: func(c conf.Check) (Checker, error) { return fake{w, c}, nil }})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s.runCtx = ctx
		for i := range 1000 {
			s.Subscribe(target(i), nil)
		}
		turn := func(until time.Duration) {
			for end := time.Now().Add(until); time.Now().Before(end); {
				next, _ := s.step(time.Now())
				synctest.Wait()
				time.Sleep(min(time.Until(next), time.Until(end)))
			}
		}
		turn(3 * time.Second)
		before := s.Stats()
		if before.Runs < 3000 || before.Missed > 0 {
			t.Fatalf("stats before the pause: %+v", before)
		}
		time.Sleep(20 * time.Second) // nobody calls step
		s.step(time.Now())
		synctest.Wait()
		after := s.Stats()
		if n := after.Runs - before.Runs; n > 150 {
			t.Errorf("%d of 1,000 checks started at once after the pause", n)
		}
		before = s.Stats()
		turn(time.Second)
		if n := s.Stats().Runs - before.Runs; n < 850 || n > 1150 {
			t.Errorf("%d runs in the second after the pause, want about 1,000", n)
		}
	})
}

func TestATimeOutInAPauseOfThisProcessIsNotHeldAgainstTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakes{starts: map[netip.AddrPort][]time.Time{}, running: map[netip.AddrPort]int{}}
		w.answer = func(ctx context.Context, c conf.Check, n int) (string, error) {
			if n == 2 {
				return hang(ctx, c, n)
			}
			return "fine", nil
		}
		s := NewScheduler(Config{NewChecker: func(c conf.Check) (Checker, error) { return fake{w, c}, nil }})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s.runCtx = ctx
		c := target(1)
		c.Interval, c.Timeout = time.Second, 500*time.Millisecond
		s.Subscribe(c, nil)
		for len(w.runs(c)) < 2 {
			next, _ := s.step(time.Now())
			synctest.Wait()
			if len(w.runs(c)) < 2 {
				time.Sleep(time.Until(next))
			}
		}
		time.Sleep(c.Timeout + 50*time.Millisecond) // the run's deadline passes, the loop does not run
		synctest.Wait()
		if st, _ := s.Status(c); !st.Up || st.Fails > 0 || s.Stats().Excused != 1 {
			t.Fatalf("status %+v, stats %+v", st, s.Stats())
		}
		s.step(time.Now()) // the run again, at once
		synctest.Wait()
		if n := len(w.runs(c)); n != 3 {
			t.Errorf("%d runs, want the lost one repeated", n)
		}
	})
}

func TestRunCannotBeCalledTwice(t *testing.T) {
	s := NewScheduler(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Run(ctx); err == nil {
		t.Error("the second Run was accepted")
	}
}

func TestPoolUpdatesAtRandomKeepTheBooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, stop := start(t, 30, func(ctx context.Context, c conf.Check, n int) (string, error) {
			if n%3 == 0 {
				return hang(ctx, c, n)
			}
			time.Sleep(time.Duration(n%7) * 20 * time.Millisecond)
			return "fine", nil
		})
		var cancels []func()
		x := uint32(1)
		rnd := func(n int) int { x = x*1664525 + 1013904223; return int(x>>8) % n }
		for range 5000 {
			switch {
			case len(cancels) > 0 && rnd(2) == 0:
				i := rnd(len(cancels))
				cancels[i]()
				cancels = append(cancels[:i], cancels[i+1:]...)
			default:
				c := target(rnd(40))
				cancels = append(cancels, s.Subscribe(c, func(Status) {}))
				if rnd(5) == 0 {
					s.Now(c)
				}
			}
			time.Sleep(time.Duration(rnd(30)) * time.Millisecond)
		}
		for _, c := range cancels {
			c()
		}
		time.Sleep(10 * time.Second)
		if st := s.Stats(); st.Checks != 0 || st.Running != 0 || s.inUse != 0 || len(s.heap) != 0 || len(s.waiting) != 0 {
			t.Errorf("left over: %+v, %d descriptors, %d events, %d waiting", st, s.inUse, len(s.heap), len(s.waiting))
		}
		stop()
	})
}
