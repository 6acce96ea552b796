package link_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/link/linktest"
	"github.com/keepbeat/keepbeat/conf"
)

// pty is a pseudo-terminal: the far side of a serial device.
type pty struct {
	*os.File
	device string
}

func newPty(t testing.TB) pty {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := pty{os.NewFile(uintptr(fd), "ptmx"), fmt.Sprint("/dev/pts/", n)}
	t.Cleanup(func() { p.Close() })
	return p
}

// nullModem joins two pseudo-terminals, as socat would; noise may change what passes.
func nullModem(t testing.TB, a, b pty, noise func([]byte) []byte) {
	var wg sync.WaitGroup
	for _, way := range [][2]pty{{a, b}, {b, a}} {
		wg.Go(func() {
			buf := make([]byte, 300)
			for {
				n, err := way[0].Read(buf)
				switch {
				case errors.Is(err, os.ErrClosed):
					return
				case err != nil: // nobody has the device open: as a cable without its other end
					time.Sleep(time.Millisecond)
					continue
				}
				out := buf[:n]
				if noise != nil {
					out = noise(out)
				}
				_ = way[1].SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
				_, _ = way[1].Write(out)
			}
		})
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wg.Wait()
	})
}

func ttyAt(device string, baud int) conf.Link {
	return conf.Link{Type: conf.Serial, Device: device, Baud: baud}
}

func TestEveryByteCrossesASerialDevice(t *testing.T) {
	p := newPty(t) // as it is made: cooked, with echo and signals
	port, err := link.OpenSerial(ttyAt(p.device, 115200))
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	if err := port.Broadcast(all); err != nil {
		t.Fatal(err)
	}
	var raw []byte
	buf := make([]byte, 4096)
	for bytes.Count(raw, []byte{0}) < 2 {
		n, err := p.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, buf[:n]...)
	}
	if _, err := p.Write(raw); err != nil {
		t.Fatal(err)
	}
	n, _, err := port.Receive(buf)
	if err != nil || !bytes.Equal(buf[:n], all) {
		t.Errorf("got %x, %v", buf[:n], err)
	}
	_ = p.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := p.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the device echoes %x, %v", buf[:n], err)
	}
}

func TestWhySerialDevicesDoNotOpen(t *testing.T) {
	p := newPty(t)
	first, err := link.OpenSerial(ttyAt(p.device, 19200))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other := newPty(t)
	for _, c := range []struct {
		device string
		baud   int
		want   string
	}{
		{"/dev/no-such-tty", 19200, "/dev/no-such-tty: no such device"},
		{"/dev/null", 19200, "/dev/null: not a serial device"},
		{file, 19200, file + ": not a serial device"},
		{other.device, 12345, other.device + ": no rate of 12345 baud"},
		{p.device, 19200, p.device + ": another program has it locked: a terminal program, or a second keepbeat"},
	} {
		port, err := link.OpenSerial(ttyAt(c.device, c.baud))
		if err == nil {
			port.Close()
		}
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	again, err := link.OpenSerial(ttyAt(p.device, 19200))
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, _, err := again.Receive(make([]byte, 2000)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive after Close: %v", err)
	}
}

func TestWhatBecomesOfASerialDevice(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(p pty, port link.Port) // until done
		want string
	}{
		{"unplugged", func(p pty, _ link.Port) { p.Close() }, "the device has gone"},
		{"a flood", func(p pty, _ link.Port) {
			for {
				if _, err := p.Write(bytes.Repeat([]byte{0x55}, 4096)); err != nil {
					return
				}
			}
		}, "it brings more than twice what its rate allows"},
		{"nobody takes what it is given", func(_ pty, port link.Port) {
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				began := time.Now()
				if err := port.Broadcast(make([]byte, 1400)); err != nil {
					return
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("sending waited %v", took)
				}
			}
		}, "the device sends nothing of what it is given"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPty(t)
			port, err := link.OpenSerial(ttyAt(p.device, 921600))
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 1)
			go func() {
				for buf := make([]byte, 2000); ; {
					if _, _, err := port.Receive(buf); err != nil && !errors.Is(err, link.ErrNoise) {
						failed <- err
						port.Close()
						p.Close()
						return
					}
				}
			}()
			c.do(p, port)
			if err := <-failed; !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// awaitStates polls, in real time: kernels do not live in bubbles.
func awaitStates(t testing.TB, n *node, want string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); n.states() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s: %+v", want, n.Peers())
		}
	}
}

