package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

func TestWhenAForeignRouterIsFenced(t *testing.T) {
	heard := []resources.Accusation{{Group: "web", Epoch: 1, Target: "router9"}}
	record := func(index uint64, node string, done bool) *state.State {
		f := state.Fenced{Node: node, Done: done, Group: "web"}
		if node == "a node" {
			f.Node, f.Group = "router9", ""
		}
		return &state.State{Fences: []state.FenceRecord{{Index: index, Fenced: f}}}
	}
	const twice = 2 * accuseAfter
	type at struct {
		after time.Duration
		heard []resources.Accusation
		learn *state.State
		due   bool
	}
	for name, steps := range map[string][]at{
		"not at the first word":                      {{0, heard, nil, false}, {accuseAfter - 1, heard, nil, false}},
		"when it goes on":                            {{0, heard, nil, false}, {accuseAfter, heard, nil, true}, {accuseAfter + time.Second, heard, nil, true}},
		"not when it was silent in between":          {{0, heard, nil, false}, {time.Second, nil, nil, false}, {accuseAfter, heard, nil, false}},
		"not again soon after it was":                {{0, heard, nil, false}, {accuseAfter, nil, record(5, "router9", true), false}, {twice, heard, nil, false}, {foreignAgain, heard, nil, false}, {foreignAgain + accuseAfter, heard, nil, true}},
		"never again when it is heard all the same":  {{0, heard, nil, false}, {accuseAfter, heard, record(5, "router9", true), false}, {foreignAgain + accuseAfter, heard, nil, false}, {10 * foreignAgain, heard, nil, false}},
		"but so when it was silent after all":        {{0, heard, nil, false}, {accuseAfter, heard, record(5, "router9", true), false}, {foreignAgain, nil, nil, false}, {foreignAgain + accuseAfter, heard, nil, false}, {foreignAgain + twice, heard, nil, true}},
		"sooner when the device failed":              {{0, heard, nil, false}, {accuseAfter, heard, record(5, "router9", false), false}, {foreignFailed + accuseAfter, heard, nil, true}},
		"whatever became of others":                  {{0, heard, record(5, "router8", true), false}, {accuseAfter, heard, record(6, "a node", true), true}},
		"a record that was seen counts from then on": {{0, heard, record(5, "router9", true), false}, {foreignAgain - 1, heard, record(5, "router9", true), false}, {foreignAgain, heard, record(5, "router9", true), true}},
	} {
		t.Run(name, func(t *testing.T) {
			var a accuser
			begin := time.Unix(1e9, 0)
			for _, s := range steps {
				if s.learn != nil {
					a.learn(s.learn, begin.Add(s.after))
				}
				if due, _ := a.due(heardAt(s.heard, begin.Add(s.after)), begin.Add(s.after)); len(due) > 0 != s.due {
					t.Errorf("after %v: due %v, want %v", s.after, due, s.due)
				}
			}
		})
	}
}

// heardAt is what is heard at an instant.
func heardAt(all []resources.Accusation, at time.Time) []resources.Accusation {
	all = slices.Clone(all)
	for i := range all {
		all[i].Heard = at
	}
	return all
}

// What a router said while this process stood still is read when it goes on, all of it
// at once, and the router may be long gone.
func TestAForeignRouterIsNotFencedForWhatWaitedInASocket(t *testing.T) {
	var a accuser
	begin := time.Unix(1e9, 0)
	old := heardAt([]resources.Accusation{{Group: "web", Epoch: 1, Target: "router9"}}, begin)
	for after := time.Duration(0); after < 4*accuseAfter; after += 50 * time.Millisecond {
		if due, _ := a.due(old, begin.Add(after)); len(due) > 0 {
			t.Fatalf("due after %v, heard at the beginning only", after)
		}
	}
	if due, _ := a.due(heardAt(old, begin.Add(4*accuseAfter)), begin.Add(4*accuseAfter)); len(due) == 0 {
		t.Error("it is heard still, and not due")
	}
}

// Fencing that does not end it is said once: more of it would not end it either.
func TestThatFencingWasInVainIsSaidOnce(t *testing.T) {
	heard := []resources.Accusation{{Group: "web", Epoch: 1, Target: "router9"}}
	var a accuser
	begin := time.Unix(1e9, 0)
	said := 0
	for i := range 100 {
		now := begin.Add(time.Duration(i) * time.Second)
		if i == 10 {
			a.learn(&state.State{Fences: []state.FenceRecord{{Index: 5, Fenced: state.Fenced{Node: "router9", Done: true, Group: "web"}}}}, now)
		}
		_, inVain := a.due(heardAt(heard, now), now)
		said += len(inVain)
	}
	if said != 1 {
		t.Errorf("said %d times", said)
	}
}

// After a failure another node tries, if there is one.
func TestFailuresAreCountedUntilItIsDone(t *testing.T) {
	var a accuser
	st := &state.State{}
	for i, done := range []bool{false, false, true, false} {
		st.Fences = append(st.Fences, state.FenceRecord{Index: uint64(i + 1), Fenced: state.Fenced{Node: "router9", Done: done, Group: "web"}})
		a.learn(st, time.Unix(1e9, 0))
		if got, want := a.fenced["router9"].failed, []int{1, 2, 0, 1}[i]; got != want {
			t.Errorf("after record %d: %d failures, want %d", i, got, want)
		}
	}
}

func TestARequestForAForeignRouterOutlivesNothing(t *testing.T) {
	st := func(change func(*state.State)) *state.State {
		s := &state.State{
			Nodes:  map[string]state.Node{"a": {Name: "a", Valid: true, Director: true}, "b": {Name: "b", Valid: true, Director: true}},
			Groups: map[string]state.Group{"web": {Name: "web", Owner: "a", Epoch: 3}},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	r := state.FenceRequest{Fence: state.Fence{Node: "router9", Group: "web", Epoch: 3, Operator: "b", Action: conf.FenceOff}}
	for name, c := range map[string]struct {
		st   *state.State
		want string
	}{
		"while all is as it was":       {st(nil), ""},
		"when the group has moved":     {st(func(s *state.State) { s.Groups["web"] = state.Group{Name: "web", Owner: "b", Epoch: 4} }), "group web has moved since"},
		"when the owner is gone":       {st(func(s *state.State) { s.Nodes["a"] = state.Node{Name: "a", Director: true} }), "group web has moved since"},
		"when the operator is gone":    {st(func(s *state.State) { s.Nodes["b"] = state.Node{Name: "b", Director: true} }), "b, which was to do it, is gone"},
		"when it has become a node":    {st(func(s *state.State) { s.Nodes["router9"] = state.Node{Name: "router9"} }), "router9 is a node now"},
		"when the group is not there":  {st(func(s *state.State) { delete(s.Groups, "web") }), "group web has moved since"},
		"when nobody has it under way": {st(func(s *state.State) { s.Groups["web"] = state.Group{Name: "web", Epoch: 3} }), "group web has moved since"},
	} {
		if got := stale(c.st, r); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
