package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"

	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/state"
)

func TestAClusterThatHasNotBegunSaysWhatItWaitsForAndNothingElse(t *testing.T) {
	s := Status{Waiting: "the cluster begins when every node is there: director2 has not been heard", Nodes: []NodeStatus{
		{Name: "director1", State: "joining", Why: "not admitted by the log yet"},
		{Name: "director2", State: "down", Why: "not heard on any link", Links: []LinkStatus{{Link: "bcast eth1", State: "down", Why: "no hello yet"}}},
	}}
	if got := trouble(s); !slices.Equal(got, []string{s.Waiting}) {
		t.Errorf("trouble: %q", got)
	}
}

func TestANodeThatReadsItsLogDoesNotSpeakOfThePast(t *testing.T) {
	s := Status{Quorum: true, Reading: "this node is reading its log again", Nodes: []NodeStatus{{Name: "director1", State: "joining", Why: "not admitted by the log yet"}},
		Groups: []GroupStatus{{Name: "web", State: "down", Reason: "nobody was ready"}}}
	if got := trouble(s); !slices.Equal(got, []string{s.Reading}) {
		t.Errorf("trouble: %q", got)
	}
	s.Quorum, s.Reading = false, "what stands in its log counts when there is a leader"
	s.Nodes = append(s.Nodes, NodeStatus{Name: "director2", State: "down", Why: "not heard on any link"})
	want := []string{"no quorum: this node sees no majority of voters; groups whose lease has ended are silent", "node director2 is down: not heard on any link"}
	if got := trouble(s); !slices.Equal(got, want) {
		t.Errorf("without a leader: %q", got)
	}
}

func TestWhatALinkRefusesIsTroubleOfItsNode(t *testing.T) {
	now := time.Now()
	s := Status{Quorum: true, Time: now, Nodes: []NodeStatus{{Name: "director1", State: "up", Here: &LocalStatus{
		Refused: []link.Refused{{Link: "bcast eth1", What: "authentication failed", From: "10.0.1.9:694", Count: 57, Last: now.Add(-3 * time.Second)}},
	}}}}
	if got := strings.Join(trouble(s), "\n"); got != "node director1, link bcast eth1: authentication failed (57 so far, the last from 10.0.1.9:694 3s ago)" {
		t.Errorf("trouble: %q", got)
	}
}

func TestOtherNodesInTheFileOfAnotherNodeAreTrouble(t *testing.T) {
	one := []conf.Node{{Name: "director1", Role: conf.Director}, {Name: "arbiter", Role: conf.Witness}}
	two := append(one[1:2:2], one[0], conf.Node{Name: "director3", Role: conf.Director})
	s := Status{Quorum: true, Node: "director1", Nodes: []NodeStatus{
		{Name: "arbiter", State: "up", Here: &LocalStatus{Nodes: listed(two)}},
		{Name: "director1", State: "up", Here: &LocalStatus{Nodes: listed(one)}},
	}}
	want := "node arbiter: its ha.yaml has other nodes (arbiter (witness), director1, director3) than this one's (arbiter (witness), director1): make them the same and run `keepbeat restart` where it was changed"
	if got := strings.Join(trouble(s), "\n"); got != want {
		t.Errorf("trouble: %q", got)
	}
}

