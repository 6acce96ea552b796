package fault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

// What the Makefile says in the environment.
const (
	timeVariable    = "KEEPBEAT_FAULT_TIME"    // how long to draw; empty: each kind once
	onlyVariable    = "KEEPBEAT_FAULT"         // regular expression of kinds
	seedVariable    = "KEEPBEAT_FAULT_SEED"    // empty or 0: another one each time, and 1 for each kind once
	shapeVariable   = "KEEPBEAT_FAULT_CLUSTER" // trio, pair; empty: both
	mountedVariable = "KEEPBEAT_FAULT_MOUNTS"  // set by this program when its mounts are its own
	insideVariable  = "KEEPBEAT_FAULT_INSIDE"  // set by this program for the one in the lab kernel
)

func TestMain(m *testing.M) {
	Help()
	if os.Getenv(mountedVariable) == "" && os.Geteuid() == 0 && !uml.Inside() {
		if err := ownMounts(); err != nil {
			fmt.Println("own mounts:", err)
			os.Exit(1)
		}
	}
	status := m.Run()
	if text := firstWrong(); text != "" {
		// Last, where even a reader finds it who is shown nothing but the end.
		if b, err := json.Marshal(text); uml.Inside() && err == nil {
			fmt.Printf("\n%s%s\n", wrongPrefix, b)
		} else {
			fmt.Printf("\nwhat went wrong first:\n%s\n", text)
		}
	}
	os.Exit(status)
}

var (
	wrongMu    sync.Mutex
	wrongFirst string
)

func keepWrong(text string) {
	const most = 3000
	if len(text) > most {
		text = text[:most] + " ..."
	}
	wrongMu.Lock()
	defer wrongMu.Unlock()
	if wrongFirst == "" {
		wrongFirst = text
	}
}

func firstWrong() string {
	wrongMu.Lock()
	defer wrongMu.Unlock()
	return wrongFirst
}

// keeper is a test whose first fault is printed again at the end.
type keeper struct{ *testing.T }

func (k keeper) Errorf(format string, args ...any) {
	k.Helper()
	keepWrong(fmt.Sprintf(format, args...))
	k.T.Errorf(format, args...)
}

func (k keeper) Fatalf(format string, args ...any) {
	k.Helper()
	keepWrong(fmt.Sprintf(format, args...))
	k.T.Fatalf(format, args...)
}

// ownMounts executes this program again with mounts of its own: what a test mounts
// ends with it, however it ends.
func ownMounts() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return unix.Exec(self, os.Args, append(os.Environ(), mountedVariable+"=1"))
}

// settings are what the environment asks for.
type settings struct {
	draw   time.Duration // 0: each kind once
	only   *regexp.Regexp
	seed   uint64
	shapes []string // of clusters
}

