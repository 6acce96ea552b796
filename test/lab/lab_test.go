package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/probe"
)

const limit = 30 * time.Second

// pair is two hosts on one switch.
func pair(t *testing.T) (l *Lab, s *Switch, one, two *Host) {
	t.Helper()
	l = New(t)
	s = l.Switch("wire")
	one, two = l.Host("one"), l.Host("two")
	one.Attach(s, "eth0", "10.0.0.1/24", "fd00::1/64")
	two.Attach(s, "eth0", "10.0.0.2/24", "fd00::2/64")
	return l, s, one, two
}

func reaches(h *Host, address string) bool {
	_, err := h.Try("ping", "-c", "1", "-W", "1", address)
	return err == nil
}

func TestHostsAreMachinesOfTheirOwn(t *testing.T) {
	_, _, one, two := pair(t)
	if name := strings.TrimSpace(one.Run("uname", "-n")); name != "one" {
		t.Errorf("uname -n on one says %q", name)
	}
	for _, file := range []string{"/run/keepbeat/x", "/etc/keepbeat/x", "/var/lib/keepbeat/x"} {
		one.Run("touch", file)
		if _, err := two.Try("ls", file); err == nil {
			t.Errorf("two sees %s of one", file)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("this machine sees %s of one", file)
		}
	}
	one.WriteFile("/etc/keepbeat/authkeys", "auth 1\n", 0o600)
	if got := one.Run("stat", "-c", "%a %s", "/etc/keepbeat/authkeys"); got != "600 7\n" {
		t.Errorf("a file written from outside is %q inside, want mode 600 and 7 bytes", got)
	}
	if n := strings.Count(one.Run("ps", "-e", "-o", "comm="), "\n"); n != 2 {
		t.Errorf("one sees %d processes, want only its first and ps", n)
	}
	if got := ExitCode(func() error { _, err := one.Try("sh", "-c", "exit 7"); return err }()); got != 7 {
		t.Errorf("exit status 7 is reported as %d", got)
	}
}

func TestHostsReachEachOtherOverASwitchOnly(t *testing.T) {
	l, _, one, two := pair(t)
	for _, address := range []string{"10.0.0.2", "fd00::2"} {
		if !reaches(one, address) {
			t.Errorf("one does not reach %s", address)
		}
	}
	other := l.Host("other")
	other.Attach(l.Switch("another wire"), "eth0", "10.0.0.3/24")
	if reaches(one, "10.0.0.3") {
		t.Error("one reaches a host on another switch")
	}
	if !two.HasAddress("fd00::2") || two.HasAddress("10.0.0.1") {
		t.Error("two does not have its own address, or has that of one")
	}
}

// answeredSince counts what was asked since then and answered: an answer that
// was under way may still come.
func answeredSince(c *Client, then probe.Instant) (n int) {
	for _, s := range c.Samples() {
		if s.Sent >= then {
			n++
		}
	}
	return n
}

func TestFaultsSilenceWhatTheyNameAndHeal(t *testing.T) {
	l, s, one, two := pair(t)
	three := l.Host("three")
	three.Attach(s, "eth0", "10.0.0.3/24")
	for _, h := range []*Host{one, two, three} {
		h.StartResponder()
	}
	fromOne, fromThree := one.Probe("10.0.0.2", 2*time.Millisecond), three.Probe("10.0.0.2", 2*time.Millisecond)
	answered := func() { // after a fault has ended
		t.Helper()
		now := probe.Now()
		fromOne.WaitAnswer("two", now, limit)
		fromThree.WaitAnswer("two", now, limit)
	}
	answered()
	carrier := func() string { return strings.TrimSpace(two.Run("cat", "/sys/class/net/eth0/carrier")) }

	for name, c := range map[string]struct {
		begin, end  func()
		threeToo    bool
		wantCarrier string
	}{
		"cable out":              {two.PortOn(s).Down, two.PortOn(s).Up, true, "0"},
		"port blocked":           {two.PortOn(s).Block, two.PortOn(s).Heal, true, "1"},
		"cannot send":            {two.PortOn(s).BlockSending, l.Heal, true, "1"},
		"cannot receive":         {two.PortOn(s).BlockReceiving, l.Heal, true, "1"},
		"partition":              {func() { l.Partition([]*Host{one}, []*Host{two}) }, l.Heal, false, "1"},
		"one way, the question":  {func() { l.DropOneWay(one, two) }, l.Heal, false, "1"},
		"one way, and no answer": {func() { l.DropOneWay(two, one) }, l.Heal, false, "1"},
	} {
		c.begin()
		now := probe.Now()
		if got := carrier(); got != c.wantCarrier {
			t.Errorf("%s: carrier %s, want %s", name, got, c.wantCarrier)
		}
		// Time for many answers, if they came. Three, where it is not concerned, shows that it was.
		if c.threeToo {
			time.Sleep(100 * time.Millisecond)
			if n := answeredSince(fromThree, now); n > 0 {
				t.Errorf("%s: three got %d answers", name, n)
			}
		} else {
			fromThree.WaitAnswer("two", now.Add(100*time.Millisecond), limit)
		}
		if n := answeredSince(fromOne, now); n > 0 {
			t.Errorf("%s: one got %d answers", name, n)
		}
		c.end()
		answered()
	}

	two.PortOn(s).Lose(500)
	now := probe.Now()
	// A quarter of them comes through, on average: 1000 questions in 2 s.
	l.Eventually(limit, "20 answers in spite of the loss", func() bool { return fromOne.Summary(now).Answers >= 20 })
	asked := float64(probe.Now().Sub(now)) / float64(2*time.Millisecond)
	if answers := float64(fromOne.Summary(now).Answers); asked > 100 && answers > 0.6*asked {
		t.Errorf("with half the frames lost in each direction %.0f of about %.0f questions were answered", answers, asked)
	}
}

