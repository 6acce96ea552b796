//go:build labkernel

package kernel

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

const (
	// seedVariable repeats the changes of another run, and countVariable says how
	// many there are: 20 without it, 200 in `make test-lab-kernel RUN=ManyApplies APPLIES=200`.
	seedVariable  = "KEEPBEAT_APPLY_SEED"
	countVariable = "KEEPBEAT_APPLIES"
	// Ports of the services that change; those of the untouched ones are 80 and 8100.
	firstPort, lastPort = 8001, 8012
)

// untouched are services that no change is about. They share every server with
// those that change.
const untouched = `checkinterval: 2s
checktimeout: 20s
virtual:
  - address: ` + vip + `:80
    real: [` + real1 + `:80 gate, ` + real2 + `:80 gate 2, ` + real3 + `:80 gate]
    service: http
    request: .test.html
    receive: ok
    scheduler: wlc
  - address: ` + vip + `:8100
    real: [` + real1 + `:8100 gate, ` + real2 + `:8100 gate]
    service: http
    checktype: connect
    scheduler: rr
    persistent: 10m
`

const untouchedTable = `-A -t 192.168.56.200:80 -s wlc
-A -t 192.168.56.200:8100 -s rr -p 600
-a -t 192.168.56.200:80 -r 192.168.56.103:80 -g -w 1
-a -t 192.168.56.200:80 -r 192.168.56.104:80 -g -w 2
-a -t 192.168.56.200:80 -r 192.168.56.105:80 -g -w 1
-a -t 192.168.56.200:8100 -r 192.168.56.103:8100 -g -w 1
-a -t 192.168.56.200:8100 -r 192.168.56.104:8100 -g -w 1
`

// drawn is a virtual service as the random changes have it.
type drawn struct {
	scheduler  string
	persistent int // minutes; 0: not
	check      string
	quiescent  bool
	fallback   bool
	weights    [3]int // of each server; -1: it has not this one
	upper      int    // threshold of each server; 0: none
}

// checkLines are the checks that are drawn, by the lines of the file, and what they find.
var checkLines = map[string]struct {
	lines string
	up    bool
}{
	"page":    {"    service: http\n    request: .test.html\n    receive: ok\n", true},
	"wrong":   {"    service: http\n    request: .test.html\n    receive: something else\n", false},
	"connect": {"    service: http\n    checktype: connect\n", true},
	"ping":    {"    service: http\n    checktype: ping\n", true},
	"on":      {"    checktype: on\n", true},
	"off":     {"    checktype: off\n", false},
}

func draw(r *rand.Rand) drawn {
	d := drawn{weights: [3]int{-1, -1, -1}, quiescent: true}
	d.weights[r.IntN(3)] = 1
	for range 3 {
		d.change(r)
	}
	return d
}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

// change changes one thing of a service.
func (d *drawn) change(r *rand.Rand) {
	switch r.IntN(10) {
	case 0:
		d.scheduler = pick(r, "rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq")
	case 1:
		d.persistent = r.IntN(3) * 5
	case 2, 3:
		d.check = pick(r, "page", "page", "wrong", "connect", "ping", "on", "off")
	case 4:
		d.quiescent = !d.quiescent
	case 5:
		d.fallback = !d.fallback
	case 6:
		d.upper = r.IntN(2) * 1000
	default: // a server more, one less, or another weight
		i := r.IntN(3)
		if d.weights[i] < 0 || r.IntN(2) == 0 {
			d.weights[i] = r.IntN(5)
		} else if slices.Max(slices.Delete(slices.Clone(d.weights[:]), i, i+1)) >= 0 {
			d.weights[i] = -1
		}
	}
	if d.scheduler == "" {
		d.scheduler = "wlc"
	}
	if d.check == "" {
		d.check = "connect"
	}
}

var realAddresses = [3]string{real1, real2, real3}

