package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/uml"
)

func umlInit(_ context.Context, args []string) error {
	if len(args) != 0 || os.Getenv(uml.SpecVariable) == "" {
		return errors.New("this is the first process of the lab kernel, and not for use by hand")
	}
	return uml.Init(os.Getenv(uml.SpecVariable))
}

// runner runs programs in a kernel with IPVS: this machine's, or the lab's.
type runner struct {
	always bool // the lab kernel even where the machine's has IPVS
	memory int
	pass   []string

	kernel string // empty: this machine's
}

func (r *runner) flags(flags *flag.FlagSet) {
	flags.BoolVar(&r.always, "uml", false, "the lab kernel even if this machine's has IPVS")
	flags.Func("mem", "memory of the lab kernel: 512M, 1G", func(s string) error {
		_, err := fmt.Sscanf(strings.ToUpper(s), "%dM", &r.memory)
		if err != nil {
			_, err = fmt.Sscanf(strings.ToUpper(s), "%dG", &r.memory)
			r.memory *= 1024
		}
		if err != nil || r.memory < 64 {
			return errors.New("want at least 64M, as 512M or 2G")
		}
		return nil
	})
	flags.Func("pass", "a directory that may be written to", func(s string) error {
		r.pass = append(r.pass, s)
		return nil
	})
}

// choose looks which kernel it will be, and says it.
func (r *runner) choose(ctx context.Context) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	// The whole module is to be seen, and the programs that tests are told of, also where they
	// lie below a directory that the lab kernel has its own of.
	see := []string{root}
	for _, variable := range []string{"KEEPBEAT_BIN", "KEEPBEAT_LABTOOL"} {
		if path := os.Getenv(variable); path != "" {
			see = append(see, filepath.Dir(path))
		}
	}
	for _, dir := range see {
		if uml.Hidden(dir) {
			r.pass = append(r.pass, dir)
		}
	}
	if !r.always && uml.HostHasIPVS() {
		fmt.Fprintln(os.Stderr, "lab: in this machine's kernel, which has IPVS")
		return nil
	}
	if r.kernel, err = uml.FindKernel(ctx, root); err != nil {
		return err
	}
	reason := "this machine's has no IPVS"
	if r.always {
		reason = "as asked for"
	}
	fmt.Fprintf(os.Stderr, "lab: in the lab kernel (%s): %s\n", r.kernel, reason)
	return nil
}

func (r *runner) run(ctx context.Context, dir string, args []string) (int, error) {
	env := os.Environ()
	if r.kernel == "" {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir, cmd.Env = dir, env
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 20 * time.Second
		err := cmd.Run()
		var exit *exec.ExitError
		if ctx.Err() == nil && errors.As(err, &exit) {
			if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				return 128 + int(ws.Signal()), nil
			}
			return exit.ExitCode(), nil
		}
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	return uml.Run(ctx, uml.Config{
		Kernel: r.kernel, Init: self, Args: args, Env: env, Dir: dir,
		Pass: r.pass, Memory: r.memory,
		Stdout: os.Stdout, Stderr: os.Stderr,
	})
}

// moduleRoot is the directory of the module that the current directory belongs to.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", errors.New("not inside the keepbeat module: run this from its directory")
	}
	return filepath.Dir(mod), nil
}

func inKernel(ctx context.Context, args []string) error {
	var r runner
	flags := flag.NewFlagSet("kernel", flag.ContinueOnError)
	r.flags(flags)
	timeout := flags.Duration("timeout", 10*time.Minute, "longest time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("which program?")
	}
	program, err := exec.LookPath(flags.Arg(0))
	if err != nil {
		return err
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if err := r.choose(ctx); err != nil {
		return err
	}
	status, err := r.run(ctx, dir, append([]string{program}, flags.Args()[1:]...))
	if err != nil {
		return err
	}
	if status != 0 {
		return exitError(status)
	}
	return nil
}

// kernelTest compiles the tests of each package with the tag labkernel, static,
// and runs them in a kernel with IPVS. All packages run, also after a failure.
func kernelTest(ctx context.Context, args []string) error {
	var r runner
	flags := flag.NewFlagSet("kerneltest", flag.ContinueOnError)
	r.flags(flags)
	timeout := flags.Duration("timeout", 10*time.Minute, "longest time for one package")
	pattern := flags.String("run", ".", "only tests that match")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("which packages? (a package with such tests has a test file with //go:build labkernel)")
	}
	if err := r.choose(ctx); err != nil {
		return err
	}
	binaries, err := os.MkdirTemp("", "keepbeat-kerneltest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(binaries)
	r.pass = append(r.pass, binaries)

	var failed []string
	for _, pkg := range flags.Args() {
		if err := r.testPackage(ctx, binaries, pkg, *pattern, *timeout); err != nil {
			fmt.Fprintf(os.Stderr, "--- FAIL: %s in the lab kernel: %v\n", pkg, err)
			failed = append(failed, pkg)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

func (r *runner) testPackage(ctx context.Context, binaries, pkg, pattern string, timeout time.Duration) error {
	list := exec.CommandContext(ctx, "go", "list", "-tags", "labkernel", "-f", "{{.Dir}}", pkg)
	list.Stderr = os.Stderr
	dir, err := list.Output()
	if err != nil {
		return fmt.Errorf("go list %s: %w", pkg, err)
	}
	where := strings.TrimSpace(string(dir))
	if where == "" || strings.Contains(where, "\n") {
		return fmt.Errorf("%s is not one package", pkg)
	}
	binary := filepath.Join(binaries, strings.ReplaceAll(strings.Trim(where, "/"), "/", "-")+".test")
	compile := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "labkernel", "-o", binary, ".")
	compile.Dir = where
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	compile.Stdout, compile.Stderr = os.Stdout, os.Stderr
	if err := compile.Run(); err != nil {
		return fmt.Errorf("compiling: %w", err)
	}
	if _, err := os.Stat(binary); err != nil {
		return errors.New("there are no tests in it")
	}

	fmt.Printf("=== %s in a kernel with IPVS\n", pkg)
	// The tests' own time-out comes first: it prints where they hang.
	ctx, cancel := context.WithTimeout(ctx, timeout+30*time.Second)
	defer cancel()
	status, err := r.run(ctx, where, []string{
		binary, "-test.v", "-test.count=1", "-test.run=" + pattern, "-test.timeout=" + timeout.String(),
	})
	if err != nil {
		return err
	}
	if status != 0 {
		return exitError(status)
	}
	return nil
}
