package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/link/linktest"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/cluster/transport"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing"
)

// Config shapes a simulation.
type Config struct {
	Seed      uint64
	Directors int
	Witnesses int
	// Foreign: the first spare machine's disk is of another cluster, a pair whose
	// generation was greater.
	Foreign bool
	// Spares are machines that are no nodes of the cluster when it begins.
	Spares   []conf.Role
	Groups   int
	Profile  conf.Profile
	Mixed    conf.Profile // what director1's ha.yaml still has: the specification's counts
	Failback bool
	Together bool        // every group prefers the first director
	Rule     conf.Quorum // 0: a majority
	// OneStarts is wait_for_all: no.
	OneStarts bool
	// Stores is how many of the groups hold something that only its stop or
	// fencing ends; then there is a fencing device.
	Stores int
	// Announced is how many of the groups are announced by VRRP, and OnConflict what
	// is done about a foreign master.
	Announced  int
	OnConflict conf.Conflict
	// Fabric makes the fencing device take a machine's stores away and leave it running.
	Fabric bool
	// Told makes the device say so before it is used.
	Told bool
	// Manual makes the device a person, who never says a word.
	Manual bool
	// Upgrade starts some nodes with a program that knows only an earlier format of
	// the state, From; 0: the first.
	Upgrade bool
	From    int
	// Snapshots is after how many entries the log is replaced by a snapshot; 0: never,
	// since no schedule is as long as that takes with a daemon's own number. Kept is how
	// many entries stay before it.
	Snapshots uint64
	Kept      uint64
	Dir       string // for journals
	// GuardIgnored makes the guard of every machine have no effect.
	GuardIgnored bool
	Log          bool // keep the daemons' logs in the transcript
}

// restartLease is what `restart_lease` says in every simulated ha.yaml: the default.
const restartLease = 30 * time.Second

// initDead is how long a node waits for the other at its start, without
// wait_for_all: less than the default, for schedules to see its end.
const initDead = 5 * time.Second

// world is a cluster and its surroundings.
type world struct {
	cfg        Config
	rand       *rand.Rand
	medium     *linktest.Medium
	streams    *transport.MemoryNetwork
	net        *network
	machines   []*machine
	first      []conf.Node // of the cluster when it began
	dir        string
	epoch      time.Time
	history    *history
	recordings []*recording // of every daemon
	power      *powerSwitch
	air        *air
	devices    sync.WaitGroup      // what the power switch is doing
	async      func(func() func()) // run.async
	lostDisk   bool                // of a pair: the other one may have lost its log, too

	tables   sync.Mutex          // guards every kernel's tables, answering and asking
	asking   map[string]question // by machine
	defended []*defence          // addresses that are on their way up

	posting sync.Mutex    // guards posted
	posted  []func()      // to run in the schedule's goroutine
	news    chan struct{} // something was posted

	answering map[netip.Addr][]string // who answered when it was last looked at

	mu          sync.Mutex                        // guards what follows
	unreachable map[string]int                    // machines that the tie-breaker does not answer, by how many faults
	serviceCuts int                               // of the service network, under way
	mended      time.Time                         // when the last one ended
	longest     time.Duration                     // lease that was ever in force
	newest      uint64                            // index that anybody has applied
	chosen      int                               // two owners that the rule allows
	applied     func(who string, c state.Command) // called with what a node has applied as the first; nil: not
	spec        *conf.Spec                        // what the files of every node say
	transcript  bytes.Buffer
	violations  []string
	still       bool // from now on no address may be silent for an instant, or move
	moves       int
}

