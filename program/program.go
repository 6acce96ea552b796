// Package program runs what administrators write: checks, hooks, mail programs.
// Those of package fencing are run by itself: they keep the daemon's priority,
// have secrets to hide, and may be given up on.
package program

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SearchPath is PATH of each program.
const SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const (
	termGrace = 500 * time.Millisecond // between TERM and KILL
	drain     = 100 * time.Millisecond // for output still in the pipe after the end
)

// Command is a program that is run without a shell, in / and in a process group
// of its own, with a clean environment.
type Command struct {
	Path       string
	Args       []string
	Env        []string            // beside PATH, LANG and LC_ALL
	Stdin      []byte              // nil: nothing to read
	Credential *syscall.Credential // nil: the daemon's own user
	Keep       int                 // bytes of what it prints that are returned, from the beginning
}

// Run runs the program until ctx ends, and then ends it: TERM, and KILL half a
// second later. Whatever is left of its group then, or when it has ended by
// itself, is killed, so that programs cannot pile up processes; one that has
// left its group is not.
//
// The error is an *exec.ExitError, or wraps ctx's when the program was ended for
// it, or says why it could not be started.
func (c Command) Run(ctx context.Context) (output []byte, err error) {
	out, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	pidfd := -1
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Stdout, cmd.Stderr = theirs, theirs // files: exec starts no goroutine that could be left waiting
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + SearchPath, "LANG=C", "LC_ALL=C"}, c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd, Credential: c.Credential}
	if c.Stdin != nil {
		in, fed, err := feed(c.Stdin)
		if err != nil {
			theirs.Close()
			return nil, err
		}
		defer fed()
		cmd.Stdin = in
	}
	err = cmd.Start()
	theirs.Close()
	if in, ok := cmd.Stdin.(*os.File); ok {
		in.Close()
	}
	if err != nil {
		return nil, err
	}
	ordinary(cmd.Process.Pid)
	printed := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(out, int64(c.Keep)))
		_, _ = io.Copy(io.Discard, out)
		printed <- b
	}()
	late := await(ctx, cmd.Process.Pid, pidfd)
	// The zombie keeps the group's number from being used again until Wait.
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	err = cmd.Wait()
	_ = out.SetReadDeadline(time.Now().Add(drain)) // a process that left the group may hold the pipe
	output = <-printed
	if late {
		return output, fmt.Errorf("killed: %w", ctx.Err())
	}
	return output, err
}

// feed returns an end from which a program reads text, and what ends that.
func feed(text []byte) (in *os.File, end func(), err error) {
	in, ours, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = ours.Write(text) // what it does not read is its affair: its exit status counts
		ours.Close()
	}()
	return in, func() { ours.Close(); <-done }, nil
}

// ordinary takes from a program what is the daemon's alone: its place before
// everybody else at the processor, and its protection when memory runs out.
// Where that is refused the daemon has no such privileges to hand on.
func ordinary(pid int) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, 0)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0)
}