func TestAnOutageIsMeasured(t *testing.T) {
	l, s, one, two := pair(t)
	two.StartResponder()
	client := one.Probe("10.0.0.2", time.Millisecond)
	client.WaitAnswer("two", client.From, limit)
	began := probe.Now()
	two.PortOn(s).Block()
	blocked := probe.Now()
	time.Sleep(300 * time.Millisecond)
	healing := probe.Now()
	two.PortOn(s).Heal()
	healed := probe.Now()
	client.WaitAnswer("two", healed, limit)
	gap := client.Outage(began)
	l.Logf("outage: %v", gap)
	if gap.Length() < healing.Sub(blocked)-50*time.Millisecond {
		t.Errorf("measured %v, although it was silent for %v", gap, healing.Sub(blocked))
	}
	if gap.Before != "two" || gap.After != "two" || gap.From < began-probe.Instant(time.Second) || gap.To < healing {
		t.Errorf("the gap is %+v (%v)", gap, gap)
	}
}

func TestATakeoverIsSeenByTheClientAndADoubledAddressByTheObservers(t *testing.T) {
	for _, c := range []struct {
		family, vip, vipNet, client string
		observers                   [2]string
	}{
		{"IPv4", "10.0.0.100", "10.0.0.100/32", "10.0.0.3/24", [2]string{"10.0.0.251/24", "10.0.0.252/24"}},
		{"IPv6", "fd00::100", "fd00::100/128", "fd00::3/64", [2]string{"fd00::251/64", "fd00::252/64"}},
	} {
		t.Run(c.family, func(t *testing.T) {
			l, s, one, two := pair(t)
			one.StartResponder()
			two.StartResponder()
			one.Run("ip", "addr", "add", c.vipNet, "dev", "eth0", "nodad")
			user := l.Host("user")
			user.Attach(s, "eth0", c.client)
			client := user.Probe(c.vip, time.Millisecond)
			ofOne := l.Observe(s, c.vip, c.observers[0], one, 2*time.Millisecond)
			ofTwo := l.Observe(s, c.vip, c.observers[1], two, 2*time.Millisecond)
			client.WaitAnswer("one", client.From, limit)
			ofOne.WaitAnswer("one", ofOne.From, limit)

			// Properly: first it goes here, then it comes there.
			now := probe.Now()
			one.Run("ip", "addr", "del", c.vipNet, "dev", "eth0")
			two.Run("ip", "addr", "add", c.vipNet, "dev", "eth0", "nodad")
			// A neighbour entry changes with the advertisement.
			user.Run("ip", "neigh", "flush", "dev", "eth0")
			client.WaitAnswer("two", now, limit)
			ofTwo.WaitAnswer("two", now, limit)
			if d := Overlap(ofOne, ofTwo); d != 0 {
				t.Errorf("two owners for %v, although one gave the address away first", d)
			}
			// And wrongly.
			now = probe.Now()
			one.Run("ip", "addr", "add", c.vipNet, "dev", "eth0", "nodad")
			ofOne.WaitAnswer("one", now, limit)
			l.Eventually(limit, "100 ms of two owners", func() bool { return Overlap(ofOne, ofTwo) >= 100*time.Millisecond })
			one.Run("ip", "addr", "del", c.vipNet, "dev", "eth0")
		})
	}
}

