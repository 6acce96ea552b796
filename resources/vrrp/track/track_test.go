package track

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func TestResultsInARowMakeAVerdict(t *testing.T) {
	for _, c := range []struct {
		name       string
		rise, fall int
		initFail   bool
		results    string // + good, - bad
		want       string // the verdict after each
	}{
		{"the first result counts at once", 3, 3, false, "+", "+"},
		{"a bad first one, too", 3, 3, false, "-", "-"},
		{"as many in a row as fall", 1, 3, false, "+--+---", "++++++-"},
		{"as many in a row as rise", 3, 1, false, "-++-+++", "------+"},
		{"init_fail has to rise", 2, 1, true, "++", "-+"},
		{"without rise and fall one is enough", 0, 0, false, "+-+", "+-+"},
	} {
		j := judge{rise: c.rise, fall: c.fall, known: c.initFail}
		var got strings.Builder
		for _, r := range c.results {
			j.take(r == '+')
			got.WriteByte(map[bool]byte{true: '+', false: '-'}[j.well])
		}
		if got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.name, got.String(), c.want)
		}
	}
}

// said collects what a tracker reports.
type said struct {
	mu   sync.Mutex
	all  []string
	more chan struct{}
}

func (s *said) report(_ Kind, name string, r Result) {
	s.mu.Lock()
	s.all = append(s.all, fmt.Sprint(name, " ", r.Well, " ", r.Value))
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *said) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.all, ", ")
}

// until waits for what is reported to be this.
func (s *said) until(t *testing.T, want string) {
	t.Helper()
	limit := time.After(time.Minute)
	for s.text() != want {
		select {
		case <-s.more:
		case <-limit:
			t.Fatalf("reported %q, want %q", s.text(), want)
		}
	}
}

func tracker(run func(context.Context, string, []string) error) (*Tracker, *said) {
	s := &said{more: make(chan struct{}, 1)}
	return New(Config{Report: s.report, Run: run, Logger: slog.New(slog.DiscardHandler)}), s
}

func TestAScriptIsRunEveryIntervalAndKilledAtItsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var runs []string
		tr, s := tracker(func(ctx context.Context, user string, command []string) error {
			runs = append(runs, fmt.Sprint(user, command, time.Since(begin)))
			if len(runs) == 2 {
				<-ctx.Done() // hangs
				return ctx.Err()
			}
			return nil
		})
		tr.Watch(&conf.VRRP{Scripts: []conf.VRRPScript{{Name: "chk", User: "u", Command: []string{"/c", "a"}, Interval: 2 * time.Second, Timeout: 500 * time.Millisecond, Rise: 1, Fall: 1}}})
		time.Sleep(5 * time.Second)
		tr.Close()
		if got := strings.Join(runs, ", "); got != "u[/c a] 0s, u[/c a] 2s, u[/c a] 4s" {
			t.Errorf("runs: %s", got)
		}
		if got := s.text(); got != "chk true 0, chk false 0, chk true 0" {
			t.Errorf("reported %s", got)
		}
	})
}

func TestAReloadLeavesAloneWhatIsAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := map[string]int{}
		var mu sync.Mutex
		tr, s := tracker(func(_ context.Context, _ string, command []string) error {
			mu.Lock()
			defer mu.Unlock()
			runs[command[0]]++
			return nil
		})
		a := conf.VRRPScript{Name: "a", Command: []string{"/a"}, Interval: 10 * time.Second}
		b := conf.VRRPScript{Name: "b", Command: []string{"/b"}, Interval: 10 * time.Second}
		tr.Watch(&conf.VRRP{Scripts: []conf.VRRPScript{a, b}})
		time.Sleep(time.Second)
		b.Command = []string{"/b2"}
		tr.Watch(&conf.VRRP{Scripts: []conf.VRRPScript{a, b}})
		time.Sleep(time.Second)
		tr.Watch(&conf.VRRP{Scripts: []conf.VRRPScript{a}})
		time.Sleep(20 * time.Second)
		tr.Close()
		if got := fmt.Sprint(runs); got != "map[/a:3 /b:1 /b2:1]" {
			t.Errorf("runs: %s", got)
		}
		if got := s.text(); got != "a true 0, b true 0" && got != "b true 0, a true 0" {
			t.Errorf("reported %s", got)
		}
	})
}

