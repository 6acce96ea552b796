package site

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWhyAProgramWasKilledIsSaid(t *testing.T) {
	killed := func(ctx context.Context, want, script string) {
		t.Helper()
		if err := run(ctx, "", []string{"/bin/sh", "-c", script}); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	killed(late, "killed at its time-out", "exec sleep 600")

	started := filepath.Join(t.TempDir(), "started")
	if err := unix.Mkfifo(started, 0o600); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	go func() {
		_, _ = os.ReadFile(started) // it returns when the program has opened and closed it
		end()
	}()
	killed(ended, "killed, since keepbeat stops or has no use for it any more", "echo >"+started+"; exec sleep 600")
}