func TestADeadHostIsSilentAtOnceAndComesBackWithItsFilesOnly(t *testing.T) {
	_, _, one, two := pair(t)
	two.StartResponder()
	client := one.Probe("10.0.0.2", time.Millisecond)
	client.WaitAnswer("two", client.From, limit)
	two.WriteFile("/var/lib/keepbeat/log", "x", 0o600)
	two.Run("touch", "/run/keepbeat/pid")
	sleeper := two.Start("sleeper", nil, "sh", "-c", "sleep 1000 & sleep 1000")

	died := two.Die()
	if !sleeper.Wait(limit) {
		t.Fatal("a process has survived the death of its host")
	}
	for _, s := range client.Samples() {
		// The instant is the one before the cut, which needs the processor too.
		if s.At.Sub(died) > 100*time.Millisecond {
			t.Errorf("two answered %v after its death", s.At.Sub(died))
			break
		}
	}
	if !two.Dead() || two.HasAddress("10.0.0.2") {
		t.Error("the dead host has an address")
	}

	now := probe.Now()
	two.Revive()
	client.WaitAnswer("two", now, limit)
	if got := two.Run("cat", "/var/lib/keepbeat/log"); got != "x" {
		t.Errorf("after revival its file holds %q", got)
	}
	if _, err := two.Try("ls", "/run/keepbeat/pid"); err == nil {
		t.Error("a file in /run has survived")
	}
}

func TestProcessesAreStartedWatchedAndEnded(t *testing.T) {
	_, _, one, _ := pair(t)
	p := one.Start("greeter", []string{"GREETING=hello"}, "sh", "-c", "trap 'echo bye; exit 3' TERM; echo $GREETING; while :; do sleep 0.01; done")
	p.WaitLog(limit, "^hello$")
	if err := p.Terminate(limit); ExitCode(err) != 3 {
		t.Errorf("ended with %v, want exit status 3", err)
	}
	if p.Log() != "hello\nbye\n" {
		t.Errorf("log: %q", p.Log())
	}

	p = one.Start("ticker", nil, "sh", "-c", "while :; do echo tick; sleep 0.01; done")
	p.WaitLog(limit, "tick")
	p.Freeze()
	// SIGSTOP is delivered at once, but it may be writing.
	time.Sleep(50 * time.Millisecond)
	before := p.Log()
	time.Sleep(100 * time.Millisecond)
	if p.Log() != before {
		t.Error("a frozen process goes on")
	}
	p.Thaw()
	if !eventually(limit, func() bool { return len(p.Log()) > len(before) }) {
		t.Error("a thawed process does not go on")
	}
	p.Kill()
	if !p.Ended() || p.Err() == nil {
		t.Error("a killed process has not ended, or with success")
	}
}

func TestRealServersAndTheClientThatCountsErrors(t *testing.T) {
	l, _, one, two := pair(t)
	servers := two.StartHTTP("rs1", ":80", "10.0.0.2:8000-8009")
	if got := one.Run("curl", "-sf", "http://10.0.0.2:8009/"); got != "rs1\n" {
		t.Errorf("/ says %q", got)
	}
	if got := one.Run("curl", "-sf", "http://10.0.0.2/.test.html"); got != "ok\n" {
		t.Errorf("the test page says %q", got)
	}
	servers.SetSick(true)
	if got := one.Run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://10.0.0.2/.test.html"); got != "503" {
		t.Errorf("the sick server's test page has status %s", got)
	}
	servers.SetSick(false)
	one.Run("curl", "-sf", "http://10.0.0.2/.test.html")

	// A good server answers, however busy the machine; a killed one refuses at once.
	client := one.GetHTTP("http://10.0.0.2/", 5*time.Millisecond, limit)
	client.WaitAnswer("rs1", client.From, limit)
	if s := client.Summary(client.From); s.Errors > 0 {
		t.Errorf("errors with a good server: %+v", s)
	}
	now := servers.Kill()
	l.Eventually(limit, "errors with the server gone", func() bool { return client.Summary(now).Errors > 3 })
	client.Stop()

	// The address of a gate-mode real server is accepted and not announced.
	two.AddressOnLo("10.0.0.100")
	one.Run("ip", "neigh", "flush", "dev", "eth0")
	if reaches(one, "10.0.0.100") {
		t.Error("the real server answers ARP for the virtual address")
	}
	one.Neighbour("eth0", "10.0.0.100", two.ports[0].MAC)
	if !reaches(one, "10.0.0.100") {
		t.Error("the real server does not accept the virtual address")
	}
}

func TestAKilledLabLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	self := filepath.Join(temp, labDir+"999999999-1-x")
	mine := filepath.Join(temp, dirPrefix()+"x")
	for _, dir := range []string{self, mine} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeAbandoned(temp); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(self); err == nil {
		t.Error("the directory of a process that is gone was kept")
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error("the directory of a living process was removed")
	}

	// What happens at its end, when the lab can no longer do anything: standard input closes.
	l := New(t)
	h := l.Host("orphan")
	p := h.Start("sleeper", nil, "sleep", "1000")
	h.ns.stdin.Close()
	if !p.Wait(limit) {
		t.Error("a process has survived the lab")
	}
}

func TestStandaloneReportsFailuresAndCleansUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var dir string
	err := Standalone(ctx, "demo", t.Logf, func(tb TB) {
		l := New(tb)
		dir = l.dir
		l.Host("one").Run("false")
	})
	if err == nil || !strings.Contains(err.Error(), "on one: false") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); err == nil || dir == "" {
		t.Errorf("directory %q is still there", dir)
	}

	err = Standalone(ctx, "demo", t.Logf, func(tb TB) {
		l := New(tb)
		dir = l.dir
		p := l.Host("one").Start("sleeper", nil, "sleep", "1000")
		cancel()
		p.Wait(limit)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("directory %q is still there after an interruption", dir)
	}
}

func TestTheLabKernelReturnsExitStatusAndOutput(t *testing.T) {
	if got := InLabKernel(t, KernelOptions{}, "true"); got != 0 {
		t.Errorf("true: %d", got)
	}
	if got := InLabKernel(t, KernelOptions{}, "false"); got != 1 {
		t.Errorf("false: %d", got)
	}
	var stdout, stderr bytes.Buffer
	scratch := t.TempDir()
	got := InLabKernel(t, KernelOptions{Stdout: &stdout, Stderr: &stderr, Pass: []string{scratch}, Env: []string{"WORD=passed"}},
		"sh", "-c", `echo to stdout; echo to stderr >&2; echo $WORD >`+scratch+`/result; touch /etc/keepbeat-lab-was-here; kill -9 $$`)
	if got != 128+9 {
		t.Errorf("killed by signal 9: %d", got)
	}
	if stdout.String() != "to stdout\n" || stderr.String() != "to stderr\n" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
	if b, err := os.ReadFile(filepath.Join(scratch, "result")); string(b) != "passed\n" {
		t.Errorf("written to the passed directory: %q, %v", b, err)
	}
	if _, err := os.Stat("/etc/keepbeat-lab-was-here"); err == nil {
		t.Error("it has written to this machine's /etc")
	}
}

func TestTheLabKernelHasWhatADirectorNeeds(t *testing.T) {
	var out bytes.Buffer
	script := `set -ex
ip link set lo up
for s in rr wrr lc wlc fo ovf lblc lblcr dh sh mh sed nq twos; do
	ipvsadm -A -u 10.0.0.9:53 -s $s
	ipvsadm -D -u 10.0.0.9:53
done
ipvsadm -A -t 10.0.0.1:80 -s wlc -p 300
ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.2 -g -w 3
ipvsadm -A -t [fd00::1]:80 -s mh
ipvsadm -A -f 7 -s twos
ipvsadm -Sn
ip link add d0 type dummy
ip link add v0 type veth peer name v1
ip link add link v0 name m0 type macvlan
ip link add b0 type bridge
ip link set v1 master b0
tc qdisc add dev d0 clsact
tc qdisc add dev v0 root netem delay 5ms
nft 'add table inet a; add chain inet a c { type filter hook prerouting priority raw; }; add table arp b; add table bridge d; add table netdev e'
test -e /proc/sys/kernel/unprivileged_bpf_disabled
`
	if status := InLabKernel(t, KernelOptions{Stdout: &out, Stderr: &out}, "sh", "-c", script); status != 0 {
		t.Fatalf("exit status %d:\n%s", status, out.String())
	}
	for _, line := range []string{"-A -t 10.0.0.1:80 -s wlc -p 300", "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -g -w 3", "-A -t [fd00::1]:80 -s mh", "-A -f 7 -s twos"} {
		if !strings.Contains(out.String(), line+"\n") {
			t.Errorf("ipvsadm -Sn does not show %q:\n%s", line, out.String())
		}
	}
}

func TestTheServiceUnitsAreValid(t *testing.T) {
	units, err := filepath.Glob("../../scripts/*.service")
	if err != nil || len(units) < 2 {
		t.Fatal("units", units, err)
	}
	// systemd looks whether the programs are there; the one of these units is installed elsewhere.
	stub := filepath.Join(t.TempDir(), "keepbeat")
	if err := os.WriteFile(stub, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, source := range units {
		name := filepath.Base(source)
		t.Run(name, func(t *testing.T) {
			unit, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, bytes.ReplaceAll(unit, []byte("/usr/sbin/keepbeat"), []byte(stub)), 0o644); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			out, err := exec.CommandContext(ctx, "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path).CombinedOutput()
			if err != nil {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
			if strings.Contains(string(out), name) {
				t.Errorf("systemd has something to say about the unit:\n%s", out)
			}
		})
	}
}
