package cluster

import (
	"testing"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

func TestTheRuleOfAPair(t *testing.T) {
	nodes := func(names ...string) (ns []conf.Node) {
		for _, n := range names {
			ns = append(ns, conf.Node{Name: n, Role: conf.Director})
		}
		return ns
	}
	two, three := nodes("a", "b"), nodes("a", "b", "c")
	survived := pair.Record{Current: pair.Generation{Counter: 1, ID: "0000aaaa"}, Contested: "b", Rule: "fencing"}
	older := survived
	older.Rule = ""
	for name, c := range map[string]struct {
		members *state.Members // nil: ha.yaml's, a and b by fencing
		voters  []string
		record  pair.Record
		self    string
		rule    conf.Quorum // 0: none is in force
		local   []conf.Node // of ha.yaml; nil: a and b
	}{
		"two nodes go by what ha.yaml says":                             {nil, []string{"a/1", "b/1"}, pair.Record{}, "a", conf.QuorumFencing, nil},
		"while a third joins it goes on":                                {&state.Members{Nodes: three, Joining: []string{"c"}, Quorum: conf.QuorumFencing}, []string{"a/1", "b/1"}, pair.Record{}, "a", conf.QuorumFencing, nil},
		"of which the third is no part":                                 {&state.Members{Nodes: three, Joining: []string{"c"}, Quorum: conf.QuorumFencing}, []string{"a/1", "b/1"}, pair.Record{}, "c", 0, nil},
		"and ends before that votes":                                    {&state.Members{Nodes: three, Quorum: conf.QuorumMajority}, []string{"a/1", "b/1"}, pair.Record{}, "a", 0, nil},
		"after one was removed it waits for the end of that one's vote": {&state.Members{Nodes: two, Quorum: conf.QuorumPing}, []string{"a/1", "b/1", "c/1"}, pair.Record{}, "a", 0, nil},
		"and begins then":                                               {&state.Members{Nodes: two, Quorum: conf.QuorumPing}, []string{"a/1", "b/1"}, pair.Record{}, "a", conf.QuorumPing, nil},
		"what one of three alone has in its log makes it no pair":       {&state.Members{Nodes: two, Quorum: conf.QuorumPing}, []string{"a/1", "b/1"}, pair.Record{}, "a", 0, three},
		"what it has applied does":                                      {&state.Members{Nodes: two, Quorum: conf.QuorumPing}, []string{"a/1", "b/1"}, pair.Record{RuleBegan: true}, "a", conf.QuorumPing, three},
		"a rule that has ended is over, whatever ha.yaml says":          {nil, []string{"a/1", "b/1"}, pair.Record{RuleEnded: true}, "a", 0, nil},
		// What stood in the survivor's log alone was committed with its generation.
		"a survivor goes by the rule by which it has survived, whatever its log says": {&state.Members{Nodes: three, Quorum: conf.QuorumMajority}, []string{"a/1/1.0000aaaa"}, survived, "a", conf.QuorumFencing, nil},
		"one of an earlier version goes by its log":                                   {&state.Members{Nodes: three, Quorum: conf.QuorumMajority}, []string{"a/1/1.0000aaaa"}, older, "a", 0, nil},
		"who was removed is survived no longer":                                       {&state.Members{Nodes: nodes("a", "c"), Quorum: conf.QuorumPing}, []string{"a/1/1.0000aaaa", "c/1/1.0000aaaa"}, survived, "a", conf.QuorumPing, nil},
	} {
		t.Run(name, func(t *testing.T) {
			local := c.local
			if local == nil {
				local = two
			}
			n := &Node{self: c.self, cfg: Config{Local: &conf.Local{Nodes: local, Quorum: conf.QuorumFencing}}, pair: &pairing{record: c.record}}
			st := state.New().SetVoters(1, c.voters)
			st.Members = c.members
			rule, _, ok := n.pairRule(st)
			if rule != c.rule || ok != (c.rule != 0) {
				t.Errorf("rule %v, in force %v; want %v", rule, ok, c.rule)
			}
		})
	}
}
