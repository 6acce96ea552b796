package ipvs

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func real(addr string, f conf.Forward, weight int) conf.Real {
	return conf.Real{Address: ap(addr), Forward: f, Weight: weight,
		Check: conf.Check{Type: conf.Connect, Target: ap(addr), Interval: time.Second, Timeout: time.Second, Fall: 1, Rise: 1}}
}

func virtual(addr string, reals ...conf.Real) conf.Virtual {
	a := ap(addr)
	return conf.Virtual{Address: a, Protocol: conf.TCP, Scheduler: "wlc", IPv6: a.Addr().Is6(),
		Netmask: a.Addr().BitLen(), Quiescent: true, CleanStop: true, Reals: reals}
}

// web is the pool of the example in the operator's guide.
func web() conf.Virtual {
	v := virtual("10.0.0.1:80", real("10.0.0.5:80", conf.Gate, 1), real("10.0.0.6:80", conf.Gate, 2))
	f := real("127.0.0.1:80", conf.Gate, 1)
	f.Check = conf.Check{}
	v.Fallbacks = []conf.Real{f}
	return v
}

// Up tells whether a real server of a virtual service is up.
type Up func(v Key, r conf.Real) bool

func upIf(up ...string) Up {
	return func(_ Key, r conf.Real) bool {
		for _, u := range up {
			if r.Address.String() == u {
				return true
			}
		}
		return false
	}
}

// Wanted is what the table ought to hold for services that begin with servers
// that are up and down.
func Wanted(virtuals []conf.Virtual, up Up) []Entry {
	var entries []Entry
	for _, v := range virtuals {
		v.Reals = slices.Clone(v.Reals)
		for i, r := range v.Reals {
			v.Reals[i].Check = conf.Check{Type: conf.Off}
			if up(KeyOf(v), r) {
				v.Reals[i].Check.Type = conf.On
			}
		}
		var s service
		entries = append(entries, s.step(v, inputOf(nil)).entry)
	}
	sortEntries(entries)
	return entries
}

