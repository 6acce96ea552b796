package checks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/program"
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
// Package program says how it is run.
type external struct {
	c    conf.Check
	path string
	args []string
	user program.User

	weighed bool // what the last Check that succeeded said
	weight  int
}

const (
	externalOutput = 4 << 10 // bytes kept of what it prints
	externalFDs    = 4       // descriptors one run needs
)

func newExternal(c conf.Check) (Checker, error) {
	if c.Command == "" {
		return nil, errors.New("checktype external needs checkcommand, the program to run")
	}
	user, err := program.FindUser(c.User)
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
	if err := runnable(x.path, c.Perl); err != nil {
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
			if err := program.Trusted(path, user.UID()); err != nil {
				return nil, fmt.Errorf("checkcommand %s: %w", c.Command, err)
			}
		}
	}
	return x, nil
}

// onPath finds a program by its name.
func onPath(name string) (string, error) {
	for _, dir := range filepath.SplitList(program.SearchPath) {
		if path := filepath.Join(dir, name); runnable(path, false) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: not found in %s", name, program.SearchPath)
}

// runnable says what keeps a file from being run; a script that another program
// reads need not be executable.
func runnable(path string, script bool) error {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return program.Bare(path, err)
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
	run := program.Command{Path: x.path, Args: x.args, Env: x.user.Env, Credential: x.user.Credential, Keep: externalOutput}
	output, err := run.Run(ctx)
	line := firstLine(output)
	var exit *exec.ExitError
	switch {
	case err == nil:
		x.weighed = false
		return cmp.Or(line, "exit status 0"), nil
	case !errors.As(err, &exit) && ctx.Err() != nil:
		return "", timeoutError{"checkcommand", x.c.Timeout}
	case exit == nil:
		return "", localError{fmt.Errorf("checkcommand: %w", err)}
	case x.c.Dynamic && exit.ExitCode() >= 2: // -1: a signal
		x.weighed, x.weight = true, exit.ExitCode()-2
		return cmp.Or(line, fmt.Sprintf("%v: weight %d", exit, x.weight)), nil
	case line != "":
		return "", fmt.Errorf("%v: %s", exit, line)
	}
	return "", exit
}

func firstLine(b []byte) string {
	b = bytes.TrimLeft(b, " \t\r\n")
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	return words(strings.TrimSpace(string(b)))
}
