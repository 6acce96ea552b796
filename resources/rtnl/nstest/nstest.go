// Package nstest gives tests network namespaces of this machine's kernel, and
// says in one place how they are looked into. It needs root.
package nstest

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/keepbeat/keepbeat/resources/rtnl"
)

// Patience is for what the kernel does within microseconds; only a failing test waits for it.
const Patience = 10 * time.Second

// NS is a network namespace, which goes with its test.
type NS struct {
	T    testing.TB
	Name string
}

var made atomic.Int32

// New makes a namespace whose name begins with prefix; only lo is in it, and up.
func New(t testing.TB, prefix string) NS {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	n := NS{t, fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), made.Add(1))}
	Run(t, "ip", "netns", "add", n.Name)
	t.Cleanup(func() { Run(t, "ip", "netns", "del", n.Name) })
	n.IP("link set lo up")
	return n
}

// Run runs a program and returns what it says.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Path is what rtnl.Open takes.
func (n NS) Path() string { return "/run/netns/" + n.Name }

// IP runs ip(8) inside, one command a line.
func (n NS) IP(commands string) string {
	n.T.Helper()
	var out string
	for line := range strings.Lines(commands) {
		if f := strings.Fields(line); len(f) > 0 {
			out += Run(n.T, "ip", append([]string{"-n", n.Name}, f...)...)
		}
	}
	return out
}

// Try is IP for one command that may fail.
func (n NS) Try(command string) (string, error) {
	out, err := exec.Command("ip", append([]string{"-n", n.Name}, strings.Fields(command)...)...).CombinedOutput()
	return string(out), err
}

// Run runs another program inside.
func (n NS) Run(args ...string) string {
	n.T.Helper()
	return Run(n.T, "ip", append([]string{"netns", "exec", n.Name}, args...)...)
}

// Inside runs f on a thread in the namespace; sockets opened in it stay there.
func (n NS) Inside(f func() error) {
	n.T.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		ns, err := netns.GetFromName(n.Name)
		if err == nil {
			err = netns.Set(ns)
			_ = ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.T.Fatal(err)
	}
}

// Kernel is that of the namespace, until the test ends.
func (n NS) Kernel() *rtnl.Kernel {
	n.T.Helper()
	k, err := rtnl.Open(n.Path())
	if err != nil {
		n.T.Fatal(err)
	}
	n.T.Cleanup(k.Close)
	return k
}

// Sysctl writes a setting, unless value is empty, and returns what it is.
func (n NS) Sysctl(name, value string) string {
	n.T.Helper()
	k := n.Kernel()
	var err error
	if value != "" {
		_, err = k.SetSysctl(name, value)
	}
	if err == nil {
		value, err = k.Sysctl(name)
	}
	if err != nil {
		n.T.Fatal(err)
	}
	return value
}

// Shown is the addresses of an interface as the commands that add them,
// sorted; those that the kernel made are left out.
func (n NS) Shown(dev string) string {
	n.T.Helper()
	k := n.Kernel()
	index := 0
	var all []string
	err := k.Links(func(l rtnl.Link) {
		if l.Name == dev {
			index = l.Index
		}
	})
	if err == nil {
		err = k.Addresses(func(a rtnl.Address) {
			if ip := a.Prefix.Addr(); a.Index == index && !ip.IsLinkLocalUnicast() && !ip.IsLoopback() {
				all = append(all, a.Text(dev))
			}
		})
	}
	if err != nil {
		n.T.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// Connect makes a wire between two namespaces, eth0 at both ends. The n-th has
// 10.0.0.n/24 and fd00::n/64.
func Connect(a, b NS) {
	a.T.Helper()
	a.IP("link add eth0 type veth peer name eth0 netns " + b.Name)
	for i, n := range []NS{a, b} {
		n.Sysctl("net/ipv6/conf/eth0/accept_dad", "0") // link-local ones need not wait either
		n.IP(fmt.Sprintf("addr add 10.0.0.%d/24 dev eth0\naddr add fd00::%[1]d/64 dev eth0 nodad\nlink set eth0 up", i+1))
	}
	for _, n := range []NS{a, b} { // the kernel lets packets through a while after the carrier
		Eventually(n.T, "the wire works", func() bool { return strings.Fields(n.IP("-br link show eth0"))[1] == "UP" })
	}
}

// Eventually waits for what an event makes true.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !f(); {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// Same compares texts by their lines, without the space around them.
func Same(t testing.TB, what, got, want string) {
	t.Helper()
	if g, w := lines(got), lines(want); !slices.Equal(g, w) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(g, "\n"), strings.Join(w, "\n"))
	}
}

func lines(s string) (all []string) {
	for line := range strings.Lines(s) {
		if l := strings.TrimSpace(line); l != "" {
			all = append(all, l)
		}
	}
	return all
}

// Refused wants an error with exactly this text.
func Refused(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// Logger writes to the test's log until the test is over.
func Logger(t testing.TB) *slog.Logger {
	w := &logWriter{t: t}
	t.Cleanup(func() { w.mu.Lock(); w.t = nil; w.mu.Unlock() })
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type logWriter struct {
	mu sync.Mutex // guards t
	t  testing.TB
}

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}
