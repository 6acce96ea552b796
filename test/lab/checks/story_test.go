package checks

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

const (
	// patience is the time-out of a check that is expected to end by itself.
	patience = 30 * time.Second
	// shortly is the time-out of one that is expected to run into it.
	shortly = 700 * time.Millisecond
	// slack is how much later than its time-out a check may end on a busy machine.
	slack = 5 * time.Second
)

// story is a check and what it says of a server in each situation. Words are
// regular expressions.
type story struct {
	server  *server
	network string     // "tcp", also when empty, or "udp"
	check   conf.Check // Target is the server; Timeout is the story's
	six     bool       // it serves on ::1, too, at the same port

	up      string            // the detail of the server as it is
	wrong   func(*conf.Check) // asks for what the server does not have
	wrongly string            // the error then
}

// tell goes through the situations; the last of them ends the server.
func (s story) tell(t *testing.T) {
	pause, tooSlow := time.Millisecond, shortly/4
	if s.network == "udp" {
		pause, tooSlow = 20*time.Millisecond, 2*shortly
	}
	if !t.Run("up", func(t *testing.T) { succeeds(t, s.check, s.up) }) {
		return // the rest would tell the same
	}
	if s.six {
		t.Run("up by IPv6", func(t *testing.T) {
			succeeds(t, at(s.check, netip.AddrPortFrom(loopback6, s.check.Target.Port())), s.up)
		})
	}
	t.Run("wrong answer", func(t *testing.T) {
		c := s.check
		s.wrong(&c)
		fails(t, c, patience, s.wrongly)
	})
	t.Run("slow", func(t *testing.T) { succeeds(t, at(s.check, slowly(t, s.network, s.check.Target, pause)), s.up) })
	t.Run("too slow", func(t *testing.T) {
		fails(t, at(s.check, slowly(t, s.network, s.check.Target, tooSlow)), shortly, `no answer within 700ms`)
	})
	t.Run("silent", func(t *testing.T) {
		s.server.freeze()
		fails(t, s.check, shortly, `no answer within 700ms`)
	})
	t.Run("refusing", func(t *testing.T) {
		s.server.kill()
		fails(t, s.check, patience, `connection refused`)
	})
}

// at is the same check of another address.
func at(c conf.Check, target netip.AddrPort) conf.Check {
	c.Target = target
	return c
}

// local is the server's address on 127.0.0.1.
func local(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback4, port) }

// run checks once.
func run(t *testing.T, c conf.Check, timeout time.Duration) (detail string, err error) {
	t.Helper()
	c.Timeout = timeout
	k, err := checks.NewChecker(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	began := time.Now()
	detail, err = k.Check(ctx)
	if took := time.Since(began); took > timeout+slack {
		t.Errorf("took %v with a time-out of %v", took, timeout)
	}
	if checks.Local(err) {
		t.Errorf("this machine is blamed: %v", err)
	}
	return detail, err
}

func succeeds(t *testing.T, c conf.Check, words string) {
	t.Helper()
	detail, err := run(t, c, patience)
	if err != nil {
		t.Fatalf("down: %v", err)
	}
	matches(t, detail, words)
	t.Logf("up: %s", detail)
}

func fails(t *testing.T, c conf.Check, timeout time.Duration, words string) {
	t.Helper()
	detail, err := run(t, c, timeout)
	if err == nil {
		t.Fatalf("up: %s", detail)
	}
	matches(t, err.Error(), words)
	for _, secret := range []string{c.Passwd, c.Secret} {
		if secret != "" && strings.Contains(err.Error(), secret) {
			t.Errorf("shows a secret: %v", err)
		}
	}
	t.Logf("down: %v", err)
}

func matches(t *testing.T, got, words string) {
	t.Helper()
	if !regexp.MustCompile(words).MatchString(got) {
		t.Errorf("got  %s\nwant %s", got, words)
	}
}

// pool is the text of a pool with one virtual service at that port and one real
// server, on loopback; keys are further lines of the virtual service.
func pool(virtual, real uint16, keys ...string) string {
	text := fmt.Sprintf("virtual:\n  - address: 192.0.2.1:%d\n    real: [127.0.0.1:%d masq]\n    checktype: negotiate\n", virtual, real)
	for _, k := range keys {
		text += "    " + k + "\n"
	}
	return text
}

// replace puts what is known late into the keys of a pool.
func replace(keys []string, word, by string) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = strings.ReplaceAll(k, word, by)
	}
	return out
}

// receive wants another answer, tlsName a certificate for another server.
func receive(pattern string) func(*conf.Check) {
	return func(c *conf.Check) { c.Receive = pattern }
}

func tlsName(name string) func(*conf.Check) {
	return func(c *conf.Check) { c.TLSVerify, c.TLSName = true, name }
}

// pooled is the check that a pool in YAML gives the first real server of its
// first virtual service.
func pooled(t *testing.T, pool string) conf.Check {
	t.Helper()
	spec, _, err := conf.ParseSpec(conf.Files{
		Haresources: []byte("groups: {lab: {prefer: [director1], resources: [{ldirectord: ldirectord.yaml}]}}\n"),
		Pools:       map[string][]byte{"ldirectord.yaml": []byte(pool)},
	}, nil)
	if err != nil {
		t.Fatalf("the pool is refused:\n%v\n%s", err, pool)
	}
	return spec.Pools["ldirectord.yaml"].Virtuals[0].Reals[0].Check
}
