package screen

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/ipvs"
	"github.com/keepbeat/keepbeat/resources/vip"
)

var update = flag.Bool("update", false, "write testdata anew")

var now = time.Date(2024, 3, 9, 3, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func detail(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func link(name string, rtt float64) cluster.LinkStatus {
	return cluster.LinkStatus{Link: name, State: "up", RTT: rtt, Since: ago(50 * time.Hour)}
}

func one() *int { n := 1; return &n }

func pool() ipvs.Detail {
	real := func(address string, active uint32) ipvs.RealDetail {
		return ipvs.RealDetail{
			Address: address, Forward: "gate", Weight: 1, Wanted: 1, InKernel: one(), State: ipvs.StateUp, OK: true,
			Check: "negotiate http", Answer: "HTTP 200, matches", LastCheck: ago(time.Second), Since: ago(3 * time.Hour),
			Traffic: &ipvs.Counters{Active: active, Inactive: 2 * active},
		}
	}
	return ipvs.Detail{Pool: "ldirectord.yaml", Started: true, Services: []ipvs.ServiceDetail{{
		Name: "192.168.56.200:80 tcp", Protocol: "tcp", Scheduler: "wlc", Quiescent: true, Up: 2, InKernel: true,
		Reals:  []ipvs.RealDetail{real("192.168.56.103:80", 12), real("192.168.56.104:80", 9)},
		Quorum: ipvs.QuorumMet, Needed: 1, Sum: 2,
		Fallbacks: []ipvs.FallbackInfo{{Address: "127.0.0.1:80", Forward: "gate", Weight: 1, State: ipvs.StateUp}},
	}, {
		Name: "[2001:db8::200]:443 tcp", Protocol: "tcp", Scheduler: "sh", Flags: []string{"sh-port"}, Persistent: 600, Up: 1, InKernel: true, Quorum: ipvs.QuorumMet, Needed: 1, Sum: 1,
		Comment: "the shop",
		Reals:   []ipvs.RealDetail{real("[2001:db8:0:1::103]:443", 120345)},
	}}}
}

// healthy is a pair with a witness of which nothing can be complained.
func healthy(t *testing.T, edit func(d *ipvs.Detail)) cluster.Status {
	d := pool()
	if edit != nil {
		edit(&d)
	}
	here := func(node string) *cluster.LocalStatus {
		return &cluster.LocalStatus{Node: node, Version: "0.1.0", Lease: 412.5, Guard: "on", Started: ago(50 * time.Hour)}
	}
	links := []cluster.LinkStatus{link("bcast eth1", 0.31), link("bcast eth2", 0.42)}
	return cluster.Status{
		Cluster: "web-directors", Node: "director1", Version: "0.1.0", Time: now, Trouble: []string{},
		Quorum: true, Leader: "director2", Profile: "default", Index: 4711, Spec: state.SpecInfo{Version: 3, From: "director1", At: ago(26 * time.Hour)},
		Nodes: []cluster.NodeStatus{
			{Name: "director1", Role: "director", State: "up", Votes: true, Owns: []string{"web"}, Here: here("director1")},
			{Name: "director2", Role: "director", State: "up", Votes: true, Links: links, Here: here("director2")},
			{Name: "arbiter", Role: "witness", State: "up", Votes: true, Links: slices.Clone(links), Here: &cluster.LocalStatus{Node: "arbiter", Version: "0.1.0", Guard: "off"}},
		},
		Groups: []cluster.GroupStatus{{
			Name: "web", Owner: "director1", Epoch: 7, State: "active", Since: ago(3*time.Hour + 12*time.Minute),
			Reason: "director1 is the first of prefer and is ready", Prefer: []string{"director1", "director2"}, Failback: true,
			Resource: []resources.ResourceStatus{
				{Name: "vip 192.168.56.200", Kind: conf.KindVIP, State: "started", Since: ago(3*time.Hour + 12*time.Minute), Detail: detail(t, vip.Detail{Address: "192.168.56.200/32", Interface: "eth1", Carrier: true})},
				{Name: "ldirectord ldirectord.yaml", Kind: conf.KindLdirectord, State: "started", Since: ago(3*time.Hour + 12*time.Minute), Detail: detail(t, d)},
			},
		}},
	}
}

func fails(r *ipvs.RealDetail, answer string) {
	r.State, r.OK, r.Answer, r.LastCheck, r.Since, r.Wanted = ipvs.StateDown, false, answer, ago(300*time.Millisecond), ago(40*time.Second), 0
	zero := 0
	r.InKernel = &zero
	r.Traffic = &ipvs.Counters{Active: 3}
}

func down(s *cluster.Status, node int) {
	n := &s.Nodes[node]
	n.State, n.Why, n.Here = "down", "not heard on any link", nil
	for i := range n.Links {
		n.Links[i].State, n.Links[i].RTT, n.Links[i].Since = "down", 0, ago(14*time.Second)
	}
}

func stories(t *testing.T) map[string]cluster.Status {
	all := map[string]cluster.Status{"well": healthy(t, nil)}

	s := healthy(t, nil)
	down(&s, 1)
	s.Leader = "director1"
	s.Trouble = []string{"node director2 is down: not heard on any link"}
	all["dead-node"] = s

	s = healthy(t, nil)
	s.Groups[0].State, s.Groups[0].Target = "moving", "director2"
	s.Groups[0].Resource[1].State = "stopping"
	s.Nodes[1].Links[1].State, s.Nodes[1].Links[1].RTT, s.Nodes[1].Links[1].Loss = "late", 12.25, 0.18
	s.Trouble = []string{"link bcast eth2 to director2 is late: "}
	all["moving"] = s

	s = healthy(t, func(d *ipvs.Detail) {
		fails(&d.Services[0].Reals[0], "dial tcp 192.168.56.103:80: connect: connection refused")
		d.Services[0].Up = 1
	})
	all["quiescent"] = s

	s = healthy(t, func(d *ipvs.Detail) {
		for i := range d.Services[0].Reals {
			fails(&d.Services[0].Reals[i], "HTTP 503 Service Unavailable")
		}
		d.Services[0].Up, d.Services[0].Quorum, d.Services[0].Sum = 0, ipvs.QuorumLost, 0
		d.Services[0].Fallbacks[0].Active, d.Services[0].Fallbacks[0].Traffic = true, &ipvs.Counters{Active: 21}
		d.Services[1].Reals[0].OK, d.Services[1].Reals[0].Answer = false, "no answer within 3s"
	})
	all["fallback"] = s

	s = healthy(t, func(d *ipvs.Detail) {
		v := &d.Services[0]
		v.Title, v.Quorum, v.Needed, v.Hysteresis, v.Sum = "front page", ipvs.QuorumLost, 4, 1, 2
		five := v.Reals[1]
		five.Address, five.Weight, five.Rising = "192.168.56.105:80", 5, true
		v.Reals = append(v.Reals, five, five, five)
		v.Reals[3].Address, v.Reals[3].Rising, v.Reals[3].State, v.Reals[3].File, v.Reals[3].Reason = "192.168.56.106:80", false, ipvs.StateDown, "web6", "maintenance: the file web6 is there"
		v.Reals[4].Address, v.Reals[4].Rising, v.Reals[4].Order, v.Reals[4].Reason = "192.168.56.107:80", false, &ipvs.Order{Action: ipvs.Drain}, "drained by alice: new kernel"
		fails(&v.Reals[0], "connection refused")
		v.Reals[0].Check, v.Reals[0].Checks, v.Reals[0].Reason = "connect", make([]ipvs.CheckDetail, 3), "connect 192.168.56.103:81: connection refused (2 of 3 checks fail)"
		v.Fallbacks = append(v.Fallbacks, v.Fallbacks[0])
		v.Fallbacks[0].State, v.Fallbacks[0].Answer = ipvs.StateDown, "no answer within 3s"
		v.Fallbacks[1].Address, v.Fallbacks[1].Active, v.Fallbacks[1].Weight = "192.168.57.1:80", true, 10
		v.Up = 3
		d.Blind = "maintenancedir /etc/keepbeat/maintenance is not there; it is waited for"
	})
	all["quorum"] = s

	s = healthy(t, func(d *ipvs.Detail) {
		d.Kernel = &ipvs.SharedDetail{
			Settings: map[string]string{"sync_refresh_period": "10", "timeout_tcp": "600"},
			Sync:     []string{"master on eth2, id 75, 224.0.0.81:8848"},
		}
	})
	all["synchronised"] = s

	s = healthy(t, nil)
	s.Groups[0].State, s.Groups[0].Blocked = "blocked", "vip 192.168.56.200 does not stop: netlink: permission denied"
	s.Groups[0].Resource[0].State, s.Groups[0].Resource[0].Error = "failed", "vip 192.168.56.200: netlink: permission denied"
	s.Trouble = []string{"group web is blocked on director1: vip 192.168.56.200 does not stop: netlink: permission denied",
		"group web: vip 192.168.56.200: vip 192.168.56.200: netlink: permission denied"}
	all["blocked"] = s

	s = healthy(t, nil)
	down(&s, 1)
	down(&s, 2)
	s.Quorum, s.Leader = false, ""
	s.Nodes[0].Here.Lease = 0
	s.Groups[0].State = "silent"
	s.Trouble = []string{
		"no quorum: this node sees no majority of voters; groups whose lease has ended are silent",
		"group web: its owner director1 has no live lease; the guard keeps its addresses silent",
		"node arbiter is down: not heard on any link", "node director2 is down: not heard on any link",
	}
	all["no-quorum"] = s

	s = healthy(t, nil)
	s.Groups = nil
	s.Spec = state.SpecInfo{}
	s.Nodes[0].State, s.Nodes[0].Why, s.Nodes[0].Votes = "joining", "not admitted by the log yet", false
	s.Trouble = []string{"node director1: its files are not what the cluster runs: /etc/keepbeat/haresources.yaml:4:7: unknown key \"prefers\"; did you mean \"prefer\"?\n/etc/keepbeat/ldirectord.yaml:9:3: unknown key \"reel\"; did you mean \"real\"?"}
	all["no-specification"] = s

	s = healthy(t, nil)
	s.Groups, s.Nodes[0].Here.Lease = nil, 0
	s.Spec = state.SpecInfo{}
	s.Nodes[0].State, s.Nodes[0].Why = "joining", "not admitted by the log yet"
	s.Reading = "this node is reading its log again after its start: specification and groups are not all there yet"
	s.Trouble = []string{s.Reading}
	all["reading"] = s

	for name, s := range all {
		s.Trouble = append(s.Trouble, api.PoolTrouble(s)...)
		all[name] = s
	}
	return all
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", name, d)
	}
}

func TestStatusLooksAsItOught(t *testing.T) {
	for name, s := range stories(t) {
		t.Run(name, func(t *testing.T) { golden(t, name+".txt", Status(s, Options{Width: 80})) })
	}
}

var escape = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestNoLineIsWiderThanTheTerminal(t *testing.T) {
	all := stories(t)
	maps.Copy(all, safetyStories(t))
	for name, s := range all {
		for _, width := range []int{60, 80, 132} {
			coloured := Status(s, Options{Width: width, Colour: true})
			bare := Status(s, Options{Width: width})
			if strings.Contains(bare, "\x1b") || escape.ReplaceAllString(coloured, "") != bare {
				t.Errorf("%s at %d: colour changes more than the colour", name, width)
			}
			if width < 80 {
				continue // the matrix of nodes and links needs its columns
			}
			for line := range strings.Lines(bare) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
					t.Errorf("%s at %d: %d columns: %s", name, width, n, line)
				}
			}
		}
	}
}