func inputOf(health func(conf.Check) checks.Status) input {
	return input{
		now: noon, base: noon, health: health,
		checked: func(conf.Check) time.Time { return time.Time{} },
		assumed: func(netip.AddrPort) bool { return false },
		kept:    func(netip.AddrPort) bool { return false },
		stood:   func(netip.AddrPort) bool { return false },
		order:   func(netip.AddrPort) (Order, bool) { return Order{}, false },
		file:    func(conf.Real) string { return "" },
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func lines(s ...string) string {
	if len(s) == 0 {
		return ""
	}
	return strings.Join(s, "\n") + "\n"
}

func TestWanted(t *testing.T) {
	persistent := web()
	persistent.Persistent, persistent.Netmask = 600*time.Second, 24
	removing := web()
	removing.Quiescent = false
	sh := virtual("[2001:db8::1]:443", real("[2001:db8::5]:443", conf.Masq, 65535))
	sh.Scheduler, sh.Flags = "sh", []string{"sh-port", "sh-fallback"}
	sh.Persistent, sh.Netmask = 60*time.Second, 64
	sh.Reals[0].Upper, sh.Reals[0].Lower = 100, 80
	mh := virtual("10.0.0.9:53", real("10.0.1.5:53", conf.IPIP, 3))
	mh.Protocol, mh.Scheduler, mh.Flags = conf.UDP, "mh", []string{"mh-port"}
	mark := conf.Virtual{Protocol: conf.FWM, FWMark: 5, Scheduler: "rr", Netmask: 32, Reals: []conf.Real{real("10.0.0.5:0", conf.Gate, 1)}}
	mark6 := conf.Virtual{Protocol: conf.FWM, FWMark: 5, IPv6: true, Scheduler: "rr", Netmask: 128, Reals: []conf.Real{real("[2001:db8::5]:0", conf.Gate, 1)}}
	own := web()
	own.Fallbacks[0].Address = ap("10.0.0.6:80")
	own.Fallbacks[0].Forward = conf.Masq
	mapped := virtual("10.0.0.1:80", real("10.0.0.5:80", conf.Gate, 1))
	mapped.Address = netip.AddrPortFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 80)
	notPersistent := web()
	notPersistent.Netmask = 24

	tests := []struct {
		name     string
		virtuals []conf.Virtual
		up       []string
		want     string
	}{
		{"all up: no fallback", []conf.Virtual{web()}, []string{"10.0.0.5:80", "10.0.0.6:80"}, lines(
			"-A -t 10.0.0.1:80 -s wlc",
			"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1",
			"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2")},
		{"quiescent: the failed one stays with weight 0", []conf.Virtual{web()}, []string{"10.0.0.5:80"}, lines(
			"-A -t 10.0.0.1:80 -s wlc",
			"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1",
			"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0")},
		{"not quiescent: the failed one goes", []conf.Virtual{removing}, []string{"10.0.0.6:80"}, lines(
			"-A -t 10.0.0.1:80 -s wlc",
			"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2")},
		{"none up: the fallback with weight 1", []conf.Virtual{web()}, nil, lines(
			"-A -t 10.0.0.1:80 -s wlc",
			"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0",
			"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0",
			"-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 1")},
		{"none up, not quiescent: the fallback alone", []conf.Virtual{removing}, nil, lines(
			"-A -t 10.0.0.1:80 -s wlc",
			"-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 1")},
		{"the fallback is one of the servers: it stands instead", []conf.Virtual{own}, nil, lines(
			"-A -t 10.0.0.1:80 -s wlc",
			"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0",
			"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -m -w 1")},
		{"persistence with a netmask", []conf.Virtual{persistent}, []string{"10.0.0.5:80", "10.0.0.6:80"}, lines(
			"-A -t 10.0.0.1:80 -s wlc -p 600 -M 255.255.255.0",
			"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1",
			"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2")},
		{"a netmask without persistence means nothing", []conf.Virtual{notPersistent}, []string{"10.0.0.5:80", "10.0.0.6:80"}, lines(
			"-A -t 10.0.0.1:80 -s wlc",
			"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1",
			"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2")},
		{"IPv6, flags, thresholds", []conf.Virtual{sh}, []string{"[2001:db8::5]:443"}, lines(
			"-A -t [2001:db8::1]:443 -s sh -p 60 -M 64 -b sh-fallback,sh-port",
			"-a -t [2001:db8::1]:443 -r [2001:db8::5]:443 -m -w 65535 -x 100 -y 80")},
		{"UDP, ipip", []conf.Virtual{mh}, []string{"10.0.1.5:53"}, lines(
			"-A -u 10.0.0.9:53 -s mh -b mh-port",
			"-a -u 10.0.0.9:53 -r 10.0.1.5:53 -i -w 3")},
		{"one mark, two families", []conf.Virtual{mark6, mark}, []string{"10.0.0.5:0", "[2001:db8::5]:0"}, lines(
			"-A -f 5 -s rr",
			"-a -f 5 -r 10.0.0.5:0 -g -w 1",
			"-A -f 5 -6 -s rr",
			"-a -f 5 -6 -r [2001:db8::5]:0 -g -w 1")},
		{"an IPv4 address written as IPv6", []conf.Virtual{mapped}, nil, lines(
			"-A -t 10.0.0.1:80 -s wlc",
			"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0")},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, Text(Wanted(tc.virtuals, upIf(tc.up...)))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	all := []string{"10.0.0.5:80", "10.0.0.6:80"}
	state := func(v conf.Virtual, up ...string) []Entry { return Wanted([]conf.Virtual{v}, upIf(up...)) }
	removing := web()
	removing.Quiescent = false
	persistent := web()
	persistent.Persistent = 300 * time.Second
	weighted := web()
	weighted.Reals[0].Weight, weighted.Reals[0].Forward = 7, conf.Masq
	other := state(virtual("10.0.0.2:443", real("10.0.0.5:443", conf.Gate, 1)), "10.0.0.5:443")
	local := state(removing)
	local[0].Dests[0].Method = Local // what Linux before 2.6.37 makes of 127.0.0.1
	hashed := state(web(), all...)
	hashed[0].Service.Flags |= flagHashed
	sip := state(web(), all...)
	sip[0].Service.PE = "sip"
	gue := state(virtual("10.0.0.1:80", real("10.0.0.5:80", conf.IPIP, 1)), "10.0.0.5:80")
	gue[0].Dests[0].Tunnel = 1

	tests := []struct {
		name           string
		wanted, actual []Entry
		want           string
	}{
		{"from nothing: the service, then its servers", state(web(), all...), nil, lines(
			"-A -t 10.0.0.1:80 -s wlc",
			"-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1",
			"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2")},
		{"nothing to do", state(web(), all...), state(web(), all...), ""},
		{"the kernel's own flag is no difference", state(web(), all...), hashed, ""},
		{"local forwarding is no difference", state(removing), local, ""},
		{"a server fails", state(web(), "10.0.0.5:80"), state(web(), all...), lines(
			"-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0")},
		{"a server fails and goes", state(removing, "10.0.0.5:80"), state(removing, all...), lines(
			"-d -t 10.0.0.1:80 -r 10.0.0.6:80")},
		{"one in, one out: in first", state(web(), "10.0.0.6:80"), state(web(), "10.0.0.5:80"), lines(
			"-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2",
			"-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0")},
		{"the last fails: the fallback comes before it goes", state(removing), state(removing, "10.0.0.5:80"), lines(
			"-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 1",
			"-d -t 10.0.0.1:80 -r 10.0.0.5:80")},
		{"the last fails, quiescent", state(web()), state(web(), "10.0.0.5:80"), lines(
			"-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 1",
			"-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0")},
		{"one is back: it comes before the fallback goes", state(web(), "10.0.0.6:80"), state(web()), lines(
			"-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2",
			"-d -t 10.0.0.1:80 -r 127.0.0.1:80")},
		{"a service is edited in place", state(persistent, all...), state(web(), all...), lines(
			"-E -t 10.0.0.1:80 -s wlc -p 300")},
		{"a persistence engine that we do not want", state(web(), all...), sip, lines(
			"-E -t 10.0.0.1:80 -s wlc")},
		{"another tunnel", state(virtual("10.0.0.1:80", real("10.0.0.5:80", conf.IPIP, 1)), "10.0.0.5:80"), gue, lines(
			"-e -t 10.0.0.1:80 -r 10.0.0.5:80 -i -w 1")},
		{"weight and forward method are edited in place", state(weighted, all...), state(web(), all...), lines(
			"-e -t 10.0.0.1:80 -r 10.0.0.5:80 -m -w 7")},
		{"a service is dropped, the other not touched", state(web(), all...), append(state(web(), all...), other...), lines(
			"-D -t 10.0.0.2:443")},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, OpsText(Diff(tc.wanted, tc.actual))); d != "" {
				t.Error(d)
			}
		})
	}
}

