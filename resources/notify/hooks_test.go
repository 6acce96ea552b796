package notify

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// script writes an executable of the shell.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// within runs what takes a context until f has returned.
func within(t *testing.T, run func(context.Context), f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); run(ctx) }()
	f()
	cancel()
	<-done
}

func TestHooksRunOneAfterTheOtherInTheirOrder(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	slow := script(t, `echo begin $1 >>$OUT; sleep 0.05; echo end $1 $KEEPBEAT_POOL >>$OUT`)
	log := &logBuffer{}
	h := NewHooks(log.logger())
	env := []string{"OUT=" + out, "KEEPBEAT_POOL=web.yaml"}
	for i := range 3 {
		h.Add(Hook{Subject: strconv.Itoa(i), Path: slow, Args: []string{strconv.Itoa(i)}, Env: env})
	}
	within(t, h.Run, func() {}) // what waits at the end is still run
	want := "begin 0\nend 0 web.yaml\nbegin 1\nend 1 web.yaml\nbegin 2\nend 2 web.yaml\n"
	if got := read(t, out); got != want {
		t.Errorf("%s", got)
	}
}

func TestAHookThatWaitsIsOvertakenByANewerOneOfItsSubject(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	path := script(t, `echo $* >>`+out)
	h := NewHooks((&logBuffer{}).logger())
	for i := range 1000 {
		h.Add(Hook{Subject: "10.0.0.5", Path: path, Args: []string{"10.0.0.5", strconv.Itoa(i)}})
		h.Add(Hook{Subject: "10.0.0.6", Path: path, Args: []string{"10.0.0.6", strconv.Itoa(i)}})
	}
	if n := len(h.waiting); n != 2 {
		t.Errorf("%d wait", n)
	}
	within(t, h.Run, func() {})
	if got := read(t, out); got != "10.0.0.5 999\n10.0.0.6 999\n" {
		t.Errorf("%s", got)
	}
}

func TestAHookThatFailsIsLoggedWithWhatItPrints(t *testing.T) {
	log := &logBuffer{}
	h := NewHooks(log.logger())
	h.Add(Hook{Subject: "a", Path: script(t, "echo no; printf 'such\\033[2J\\nthing' >&2; exit 3"), Args: []string{"up"}})
	h.Add(Hook{Subject: "b", Path: "/nonexistent/hook"})
	within(t, h.Run, func() {})
	for _, want := range []string{`output="no such [2J thing"`, `err="exit status 3"`, "args=up", "/nonexistent/hook: no such file"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
}

func TestLinesAreAppendedAndEachIsOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "monitor")
	log := &logBuffer{}
	l := NewLines(log.logger())
	l.Add(path, "one")
	l.Add(path, "two\nhalves \xff\x00")
	l.Add(path, strings.Repeat("é", 1000))
	within(t, l.Run, func() {})
	got := strings.Split(read(t, path), "\n")
	if len(got) != 4 || got[0] != "one" || got[1] != "two halves ? " || len(got[2]) > maxLine || !strings.HasSuffix(got[2], "é...") {
		t.Errorf("%q", got)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	if log.String() != "" {
		t.Error(log)
	}
}

func TestAMonitorfileThatCannotBeWrittenIsSaidOnce(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.Symlink(target, link), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{}
	l := NewLines(log.logger())
	for range 3 {
		for _, path := range []string{link, fifo, dir} {
			l.Add(path, "text")
			l.write()
		}
	}
	if read(t, target) != "" {
		t.Error("a symbolic link was followed")
	}
	if n := strings.Count(log.String(), "monitorfile cannot be written"); n != 3 || !strings.Contains(log.String(), "symbolic link") {
		t.Errorf("said %d times:\n%s", n, log)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	l.Add(link, "works again")
	l.write()
	if read(t, link) != "works again\n" {
		t.Error(read(t, link))
	}
}

func TestLinesThatWaitAreBounded(t *testing.T) {
	log := &logBuffer{}
	l := NewLines(log.logger())
	path := filepath.Join(t.TempDir(), "monitor")
	for range maxLines + 5 {
		l.Add(path, "x")
	}
	l.write()
	if n := strings.Count(read(t, path), "\n"); n != maxLines || !strings.Contains(log.String(), "lines=5") {
		t.Errorf("%d lines; %s", n, log)
	}
}
