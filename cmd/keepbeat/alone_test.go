package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// systemd listens as it does, and passes on what it is told.
func systemd(t *testing.T, watchdog string) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	t.Setenv("WATCHDOG_PID", "")
	return c
}

func TestTheWatchdogIsFedOnlyWhileTheLoopsTurn(t *testing.T) {
	c := systemd(t, "40000")
	ctx, stop := context.WithCancel(t.Context())
	var fed sync.WaitGroup
	defer fed.Wait()
	defer stop()
	answers := make(chan bool)
	fed.Go(func() {
		feed(ctx, func(late time.Duration) bool {
			if late != 20*time.Millisecond {
				t.Errorf("half of WatchdogSec is what may be late, not %s", late)
			}
			select {
			case turns := <-answers:
				return turns
			case <-ctx.Done():
				return false
			}
		})
	})
	for _, turns := range []bool{false, false, true} {
		answers <- turns
	}
	// The next question comes after the answer before it was carried out.
	answers <- false
	b := make([]byte, 64)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != "WATCHDOG=1" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(b); err == nil {
		t.Errorf("it was told %q for loops that do not turn", b[:n])
	}
}

func TestReleaseDoesNotNeedASoundFile(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "vrrp.yaml"), "global_defs: {run_dir: "+dir+"/run}\n"+strings.Replace(aRouter, "51", "256", 1))
	r := command(t, "keepbeat", "--config="+filepath.Join(dir, "ha.yaml"), "release")
	if r.code != 0 || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}
