package checks

import (
	"context"
	"errors"
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
	c := script(t, "trap '' TERM; echo $$ >"+dir+"/pids; sleep 300 & echo $! >>"+dir+"/pids; while :; do sleep 300; done")
	k, err := NewChecker(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := k.Check(ctx); done <- err }()
	var pids []string
	for len(pids) < 2 {
		b, _ := os.ReadFile(dir + "/pids")
		pids = strings.Fields(string(b))
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err == nil || err.Error() != "checkcommand: no answer within 10s" {
		t.Errorf("got %v", err)
	}
	for _, p := range pids {
		pid, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		gone := func() bool {
			if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
				return true
			}
			// An orphan is a zombie until init takes it.
			b, err := os.ReadFile("/proc/" + p + "/stat")
			return err != nil || strings.Contains(string(b), ") Z ")
		}
		for end := time.Now().Add(10 * time.Second); !gone(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("process %d is still there", pid)
			}
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
