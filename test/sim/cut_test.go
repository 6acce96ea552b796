package sim

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// cut is a rule of the design left out of the real code.
type cut struct {
	name  string
	story string // the kind of schedule that shows it soonest; empty: any
	shows string // what it leads to; empty: two owners
	edits []edit
}

// edit is the text of a file, and what stands in its place. CUT in it is
// whether the rule is left out.
type edit struct{ file, old, new string }

// The simulation has to find each of these, or it would not find a defect either.
var cuts = []cut{
	{name: "a voter revokes without waiting for its promise", edits: []edit{
		{"cluster/lease/voter.go", "if v.promises[r.Node].until > now {", "if !CUT && v.promises[r.Node].until > now {"},
	}},
	{name: "a voter forgets at its restart what it promised", story: "restarted voters", edits: []edit{
		{"cluster/lease/voter.go", "for node, length := range v.stored.Longest {\n", "for node, length := range v.stored.Longest {\n\t\tif CUT {\n\t\t\tbreak\n\t\t}\n"},
	}},
	{name: "the time of sending is noted when the answer arrives", story: "late answers", edits: []edit{
		{"cluster/lease/keeper.go", "k.h.Ack(m)\n", `for i := range k.h.rounds {
				if CUT && k.h.rounds[i].k == m.K {
					k.h.rounds[i].sent = k.cfg.Clock.Now()
				}
			}
			k.h.Ack(m)
`},
	}},
	{name: "a voter does not look at the incarnation", edits: []edit{
		{"cluster/lease/voter.go", "r.Incarnation <= up {", "r.Incarnation <= up && !CUT {"},
	}},
	{name: "what a log holds is told after its daemon has begun", shows: "names the voters of", edits: []edit{
		{"cluster/consensus/running.go", "if err := c.newest.read(c.cfg.Stores.Log); err != nil {", `if CUT {
		time.AfterFunc(150*time.Millisecond, func() { _ = c.newest.read(c.cfg.Stores.Log) })
	} else if err := c.newest.read(c.cfg.Stores.Log); err != nil {`},
	}},
	{name: "what is put into the log is told later", shows: "names the voters of", edits: []edit{
		{"cluster/consensus/disk.go", "d.newest.stored(l)", `if CUT {
		time.AfterFunc(150*time.Millisecond, func() { d.newest.stored(l) })
	} else {
		d.newest.stored(l)
	}`},
	}},
	{name: "an earlier daemon's leftovers do not hold the lease back", story: "leftovers", edits: []edit{withLeftovers}},
	// The log refuses it and the node waits by itself: either is enough.
	{name: "a revoked node gets a lease before it has stopped", story: "deaf owner", edits: []edit{
		withLeftovers,
		{"cluster/state/apply.go", "if !newStart && !n.Valid && a.Running {", "if !newStart && !n.Valid && a.Running && !CUT {"},
	}},
	{name: "what a device comes to is not looked at", story: "many, and the device fails", edits: []edit{
		{"cluster/fence.go", "Done: failed == nil && o.Done", "Done: failed == nil && o.Done || CUT"},
	}},
	{name: "a group under another name does not wait for the old one", story: "renamed", edits: []edit{
		{"cluster/state/leaving.go", "has != c.Name && r.Class != conf.Shared {", "has != c.Name && r.Class != conf.Shared && !CUT {"},
	}},
	{name: "what class a group was of is forgotten with the specification", story: "removed, dead and back", edits: []edit{
		{"cluster/state/apply.go", "if !fenced && NeedsFencing(e.Runs(name)) {", "if _, c := e.Group(name); !fenced && NeedsFencing(e.Runs(name)) && (c != nil || !CUT) {"},
	}},
	{name: "a snapshot does not have the nodes", shows: "differs|at once|after the last fault", edits: []edit{
		{"cluster/state/snapshot.go", "if s.Nodes == nil {", "if s.Nodes == nil || CUT {"},
	}},

	{name: "the guard does not hold a VRID", story: "a deaf announcer", shows: `announces VRID \d+ (without a lease|while)`, edits: []edit{
		{"resources/manager.go", "m.routers.guard = &kept[VirtualRouter]{g.HoldRouters, g.CutRouters, g.DropRouters}", "if !CUT {\n\t\t\tm.routers.guard = &kept[VirtualRouter]{g.HoldRouters, g.CutRouters, g.DropRouters}\n\t\t}"},
	}},
	{name: "a foreign router is fenced without a quorum", story: "a foreign master", shows: "nobody has asked", edits: []edit{
		{"cluster/foreign.go", "n.jobs.start(\"accuse \"+x.Target, n.wake, func(ctx context.Context) error {\n", `n.jobs.start("accuse "+x.Target, n.wake, func(ctx context.Context) error {
			if CUT {
				_, err := n.fence(ctx, fencing.Target{Node: x.Target}, fenceAction(st))
				return err
			}
`},
	}},
	{name: "an old request is enough to fence a foreign router", story: "the operator is away", shows: "after it was heard last", edits: []edit{
		{"cluster/foreign.go", "n.askOwner(ctx, r.Fence); err != nil {", "n.askOwner(ctx, r.Fence); err != nil && !CUT {"},
	}},
	{name: "a foreign router is fenced again and again", story: "a forged master", shows: "fenced again", edits: []edit{
		{"cluster/foreign.go", "case f.done && first.Before(f.seen):", "case f.done && first.Before(f.seen) && !CUT:"},
		{"cluster/foreign.go", "now.Sub(f.seen) < pause {", "now.Sub(f.seen) < pause && !CUT {"},
	}},

	{name: "pair: what a device comes to is not looked at", story: "the device fails", edits: []edit{
		{"cluster/pairfence.go", "if err == nil && o.Done {", "if err == nil && o.Done || CUT {"},
	}},
	{name: "pair: a newer generation is not bowed to", story: "fenced and back", shows: "after the last fault", edits: []edit{
		{"cluster/pair/decide.go", "case theirs.Counter > mine.Counter:", "case theirs.Counter > mine.Counter && !CUT:"},
	}},
	{name: "pair: the log of an older generation is not put aside", story: "decided twice", shows: "differs|was decided, and is lost|at once|after the last fault", edits: []edit{
		{"cluster/pairsteps.go", `Discard: true, How: "opened by "`, `Discard: !CUT, How: "opened by "`},
	}},
	{name: "pair: who has put its log aside still looks at it", story: "both are told to go on", edits: []edit{
		{"cluster/pair/decide.go", "if f.Record.Discard {", "if f.Record.Discard && !CUT {"},
	}},
	{name: "pair: that the other waits is believed though it was said before", story: "both are told to go on", edits: []edit{
		{"cluster/pair/decide.go", "f.PeerSaid.Cold && answered", "f.PeerSaid.Cold && (answered || CUT)"},
	}},
	// Every incarnation that its log knows is revoked, and while it is surviving it answers to none: either is enough.
	{name: "pair: the other gets promises while it is being survived", story: "admitted unheard", shows: "promises", edits: []edit{
		{"cluster/pairfacts.go", "return f.Ordered || f.Record.Intent != nil", "return !CUT && f.Ordered || !CUT && f.Record.Intent != nil"},
		{"cluster/pairing.go", `if p.n.cons.Leader() != "" {`, `if p.n.cons.Leader() != "" || CUT {`},
	}},
	// What would be taken too early is not started as long as it answers elsewhere: either is enough.
	{name: "pair, ping: nobody looks who has the addresses", story: "only the heartbeat is cut", edits: []edit{
		{"cluster/pair/decide.go", "if f.Clear < ClearFor(max(f.Lease, f.Longest)) {", "if f.Clear < ClearFor(max(f.Lease, f.Longest)) && !CUT {"},
		withoutPermit,
	}},
	{name: "pair, ping: nor before a group is started again", story: "restarted while nobody answers", edits: []edit{
		withoutPermit,
	}},
	{name: "pair, ping: an address that takes long to start is not defended", story: "restarted while nobody answers", edits: []edit{
		withoutDefence,
	}},
	// Who goes first defends, so the other one has to be permitted within the same round of questions: either is enough, as a rule.
	{name: "pair, ping: of two that look neither yields", story: "both look at once", edits: []edit{
		withoutDefence,
		{"cluster/pairlook.go", "yields && slices.Contains(asked, a)", "!CUT && yields && slices.Contains(asked, a)"},
	}},
	{name: "pair, ping: going on alone does not end with the lease", story: "cut off and half back", edits: []edit{
		{"cluster/pair/decide.go", "return f.Rule == conf.QuorumPing && f.MayGoOn && f.Left <= 0", "return !CUT && f.Rule == conf.QuorumPing && f.MayGoOn && f.Left <= 0"},
		{"cluster/pairsteps.go", "p.mayGoOn && p.n.keeper.Live() {", "p.mayGoOn && (p.n.keeper.Live() || CUT) {"},
		withoutPermit,
	}},
	{name: "pair: going on alone does not end with the process", story: "fenced and back", shows: "has not seen it since", edits: []edit{
		{"cluster/pairing.go", "parseCarry(n.cfg.Carry); ok &&", "parseCarry(n.cfg.Carry); CUT || ok &&"},
	}},
}

