// Package lab builds small networks on one machine: hosts as namespaces with
// their own name, files and processes; switches between them; faults; and probes
// that measure what a client notices.
//
// Everything hangs on one process for each host that ends with the lab, so that
// a test that fails, panics or is killed leaves nothing but a directory in the
// temporary directory, which the next lab removes. No namespace, interface or
// rule is made outside a host. It needs root.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// TB is what the lab needs of testing.TB; Standalone gives it to programs that
// are no tests.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	// Fatalf does not return.
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// Lab is one network. Its methods may be called from one goroutine; what fails
// ends the test.
type Lab struct {
	t      TB
	dir    string
	tool   string
	fabric *namespaces
	began  time.Time

	hosts    []*Host
	switches []*Switch
	ports    int
	faults   []fault

	mu        sync.Mutex // guards processes
	processes []*Process
}

// Within lets what fails while f runs be t's, a subtest of the lab's test.
func (l *Lab) Within(t TB, f func()) {
	whole := l.t
	l.t = t
	defer func() { l.t = whole }()
	f()
}

// New makes an empty lab, which ends with the test. Where it cannot be made the test fails.
func New(t TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("lab: network namespaces need root; this is user %d", os.Geteuid())
	}
	if err := removeAbandoned(os.TempDir()); err != nil {
		t.Logf("lab: removing what earlier labs left: %v", err)
	}
	l := &Lab{t: t, began: time.Now()}
	var err error
	if l.dir, err = os.MkdirTemp("", dirPrefix()); err != nil {
		t.Fatalf("lab: %v", err)
	}
	t.Cleanup(l.end)
	if err := os.Chmod(l.dir, 0o755); err != nil {
		t.Fatalf("lab: %v", err)
	}
	if err := os.Mkdir(filepath.Join(l.dir, "logs"), 0o755); err != nil {
		t.Fatalf("lab: %v", err)
	}
	l.tool = l.binary("KEEPBEAT_LABTOOL", "./test/lab/labtool")
	if l.fabric, err = startNamespaces(l.tool, "fabric", nil); err != nil {
		t.Fatalf("lab: %v", err)
	}
	return l
}

// end takes everything away, and after a failure shows the end of each log.
func (l *Lab) end() {
	if l.t.Failed() {
		l.showLogs()
	}
	for _, h := range l.hosts {
		if h.ns != nil {
			h.ns.end()
		}
	}
	if l.fabric != nil {
		l.fabric.end()
	}
	l.mu.Lock()
	processes := l.processes
	l.mu.Unlock()
	for _, p := range processes {
		p.Wait(20 * time.Second)
	}
	if keep := os.Getenv("KEEPBEAT_LAB_LOGS"); keep != "" && l.t.Failed() {
		to := filepath.Join(keep, strings.Map(plain, l.t.Name()))
		if err := os.CopyFS(to, os.DirFS(filepath.Join(l.dir, "logs"))); err != nil {
			l.t.Logf("lab: keeping the logs: %v", err)
		} else {
			l.t.Logf("lab: logs are in %s", to)
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Logf("lab: %v", err)
	}
}

func plain(r rune) rune {
	if strings.ContainsRune("/\\ :", r) {
		return '_'
	}
	return r
}

func (l *Lab) showLogs() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.processes {
		if p.quiet {
			continue
		}
		log := p.Log()
		if lines := strings.Split(strings.TrimRight(log, "\n"), "\n"); len(lines) > 80 {
			log = fmt.Sprintf("(%d lines before these)\n%s", len(lines)-80, strings.Join(lines[len(lines)-80:], "\n"))
		}
		l.t.Logf("---- log of %s on %s:\n%s", p.Name, p.Host.Name, log)
	}
}

// Logf writes to the test's log, with the lab's age before it.
func (l *Lab) Logf(format string, args ...any) {
	l.t.Helper()
	l.t.Logf("%8.3f s  %s", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}

// Eventually waits until ok, asking every 10 ms, and ends the test when it takes
// longer than limit. what completes "waited in vain for".
func (l *Lab) Eventually(limit time.Duration, what string, ok func() bool) {
	l.t.Helper()
	if !eventually(limit, ok) {
		l.t.Fatalf("lab: waited %v in vain for %s", limit, what)
	}
}

func eventually(limit time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

const labDir = "keepbeat-lab-"

// dirPrefix names the owner: process number and the time it started, since numbers come again.
func dirPrefix() string {
	return fmt.Sprintf("%s%d-%s-", labDir, os.Getpid(), startTime(os.Getpid()))
}

// startTime is field 22 of /proc/PID/stat, or empty when there is no such process.
func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name in parentheses may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// removeAbandoned removes the directories of labs whose process is gone.
func removeAbandoned(temp string) error {
	dirs, err := filepath.Glob(filepath.Join(temp, labDir+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		owner, rest, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), labDir), "-")
		started, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || started == "" || startTime(pid) == started {
			continue
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// Standalone runs a program in a lab outside of any test; what would end a test
// is its error. Interrupting ctx takes the lab away and returns.
func Standalone(ctx context.Context, name string, logf func(format string, args ...any), run func(TB)) error {
	s := &standalone{name: name, logf: logf}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.cleanUp()
		defer func() {
			switch r := recover().(type) {
			case nil:
			case fatal:
				s.fail(errors.New(string(r)))
			default:
				s.fail(fmt.Errorf("panic: %v", r))
				s.cleanUp()
				panic(r)
			}
		}()
		run(s)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		// The program may be waiting for anything; its hosts end under it.
		s.fail(context.Cause(ctx))
		s.cleanUp()
		return s.failure()
	}
	return s.failure()
}

type fatal string

type standalone struct {
	name string
	logf func(string, ...any)

	mu       sync.Mutex // guards err and cleanups
	err      error
	cleanups []func()
}

func (s *standalone) Helper()                    {}
func (s *standalone) Name() string               { return s.name }
func (s *standalone) Logf(f string, args ...any) { s.logf(f, args...) }
func (s *standalone) Fatalf(f string, args ...any) {
	panic(fatal(fmt.Sprintf(f, args...)))
}

func (s *standalone) Failed() bool { return s.failure() != nil }

func (s *standalone) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *standalone) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *standalone) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *standalone) cleanUp() {
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		if n == 0 {
			s.mu.Unlock()
			return
		}
		f := s.cleanups[n-1]
		s.cleanups = s.cleanups[:n-1]
		s.mu.Unlock()
		f()
	}
}

// rootDir is the module's directory.
func rootDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("no go.mod in this directory or above: run this inside the keepbeat module")
		}
	}
}

// lockFile is held until the returned function is called.
func lockFile(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}
