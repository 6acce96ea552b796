package fault

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab/probe"
)

func msec(n int64) probe.Instant { return probe.Instant(n * 1e6) }

// answers are samples of a director, one a millisecond.
func answers(who string, from, to int64) []probe.Sample {
	var s []probe.Sample
	for at := from; at <= to; at++ {
		s = append(s, probe.Sample{Sent: msec(at) - 1, At: msec(at), Received: msec(at) + 1, Who: who})
	}
	return s
}

func page(who string, sent, received int64) probe.Sample {
	return probe.Sample{Sent: msec(sent), Received: msec(received), Who: who}
}

func TestTheHistoryOfOwnership(t *testing.T) {
	join := func(parts ...[]probe.Sample) (all []probe.Sample) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, c := range []struct {
		name      string
		samples   []probe.Sample
		pages     []probe.Sample
		conflicts int
		linear    bool
	}{
		{"one owner", answers("a", 100, 200), nil, 0, true},
		{"a takeover", join(answers("a", 100, 200), answers("b", 201, 300)), []probe.Sample{page("a", 150, 151), page("b", 199, 205)}, 0, true},
		{"there and back", join(answers("a", 100, 200), answers("b", 201, 300), answers("a", 301, 400)), nil, 0, true},
		{"answers lost for a while are no loss of the lock", join(answers("a", 100, 200), answers("a", 250, 300)), []probe.Sample{page("a", 220, 221)}, 0, true},
		{"two owners for a while", join(answers("a", 100, 200), answers("b", 195, 300)), nil, 1, false},
		{"two owners for one answer", join(answers("a", 100, 200), answers("b", 150, 150)), nil, 1, false},
		{"two owners, twice", join(answers("a", 100, 200), answers("b", 150, 155), answers("b", 180, 185)), nil, 2, false},
		{"a page from one, in the middle of another's time", answers("a", 100, 200), []probe.Sample{page("b", 150, 160)}, 0, false},
		{"a page that took as long as the takeover", join(answers("a", 100, 200), answers("b", 220, 300)), []probe.Sample{page("a", 190, 250)}, 0, true},
		{"a page from the old owner that was asked for after the takeover", join(answers("a", 100, 200), answers("b", 220, 300)), []probe.Sample{page("a", 230, 250)}, 0, false},
		{"a page between two owners: either", join(answers("a", 100, 200), answers("b", 220, 300)), []probe.Sample{page("b", 205, 215)}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := holds(c.samples, 10*time.Millisecond)
			if got := conflicts(seen); len(got) != c.conflicts {
				t.Errorf("conflicts %v, want %d", got, c.conflicts)
			}
			if err := checkHistory("ownership", lockModel, lockHistory(msec(50), seen, c.pages)); (err == nil) != c.linear {
				t.Errorf("the history: %v, want one that is possible: %v", err, c.linear)
			}
		})
	}
}

func TestTheHistoryOfTheSpecification(t *testing.T) {
	first := version{3, "write first"}
	ok := func(node string, base uint64, mark string, call, ret int64) apply {
		return apply{node: node, base: base, mark: mark, call: msec(call), ret: msec(ret), version: base + 1}
	}
	unknown := func(base uint64, mark string, call, ret int64) apply {
		return apply{node: "u", base: base, mark: mark, call: msec(call), ret: msec(ret), why: "the daemon died"}
	}
	for _, c := range []struct {
		name    string
		applies []apply
		final   version
		linear  bool
	}{
		{"nothing", nil, first, true},
		{"nothing, and another text", nil, version{3, "write other"}, false},
		{"one after the other", []apply{ok("a", 3, "x", 1, 2), ok("b", 4, "y", 3, 4)}, version{5, "y"}, true},
		{"an acknowledged one is gone", []apply{ok("a", 3, "x", 1, 2)}, first, false},
		{"an acknowledged one was replaced", []apply{ok("a", 3, "x", 1, 2)}, version{4, "y"}, false},
		{"two against the same version", []apply{ok("a", 3, "x", 1, 2), ok("b", 3, "y", 1, 2)}, version{4, "y"}, false},
		{"an unknown one that was applied", []apply{unknown(3, "x", 1, 2)}, version{4, "x"}, true},
		{"an unknown one that was not", []apply{unknown(3, "x", 1, 2)}, first, true},
		{"an unknown one that was overtaken", []apply{unknown(3, "x", 1, 2), ok("a", 3, "y", 3, 4)}, version{4, "y"}, true},
		{"an unknown one applied much later, and built upon", []apply{unknown(3, "x", 1, 2), ok("a", 4, "y", 30, 40)}, version{5, "y"}, true},
		{"one built on what nobody applied", []apply{ok("a", 4, "y", 30, 40)}, version{5, "y"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkHistory("the specification", specModel(first), specHistory(c.applies, c.final, msec(100)))
			if (err == nil) != c.linear {
				t.Errorf("%v, want a history that is possible: %v", err, c.linear)
			}
		})
	}
}

