package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/conf"
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
	want := []string{"no quorum: this node sees no majority of voters; groups whose lease has ended are silent", "node director1 is joining: not admitted by the log yet"}
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
		"node director1 has no quorum and goes on alone (quorum: ping): looking whether the addresses answer elsewhere; nothing can be changed meanwhile",
	}
	if got := trouble(s); !slices.Equal(got, want) {
		t.Errorf("trouble: %q", got)
	}
}
