package screen

import (
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/fencing"
	"github.com/keepbeat/keepbeat/fencing/watchdog"
)

// twoAlone is a pair of which nothing can be complained.
func twoAlone(t *testing.T) cluster.Status {
	s := healthy(t, nil)
	s.Nodes = s.Nodes[:2]
	for i, n := range s.Nodes {
		n.Here.Pair = &cluster.PairStatus{Rule: "fencing", Peer: s.Nodes[1-i].Name, Phase: "whole", Generation: "1.b53c435f", How: "director1 went on without director2 (rule fencing)"}
		n.Here.Devices = devices(n.Name, s.Nodes[1-i].Name)
		n.Here.Watchdog = fedDog()
	}
	return s
}

func devices(here, other string) []fencing.DeviceStatus {
	return []fencing.DeviceStatus{
		{Name: "ipmi-" + other, Kind: "agent fence_ipmilan", Targets: []string{other}, Here: true, Checked: ago(20 * time.Second)},
		{Name: "ipmi-" + here, Kind: "agent fence_ipmilan", Targets: []string{here}},
		{Name: "hands", Kind: "manual", Targets: []string{"director1", "director2"}, Here: true},
	}
}

func fedDog() *watchdog.Status {
	return &watchdog.Status{
		Device: "/dev/watchdog", Identity: "Software Watchdog", Timeout: 10 * time.Second, Running: true,
		Armed: ago(50 * time.Hour), Fed: ago(300 * time.Millisecond), Left: 9700 * time.Millisecond,
		Beats: []watchdog.BeatStatus{{Name: "actor"}, {Name: "leader"}, {Name: "lease"}, {Name: "pair"}},
	}
}

// dies makes director2 one that is not heard.
func dies(s *cluster.Status) {
	down(s, 1)
	s.Nodes[1].Owns = []string{"mail"}
	s.Quorum, s.Leader = false, ""
	s.Groups = append(s.Groups, cluster.GroupStatus{Name: "mail", Owner: "director2", Epoch: 2, State: "active", Since: ago(time.Hour), Reason: "director2 is preferred"})
}