func newWorld(cfg Config) *world {
	w := &world{
		cfg: cfg, rand: rand.New(rand.NewPCG(cfg.Seed, 0x6b656570)), medium: linktest.New(cfg.Seed),
		streams: transport.NewMemoryNetwork(transport.MemoryConfig{Latency: 200 * time.Microsecond, FailAfter: time.Second}),
		news:    make(chan struct{}, 1), asking: map[string]question{}, unreachable: map[string]int{}, longest: cfg.Profile.Lease,
		dir: cfg.Dir, epoch: time.Now(), answering: map[netip.Addr][]string{}, history: newHistory(),
	}
	w.net = newNetwork(w)
	w.air = newAir(w)
	w.power = &powerSwitch{w: w, back: 2 * time.Second, delay: deviceTakes}
	for i := range cfg.Directors + cfg.Witnesses + len(cfg.Spares) {
		m := &machine{w: w, name: fmt.Sprintf("director%d", i+1), role: conf.Director, member: true}
		switch spare := i - cfg.Directors - cfg.Witnesses; {
		case spare >= 0:
			m.name, m.role, m.member = fmt.Sprintf("spare%d", spare+1), cfg.Spares[spare], false
		case i >= cfg.Directors:
			m.name, m.role = fmt.Sprintf("witness%d", i-cfg.Directors+1), conf.Witness
		}
		m.kernel = newKernel(w, m.name, 0.99+0.02*w.rand.Float64())
		m.kernel.ignored = cfg.GuardIgnored
		m.newDisk()
		if m.name == "spare1" && cfg.Foreign {
			m.disk.belongElsewhere(m.name)
		}
		if cfg.Upgrade && (i == 0 || w.rand.IntN(3) > 0) {
			m.format = max(1, cfg.From)
		}
		w.machines = append(w.machines, m)
	}
	for _, m := range w.members() {
		w.first = append(w.first, conf.Node{Name: m.name, Role: m.role})
	}
	for _, m := range w.members() {
		m.nodes, m.rule = slices.Clone(w.first), w.rule()
	}
	w.spec = &conf.Spec{Settings: conf.Settings{Profile: cfg.Profile, RestartLease: restartLease}, Pools: map[string]conf.Pool{}}
	if w.cfg.fences() {
		w.spec.Fencing = &conf.Fencing{Action: conf.FenceReboot, PriorityDelay: time.Second}
		d := conf.FenceDevice{Name: "switch", Type: conf.FenceScript, Program: "/bin/true", Timeout: time.Minute}
		if cfg.Manual {
			d.Type, d.Program = conf.FenceManual, ""
		}
		for _, n := range append(w.names(), router9) {
			d.Targets = append(d.Targets, conf.FenceTarget{Node: n})
		}
		w.spec.Fencing.Devices = []conf.FenceDevice{d}
	}
	for i := range cfg.Groups {
		w.spec.Groups = append(w.spec.Groups, w.group(i))
	}
	return w
}

// group is how group i stands in the files.
func (w *world) group(i int) conf.Group {
	a := w.address(i)
	g := conf.Group{
		Name: fmt.Sprintf("group%d", i+1), Priority: 1, Prefer: []string{w.machines[i%w.cfg.Directors].name}, AutoFailback: w.cfg.Failback,
		Resources: []conf.Resource{{Kind: conf.KindVIP, Name: "vip " + a.String(), Class: conf.Guarded, VIP: &conf.VIP{Address: a}, MonitorInterval: time.Second}},
	}
	if w.cfg.Together {
		g.Prefer = []string{w.machines[0].name}
	}
	if i < w.cfg.Stores {
		s := storeOf(a)
		g.Resources = append([]conf.Resource{{Kind: kindStore, Name: "store " + s.String(), Class: conf.Fenced, VIP: &conf.VIP{Address: s}, MonitorInterval: time.Second}}, g.Resources...)
	}
	if i < w.cfg.Announced {
		g.Resources = append(g.Resources, w.announcer(i))
	}
	return g
}

// rule is what decides in this cluster.
func (w *world) rule() conf.Quorum { return cmp.Or(w.cfg.Rule, conf.QuorumMajority) }

// compaction makes every look at the log matter within a schedule.
func (w *world) compaction() consensus.Compaction {
	if w.cfg.Snapshots == 0 {
		return consensus.Compaction{}
	}
	return consensus.Compaction{After: w.cfg.Snapshots, Keep: w.cfg.Kept, Every: 500 * time.Millisecond}
}

func (w *world) fencing(m *machine, g *gate) fencing.Service {
	switch {
	case !w.cfg.fences():
		return nil
	case w.cfg.Manual:
		return fencing.New(fencing.Config{Node: m.name, Logger: slog.New(w.handler(m.name))})
	}
	return device{w.power, m, g}
}

