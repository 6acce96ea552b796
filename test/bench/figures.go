package main

import (
	"fmt"
	"os"
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
	return Distribution{len(s), ms(s[0]), at(0.5), at(0.95), ms(s[len(s)-1])}
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
