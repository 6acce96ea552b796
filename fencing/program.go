package fencing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	trust "github.com/keepbeat/keepbeat/program"
)

const (
	keptOutput = 4 << 10                // bytes of the end of what a program prints, for the error
	termGrace  = 500 * time.Millisecond // between TERM and KILL
	killGrace  = 2 * time.Second        // after KILL, for one that the kernel holds; it is left behind then
	drain      = 100 * time.Millisecond // for output still in the pipe after the end
)

// program is one run of an agent, a plugin or a script, without a shell. It
// keeps the daemon's priority and its protection when memory runs out:
// fencing is needed most when a machine is at its worst.
type program struct {
	path    string
	args    []string
	env     []string // all of it
	stdin   []byte   // empty: nothing to read
	secrets []secret
	// answer is how many bytes of standard output are wanted as the answer; 0:
	// output of both kinds is for the error only.
	answer int
}

// exitError is a program that ended otherwise than by exit status 0.
type exitError struct {
	code   int // -1: by a signal
	how    string
	output string
}

func (e *exitError) Error() string {
	if e.output == "" {
		return e.how + ", and it printed nothing"
	}
	return e.how + ": " + e.output
}

// usable says what keeps a program from being run: as root, and so only if
// nobody else can change it.
func usable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	switch {
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s: not a file", path)
	case st.Mode()&0o111 == 0:
		return fmt.Errorf("%s: not executable; chmod +x %s", path, path)
	case st.Mode()&0o022 != 0:
		return fmt.Errorf("%s: group or others may write to it (mode %04o); chmod go-w %s", path, st.Mode().Perm(), path)
	case !ownedByUs(st):
		return fmt.Errorf("%s: belongs to somebody else; chown root %s", path, path)
	}
	if os.Geteuid() == 0 {
		return trust.Trusted(path, 0)
	}
	return nil
}

// run runs the program until ctx ends, and then kills it with all of its
// process group. It returns at most termGrace + killGrace + drain later,
// whatever the program does. The error is an exitError, or wraps ctx's, or
// says why it could not be started; secrets in it are blanked out.
func (p program) run(ctx context.Context) (answer []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := usable(p.path); err != nil {
		return nil, final{err}
	}
	forms := disguises(p.secrets)
	end := &lastBytes{size: keptOutput + longest(forms)}
	reply := &firstBytes{limit: p.answer}

	cmd := &exec.Cmd{Path: p.path, Args: append([]string{p.path}, p.args...), Env: p.env, Dir: "/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var ends pipes
	defer ends.close()
	if cmd.Stderr, err = ends.from(end); err != nil {
		return nil, err
	}
	cmd.Stdout = cmd.Stderr
	if p.answer > 0 {
		if cmd.Stdout, err = ends.from(reply); err != nil {
			return nil, err
		}
	}
	if len(p.stdin) > 0 {
		if cmd.Stdin, err = ends.to(p.stdin); err != nil {
			return nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.path, err)
	}
	ends.started()
	gone, late := await(ctx, cmd.Process.Pid)
	if gone {
		// Children first: the zombie keeps the group's number from being used again until Wait.
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		err = cmd.Wait()
	} else {
		go cmd.Wait() //nolint:errcheck // reaped when the kernel lets go of it
	}
	ends.finish()

	output := oneLine(end.text(forms))
	if output == "" && err != nil {
		output = oneLine(blank(reply.b, forms, 0))
	}
	switch {
	case late: // whatever status it had in the end: some exit with 0 on TERM
		if output != "" {
			output = "; it printed: " + output
		}
		return nil, fmt.Errorf("killed: %w%s", context.Cause(ctx), output)
	case err == nil && reply.over:
		return nil, fmt.Errorf("%s prints more than %d bytes", p.path, p.answer)
	case err == nil:
		return reply.b, nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, &exitError{exit.ExitCode(), exit.String(), output}
	}
	return nil, err
}

// CloseInherited sees to it that no descriptor which this process has inherited is
// handed on to a program: Go's own are closed on exec already. For the beginning of
// the process only: a daemon that is about to start itself anew unmarks what it takes along.
func CloseInherited() {
	const first = 3
	if unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	open, _ := os.ReadDir("/proc/self/fd") // before Linux 5.11
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
}

// await returns when the process has ended and is a zombie; at the end of ctx
// it is made to, and that is late. One that even KILL does not end is not gone.
func await(ctx context.Context, pid int) (gone, late bool) {
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
		return true, false
	case <-ctx.Done():
	}
	for _, last := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{unix.SIGTERM, termGrace}, {unix.SIGKILL, killGrace}} {
		_ = unix.Kill(-pid, last.signal)
		select {
		case <-ended:
			return true, true
		case <-time.After(last.wait):
		}
	}
	return false, true
}

