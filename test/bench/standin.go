package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/ipvs"
)

// service is the virtual service of every run.
var service = netip.MustParseAddrPort("10.255.0.1:80")

// kernelLook is how often the kernel's table is read.
const kernelLook = 50 * time.Millisecond

// lookout is where a program's real servers are seen: the kernel's, or a stand-in
// that the program's changes are told to over a socket.
type lookout struct {
	seen   *watched
	kernel bool
	dir    string // of this run

	listener net.Listener
	end      context.CancelFunc
	done     sync.WaitGroup
	failure  error // of the one goroutine that looks at the kernel
}

// tableSocket names the socket of a stand-in to the programs.
const tableSocket = "KEEPBEAT_BENCH_TABLE"

func watchTable(ctx context.Context, seen *watched, kernel bool) (*lookout, error) {
	dir, err := os.MkdirTemp("", "keepbeat-bench-checks-")
	if err != nil {
		return nil, err
	}
	t := &lookout{seen: seen, kernel: kernel, dir: dir}
	ctx, t.end = context.WithCancel(ctx)
	if kernel {
		k := ipvs.NewKernel(ipvs.KernelConfig{CallTimeout: time.Minute})
		if err := k.Load(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("%w; run it in the lab kernel: bin/labtool kernel -- bin/bench checks -kernel", err), os.RemoveAll(dir))
		}
		t.done.Go(func() { t.failure = errors.Join(t.look(ctx, k), k.Close()) })
		return t, nil
	}
	if t.listener, err = net.Listen("unix", t.socket()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	t.done.Go(func() {
		for {
			c, err := t.listener.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { c.Close() })
			t.done.Go(func() {
				defer c.Close()
				t.hear(c)
			})
		}
	})
	return t, nil
}

func (t *lookout) socket() string { return filepath.Join(t.dir, "table") }

func (t *lookout) close() error {
	t.end()
	if t.listener != nil {
		t.listener.Close()
	}
	t.done.Wait()
	return errors.Join(t.failure, os.RemoveAll(t.dir))
}

// look reads the kernel's table again and again.
func (t *lookout) look(ctx context.Context, k *ipvs.Kernel) error {
	key := ipvs.Key{Protocol: conf.TCP, Address: service}
	for sleep(ctx, kernelLook) == nil {
		entries, err := k.List(ctx, []ipvs.Key{key})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		now := map[netip.AddrPort]int{}
		for _, e := range entries {
			for _, d := range e.Dests {
				now[d.Address] = int(d.Weight)
			}
		}
		t.seen.set(now)
	}
	return nil
}

// hear takes what a program does to the stand-in: "put ADDRESS WEIGHT",
// "delete ADDRESS WEIGHT", or the arguments of ipvsadm, which gets an answer.
func (t *lookout) hear(c net.Conn) {
	in := bufio.NewScanner(c)
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) > 0 && f[0] == "ipvsadm" {
			t.ipvsadm(c, f[1:])
			return
		}
		if len(f) != 3 {
			continue
		}
		a, err := netip.ParseAddrPort(f[1])
		weight, err2 := strconv.Atoi(f[2])
		switch {
		case err != nil || err2 != nil:
		case f[0] == "put":
			t.seen.put(a, weight)
		case f[0] == "delete":
			t.seen.remove(a)
		}
	}
}

// ipvsadm is as much of that program as ldirectord needs.
func (t *lookout) ipvsadm(out io.Writer, args []string) {
	value := func(flag string) string {
		if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	a, _ := netip.ParseAddrPort(value("-r"))
	switch {
	case slices.Contains(args, "-L"):
		t.list(out, slices.Contains(args, "--thresholds"))
	case slices.Contains(args, "-a"), slices.Contains(args, "-e"):
		weight, err := strconv.Atoi(value("-w"))
		if err != nil {
			weight = 1
		}
		t.seen.put(a, weight)
	case slices.Contains(args, "-d"):
		t.seen.remove(a)
	case slices.Contains(args, "-A"):
		t.seen.open()
	}
}

func (t *lookout) list(out io.Writer, thresholds bool) {
	w := bufio.NewWriter(out)
	defer w.Flush()
	fmt.Fprint(w, "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n")
	fmt.Fprint(w, "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n")
	open, servers := t.seen.now()
	if !open {
		return
	}
	fmt.Fprintf(w, "TCP  %v wlc\n", service)
	for a, weight := range servers {
		if thresholds {
			fmt.Fprintf(w, "  -> %-28v 0          0          0          0\n", a)
		} else {
			fmt.Fprintf(w, "  -> %-28v Masq    %-6d 0          0\n", a, weight)
		}
	}
}

//go:embed standin/preload.c
var preloadSource []byte

//go:embed standin/ipvsadm.c
var ipvsadmSource []byte

// compile makes a stand-in of C for a program that is not ours.
func (t *lookout) compile(name string, source []byte, flags ...string) (string, error) {
	path := filepath.Join(t.dir, name)
	if err := os.WriteFile(path+".c", source, 0o600); err != nil {
		return "", err
	}
	args := append(flags, "-O2", "-o", path, path+".c")
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("gcc: %w (test/lab/deps.sh race installs it): %s", err, out)
	}
	return path, nil
}
