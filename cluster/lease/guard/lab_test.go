package guard

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const testOwner = "kbguardtest"

// lab is a director and a client on one wire.
//
//	director kbgd 10.77.0.1 fd77::1, holds addresses 10.77.0.100 fd77::100
//	client   kbgc 10.77.0.2 fd77::2
type lab struct {
	t                *testing.T
	director, client string // namespaces
	dmac, cmac       net.HardwareAddr
}

const (
	vip4, vip6       = "10.77.0.100", "fd77::100"
	dir4, dir6       = "10.77.0.1", "fd77::1"
	cli4, cli6       = "10.77.0.2", "fd77::2"
	dirName, cliName = "kbgd", "kbgc"
)

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, director: fmt.Sprintf("kbguard-%d-d", os.Getpid()), client: fmt.Sprintf("kbguard-%d-c", os.Getpid())}
	for _, ns := range []string{l.director, l.client} {
		run(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { run(t, "ip", "netns", "del", ns) })
		run(t, "ip", "-n", ns, "link", "set", "lo", "up")
	}
	l.veth(dirName, cliName)
	l.ip(l.director, "addr add "+dir4+"/24 dev "+dirName)
	l.ip(l.director, "addr add "+vip4+"/32 dev "+dirName)
	l.ip(l.director, "addr add "+dir6+"/64 dev "+dirName+" nodad")
	l.ip(l.director, "addr add "+vip6+"/128 dev "+dirName+" nodad")
	l.ip(l.client, "addr add "+cli4+"/24 dev "+cliName)
	l.ip(l.client, "addr add "+cli6+"/64 dev "+cliName+" nodad")
	l.ip(l.director, "link set "+dirName+" up")
	l.ip(l.client, "link set "+cliName+" up")
	l.dmac, l.cmac = l.mac(l.director, dirName), l.mac(l.client, cliName)
	return l
}

func (l *lab) ip(ns, args string) {
	l.t.Helper()
	run(l.t, "ip", append([]string{"-n", ns}, strings.Fields(args)...)...)
}

// veth makes a pair from the director to the client, down.
func (l *lab) veth(d, c string) {
	l.t.Helper()
	l.ip(l.director, fmt.Sprintf("link add %s type veth peer name %s netns %s", d, c, l.client))
}

func (l *lab) mac(ns, name string) (mac net.HardwareAddr) {
	l.t.Helper()
	l.in(ns, func() {
		i, err := net.InterfaceByName(name)
		if err != nil {
			l.t.Error(err)
			return
		}
		mac = i.HardwareAddr
	})
	return mac
}

// in runs f on a thread of a namespace, which ends with it. f must not call t.Fatal.
func (l *lab) in(ns string, f func()) {
	l.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		h, err := netns.GetFromName(ns)
		if err == nil {
			err = netns.Set(h)
			h.Close()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		l.t.Fatalf("entering namespace %s: %v", ns, err)
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// alarms collects what a guard says.
type alarms struct {
	mu   sync.Mutex // guards msgs
	msgs []string
}

func (a *alarms) add(m string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.msgs = append(a.msgs, m)
}

func (a *alarms) all() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.msgs, "\n")
}

// open opens a guard in the director's namespace.
func (l *lab) open() (*Guard, *alarms) {
	l.t.Helper()
	var (
		g   *Guard
		err error
		a   = &alarms{}
	)
	l.in(l.director, func() { g, err = Open(context.Background(), Config{Owner: testOwner, Alarm: a.add}) })
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { g.Close() })
	return g, a
}

func (l *lab) inspect() (s Status) {
	l.t.Helper()
	var err error
	l.in(l.director, func() { s, err = Inspect(context.Background(), Config{Owner: testOwner}) })
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) clear() {
	l.t.Helper()
	var err error
	l.in(l.director, func() { err = Clear(context.Background(), Config{Owner: testOwner}) })
	if err != nil {
		l.t.Fatal(err)
	}
}

// run starts g.Run and ends it with the test, or before.
func (l *lab) run(g *Guard) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	l.t.Cleanup(stop)
	return stop
}

