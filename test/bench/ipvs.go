package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/ipvs"
)

// Programming is how long the kernel's table takes.
type Programming struct {
	System string `json:"system"`
	Shape  string `json:"shape"`
	Step   string `json:"step"`
	Ops    int    `json:"operations"`
	Budget Budget `json:"budget"`
	Met    bool   `json:"met"`
	Distribution
}

// inNamespace marks the process that has a table of its own.
const inNamespace = "KEEPBEAT_BENCH_NAMESPACE"

func programming(ctx context.Context, args []string) (any, error) {
	flags := flag.NewFlagSet("ipvs", flag.ContinueOnError)
	n := flags.Int("n", 5, "how often each step is taken")
	peers := flags.Bool("peers", false, "ipvsadm, keepalived and ldirectord too")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	if *n < 1 {
		return nil, fmt.Errorf("-n %d: want at least 1", *n)
	}
	if os.Getenv(inNamespace) == "" {
		return nil, inOwnNamespace(ctx)
	}
	// Without addresses of its own a namespace takes every address for a broadcast.
	if out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	kernel := ipvs.NewKernel(ipvs.KernelConfig{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), CallTimeout: 5 * time.Minute})
	defer kernel.Close()
	if err := kernel.Load(ctx); err != nil {
		return nil, fmt.Errorf("%w; run it in the lab kernel: bin/labtool kernel -- bin/bench ipvs", err)
	}
	var all []*Programming
	for _, shape := range shapes {
		some, err := programShape(ctx, kernel, shape[0], shape[1], *n)
		all = append(all, some...)
		if err != nil {
			return all, err
		}
	}
	if !*peers {
		return all, nil
	}
	some, err := programPeers(ctx, kernel, *n)
	return append(all, some...), err
}

// shapes are services and servers of each.
var shapes = [][2]int{{1, 1000}, {1000, 10}}

// inOwnNamespace runs this again with an IPVS table that is nobody else's.
func inOwnNamespace(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("in a namespace of its own: %w", err)
	}
	return nil
}

func tableOf(services, reals int, weight uint32) []ipvs.Entry {
	entries := make([]ipvs.Entry, services)
	for i := range entries {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
		e := ipvs.Entry{Service: ipvs.Service{Key: ipvs.Key{Protocol: conf.TCP, Address: a}, Scheduler: "wlc", Netmask: 32}}
		for j := range reals {
			r := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1 + byte(i>>8), byte(j >> 8), byte(j)}), 80)
			e.Dests = append(e.Dests, ipvs.Dest{Address: r, Method: ipvs.Gate, Weight: weight})
		}
		entries[i] = e
	}
	return entries
}

// programShape fills, reads, changes every weight of, and empties a table, n times.
func programShape(ctx context.Context, kernel *ipvs.Kernel, services, reals, n int) ([]*Programming, error) {
	shape := fmt.Sprintf("%dx%d", services, reals)
	one, two := tableOf(services, reals, 1), tableOf(services, reals, 2)
	var keys []ipvs.Key
	for _, e := range one {
		keys = append(keys, e.Service.Key)
	}
	steps := []struct {
		name   string
		wanted []ipvs.Entry
	}{{"program", one}, {"again, nothing differs", one}, {"update every weight", two}, {"clear", nil}}
	all := make([]*Programming, len(steps))
	times := make([][]time.Duration, len(steps))
	for i, s := range steps {
		all[i] = &Programming{System: "keepbeat", Shape: shape, Step: s.name}
	}
	// From nothing a table has to be there within a second.
	all[0].Budget = Budget{Max: limit(1000.0)}
	for range n {
		for i, s := range steps {
			began := time.Now()
			actual, err := kernel.List(ctx, keys)
			if err != nil {
				return nil, err
			}
			ops := ipvs.Diff(s.wanted, actual)
			refused, err := kernel.Apply(ctx, ops)
			if err != nil {
				return nil, err
			}
			times[i] = append(times[i], time.Since(began))
			all[i].Ops = len(ops)
			if len(refused) > 0 {
				return nil, errors.New("the kernel has refused some of it: " + fmt.Sprint(refused[0]))
			}
		}
	}
	for i := range all {
		all[i].Distribution = distribution(times[i])
		all[i].Met = all[i].Budget.met(all[i].Distribution)
		say("%s %s: %d operations, median %.1f ms, max %.1f ms", shape, all[i].Step, all[i].Ops, all[i].Median, all[i].Max)
	}
	return all, nil
}
