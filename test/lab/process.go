package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// Process is a program that runs on a host until it ends, is ended, or its host dies.
type Process struct {
	Name string
	Host *Host

	cmd   *exec.Cmd
	log   string
	quiet bool          // its log is no news
	done  chan struct{} // closed when it has ended
	err   error         // how; read after done
}

// Start starts a program on the host; what it prints goes to its log, which is
// shown when the test fails. Each of env is NAME=value.
func (h *Host) Start(name string, env []string, args ...string) *Process {
	h.lab.t.Helper()
	p := h.newProcess(name, args)
	log, err := os.Create(p.log)
	if err != nil {
		h.lab.t.Fatalf("lab: on %s: %v", h.Name, err)
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(p.cmd.Env, env...)
	p.start()
	return p
}

// StartKeepbeat starts the program under test: StartKeepbeat("run").
func (h *Host) StartKeepbeat(args ...string) *Process {
	h.lab.t.Helper()
	return h.Start("keepbeat", nil, append([]string{h.lab.Keepbeat()}, args...)...)
}

// Keepbeat runs an operator's command: Keepbeat("status", "--json").
func (h *Host) Keepbeat(args ...string) (string, error) {
	h.lab.t.Helper()
	return h.Try(append([]string{h.lab.Keepbeat()}, args...)...)
}

func (h *Host) newProcess(name string, args []string) *Process {
	l := h.lab
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &Process{
		Name: name, Host: h,
		log:  filepath.Join(l.dir, "logs", fmt.Sprintf("%03d-%s-%s.log", len(l.processes)+1, h.Name, strings.Map(plain, name))),
		done: make(chan struct{}),
		cmd:  exec.Command(args[0], args[1:]...),
	}
	p.cmd.Env, p.cmd.Dir = h.environment(), "/"
	// An interrupt from the keyboard is for the test alone.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return p
}

func (p *Process) start() {
	l := p.Host.lab
	l.t.Helper()
	if err := p.Host.Do(p.cmd.Start); err != nil {
		l.t.Fatalf("lab: on %s: starting %s: %v", p.Host.Name, p.Name, err)
	}
	p.run()
}

// run waits for the end of what has been started.
func (p *Process) run() {
	l := p.Host.lab
	l.mu.Lock()
	l.processes = append(l.processes, p)
	l.mu.Unlock()
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
}

// PID is its number on this machine; on the host it has another.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is everything that it has printed so far.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(b)
}

// WaitLog waits until the log matches the regular expression, in which ^ and $
// are those of a line, and ends the test when that takes longer or the process
// ends without it.
func (p *Process) WaitLog(limit time.Duration, pattern string) {
	t := p.Host.lab.t
	t.Helper()
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	found := func() bool { return re.MatchString(p.Log()) }
	ok := eventually(limit, func() bool { return found() || p.Ended() })
	if !ok || !found() {
		t.Fatalf("lab: %s on %s: waited in vain (%v, ended: %v) for %q in its log:\n%s", p.Name, p.Host.Name, limit, p.Ended(), pattern, p.Log())
	}
}

// Signal sends a signal, and returns the instant before it was sent.
func (p *Process) Signal(s syscall.Signal) probe.Instant {
	t := p.Host.lab.t
	t.Helper()
	at := probe.Now()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("lab: %v to %s on %s: %v", s, p.Name, p.Host.Name, err)
	}
	return at
}

// Kill kills the process alone, waits until it is gone, and returns the instant
// of the kill. Its host lives on.
func (p *Process) Kill() probe.Instant {
	p.Host.lab.t.Helper()
	at := p.Signal(syscall.SIGKILL)
	p.mustEnd(10 * time.Second)
	return at
}

// Freeze stops it in its tracks, as a hang: it is told nothing, its host lives on.
func (p *Process) Freeze() probe.Instant {
	p.Host.lab.t.Helper()
	return p.Signal(syscall.SIGSTOP)
}

// Thaw lets a frozen process go on.
func (p *Process) Thaw() probe.Instant { p.Host.lab.t.Helper(); return p.Signal(syscall.SIGCONT) }

// Terminate asks it to end (SIGTERM), waits, and returns the error of its exit.
// The test ends when it takes longer than limit.
func (p *Process) Terminate(limit time.Duration) error {
	p.Host.lab.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.mustEnd(limit)
	return p.err
}

func (p *Process) mustEnd(limit time.Duration) {
	p.Host.lab.t.Helper()
	if !p.Wait(limit) {
		p.Host.lab.t.Fatalf("lab: %s on %s has not ended after %v; its log:\n%s", p.Name, p.Host.Name, limit, p.Log())
	}
}

// Wait waits until it has ended, for at most limit, and says whether it has.
func (p *Process) Wait(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// Ended says whether it has ended.
func (p *Process) Ended() bool { return isClosed(p.done) }

// Err is how it ended; nil is exit status 0, and also that it still runs.
func (p *Process) Err() error {
	if !isClosed(p.done) {
		return nil
	}
	return p.err
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// safeBuffer collects what a process writes while somebody reads it.
type safeBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

var _ io.Writer = (*safeBuffer)(nil)

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