// patience is how long something may take that must happen; it is never waited for in full when it does.
const patience = 20 * time.Second

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func sum16(b ...[]byte) uint16 {
	var s uint32
	all := cat(b...)
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	for i := 0; i < len(all); i += 2 {
		s += uint32(binary.BigEndian.Uint16(all[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// packet4 is ip4 with a header checksum, for a kernel that reads it.
func packet4(src, dst string, proto byte, payload []byte) []byte {
	p := ip4(src, dst, ip4opt{proto: proto}, payload)
	binary.BigEndian.PutUint16(p[10:], sum16(p[:20]))
	return p
}

func echo4(src, dst string, typ byte) []byte {
	m := []byte{typ, 0, 0, 0, 0, 7, 0, 1, 'k', 'b', 'g', 'u', 'a', 'r', 'd', '.'}
	binary.BigEndian.PutUint16(m[2:], sum16(m))
	return packet4(src, dst, 1, m)
}

func icmp6(src, dst string, m []byte) []byte {
	binary.BigEndian.PutUint16(m[2:], sum16(addr(src), addr(dst), be16(0), be16(len(m)), be16(0), be16(58), m))
	return ip6(src, dst, 58, m)
}

func (l *lab) fromClient(typ int, p []byte) []byte { return cat(l.dmac, l.cmac, be16(typ), p) }

func is4(src string) func([]byte) bool {
	return func(f []byte) bool {
		return len(f) >= 34 && bytes.Equal(f[12:14], be16(ethPIP)) && bytes.Equal(f[26:30], addr(src))
	}
}

// the client's questions to the director

func (l *lab) ping4(dst string) probe {
	return probe{"ping " + dst, l.fromClient(ethPIP, echo4(cli4, dst, 8)), is4(dst)}
}

func (l *lab) arp(target string) probe {
	frame := cat(bytes.Repeat([]byte{0xff}, 6), l.cmac, be16(ethPARP),
		be16(1), be16(ethPIP), []byte{6, 4}, be16(1), l.cmac, addr(cli4), make([]byte, 6), addr(target))
	return probe{"ARP for " + target, frame, func(f []byte) bool {
		return len(f) >= 42 && bytes.Equal(f[12:14], be16(ethPARP)) && bytes.Equal(f[28:32], addr(target))
	}}
}

func (l *lab) ping6(dst string) probe {
	m := []byte{128, 0, 0, 0, 0, 7, 0, 1, 'k', 'b', 'g', 'u', 'a', 'r', 'd', '.'}
	return probe{"ping " + dst, l.fromClient(ethPIPv6, icmp6(cli6, dst, m)), func(f []byte) bool {
		return len(f) >= 55 && bytes.Equal(f[12:14], be16(ethPIPv6)) && f[20] == 58 && f[54] == 129 && bytes.Equal(f[22:38], addr(dst))
	}}
}

func (l *lab) ndp(target string) probe {
	m := cat(neighbour(135, target), []byte{1, 1}, l.cmac)
	return probe{"neighbour solicitation for " + target, l.fromClient(ethPIPv6, icmp6(cli6, target, m)), func(f []byte) bool {
		return len(f) >= 78 && bytes.Equal(f[12:14], be16(ethPIPv6)) && f[54] == 136 && bytes.Equal(f[62:78], addr(target))
	}}
}

// held and unheld are all kinds of questions about the guarded addresses and the director's own.
func (l *lab) held() []probe { return []probe{l.ping4(vip4), l.arp(vip4), l.ping6(vip6), l.ndp(vip6)} }
func (l *lab) unheld() []probe {
	return []probe{l.ping4(dir4), l.arp(dir4), l.ping6(dir6), l.ndp(dir6)}
}

func (l *lab) wantOpen(w *wire) {
	l.t.Helper()
	for _, p := range append(l.held(), l.unheld()...) {
		l.reaches(w, w, p)
	}
}

func (l *lab) wantStopped(w *wire) {
	l.t.Helper()
	others := l.unheld()
	for i, p := range l.held() {
		l.stopped(w, w, p, others[i])
	}
}

func vips() []netip.Addr { return []netip.Addr{netip.MustParseAddr(vip4), netip.MustParseAddr(vip6)} }

// TestMain is also the program of the child: a daemon that can be killed.
func TestMain(m *testing.M) {
	if os.Getenv("KBGUARD_CHILD") != "" {
		if err := child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child opens a guard, holds the addresses, and sets each deadline that it
// reads as nanoseconds from now, answering with the absolute one.
func child(in io.Reader, out io.Writer) error {
	g, err := Open(context.Background(), Config{Owner: testOwner})
	if err != nil {
		return err
	}
	go g.Run(context.Background())
	if err := g.Hold(vips()...); err != nil {
		return err
	}
	fmt.Fprintln(out, int64(g.Deadline()))
	for s := bufio.NewScanner(in); s.Scan(); {
		d, err := time.ParseDuration(s.Text())
		if err != nil {
			return err
		}
		if err := g.SetDeadline(BootNow() + d); err != nil {
			return err
		}
		fmt.Fprintln(out, int64(g.Deadline()))
	}
	return nil
}

type daemon struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Scanner
	dead bool
}

func (l *lab) daemon() *daemon {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", l.director, self) // ip executes it: same process id
	cmd.Env = append(os.Environ(), "KBGUARD_CHILD=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	d := &daemon{t: l.t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
	l.t.Cleanup(d.kill)
	d.deadline()
	return d
}

func (d *daemon) deadline() time.Duration {
	d.t.Helper()
	var v int64
	if !d.out.Scan() {
		d.t.Fatalf("the daemon ended: %v", d.out.Err())
	}
	if _, err := fmt.Sscan(d.out.Text(), &v); err != nil {
		d.t.Fatal(err)
	}
	return time.Duration(v)
}

// renew makes the daemon's lease live for so long, and returns the absolute deadline.
func (d *daemon) renew(length time.Duration) time.Duration {
	d.t.Helper()
	fmt.Fprintln(d.in, length)
	return d.deadline()
}

func (d *daemon) kill() {
	if !d.dead {
		d.dead = true
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
	}
}

// passed waits until the kernel's clock is past a deadline.
func passed(deadline time.Duration) {
	for BootNow() < deadline {
		time.Sleep(deadline - BootNow())
	}
}

// otherFilter puts a filter of somebody else on the director's interface, whose program says TC_ACT_OK.
func (l *lab) otherFilter(d direction, prio uint16) {
	l.t.Helper()
	var err error
	l.in(l.director, func() { err = addOther(d, prio) })
	if err != nil {
		l.t.Fatal(err)
	}
}

func addOther(d direction, prio uint16) error {
	p, err := constProgram("other", 0)
	if err != nil {
		return err
	}
	defer p.Close()
	i, err := net.InterfaceByName(dirName)
	if err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.FilterAdd(filter{prio: prio, proto: unix.ETH_P_ALL, name: "other"}.netlink(i.Index, d, p.FD()))
}
