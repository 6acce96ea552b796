package realserver

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// inNamespace runs f in a network namespace of its own, on a thread that dies with it.
func inNamespace(t *testing.T, f func(*testing.T)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("a network namespace needs root: %v", err)
			return
		}
		f(t)
	}()
	<-done
}

func command(t *testing.T, name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// everything is what ip and sysctl tell of a namespace.
func everything(t *testing.T) string {
	// What was up once has another queue than what never was.
	links := strings.ReplaceAll(command(t, "ip", "-o", "link"), "qdisc noop ", "qdisc noqueue ")
	return command(t, "ip", "-o", "address") + links + command(t, "sysctl", "-a", "--pattern", `net\.ipv4\.conf\..*\.(arp|rp_filter)`)
}

func TestTheKernelIsAfterwardsAsItWas(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		command(t, "ip", "link", "set", "lo", "up")
		command(t, "sysctl", "-q", "-w", "net.ipv4.conf.all.arp_announce=1")
		before := everything(t)
		h := New(t.TempDir())
		both := []conf.RealServer{side("192.0.2.1", conf.Gate), side("2001:db8::1", conf.Gate)}
		if err := h.Start("command", both); err != nil {
			t.Error(err)
			return
		}
		if err := h.Start("command", both); err != nil {
			t.Errorf("a second start: %v", err)
		}
		_, lines, err := h.Status()
		if err != nil || len(lines) != 4 {
			t.Errorf("status: %v, %v", lines, err)
		}
		for _, l := range lines {
			if !l.There || !l.Ours {
				t.Errorf("%v: there %v, ours %v, now %q", l.Step, l.There, l.Ours, l.Now)
			}
		}
		out := command(t, "ip", "-o", "address", "show", "dev", "lo")
		for _, want := range []string{"inet 192.0.2.1/32 scope host lo", "inet6 2001:db8::1/128 scope global nodad deprecated"} {
			if !strings.Contains(out, want) {
				t.Errorf("lo has no %q:\n%s", want, out)
			}
		}
		if strings.Contains(out, "tentative") {
			t.Errorf("an address is tentative:\n%s", out)
		}
		if notes, err := h.Stop("command", nil); err != nil || len(notes) > 0 {
			t.Errorf("stop: %q, %v", notes, err)
		}
		if after := everything(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

func TestAnAddressThatStoodBeforeStays(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		command(t, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
		before := everything(t)
		h := New(t.TempDir())
		if err := h.Start("command", []conf.RealServer{side("192.0.2.1", conf.Gate)}); err != nil {
			t.Error(err)
		}
		if _, err := h.Stop("command", nil); err != nil {
			t.Error(err)
		}
		if after := everything(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// Two directors would see two answers: the machine must be silent about the
// address on the wire, while it takes packets for it.
func TestNobodyAnswersForTheAddressOnTheWire(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		peer := exec.Command("unshare", "-n", "sleep", "60")
		if err := peer.Start(); err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = peer.Process.Kill(); _ = peer.Wait() }()
		pid := peer.Process.Pid
		awaitNamespace(t, pid)
		nsenter := func(args ...string) string {
			return command(t, "nsenter", append([]string{"-t", strconv.Itoa(pid), "-n"}, args...)...)
		}
		command(t, "ip", "link", "add", "real0", "type", "veth", "peer", "name", "client0", "netns", strconv.Itoa(pid))
		command(t, "ip", "address", "add", "10.77.0.2/24", "dev", "real0")
		command(t, "ip", "link", "set", "real0", "up")
		command(t, "ip", "link", "set", "lo", "up")
		nsenter("ip", "address", "add", "10.77.0.1/24", "dev", "client0")
		nsenter("ip", "link", "set", "client0", "up")
		vip := netip.MustParseAddr("10.77.0.100")
		h := New(t.TempDir())
		if err := h.Start("command", []conf.RealServer{{Address: vip, Forward: conf.Gate}}); err != nil {
			t.Error(err)
			return
		}
		out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-n", "ping", "-c", "1", "-W", "1", vip.String()).CombinedOutput()
		if err == nil {
			t.Errorf("the address answers on the wire:\n%s", out)
		}
		// What a director sends by gate is the client's packet with our MAC.
		link := command(t, "ip", "-o", "link", "show", "real0")
		_, rest, found := strings.Cut(link, "link/ether ")
		if !found {
			t.Errorf("real0 has no MAC: %s", link)
			return
		}
		mac := strings.Fields(rest)[0]
		nsenter("ip", "neighbour", "replace", vip.String(), "lladdr", mac, "dev", "client0")
		nsenter("ping", "-c", "1", "-W", "5", vip.String())
	})
}

// awaitNamespace waits until a child has left our network namespace.
func awaitNamespace(t *testing.T, pid int) {
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
		return
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ns, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/net"); err == nil && ns != own {
			return
		}
	}
	t.Error("the peer has no network namespace of its own after 30 s")
}