// A master is not to fall for a reload: neither init_fail nor a single failure
// counts for more than it did before.
func TestAChangedScriptBeginsWithTheVerdictOfTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		tr, s := tracker(func(context.Context, string, []string) error {
			if fails.Load() {
				return errors.New("exit status 1")
			}
			return nil
		})
		defer tr.Close()
		script := conf.VRRPScript{Name: "a", Command: []string{"/a"}, Interval: time.Second, Rise: 2, Fall: 3, InitFail: true}
		watch := func() { tr.Watch(&conf.VRRP{Scripts: []conf.VRRPScript{script}}) }
		watch()
		time.Sleep(3 * time.Second)
		fails.Store(true)
		script.Timeout = 500 * time.Millisecond
		watch()
		time.Sleep(1500 * time.Millisecond) // two runs
		if got := s.text(); got != "a false 0, a true 0" {
			t.Errorf("after two failures: %s", got)
		}
		time.Sleep(time.Second)
		if got := s.text(); got != "a false 0, a true 0, a false 0" {
			t.Errorf("after three: %s", got)
		}
	})
}

func TestAScriptThatCannotBeRunIsATrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fault atomic.Pointer[error]
		fault.Store(new(error))
		tr, _ := tracker(func(context.Context, string, []string) error { return *fault.Load() })
		defer tr.Close()
		script := conf.VRRPScript{Name: "a", Command: []string{"/a"}, Interval: time.Second}
		tr.Watch(&conf.VRRP{Scripts: []conf.VRRPScript{script}})
		for _, c := range []struct {
			err  error
			want string
		}{
			{nil, "map[]"},
			{fmt.Errorf("%w; it printed: no", &exec.ExitError{}), "map[]"}, // it has been run
			{errors.New("user x: there is none"), "map[a:user x: there is none]"},
			{errors.New("killed at its time-out"), "map[a:killed at its time-out]"},
			{nil, "map[]"},
			{errors.New("user x: there is none"), "map[a:user x: there is none]"},
		} {
			fault.Store(&c.err)
			time.Sleep(time.Second)
			synctest.Wait()
			if got := fmt.Sprint(tr.Trouble()); got != c.want {
				t.Errorf("%v: %s", c.err, got)
			}
		}
		tr.Watch(&conf.VRRP{})
		if got := tr.Trouble(); len(got) != 0 {
			t.Errorf("of a script that is gone: %v", got)
		}
	})
}

func TestWhichProcessesAreMeant(t *testing.T) {
	for _, c := range []struct {
		want    []string
		full    bool
		comm    string
		cmdline string // | for 0
		match   bool
	}{
		{[]string{"haproxy"}, false, "haproxy", "/usr/sbin/haproxy|-W|", true},
		{[]string{"haproxy"}, false, "haproxy2", "/usr/sbin/haproxy2|", false},
		{[]string{"haproxy"}, false, "haproxy", "", false}, // a zombie
		{[]string{"haproxy", "-W"}, false, "haproxy", "/usr/sbin/haproxy|-W|-f|x|", true},
		{[]string{"haproxy", "-f"}, false, "haproxy", "/usr/sbin/haproxy|-W|-f|x|", false},
		{[]string{"haproxy", "-W"}, false, "haproxy", "/usr/sbin/haproxy|", false},
		{[]string{"/usr/sbin/haproxy"}, true, "haproxy", "/usr/sbin/haproxy|-W|", true},
		{[]string{"/usr/sbin/haproxy"}, true, "haproxy", "/tmp/haproxy|-W|", false},
		{[]string{"a-name-longer-than-15"}, false, "a-name-longer-t", "/bin/a-name-longer-than-15|", true},
		{[]string{"a-name-longer-than-15"}, false, "a-name-longer-t", "/bin/a-name-longer-than-16|", false},
		{[]string{"a-name-longer-than-15"}, false, "a-name-longer-t", "/bin/sh|/opt/a-name-longer-than-15|", true},
		{[]string{"nginx:"}, false, "nginx", "nginx: master process|", false},
		{[]string{"check.py"}, false, "check.py", "/usr/bin/python3|/opt/check.py|", true},
		{nil, false, "x", "x|", false},
	} {
		p := conf.VRRPProcess{Process: c.want, Full: c.full}
		if got := matches(p, c.comm, []byte(strings.ReplaceAll(c.cmdline, "|", "\x00"))); got != c.match {
			t.Errorf("%v %s %s: %v", c.want, c.comm, c.cmdline, got)
		}
	}
}