func TestAServersAnswerCannotDriveTheTerminal(t *testing.T) {
	s := healthy(t, func(d *ipvs.Detail) {
		fails(&d.Services[0].Reals[0], "\x1b[2J\x07evil\r\nSet-Cookie\u202e \xff")
	})
	s.Trouble = api.PoolTrouble(s)
	out := Status(s, Options{Width: 80})
	for _, bad := range []string{"\x1b", "\x07", "\r", "\u202e", "\xff"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q reaches the terminal", bad)
		}
	}
}

func TestAResultThatIsTooOldIsShown(t *testing.T) {
	s := healthy(t, func(d *ipvs.Detail) {
		r := &d.Services[0].Reals[1]
		r.Overdue, r.LastCheck, r.Answer = true, ago(34*time.Second), "too many open files"
	})
	s.Trouble = api.PoolTrouble(s)
	out := Status(s, Options{Width: 160})
	if !strings.Contains(out, "overdue, 34 s ago: too many open files") || !strings.Contains(out, "192.168.56.104:80 has had no result of its check for longer than the schedule allows") {
		t.Error(out)
	}
}

func TestALongListOfTroubleIsCut(t *testing.T) {
	s := healthy(t, nil)
	for range 1000 {
		s.Trouble = append(s.Trouble, "something")
	}
	out := Status(s, Options{Width: 80})
	if !strings.HasPrefix(out, "1000 PROBLEMS\n") || !strings.Contains(out, "and 975 more") || strings.Count(out, "something") != 25 {
		t.Error(out)
	}
}