func read(t *testing.T) settings {
	t.Helper()
	s := settings{shapes: []string{"trio", "pair"}, seed: 1}
	var err error
	if v := os.Getenv(timeVariable); v != "" {
		if s.draw, err = time.ParseDuration(v); err != nil {
			t.Fatalf("%s: %v", timeVariable, err)
		}
	}
	if v := os.Getenv(onlyVariable); v != "" && v != "." {
		if s.only, err = regexp.Compile(v); err != nil {
			t.Fatalf("%s: %v", onlyVariable, err)
		}
	}
	if s.draw > 0 {
		s.seed = uint64(time.Now().UnixNano() % 1_000_000)
	}
	if v := os.Getenv(seedVariable); v != "" && v != "0" {
		if s.seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	if v := os.Getenv(shapeVariable); v != "" {
		s.shapes = []string{v}
	}
	return s
}

// shapeOf is the kind of cluster that a seed has when faults are drawn: one after the
// other, also among every fourth, which are those in the lab kernel.
func (s settings) shapeOf(seed uint64) string { return s.shapes[(seed+seed/4)%uint64(len(s.shapes))] }

func TestFaults(t *testing.T) {
	if os.Getenv(insideVariable) != "" {
		return // the lab kernel has its own, below
	}
	s := read(t)
	var table Table
	t.Cleanup(func() {
		fmt.Printf("\n%s\n%s\n", table.String(), table.JSON())
		if table.Total().Times == 0 {
			t.Errorf("nothing was injected: no kind of fault matches %q", s.only)
		}
	})
	session := Session{Seed: s.seed, Only: s.only, Temp: t.TempDir(), Report: table.Add}
	each := func(name string, f func(TB)) { t.Run(name, func(t *testing.T) { f(keeper{t}) }) }
	t.Logf("seed %d", s.seed)
	if s.draw == 0 {
		session.Once = true
		t.Run("on this machine", func(t *testing.T) {
			t.Parallel()
			for _, session.Shape = range s.shapes {
				session.Run(func(name string, f func(TB)) { t.Run(name, func(t *testing.T) { f(keeper{t}) }) })
			}
		})
		t.Run("in the lab kernel", func(t *testing.T) {
			t.Parallel()
			inLabKernel(t, s, s.shapes[0], s.seed, time.Time{}, table.Add) // it is slow: once
		})
		return
	}
	until := time.Now().Add(s.draw)
	for n := uint64(0); time.Now().Before(until) && !t.Failed(); n++ {
		session.Seed, session.Until, session.Rounds = s.seed+n, until, 10
		session.Shape = s.shapeOf(session.Seed)
		if n%4 == 3 {
			inLabKernel(t, s, session.Shape, session.Seed, until, table.Add)
			continue
		}
		session.Run(each)
	}
}

// These begin the lines by which the program in the lab kernel reports.
const (
	rowPrefix   = "fault-row "
	wrongPrefix = "fault-wrong "
)

// inLabKernel runs this program again in the lab kernel, for a session there.
func inLabKernel(t *testing.T, s settings, shape string, seed uint64, until time.Time, report func(Row)) {
	t.Helper()
	if len(kinds(true, s.draw == 0, s.only)) == 0 {
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A program in the lab kernel cannot use this one's.
	limit := 15 * time.Minute
	var pass []string
	for _, program := range []string{os.Getenv("KEEPBEAT_BIN"), os.Getenv("KEEPBEAT_LABTOOL")} {
		if program != "" && uml.Hidden(filepath.Dir(program)) {
			pass = append(pass, filepath.Dir(program))
		}
	}
	args := []string{self, "-test.v", "-test.run=^TestInTheLabKernel$", "-test.timeout=" + limit.String()}
	env := []string{insideVariable + "=1", seedVariable + "=" + strconv.FormatUint(seed, 10), shapeVariable + "=" + shape}
	if !until.IsZero() {
		env = append(env, timeVariable+"="+time.Until(until).String())
	}
	var out bytes.Buffer
	status := lab.InLabKernel(keeper{t}, lab.KernelOptions{Limit: limit + 30*time.Second, Env: env, Pass: pass, Stdout: &out, Stderr: io.Discard}, args...)
	for line := range strings.Lines(out.String()) {
		if text, ok := strings.CutPrefix(line, rowPrefix); ok {
			var r Row
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			report(r)
		}
		if text, ok := strings.CutPrefix(line, wrongPrefix); ok {
			var wrong string
			if err := json.Unmarshal([]byte(text), &wrong); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			keepWrong("in the lab kernel: " + wrong)
		}
	}
	t.Logf("in the lab kernel:\n%s", out.String())
	if status != 0 {
		tail := out.String()
		keeper{t}.Errorf("in the lab kernel: exit status %d, after\n%s", status, tail[max(0, len(tail)-2000):])
	}
}

// TestInTheLabKernel is what TestFaults starts there.
func TestInTheLabKernel(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		return // TestFaults runs it where it belongs
	}
	s := read(t)
	session := Session{
		Shape: s.shapes[0], Seed: s.seed, Only: s.only, Temp: t.TempDir(), Once: s.draw == 0, Rounds: 5,
		Report: func(r Row) {
			b, err := json.Marshal(r)
			if err != nil {
				t.Error(err)
			}
			fmt.Printf("\n%s%s\n", rowPrefix, b)
		},
	}
	if s.draw > 0 {
		session.Until = time.Now().Add(s.draw)
	}
	session.Run(func(name string, f func(TB)) { t.Run(name, func(t *testing.T) { f(keeper{t}) }) })
}
