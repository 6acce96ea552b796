package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link/linktest"
	"github.com/keepbeat/keepbeat/cluster/transport"
	"github.com/keepbeat/keepbeat/conf"
)

// Config shapes a simulation.
type Config struct {
	Seed      uint64
	Directors int
	Witnesses int
	Groups    int
	Profile   conf.Profile
	Failback  bool
	Dir       string // for journals
	// GuardIgnored makes the guard of every machine have no effect.
	GuardIgnored bool
	Log          bool // keep the daemons' logs in the transcript
}

// world is a cluster and its surroundings.
type world struct {
	cfg      Config
	rand     *rand.Rand
	medium   *linktest.Medium
	streams  *transport.MemoryNetwork
	machines []*machine
	spec     *conf.Spec
	dir      string
	epoch    time.Time

	mu         sync.Mutex // guards what follows
	transcript bytes.Buffer
	violations []string
	owners     map[netip.Addr]string
	moves      int
	leaders    int
}

func newWorld(cfg Config) *world {
	w := &world{
		cfg: cfg, rand: rand.New(rand.NewPCG(cfg.Seed, 0x6b656570)), medium: linktest.New(cfg.Seed),
		streams: transport.NewMemoryNetwork(transport.MemoryConfig{Latency: 200 * time.Microsecond, FailAfter: time.Second}),
		dir:     cfg.Dir, epoch: time.Now(), owners: map[netip.Addr]string{},
	}
	for i := range cfg.Directors + cfg.Witnesses {
		m := &machine{w: w, name: fmt.Sprintf("director%d", i+1), role: conf.Director}
		if i >= cfg.Directors {
			m.name, m.role = fmt.Sprintf("witness%d", i-cfg.Directors+1), conf.Witness
		}
		m.kernel = newKernel(clock{epoch: w.epoch, rate: 0.991 + 0.018*w.rand.Float64()})
		m.kernel.ignored = cfg.GuardIgnored
		m.newDisk()
		w.machines = append(w.machines, m)
	}
	w.spec = &conf.Spec{Settings: conf.Settings{Profile: cfg.Profile, RestartLease: 30 * time.Second}, Pools: map[string]conf.Pool{}}
	for i := range cfg.Groups {
		a := w.address(i)
		w.spec.Groups = append(w.spec.Groups, conf.Group{
			Name: fmt.Sprintf("group%d", i+1), Prefer: []string{w.machines[i%cfg.Directors].name}, AutoFailback: cfg.Failback,
			Resources: []conf.Resource{{Kind: conf.KindVIP, Name: "vip " + a.String(), Class: conf.Guarded, VIP: &conf.VIP{Address: a}, MonitorInterval: time.Second}},
		})
	}
	return w
}

func (w *world) address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i%250 + 1)})
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

func (w *world) local(name string) *conf.Local {
	l := &conf.Local{
		Cluster: "sim", Name: name, Links: simLinks, Guard: conf.GuardOn, Quorum: conf.QuorumMajority,
		Profile: w.cfg.Profile, RestartLease: 30 * time.Second,
	}
	for _, m := range w.machines {
		l.Nodes = append(l.Nodes, conf.Node{Name: m.name, Role: m.role})
	}
	return l
}

func (w *world) clearJournal(name string) error {
	return os.RemoveAll(filepath.Join(w.dir, name))
}

// cutAll cuts a node's links, and the streams that stand for what would travel on them.
func (w *world) cutAll(name string, cut bool) {
	for _, l := range simLinks {
		w.medium.Cut(l.Name(), name, cut)
	}
	if cut {
		w.streams.Isolate(name)
	} else {
		w.streams.Rejoin(name)
	}
}

// cutPair cuts every link from one node to another, in that direction.
func (w *world) cutPair(from, to string, cut bool) {
	for _, l := range simLinks {
		w.medium.Set(l.Name(), from, to, linktest.Condition{Cut: cut})
	}
	if cut {
		w.streams.Cut(from, to)
	} else {
		w.streams.Heal(from, to)
	}
}

func (w *world) heal() {
	w.medium.Clear()
	for _, a := range w.machines {
		w.medium.Cut(simLinks[0].Name(), a.name, false)
		w.medium.Cut(simLinks[1].Name(), a.name, false)
		w.streams.Rejoin(a.name)
	}
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.transcript, "%9.3f %s\n", time.Since(w.epoch).Seconds(), fmt.Sprintf(format, args...))
}

// watch looks at every address every millisecond until ctx ends.
func (w *world) watch(ctx context.Context) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look()
		}
	}
}

func (w *world) look() {
	for i := range w.spec.Groups {
		a := w.address(i)
		var who []string
		for _, m := range w.machines {
			if m.kernel.answers(a) {
				who = append(who, m.name)
			}
		}
		now := strings.Join(who, "+")
		w.mu.Lock()
		before := w.owners[a]
		w.owners[a] = now
		if now != before && now != "" && len(who) == 1 {
			w.moves++
		}
		w.mu.Unlock()
		if now != before {
			w.note("%s answers on %q, was %q", w.spec.Groups[i].Name, now, before)
		}
		if len(who) > 1 && now != before {
			w.mu.Lock()
			w.violations = append(w.violations, fmt.Sprintf("%s is active on %s at %.3f s", w.spec.Groups[i].Name, now, time.Since(w.epoch).Seconds()))
			w.mu.Unlock()
		}
	}
}

// settled says whether every group answers on exactly one machine.
func (w *world) settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.owners) < len(w.spec.Groups) {
		return false
	}
	for _, who := range w.owners {
		if who == "" || strings.Contains(who, "+") {
			return false
		}
	}
	return true
}

// await waits until ok, at most for d of virtual time.
func (w *world) await(d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

func (w *world) machine(name string) *machine {
	i := slices.IndexFunc(w.machines, func(m *machine) bool { return m.name == name })
	return w.machines[i]
}

// dump puts what each node knows into the transcript.
func (w *world) dump() {
	for _, m := range w.machines {
		if m.node == nil {
			continue
		}
		st := m.node.State()
		l := m.node.LocalStatus()
		w.note("%s: index %d raft %s lease %.0f ms voters %v", m.name, st.Index, l.Raft, l.Lease, st.Voters)
		for _, n := range st.Nodes {
			w.note("    node %s boot %x incarnation %d valid %v %s", n.Name, n.Boot, n.Incarnation, n.Valid, n.Why)
		}
		for _, g := range st.Groups {
			w.note("    group %s owner %q epoch %d target %q active %v %s", g.Name, g.Owner, g.Epoch, g.Target, g.Active, g.Reason)
		}
		for _, d := range st.Decisions {
			w.note("    %d %s %s: %s", d.Index, d.Group, d.Node, d.Text)
		}
	}
}

func (w *world) end() {
	for _, m := range w.machines {
		m.kill()
	}
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
