package checks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// external is checktype external: a program's exit status, 0 for up. It gets
// the arguments of ldirectord(8) and an environment of its own; the first line
// that it prints is the detail.
//
// It runs in its own process group. Whatever is left of that group when the
// program has ended is killed, so that checks cannot pile up processes.
type external struct {
	c    conf.Check
	path string
	args []string
}

const (
	externalOutput = 4 << 10                // bytes kept of what it prints
	externalGrace  = 500 * time.Millisecond // between TERM and KILL
	externalDrain  = 100 * time.Millisecond // for output still in the pipe after the end
	externalFDs    = 4                      // descriptors one run needs
	externalPath   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

func newExternal(c conf.Check) (Checker, error) {
	x := &external{c: c, path: c.Command, args: strings.Fields(c.Args)}
	if c.Command == "" {
		return nil, errors.New("checktype external needs checkcommand, the program to run")
	}
	if !strings.Contains(c.Command, "/") {
		x.path = ""
		for _, dir := range filepath.SplitList(externalPath) {
			if executable(filepath.Join(dir, c.Command)) == nil {
				x.path = filepath.Join(dir, c.Command)
				break
			}
		}
		if x.path == "" {
			return nil, fmt.Errorf("checkcommand %s: not found in %s", c.Command, externalPath)
		}
	}
	if !filepath.IsAbs(x.path) {
		return nil, fmt.Errorf("checkcommand %s: write the whole path, from /", c.Command)
	}
	if err := executable(x.path); err != nil {
		return nil, fmt.Errorf("checkcommand %w", err)
	}
	return x, nil
}

func executable(path string) error {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		var pe *os.PathError
		errors.As(err, &pe)
		return fmt.Errorf("%s: %w", path, pe.Err)
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%s: not a file", path)
	case fi.Mode()&0o111 == 0:
		return fmt.Errorf("%s: not executable (chmod +x)", path)
	}
	return nil
}

func (x *external) Check(ctx context.Context) (string, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer out.Close()
	pidfd := -1
	cmd := exec.Command(x.path, x.args...)
	cmd.Stdout, cmd.Stderr = in, in // files: exec starts no goroutine that could be left waiting
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + externalPath, "HOME=/", "LANG=C", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd}
	err = cmd.Start()
	in.Close()
	if err != nil {
		return "", fmt.Errorf("checkcommand: %w", err)
	}
	ordinary(cmd.Process.Pid)
	head := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(out, externalOutput))
		_, _ = io.Copy(io.Discard, out)
		head <- b
	}()
	timedOut := x.await(ctx, cmd.Process.Pid, pidfd)
	// The zombie keeps the group's number from being used again until Wait.
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	err = cmd.Wait()
	_ = out.SetReadDeadline(time.Now().Add(externalDrain)) // a process that left the group may hold the pipe
	line := firstLine(<-head)
	if timedOut {
		return "", timeoutError{"checkcommand", x.c.Timeout}
	}
	var exit *exec.ExitError
	switch {
	case err == nil && line == "":
		return "exit status 0", nil
	case err == nil:
		return line, nil
	case errors.As(err, &exit) && line != "":
		return "", fmt.Errorf("%v: %s", exit, line)
	}
	return "", err
}

// ordinary takes from a program what is the daemon's alone: its place before
// everybody else at the processor, and its protection when memory runs out.
// Where that is refused the daemon has no such privileges to hand on.
func ordinary(pid int) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, 0)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0)
}

// await returns when the program has ended; at the end of ctx it is made to.
func (x *external) await(ctx context.Context, pid, pidfd int) (timedOut bool) {
	if pidfd < 0 { // a kernel before 5.4
		return awaitBlocking(ctx, pid)
	}
	_ = unix.SetNonblock(pidfd, true) // lets the poller wait: no thread for a sleeping check
	f := os.NewFile(uintptr(pidfd), "pidfd")
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil || f.SetReadDeadline(time.Time{}) != nil {
		return awaitBlocking(ctx, pid)
	}
	ended := func() bool { return rc.Read(func(uintptr) bool { return exited(pid, unix.WNOHANG) }) == nil }
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if ended() {
		return false
	}
	_ = unix.Kill(-pid, unix.SIGTERM)
	_ = f.SetReadDeadline(time.Now().Add(externalGrace))
	if !ended() {
		_ = unix.Kill(-pid, unix.SIGKILL)
		// Nothing but the end is waited for now, long for a program that the
		// kernel holds: cmd.Wait shares the pidfd, which no longer blocks, and
		// would leave a zombie if it came first.
		_ = f.SetReadDeadline(time.Time{})
		ended()
	}
	return true
}

func awaitBlocking(ctx context.Context, pid int) (timedOut bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		exited(pid, 0)
	}()
	select {
	case <-done:
		return false
	case <-ctx.Done():
	}
	_ = unix.Kill(-pid, unix.SIGTERM)
	select {
	case <-done:
	case <-time.After(externalGrace):
		_ = unix.Kill(-pid, unix.SIGKILL)
		<-done
	}
	return true
}

// exited says whether the process has ended; it stays a zombie.
func exited(pid, flags int) bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|flags, nil)
		if err == unix.EINTR {
			continue
		}
		return err != nil || info.Signo != 0
	}
}

func firstLine(b []byte) string {
	b = bytes.TrimLeft(b, " \t\r\n")
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	return words(strings.TrimSpace(string(b)))
}
