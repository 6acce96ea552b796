package cluster

import (
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

func TestWhatIsLostWithVotersIsSaid(t *testing.T) {
	up := func(names string) map[string]bool {
		m := map[string]bool{}
		for _, n := range strings.Fields(names) {
			m[n] = true
		}
		return m
	}
	for _, c := range []struct {
		name   string
		voters string
		up     string
		rule   conf.Quorum
		says   string // empty: nothing is lost
	}{
		{"three of three", "a b w", "a b w", conf.QuorumMajority, ""},
		{"two of three", "a b w", "a w", conf.QuorumMajority, ""},
		{"one of three", "a b w", "w", conf.QuorumMajority, "the quorum would be lost: of 3 voters 1 would be up and 2 are needed (not there: a, b); every group would stop"},
		{"two of four", "a b c d", "a b", conf.QuorumMajority, "of 4 voters 2 would be up and 3 are needed"},
		{"one of two under a majority", "a b", "a", conf.QuorumMajority, "of 2 voters 1 would be up and 2 are needed"},
		{"one of two where the survivor fences", "a b", "a", conf.QuorumFencing, ""},
		{"none of two", "a b", "", conf.QuorumUnsafe, "of 2 voters 0 would be up and 1 are needed"},
		{"one of three in a file that still has a pair's rule", "a b w", "a", conf.QuorumPing, "2 are needed"},
		{"the only one", "a", "a", conf.QuorumMajority, ""},
		{"nobody", "", "a", conf.QuorumMajority, "no voter would be left"},
		{"who does not vote does not count", "a b w", "a c d e", conf.QuorumMajority, "of 3 voters 1 would be up"},
	} {
		got := quorumAmong(strings.Fields(c.voters), up(c.up), c.rule)
		if (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q, not %q", c.name, got, c.says)
		}
	}
}

func TestAnApplyThatStopsMostOfWhatRunsIsTold(t *testing.T) {
	st := state.New()
	for _, g := range []string{"a", "b", "c", "d"} {
		st.Groups[g] = state.Group{Name: g, Owner: "one"}
	}
	st.Groups["idle"] = state.Group{Name: "idle"}
	for _, c := range []struct {
		keeps string
		text  string
		most  bool
	}{
		{"a b c d idle", "", false},
		{"a b c d", "", false}, // that one runs nowhere
		{"a b c new", "1 of the 4 groups that run would stop: d", false},
		{"a b", "2 of the 4 groups that run would stop: c, d", false},
		{"a", "3 of the 4 groups that run would stop: b, c, d", true},
		{"", "4 of the 4 groups that run would stop: a, b, c, d", true},
	} {
		spec := &conf.Spec{}
		for _, g := range strings.Fields(c.keeps) {
			spec.Groups = append(spec.Groups, conf.Group{Name: g})
		}
		if text, most := wouldStop(st, spec); text != c.text || most != c.most {
			t.Errorf("with %s left: %q, %v", c.keeps, text, most)
		}
	}
}

func TestAGroupThatWasPutAsideStopsWhenTheLogHasIt(t *testing.T) {
	var a aside
	me := state.Node{Name: "one"}
	if a.given(me, "web") {
		t.Error("nobody gave it up")
	}
	a.put("web", "given up here by alice, with --force")
	if a.given(me, "web") {
		t.Error("the leader would give it back at once")
	}
	st := state.New()
	st.Groups["web"] = state.Group{Name: "web", Owner: "one", Active: true}
	problems := map[string]string{"web": "eth1: no carrier", "db": "eth2: no carrier"}
	a.problems(st, "one", problems)
	if problems["web"] != "given up here by alice, with --force" || problems["db"] == "" {
		t.Errorf("%v", problems)
	}
	me.Problems = problems
	if !a.given(me, "web") || a.given(me, "db") {
		t.Error("it runs on, or another one stops")
	}
	st.Groups["web"] = state.Group{Name: "web"}
	a.problems(st, "one", problems)
	if !a.given(me, "web") {
		t.Error("it was forgotten while nobody has it")
	}
	st.Groups["web"] = state.Group{Name: "web", Owner: "two"}
	a.problems(st, "one", problems)
	if !a.given(me, "web") {
		t.Error("it was forgotten before the other one has started it")
	}
	st.Groups["web"] = state.Group{Name: "web", Owner: "two", Active: true}
	problems = map[string]string{}
	a.problems(st, "one", problems)
	if len(problems) != 0 || a.given(me, "web") {
		t.Error("another one runs it: this node is there for it again")
	}
	a.put("web", "once more")
	if !a.drop("web") || a.drop("web") {
		t.Error("a takeover does not take it back")
	}
}