func TestNodesWhoseStatesDifferAreTroubleNumberOne(t *testing.T) {
	here := &LocalStatus{}
	node := func(name string, differs bool) NodeStatus {
		return NodeStatus{Name: name, State: "up", Here: here, Differs: differs}
	}
	for name, c := range map[string]struct {
		nodes []NodeStatus
		want  string // begins with
	}{
		"one of three, as another sees it": {[]NodeStatus{node("a", false), node("b", true), node("c", false)},
			"the nodes do not hold the same state: b and a, c have applied the same log and differ; the log or the memory of b is damaged: stop keepbeat there"},
		"one of three, as it sees itself": {[]NodeStatus{node("a", true), node("b", false), node("c", true)},
			"the nodes do not hold the same state: b and a, c have applied"},
		"of a pair": {[]NodeStatus{node("a", false), node("b", true)},
			"the nodes do not hold the same state: b and a have applied the same log and differ; find out which is wrong"},
	} {
		got := trouble(Status{Nodes: c.nodes}) // without a quorum, too
		if len(got) == 0 || !strings.HasPrefix(got[0], c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := trouble(Status{Quorum: true, Nodes: []NodeStatus{node("a", false)}}); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestAPairThatCannotAskForAnAddressSaysWhy(t *testing.T) {
	s := Status{Node: "director1", Nodes: []NodeStatus{{Name: "director1", State: "up", Here: &LocalStatus{Lease: 400, Pair: &PairStatus{
		Rule: "ping", Peer: "director2", Phase: "surviving", Why: "looking whether the addresses answer elsewhere", Unasked: "vip 10.0.0.5/32: eth3: no carrier",
	}}}}}
	want := []string{
		"node director1 does not take addresses of which it cannot ask who has them: vip 10.0.0.5/32: eth3: no carrier",
		"node director1 has no quorum and serves nothing (quorum: ping): looking whether the addresses answer elsewhere; nothing can be changed meanwhile",
	}
	if got := trouble(s); !slices.Equal(got, want) {
		t.Errorf("trouble: %q", got)
	}
}

func TestStatusSaysWhyFencingWaits(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 4, 5, 0, time.Local)
	s := Status{Quorum: true, Leader: "w", Nodes: []NodeStatus{{Name: "w", State: "up", Here: &LocalStatus{Held: map[string]time.Time{"director1": at}}}}}
	want := "node director1 is not fenced again before 03:04:05: the last times its devices reset it when it was back already, so it is likely to be starting; `keepbeat fence director1` does not wait"
	if got := trouble(s); !slices.Contains(got, want) {
		t.Errorf("trouble: %q", got)
	}
}

func TestANodeOfAPairSaysEachThingOnce(t *testing.T) {
	const joining = "not admitted by the log yet"
	serves := []resources.GroupStatus{{Name: "web", Phase: "active"}}
	for name, c := range map[string]struct {
		status Status
		here   LocalStatus
		want   []string
	}{
		"the very first start": {
			Status{Waiting: "the cluster begins when every node is there: director2 has not been heard"},
			LocalStatus{Pair: &PairStatus{Phase: "joining", Why: "its log is empty: director2 has to take it in"}},
			[]string{"the cluster begins when every node is there: director2 has not been heard"},
		},
		"a cold start": {
			Status{Reading: "its log does not count yet"},
			LocalStatus{Pair: &PairStatus{Phase: "waiting", Why: "it has not seen director2 since its start (wait_for_all)"}},
			[]string{"node director1 is waiting: it has not seen director2 since its start (wait_for_all)"},
		},
		"just started": {
			Status{Reading: "its log does not count yet"},
			LocalStatus{Pair: &PairStatus{Phase: "waiting", Why: "waiting for director2 to take part"}},
			[]string{"node director1 is waiting for director2 to take part"},
		},
		"giving way": {
			Status{Reading: "its log does not count yet"},
			LocalStatus{Pair: &PairStatus{Phase: "rejoining", Peer: "director2", Why: "director2 has opened generation 2.b53c435f, this node knows 1.11111111"}},
			[]string{"node director1 comes back into the generation of director2, without its log"},
		},
		"two histories": {
			Status{Reading: "its log does not count yet"},
			LocalStatus{Pair: &PairStatus{Phase: "rivals", Why: "director2 and this node have each gone on without the other"}},
			[]string{"node director1 waits: director2 and this node have each gone on without the other"},
		},
		"going on alone": {
			Status{Index: 7},
			LocalStatus{Lease: 400, Groups: serves, Pair: &PairStatus{Rule: "fencing", Phase: "alone", Why: "director2 is silent"}},
			[]string{"node director1 has no quorum and goes on alone (quorum: fencing): director2 is silent; nothing can be changed meanwhile", "node director1 is joining: " + joining},
		},
		"both live and do not hear each other": {
			Status{Reading: "its log does not count yet"},
			LocalStatus{Lease: 400, Pair: &PairStatus{Rule: "ping", Phase: "surviving", Why: "looking whether the addresses answer elsewhere", Elsewhere: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}}},
			[]string{"node director1 has no quorum and serves nothing (quorum: ping): looking whether the addresses answer elsewhere; another machine answers for 10.0.0.1, 10.0.0.2, 10.0.0.3 and 2 more; nothing can be changed meanwhile"},
		},
		"the only voter, unsafe": {
			Status{Quorum: true, Index: 7},
			LocalStatus{Lease: 400, Pair: &PairStatus{Rule: "unsafe", Peer: "director2", Phase: "sole", Generation: "1.b53c435f", Contested: true, Why: "director2 has not come back"}},
			[]string{"node director1 goes on alone, under generation 1.b53c435f: director2 has not come back; by the rule unsafe director2 may be serving the same", "node director1 is joining: " + joining},
		},
	} {
		s := c.status
		s.Node, s.Nodes = "director1", []NodeStatus{{Name: "director1", State: "joining", Why: joining, Here: &c.here}}
		if got := trouble(s); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A name that was misspelt keeps every other newcomer waiting.
func TestANewcomerThatWaitsForAnotherNamesIt(t *testing.T) {
	heard := map[string]consensus.Member{"director2": {}, "arbiter": {}}
	for _, c := range []struct {
		joining []string
		name    string
		want    string
	}{
		{[]string{"arbiter", "typo"}, "arbiter", "typo"},
		{[]string{"arbiter"}, "arbiter", ""},
		{[]string{"arbiter", "director1"}, "arbiter", ""}, // director1 is this node
		{[]string{"typo"}, "director2", ""},
	} {
		if got := alsoJoins(&state.Members{Joining: c.joining}, c.name, "director1", heard); got != c.want {
			t.Errorf("%v, %s: waits for %q, want %q", c.joining, c.name, got, c.want)
		}
	}
	if got := alsoJoins(nil, "arbiter", "director1", heard); got != "" {
		t.Errorf("without a change of nodes: %q", got)
	}
}

// Of two nodes that have each gone on alone one waits: what its own history says of the groups would mislead whoever chooses.
func TestANodeThatWaitsForAChoiceDoesNotSayThatAGroupRunsNowhere(t *testing.T) {
	s := Status{Node: "director1", Nodes: []NodeStatus{{Name: "director1", State: "up", Here: &LocalStatus{Pair: &PairStatus{
		Rule: "unsafe", Peer: "director2", Phase: "rivals", Why: "director2 and this node have each gone on without the other",
	}}}}, Groups: []GroupStatus{{Name: "web", State: "down", Reason: "stopped on director1"}}}
	want := []string{"node director1 waits: director2 and this node have each gone on without the other"}
	if got := trouble(s); !slices.Equal(got, want) {
		t.Errorf("trouble: %q", got)
	}
}
