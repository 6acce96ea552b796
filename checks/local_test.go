package checks

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func TestWhatThisMachineLacksIsNoVerdict(t *testing.T) {
	for _, tc := range []struct {
		name  string
		err   error
		local bool
	}{
		{"descriptors", os.NewSyscallError("socket", unix.EMFILE), true},
		{"ports to this server", fmt.Errorf("connect 10.0.0.5:80: %w", unix.EADDRNOTAVAIL), true},
		{"IPv6", os.NewSyscallError("socket", unix.EAFNOSUPPORT), true},
		{"the right to ping", fmt.Errorf("ping: %w", os.NewSyscallError("socket", unix.EPERM)), true},
		{"a file", localError{errors.New("tls_ca")}, true},
		{"the server refuses", fmt.Errorf("connect 10.0.0.5:80: %w", unix.ECONNREFUSED), false},
		{"the server's firewall, by ICMPv6", fmt.Errorf("connect [fd00::5]:80: %w", unix.EACCES), false},
		{"the server is gone", fmt.Errorf("connect 10.0.0.5:80: %w", unix.EHOSTUNREACH), false},
		{"the server is silent", timeoutError{after: time.Second}, false},
	} {
		if Local(tc.err) != tc.local {
			t.Errorf("%s: %v, want %v", tc.name, !tc.local, tc.local)
		}
	}
}

// A director on which the program, its interpreter or its user is missing knows
// nothing of the servers.
func TestAProgramThatCannotBeRunIsNoVerdict(t *testing.T) {
	for _, tc := range []struct {
		name    string
		missing func(c *conf.Check) error // before the check is made
		later   func(c *conf.Check) error // after it was made
		want    func(c conf.Check) string
	}{
		{"never there", func(c *conf.Check) error { return os.Remove(c.Command) }, nil,
			func(c conf.Check) string { return "checkcommand " + c.Command + ": no such file or directory" }},
		{"not executable", func(c *conf.Check) error { return os.Chmod(c.Command, 0o600) }, nil,
			func(c conf.Check) string { return "checkcommand " + c.Command + ": not executable (chmod +x)" }},
		{"a user that is not there", func(c *conf.Check) error { c.User = "nobody-of-this-name"; return nil }, nil,
			func(conf.Check) string { return "user nobody-of-this-name: there is none in /etc/passwd of this node" }},
		{"removed", nil, func(c *conf.Check) error { return os.Remove(c.Command) },
			func(c conf.Check) string {
				return "checkcommand: fork/exec " + c.Command + ": no such file or directory"
			}},
		{"its interpreter is gone", nil, func(c *conf.Check) error { return os.WriteFile(c.Command, []byte("#!/nonexistent\n"), 0o700) },
			func(c conf.Check) string {
				return "checkcommand: fork/exec " + c.Command + ": no such file or directory"
			}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := script(t, "exit 0")
			if tc.missing != nil {
				if err := tc.missing(&c); err != nil {
					t.Fatal(err)
				}
			}
			k, err := newChecker(c, newEnv(nil))
			if tc.later != nil {
				if err != nil {
					t.Fatal(err)
				}
				if err := tc.later(&c); err != nil {
					t.Fatal(err)
				}
				_, err = k.Check(t.Context())
			}
			if !Local(err) || err.Error() != tc.want(c) {
				t.Errorf("got  %v (no verdict: %v)\nwant %s", err, Local(err), tc.want(c))
			}
		})
	}
}

// What a checker lacks when it is made is looked for again at each run.
func TestACheckThatCannotBeMadeKeepsTheServerAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s, _, stop := start(t, 100, ok)
		defer stop()
		working := s.make
		s.make = func(c conf.Check) (Checker, error) {
			if time.Since(begin) < 30*time.Second {
				return newChecker(conf.Check{Type: conf.External, Command: "/nonexistent"}, newEnv(nil))
			}
			return working(c)
		}
		c := target(1)
		s.Subscribe(c, nil)
		time.Sleep(29 * time.Second)
		if st, _ := s.Status(c); st.Known || !st.Overdue || st.Detail != "checkcommand /nonexistent: no such file or directory" {
			t.Errorf("without the program: %+v", st)
		}
		time.Sleep(time.Minute)
		if st, _ := s.Status(c); !st.Up {
			t.Errorf("with it: %+v", st)
		}
	})
}
