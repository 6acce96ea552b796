package state

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
)

func specOf(groups ...string) *conf.Spec {
	s := &conf.Spec{}
	for _, g := range groups {
		s.Groups = append(s.Groups, conf.Group{Name: g, Prefer: []string{"a", "b"}})
	}
	return s
}

func admitOf(node string, boot, after uint64) Command {
	return Command{Admit: &Admit{Node: node, ID: node + "/1", Boot: boot, Director: node != "w", After: after}}
}

func moveOf(group, owner string, epoch, inc uint64, to string, toInc uint64) Move {
	return Move{Group: group, Owner: owner, Epoch: epoch, Incarnation: inc, To: to, ToIncarnation: toInc, Reason: "test"}
}

// begun is a cluster of directors a, b and a witness w, in which a owns web under epoch 1.
func begun(t *testing.T) *State {
	t.Helper()
	return play(t, New(),
		Command{Spec: &SetSpec{From: "a", Spec: specOf("web", "mail")}},
		admitOf("a", 11, 0), admitOf("b", 21, 0), admitOf("w", 31, 0),
		Command{Assign: &Assign{Moves: []Move{moveOf("web", "", 0, 0, "a", 1)}}},
	)
}

// play applies commands that have to be accepted.
func play(t *testing.T, s *State, cs ...Command) *State {
	t.Helper()
	for i, c := range cs {
		var r Result
		if s, r = s.Apply(s.Index+1, c); r.Refused != "" {
			t.Fatalf("command %d: %s", i, r.Refused)
		}
	}
	return s
}

func stoppedOf(inc, epoch uint64) Command {
	return Command{Stopped: &Stopped{Group: "web", Node: "a", Incarnation: inc, Epoch: epoch}}
}

func handOf(m Move) Command { return Command{Hand: &Hand{Moves: []Move{m}}} }

func revokeOf(inc uint64, moves ...Move) Command {
	return Command{Revoke: &Revoke{Node: "a", Incarnation: inc, Why: "silent", Moves: moves}}
}

