package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Distribution is what many measurements of one thing came to, in milliseconds.
type Distribution struct {
	Count  int     `json:"count"`
	Min    float64 `json:"min_ms"`
	Median float64 `json:"median_ms"`
	P95    float64 `json:"p95_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
}

func distribution(all []time.Duration) Distribution {
	if len(all) == 0 {
		return Distribution{}
	}
	s := slices.Clone(all)
	slices.Sort(s)
	// The smallest value that the share p does not exceed.
	at := func(p float64) float64 { return ms(s[max(0, int(p*float64(len(s))+0.999999)-1)]) }
	return Distribution{len(s), ms(s[0]), at(0.5), at(0.95), at(0.99), ms(s[len(s)-1])}
}

func ms(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// Budget is what DESIGN, section 5, allows; nil is no limit.
type Budget struct {
	Median *float64 `json:"median_ms,omitempty"`
	Max    *float64 `json:"max_ms,omitempty"`
	Moves  *int     `json:"moves,omitempty"`
	RSS    *float64 `json:"rss_mib,omitempty"`
	CPU    *float64 `json:"cpu_percent,omitempty"`
}

func (b Budget) met(d Distribution) bool {
	return d.Count > 0 && (b.Median == nil || d.Median <= *b.Median) && (b.Max == nil || d.Max <= *b.Max)
}

func limit[T int | float64](v T) *T { return &v }

// Machine is what else may explain a figure.
type Machine struct {
	Kernel string    `json:"kernel"`
	CPUs   int       `json:"cpus"`
	Load   []float64 `json:"load_average"` // 1, 5, 15 minutes
	Time   time.Time `json:"time"`
	Fsync  float64   `json:"fsync_ms"` // median of a small write and fsync in the temporary directory, where the lab's raft logs are
}

func machine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Time: time.Now().UTC().Truncate(time.Second)}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		for _, f := range strings.Fields(string(b))[:3] {
			v, _ := strconv.ParseFloat(f, 64)
			m.Load = append(m.Load, v)
		}
	}
	m.Fsync = fsync()
	return m
}

func fsync() float64 {
	f, err := os.CreateTemp("", "keepbeat-bench-")
	if err != nil {
		return 0
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var all []time.Duration
	for range 15 {
		began := time.Now()
		if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil || f.Sync() != nil {
			return 0
		}
		all = append(all, time.Since(began))
	}
	return distribution(all).Median
}

// processors is what all processors have done, in ticks.
type processors struct{ all, idle, stolen float64 }

func lookAtProcessors() (p processors) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return p
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line)[1:9] { // user nice system idle iowait irq softirq steal
		v, _ := strconv.ParseFloat(f, 64)
		p.all += v
		switch i {
		case 3, 4:
			p.idle += v
		case 7:
			p.stolen += v
		}
	}
	return p
}

// Busyness is what the machine did meanwhile, everything together, in percent of
// all processors: what a figure that has to do with lateness is worth.
type Busyness struct {
	Busy   float64 `json:"busy_percent"`
	Stolen float64 `json:"stolen_percent"` // by the hypervisor
}

func (p processors) since(before processors) Busyness {
	all := max(1, p.all-before.all)
	return Busyness{round(100 * (1 - (p.idle-before.idle)/all)), round(100 * (p.stolen - before.stolen) / all)}
}

// usage is a process's processor time and resident memory.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

const ticksPerSecond = 100 // USER_HZ, the same on every Linux

func usageOf(pid int) (usage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	// Fields are counted from the end of the name, which may hold anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 22 {
		return usage{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(f))
	}
	var sum, pages int64
	for _, s := range []string{f[11], f[12]} {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return usage{}, err
		}
		sum += v
	}
	if pages, err = strconv.ParseInt(f[21], 10, 64); err != nil {
		return usage{}, err
	}
	return usage{time.Duration(sum) * time.Second / ticksPerSecond, pages * int64(os.Getpagesize())}, nil
}

func round(v float64) float64 { return float64(int64(v*1000+0.5)) / 1000 }

// treeUsage is what a process and all that have come of it have used, those
// that have ended included.
type treeUsage struct {
	cpu       time.Duration
	rss, pss  int64 // bytes
	processes int   // that live
}

func usageOfTree(root int) (treeUsage, error) {
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return treeUsage{}, err
	}
	parent, fields := map[int]int{}, map[int][]string{}
	for _, e := range entries {
		b, err := os.ReadFile(e)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(e)))
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if err != nil || len(f) < 22 {
			return treeUsage{}, fmt.Errorf("%s: %s", e, b)
		}
		fields[pid] = f
		if parent[pid], err = strconv.Atoi(f[1]); err != nil {
			return treeUsage{}, err
		}
	}
	if fields[root] == nil {
		return treeUsage{}, fmt.Errorf("process %d has ended", root)
	}
	var u treeUsage
	for pid, f := range fields {
		of := pid
		for of > 1 && of != root {
			of = parent[of]
		}
		if of != root {
			continue
		}
		u.processes++
		own, exact := threadsTime(pid)
		u.cpu += own
		ticks := f[11:15] // utime, stime, and those of its ended children
		if exact {
			ticks = f[13:15]
		}
		for _, s := range ticks {
			v, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return treeUsage{}, err
			}
			u.cpu += time.Duration(v) * time.Second / ticksPerSecond
		}
		pages, err := strconv.ParseInt(f[21], 10, 64)
		if err != nil {
			return treeUsage{}, err
		}
		u.rss += pages * int64(os.Getpagesize())
		u.pss += pssOf(pid)
	}
	return u, nil
}

// threadsTime is the processor time of a process's threads in nanoseconds,
// where the kernel counts it: a hundred checks take little more than a tick.
func threadsTime(pid int) (sum time.Duration, exact bool) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, false
	}
	for _, t := range threads {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // it has ended meanwhile
		}
		var ns int64
		if _, err := fmt.Sscan(string(b), &ns); err != nil {
			return 0, false
		}
		sum += time.Duration(ns)
	}
	return sum, true
}

// pssOf is a process's memory with its part of what is shared, in bytes; 0 when
// it has ended.
func pssOf(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, found := strings.CutPrefix(line, "Pss:"); found {
			var kib int64
			fmt.Sscan(rest, &kib)
			return kib << 10
		}
	}
	return 0
}
