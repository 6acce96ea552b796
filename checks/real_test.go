package checks

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// One story with the real parts: a server works, fails, and works again, while
// another one never answers.
func TestARealServerGoesDownAndComesUp(t *testing.T) {
	var broken atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, "ok")
	}))
	defer srv.Close()
	s := NewScheduler(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c := httpAt(srv.Listener.Addr().String())
	c.Receive, c.Interval, c.Fall, c.Rise = "ok", 20*time.Millisecond, 2, 2
	silent := httpAt(blackhole(t))
	silent.Interval, silent.Timeout = 20*time.Millisecond, time.Hour
	told := make(chan Status, 10)
	s.Subscribe(silent, nil)
	s.Subscribe(pingTo("::1"), nil)
	end := s.Subscribe(c, func(st Status) { told <- st })
	if st := <-told; !st.Up || st.Detail != `HTTP 200, match for "ok"` {
		t.Errorf("told %+v", st)
	}
	broken.Store(true)
	if st := <-told; st.Up || st.Fails != 2 || st.Detail != "HTTP 503, wanted 2xx" {
		t.Errorf("told %+v", st)
	}
	broken.Store(false)
	if st := <-told; !st.Up || st.Successes != 2 {
		t.Errorf("told %+v", st)
	}
	end()
	cancel() // ends the one that hangs, too
	if err := <-done; err != nil {
		t.Error(err)
	}
}
