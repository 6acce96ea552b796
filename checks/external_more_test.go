package checks

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func TestExternalDynamicGivesTheWeight(t *testing.T) {
	for _, tc := range []struct {
		name, body, want string
		weight           int // -1: the configured one
	}{
		{"0 is up with the configured weight", "exit 0", "exit status 0", -1},
		{"1 is down", "exit 1", "!exit status 1", -1},
		{"2 is weight 0", "exit 2", "exit status 2: weight 0", 0},
		{"255 is weight 253", "exit 255", "exit status 255: weight 253", 253},
		{"the line that it prints is the detail", "echo half; exit 52", "half", 50},
		{"a signal is down", "kill -9 $$", "!signal: killed", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := script(t, tc.body)
			c.Dynamic = true
			k, err := NewChecker(c)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the weight is never added up
				got, err := k.Check(t.Context())
				if err != nil {
					got = "!" + err.Error()
				}
				if got != tc.want {
					t.Errorf("got %s, want %s", got, tc.want)
				}
				if n, weighed := k.(Weigher).Weight(); weighed != (tc.weight >= 0) || weighed && n != tc.weight {
					t.Errorf("weight %d %v, want %d", n, weighed, tc.weight)
				}
			}
		})
	}
	expect(t, script(t, "exit 7"), "!exit status 7") // without dynamic
}

func TestExternalPerlRunsAFileOfPerl(t *testing.T) {
	path := filepath.Join(t.TempDir(), "check.pl")
	if err := os.WriteFile(path, []byte(`print "$#ARGV @ARGV\n"; exit($ARGV[1] == 80 ? 0 : 1);`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := conf.Check{Type: conf.External, Perl: true, Command: path, Args: "10.0.0.1 80 10.0.0.5 8080", Timeout: 10 * time.Second}
	expect(t, c, "3 10.0.0.1 80 10.0.0.5 8080")
	c.Args = "5 0 10.0.0.5 0"
	expect(t, c, "!exit status 1: 3 5 0 10.0.0.5 0")
	c.Command = path + "x"
	if _, err := NewChecker(c); err == nil || err.Error() != "checkcommand "+c.Command+": no such file or directory" {
		t.Error(err)
	}
}

func TestExternalRunsAsAUserWithItsGroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "keepbeat-checks-") // t.TempDir is below one that only root may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "check")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho $(id -u) $(id -g) $(id -G) $USER $HOME; grep CapEff /proc/self/status >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s %s %s nobody %s", u.Uid, u.Gid, strings.Join(groups, " "), u.HomeDir)
	for _, name := range []string{"nobody", u.Uid} {
		expect(t, conf.Check{Type: conf.External, Command: path, User: name, Timeout: 10 * time.Second}, want)
	}
}

func TestExternalRefusesWhatItCannotRun(t *testing.T) {
	bad := script(t, "exit 0")
	if err := os.Chmod(bad.Command, 0o777); err != nil {
		t.Fatal(err)
	}
	unknown := script(t, "exit 0")
	unknown.User = "nobody-of-this-name"
	number := unknown
	number.User = "4123456789"
	for _, tc := range []struct {
		c    conf.Check
		want string
	}{
		{bad, "checkcommand " + bad.Command + ": " + bad.Command + " may be written by everybody, who could put another program there that then runs as root; chmod o-w " + bad.Command},
		{unknown, "user nobody-of-this-name: there is none in /etc/passwd of this node"},
		{number, "user 4123456789: there is none in /etc/passwd of this node"},
	} {
		if _, err := NewChecker(tc.c); err == nil || err.Error() != tc.want {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
}
