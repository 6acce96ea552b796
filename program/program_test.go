package program

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAProgramIsKilledWithItsChildrenAtItsDeadline(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "pids")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c := Command{Path: script(t, "trap '' TERM; echo begun; sleep 300 & echo $$ $! >"+fifo+"; while :; do sleep 300; done"), Keep: 100}
	ctx, cancel := context.WithCancel(t.Context())
	type end struct {
		output []byte
		err    error
	}
	done := make(chan end, 1)
	go func() { b, err := c.Run(ctx); done <- end{b, err} }()
	b, err := os.ReadFile(fifo) // waits for the script
	if err != nil {
		t.Fatal(err)
	}
	var running []unix.PollFd
	for p := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		running = append(running, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if len(running) != 2 {
		t.Fatalf("the script said %q", b)
	}
	cancel()
	if end := <-done; !errors.Is(end.err, context.Canceled) || string(end.output) != "begun\n" {
		t.Errorf("got %q, %v", end.output, end.err)
	}
	for i := range running {
		if n, err := unix.Poll(running[i:i+1], 60_000); n != 1 || err != nil {
			t.Errorf("process %d is still there (%v)", i, err)
		}
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("child %d was left over: %v", pid, err)
	}
}

// If it waited for the one that has left, the test would take five minutes.
func TestAProgramThatPrintsWithoutEndAndLeavesItsGroupIsBounded(t *testing.T) {
	b, err := Command{Path: script(t, "setsid sleep 300 & echo $!; until [ $(cut -d' ' -f5 /proc/$!/stat) = $! ]; do :; done; yes | head -c 1000000"), Keep: 50}.Run(t.Context())
	if err != nil || len(b) != 50 || !strings.HasSuffix(string(b), "y\ny\n") {
		t.Errorf("%q, %v", b, err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	if pid, err := strconv.Atoi(first); err != nil || unix.Kill(pid, unix.SIGKILL) != nil {
		t.Errorf("the one that has left: %q", first)
	}
}

func TestAProgramReadsWhatItLikes(t *testing.T) {
	for _, tc := range []struct{ body, want string }{{"exit 0", ""}, {"head -c 3", "abc"}, {"cat", "abcabc"}} {
		text := []byte("abcabc")
		if tc.body != "cat" {
			text = append(text, make([]byte, 1<<20)...) // more than a pipe holds
		}
		if b, err := (Command{Path: script(t, tc.body), Stdin: text, Keep: 10}).Run(t.Context()); err != nil || string(b) != tc.want {
			t.Errorf("%s: %q, %v", tc.body, b, err)
		}
	}
}

func TestAProgramThatCannotBeStarted(t *testing.T) {
	if _, err := (Command{Path: "/nonexistent", Stdin: make([]byte, 1<<20)}).Run(t.Context()); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}
