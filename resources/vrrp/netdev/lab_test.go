package netdev

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
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
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/rtnl"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what the kernel does within microseconds; only a failing test waits for it.
const patience = 10 * time.Second

// lab is a network namespace.
type lab struct {
	t    testing.TB
	name string
}

var labs atomic.Int32

func newLab(t testing.TB) lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	l := lab{t, fmt.Sprintf("kbnetdev-%d-%d", os.Getpid(), labs.Add(1))}
	run(t, "ip", "netns", "add", l.name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", l.name) })
	l.ip("link set lo up")
	return l
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ip runs ip(8) inside, one command a line.
func (l lab) ip(commands string) string {
	l.t.Helper()
	var out string
	for line := range strings.Lines(commands) {
		if f := strings.Fields(line); len(f) > 0 {
			out += run(l.t, "ip", append([]string{"-n", l.name}, f...)...)
		}
	}
	return out
}

// inside runs f on a thread in the namespace; sockets opened in it stay there.
func (l lab) inside(f func() error) {
	l.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		ns, err := netns.GetFromName(l.name)
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
		l.t.Fatal(err)
	}
}

func (l lab) kernel() *rtnl.Kernel {
	l.t.Helper()
	k, err := rtnl.Open("/run/netns/" + l.name)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(k.Close)
	return k
}

// shown is the addresses of an interface as the commands that add them; those
// that the kernel made are left out.
func (l lab) shown(dev string) string {
	l.t.Helper()
	k := l.kernel()
	index := 0
	var all []string
	err := k.Links(func(i rtnl.Link) {
		if i.Name == dev {
			index = i.Index
		}
	})
	if err == nil {
		err = k.Addresses(func(a rtnl.Address) {
			if a.Index == index && !a.Prefix.Addr().IsLinkLocalUnicast() {
				all = append(all, a.Text(dev))
			}
		})
	}
	if err != nil {
		l.t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// pair is two routers on one wire: eth0 with 10.0.0.1/24, fd00::1/64 and 10.0.0.2/24, fd00::2/64.
func pair(t testing.TB) (a, b lab) {
	t.Helper()
	a, b = newLab(t), newLab(t)
	connect(a, b)
	return a, b
}

func connect(a, b lab) {
	a.t.Helper()
	a.ip("link add eth0 type veth peer name eth0 netns " + b.name)
	for i, l := range []lab{a, b} {
		l.inside(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0) })
		l.ip(fmt.Sprintf("addr add 10.0.0.%d/24 dev eth0\naddr add fd00::%[1]d/64 dev eth0 nodad\nlink set eth0 up", i+1))
	}
	for _, l := range []lab{a, b} { // the kernel lets packets through a while after the carrier
		eventually(l.t, "the wire works", func() bool { return strings.Fields(l.ip("-br link show eth0"))[1] == "UP" })
	}
}

func (l lab) host(runDir string) *Host {
	l.t.Helper()
	h, err := New(Config{Logger: testLogger(l.t), Namespace: "/run/netns/" + l.name, RunDir: runDir})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = h.Close() })
	return h
}

// testLogger writes to the test's log until the test is over.
func testLogger(t testing.TB) *slog.Logger {
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

var (
	group4 = netip.MustParseAddr("224.0.0.18")
	group6 = netip.MustParseAddr("ff02::12")
)

// router4 is an instance for IPv4 with addresses, "10.0.0.5/24".
func router4(addresses ...string) *conf.VRRPInstance {
	i := &conf.VRRPInstance{Name: "web", Version: 2, VRID: 7, Priority: 100, Interface: "eth0", Interval: time.Second,
		Group: group4, UnicastTTL: 255, Accept: true}
	i.Addresses = virtual(addresses...)
	return i
}

func router6(addresses ...string) *conf.VRRPInstance {
	i := router4(addresses...)
	i.IPv6, i.Version, i.Group = true, 3, group6
	return i
}

func virtual(addresses ...string) (all []conf.VRRPAddress) {
	for _, a := range addresses {
		all = append(all, conf.VRRPAddress{Address: netip.MustParsePrefix(a)})
	}
	return all
}

func peers(addresses ...string) (all []conf.VRRPPeer) {
	for _, a := range addresses {
		all = append(all, conf.VRRPPeer{Address: netip.MustParseAddr(a), MaxTTL: 255})
	}
	return all
}

// opened is an endpoint, and what it has heard.
type opened struct {
	vrrp.Endpoint
	heard chan vrrp.Packet
}

func open(t testing.TB, h *Host, i *conf.VRRPInstance) opened {
	t.Helper()
	heard := make(chan vrrp.Packet, 100)
	e, err := h.Open(i, func(p vrrp.Packet) {
		p.Payload = bytes.Clone(p.Payload)
		heard <- p
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return opened{e, heard}
}

// hears waits for a packet.
func (o opened) hears(t testing.TB) vrrp.Packet {
	t.Helper()
	select {
	case p := <-o.heard:
		return p
	case <-time.After(patience):
		t.Fatal("nothing was heard")
		panic("unreachable")
	}
}

// tap receives every frame that arrives at an interface.
type tap struct {
	t  testing.TB
	fd int
}

func (l lab) tap(dev string) tap {
	l.t.Helper()
	p := tap{l.t, -1}
	l.inside(func() error {
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: rtnl.NetworkOrder(unix.ETH_P_ALL), Ifindex: i.Index})
	})
	l.t.Cleanup(func() { _ = unix.Close(p.fd) })
	return p
}

// until reads frames until match takes one.
func (p tap) until(what string, match func(frame []byte) bool) []byte {
	p.t.Helper()
	buf := make([]byte, 4096)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		tv := unix.NsecToTimeval(int64(time.Until(end)) + 1000)
		_ = unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if err == nil && match(buf[:n]) {
			return bytes.Clone(buf[:n])
		}
	}
	p.t.Fatalf("%s: not seen on the wire", what)
	return nil
}

// eventually waits for what an event makes true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func same(t testing.TB, what, got, want string) {
	t.Helper()
	trim := func(s string) string {
		var all []string
		for line := range strings.Lines(s) {
			if l := strings.TrimSpace(line); l != "" {
				all = append(all, l)
			}
		}
		return strings.Join(all, "\n")
	}
	if g, w := trim(got), trim(want); g != w {
		t.Errorf("%s:\n%s\nwant\n%s", what, g, w)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
