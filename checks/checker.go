// Package checks finds out which real servers work. A Checker asks one server
// once, in the words of one protocol; the Scheduler runs every configured check
// on time, shares equal ones and turns single results into up and down by rise
// and fall.
//
// To add a protocol, write one file with a function of type constructor and
// name it in protocols. TCP protocols use dialCheck, which carries the deadline
// of the whole check; others prepare their socket by originate.
package checks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/checks/icmp"
	"github.com/keepbeat/keepbeat/conf"
)

// Checker asks one real server once.
type Checker interface {
	// Check returns nil when the server works, with what it answered in words.
	// It returns soon after ctx ends, whatever the server does; ctx carries the
	// deadline of the whole check. It is called by one goroutine at a time.
	//
	// An error says what is wrong with the server. An error for which Local is
	// true says that this machine could not ask; it is no verdict.
	Check(ctx context.Context) (detail string, err error)
}

// Weigher is implemented by checkers whose answer says how much the server can
// bear: checkcommand with dynamic, a file.
type Weigher interface {
	// Weight returns what the last Check that succeeded said, 0 to 65535;
	// false: it said nothing, and the configured weight holds. Called by the
	// goroutine of Check, after it.
	Weight() (weight int, ok bool)
}

// env is what checkers of one Scheduler share, so that 5,000 of them stay small.
type env struct {
	ping    *icmp.Pinger // nil: each check opens a socket of its own
	buffers sync.Pool    // *[bufSize]byte

	certs certificates

	mu       sync.Mutex // guards patterns
	patterns map[string]*regexp.Regexp
}

func newEnv(p *icmp.Pinger) *env {
	e := &env{ping: p, patterns: map[string]*regexp.Regexp{}}
	e.buffers.New = func() any { return new([bufSize]byte) }
	return e
}

// compile compiles an expression, or finds it compiled: the servers of a pool
// have the same one, and it takes some kilobytes.
func (e *env) compile(pattern string) (*regexp.Regexp, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if re := e.patterns[pattern]; re != nil {
		return re, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("%w (expressions are RE2: no look-ahead, no back-references)", err)
	}
	if len(e.patterns) >= 1000 { // years of edited pools must not pile up
		clear(e.patterns)
	}
	e.patterns[pattern] = re
	return re, nil
}

type constructor func(c conf.Check, e *env) (Checker, error)

// protocols are the services of checktype negotiate.
func protocols() map[string]constructor {
	return map[string]constructor{
		"http": newHTTP, "https": newHTTP, "http_proxy": newHTTP,
		"smtp": newSMTP, "submission": newSMTP, "smtps": newSMTP,
		"pop": newPOP, "pops": newPOP,
		"imap": newIMAP, "imaps": newIMAP,
		"nntp":      newNNTP,
		"ftp":       newFTP,
		"simpletcp": newSimpleTCP,
		"sip":       newSIP,
		"grpc":      newGRPC, "grpcs": newGRPC,
		"dns":    newDNS,
		"radius": newRadius,
		"udp":    newUDP,
		"ldap":   newLDAP, "ldaps": newLDAP,
		"mysql":  newMySQL,
		"pgsql":  newPgSQL,
		"oracle": newOracle,
	}
}

// NewChecker makes the checker of c. It touches no server, so it serves to
// validate: the error names the value that is wrong (a regular expression, a
// command that is not there, certificates that cannot be read) and the way out.
func NewChecker(c conf.Check) (Checker, error) { return newChecker(c, newEnv(nil)) }

// newChecker has errors about the configuration and about what this machine has
// of it: programs, users, files. None is a verdict on a server, all are Local.
func newChecker(c conf.Check, e *env) (Checker, error) {
	k, err := construct(c, e)
	if err != nil {
		return nil, localError{err}
	}
	return k, nil
}

func construct(c conf.Check, e *env) (Checker, error) {
	switch c.Type {
	case conf.On:
		return constant{up: true}, nil
	case conf.Off:
		return constant{}, nil
	case conf.External:
		return newExternal(c)
	case conf.File:
		return newFile(c)
	}
	if !c.Target.Addr().IsValid() {
		return nil, fmt.Errorf("checktype %v needs the address of the real server", c.Type)
	}
	switch c.Type {
	case conf.Ping:
		return newPing(c, e)
	case conf.Connect:
		if c.Service == "udp" { // nothing to connect to: a ping, as in ldirectord
			return newPing(c, e)
		}
		return newConnect(c, e)
	case conf.Negotiate:
		p := protocols()
		if f, ok := p[c.Service]; ok {
			if c.Connects > 0 {
				return newConnects(c, e, f)
			}
			return f(c, e)
		}
		return nil, fmt.Errorf("service %q cannot be negotiated; checktype connect, ping and external work with any service", c.Service)
	}
	return nil, fmt.Errorf("checktype %v is not known", c.Type)
}

// needTCPPort refuses a target without a port.
func needTCPPort(c conf.Check) error {
	if c.Target.Port() == 0 {
		return fmt.Errorf("checktype %v of %v needs a port: give the real server one, or set checkport", c.Type, c.Target.Addr())
	}
	return nil
}

// timeoutError is a check that ran into its deadline.
type timeoutError struct {
	what  string // "connect 10.0.0.5:80", or empty
	after time.Duration
}

func (e timeoutError) Error() string {
	s := "no answer within " + e.after.String()
	if e.what != "" {
		s = e.what + ": " + s
	}
	return s
}

func (timeoutError) Timeout() bool { return true }
func (timeoutError) Unwrap() error { return context.DeadlineExceeded }

// isTimeout is true of errors that mean only that time ran out.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// localError is what this machine lacks, in words: no verdict on the server.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// Local is true of errors that say that this machine lacked something
// (descriptors, memory, processes, ports, an interface, a program or file of
// its own, the permission): no verdict on the server.
func Local(err error) bool {
	var local localError
	if errors.As(err, &local) {
		return true
	}
	for _, e := range []unix.Errno{
		unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN,
		unix.EADDRNOTAVAIL, // no address of that family, or all ports to this server are taken
		unix.EAFNOSUPPORT,  // IPv6 is switched off
		unix.EPERM,         // a firewall of this machine, or no CAP_NET_RAW; ICMP never makes it, as it does EACCES
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// maxDetail bounds Status.Detail.
const maxDetail = 200

// words makes s fit for a status line, a log and JSON: valid UTF-8, nothing
// that moves the cursor or hides text, at most maxDetail bytes.
func words(s string) string {
	plain := len(s) <= maxDetail
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= 0x20 && s[i] < 0x7f
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '?'
			if c := s[i]; c == '\t' || c == '\n' || c == '\r' {
				r = ' '
			}
		}
		if b.Len()+utf8.RuneLen(r) > maxDetail-3 {
			b.WriteString("...")
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// quote shows at most 60 bytes of what a server sent.
func quote(p []byte) string {
	cut := ""
	if len(p) > 60 {
		p, cut = p[:60], "..."
	}
	return strconv.Quote(string(p)) + cut
}
