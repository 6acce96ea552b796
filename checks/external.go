package checks

import (
	"bytes"
	"cmp"
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
// that it prints is the detail. With Perl (external-perl) the program is a file
// for perl, which runs it as a program of its own and not inside the daemon.
//
// With Dynamic the status means what keepalived's misc_dynamic makes of it: 0 is
// up with the configured weight, 1 is down, and 2 to 255 are up with the weight
// status - 2, each time the whole weight and no difference to the former one.
//
// A program that cannot be started is no verdict (Local), for it says nothing of
// the server: a director without it must not take every server down.
//
// It runs in its own process group. Whatever is left of that group when the
// program has ended is killed, so that checks cannot pile up processes.
type external struct {
	c    conf.Check
	path string
	args []string
	user runner

	weighed bool // what the last Check that succeeded said
	weight  int
}

const (
	externalOutput = 4 << 10                // bytes kept of what it prints
	externalGrace  = 500 * time.Millisecond // between TERM and KILL
	externalDrain  = 100 * time.Millisecond // for output still in the pipe after the end
	externalFDs    = 4                      // descriptors one run needs
	externalPath   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

func newExternal(c conf.Check) (Checker, error) {
	if c.Command == "" {
		return nil, errors.New("checktype external needs checkcommand, the program to run")
	}
	user, err := findRunner(c.User)
	if err != nil {
		return nil, err
	}
	x := &external{c: c, path: c.Command, args: strings.Fields(c.Args), user: user}
	if !strings.Contains(c.Command, "/") {
		if x.path, err = onPath(c.Command); err != nil {
			return nil, fmt.Errorf("checkcommand %w", err)
		}
	}
	if !filepath.IsAbs(x.path) {
		return nil, fmt.Errorf("checkcommand %s: write the whole path, from /", c.Command)
	}
	if err := program(x.path, c.Perl); err != nil {
		return nil, fmt.Errorf("checkcommand %w", err)
	}
	run := []string{x.path}
	if c.Perl {
		perl, err := onPath("perl")
		if err != nil {
			return nil, fmt.Errorf("checktype external-perl: %w; install perl", err)
		}
		run = append(run, perl)
		x.path, x.args = perl, append([]string{x.path}, x.args...)
	}
	if os.Geteuid() == 0 {
		for _, path := range run {
			if err := Trusted(path, user.uid()); err != nil {
				return nil, fmt.Errorf("checkcommand %s: %w", c.Command, err)
			}
		}
	}
	return x, nil
}

// onPath finds a program by its name.
func onPath(name string) (string, error) {
	for _, dir := range filepath.SplitList(externalPath) {
		if path := filepath.Join(dir, name); program(path, false) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: not found in %s", name, externalPath)
}

// program says what keeps a file from being run; a script that another program
// reads need not be executable.
func program(path string, script bool) error {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return bare(path, err)
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%s: not a file", path)
	case !script && fi.Mode()&0o111 == 0:
		return fmt.Errorf("%s: not executable (chmod +x)", path)
	}
	return nil
}

// Weight implements Weigher.
func (x *external) Weight() (int, bool) { return x.weight, x.weighed }

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
	cmd.Env = append([]string{"PATH=" + externalPath, "LANG=C", "LC_ALL=C"}, x.user.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd, Credential: x.user.credential}
	err = cmd.Start()
	in.Close()
	if err != nil {
		return "", localError{fmt.Errorf("checkcommand: %w", err)}
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
	x.weighed = false
	var exit *exec.ExitError
	if x.c.Dynamic && errors.As(err, &exit) && exit.ExitCode() >= 2 { // -1: a signal
		x.weighed, x.weight = true, exit.ExitCode()-2
		return cmp.Or(line, fmt.Sprintf("%v: weight %d", exit, x.weight)), nil
	}
	switch {
	case err == nil:
		return cmp.Or(line, "exit status 0"), nil
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