// Between any two operations a service that had a server to send to still has one.
func TestDiffNeverLeavesAServiceWithoutServer(t *testing.T) {
	servers := []string{"10.0.0.5:80", "10.0.0.6:80"}
	for _, quiescent := range []bool{true, false} {
		v := web()
		v.Quiescent = quiescent
		for from := range 4 {
			for to := range 4 {
				pick := func(set int) (up []string) {
					for i, s := range servers {
						if set&(1<<i) != 0 {
							up = append(up, s)
						}
					}
					return up
				}
				k := newFakeKernel()
				k.put(Wanted([]conf.Virtual{v}, upIf(pick(from)...))...)
				want := Wanted([]conf.Virtual{v}, upIf(pick(to)...))
				for _, op := range Diff(want, k.entries()) {
					apply(t, k, op)
					alive := false
					for _, d := range k.entries()[0].Dests {
						alive = alive || d.Weight > 0
					}
					if !alive {
						t.Errorf("quiescent %v, %v to %v: no server after %s", quiescent, pick(from), pick(to), op)
					}
				}
				if d := cmp.Diff(Text(want), k.text()); d != "" {
					t.Errorf("quiescent %v, %v to %v: %s", quiescent, pick(from), pick(to), d)
				}
			}
		}
	}
}

func apply(t *testing.T, k *fakeKernel, op Op) {
	t.Helper()
	b, err := encode(fakeFamily, 0, 1, op)
	if err != nil {
		t.Fatal(err)
	}
	if errno := k.do(b[16], tree(b[20:])); errno != 0 {
		t.Fatalf("%s: %v", op, errno)
	}
}
