package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/checks"
)

// checkInterval and checkTimeout are of every check; one failure is enough.
const (
	checkInterval = time.Second
	checkTimeout  = 3 * time.Second
)

// Checks is what checking some number of real servers costs a program, and how
// fast its table follows them.
type Checks struct {
	System  string `json:"system"`
	Servers int    `json:"servers"`
	Failure string `json:"failure,omitempty"` // why something could not be measured
	// Start is from the start of the program until all servers are in the table.
	// keepalived puts them there unchecked, keepbeat when their first check has succeeded.
	Start     float64      `json:"start_to_full_table_ms,omitempty"`
	Round     float64      `json:"start_to_first_round_ms,omitempty"` // until as many checks were answered as there are servers
	Seconds   float64      `json:"seconds"`                           // watched
	Due       uint64       `json:"due"`
	Done      uint64       `json:"done"` // as the servers count them
	CPU1000   float64      `json:"cpu_s_per_1000_checks"`
	CPU       float64      `json:"cpu_percent"`
	RSS       float64      `json:"rss_mib"` // of all its processes; what they share counts for each
	PSS       float64      `json:"pss_mib"` // and here once
	Processes int          `json:"processes"`
	Failed    int          `json:"failed"`               // servers that were told to answer 500
	Removed   Distribution `json:"fail_to_out_of_table"` // from the telling
	False     int          `json:"removed_without_failing"`
	Lateness  *Lateness    `json:"lateness,omitempty"` // as the program counts it: keepbeat only
	Budget    *Budget      `json:"budget,omitempty"`   // keepbeat only: checkinterval x fall + checktimeout
	FailsMet  *bool        `json:"fail_to_out_met,omitempty"`
	OneCore   bool         `json:"one_core"` // it uses no more than one
}

// Lateness is of the start of runs behind their time.
type Lateness struct {
	Missed uint64  `json:"missed"` // left out because the process was starved
	P50    float64 `json:"p50_ms_below"`
	P99    float64 `json:"p99_ms_below"`
	Max    float64 `json:"max_ms_below"`
	OnTime bool    `json:"on_time"` // nothing late by more than a tenth of the interval
}

// checkRun is what one measurement is made with.
type checkRun struct {
	servers  int
	watch    time.Duration
	patience time.Duration // for the table to be full
	kernel   bool          // the table is the kernel's
}

func checking(ctx context.Context, args []string) (any, error) {
	flags := flag.NewFlagSet("checks", flag.ContinueOnError)
	list := flags.String("servers", "10,100,1000,5000", "numbers of real servers, with commas between")
	run := checkRun{}
	flags.DurationVar(&run.watch, "for", 10*time.Second, "how long each number is watched")
	flags.DurationVar(&run.patience, "patience", 6*time.Minute, "how long a program may take to fill its table")
	peers := flags.Bool("peers", false, "keepalived and ldirectord too")
	words := flags.String("system", "all", "which of keepbeat, keepalived, ldirectord")
	flags.BoolVar(&run.kernel, "kernel", false, "with the kernel's table, in a namespace of its own; without it a stand-in, the same for all")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	if run.kernel && os.Getenv(inNamespace) == "" {
		return nil, inOwnNamespace(ctx)
	}
	if run.kernel {
		if out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip link set lo up: %w: %s", err, out)
		}
	}
	systems := []checkSystem{keepbeatChecks}
	if *peers {
		systems = append(systems, keepalivedChecks, ldirectordChecks)
	}
	var names []string
	for _, s := range systems {
		names = append(names, s.name)
	}
	chosen, err := choose("system", *words, names)
	if err != nil {
		return nil, err
	}
	all, idle := []*Checks{}, map[string]any{}
	for _, s := range systems {
		if !slices.Contains(chosen, s.name) {
			continue
		}
		i, err := s.idle(ctx, run)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if idle[s.name] = i; err != nil {
			idle[s.name] = map[string]string{"failure": err.Error()}
		}
	}
	for word := range strings.SplitSeq(*list, ",") {
		if run.servers, err = strconv.Atoi(word); err != nil || run.servers < 1 || run.servers > 50000 {
			return all, fmt.Errorf("-servers %q: want numbers from 1 to 50000", word)
		}
		for _, s := range systems {
			if !slices.Contains(chosen, s.name) {
				continue
			}
			c, err := s.measure(ctx, run)
			if ctx.Err() != nil {
				return all, context.Cause(ctx)
			}
			if err != nil {
				c.Failure = err.Error()
				say("%s, %d servers: %v", s.name, run.servers, err)
				all = append(all, c)
				continue
			}
			say("%s, %d servers: full after %.0f ms, %d of %d checks, %.3f CPU s per 1000, %.1f MiB, out of the table in %.0f ms (median), %.0f ms (p99)",
				s.name, run.servers, c.Start, c.Done, c.Due, c.CPU1000, c.PSS, c.Removed.Median, c.Removed.P99)
			all = append(all, c)
		}
	}
	return map[string]any{
		"table": map[bool]string{true: "the kernel's, looked at every " + kernelLook.String(), false: "a stand-in, for every program"}[run.kernel],
		"keepbeat": "the scheduler of checks and the resource ldirectord in a process of their own, reading ldirectord.yaml; " +
			"without cluster, lease and guard",
		"idle": idle,
		"runs": all,
	}, nil
}