func TestWhyAndHistoryLookAsTheyOught(t *testing.T) {
	defer func(l *time.Location) { time.Local = l }(time.Local)
	time.Local = time.UTC
	s := healthy(t, nil)
	g := s.Groups[0]
	g.Owner, g.Failback = "director2", false
	g.Reason = "director1 is silent and its lease has been revoked"
	g.Refused = map[string]string{"director1": "eth1: no carrier"}
	g.Failures = map[string]state.Failure{"director1": {Resource: "vip 192.168.56.200", Error: "eth1: no carrier", Count: 2, At: ago(time.Hour), Until: now}}
	decisions := []state.Decision{
		{At: ago(2 * time.Hour), Group: "web", Text: "director1: it is the first of prefer"},
		{At: ago(time.Hour), Node: "director1", Text: "revoked: no acknowledgement from it for one lease, and a majority has seen its promise run out"},
		{At: ago(time.Hour), Group: "web", Text: "director1 -> director2: director1 was revoked"},
	}
	w := cluster.Why{Group: g, Wanted: "director2", Because: "it runs there, and auto_failback is off", Order: []string{"director1", "director2"}, Decisions: decisions}
	golden(t, "why.txt", Why(w, now, Options{Width: 80}))
	golden(t, "history.txt", History(decisions, Options{Width: 80}))
}

