// Package uml runs one program in the lab kernel: user-mode Linux, an ordinary
// program that is a complete kernel. The program sees this machine's files, read
// only, and an own /run, /tmp, /etc and /var that vanish with the kernel.
package uml

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what to run in the lab kernel.
type Config struct {
	// Kernel is the path of the kernel, as kernel.sh prints it.
	Kernel string
	// Init is the path of labtool, which is the first process.
	Init string
	// Args are the program, by absolute path or found in Env's PATH, and its arguments.
	Args []string
	// Env is its environment, as in os/exec.
	Env []string
	// Dir is where it starts; empty is /.
	Dir string
	// Pass lists directories of this machine that it may write to, and those
	// below /tmp and /run that it has to see beside Dir and the program's own.
	Pass []string
	// Memory in MiB; 0 is 1024. It is taken only as it is used.
	Memory int
	// Stdout and Stderr receive what it prints; nil discards.
	Stdout, Stderr io.Writer
}

// SpecVariable names the file with the specification to the first process: the
// kernel makes its unknown options that have a value the environment of that process.
const SpecVariable = "KEEPBEAT_UML_SPEC"

// insideVariable is set for programs in the lab kernel.
const insideVariable = "KEEPBEAT_LABKERNEL"

// Inside says whether this process runs in the lab kernel.
func Inside() bool { return os.Getenv(insideVariable) != "" }

// spec is what the first process is told, as JSON in a file.
type spec struct {
	Args   []string
	Env    []string
	Dir    string
	Pass   []string
	Status string
}

// status is what it leaves behind.
type status struct {
	// Exit status of the program; 128+n after signal n.
	Exit int
	// Error is why the program could not be run.
	Error string
}

// Run boots the kernel, runs the program, and returns its exit status. An error
// means that there is no exit status: the kernel did not boot or died, or ctx ended.
func Run(ctx context.Context, cfg Config) (int, error) {
	if len(cfg.Args) == 0 {
		return 0, errors.New("lab kernel: no program given")
	}
	if cfg.Memory == 0 {
		cfg.Memory = 1024
	}
	if cfg.Dir == "" {
		cfg.Dir = "/"
	}
	scratch, err := os.MkdirTemp("", "keepbeat-uml-")
	if err != nil {
		return 0, fmt.Errorf("lab kernel: %w", err)
	}
	defer os.RemoveAll(scratch)

	pass := append([]string{scratch}, cfg.Pass...)
	for _, dir := range []string{cfg.Dir, filepath.Dir(cfg.Args[0])} {
		if Hidden(dir) {
			pass = append(pass, dir)
		}
	}
	s := spec{Args: cfg.Args, Env: append(slices.Clone(cfg.Env), insideVariable+"=1"), Dir: cfg.Dir, Status: filepath.Join(scratch, "status")}
	for _, dir := range pass {
		// hostfs cannot be mounted on a symbolic link such as /bin.
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return 0, fmt.Errorf("lab kernel: %w", err)
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return 0, fmt.Errorf("lab kernel: %w", err)
		}
		s.Pass = append(s.Pass, dir)
	}
	specFile := filepath.Join(scratch, "spec")
	b, err := json.Marshal(s)
	if err != nil {
		return 0, fmt.Errorf("lab kernel: %w", err)
	}
	if err := os.WriteFile(specFile, b, 0o600); err != nil {
		return 0, fmt.Errorf("lab kernel: %w", err)
	}

	console, err := boot(ctx, cfg, scratch, specFile)
	if ctx.Err() != nil {
		return 0, fmt.Errorf("lab kernel: %s did not end: %w", cfg.Args[0], context.Cause(ctx))
	}
	b, readErr := os.ReadFile(s.Status)
	if readErr != nil {
		return 0, fmt.Errorf("lab kernel: ended without a result (%v); its last words:\n%s", err, console)
	}
	var st status
	if err := json.Unmarshal(b, &st); err != nil {
		return 0, fmt.Errorf("lab kernel: result %q: %w", b, err)
	}
	if st.Error != "" {
		return 0, fmt.Errorf("lab kernel: %s", st.Error)
	}
	return st.Exit, nil
}

// Hidden says whether the lab kernel has its own files in place of dir, so that
// dir has to be passed to be seen.
func Hidden(dir string) bool {
	for _, own := range []string{"/tmp/", "/run/", "/dev/"} {
		if strings.HasPrefix(dir+"/", own) {
			return true
		}
	}
	return false
}

// boot runs the kernel to its end and returns what it wrote on its console.
func boot(ctx context.Context, cfg Config, scratch, specFile string) (string, error) {
	cmd := exec.CommandContext(ctx, cfg.Kernel,
		"mem="+strconv.Itoa(cfg.Memory)+"M", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "panic=1",
		"uml_dir="+scratch, "umid=lab",
		// A console each for the kernel, standard output and standard error: nothing is mixed.
		"con=null", "con0=null,fd:3", "con1=null,fd:4", "con2=null,fd:5",
		"init="+cfg.Init, SpecVariable+"="+specFile, "uml-init")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=" + scratch, "HOME=" + scratch}

	var kernel tail
	var copying sync.WaitGroup
	stdout, stderr := cfg.Stdout, cfg.Stderr
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	// Stdout and Stderr may be the same.
	var one sync.Mutex
	for _, to := range []io.Writer{&kernel, &locked{&one, stdout}, &locked{&one, stderr}} {
		r, w, err := os.Pipe()
		if err != nil {
			return "", err
		}
		defer w.Close()
		copying.Go(func() {
			defer r.Close()
			_, _ = io.Copy(to, r) // a reader of ours that is gone is no fault of the program's
			_, _ = io.Copy(io.Discard, r)
		})
		cmd.ExtraFiles = append(cmd.ExtraFiles, w)
	}
	cmd.Stdout, cmd.Stderr = &kernel, &kernel
	// It ends with us, however we end. The signal is sent when the thread that started it
	// ends, so that thread is kept until then.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Start()
	for _, w := range cmd.ExtraFiles {
		w.Close()
	}
	if err == nil {
		err = cmd.Wait()
		// Helper processes of the kernel that it left behind hold the pipes open.
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	copying.Wait()
	return kernel.String(), err
}

// locked writes while nobody else writes under the same mutex.
type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// tail keeps the last 16 KiB.
type tail struct {
	mu sync.Mutex // guards b
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if extra := len(t.b) - 16<<10; extra > 0 {
		t.b = bytes.Clone(t.b[extra:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(string(t.b), "\r\n", "\n")
}