// later has f run in the schedule's goroutine.
func (w *world) later(f func()) {
	w.posting.Lock()
	w.posted = append(w.posted, f)
	w.posting.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// posts runs what was posted.
func (w *world) posts() {
	for {
		w.posting.Lock()
		fs := w.posted
		w.posted = nil
		w.posting.Unlock()
		if len(fs) == 0 {
			return
		}
		for _, f := range fs {
			f()
		}
	}
}

// again gives a machine that was struck its power and its daemon back.
func (w *world) again(m *machine, after time.Duration) {
	w.async(func() func() {
		time.Sleep(after)
		return func() {
			if err := m.powerOn(); err != nil {
				w.violate("the simulation itself failed: %v", err)
			}
		}
	})
}

func (w *world) address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i%250 + 1)})
}

// files is every node's own files: they are the same everywhere.
func (w *world) files() (*conf.Spec, conf.Files, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.spec, conf.Files{}, nil
}

func (w *world) specification() *conf.Spec {
	spec, _, _ := w.files()
	return spec
}

func (w *world) names() []string {
	var names []string
	for _, m := range w.machines {
		names = append(names, m.name)
	}
	return names
}

var simLinks = []conf.Link{
	{Type: conf.Bcast, Interface: "eth1", Port: conf.DefaultPort},
	{Type: conf.Bcast, Interface: "eth2", Port: conf.DefaultPort},
}

// local is a machine's ha.yaml.
func (w *world) local(m *machine) *conf.Local {
	m.mu.Lock()
	defer m.mu.Unlock()
	profile := w.cfg.Profile
	if m.name == "director1" && w.cfg.Mixed.Lease > 0 {
		profile = w.cfg.Mixed
	}
	return &conf.Local{
		Cluster: "sim", Name: m.name, Links: simLinks, Guard: conf.GuardOn, Quorum: m.rule, WaitForAll: !w.cfg.OneStarts, InitDead: initDead,
		PingGroup: []netip.Addr{tieBreaker}, Profile: profile, RestartLease: restartLease, Nodes: slices.Clone(m.nodes),
	}
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked(format, args...)
}

func (w *world) noteLocked(format string, args ...any) {
	fmt.Fprintf(&w.transcript, "%9.3f %s\n", time.Since(w.epoch).Seconds(), fmt.Sprintf(format, args...))
}

// violate notes that the promise is broken.
func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	w.violations = append(w.violations, fmt.Sprintf("%.3f s: %s", time.Since(w.epoch).Seconds(), text))
	w.noteLocked("VIOLATION %s", text)
}

func (w *world) machine(name string) *machine {
	i := slices.IndexFunc(w.machines, func(m *machine) bool { return m.name == name })
	if i < 0 {
		return nil
	}
	return w.machines[i]
}

// dump puts what each node knows into the transcript.
func (w *world) dump() {
	for _, m := range w.machines {
		if m.node == nil {
			w.note("%s: no daemon", m.name)
			continue
		}
		st := m.node.State()
		l := m.node.LocalStatus()
		w.note("%s: index %d raft %s lease %.0f ms voters %v specification %d", m.name, st.Index, l.Raft, l.Lease, st.Voters, st.SpecInfo.Version)
		for _, g := range l.Groups {
			w.note("    here: group %s %s epoch %d", g.Name, g.Phase, g.Epoch)
		}
		for _, n := range st.Nodes {
			w.note("    node %s boot %x incarnation %d valid %v %s", n.Name, n.Boot, n.Incarnation, n.Valid, n.Why)
		}
		for _, g := range st.Groups {
			w.note("    group %s owner %q epoch %d target %q active %v manual %q blocked %q: %s", g.Name, g.Owner, g.Epoch, g.Target, g.Active, g.Manual, g.Blocked, g.Reason)
			for n, f := range g.Failures {
				w.note("        failed %d times on %s until %v: %s", f.Count, n, f.Until, f.Error)
			}
		}
		for _, d := range st.Decisions[max(0, len(st.Decisions)-40):] {
			w.note("    %d %s %s: %s", d.Index, d.Group, d.Node, d.Text)
		}
	}
}

func (w *world) end() {
	for _, m := range w.machines {
		m.kill()
	}
	w.devices.Wait()
}

// handler writes a node's log into the transcript.
func (w *world) handler(name string) slog.Handler {
	if !w.cfg.Log {
		return slog.DiscardHandler
	}
	return slog.NewTextHandler(logWriter{w, name}, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
}

type logWriter struct {
	w    *world
	name string
}

func (l logWriter) Write(b []byte) (int, error) {
	l.w.note("    %s: %s", l.name, strings.TrimSpace(string(b)))
	return len(b), nil
}