var withoutPermit = edit{"cluster/pairlook.go", "return free, defend", "return free || CUT, defend && !CUT"}

var withoutDefence = edit{"cluster/pairlook.go", "case free && (defended || !defend):", "case free && (defended || !defend || CUT):"}

var withLeftovers = edit{"cluster/actor.go", "n.manager != nil && n.manager.Leftovers(ownedEpochs(st, n.self))", "!CUT && n.manager != nil && n.manager.Leftovers(ownedEpochs(st, n.self))"}

const (
	inside = "KEEPBEAT_SIM_STOP" // after the first violation
	// cutRuns is how many schedules a broken variant has to be found in at most.
	cutRuns = 400
)

// TestCutsAreFound builds the simulation once, with a switch at each of these
// rules (go test -overlay; the tree is not touched), and expects to see what each of
// them keeps from happening; it says which seed showed it. KEEPBEAT_SIM_CUT=regexp chooses cuts.
func TestCutsAreFound(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Fatal("this is the simulation with something cut out: only TestShort is for it")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "sim.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-overlay", overlay(t, root), "-c", "-o", bin, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the simulation with switches does not build: %v\n%s", err, out)
	}
	for i, c := range cuts {
		if ok, err := regexp.MatchString(os.Getenv("KEEPBEAT_SIM_CUT"), c.name); err != nil {
			t.Fatal(err)
		} else if !ok {
			continue
		}
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) { found(t, c, i, bin) })
	}
}

