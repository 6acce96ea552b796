package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

const (
	// serviceBack is how long after the end of all faults a user waits at most.
	serviceBack = 30 * time.Second
	// restartAfter is scripts/keepbeat.service's RestartSec.
	restartAfter = 200 * time.Millisecond
)

// allWell is how long after it an administrator waits at most until every node is
// back with its vote. The lab kernel's one slow processor lets raft's leaders come and
// go every few seconds while two of three vote, and no voter is added in between.
func allWell() time.Duration {
	if uml.Inside() {
		return 4 * time.Minute
	}
	return time.Minute
}

// arena is one cluster under attack, with everybody who looks at it.
type arena struct {
	t lab.TB
	*scenario.Directors
	nodes   []*lab.Host // that run keepbeat, directors first
	witness *lab.Host   // nil in a pair
	profile string
	lease   time.Duration
	log     *timeline
	self    string // this program, which is its own helper
	temp    string // a directory of the test

	client    *lab.Client
	pages     *lab.Client
	observers []*lab.Client
	arp       *lab.Process
	watcher   *lab.Host            // on which the ARP watcher runs
	disks     map[*lab.Host]string // what is mounted as data directory
	attacker  *lab.Host            // on both heartbeat switches, without a key

	two     bool               // faults are at work at once
	kept    map[*lab.Host]bool // a plan has it down: nobody starts it
	ended   map[*lab.Host]time.Time
	damaged map[*lab.Host]string // the way out that its daemon named last
	// daemonLogs are all daemons that a node has had.
	daemonLogs map[*lab.Host][]*lab.Process

	mu      sync.Mutex // guards sockets
	sockets map[string]string
}

// leases are those of the profiles.
var leases = map[string]time.Duration{"fast": 200 * time.Millisecond, "default": 500 * time.Millisecond, "calm": 2 * time.Second}

// newArena builds and starts a cluster: "trio" or "pair" (rule fencing, with a script that
// switches machines off). Kinds of links are drawn.
func newArena(t lab.TB, shape, profile, temp string, r *rand.Rand, log *timeline) *arena {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("%v", err)
	}
	o := scenario.Options{
		Profile: profile,
		Links: one(r, []string{"- bcast: eth1", "- bcast: eth2"}, []string{"- bcast: eth1", "- bcast: eth2"},
			[]string{"- bcast: eth1", "- mcast: eth2 225.0.0.1 694 1 0"},
			[]string{"- ucast: eth1 10.0.1.1 10.0.1.2 10.0.1.3", "- bcast: eth2"}),
		Failback: r.IntN(3) == 0,
	}
	if uml.Inside() {
		// One slow processor: shorter leases end because somebody else has it.
		o.Profile = "calm"
	}
	a := &arena{
		t: t, profile: o.Profile, lease: leases[o.Profile], log: log, self: self, temp: temp, sockets: map[string]string{},
		kept: map[*lab.Host]bool{}, disks: map[*lab.Host]string{}, ended: map[*lab.Host]time.Time{}, damaged: map[*lab.Host]string{},
		daemonLogs: map[*lab.Host][]*lab.Process{},
	}
	switch shape {
	case "trio":
		trio := scenario.NewTrio(t, o)
		a.Directors, a.nodes, a.witness = trio.Directors, trio.Nodes(), trio.Arbiter
	case "pair":
		pair := scenario.NewPair(t, scenario.Fencing, o)
		a.Directors = pair.Directors
		a.nodes = []*lab.Host{pair.Director1, pair.Director2}
	default:
		t.Fatalf("cluster %q: there are trio and pair", shape)
	}
	a.note("cluster: %s, profile %s, links %s, auto_failback %v", shape, o.Profile, strings.Join(o.Links, " "), o.Failback)
	for _, h := range a.nodes {
		a.giveDisk(h)
	}
	a.watch()
	for _, h := range a.nodes {
		a.start(h)
	}
	if !a.settled(allWell()) {
		t.Fatalf("the cluster does not begin:\n%s", a.statuses())
	}
	a.prove()
	return a
}

func (a *arena) note(format string, args ...any) { a.log.add(probe.Now(), format, args...) }

// watch starts everybody who looks at the address.
func (a *arena) watch() {
	every := 2 * lab.ProbeInterval()
	a.client = a.Client.Probe(scenario.VIP, every)
	a.pages = a.Client.GetHTTP("http://"+scenario.VIP+"/", 10*every, time.Second)
	for i, h := range a.Both() {
		a.serve(h)
		a.observers = append(a.observers, a.Lab.Observe(a.Service, scenario.VIP, fmt.Sprintf("192.168.56.%d/24", 251+i), h, every))
	}
	a.watcher = a.Lab.Host("arp-watcher")
	a.watcher.Attach(a.Service, "eth0", "192.168.56.250/24")
	a.arp = a.watchARP(scenario.VIP)
	a.attacker = a.Lab.Host("attacker")
	for n, s := range a.Heartbeat {
		a.attacker.Attach(s, fmt.Sprintf("eth%d", n+1), fmt.Sprintf("10.0.%d.66/24", n+1))
	}
}