func TestWhatIsLostIsNamed(t *testing.T) {
	applies := []apply{
		{node: "a", mark: "write 1", version: 4}, {node: "a", mark: "write 2", version: 5}, {node: "b", mark: "write 3", version: 6},
		{node: "b", mark: "write 4", refused: true, why: "no quorum"}, {node: "b", mark: "write 5", why: "EOF"},
	}
	kept := map[string]map[uint64]string{"a": {4: "write 1", 5: "write other"}, "b": {4: "write 4", 5: "write 2"}}
	gone, contradicted := lost(applies, 5, kept)
	want := []string{
		`write 1 was acknowledged on a as version 4; as that version b has "write 4"`,
		`write 2 was acknowledged on a as version 5; as that version a has "write other"`,
		`write 3 was acknowledged on b as version 6; the cluster is at 5`,
	}
	if strings.Join(gone, "\n") != strings.Join(want, "\n") {
		t.Errorf("gone:\n%s\nwant\n%s", strings.Join(gone, "\n"), strings.Join(want, "\n"))
	}
	if len(contradicted) != 1 || !strings.Contains(contradicted[0], "write 4") {
		t.Errorf("contradicted: %q", contradicted)
	}
}

func TestTheTable(t *testing.T) {
	var table Table
	for _, r := range []Row{{"trio", "a node cut off", 1, 0, 512.4, 0}, {"trio", "a full disk", 1, 0, 3, 1}, {"trio", "a node cut off", 2, 1, 100, 0}, {"pair", "a node cut off", 1, 0, 2, 0}} {
		table.Add(r)
	}
	want := `cluster  fault           times injected  conflicts  longest silence  lost configuration
trio     a node cut off  3               1          512ms            0
trio     a full disk     1               0          3ms              1
pair     a node cut off  1               0          2ms              0
all      all             5               1          512ms            1
`
	if got := table.String(); got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	const line = `{"faults":[{"cluster":"trio","fault":"a node cut off","times":3,"conflicts":1,"longest_silence_ms":512.4,"lost_configuration":0},`
	if got := table.JSON(); !strings.HasPrefix(got, line) || strings.Contains(got, "\n") {
		t.Errorf("%s", got)
	}
}

func TestThePlanOfTwoIsInTheOrderOfTime(t *testing.T) {
	plans := map[string]plan{}
	var done []string
	for name, uses := range map[string]string{"a": "director1", "b": "director2", "c": "director1"} {
		p := plan{what: name, uses: []string{uses}}
		p.at(0, "", func() { done = append(done, name+" begins") })
		p.at(time.Second, "", func() { done = append(done, name+" ends") })
		plans[name] = p
	}
	both := together(plans["a"], plans["b"], 300*time.Millisecond)
	for _, s := range both.steps {
		s.do()
	}
	if got := strings.Join(done, ", "); got != "a begins, b begins, a ends, b ends" || both.length() != 1300*time.Millisecond {
		t.Errorf("%s in %v", got, both.length())
	}
	if clash(plans["a"], plans["b"]) || !clash(plans["a"], plans["c"]) || !clash(plans["c"], both) {
		t.Error("two faults clash when they handle the same node")
	}
}