// TestCommands: refused is part of the reason, empty when the command is
// accepted; then says where web is, and the nodes.
func TestCommands(t *testing.T) {
	toB := handOf(moveOf("web", "a", 1, 1, "b", 1))
	failure := stoppedOf(1, 1)
	failure.Stopped.Failure = &Failure{Resource: "vip", Error: "no carrier", At: time.Unix(100, 0)}
	newVoters := revokeOf(1)
	newVoters.Revoke.Voters = 99
	for name, c := range map[string]struct {
		before  []Command
		do      Command
		refused string
		then    string
	}{
		"a daemon that starts anew keeps its groups":     {nil, admitOf("a", 12, 0), "", "web a 1; a 2 b 1 w 1"},
		"a repeated admission changes nothing":           {nil, admitOf("a", 11, 0), "", "web a 1; a 1 b 1 w 1"},
		"an incarnation refused by a minority is raised": {nil, admitOf("a", 11, 1), "", "web a 1; a 2 b 1 w 1"},
		"and raised once": {[]Command{admitOf("a", 11, 1)}, admitOf("a", 11, 1), "", "web a 1; a 2 b 1 w 1"},
		"rule 8: a request from before the revocation is refused": {[]Command{revokeOf(1)}, admitOf("a", 11, 0), "at 1", "web - 2; b 1 w 1"},
		"rule 8: after it has stopped, the node asks again":       {[]Command{revokeOf(1)}, admitOf("a", 11, 1), "", "web - 2; a 2 b 1 w 1"},
		"a revocation ends the incarnation":                       {nil, revokeOf(1), "", "web - 2; b 1 w 1"},
		"a revocation moves what it names":                        {nil, revokeOf(1, moveOf("web", "a", 1, 1, "b", 1)), "", "web b 2; b 1 w 1"},
		"a revocation moves nothing to a witness":                 {nil, revokeOf(1, moveOf("web", "a", 1, 1, "w", 1)), "", "web - 2; b 1 w 1"},
		"a revocation moves nothing to the revoked":               {nil, revokeOf(1, moveOf("web", "a", 1, 1, "a", 1)), "", "web - 2; b 1 w 1"},
		"a revocation moves nothing to a node begun anew":         {[]Command{admitOf("b", 22, 0)}, revokeOf(1, moveOf("web", "a", 1, 1, "b", 1)), "", "web - 2; b 2 w 1"},
		"a revocation lets a group go on to where it was going":   {[]Command{toB}, revokeOf(1), "", "web b 2; b 1 w 1"},
		"rule 6: a revocation of another incarnation is refused":  {[]Command{admitOf("a", 12, 0)}, revokeOf(1), "not at incarnation 1", "web a 1; a 2 b 1 w 1"},
		"a revocation twice is refused":                           {[]Command{revokeOf(1)}, revokeOf(1), "not at incarnation", "web - 2; b 1 w 1"},
		"a revocation by voters that are not in force is refused": {nil, newVoters, "voters changed", "web a 1; a 1 b 1 w 1"},
		"a planned move waits for the stop":                       {nil, toB, "", "web a 1 to b; a 1 b 1 w 1"},
		"the stop completes it":                                   {[]Command{toB}, stoppedOf(1, 1), "", "web b 2; a 1 b 1 w 1"},
		"a move can be called off":                                {[]Command{toB}, handOf(moveOf("web", "a", 1, 1, "a", 1)), "", "web a 1; a 1 b 1 w 1"},
		"a stop without a target leaves nobody":                   {nil, stoppedOf(1, 1), "", "web - 2; a 1 b 1 w 1"},
		"rule 7: a stop of another epoch is refused":              {[]Command{toB, stoppedOf(1, 1)}, stoppedOf(1, 1), "not owned", "web b 2; a 1 b 1 w 1"},
		"rule 7: a stop of an earlier incarnation is refused":     {[]Command{admitOf("a", 12, 0)}, stoppedOf(1, 1), "not owned", "web a 1; a 2 b 1 w 1"},
		"a failed start is no reason to go where it failed":       {[]Command{failure}, Command{Assign: &Assign{Moves: []Move{moveOf("web", "", 2, 0, "b", 1)}}}, "", "web b 3; a 1 b 1 w 1"},
		"rule 6: a move seen under another epoch is refused":      {nil, handOf(moveOf("web", "a", 0, 1, "b", 1)), "were seen", "web a 1; a 1 b 1 w 1"},
		"rule 6: a move of another incarnation is refused":        {[]Command{admitOf("a", 12, 0)}, toB, "incarnation 2, not 1", "web a 1; a 2 b 1 w 1"},
		"rule 6: a move to another incarnation is refused":        {[]Command{admitOf("b", 22, 0)}, toB, "cannot take it", "web a 1; a 1 b 2 w 1"},
		"a move to a witness is refused":                          {nil, handOf(moveOf("web", "a", 1, 1, "w", 1)), "cannot take it", "web a 1; a 1 b 1 w 1"},
		"a move to nobody is refused":                             {nil, handOf(moveOf("web", "a", 1, 1, "", 0)), "cannot take it", "web a 1; a 1 b 1 w 1"},
		"a move of an unknown group is refused":                   {nil, handOf(moveOf("ftp", "", 0, 0, "b", 1)), "no such group", "web a 1; a 1 b 1 w 1"},
		"an owner is not overwritten":                             {nil, Command{Assign: &Assign{Moves: []Move{moveOf("web", "a", 1, 1, "b", 1)}}}, "owns it", "web a 1; a 1 b 1 w 1"},
		"an owner does not leave":                                 {nil, Command{Leave: &Leave{"a", 1}}, "still owns web", "web a 1; a 1 b 1 w 1"},
		"who owns nothing leaves":                                 {nil, Command{Leave: &Leave{"b", 1}}, "", "web a 1; a 1 w 1"},
		"a target that has left gets nothing":                     {[]Command{toB, {Leave: &Leave{"b", 1}}}, stoppedOf(1, 1), "", "web - 2; a 1 w 1"},
		"a specification made against another version is refused": {nil, Command{Spec: &SetSpec{Base: 0, Spec: specOf()}}, "version 1", "web a 1; a 1 b 1 w 1"},
		"an empty specification is refused":                       {nil, Command{Spec: &SetSpec{Base: 1}}, "empty", "web a 1; a 1 b 1 w 1"},
		"a group taken out waits for its owner's stop":            {nil, Command{Spec: &SetSpec{Base: 1, Spec: specOf("mail")}}, "", "web a 1; a 1 b 1 w 1"},
		"and is then forgotten":                                   {[]Command{{Spec: &SetSpec{Base: 1, Spec: specOf("mail")}}}, stoppedOf(1, 1), "", "; a 1 b 1 w 1"},
		"a group that comes back goes on with its epochs":         {[]Command{{Spec: &SetSpec{Base: 1, Spec: specOf("mail")}}, stoppedOf(1, 1)}, Command{Spec: &SetSpec{Base: 2, Spec: specOf("web")}}, "", "web - 1; a 1 b 1 w 1"},
		"a failure that is not there is not forgiven":             {nil, Command{Forgive: &Forgive{Group: "web", Node: "a"}}, "no such failure", "web a 1; a 1 b 1 w 1"},
		"a problem of an earlier incarnation is refused":          {[]Command{admitOf("a", 12, 0)}, Command{Problems: &Problems{Node: "a", Incarnation: 1}}, "not at incarnation 1", "web a 1; a 2 b 1 w 1"},
		"a start reported under another epoch is refused":         {nil, Command{Started: &Started{Group: "web", Node: "a", Incarnation: 1, Epoch: 2}}, "not owned", "web a 1; a 1 b 1 w 1"},
		"a block of an earlier incarnation is refused":            {[]Command{admitOf("a", 12, 0)}, Command{Blocked: &Blocked{"web", "a", 1, 1, "x"}}, "not owned", "web a 1; a 2 b 1 w 1"},
		"a long lease of an earlier incarnation is refused":       {[]Command{admitOf("a", 12, 0)}, Command{LongLease: &LongLease{"a", 1, time.Second}}, "not at incarnation 1", "web a 1; a 2 b 1 w 1"},
		"a probe changes nothing":                                 {nil, Command{Probe: &struct{}{}}, "", "web a 1; a 1 b 1 w 1"},
		"a command from a newer version is refused":               {nil, Command{}, "does not know", "web a 1; a 1 b 1 w 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, begun(t), c.before...)
			before := snapshotOf(t, s)
			n, r := s.Apply(s.Index+1, c.do)
			if (r.Refused == "") != (c.refused == "") || !strings.Contains(r.Refused, c.refused) {
				t.Errorf("refused: %q, want %q", r.Refused, c.refused)
			}
			if d := cmp.Diff(c.then, brief(n)); d != "" {
				t.Error(d)
			}
			if !bytes.Equal(before, snapshotOf(t, s)) {
				t.Error("the state that was handed out has changed")
			}
		})
	}
}