// watchARP asks on the service network who has an address: see wire.go.
func (a *arena) watchARP(address string) *lab.Process {
	return a.help(a.watcher, "arp", "eth0", address, (10 * lab.ProbeInterval()).String())
}

// serve starts the pages of a director, which a death ends.
func (a *arena) serve(h *lab.Host) { a.help(h, "pages", h.Name) }

// help starts this program as a helper on a host: see helper.go. nil: the host is dead.
func (a *arena) help(h *lab.Host, args ...string) *lab.Process {
	return a.try(h, "helper-"+args[0], []string{helperVariable + "=" + strings.Join(args, "\n")}, a.self)
}

// try starts a program on a host, which its peer in a pair may fence at any moment.
func (a *arena) try(h *lab.Host, name string, env []string, args ...string) *lab.Process {
	if h.Dead() {
		return nil
	}
	p, err := h.TryStart(name, env, args...)
	if err != nil {
		if !h.Dead() {
			a.t.Fatalf("%v", err)
		}
		return nil
	}
	return p
}

// start starts the daemon of a node.
func (a *arena) start(h *lab.Host) {
	d := a.try(h, "keepbeat", nil, a.Lab.Keepbeat(), "run")
	if d == nil {
		return // fenced at this moment: supervise switches it on
	}
	a.Daemons[h.Name] = d
	a.daemonLogs[h] = append(a.daemonLogs[h], d)
	delete(a.ended, h)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sockets[h.Name] = fmt.Sprintf("/proc/%d/root/run/keepbeat/control.sock", d.PID())
}

func (a *arena) socket(h *lab.Host) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sockets[h.Name]
}

// runs says whether the daemon of a node runs.
func (a *arena) runs(h *lab.Host) bool {
	d := a.Daemons[h.Name]
	return !h.Dead() && d != nil && !d.Ended()
}

