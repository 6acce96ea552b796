package consensus

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// busy is a state with something of everything in it.
func busy(t testing.TB, example string) *state.State {
	t.Helper()
	dir := filepath.Join("..", "..", "conf", "examples", example)
	path := filepath.Join(dir, "ha.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var local *conf.Local
	for _, host := range []string{"director1", "lb1", "gw1", "lb01", "db1"} {
		if local, _, err = conf.ParseLocal(path, data, host); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	spec, _, err := conf.LoadSpec(dir, local)
	if err != nil {
		t.Fatal(err)
	}
	s := state.New()
	at := time.Date(2025, 1, 2, 3, 4, 5, 6000000, time.UTC)
	do := func(c state.Command) {
		t.Helper()
		c.At, c.ID = at, state.ID{Node: "director1", Boot: 1, N: s.Index + 1}
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if c, err = state.Decode(b); err != nil {
			t.Fatal(err)
		}
		var r state.Result
		if s, r = s.Apply(s.Index+1, c); r.Err() != nil {
			t.Fatalf("%+v: %v", c, r.Err())
		}
	}
	do(state.Command{Admit: &state.Admit{Node: "director1", ID: "director1/1", Boot: 7, Director: true, Format: state.Format}})
	for f := s.Format + 1; f <= state.Format; f++ {
		do(state.Command{Upgrade: &state.Upgrade{Format: f}})
	}
	do(state.Command{Spec: &state.SetSpec{From: "director1", Spec: spec, Files: map[string][]byte{"files": []byte("{}")}}})
	name := spec.Groups[0].Name
	do(state.Command{Assign: &state.Assign{Moves: []state.Move{{Group: name, To: "director1", ToIncarnation: 1, Reason: "x"}}}})
	do(state.Command{Problems: &state.Problems{Node: "director1", Incarnation: 1, Problems: map[string]string{name: "eth1: no carrier"}}})
	do(state.Command{Note: &state.Note{Node: "director1", Text: "x"}})
	return s
}

func TestANodeThatWasGivenASnapshotHasTheDigestOfThoseThatAppliedEachEntry(t *testing.T) {
	for _, example := range []string{"fwmark-ipip", "heartbeat-2", "ipv6", "masq", "pair-fencing", "pair-ping", "pair-serial"} {
		s := busy(t, example)
		var b bytes.Buffer
		if err := s.Snapshot(&b); err != nil {
			t.Fatal(err)
		}
		again, err := state.Restore(&b)
		if err != nil {
			t.Fatal(err)
		}
		var d, e digests
		if one, two := d.of(s), e.of(again.SetVoters(1, []string{"x/1"})); one != two || len(one) != 16 {
			t.Errorf("%s: %s became %s", example, one, two)
		}
	}
}

func TestWhateverDiffersInTheStateDiffersInTheDigest(t *testing.T) {
	s := busy(t, "heartbeat-2")
	var d digests
	whole := d.of(s)
	for name, change := range map[string]func(s *state.State){
		"owner": func(s *state.State) { group(s, func(g *state.Group) { g.Owner = "director2" }) },
		"epoch": func(s *state.State) { group(s, func(g *state.Group) { g.Epoch++ }) },
		"incarnation": func(s *state.State) {
			n := s.Nodes["director1"]
			n.Incarnation++
			s.Nodes = map[string]state.Node{"director1": n}
		},
		"version":                  func(s *state.State) { s.SpecInfo.Version++ },
		"the specification itself": func(s *state.State) { c := *s.Spec; c.Groups = nil; s.Spec = &c },
		"index":                    func(s *state.State) { s.Index++ },
		"an order for a real server": func(s *state.State) {
			s.Orders = map[netip.AddrPort]conf.RealOrder{netip.MustParseAddrPort("10.0.0.5:80"): {Action: conf.RealDrain}}
		},
	} {
		c := *s
		change(&c)
		if d.of(&c) == whole {
			t.Errorf("%s: the same digest", name)
		}
		if d.of(s) != whole {
			t.Errorf("after %s the first has another", name)
		}
	}
}

func group(s *state.State, f func(*state.Group)) {
	groups := map[string]state.Group{}
	for name, g := range s.Groups {
		f(&g)
		groups[name] = g
	}
	s.Groups = groups
}

func TestNodesHaveTheSameDigestAtTheSameIndex(t *testing.T) {
	bubble(t, func(w *world) {
		w.startAll("abw")
		for i := range 5 {
			w.leader().propose(state.Command{Note: &state.Note{Node: "a", Text: fmt.Sprint(i)}})
		}
		index, digest := w.leader().c.Digest()
		w.follower().propose(state.Command{Note: &state.Note{Node: "a", Text: "one more"}})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for _, m := range w.members() {
			if got, ok := m.c.DigestAt(ctx, index); !ok || got != digest {
				t.Errorf("%s: %s, %v; want %s", m.name, got, ok, digest)
			}
		}
		if _, ok := w.leader().c.DigestAt(ctx, index+100); ok {
			t.Error("a digest of what never was")
		}
	})
}

func BenchmarkDigest(b *testing.B) {
	s := busy(b, "heartbeat-2")
	big := *s.Spec
	big.Groups = nil
	for i := range 1000 {
		g := s.Spec.Groups[0]
		g.Name = fmt.Sprint("g", i)
		big.Groups = append(big.Groups, g)
	}
	s.Spec = &big
	b.Run("specification", func(b *testing.B) {
		for b.Loop() {
			var d digests
			d.of(s)
		}
	})
	b.Run("the rest", func(b *testing.B) {
		var d digests
		for b.Loop() {
			d.of(s)
		}
	})
}
