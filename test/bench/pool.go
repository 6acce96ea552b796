package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/ipvs"
)

const poolFile = "ldirectord.yaml"

// pool is what the daemon does for a pool, and nothing else of it: it reads the
// file, runs the checks and programs the table. It answers "stats" with the
// scheduler's counters and ends with its input.
func pool(ctx context.Context, args []string) (any, error) {
	flags := flag.NewFlagSet("pool", flag.ContinueOnError)
	dir := flags.String("dir", ".", "where "+poolFile+" is")
	kernel := flags.Bool("kernel", false, "with the kernel's table")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(*dir, poolFile))
	if err != nil {
		return nil, err
	}
	spec, _, err := conf.ParseSpec(conf.Files{
		Haresources: []byte("groups:\n  web:\n    resources:\n      - ldirectord: " + poolFile + "\n"),
		Pools:       map[string][]byte{poolFile: text},
	}, nil)
	if err != nil {
		return nil, err
	}
	var where ipvs.Table
	if *kernel {
		k := ipvs.NewKernel(ipvs.KernelConfig{CallTimeout: time.Minute})
		defer k.Close()
		where = k
	} else {
		t, err := newToldTable()
		if err != nil {
			return nil, err
		}
		where = t
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	// Formatting what is logged is part of the work.
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	scheduler := checks.NewScheduler(checks.Config{Logger: logger})
	running.Go(func() { _ = scheduler.Run(ctx) })
	maker := ipvs.NewMaker(ipvs.Config{Checks: scheduler, Table: where})
	r, err := maker.New(resources.Env{Node: "bench", Group: "web", Logger: logger}, *spec, spec.Groups[0].Resources[0])
	if err != nil {
		return nil, err
	}
	defer r.Close()
	running.Go(func() { r.(resources.Runner).Run(ctx) })
	if err := r.Start(ctx); err != nil {
		return nil, err
	}
	defer func() { _ = r.Stop(context.Background()) }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "stats" {
			if err := json.NewEncoder(os.Stdout).Encode(scheduler.Stats()); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// toldTable is a stand-in for the kernel's table that tells the benchmark of
// each real server that comes or goes, as the other programs' stand-ins do.
type toldTable struct {
	mu      sync.Mutex // guards entries
	entries map[ipvs.Key]*ipvs.Entry
	out     net.Conn
}

func newToldTable() (*toldTable, error) {
	c, err := net.Dial("unix", os.Getenv(tableSocket))
	if err != nil {
		return nil, err
	}
	return &toldTable{entries: map[ipvs.Key]*ipvs.Entry{}, out: c}, nil
}

func (t *toldTable) Ready() error               { return nil }
func (t *toldTable) Load(context.Context) error { return nil }

func (t *toldTable) List(_ context.Context, keys []ipvs.Key) ([]ipvs.Entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []ipvs.Entry
	for _, k := range keys {
		if e := t.entries[k]; e != nil {
			all = append(all, ipvs.Entry{Service: e.Service, Dests: slices.Clone(e.Dests)})
		}
	}
	slices.SortFunc(all, func(a, b ipvs.Entry) int { return cmp.Compare(a.Service.Key.String(), b.Service.Key.String()) })
	return all, nil
}

func (t *toldTable) Services(ctx context.Context, keys []ipvs.Key) ([]ipvs.Entry, error) {
	all, err := t.List(ctx, keys)
	for i := range all {
		all[i].Dests = nil
	}
	return all, err
}

var errUnknown = errors.New("the stand-in does not know this operation")

func (t *toldTable) Apply(_ context.Context, ops []ipvs.Op) ([]ipvs.Refused, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var said []byte
	for _, op := range ops {
		k := op.Service.Key
		e := t.entries[k]
		if e == nil && op.Verb != ipvs.AddService {
			return nil, fmt.Errorf("%v: no such service", op)
		}
		find := func() (int, bool) {
			return slices.BinarySearchFunc(e.Dests, op.Dest.Address, func(d ipvs.Dest, a netip.AddrPort) int { return d.Address.Compare(a) })
		}
		switch op.Verb {
		case ipvs.AddService:
			t.entries[k] = &ipvs.Entry{Service: op.Service}
		case ipvs.EditService:
			e.Service = op.Service
		case ipvs.DeleteService:
			for _, d := range e.Dests {
				said = fmt.Appendf(said, "delete %v 0\n", d.Address)
			}
			delete(t.entries, k)
		case ipvs.AddDest, ipvs.EditDest:
			if i, found := find(); found {
				e.Dests[i] = op.Dest
			} else {
				e.Dests = slices.Insert(e.Dests, i, op.Dest)
			}
			said = fmt.Appendf(said, "put %v %d\n", op.Dest.Address, op.Dest.Weight)
		case ipvs.DeleteDest:
			if i, found := find(); found {
				e.Dests = slices.Delete(e.Dests, i, i+1)
			}
			said = fmt.Appendf(said, "delete %v 0\n", op.Dest.Address)
		default:
			return nil, errUnknown
		}
	}
	_, err := t.out.Write(said)
	return nil, err
}