// status asks one node; ok is false when it does not answer.
func (a *arena) status(h *lab.Host) (cluster.Status, bool) {
	if !a.runs(h) {
		return cluster.Status{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	st, err := api.NewClientAt(a.socket(h)).Status(ctx)
	return st, err == nil
}

// owner is the director that owns the group as the nodes see it, or the first.
func (a *arena) owner() *lab.Host {
	for _, h := range a.nodes {
		if st, ok := a.status(h); ok && len(st.Groups) > 0 {
			if o := a.host(st.Groups[0].Owner); o != nil {
				return o
			}
		}
	}
	return a.Director1
}

// leader is raft's leader as the nodes see it, or the first.
func (a *arena) leader() *lab.Host {
	for _, h := range a.nodes {
		if st, ok := a.status(h); ok && st.Leader != "" {
			if l := a.host(st.Leader); l != nil {
				return l
			}
		}
	}
	return a.Director1
}

func (a *arena) host(name string) *lab.Host {
	i := slices.IndexFunc(a.nodes, func(h *lab.Host) bool { return h.Name == name })
	if i < 0 {
		return nil
	}
	return a.nodes[i]
}

// pick draws a node: more often than not the owner, on whom most depends.
func (a *arena) pick(r *rand.Rand) *lab.Host {
	switch r.IntN(6) {
	case 0, 1, 2:
		return a.owner()
	case 3:
		return a.leader()
	}
	return one(r, a.nodes...)
}

func (a *arena) others(h *lab.Host) []*lab.Host {
	return slices.DeleteFunc(slices.Clone(a.nodes), func(n *lab.Host) bool { return n == h })
}

// pass lets time pass, in which ended daemons are started as systemd does it.
func (a *arena) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(min(10*time.Millisecond, time.Until(end))) {
		a.supervise()
	}
}

// supervise does what surrounds a daemon: the unit's Restart=always with its
// ExecStopPost, the power button of a machine that was fenced, and an
// administrator who does what the daemon's last words tell him.
func (a *arena) supervise() {
	for _, h := range a.nodes {
		switch {
		case a.kept[h]:
		case h.Dead():
			a.note("%s is off: switched on", h.Name)
			a.switchOn(h)
		case a.runs(h):
		case a.ended[h].IsZero():
			a.ended[h] = time.Now()
			a.note("%s: the daemon has ended: %s", h.Name, a.lastWords(h))
		case time.Since(a.ended[h]) >= restartAfter:
			a.afterEnd(h)
		}
	}
}

func (a *arena) switchOn(h *lab.Host) {
	h.Revive()
	if h != a.witness {
		a.serve(h)
	}
	a.start(h)
}

var (
	// crashed is what a program says that did not end by itself.
	crashed = regexp.MustCompile(`(?m)^(panic: .*|fatal error: .*|unexpected fault address.*|SIG[A-Z]+: .*)$`)
	// wayOut is what the daemon tells an administrator to do with a data directory, or a journal.
	wayOut = regexp.MustCompile(`move the data directory away and start again|take that back by hand and remove the file`)
)

// lastWords is the last line of a daemon's log.
func (a *arena) lastWords(h *lab.Host) string {
	lines := strings.Split(strings.TrimSpace(a.Daemons[h.Name].Log()), "\n")
	return lines[len(lines)-1]
}

// afterEnd is the unit's ExecStopPost, and its start.
func (a *arena) afterEnd(h *lab.Host) {
	words := a.lastWords(h)
	if m := wayOut.FindString(words); m != "" {
		a.follow(h, m)
	} else if out, err := h.Keepbeat("release"); err != nil {
		a.note("%s: keepbeat release: %s", h.Name, strings.TrimSpace(out))
		if m := wayOut.FindString(out); m != "" {
			a.follow(h, m)
		}
	}
	a.note("%s: the daemon is started", h.Name)
	a.start(h)
}

// follow does what the daemon's words say.
func (a *arena) follow(h *lab.Host, words string) {
	a.damaged[h] = words
	if strings.Contains(words, "data directory") {
		a.note("%s: the administrator moves the data directory away", h.Name)
		a.emptyDisk(h)
		return
	}
	a.note("%s: the administrator takes back by hand what the journal had", h.Name)
	// Either may be gone already.
	_, _ = h.Try("ip", "address", "del", scenario.VIP+"/24", "dev", "eth0")
	_, _ = h.Try("sh", "-c", "rm -f /run/keepbeat/journal/*")
}

// emptyDisk takes the data directory's content away.
func (a *arena) emptyDisk(h *lab.Host) {
	files, err := filepath.Glob(h.Path(dataDir + "/*"))
	if err != nil {
		a.t.Fatalf("%v", err)
	}
	for _, f := range files {
		if filepath.Base(f) != "lost+found" {
			if err := os.RemoveAll(f); err != nil {
				a.t.Fatalf("%s: %v", h.Name, err)
			}
		}
	}
}

// signal sends a signal to the daemon of a node, when it runs.
func (a *arena) signal(h *lab.Host, s syscall.Signal) {
	if a.runs(h) {
		// It may end at this moment.
		_ = syscall.Kill(a.Daemons[h.Name].PID(), s)
	}
}

// kill ends the daemon of a node and waits until it is gone.
func (a *arena) kill(h *lab.Host) {
	a.signal(h, syscall.SIGKILL)
	if d := a.Daemons[h.Name]; !d.Wait(10 * time.Second) {
		a.t.Fatalf("the daemon on %s survives SIGKILL", h.Name)
	}
}

// well says whether every node is up and votes, every group is active, and all have
// the same state of the log. (Not whether `trouble` is empty: refused datagrams stay there for a while.)
func (a *arena) well() bool {
	var first string
	for i, h := range a.nodes {
		st, ok := a.status(h)
		if !ok || !st.Quorum || len(st.Groups) == 0 {
			return false
		}
		same := fmt.Sprintf("specification %d from %s", st.Spec.Version, st.Spec.From)
		for _, n := range st.Nodes {
			if n.State != "up" || !n.Votes || n.Here == nil || n.Here.SpecError != "" || n.Here.Unstored != "" {
				return false
			}
			for _, l := range n.Links {
				if l.State != "up" {
					return false
				}
			}
			same += fmt.Sprintf("; %s incarnation %d", n.Name, n.Incarnation)
		}
		for _, g := range st.Groups {
			if g.State != "active" {
				return false
			}
			same += fmt.Sprintf("; %s on %s in epoch %d, %v", g.Name, g.Owner, g.Epoch, g.Prefer)
		}
		if i > 0 && same != first {
			return false
		}
		first = same
	}
	return true
}

// settled waits until all is well, and says whether it is.
func (a *arena) settled(limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if a.well() {
			return true
		}
		a.pass(50 * time.Millisecond)
	}
	return false
}

// statuses is what every node says, for the reader of a failure.
func (a *arena) statuses() string {
	var b strings.Builder
	for _, h := range a.nodes {
		fmt.Fprintf(&b, "---- keepbeat status on %s:\n", h.Name)
		if !a.runs(h) {
			fmt.Fprintf(&b, "the daemon does not run\n")
			continue
		}
		out, _ := h.Keepbeat("status") // it prints why it fails
		b.WriteString(out)
	}
	return b.String()
}
