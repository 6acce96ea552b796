package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/checks"
)

const (
	keptOutput = 2 << 10                // bytes of what a program prints that are kept, for the log
	termGrace  = 500 * time.Millisecond // between TERM and KILL
	drainGrace = 100 * time.Millisecond // for output still in the pipe after the end
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// run runs a program without a shell, in a process group of its own, until ctx
// ends. Whatever is left of the group then, or when the program has ended, is
// killed. The output is its beginning, in one line. The error wraps ctx's when
// the program was killed for it. Root runs nothing that others could change
// (checks.Trusted): the error names the part of the path and the way out.
func run(ctx context.Context, path string, args, env []string, stdin []byte) (output string, err error) {
	if os.Geteuid() == 0 {
		err := checks.Trusted(path, 0)
		if errors.Is(err, unix.ENOENT) { // the whole path tells more than the part that is missing
			err = fmt.Errorf("%s: %w", path, unix.ENOENT)
		}
		if err != nil {
			return "", err
		}
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = theirs, theirs
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + searchPath, "HOME=/", "LANG=C", "LC_ALL=C"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	feeding := make(chan struct{})
	close(feeding)
	if stdin != nil {
		in, ours, err := os.Pipe()
		if err != nil {
			theirs.Close()
			return "", err
		}
		cmd.Stdin = in
		defer in.Close()
		feeding = make(chan struct{})
		defer func() { <-feeding }()
		defer ours.Close()
		go func() {
			defer close(feeding)
			_, _ = ours.Write(stdin) // what it does not read is its affair: its exit status counts
			ours.Close()
		}()
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return "", err
	}
	if in, ok := cmd.Stdin.(*os.File); ok {
		in.Close()
	}
	ordinary(cmd.Process.Pid)
	printed := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(out, keptOutput))
		_, _ = io.Copy(io.Discard, out)
		printed <- b
	}()
	late := await(ctx, cmd.Process.Pid)
	// The zombie keeps the group's number from being used again until Wait.
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	err = cmd.Wait()
	_ = out.SetReadDeadline(time.Now().Add(drainGrace)) // a process that left the group may hold the pipe
	output = oneLine(string(<-printed))
	if late {
		return output, fmt.Errorf("killed: %w", ctx.Err())
	}
	return output, err
}

// ordinary takes from a program what is the daemon's alone: its place before
// everybody else at the processor, and its protection when memory runs out.
// Where that is refused the daemon has no such privileges to hand on.
func ordinary(pid int) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, 0)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0)
}

// await returns when the process has ended and is a zombie; at the end of ctx
// it is made to, and that is late.
func await(ctx context.Context, pid int) (late bool) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var info unix.Siginfo
			if unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil) != unix.EINTR {
				return
			}
		}
	}()
	select {
	case <-ended:
		return false
	case <-ctx.Done():
	}
	_ = unix.Kill(-pid, unix.SIGTERM)
	select {
	case <-ended:
	case <-time.After(termGrace):
		_ = unix.Kill(-pid, unix.SIGKILL)
		<-ended
	}
	return true
}

// oneLine makes what a program printed fit for a line of the log.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
}