func TestAges(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-5 * time.Second: "now", 400 * time.Millisecond: "now", 12 * time.Second: "12 s ago", 119 * time.Second: "119 s ago",
		2 * time.Minute: "2 min ago", 2 * time.Hour: "2 h ago", 3*time.Hour + 5*time.Minute: "3 h 5 min ago", 72 * time.Hour: "3 days ago",
	} {
		if got := age(now, ago(d)); got != want {
			t.Errorf("%v: %q, not %q", d, got, want)
		}
	}
	if age(now, time.Time{}) != "never" {
		t.Error("no time")
	}
}

func FuzzFold(f *testing.F) {
	f.Add("a real server's answer, longer than the line", 20, 10)
	f.Add("\xff\x00 \u202e", 1, -3)
	f.Fuzz(func(t *testing.T, s string, first, rest int) {
		first, rest = first%200, rest%200
		lines := fold(clean(s), first, rest)
		for i, l := range lines {
			if n := utf8.RuneCountInString(l); i == 0 && n > max(first, 8) || i > 0 && n > max(rest, 8) {
				t.Errorf("line %d has %d columns: %q", i, n, l)
			}
		}
		if got, want := strings.ReplaceAll(strings.Join(lines, ""), " ", ""), strings.Join(strings.Fields(clean(s)), ""); got != want {
			t.Errorf("%q became %q", want, got)
		}
	})
}
