package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/fencing/watchdog"
)

// The actor asks whenever it looks, some times a second.
func TestAWatchdogThatCannotBeArmedIsTriedAgainAfterAPause(t *testing.T) {
	path := filepath.Join(t.TempDir(), "watchdog")
	synctest.Test(t, func(t *testing.T) {
		dog, err := watchdog.New(watchdog.Config{Device: path})
		if err != nil {
			t.Fatal(err)
		}
		s := newSelfFence(dog)
		var log bytes.Buffer
		var j jobs
		j.init()
		ctx, cancel := context.WithCancel(t.Context())
		logger := slog.New(slog.NewTextHandler(&log, nil))
		for began := time.Now(); time.Since(began) < 3*armAgain-time.Second; time.Sleep(100 * time.Millisecond) {
			j.begin("arm", func() { s.arm(ctx, logger) })
			synctest.Wait()
		}
		if n := strings.Count(log.String(), "the watchdog is not armed"); n != 3 {
			t.Errorf("%d attempts in %v:\n%s", n, 3*armAgain-time.Second, &log)
		}
		cancel()
		ended := time.Now()
		j.wait()
		if late := time.Since(ended); late > 0 {
			t.Error("a node that stops waits for the pause:", late)
		}
	})
}
