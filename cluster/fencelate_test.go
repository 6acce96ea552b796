package cluster

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
)

func TestANodeThatWasResetWhenItWasBackGetsTimeToStart(t *testing.T) {
	now := time.Unix(1000, 0)
	var l lateResets
	st := &state.State{Nodes: map[string]state.Node{"director1": {Valid: true, Incarnation: 1}}}
	record := func(f state.Fenced, node state.Node) {
		st.Index++
		st.Nodes["director1"] = node
		st.Fences = append(st.Fences, state.FenceRecord{Fenced: f, Index: st.Index})
		l.learn(st, now)
	}
	// What is done, and whether the node is back when that is recorded.
	late := func() {
		n := st.Nodes["director1"]
		record(state.Fenced{Node: "director1", Incarnation: n.Incarnation, Done: true}, state.Node{Valid: true, Incarnation: n.Incarnation + 1})
	}
	inTime := func() {
		n := st.Nodes["director1"]
		record(state.Fenced{Node: "director1", Incarnation: n.Incarnation, Done: true}, state.Node{Incarnation: n.Incarnation})
	}
	failed := func() {
		n := st.Nodes["director1"]
		record(state.Fenced{Node: "director1", Incarnation: n.Incarnation}, n)
	}
	foreign := func() {
		record(state.Fenced{Node: "director1", Group: "web", Done: true}, st.Nodes["director1"])
	}
	for i := range 3 { // of an earlier leader's time
		st.Index++
		st.Fences = append(st.Fences, state.FenceRecord{Fenced: state.Fenced{Node: "director1", Incarnation: uint64(i), Done: true}, Index: st.Index})
	}
	l.learn(st, now)
	for i, c := range []struct {
		do   func()
		pass time.Duration
		want time.Duration
	}{
		{nil, 0, 0},
		{late, 0, 0}, // once is bad luck: who waits for its groups waits no longer for that
		{late, 0, 30 * time.Second},
		{nil, 10 * time.Second, 20 * time.Second},
		{failed, 0, 20 * time.Second},
		{foreign, 0, 20 * time.Second},
		{nil, 25 * time.Second, 0},
		{late, 0, time.Minute},
		{late, 0, 2 * time.Minute},
		{late, 0, 4 * time.Minute},
		{late, 0, 8 * time.Minute},
		{late, 0, 8 * time.Minute},
		{inTime, 0, 0},
		{late, 0, 0},
		{late, 0, 30 * time.Second},
		{late, 16 * time.Minute, 0},
	} {
		now = now.Add(c.pass)
		if c.do != nil {
			c.do()
		}
		if got := l.wait("director1", now); got != c.want {
			t.Fatalf("step %d: it is not fenced for %v, want %v", i, got, c.want)
		}
	}
	if got := l.wait("director2", now); got != 0 {
		t.Errorf("another node: %v", got)
	}
}
