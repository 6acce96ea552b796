package vip

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/rtnl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what the kernel does within microseconds; only a failing test waits for it.
const patience = 10 * time.Second

// host is a network namespace.
type host struct {
	t    testing.TB
	name string
}

var hosts atomic.Int32

func newHost(t testing.TB) host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	h := host{t, fmt.Sprintf("kbvip-%d-%d", os.Getpid(), hosts.Add(1))}
	run(t, "ip", "netns", "add", h.name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", h.name) })
	h.ip("link set lo up")
	return h
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
func (h host) ip(commands string) {
	h.t.Helper()
	for line := range strings.Lines(commands) {
		if f := strings.Fields(line); len(f) > 0 {
			run(h.t, "ip", append([]string{"-n", h.name}, f...)...)
		}
	}
}

// try is ip for a command that may fail.
func (h host) try(command string) (string, error) {
	out, err := exec.Command("ip", append([]string{"-n", h.name}, strings.Fields(command)...)...).CombinedOutput()
	return string(out), err
}

// inside runs f on a thread in the namespace; sockets opened in it stay there.
func (h host) inside(f func()) {
	h.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		ns, err := netns.GetFromName(h.name)
		if err == nil {
			err = netns.Set(ns)
			_ = ns.Close()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
}

func (h host) sysctl(name, value string) string {
	var b []byte
	var err error
	h.inside(func() {
		p := "/proc/sys/" + name
		if value != "" {
			err = os.WriteFile(p, []byte(value), 0)
		}
		if err == nil {
			b, err = os.ReadFile(p)
		}
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// shown is the addresses of an interface as the commands that add them, sorted
// by the kernel's order; link-local ones that the kernel made are left out.
func (h host) shown(dev string) string {
	h.t.Helper()
	k, err := rtnl.Open("/run/netns/" + h.name)
	if err != nil {
		h.t.Fatal(err)
	}
	defer k.Close()
	index := 0
	h.inside(func() {
		if i, err := net.InterfaceByName(dev); err == nil {
			index = i.Index
		}
	})
	var all []string
	err = k.Addresses(func(a rtnl.Address) {
		if a.Index == index && !a.Prefix.Addr().IsLinkLocalUnicast() && !a.Prefix.Addr().IsLoopback() {
			all = append(all, a.Text(dev))
		}
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// pair is a director and a neighbour on one wire: eth0 with 10.0.0.1/24, fd00::1/64 and 10.0.0.2/24, fd00::2/64.
func pair(t testing.TB) (director, neighbour host) {
	t.Helper()
	a, b := newHost(t), newHost(t)
	a.ip("link add eth0 type veth peer name eth0 netns " + b.name)
	for i, h := range []host{a, b} {
		h.sysctl("net/ipv6/conf/eth0/accept_dad", "0") // the lab's own addresses need not wait either
		h.ip(fmt.Sprintf("addr add 10.0.0.%d/24 brd 10.0.0.255 dev eth0\naddr add fd00::%[1]d/64 dev eth0 nodad\nlink set eth0 up", i+1))
	}
	return a, b
}

func (h host) maker() *Maker {
	m := NewMaker(Config{Logger: testLogger(h.t), Namespace: "/run/netns/" + h.name})
	h.t.Cleanup(func() { _ = m.Close() })
	return m
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

// epoch is the ownership of a test's group.
type epoch struct{ atomic.Uint64 }

func owned() *epoch {
	e := &epoch{}
	e.Store(7)
	return e
}

func env(t testing.TB, e *epoch) resources.Env {
	return resources.Env{Node: "director1", Group: "web", Logger: testLogger(t), Epoch: e.Load}
}

func make1(t testing.TB, m *Maker, v conf.VIP) *vip { return makeOwned(t, m, v, owned()) }

func makeOwned(t testing.TB, m *Maker, v conf.VIP, e *epoch) *vip {
	t.Helper()
	r, err := m.New(env(t, e), conf.Spec{}, conf.Resource{Kind: conf.KindVIP, Name: "vip", VIP: &v})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r.(*vip)
}

func started(t testing.TB, m *Maker, v conf.VIP) *vip {
	t.Helper()
	r := make1(t, m, v)
	recorded(t, r)
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func recorded(t testing.TB, r resources.Resource) json.RawMessage {
	t.Helper()
	b, err := r.Record()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func stop(t testing.TB, r resources.Resource) {
	t.Helper()
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, what, got, want string) {
	t.Helper()
	trim := func(s string) string {
		var b strings.Builder
		for line := range strings.Lines(s) {
			if l := strings.TrimSpace(line); l != "" {
				b.WriteString(l + "\n")
			}
		}
		return b.String()
	}
	if g, w := trim(got), trim(want); g != w {
		t.Errorf("%s:\n%swant\n%s", what, g, w)
	}
}

// tap receives every frame that arrives at an interface.
type tap struct {
	t  testing.TB
	fd int
}

func (h host) tap(dev string) tap {
	h.t.Helper()
	p := tap{h.t, -1}
	var err error
	h.inside(func() {
		var i *net.Interface
		if i, err = net.InterfaceByName(dev); err != nil {
			return
		}
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: rtnl.NetworkOrder(unix.ETH_P_ALL), Ifindex: i.Index})
		}
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = unix.Close(p.fd) })
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

// announced waits for all forms of one announcement of ip.
func (p tap) announced(ip string) {
	p.t.Helper()
	a := netip.MustParseAddr(ip)
	if a.Is6() {
		f := p.until("neighbour advertisement", func(f []byte) bool {
			return len(f) >= 86 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_IPV6 && f[20] == 58 && f[54] == 136 &&
				bytes.Equal(f[62:78], a.AsSlice())
		})
		mac := string(f[6:12])
		want := append([]byte(rtnl.AllNodesMAC+mac+"\x86\xdd"), rtnl.Advertisement(mac, a, false)...)
		if !bytes.Equal(f, want) {
			p.t.Errorf("advertisement\n%x want\n%x", f, want)
		}
		return
	}
	for _, op := range []uint16{rtnl.ARPRequest, rtnl.ARPReply} {
		f := p.until(fmt.Sprintf("gratuitous ARP %d", op), func(f []byte) bool {
			return len(f) >= 42 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_ARP && binary.BigEndian.Uint16(f[20:]) == op &&
				bytes.Equal(f[28:32], a.AsSlice()) && bytes.Equal(f[38:42], a.AsSlice())
		})
		mac := string(f[6:12])
		if want := append([]byte(rtnl.BroadcastMAC+mac+"\x08\x06"), rtnl.GARP(op, mac, a)...); !bytes.Equal(f[:42], want) {
			p.t.Errorf("gratuitous ARP\n%x want\n%x", f, want)
		}
	}
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

func alarmed(t testing.TB, v *vip) {
	t.Helper()
	select {
	case <-v.Alarm():
	case <-time.After(patience):
		t.Fatal("no alarm")
	}
}

func refused(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