// measure takes a program through one run. What was measured before an error
// is returned with it.
func (s checkSystem) measure(ctx context.Context, run checkRun) (c *Checks, err error) {
	c = &Checks{System: s.name, Servers: run.servers}
	servers, err := startServers()
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, servers.stop()) }()
	seen := newWatched(run.servers)
	table, err := watchTable(ctx, seen, run.kernel)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, table.close()) }()

	began := time.Now()
	p, err := s.start(table, run.servers, servers.port, checkInterval)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	for c.Start == 0 || c.Round == 0 {
		full, n := seen.filled()
		if c.Start == 0 && !full.IsZero() {
			c.Start = ms(full.Sub(began))
		}
		asked, err := servers.answered()
		if c.Round == 0 && asked >= run.servers {
			c.Round = ms(time.Since(began))
		}
		if time.Since(began) > run.patience {
			return c, fmt.Errorf("after %v %d of %d servers were in the table, and %d checks answered", run.patience, n, run.servers, asked)
		}
		if err := errors.Join(err, sleep(ctx, 10*time.Millisecond), p.alive()); err != nil {
			return c, err
		}
	}
	// What is done once at the start does not count: the first round is closer
	// together than the others.
	if err := sleep(ctx, 3*checkInterval); err != nil {
		return c, err
	}
	if err := s.steady(ctx, c, run, p, servers); err != nil {
		return c, err
	}

	c.Failed = min(run.servers, max(3, run.servers/20))
	told := time.Now()
	if err := servers.fail(c.Failed); err != nil {
		return c, err
	}
	var removed []time.Duration
	for end := told.Add(4*(checkInterval+checkTimeout) + 2*time.Duration(run.servers)*time.Millisecond*10); len(removed) < c.Failed && time.Now().Before(end); {
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return c, err
		}
		removed, c.False = seen.removed(told, servers.port, c.Failed)
	}
	c.Removed = distribution(removed)
	if c.OneCore = c.CPU <= 100; s.ours {
		c.Budget = &Budget{Max: limit(ms(checkInterval + checkTimeout))}
		met := c.Budget.met(c.Removed)
		c.FailsMet = &met
	}
	if len(removed) < c.Failed {
		return c, fmt.Errorf("%d of %d failed servers have left the table", len(removed), c.Failed)
	}
	return c, nil
}

// steady watches a program that has nothing to do but to check.
func (s checkSystem) steady(ctx context.Context, c *Checks, run checkRun, p *checkProcess, servers *servers) error {
	look := func() (u treeUsage, n int, st checks.Stats, at time.Time, err error) {
		if n, err = servers.answered(); err != nil {
			return
		}
		at = time.Now()
		if u, err = usageOfTree(p.cmd.Process.Pid); err == nil && s.ours {
			st, err = p.stats()
		}
		return
	}
	before, nBefore, stBefore, began, err := look()
	if err != nil {
		return err
	}
	if err := sleep(ctx, run.watch); err != nil {
		return err
	}
	after, n, st, at, err := look()
	if err != nil {
		return err
	}
	took, cpu := at.Sub(began), (after.cpu - before.cpu).Seconds()
	c.Seconds, c.Done = round(took.Seconds()), uint64(n-nBefore)
	c.Due = uint64(float64(run.servers)*took.Seconds()/checkInterval.Seconds() + 0.5)
	c.CPU1000, c.CPU = round(cpu*1000/float64(max(1, c.Done))), round(100*cpu/took.Seconds())
	c.RSS, c.PSS, c.Processes = round(float64(after.rss)/(1<<20)), round(float64(after.pss)/(1<<20)), after.processes
	if s.ours {
		l := &Lateness{Missed: st.Missed - stBefore.Missed, P50: late(stBefore, st, 0.5), P99: late(stBefore, st, 0.99), Max: late(stBefore, st, 1)}
		// A tenth of the interval, 100 ms, falls into a class that ends at 131.
		tenth := checkInterval / 10
		l.OnTime = l.Missed == 0 && (l.Max <= ms(tenth) || st.MaxLate <= tenth)
		c.Lateness = l
	}
	return nil
}

// stats asks a keepbeat process for its counters.
func (p *checkProcess) stats() (st checks.Stats, err error) {
	if _, err := fmt.Fprintln(p.in, "stats"); err != nil {
		return st, err
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(line, &st)
}

// late is below how much the share p of the runs between two countings started late.
func late(before, after checks.Stats, p float64) float64 {
	total := after.Runs - before.Runs
	var sum uint64
	for i := range after.Late {
		if sum += after.Late[i] - before.Late[i]; float64(sum) >= p*float64(total) {
			return round((64 * time.Microsecond << i).Seconds() * 1000)
		}
	}
	return -1
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