func brief(s *State) string {
	var b strings.Builder
	if g, ok := s.Groups["web"]; ok {
		owner := g.Owner
		if owner == "" {
			owner = "-"
		}
		fmt.Fprintf(&b, "web %s %d", owner, g.Epoch)
		if g.Target != "" {
			b.WriteString(" to " + g.Target)
		}
	}
	b.WriteString(";")
	for _, n := range []string{"a", "b", "w"} {
		if x := s.Nodes[n]; x.Valid {
			fmt.Fprintf(&b, " %s %d", n, x.Incarnation)
		}
	}
	return b.String()
}

func snapshotOf(t *testing.T, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestACommandSentTwiceIsAppliedOnce(t *testing.T) {
	s := begun(t)
	c := admitOf("a", 11, 1)
	c.ID = ID{"a", 11, 5}
	s, first := s.Apply(10, c)
	c.Admit.After = 2 // the same command, whatever it says
	s, again := s.Apply(11, c)
	if first != again || s.Nodes["a"].Incarnation != 2 || s.Index != 11 {
		t.Errorf("%+v %+v, incarnation %d, index %d", first, again, s.Nodes["a"].Incarnation, s.Index)
	}
	t.Run("also when others came between", func(t *testing.T) {
		for n := uint64(6); n < 6+maxSeen-1; n++ {
			s, _ = s.Apply(20+n, Command{ID: ID{"a", 11, n}, Probe: &struct{}{}})
		}
		if s, r := s.Apply(999, c); r != first || s.Nodes["a"].Incarnation != 2 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("and refused when it is too old to remember", func(t *testing.T) {
		for n := uint64(500); n < 500+maxSeen; n++ {
			s, _ = s.Apply(1000+n, Command{ID: ID{"a", 11, n}, Probe: &struct{}{}})
		}
		if s, r := s.Apply(9999, c); !strings.Contains(r.Refused, "older") || s.Nodes["a"].Incarnation != 2 {
			t.Errorf("%+v", r)
		}
	})
}

func TestWaitingTimesDoubleUpToTenMinutes(t *testing.T) {
	for n, want := range map[int]time.Duration{-1: 10 * time.Second, 0: 10 * time.Second, 1: 10 * time.Second, 2: 20 * time.Second, 6: 320 * time.Second, 7: 10 * time.Minute, 1 << 40: 10 * time.Minute} {
		if got := RetryAfter(n); got != want {
			t.Errorf("after %d failures %v, want %v", n, got, want)
		}
	}
}

func TestASnapshotOfANewerFormatSaysWhatToDo(t *testing.T) {
	s := New()
	s.Format = Format + 1
	if _, err := Restore(bytes.NewReader(snapshotOf(t, s))); err == nil || !strings.Contains(err.Error(), "install the version") {
		t.Error(err)
	}
}

// randomCommand makes a command that is sometimes right and sometimes wrong.
func randomCommand(r *rand.Rand, s *State) Command {
	node := func() string { return []string{"a", "b", "c", "w", "", "zz"}[r.IntN(6)] }
	group := func() string { return []string{"web", "mail", "ftp"}[r.IntN(3)] }
	near := func(n uint64) uint64 {
		if r.IntN(8) == 0 {
			return n + uint64(r.IntN(3)) - 1
		}
		return n
	}
	inc := func(n string) uint64 { return near(s.Nodes[n].Incarnation) }
	moves := func() (ms []Move) {
		for range r.IntN(3) {
			g, to := s.Groups[group()], node()
			ms = append(ms, Move{Group: g.Name, Owner: g.Owner, Epoch: near(g.Epoch), Incarnation: inc(g.Owner), To: to, ToIncarnation: inc(to), Manual: r.IntN(2) == 0})
		}
		return ms
	}
	c := Command{At: time.Unix(int64(r.IntN(10000)), 0).UTC()}
	if r.IntN(2) == 0 {
		c.ID = ID{node(), uint64(r.IntN(2)), uint64(r.IntN(400))}
	}
	g := group()
	owner := s.Groups[g].Owner
	switch r.IntN(13) {
	case 0:
		n := node()
		c.Admit = &Admit{Node: n, ID: n + "/1", Boot: uint64(r.IntN(3)), Director: n != "w", After: inc(n), Format: Format, Clean: r.IntN(2) == 0}
	case 1:
		n := node()
		c.Leave = &Leave{n, inc(n)}
	case 2:
		n := node()
		c.Revoke = &Revoke{Node: n, Incarnation: inc(n), Why: "silent", Moves: moves()}
	case 3, 4:
		c.Assign = &Assign{moves()}
	case 5, 6:
		c.Hand = &Hand{moves()}
	case 7:
		c.Started = &Started{Group: g, Node: owner, Incarnation: inc(owner), Epoch: near(s.Groups[g].Epoch), Version: near(s.SpecInfo.Version)}
	case 8:
		c.Stopped = &Stopped{Group: g, Node: owner, Incarnation: inc(owner), Epoch: near(s.Groups[g].Epoch)}
		if r.IntN(2) == 0 {
			c.Stopped.Failure = &Failure{Resource: "vip", Error: "x", At: c.At}
		}
	case 9:
		c.Problems = &Problems{Node: owner, Incarnation: inc(owner), Problems: map[string]string{"web": "x", "mail": "y", "ftp": "z"}}
	case 10:
		c.Forgive = &Forgive{Group: g, Node: owner, Until: s.Groups[g].Failures[owner].Until}
	case 11:
		c.Blocked = &Blocked{g, owner, inc(owner), near(s.Groups[g].Epoch), "x"}
		if r.IntN(2) == 0 {
			c.Blocked, c.LongLease = nil, &LongLease{owner, inc(owner), time.Second}
		}
	case 12:
		var groups []string
		for _, g := range []string{"web", "mail", "ftp"} {
			if r.IntN(3) == 0 {
				continue
			}
			g += ":"
			for _, what := range []string{"10.0.0.1", "10.0.0.2", "fs", "+10.0.0.3"} {
				if r.IntN(4) == 0 {
					g += " " + what
				}
			}
			groups = append(groups, g)
		}
		c.Spec = &SetSpec{Base: near(s.SpecInfo.Version), Spec: groupsOf(strings.Join(groups, ";"))}
	}
	return c
}

// check says what no sequence of commands may bring about.
func check(before, after *State, epochs map[string]uint64) error {
	for name, g := range after.Groups {
		if g.Epoch < epochs[name] {
			return fmt.Errorf("the epoch of %s went from %d back to %d", name, epochs[name], g.Epoch)
		}
		epochs[name] = g.Epoch
		if was := before.Groups[name]; g.Owner != was.Owner && g.Epoch == was.Epoch {
			return fmt.Errorf("%s has another owner under the same epoch", name)
		} else if n := after.Nodes[g.Owner]; g.Owner != "" && g.Epoch != was.Epoch && (!n.Valid || !n.Director) {
			return fmt.Errorf("%s was given to %s: %+v", name, g.Owner, n)
		}
		if _, ok := after.Nodes[g.Target]; g.Target != "" && !ok {
			return fmt.Errorf("%s moves to %s, which is not there", name, g.Target)
		}
	}
	for name, n := range after.Nodes {
		if n.Incarnation < before.Nodes[name].Incarnation {
			return fmt.Errorf("the incarnation of %s went back", name)
		}
	}
	if err := apart(after); err != nil {
		return err
	}
	if len(after.Decisions) > maxDecisions {
		return fmt.Errorf("%d decisions", len(after.Decisions))
	}
	return nil
}

// walk applies random commands to two states, as two nodes would.
func walk(t *testing.T, seed uint64, steps int) {
	r := rand.New(rand.NewPCG(seed, 1))
	one := play(t, New(), Command{Spec: &SetSpec{Spec: specOf("web", "mail")}}, admitOf("a", 1, 0), admitOf("b", 1, 0), admitOf("w", 1, 0))
	if r.IntN(2) == 0 {
		one.Format = 2 // with class fenced
	}
	two, err := Restore(bytes.NewReader(snapshotOf(t, one)))
	if err != nil {
		t.Fatal(err)
	}
	epochs := map[string]uint64{}
	for i := range steps {
		c := randomCommand(r, one)
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		c1, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		c2, _ := Decode(b)
		before := one
		var r1, r2 Result
		one, r1 = one.Apply(one.Index+1, c1)
		two, r2 = two.Apply(two.Index+1, c2)
		if r1 != r2 {
			t.Fatalf("step %d: two nodes come to %+v and %+v", i, r1, r2)
		}
		if err := check(before, one, epochs); err != nil {
			t.Fatalf("step %d: %v\n%s", i, err, b)
		}
		if i%50 == 0 || i == steps-1 {
			a := snapshotOf(t, one)
			if !bytes.Equal(a, snapshotOf(t, two)) {
				t.Fatalf("step %d: two nodes that applied the same differ", i)
			}
			if two, err = Restore(bytes.NewReader(a)); err != nil { // as a node that joins
				t.Fatal(err)
			}
		}
	}
}

func TestTheSameCommandsGiveTheSameStateOnEveryNode(t *testing.T) {
	for seed := range uint64(20) {
		walk(t, seed, 400)
	}
}

func FuzzCommands(f *testing.F) {
	f.Add(uint64(1), uint16(100))
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16) { walk(t, seed, int(steps%500)) })
}

func FuzzDecode(f *testing.F) {
	for _, c := range []Command{admitOf("a", 1, 0), revokeOf(1, moveOf("web", "a", 1, 1, "b", 1)), stoppedOf(1, 1), {Spec: &SetSpec{Spec: specOf("web")}}} {
		b, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x1f, 0x8b})
	f.Add([]byte(`{"spec":{"spec":{"groups":null}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			return
		}
		s := begun(t)
		n, _ := s.Apply(9, c)
		if err := check(s, n, map[string]uint64{}); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(bytes.NewReader(snapshotOf(t, n))); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"format":1,"nodes":null,"groups":null,"seen":null}`))
	f.Add([]byte(`{"format":1,"groups":{"web":{"owner":"a"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !json.Valid(b) {
			return
		}
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(b); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		s, err := Restore(&z)
		if err != nil {
			return
		}
		s.Apply(1, admitOf("a", 1, 0))
		s.Apply(1, Command{ID: ID{"a", 1, 1}, Spec: &SetSpec{Base: s.SpecInfo.Version, Spec: specOf("web")}})
	})
}

func TestALargeCommandIsCompressedAndComesBack(t *testing.T) {
	c := Command{Spec: &SetSpec{Spec: specOf("web"), Files: map[string][]byte{"ldirectord.yaml": bytes.Repeat([]byte("real: 192.0.2.1\n"), compressAbove/8)}}}
	b, err := c.Encode()
	if err != nil || len(b) > compressAbove {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	got, err := Decode(b)
	if d := cmp.Diff(c.Spec.Files, got.Spec.Files); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, err := Decode(b[:len(b)/2]); err == nil {
		t.Error("half a command was read")
	}
}

// A node that has not heard of its revocation asks for a new incarnation with
// its addresses still up: its next lease would open the guard for them.
func TestANodeThatStillRunsGetsNoNewIncarnationAfterARevocation(t *testing.T) {
	s := begun(t)
	raise := admitOf("a", 11, 1)
	raise.Admit.Running = true
	if _, r := s.Apply(s.Index+1, raise); r.Refused != "" || r.Number != 2 {
		t.Fatalf("a valid incarnation was not raised: %+v", r)
	}
	s = play(t, s, Command{Revoke: &Revoke{Node: "a", Incarnation: 1, Why: "silent", Moves: []Move{moveOf("web", "a", 1, 1, "b", 1)}}})
	if _, r := s.Apply(s.Index+1, raise); r.Refused == "" {
		t.Fatal("admitted while it still runs what has been given away")
	}
	if _, r := s.Apply(s.Index+1, admitOf("a", 11, 1)); r.Refused != "" || r.Number != 2 {
		t.Fatalf("not admitted although it has stopped: %+v", r)
	}
}