// Two meshes with a line between two pseudo-terminals that loses, flips and adds
// bytes; all network links are cut, then the device vanishes and another comes.
func TestAMeshOnRealDevices(t *testing.T) {
	var mu sync.Mutex // guards rng
	rng := rand.New(rand.NewPCG(1, 1))
	noise := func(b []byte) (out []byte) {
		mu.Lock()
		defer mu.Unlock()
		for _, x := range b {
			switch rng.IntN(3000) {
			case 0:
				continue
			case 1:
				x ^= 1 << rng.IntN(8)
			case 2:
				out = append(out, byte(rng.Uint32()))
			}
			out = append(out, x)
		}
		return out
	}
	dir := t.TempDir()
	device := func(name string) string { return filepath.Join(dir, name) }
	plug := func() (a, b pty) {
		a, b = newPty(t), newPty(t)
		for name, p := range map[string]pty{"a": a, "b": b} {
			_ = os.Remove(device(name))
			if err := os.Symlink(p.device, device(name)); err != nil {
				t.Fatal(err)
			}
		}
		nullModem(t, a, b, noise)
		return a, b
	}
	ptyA, ptyB := plug()
	m := linktest.New(1)
	n := map[string]*node{}
	for _, name := range []string{"a", "b"} {
		cfg := config(m, name)
		cfg.Nodes, cfg.Links = []string{"a", "b"}, []conf.Link{eth1, eth2, ttyAt(device(name), 38400)}
		cfg.DeadTime = 2 * time.Second // a busy machine may not run this for longer than 5 keepalives
		cfg.Open = func(l conf.Link) (link.Port, error) {
			if l.Type == conf.Serial {
				return link.OpenSerial(l)
			}
			return m.Open(name, l)
		}
		n[name] = start(t, cfg)
	}
	awaitStates(t, n["a"], "b up up up")
	awaitStates(t, n["b"], "a up up up")
	cutNetwork(m, true)
	awaitStates(t, n["a"], "b down down up")
	awaitStates(t, n["b"], "a down down up")
	const messages = 60
	for i := range messages {
		if err := n["a"].Send("b", link.ChannelLease, fmt.Appendf([]byte{1, 1}, "%60d", i)); err != nil {
			t.Fatal(err)
		}
		if n["a"].peer(t, "b").State == link.Down {
			t.Error("the peer is down while the line lives")
		}
		time.Sleep(50 * time.Millisecond)
	}
	for end := time.Now().Add(30 * time.Second); len(n["b"].received()) < messages*7/10; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) { // one byte in 1000 is bad, so is one frame in 10
			t.Fatalf("%d of %d messages arrived", len(n["b"].received()), messages)
		}
	}
	if err := n["a"].Send("b", link.ChannelQUIC, nil); err == nil || !strings.Contains(err.Error(), "a serial line carries no streams") {
		t.Errorf("a packet of a stream: %v", err)
	}
	ptyA.Close()
	ptyB.Close()
	awaitStates(t, n["a"], "b down down down")
	why := n["a"].peer(t, "b").Links[2].Why
	for _, gone := range []string{"the device has gone", "no such device", "there is no serial port behind this device", "no hello for"} {
		if strings.Contains(why, gone) {
			why = ""
		}
	}
	if why != "" {
		t.Errorf("why: %s", why)
	}
	plug()
	awaitStates(t, n["a"], "b down down up")
	awaitStates(t, n["b"], "a down down up")
	cutNetwork(m, false)
	awaitStates(t, n["a"], "b up up up")
}

// The line at work, as it always is when there is one: hellos, and the renewals
// and acknowledgements of `default`. Percent of a core for one node and its end of the cable.
func BenchmarkSerialLeases(b *testing.B) {
	ptyA, ptyB := newPty(b), newPty(b)
	nullModem(b, ptyA, ptyB, nil)
	n := map[string]*node{}
	for name, p := range map[string]pty{"a": ptyA, "b": ptyB} {
		cfg := config(linktest.New(1), name)
		cfg.Nodes, cfg.Links = []string{"a", "b"}, []conf.Link{ttyAt(p.device, 19200)}
		cfg.Open = link.OpenSerial
		n[name] = start(b, cfg)
	}
	awaitStates(b, n["a"], "b up")
	awaitStates(b, n["b"], "a up")
	const span = 5 * time.Second
	used := time.Duration(0)
	for range b.N {
		before := cpu()
		for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(125 * time.Millisecond) {
			for name, other := range map[string]string{"a": "b", "b": "a"} {
				for kind, size := range []int{20, 58} {
					if err := n[name].Send(other, link.ChannelLease, append([]byte{1, byte(kind)}, make([]byte, size-2)...)); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		used += cpu() - before
	}
	b.ReportMetric(100*float64(used)/float64(b.N)/float64(span)/2, "%core/node")
}
