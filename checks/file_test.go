package checks

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func TestAFileIsTheOperatorsSwitch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switch")
	for _, tc := range []struct {
		name, content string
		dynamic       bool
		want          string // the detail, or after "!" the error without "file PATH: "
		weight        int    // -1: none
	}{
		{"an empty file is up", "", false, "up: the file is empty", -1},
		{"blanks and line ends are nothing", " \r\n\n", false, "up: the file is empty", -1},
		{"up", "up\n", false, "up", -1},
		{"on, without a line end", "on", false, "on", -1},
		{"any case", "YES", false, "YES", -1},
		{"a reason", "up again since 14:00\nmore\n", false, "up again since 14:00", -1},
		{"down", "down\n", false, "!switched off", -1},
		{"down and why", "Down: kernel upgrade, back at 14:00\n", false, "!switched off: kernel upgrade, back at 14:00", -1},
		{"off after a tab", "off\tdisk", false, "!switched off: disk", -1},
		{"no", "no", false, "!switched off", -1},
		{"keepalived's status 0 is up", "0\n", false, "0", -1},
		{"any other status is down", "3\n", false, "!status 3; 0 is up", -1},
		{"and a negative one", "-1", false, "!status -1; 0 is up", -1},
		{"a weight", "40\n", true, "40", 40},
		{"weight 0 takes no new connections and is up", "0", true, "0", 0},
		{"the largest weight", "65535", true, "65535", 65535},
		{"a weight with a reason", "5 half of the disks", true, "5 half of the disks", 5},
		{"dynamic up has the configured weight", "up", true, "up", -1},
		{"dynamic down", "down", true, "!switched off", -1},
		{"a weight that is too large", "65536", true, "!weight 65536: want 0 to 65535, or up or down", -1},
		{"a negative weight", "-5", true, "!weight -5: want 0 to 65535, or up or down", -1},
		{"a number that is none", "99999999999999999999", true, `!"99999999999999999999" is no switch; write up, down, or a weight from 0 to 65535`, -1},
		{"a slip", "dwon", false, `!"dwon" is no switch; write up or down`, -1},
		{"bytes", "\x00\xff\x1b[2J", false, `!"???[2J" is no switch; write up or down`, -1},
		{"a flood", strings.Repeat("x", 1<<20), false, `!"` + strings.Repeat("x", 60) + `"... is no switch; write up or down`, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := NewChecker(conf.Check{Type: conf.File, Path: path, Dynamic: tc.dynamic})
			if err != nil {
				t.Fatal(err)
			}
			got, err := k.Check(t.Context())
			if err != nil {
				got = "!" + strings.TrimPrefix(err.Error(), "file "+path+": ")
			}
			if got != tc.want || Local(err) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if n, weighed := k.(Weigher).Weight(); weighed != (tc.weight >= 0) || weighed && n != tc.weight {
				t.Errorf("weight %d %v, want %d", n, weighed, tc.weight)
			}
		})
	}
}

func TestWithoutTheFileAServerIsUp(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "switch")
	k, err := NewChecker(conf.Check{Type: conf.File, Path: path, Dynamic: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("9"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := k.Check(t.Context()); err != nil || got != "up: no file "+path {
		t.Errorf("%q, %v", got, err)
	}
	if n, weighed := k.(Weigher).Weight(); weighed {
		t.Errorf("the weight %d of a file that is gone still counts", n)
	}
}

func TestAFileThatIsJustBeingWrittenIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switch")
	synctest.Test(t, func(t *testing.T) {
		f, err := os.Create(path) // as a shell does for `echo down >switch`
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		k, err := NewChecker(conf.Check{Type: conf.File, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(switchPause/2, func() {
			if _, err := f.WriteString("down\n"); err != nil {
				t.Error(err)
			}
		})
		if got, err := k.Check(t.Context()); err == nil || Local(err) {
			t.Errorf("got %q, %v; want down", got, err)
		}
	})
}

func TestAFileThatCannotBeReadIsNoVerdict(t *testing.T) {
	dir := t.TempDir()
	pipe, loop := filepath.Join(dir, "pipe"), filepath.Join(dir, "loop")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Symlink(loop, loop)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                      "it is not a regular file",
		pipe:                     "it is not a regular file",
		"/dev/zero":              "it is not a regular file",
		loop:                     "too many levels of symbolic links",
		"/proc/self/mem":         "input/output error",
		filepath.Join(pipe, "x"): "not a directory",
		dir + "/\x00":            "invalid argument",
	} {
		k, err := NewChecker(conf.Check{Type: conf.File, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Check(t.Context()); err == nil || !Local(err) || err.Error() != "file "+path+": "+want || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v; want no verdict, %s", path, got, err, want)
		}
	}
}

func TestAFileNeedsItsWholePath(t *testing.T) {
	for path, want := range map[string]string{
		"":         "checktype file needs the path of the file",
		"run/here": "file run/here: write the whole path, from /",
	} {
		if _, err := NewChecker(conf.Check{Type: conf.File, Path: path}); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", path, err, want)
		}
	}
}

func FuzzSwitch(f *testing.F) {
	for _, s := range []string{"", "up", "down: x", "0", "-1", "65535 y", "\xff\x00", "DOWN\tz\n"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, dynamic bool) {
		s := parseSwitch(b, dynamic)
		if s.weighed && (s.err != nil || !dynamic || s.weight < 0 || s.weight > 65535) {
			t.Errorf("%+v", s)
		}
		if len(s.says) > maxDetail || s.err == nil && s.says == "" {
			t.Errorf("%+v", s)
		}
	})
}