func safetyStories(t *testing.T) map[string]cluster.Status {
	all := map[string]cluster.Status{"pair-well": twoAlone(t)}

	s := twoAlone(t)
	dies(&s)
	s.Nodes[0].Here.Pair.Phase, s.Nodes[0].Here.Pair.Why = "alone", "director2 is silent; it may fence first, and is given 5s for that (priority_fencing_delay)"
	s.Trouble = []string{
		"node director1 has no quorum and goes on alone (quorum: fencing): director2 is silent; it may fence first, and is given 5s for that (priority_fencing_delay); nothing can be changed meanwhile",
		"node director2 is down: not heard on any link",
	}
	all["pair-alone"] = s

	s = twoAlone(t)
	dies(&s)
	s.Groups = nil
	s.Spec, s.Index = state.SpecInfo{}, 0
	s.Reading = "what stands in this node's log counts again when there is a leader: until then specification and groups may be missing here"
	s.Nodes[0].State, s.Nodes[0].Why, s.Nodes[0].Votes, s.Nodes[0].Here.Lease = "joining", "not admitted by the log yet", false, 0
	s.Nodes[0].Here.Pair = &cluster.PairStatus{Rule: "ping", Peer: "director2", Phase: "waiting", Generation: "4.04de262c",
		Why: "it has not seen director2 since its start (wait_for_all); if director2 is surely off: `keepbeat quorum confirm`", TieBreaker: "answered 120ms ago"}
	s.Nodes[0].Here.Devices, s.Nodes[0].Here.Watchdog.Running, s.Nodes[0].Here.Watchdog.Identity = nil, false, ""
	s.Trouble = []string{
		"node director1 is waiting: it has not seen director2 since its start (wait_for_all); if director2 is surely off: `keepbeat quorum confirm`",
		"node director2 is down: not heard on any link",
	}
	all["pair-waiting"] = s

	s = twoAlone(t)
	s.Quorum, s.Leader, s.Groups = false, "", nil
	const choose = " and this node have each gone on without the other (generations 2.1f3a90c7 and 2.c0d6aea3): `keepbeat quorum confirm` on the one whose state is to be kept"
	s.Trouble = nil
	for i, g := range []string{"2.1f3a90c7", "2.c0d6aea3"} {
		n := &s.Nodes[i]
		other := s.Nodes[1-i].Name
		n.State, n.Why, n.Here.Lease = "joining", "not admitted by the log yet", 0
		n.Here.Pair = &cluster.PairStatus{Rule: "fencing", Peer: other, Phase: "rivals", Generation: g, Contested: true, Why: other + choose,
			How: n.Name + " went on without " + other + " (rule fencing), confirmed by root"}
		s.Trouble = append(s.Trouble, "node "+n.Name+" waits: "+other+choose)
	}
	all["pair-rivals"] = s

	s = twoAlone(t)
	dies(&s)
	s.Nodes[0].Here.Pair.Phase, s.Nodes[0].Here.Pair.Why = "surviving", "director2 could not be fenced; it is tried again"
	s.Nodes[0].Here.Devices[0].Error = "monitor: exit status 1: Unable to connect/login to fencing device"
	s.Trouble = []string{
		"node director1 has no quorum and goes on alone (quorum: fencing): director2 could not be fenced; it is tried again; nothing can be changed meanwhile",
		"node director1: fencing device ipmi-director2 does not answer: monitor: exit status 1: Unable to connect/login to fencing device",
		"node director2 is down: not heard on any link",
	}
	all["pair-fencing"] = s

	s = healthy(t, nil)
	down(&s, 1)
	s.Leader = "director1"
	s.Nodes[0].Here.Devices = devices("director1", "director2")
	s.Fencing = map[string]state.FenceRequest{"director2": {
		Fence: state.Fence{Node: "director2", Operator: "director1", Why: "group db may still run there, and nothing but fencing can end that"}, At: ago(95 * time.Second), Tries: 2,
	}}
	s.Trouble = []string{
		"node director2 is being fenced by director1 (2 tries have failed: `keepbeat fence history`): group db may still run there, and nothing but fencing can end that",
		"node director2 is down: silent, and a majority has waited out its lease of 500ms",
	}
	all["fencing"] = s

	s = twoAlone(t)
	dies(&s)
	s.Nodes[0].Here.Pair.Phase, s.Nodes[0].Here.Pair.Why = "surviving", "a device is fencing director2"
	s.Nodes[0].Here.Waiting = []fencing.Waiting{{Node: "director2", Device: "hands", Since: ago(4 * time.Minute)}}
	s.Trouble = []string{
		"node director1 has no quorum and goes on alone (quorum: fencing): a device is fencing director2; nothing can be changed meanwhile",
		"node director2 has to be off before anything goes on: make sure that it is, by hand, then run `keepbeat fence confirm director2` (device hands on director1 waits since 02:56:00)",
		"node director2 is down: not heard on any link",
	}
	all["manual"] = s

	s = twoAlone(t)
	w := s.Nodes[1].Here.Watchdog
	w.Left, w.Held = 4200*time.Millisecond, []string{"actor has not turned for 5.812s (5s allowed)"}
	s.Trouble = []string{"node director2: the watchdog is not fed and resets the machine in 4.2s: actor has not turned for 5.812s (5s allowed)"}
	all["watchdog-held"] = s

	s = twoAlone(t)
	s.Nodes[0].Here.Watchdog.Starved = "group db: fs /srv does not stop: device is busy"
	s.Nodes[1].Here.Watchdog = &watchdog.Status{Device: "/dev/watchdog", Error: "open /dev/watchdog: device or resource busy: systemd (pid 1) has it open"}
	s.Trouble = []string{"node director1 resets itself: group db: fs /srv does not stop: device is busy",
		"node director2: the watchdog /dev/watchdog is not armed: open /dev/watchdog: device or resource busy: systemd (pid 1) has it open"}
	all["watchdog-starved"] = s

	s = twoAlone(t)
	for i := range s.Nodes {
		p := s.Nodes[i].Here.Pair
		p.OnlySerial = true
		p.Why = "only the serial line is left: leases are kept alive, nothing can be decided, and nobody is fenced or taken over"
		s.Trouble = append(s.Trouble, "node "+s.Nodes[i].Name+": "+p.Why)
	}
	s.Quorum, s.Leader = false, ""
	all["pair-serial"] = s

	s = twoAlone(t)
	s.Nodes[1].Here.Pair.Rule = "unsafe"
	s.Trouble = nil
	for i, rules := range [][2]string{{"fencing", "unsafe"}, {"unsafe", "fencing"}} {
		n, other := &s.Nodes[i], s.Nodes[1-i].Name
		n.Here.Pair.Why = "it goes by quorum: " + rules[0] + ", " + other + " by quorum: " + rules[1] + ": make ha.yaml the same on both and run `keepbeat restart` where it was changed; until then neither goes on without the other"
		s.Trouble = append(s.Trouble, "node "+n.Name+": "+n.Here.Pair.Why)
	}
	all["pair-two-rules"] = s

	s = twoAlone(t)
	s.Nodes = append(s.Nodes, cluster.NodeStatus{Name: "arbiter", Role: "witness", State: "down"})
	for i := range s.Nodes[:2] {
		s.Nodes[i].Here.Pair.Rule, s.Nodes[i].Here.Pair.TieBreaker = "ping", "answered 74ms ago"
	}
	s.Trouble = []string{"node arbiter is down: not heard on any link"}
	all["pair-grows"] = s

	for name, s := range all {
		s.Trouble = append(s.Trouble, api.PoolTrouble(s)...)
		all[name] = s
	}
	return all
}

func TestAPageOfPairsFencingAndWatchdogs(t *testing.T) {
	for name, s := range safetyStories(t) {
		t.Run(name, func(t *testing.T) { golden(t, name+".txt", Status(s, Options{Width: 80})) })
	}
}
