package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// tooLong is how long one run may take in real time: in a bubble a goroutine
// that waits for a mutex stops virtual time.
const tooLong = time.Minute

// play runs a story in a world on virtual time.
func play(t *testing.T, cfg Config, story func(w *world)) *world {
	t.Helper()
	if cfg.Dir == "" {
		dir, err := os.MkdirTemp("", "keepbeat-sim-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		cfg.Dir = dir
	}
	stuck := time.AfterFunc(tooLong, func() { debug.SetTraceback("all"); panic(fmt.Sprintf("seed %d: virtual time stands still", cfg.Seed)) })
	defer stuck.Stop()
	var w *world
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(cfg)
		story(w)
		w.end()
	})
	return w
}

// playSchedule plays a schedule.
func playSchedule(t *testing.T, s schedule) *world {
	return play(t, s.Config, func(w *world) {
		r := newRun(w, s)
		r.play()
		r.drain()
	})
}

func envInt(t *testing.T, name string, otherwise uint64) uint64 {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestShort plays KEEPBEAT_SIM_RUNS schedules, the first of seed
// KEEPBEAT_SIM_SEED. KEEPBEAT_SIM_LOG=1 keeps the daemons' logs in the transcripts.
func TestShort(t *testing.T) {
	runs, seed := envInt(t, "KEEPBEAT_SIM_RUNS", 50), envInt(t, "KEEPBEAT_SIM_SEED", 0)
	out := os.Getenv("KEEPBEAT_SIM_OUT")
	if out == "" {
		out = filepath.Join(os.TempDir(), "keepbeat-sim")
	}
	var next, bad, moves, events atomic.Uint64
	begin := time.Now()
	t.Run("schedules", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				for {
					n := next.Add(1)
					if n > runs || bad.Load() > 0 && os.Getenv(inside) != "" {
						return
					}
					s := newSchedule(seed+n-1, os.Getenv("KEEPBEAT_SIM_STORY"))
					s.Log = os.Getenv("KEEPBEAT_SIM_LOG") != ""
					s.GuardIgnored = os.Getenv("KEEPBEAT_SIM_GUARD") == "ignored"
					w := playSchedule(t, s)
					moves.Add(uint64(w.moves))
					events.Add(uint64(len(s.Events)))
					if os.Getenv("KEEPBEAT_SIM_SHOW") != "" {
						t.Logf("%s", w.transcript.Bytes())
					}
					if len(w.violations) > 0 {
						bad.Add(1)
						report(t, s, w, out)
					}
					if step := max(runs/20, 25); n%step == 0 {
						fmt.Printf("sim: %d of %d schedules, %d faults, %d violated, %v\n", n, runs, events.Load(), bad.Load(), time.Since(begin).Round(time.Second))
					}
				}
			})
		}
	})
	fmt.Printf("sim: %d schedules from seed %d: %d faults, addresses began to answer %d times, %d schedules violated, %v\n",
		runs, seed, events.Load(), moves.Load(), bad.Load(), time.Since(begin).Round(time.Millisecond))
}

// report says what was violated and writes the transcript to a file.
func report(t *testing.T, s schedule, w *world, out string) {
	t.Helper()
	path := filepath.Join(out, fmt.Sprintf("seed-%d.txt", s.Seed))
	err := os.MkdirAll(out, 0o755)
	if err == nil {
		err = os.WriteFile(path, w.transcript.Bytes(), 0o644)
	}
	if err == nil {
		err = writeRecording(strings.TrimSuffix(path, ".txt")+".rec", w)
	}
	if err != nil {
		path = err.Error()
	}
	some := w.violations[:min(len(w.violations), 5)]
	t.Errorf("VIOLATION of seed %d: %s\n%v\ntranscript and recording (.rec): %s\nagain: make sim RUNS=1 SEED=%d", s.Seed, strings.Join(some, "\n  "), s, path, s.Seed)
}

func writeRecording(path string, w *world) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(writeRecordings(f, w.recordings), f.Close())
}
