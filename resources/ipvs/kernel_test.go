//go:build labkernel

package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

const inNamespace = "KEEPBEAT_IPVS_TEST_NAMESPACE"

// TestMain runs the tests in a network namespace of their own: the machine's
// table, where it has one, is not theirs.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		err := cmd.Run()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			os.Exit(max(1, exit.ExitCode()))
		case err != nil:
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Without addresses of its own a namespace takes every address for a broadcast.
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		fmt.Fprintln(os.Stderr, err, string(out))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func ipvsadm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ipvsadm", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ipvsadm %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// saved is the table as ipvsadm saves it, sorted: it has the kernel's order.
func saved(t *testing.T) string {
	t.Helper()
	// Its newer versions write what is the default.
	return sorted(strings.ReplaceAll(ipvsadm(t, "-S", "-n"), " --tun-type ipip", ""))
}

func sorted(s string) string {
	var all []string
	for line := range strings.Lines(s) {
		all = append(all, strings.TrimRight(line, " \n"))
	}
	slices.Sort(all)
	return lines(all...)
}

func newLabKernel(t *testing.T) *Kernel {
	t.Helper()
	k := NewKernel(KernelConfig{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ipvsadm(t, "-C")
	t.Cleanup(func() {
		ipvsadm(t, "-C")
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func keys(entries []Entry) []Key {
	var ks []Key
	for _, e := range entries {
		ks = append(ks, e.Service.Key)
	}
	return ks
}

// become makes the table what is wanted and checks it with ipvsadm's eyes and with ours.
func become(t *testing.T, k *Kernel, wanted []Entry, more ...Key) {
	t.Helper()
	all := append(keys(wanted), more...)
	got, err := settle(t.Context(), k, wanted, all, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range got.Left {
		t.Error(l.Err)
	}
	// ipvsadm does not save thresholds: TestKernelThresholds looks at them.
	if d := cmp.Diff(sorted(withoutThresholds.ReplaceAllString(Text(wanted), "")), saved(t)); d != "" {
		t.Errorf("ipvsadm sees another table (-wanted +ipvsadm):\n%s", d)
	}
	if again, err := settle(t.Context(), k, wanted, all, true); err != nil || len(again.Before) != 0 {
		t.Errorf("the second time there is still something to do: %v, %v", OpsText(again.Before), err)
	}
}

var withoutThresholds = regexp.MustCompile(` -[xy] \d+`)

func TestKernelThresholds(t *testing.T) {
	k := newLabKernel(t)
	v := virtual("10.0.0.4:80", real("10.0.1.5:80", conf.Gate, 1))
	v.Reals[0].Upper, v.Reals[0].Lower = 1000, 800
	become(t, k, Wanted([]conf.Virtual{v}, allUp))
	if out := ipvsadm(t, "-L", "-n", "--thresholds"); !regexp.MustCompile(`10\.0\.1\.5:80\s+1000\s+800\s`).MatchString(out) {
		t.Errorf("ipvsadm sees other thresholds:\n%s", out)
	}
}

func allUp(Key, conf.Real) bool  { return true }
func noneUp(Key, conf.Real) bool { return false }

func TestKernelSchedulers(t *testing.T) {
	k := newLabKernel(t)
	schedulers := []string{"rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos"}
	var all []conf.Virtual
	for i, name := range schedulers {
		v := virtual(fmt.Sprintf("10.0.0.%d:80", i+1), real("10.0.1.5:80", conf.Gate, 1))
		v.Scheduler = name
		if name == "twos" && !hasScheduler(t, name) {
			t.Logf("this kernel has no scheduler twos")
			continue
		}
		all = append(all, v)
	}
	become(t, k, Wanted(all, allUp))

	// From each to the next, in place.
	ops := []string{}
	for i := range all {
		all[i].Scheduler = all[(i+1)%len(all)].Scheduler
		ops = append(ops, all[i].Scheduler)
	}
	become(t, k, Wanted(all, allUp))
	if len(ops) == 0 {
		t.Error("nothing was tried")
	}
}

func hasScheduler(t *testing.T, name string) bool {
	t.Helper()
	if exec.Command("ipvsadm", "-A", "-t", "10.9.9.9:9", "-s", name).Run() != nil {
		return false
	}
	ipvsadm(t, "-D", "-t", "10.9.9.9:9")
	return true
}

func kernelZoo() []conf.Virtual {
	udp := virtual("10.0.0.2:53", real("10.0.1.5:53", conf.Masq, 65535), real("10.0.1.6:5353", conf.Masq, 0))
	udp.Protocol, udp.Scheduler = conf.UDP, "sh"
	udp.Flags = []string{"sh-port"}
	persistent := virtual("10.0.0.3:443", real("10.0.1.5:443", conf.IPIP, 3), real("10.0.1.6:443", conf.Gate, 2))
	persistent.Persistent, persistent.Netmask = 1800*time.Second, 20
	v6 := virtual("[2001:db8::1]:80", real("[2001:db8::5]:80", conf.Gate, 1), real("[2001:db8::6]:8080", conf.Masq, 4), real("[2001:db8::7]:80", conf.IPIP, 4))
	v6.Scheduler, v6.Flags = "mh", []string{"mh-port", "mh-fallback"}
	v6p := virtual("[2001:db8::2]:25", real("[2001:db8::5]:25", conf.Gate, 1))
	v6p.Persistent, v6p.Netmask = 60*time.Second, 64
	limits := virtual("10.0.0.4:80", real("10.0.1.5:80", conf.Gate, 1))
	limits.Reals[0].Upper, limits.Reals[0].Lower = 1000, 800
	mark := conf.Virtual{Protocol: conf.FWM, FWMark: 2000000000, Scheduler: "wlc", Netmask: 32, Quiescent: true,
		Reals: []conf.Real{real("10.0.1.5:0", conf.Gate, 1), real("10.0.1.6:8080", conf.Masq, 1)}}
	mark6 := conf.Virtual{Protocol: conf.FWM, FWMark: 5, IPv6: true, Scheduler: "wrr", Netmask: 128, Persistent: 300 * time.Second,
		Reals: []conf.Real{real("[2001:db8::5]:0", conf.Gate, 1)}}
	mark4 := mark
	mark4.FWMark = 5
	rare := []conf.Virtual{web(), udp, persistent, v6, v6p, limits, mark, mark6, mark4}
	tunnels := through()
	tunnels.Address = ap("10.0.0.5:80")
	return append(append(rare, tunnels), special()...)
}

func TestKernelEveryKindOfService(t *testing.T) {
	k := newLabKernel(t)
	zoo := kernelZoo()
	all := keys(Wanted(zoo, allUp))
	become(t, k, Wanted(zoo, allUp))
	become(t, k, Wanted(zoo, noneUp))
	for i := range zoo { // what was persistent is not any more, and the other way round
		if zoo[i].Persistent > 0 {
			zoo[i].Persistent = 0
		} else {
			zoo[i].Persistent, zoo[i].Netmask = 120*time.Second, 16
		}
		zoo[i].Flags, zoo[i].Scheduler = nil, "wrr"
		zoo[i].OPS, zoo[i].Engine = zoo[i].Protocol == conf.UDP && !zoo[i].OPS, ""
		for j := range zoo[i].Reals {
			if zoo[i].Reals[j].Address.Addr().Is6() == zoo[i].IPv6 { // only tunnels change the family
				zoo[i].Reals[j].Forward = zoo[i].Reals[j].Forward%3 + 1
			}
			zoo[i].Reals[j].Weight += 3
			zoo[i].Reals[j].Upper, zoo[i].Reals[j].Lower = 20, 10
		}
	}
	for i := range zoo {
		zoo[i].Quiescent = false
		for j := range zoo[i].Reals {
			zoo[i].Reals[j].Weight = min(zoo[i].Reals[j].Weight, 65535)
		}
	}
	become(t, k, Wanted(zoo, allUp), all...)
	become(t, k, Wanted(zoo, noneUp), all...)
	become(t, k, nil, all...)
}

// The fallback to 127.0.0.1 is read back as we set it or as local, and is no difference.
func TestKernelFallbackOnThisNode(t *testing.T) {
	k := newLabKernel(t)
	v := web()
	become(t, k, Wanted([]conf.Virtual{v}, noneUp))
	v.Fallbacks[0].Forward = conf.Masq
	become(t, k, Wanted([]conf.Virtual{v}, noneUp))
}

func TestKernelLeavesOtherServicesAlone(t *testing.T) {
	k := newLabKernel(t)
	ipvsadm(t, "-A", "-t", "10.0.0.1:81", "-s", "rr")
	ipvsadm(t, "-a", "-t", "10.0.0.1:81", "-r", "10.0.1.9:81", "-m")
	ipvsadm(t, "-A", "-u", "10.0.0.1:80", "-s", "rr")
	ipvsadm(t, "-A", "-f", "7", "-s", "sh")
	ipvsadm(t, "-A", "--sctp-service", "10.0.0.1:80", "-s", "rr")
	before := saved(t)
	wanted := Wanted([]conf.Virtual{web()}, allUp)
	if _, err := settle(t.Context(), k, wanted, keys(wanted), true); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sorted(before+Text(wanted)), saved(t)); d != "" {
		t.Error(d)
	}
	if err := remove(t.Context(), k, keys(wanted), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, saved(t)); d != "" {
		t.Error(d)
	}
}

func TestKernelSaysWhatItRefuses(t *testing.T) {
	k := newLabKernel(t)
	v := web()
	v.Scheduler = "nosuch"
	bad := virtual("10.0.0.7:80", real("224.0.0.1:80", conf.Gate, 1), real("10.0.1.5:80", conf.Gate, 1))
	wanted := Wanted([]conf.Virtual{v, bad}, allUp)
	got, err := settle(t.Context(), k, wanted, keys(wanted), true)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, l := range got.Left {
		said = append(said, l.Err.Error())
	}
	slices.Sort(said)
	all := strings.Join(said, "\n")
	t.Log(all)
	for _, want := range []string{`no scheduler "nosuch"`, "-r 224.0.0.1:80 -g -w 1: invalid argument"} {
		if !strings.Contains(all, want) {
			t.Errorf("not said: %s", want)
		}
	}
	if want := "-A -t 10.0.0.7:80 -s wlc\n-a -t 10.0.0.7:80 -r 10.0.1.5:80 -g -w 1\n"; saved(t) != want {
		t.Errorf("the rest was not done:\n%s", saved(t))
	}
}

// The whole resource on the real table: started, a server lost, the table
// cleared by somebody, updated, stopped.
func TestKernelPool(t *testing.T) {
	k := newLabKernel(t)
	checks := newFakeChecks()
	m := NewMaker(Config{Checks: checks, Table: k})
	v := web()
	spec, r := specOf(v)
	res, err := m.New(resources.Env{Node: "n", Group: "web", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, spec, r)
	if err != nil {
		t.Fatal(err)
	}
	p := res.(*pool)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	checks.waitFor(t, v.Reals[0].Check, v.Reals[1].Check)
	checks.set(v.Reals[0].Check, true)
	checks.set(v.Reals[1].Check, true)
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	eventually := func(what string, up ...string) {
		t.Helper()
		want := sorted(Text(Wanted([]conf.Virtual{v}, upIf(up...))))
		for end := time.Now().Add(20 * time.Second); saved(t) != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: (-want +ipvsadm)\n%s", what, cmp.Diff(want, saved(t)))
			}
		}
	}
	eventually("started", "10.0.0.5:80", "10.0.0.6:80")
	checks.set(v.Reals[0].Check, false)
	eventually("one fails", "10.0.0.6:80")
	checks.set(v.Reals[1].Check, false)
	eventually("both fail")
	ipvsadm(t, "-C")
	eventually("cleared by somebody")
	checks.set(v.Reals[0].Check, true)
	eventually("one is back", "10.0.0.5:80")
	ipvsadm(t, "-E", "-t", "10.0.0.1:80", "-s", "rr")
	eventually("edited by somebody", "10.0.0.5:80")
	v.Reals[0].Weight = 9
	if err := p.Update(ctx, func() conf.Spec { s, _ := specOf(v); return s }(), r); err != nil {
		t.Fatal(err)
	}
	eventually("updated", "10.0.0.5:80")
	if err := p.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if s := saved(t); s != "" {
		t.Errorf("after the stop:\n%s", s)
	}
}

func many(services, reals int) []conf.Virtual {
	var all []conf.Virtual
	for i := range services {
		var rs []conf.Real
		for j := range reals {
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 128 + byte(j>>8), byte(j), 1 + byte(i%200)}), 80)
			rs = append(rs, real(a.String(), conf.Gate, 1))
		}
		all = append(all, virtual(fmt.Sprintf("10.1.%d.%d:80", i>>8, i&255), rs...))
	}
	return all
}

// Figures for DESIGN section 5; they are printed and not judged, since the lab
// kernel's processor is a slow one.
func TestKernelTimes(t *testing.T) {
	k := newLabKernel(t)
	for _, shape := range [][2]int{{1, 1000}, {1000, 10}} {
		wanted := Wanted(many(shape[0], shape[1]), allUp)
		all := keys(wanted)
		for range 3 {
			begin := time.Now()
			got, err := settle(t.Context(), k, wanted, all, true)
			if err != nil || len(got.Left) > 0 {
				t.Fatalf("%v, %d refused", err, len(got.Left))
			}
			programmed := time.Since(begin)
			begin = time.Now()
			if got, err = settle(t.Context(), k, wanted, all, true); err != nil || len(got.Before) > 0 {
				t.Fatalf("%v %d", err, len(got.Before))
			}
			looked := time.Since(begin)
			begin = time.Now()
			if err := remove(t.Context(), k, all, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			fmt.Printf(`{"bench":"ipvs","services":%d,"reals_each":%d,"program_and_verify_ms":%d,"look_ms":%d,"remove_ms":%d}`+"\n",
				shape[0], shape[1], programmed.Milliseconds(), looked.Milliseconds(), time.Since(begin).Milliseconds())
		}
	}
	ipvsadm(t, "-C")
}
