package checks

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// told is a Checker that tells of what another one said.
type told struct {
	Checker
	tell func(detail string, err error)
}

func (k told) Check(ctx context.Context) (string, error) {
	detail, err := k.Checker.Check(ctx)
	k.tell(detail, err)
	return detail, err
}

// firstRun is a Checker that does nothing the second time.
type firstRun struct {
	Checker
	ran *atomic.Bool
}

func (k firstRun) Check(ctx context.Context) (string, error) {
	if k.ran.Swap(true) {
		return "", nil
	}
	return k.Checker.Check(ctx)
}

// tryInLoop has a Scheduler run a check at once.
func tryInLoop(t *testing.T, c conf.Check) (detail string, err error) {
	t.Helper()
	s, stop := inLoop(t)
	defer stop()
	said := make(chan struct{})
	s.make = func(plain func(conf.Check) (Checker, error)) func(conf.Check) (Checker, error) {
		// The schedule may come to a second run before the Scheduler has stopped.
		var ran atomic.Bool
		once := tellingOf(plain, func(d string, e error) {
			detail, err = d, e
			close(said)
		})
		return func(c conf.Check) (Checker, error) {
			k, err := once(c)
			return firstRun{k, &ran}, err
		}
	}(s.make)
	s.Subscribe(c, nil)
	s.Now(c)
	<-said
	return detail, err
}

func tellingOf(newChecker func(conf.Check) (Checker, error), tell func(string, error)) func(conf.Check) (Checker, error) {
	return func(c conf.Check) (Checker, error) {
		k, err := newChecker(c)
		if err == nil {
			k = told{k, tell}
		}
		return k, err
	}
}

// inLoop starts a Scheduler with the real checkers.
func inLoop(t *testing.T) (s *Scheduler, stop func()) {
	t.Helper()
	s = NewScheduler(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestOnlyChecksThatCostLittleRunInTheLoop(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    conf.Check
		want bool
	}{
		{"a connect", conf.Check{Type: conf.Connect}, true},
		{"a connect by SCTP", conf.Check{Type: conf.Connect, Service: "sctp"}, true},
		{"a connect that is a ping", conf.Check{Type: conf.Connect, Service: "udp"}, false},
		{"http", conf.Check{Type: conf.Negotiate, Service: "http"}, true},
		{"http with a plain text to receive", conf.Check{Type: conf.Negotiate, Service: "http", Receive: "Test Page"}, true},
		{"http with an expression to receive", conf.Check{Type: conf.Negotiate, Service: "http", Receive: "a|b"}, false},
		{"http with a digest", conf.Check{Type: conf.Negotiate, Service: "http", Digest: "md5:"}, false},
		{"HTTP/2", conf.Check{Type: conf.Negotiate, Service: "http", HTTPVersion: "2"}, false},
		{"http and connects in turn", conf.Check{Type: conf.Negotiate, Service: "http", Connects: 3}, false},
		{"http through a proxy", conf.Check{Type: conf.Negotiate, Service: "http_proxy"}, true},
		{"https", conf.Check{Type: conf.Negotiate, Service: "https"}, false},
		{"smtp", conf.Check{Type: conf.Negotiate, Service: "smtp"}, false},
		{"a program", conf.Check{Type: conf.External}, false},
	} {
		if got := runsInLoop(tc.c); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// One goroutine runs them all, and none of these holds it up.
func TestServersThatDoNotEndHoldUpNobodyInTheLoop(t *testing.T) {
	endless := func(first, then string) string {
		return serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
			if _, err := io.WriteString(c, first); err != nil {
				return
			}
			for {
				if _, err := io.WriteString(c, then); err != nil {
					return
				}
			}
		})
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	defer srv.Close()
	good := httpAt(srv.Listener.Addr().String())
	good.Interval, good.Timeout, good.Receive = 20*time.Millisecond, time.Minute, "ok"
	asked := make(chan error, 1)
	s, stop := inLoop(t)
	defer stop()
	plain, telling := s.make, tellingOf(s.make, func(_ string, err error) {
		select {
		case asked <- err:
		default:
		}
	})
	s.make = func(c conf.Check) (Checker, error) {
		if c.Target == good.Target {
			return telling(c)
		}
		return plain(c)
	}
	for _, addr := range []string{
		blackhole(t),
		endless("HTTP/1.1 200 OK\r\n\r\n", "body without end"),
		endless("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
	} {
		c := httpAt(addr)
		c.Interval, c.Timeout = 20*time.Millisecond, time.Hour
		s.Subscribe(c, nil)
	}
	up := make(chan Status, 1)
	s.Subscribe(good, func(st Status) { up <- st })
	if st := <-up; !st.Up {
		t.Errorf("the server that works: %+v", st)
	}
	for range 50 {
		<-asked
	}
	if st, _ := s.Status(good); !st.Up {
		t.Errorf("the server that works, later: %+v", st)
	}
}

func TestTheLastSubscriberTakesTheConnectionAlong(t *testing.T) {
	asked, ended := make(chan error, 1), make(chan error, 1)
	addr := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		_, err := c.Read(make([]byte, 1000))
		asked <- err
		_, err = c.Read(make([]byte, 1))
		ended <- err
	})
	s, stop := inLoop(t)
	defer stop()
	c := httpAt(addr)
	c.Timeout = time.Hour
	cancel := s.Subscribe(c, nil)
	if err := <-asked; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != io.EOF {
		t.Errorf("the server saw %v, want the end of the stream", err)
	}
}

func TestTheDeadlineOfATaskIsThatOfTheWholeCheck(t *testing.T) {
	addr := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for { // each byte would be in time
			if _, err := io.WriteString(c, "x"); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond) // the drip is the case
		}
	})
	c := httpAt(addr)
	expectSilence(t, c, "!no answer within TIME")
}

// The loop's own descriptors and those of checks under way.
func TestRunLeavesNoDescriptorBehind(t *testing.T) {
	silent := make([]string, 20)
	for i := range silent {
		silent[i] = blackhole(t)
	}
	count := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := count()
	for range 3 {
		s, stop := inLoop(t)
		for _, addr := range silent {
			s.Subscribe(conf.Check{Type: conf.Connect, Target: netip.MustParseAddrPort(addr), Interval: 10 * time.Millisecond, Timeout: time.Hour}, nil)
			s.Subscribe(httpAt(addr), nil)
		}
		for s.Stats().Runs < uint64(len(silent)) {
			time.Sleep(time.Millisecond)
		}
		stop()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
