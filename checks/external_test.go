package checks

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func script(t *testing.T, body string) conf.Check {
	t.Helper()
	path := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return conf.Check{
		Type: conf.External, Command: path, Args: "10.0.0.1 80 10.0.0.5 8080",
		Target: netip.MustParseAddrPort("10.0.0.5:8080"), Timeout: 10 * time.Second,
	}
}

func TestExternal(t *testing.T) {
	t.Setenv("KEEPBEAT_SECRET", "leak")
	for _, tc := range []struct{ name, body, want string }{
		{"exit 0 is up", "exit 0", "exit status 0"},
		{"the first line is the detail", "echo; echo all well; echo more", "all well"},
		{"the four arguments", `echo "$# $1 $2 $3 $4"`, "4 10.0.0.1 80 10.0.0.5 8080"},
		{"a clean environment", `echo "$KEEPBEAT_SECRET:$LANG:$PWD"`, ":C:/"},
		{"no input", "read x || echo none", "none"},
		{"any other exit is down", "exit 3", "!exit status 3"},
		{"and says why", "echo no route >&2; exit 1", "!exit status 1: no route"},
		{"a signal", "kill -9 $$", "!signal: killed"},
		{"output that moves the cursor", `printf '\033[2J\377'; exit 0`, "?[2J?"},
		{"more output than anybody reads", "yes | head -c 10000000; exit 0", "y"},
		{"a child that holds the output open", "sleep 300 & echo done", "done"},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, script(t, tc.body), tc.want) })
	}
}

func TestExternalThatHangsIsKilledWithItsChildren(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "pids")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c := script(t, "trap '' TERM; sleep 300 & echo $$ $! >"+fifo+"; while :; do sleep 300; done")
	k, err := NewChecker(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := k.Check(ctx); done <- err }()
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
	if err := <-done; err == nil || err.Error() != "checkcommand: no answer within 10s" {
		t.Errorf("got %v", err)
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

func TestExternalWithoutPidfd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cmd, err := os.StartProcess("/bin/sleep", []string{"sleep", "300"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		t.Fatal(err)
	}
	if !awaitBlocking(ctx, cmd.Pid) {
		t.Error("it said that a killed program ended by itself")
	}
	if _, err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
