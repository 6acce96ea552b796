package lab

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/uml"
)

// KernelOptions are for InLabKernel; the zero value will do.
type KernelOptions struct {
	// Limit is the longest time; 0 is two minutes.
	Limit time.Duration
	// MemoryMiB of the kernel; 0 is 1024.
	MemoryMiB int
	// Env are more variables, each NAME=value.
	Env []string
	// Pass are directories that the program may write to.
	Pass []string
	// Stdout and Stderr receive what it prints; nil discards.
	Stdout, Stderr io.Writer
}

// InLabKernel boots the lab kernel, runs a program in it and returns its exit
// status. No exit status fails the test. A whole test that needs IPVS rather
// carries the build tag labkernel: `make test-lab` then runs it in such a kernel.
func InLabKernel(t TB, opts KernelOptions, args ...string) int {
	t.Helper()
	if opts.Limit == 0 {
		opts.Limit = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), opts.Limit)
	defer cancel()
	root, err := rootDir()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	kernel, err := uml.FindKernel(ctx, root)
	if err != nil {
		t.Fatalf("%v", err)
	}
	l := &Lab{t: t}
	status, err := uml.Run(ctx, uml.Config{
		Kernel: kernel, Init: l.binary("KEEPBEAT_LABTOOL", "./test/lab/labtool"),
		Args: args, Env: append(os.Environ(), opts.Env...), Pass: opts.Pass, Memory: opts.MemoryMiB,
		Stdout: opts.Stdout, Stderr: opts.Stderr,
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return status
}