// pipes are the ends that the daemon holds, each with a goroutine that ends
// with the pipe or with finish.
type pipes struct {
	ours, theirs []*os.File
	moving       []chan struct{}
}

// from returns an end for the program to write to.
func (p *pipes) from(w io.Writer) (*os.File, error) {
	r, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.ours, p.theirs = append(p.ours, r), append(p.theirs, theirs)
	p.move(func() { _, _ = io.Copy(w, r) })
	return theirs, nil
}

// to returns an end for the program to read from.
func (p *pipes) to(text []byte) (*os.File, error) {
	theirs, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.ours, p.theirs = append(p.ours, w), append(p.theirs, theirs)
	p.move(func() {
		_, _ = w.Write(text) // a program that does not read it all is its own affair
		w.Close()
	})
	return theirs, nil
}

func (p *pipes) move(f func()) {
	done := make(chan struct{})
	p.moving = append(p.moving, done)
	go func() { defer close(done); f() }()
}

// started lets go of the program's ends, so that its end is the pipe's.
func (p *pipes) started() {
	for _, f := range p.theirs {
		f.Close()
	}
}

// finish waits for the goroutines; a process that left the group may hold a pipe for ever.
func (p *pipes) finish() {
	for _, f := range p.ours {
		_ = f.SetDeadline(time.Now().Add(drain))
	}
	for _, done := range p.moving {
		<-done
	}
}

func (p *pipes) close() {
	p.started()
	for _, f := range p.ours {
		f.Close()
	}
	for _, done := range p.moving {
		<-done
	}
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes struct {
	limit int
	b     []byte
	over  bool
}

func (h *firstBytes) Write(b []byte) (int, error) {
	h.over = h.over || len(h.b)+len(b) > h.limit
	h.b = append(h.b, b[:min(len(b), h.limit-len(h.b))]...)
	return len(b), nil
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	size int
	b    []byte
	cut  bool
}

func (t *lastBytes) Write(b []byte) (int, error) {
	t.b = append(t.b, b...)
	if over := len(t.b) - t.size; over > 0 {
		t.b, t.cut = append(t.b[:0], t.b[over:]...), true
	}
	return len(b), nil
}

// text returns at most keptOutput bytes of the end, without secrets.
func (t *lastBytes) text(forms [][]byte) []byte {
	skip := 0
	if t.cut {
		skip = longest(forms)
	}
	b := blank(t.b, forms, skip)
	return b[max(0, len(b)-keptOutput):]
}

func longest(forms [][]byte) int {
	n := 0
	for _, f := range forms {
		n = max(n, len(f))
	}
	return n
}

// oneLine makes the output of a program fit for an error: its lines, without
// control characters, with "; " between them, at most keptOutput bytes.
func oneLine(b []byte) string {
	var lines []string
	for line := range strings.Lines(strings.ToValidUTF8(string(b), string(utf8.RuneError))) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return ' '
		}, line))
		if line != "" {
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "; ")
	return strings.ToValidUTF8(text[max(0, len(text)-keptOutput):], "")
}