// The end of a process is told by the kernel, its start is found.
func TestAProcessThatEndsIsMissedAndItsSuccessorFound(t *testing.T) {
	name := fmt.Sprintf("kbtrack%d", os.Getpid())
	begin := func() *exec.Cmd {
		cmd := exec.Command("sleep", "600")
		cmd.Args[0] = name
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	first := begin()
	tr, s := tracker(nil)
	defer tr.Close()
	tr.Watch(&conf.VRRP{Processes: []conf.VRRPProcess{{Name: "p", Process: []string{name, "600"}, Quorum: 1}}})
	s.until(t, "p true 0")
	_ = first.Process.Kill() // not waited for: a zombie does not run
	s.until(t, "p true 0, p false 0")
	begin()
	s.until(t, "p true 0, p false 0, p true 0")
	tr.Watch(&conf.VRRP{Processes: []conf.VRRPProcess{{Name: "p", Process: []string{name}, Quorum: 1, Most: 1}}})
	begin()
	s.until(t, "p true 0, p false 0, p true 0, p false 0")
}

func TestANumberInAFile(t *testing.T) {
	for text, want := range map[string]int{
		"5": 5, " -254\n": -254, "254": 254, "+7": 7, "0x10": 16, "1 since Monday, joe\n": 1,
		"1000": 1000, "-1000": -1000, "99999999999999999999": most, "-99999999999999999999": -most, strings.Repeat("1", 100): most,
	} {
		if v, err := parseNumber(text); err != nil || v != want {
			t.Errorf("%q: %d %v", text, v, err)
		}
	}
	for text, want := range map[string]string{
		"":             "it is empty; write a whole number into it",
		"yes":          `"yes" is not a whole number`,
		"1.5":          `"1.5" is not a whole number`,
		"-":            `"-" is not a whole number`,
		"\x00\x00\x00": `"\x00\x00\x00" is not a whole number`,
	} {
		if v, err := parseNumber(text); v != 0 || err == nil || err.Error() != want {
			t.Errorf("%q: %d %v", text, v, err)
		}
	}
}

func TestAFileIsSeenHoweverItIsWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "prio")
	tr, s := tracker(nil)
	defer tr.Close()
	tr.Watch(&conf.VRRP{Files: []conf.VRRPFile{{Name: "f", Path: path, Weight: 1}}})
	s.until(t, "f false 0")
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	do(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte("10\n"), 0o644))
	s.until(t, "f false 0, f false 10")
	do(os.WriteFile(path+"~", []byte("-3"), 0o644), os.Rename(path+"~", path))
	s.until(t, "f false 0, f false 10, f false -3")
	do(os.Remove(path))
	s.until(t, "f false 0, f false 10, f false -3, f false 0")
	do(os.Mkdir(path, 0o755)) // no number, and no harm
	do(os.Remove(path), os.WriteFile(path, []byte("7"), 0o644))
	s.until(t, "f false 0, f false 10, f false -3, f false 0, f false 7")
}

// A link leads where the file really stands, and may be turned: both count.
func TestAFileBehindALinkIsSeen(t *testing.T) {
	here, there := t.TempDir(), t.TempDir()
	path, one, two := filepath.Join(here, "prio"), filepath.Join(there, "one"), filepath.Join(there, "two")
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	do(os.WriteFile(one, []byte("1"), 0o644), os.WriteFile(two, []byte("2"), 0o644), os.Symlink(one, path))
	tr, s := tracker(nil)
	defer tr.Close()
	tr.Watch(&conf.VRRP{Files: []conf.VRRPFile{{Name: "f", Path: path, Weight: 1}}})
	s.until(t, "f false 1")
	do(os.WriteFile(one+"~", []byte("10"), 0o644), os.Rename(one+"~", one))
	s.until(t, "f false 1, f false 10")
	do(os.Symlink(two, path+"~"), os.Rename(path+"~", path))
	s.until(t, "f false 1, f false 10, f false 2")
	do(os.WriteFile(two+"~", []byte("20"), 0o644), os.Rename(two+"~", two))
	s.until(t, "f false 1, f false 10, f false 2, f false 20")
	do(os.Remove(two))
	s.until(t, "f false 1, f false 10, f false 2, f false 20, f false 0")
	do(os.WriteFile(two, []byte("5"), 0o644))
	s.until(t, "f false 1, f false 10, f false 2, f false 20, f false 0, f false 5")
}

func FuzzNumber(f *testing.F) {
	f.Add(" 12\n")
	f.Add("-300")
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := parseNumber(s); v < -most || v > most || err != nil && v != 0 {
			t.Errorf("%q: %d %v", s, v, err)
		}
	})
}
