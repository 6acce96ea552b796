package sim

import (
	"encoding/json"
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
	edits []edit
}

// edit is the text of a file, and what stands in its place.
type edit struct{ file, old, new string }

// The simulation has to find each of these, or it would not find a defect either.
var cuts = []cut{
	{"a voter revokes without waiting for its promise", "", []edit{
		{"cluster/lease/voter.go", "if v.promises[r.Node].until > now {", "if false {"},
	}},
	{"a voter forgets at its restart what it promised", "restarted voters", []edit{
		{"cluster/lease/voter.go", "v.promises[node] = promise{until: now + Stretch(length), mark: v.stored.Since[node]}", "_, _, _ = node, now, length"},
	}},
	{"the time of sending is noted when the answer arrives", "late answers", []edit{
		{"cluster/lease/keeper.go", "k.h.Ack(m)\n", `for i := range k.h.rounds {
				if k.h.rounds[i].k == m.K {
					k.h.rounds[i].sent = k.cfg.Clock.Now()
				}
			}
			k.h.Ack(m)
`},
	}},
	{"a voter does not look at the incarnation", "", []edit{
		{"cluster/lease/voter.go", "r.Incarnation <= up {", "up == 1<<63 {"},
	}},
	{"an earlier daemon's leftovers do not hold the lease back", "leftovers", []edit{withLeftovers}},
	// The log refuses it and the node waits by itself: either is enough.
	{"a revoked node gets a lease before it has stopped", "deaf owner", []edit{
		withLeftovers,
		{"cluster/state/apply.go", "if !newStart && !n.Valid && a.Running {", "if false {"},
	}},
}

var withLeftovers = edit{"cluster/actor.go", "n.manager != nil && n.manager.Leftovers(ownedEpochs(st, n.self))", "false"}

// TestCutsAreFound builds the simulation with one rule cut out of the code
// (go test -overlay; the tree is not touched) and expects two owners at once; it says which seed showed it.
// KEEPBEAT_SIM_CUT=regexp chooses cuts.
func TestCutsAreFound(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Skip("this is the simulation with something cut out")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cuts {
		if ok, err := regexp.MatchString(os.Getenv("KEEPBEAT_SIM_CUT"), c.name); err != nil {
			t.Fatal(err)
		} else if !ok {
			continue
		}
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			found(t, c, overlay(t, root, c.edits))
		})
	}
}

// TestIgnoredGuardIsFound has no kernel enforce the lease.
func TestIgnoredGuardIsFound(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Skip("this is the simulation with something cut out")
	}
	for seed := range uint64(cutRuns) {
		s := newSchedule(seed, "")
		s.GuardIgnored = true
		if w := playSchedule(t, s); slicesContain(w.violations, "at once") {
			t.Logf("the guard has no effect: found by seed %d", seed)
			return
		}
	}
	t.Errorf("%d schedules do not show that the guard has no effect", cutRuns)
}

const (
	inside = "KEEPBEAT_SIM_STOP" // after the first violation
	// cutRuns is how many schedules a broken variant has to be found in at most.
	cutRuns = 400
)

func slicesContain(list []string, part string) bool {
	for _, s := range list {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// overlay writes what `go build -overlay` reads.
func overlay(t *testing.T, root string, edits []edit) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for i, e := range edits {
		path := filepath.Join(root, e.file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), e.old); n != 1 {
			t.Fatalf("%s has %q %d times, not once: bring this test up to date", e.file, e.old, n)
		}
		replace[path] = filepath.Join(dir, strconv.Itoa(i)+".go")
		if err := os.WriteFile(replace[path], []byte(strings.Replace(string(b), e.old, e.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var twoOwners = regexp.MustCompile(`VIOLATION of seed (\d+): .* at once`)

// found runs the simulation that the overlay makes.
func found(t *testing.T, c cut, overlay string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-count=1", "-run", "^TestShort$", "-timeout", "5m", ".")
	cmd.Env = append(os.Environ(), inside+"=1", "KEEPBEAT_SIM_RUNS="+strconv.Itoa(cutRuns), "KEEPBEAT_SIM_SEED=0", "KEEPBEAT_SIM_OUT="+t.TempDir(), "KEEPBEAT_SIM_STORY="+c.story)
	out, err := cmd.CombinedOutput()
	m := twoOwners.FindSubmatch(out)
	if err == nil || m == nil {
		t.Fatalf("cut: %s: no schedule of %d shows it: %v\n%s", c.name, cutRuns, err, out)
	}
	t.Logf("cut: %s: found by seed %s", c.name, m[1])
}