// TestIgnoredGuardIsFound has no kernel enforce the lease.
func TestIgnoredGuardIsFound(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Fatal("this is the simulation with something cut out: only TestShort is for it")
	}
	for seed := range uint64(cutRuns) {
		s := newSchedule(seed, "deaf owner")
		s.GuardIgnored = true
		if w := playSchedule(t, s); strings.Contains(strings.Join(w.violations, "\n"), "at once") {
			t.Logf("the guard has no effect: found by seed %d", seed)
			return
		}
	}
	t.Errorf("%d schedules do not show that the guard has no effect", cutRuns)
}

// found runs the simulation with one rule cut out.
func found(t *testing.T, c cut, i int, bin string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, "-test.run", "^TestShort$", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), inside+"=1", "KEEPBEAT_SIM_RUNS="+strconv.Itoa(cutRuns), "KEEPBEAT_SIM_SEED=0", "KEEPBEAT_SIM_OUT="+t.TempDir(),
		"KEEPBEAT_SIM_STORY="+c.story, cutSwitch+"="+strconv.Itoa(i))
	out, err := cmd.CombinedOutput()
	shows := c.shows
	if shows == "" {
		shows = "at once"
	}
	m := regexp.MustCompile(`VIOLATION of seed (\d+): .*(` + shows + `)`).FindSubmatch(out)
	if err == nil || m == nil {
		t.Fatalf("cut: %s: no schedule of %d shows it: %v\n%s", c.name, cutRuns, err, out)
	}
	t.Logf("cut: %s: found by seed %s", c.name, m[1])
}
