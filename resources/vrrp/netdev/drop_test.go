package netdev

import (
	"log/slog"
	"os"
	"strings"
	"testing"
)

func TestThatNobodyListensToTheFilterIsSaidOnce(t *testing.T) {
	var log strings.Builder
	d := newDrops(nil, slog.New(slog.NewTextHandler(&log, nil)), make(chan struct{}, 1))
	fails := func() {
		t.Helper()
		r, w, err := os.Pipe() // recvfrom(2) refuses it
		ok(t, err)
		defer w.Close()
		d.events = r
		d.listen(r)
		if d.events != nil {
			t.Error("it is not tried again when the table is made anew")
		}
	}
	fails()
	fails()
	if got := log.String(); strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, "cannot be seen") || !strings.Contains(got, "systemctl restart keepbeat") || !strings.Contains(got, "non-socket") {
		t.Error(got)
	}

	log.Reset()
	r, w, err := os.Pipe()
	ok(t, err)
	defer w.Close()
	ok(t, r.Close())
	d.events = r
	d.listen(r)
	if log.String() != "" {
		t.Errorf("a file that was closed: %s", log.String())
	}
}