// file is a service as ldirectord.yaml has it.
func (d drawn) file(port int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - address: %s:%d\n    real:\n", vip, port)
	for i, w := range d.weights {
		if w < 0 {
			continue
		}
		fmt.Fprintf(&b, "      - %s:%d gate %d", realAddresses[i], port, w)
		if d.upper > 0 {
			fmt.Fprintf(&b, " u:%d", d.upper)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s    scheduler: %s\n    quiescent: %s\n", checkLines[d.check].lines, d.scheduler, yesNo(d.quiescent))
	if d.persistent > 0 {
		fmt.Fprintf(&b, "    persistent: %dm\n", d.persistent)
	}
	if d.fallback {
		b.WriteString("    fallback: 127.0.0.1 gate\n")
	}
	return b.String()
}

// table is the same as ipvsadm saves it, without thresholds, when every check has been made.
func (d drawn) table(port int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-A -t %s:%d -s %s", vip, port, d.scheduler)
	if d.persistent > 0 {
		fmt.Fprintf(&b, " -p %d", d.persistent*60)
	}
	b.WriteByte('\n')
	up := checkLines[d.check].up
	stands := d.fallback && (!up || slices.Max(d.weights[:]) <= 0)
	for i, w := range d.weights {
		switch {
		case w < 0, !up && !d.quiescent:
			continue
		case !up, stands:
			w = 0
		}
		fmt.Fprintf(&b, "-a -t %s:%d -r %s:%d -g -w %d\n", vip, port, realAddresses[i], port, w)
	}
	if stands {
		fmt.Fprintf(&b, "-a -t %s:%d -r 127.0.0.1:%d -g -w 1\n", vip, port, port)
	}
	return b.String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// specification are the services that change, by port.
type specification map[int]drawn

func (s specification) file() string {
	var b strings.Builder
	b.WriteString(untouched)
	for port := firstPort; port <= lastPort; port++ {
		if d, there := s[port]; there {
			b.WriteString(d.file(port))
		}
	}
	return b.String()
}

func (s specification) table() string {
	lines := slices.Collect(strings.Lines(untouchedTable))
	for port, d := range s {
		lines = slices.AppendSeq(lines, strings.Lines(d.table(port)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// change adds a service, removes one or changes some.
func (s specification) change(r *rand.Rand) {
	for range 1 + r.IntN(3) {
		port := firstPort + r.IntN(lastPort-firstPort+1)
		d, there := s[port]
		switch {
		case !there:
			s[port] = draw(r)
		case r.IntN(4) == 0:
			delete(s, port)
		default:
			d.change(r)
			s[port] = d
		}
	}
}

// given is the number in a variable of the environment.
func given(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s=%s: %v", variable, s, err)
	}
	return n
}

// The kernel's table follows one specification after the other, and who uses a service
// that is the same in all of them notices none.
func TestManyAppliesUnderTraffic(t *testing.T) {
	seed := given(t, seedVariable, uint64(time.Now().UnixNano()))
	applies := int(given(t, countVariable, 20))
	t.Logf("%s=%d %s=%d repeats this", seedVariable, seed, countVariable, applies)
	r := rand.New(rand.NewPCG(seed, 0))

	p := newPair(t)
	for i, name := range []string{"rs1", "rs2", "rs3"} {
		h := p.host(name, 103+i)
		h.AddressOnLo(vip)
		p.reals = append(p.reals, h)
		p.httpd = append(p.httpd, h.StartHTTP(h.Name, ":80", ":8100", fmt.Sprintf(":%d-%d", firstPort, lastPort)))
	}
	spec := specification{}
	p.write(map[string]string{
		"authkeys": exampleFiles(t)["authkeys"], "ha.yaml": haCalm,
		"haresources.yaml": resourcesOf + "      - vip: " + vip + "/24/eth1\n      - ldirectord: ldirectord.yaml\n",
		"ldirectord.yaml":  spec.file(),
	})
	p.start()
	p.waitOwner(p.director1)
	p.waitTable(p.director1, spec.table(), "at first")
	epoch := p.epoch()

	since := probe.Now()
	browsers := []*lab.Client{
		p.client.GetHTTPSerially("http://"+vip+"/", 50*time.Millisecond, patient),
		p.client.GetHTTPSerially("http://"+vip+":8100/", 50*time.Millisecond, patient),
	}
	v := p.visitor(60)
	transfers := []*stream{v.stream("wlc", vip+":80"), v.stream("persistence", vip+":8100")}
	well := func(what string) {
		t.Helper()
		for _, s := range transfers {
			s.goesOn(t, what)
		}
		for _, b := range browsers {
			if sum := b.Summary(since); sum.Errors > 0 {
				t.Fatalf("%s: %d of %d requests failed, the last: %s", what, sum.Errors, sum.Answers+sum.Errors, sum.LastError)
			}
		}
	}
	well("before the first change")

	began := time.Now()
	counted := 0 // connections of an untouched service: the kernel begins anew when the service does
	for n := 1; n <= applies; n++ {
		spec.change(r)
		p.director1.WriteFile(pool, spec.file(), 0o644)
		p.must(p.director1, "apply")
		if n%10 == 0 || n == applies {
			what := fmt.Sprintf("after %d applies", n)
			p.waitTable(p.director1, spec.table(), what)
			well(what)
			now := p.connections(p.director1, vip+":80")
			if now < counted {
				t.Fatalf("%s: the kernel has counted %d connections of an untouched service, and %d before: it was made again", what, now, counted)
			}
			counted = now
			p.lab.Logf("%s, %v each: %d services", what, (time.Since(began) / time.Duration(n)).Round(time.Millisecond), len(spec))
		}
	}

	for _, b := range browsers {
		b.WaitAnswer("", probe.Now(), limit)
		p.faultless(b, since, fmt.Sprintf("%d applies", applies))
	}
	p.lab.Eventually(limit, "director2 to have the last file", func() bool { return p.director2.Run("cat", pool) == spec.file() })
	if now := p.epoch(); now != epoch {
		t.Errorf("the group moved: epoch %d was %d", now, epoch)
	}
	if d := p.detail(); d.Repairs > 0 {
		t.Errorf("changes were taken for damage: %d repairs", d.Repairs)
	}
}

// epoch counts the moves of the group.
func (p *pair) epoch() (n uint64) {
	p.t.Helper()
	return p.wait("a status", func(st cluster.Status) bool { return st.Groups[0].State == "active" }).Groups[0].Epoch
}

// connections is how many the kernel has counted of a service.
func (p *pair) connections(h *lab.Host, service string) int {
	p.t.Helper()
	for line := range strings.Lines(h.Run("ipvsadm", "-Ln", "--stats", "--exact")) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "TCP" && f[1] == service {
			n, err := strconv.Atoi(f[2])
			if err != nil {
				p.t.Fatal(err)
			}
			return n
		}
	}
	p.t.Fatalf("%s has no service %s", h.Name, service)
	return 0
}
