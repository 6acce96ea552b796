package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/resources/ipvs"
)

// tableSystem is another program that fills a table, from its start until the
// last server is there. What it needs before that is its own cost: its users wait for it too.
type tableSystem struct {
	name, needs string
	shapes      [][2]int
	most        int // runs at most: it takes minutes
	fill        func(ctx context.Context, dir string, entries []ipvs.Entry) (stop func() error, err error)
}

func tableSystems() []tableSystem {
	return []tableSystem{
		{"ipvsadm -R", "/sbin/ipvsadm", shapes, 100, restore},
		{"keepalived", "/usr/sbin/keepalived", shapes, 100, startKeepalived},
		{"ldirectord", "/usr/sbin/ldirectord", [][2]int{{1, 50}}, 1, startLdirectord},
	}
}

// programPeers fills tables with the programs that others use.
func programPeers(ctx context.Context, kernel *ipvs.Kernel, n int) ([]*Programming, error) {
	var all []*Programming
	for _, system := range tableSystems() {
		if _, err := os.Stat(system.needs); err != nil {
			return all, fmt.Errorf("%s is not installed: %w; PEERS=1 make bench-ipvs installs it", system.name, err)
		}
		for _, shape := range system.shapes {
			one, err := system.program(ctx, kernel, shape[0], shape[1], min(n, system.most))
			if err != nil {
				return all, fmt.Errorf("%s: %w", system.name, err)
			}
			all = append(all, one)
		}
	}
	return all, nil
}

func (s tableSystem) program(ctx context.Context, kernel *ipvs.Kernel, services, reals, n int) (*Programming, error) {
	p := &Programming{System: s.name, Shape: fmt.Sprintf("%dx%d", services, reals), Step: "program", Ops: services * (reals + 1), Met: true}
	entries := tableOf(services, reals, 1)
	var times []time.Duration
	for range n {
		took, err := s.once(ctx, kernel, entries)
		if err != nil {
			return nil, err
		}
		times = append(times, took)
	}
	p.Distribution = distribution(times)
	say("%s %s: %s: median %.1f ms, max %.1f ms", p.Shape, p.Step, s.name, p.Median, p.Max)
	return p, nil
}

func (s tableSystem) once(ctx context.Context, kernel *ipvs.Kernel, entries []ipvs.Entry) (took time.Duration, err error) {
	dir, err := os.MkdirTemp("", "keepbeat-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	stop, err := s.fill(ctx, dir, entries)
	if err == nil {
		err = full(ctx, kernel, entries, began)
		took = time.Since(began)
		err = errors.Join(err, stop())
	}
	// Some leave the table behind.
	out, failed := exec.CommandContext(ctx, "ipvsadm", "-C").CombinedOutput()
	if failed != nil {
		err = errors.Join(err, fmt.Errorf("ipvsadm -C: %w: %s", failed, out))
	}
	return took, err
}

// fullWait is how long a table may take.
const fullWait = 10 * time.Minute

// full waits until the last service has its servers. Looking at one service
// costs the kernel next to nothing.
func full(ctx context.Context, kernel *ipvs.Kernel, entries []ipvs.Entry, began time.Time) error {
	last := entries[len(entries)-1]
	for {
		got, err := kernel.List(ctx, []ipvs.Key{last.Service.Key})
		switch {
		case err != nil:
			return err
		case len(got) == 1 && len(got[0].Dests) == len(last.Dests):
			return nil
		case time.Since(began) > fullWait:
			return fmt.Errorf("the table is not there after %v: %s", fullWait, ipvs.Text(got))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func restore(ctx context.Context, _ string, entries []ipvs.Entry) (func() error, error) {
	cmd := exec.CommandContext(ctx, "ipvsadm", "-R")
	cmd.Stdin = strings.NewReader(ipvs.Text(entries))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ipvsadm -R: %w: %s", err, out)
	}
	return func() error { return nil }, nil
}

// daemon starts a program and returns what ends it, and its children with it.
func daemon(cmd *exec.Cmd, dir string) (func() error, error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		// Killed: what a clean stop takes is not what is measured, and -C follows.
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
			return err
		}
		_ = cmd.Wait() // killed, as it says
		return nil
	}, nil
}

// startKeepalived: servers without a check are alive, so the table is all it does.
func startKeepalived(_ context.Context, dir string, entries []ipvs.Entry) (func() error, error) {
	var b strings.Builder
	b.WriteString("global_defs {\n\trouter_id bench\n}\n")
	for _, e := range entries {
		a := e.Service.Address
		fmt.Fprintf(&b, "virtual_server %v %d {\n\tlvs_sched wlc\n\tlvs_method DR\n\tprotocol TCP\n", a.Addr(), a.Port())
		for _, d := range e.Dests {
			fmt.Fprintf(&b, "\treal_server %v %d {\n\t\tweight 1\n\t}\n", d.Address.Addr(), d.Address.Port())
		}
		b.WriteString("}\n")
	}
	path := filepath.Join(dir, "keepalived.conf")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return nil, err
	}
	return daemon(exec.Command("/usr/sbin/keepalived", "--dont-fork", "--log-console", "--check", "--use-file", path,
		"--pid", filepath.Join(dir, "pid"), "--checkers_pid", filepath.Join(dir, "checkers.pid")), dir)
}

// startLdirectord: checktype on, so that no check comes in between.
func startLdirectord(_ context.Context, dir string, entries []ipvs.Entry) (func() error, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "checktimeout=3\nnegotiatetimeout=3\ncheckinterval=600\nautoreload=no\nquiescent=no\nsupervised=yes\nlogfile=\"%s/ldirectord.log\"\n", dir)
	for _, e := range entries {
		fmt.Fprintf(&b, "virtual=%v\n", e.Service.Address)
		for _, d := range e.Dests {
			fmt.Fprintf(&b, "\treal=%v gate\n", d.Address)
		}
		b.WriteString("\tservice=none\n\tscheduler=wlc\n\tprotocol=tcp\n\tchecktype=on\n")
	}
	path := filepath.Join(dir, "ldirectord.cf")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return nil, err
	}
	// It keeps a file in /run, which it gets to itself.
	cmd := exec.Command("sh", "-c", `mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/lock/subsys && exec /usr/sbin/ldirectord "$0" start`, path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	return daemon(cmd, dir)
}
