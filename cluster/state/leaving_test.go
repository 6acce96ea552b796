package state

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// groupsOf reads "web: 10.0.0.1 fs; mail: 10.0.0.2": addresses, and file
// systems of class fenced. A + before it makes one shared.
func groupsOf(text string) *conf.Spec {
	s := &conf.Spec{}
	for part := range strings.SplitSeq(text, ";") {
		name, words, _ := strings.Cut(part, ":")
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		g := conf.Group{Name: name}
		for w := range strings.FieldsSeq(words) {
			r := conf.Resource{Class: conf.Guarded}
			plain := strings.TrimPrefix(w, "+")
			if a, err := netip.ParseAddr(plain); err == nil {
				r.Kind, r.VIP = conf.KindVIP, &conf.VIP{Address: a, Interface: "eth1"}
			} else {
				r.Kind, r.Name, r.Class = "fs", plain, conf.Fenced
			}
			if plain != w {
				r.Class = conf.Shared
			}
			g.Resources = append(g.Resources, r)
		}
		s.Groups = append(s.Groups, g)
	}
	return s
}

// versions is a cluster of directors a and b under this specification.
func versions(t *testing.T, spec string) *State {
	t.Helper()
	admit := func(node string, boot uint64) Command {
		c := admitOf(node, boot, 0)
		c.Admit.Format = Format
		return c
	}
	return play(t, New(), admit("a", 11), admit("b", 21), Command{Upgrade: &Upgrade{Format: 2}}, Command{Spec: &SetSpec{Spec: groupsOf(spec)}})
}

// tell makes one step of a story, as the state is then: "apply GROUPS",
// "assign GROUP NODE", "started GROUP" (VERSION: older than the present one by
// so much), "stopped GROUP", "revoke NODE", "fenced NODE", "starts NODE".
func tell(s *State, step string) (*State, string) {
	verb, rest, _ := strings.Cut(step, " ")
	words := append(strings.Fields(rest), "", "")
	g, n := s.Groups[words[0]], s.Nodes[words[0]]
	inc := s.Nodes[g.Owner].Incarnation
	var c Command
	switch verb {
	case "apply":
		c.Spec = &SetSpec{Base: s.SpecInfo.Version, Spec: groupsOf(rest)}
	case "assign":
		c.Assign = &Assign{Moves: []Move{moveOf(words[0], "", g.Epoch, 0, words[1], s.Nodes[words[1]].Incarnation)}}
	case "started":
		c.Started = &Started{Group: words[0], Node: g.Owner, Incarnation: inc, Epoch: g.Epoch, Version: s.SpecInfo.Version - uint64(len(words[1]))}
	case "stopped":
		c.Stopped = &Stopped{Group: words[0], Node: g.Owner, Incarnation: inc, Epoch: g.Epoch}
	case "revoke":
		c.Revoke = &Revoke{Node: n.Name, Incarnation: n.Incarnation, Why: "silent"}
	case "fenced":
		c.Fenced = &Fenced{Node: n.Name, Incarnation: n.Incarnation, Operator: "w", Done: true, Why: "test"}
	case "starts":
		c.Admit = &Admit{Node: n.Name, ID: n.ID, Boot: n.Boot + 1, Director: true, Clean: true, Format: Format}
	default:
		panic(step)
	}
	s, r := s.Apply(s.Index+1, c)
	return s, r.Refused
}

// belongings is who owns what: "web a, mail -".
func belongings(s *State) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		owner := s.Groups[name].Owner
		if owner == "" {
			owner = "-"
		}
		all = append(all, name+" "+owner)
	}
	return strings.Join(all, ", ")
}

// TestWhatAGroupConsistsOf: the steps are accepted but for the last one, which is
// refused for that reason (empty: accepted, too); then says who owns what.
func TestWhatAGroupConsistsOf(t *testing.T) {
	const wait, clash = "waits until address 10.0.0.1 does not run in group web on a any more", "address 10.0.0.1 belongs to group web, which a runs, and would go to group mail, which b runs"
	for name, c := range map[string]struct {
		spec    string
		steps   []string
		refused string
		then    string
	}{
		"a group that gets another name starts when the old one has stopped": {"web: 10.0.0.1", []string{"assign web a", "apply www: 10.0.0.1", "assign www b"}, wait, "web a, www -"},
		"and then it does":                                                  {"web: 10.0.0.1", []string{"assign web a", "apply www: 10.0.0.1", "stopped web", "assign www b"}, "", "www b"},
		"or when its owner's lease has run out":                             {"web: 10.0.0.1", []string{"assign web a", "apply www: 10.0.0.1", "revoke a", "assign www b"}, "", "www b"},
		"on the same node, too":                                             {"web: 10.0.0.1", []string{"assign web a", "apply www: 10.0.0.1", "assign www a"}, wait, "web a, www -"},
		"another interface is the same address":                             {"web: 10.0.0.1", []string{"assign web a", "apply www: ::ffff:10.0.0.1", "assign www b"}, wait, "web a, www -"},
		"a second name waits for the first":                                 {"web: 10.0.0.1", []string{"assign web a", "apply www: 10.0.0.1", "apply w3: 10.0.0.1", "assign w3 b"}, wait, "w3 -, web a"},
		"what is shared may be there twice":                                 {"web: +10.0.0.1", []string{"assign web a", "apply www: +10.0.0.1", "assign www b"}, "", "web a, www b"},
		"what was exclusive while it ran is not shared before it has ended": {"web: 10.0.0.1", []string{"assign web a", "apply web: +10.0.0.1; www: 10.0.0.1", "assign www b"}, wait, "web a, www -"},
		"an address in two groups starts in one":                            {"web: 10.0.0.1; www: 10.0.0.1", []string{"assign web a", "assign www b"}, wait, "web a, www -"},

		"an address does not go from a group that runs to another that runs": {"web: 10.0.0.1 10.0.0.2; mail: 10.0.0.3", []string{"assign web a", "assign mail b", "apply web: 10.0.0.2; mail: 10.0.0.3 10.0.0.1"}, clash, "mail b, web a"},
		"nor in two steps, as long as its owner may have it":                 {"web: 10.0.0.1 10.0.0.2; mail: 10.0.0.3", []string{"assign web a", "assign mail b", "apply web: 10.0.0.2; mail: 10.0.0.3", "apply web: 10.0.0.2; mail: 10.0.0.3 10.0.0.1"}, clash, "mail b, web a"},
		"nor when its owner follows an earlier version":                      {"web: 10.0.0.1 10.0.0.2; mail: 10.0.0.3", []string{"assign web a", "assign mail b", "apply web: 10.0.0.2; mail: 10.0.0.3", "started web -", "apply web: 10.0.0.2; mail: 10.0.0.3 10.0.0.1"}, clash, "mail b, web a"},
		"its owner's word lets it go":                                        {"web: 10.0.0.1 10.0.0.2; mail: 10.0.0.3", []string{"assign web a", "assign mail b", "apply web: 10.0.0.2; mail: 10.0.0.3", "started web", "apply web: 10.0.0.2; mail: 10.0.0.3 10.0.0.1"}, "", "mail b, web a"},
		"as does the end of its lease":                                       {"web: 10.0.0.1 10.0.0.2; mail: 10.0.0.3", []string{"assign web a", "assign mail b", "apply web: 10.0.0.2; mail: 10.0.0.3", "revoke a", "apply web: 10.0.0.2; mail: 10.0.0.3 10.0.0.1"}, "", "mail b, web -"},
		"it does not go to a group that runs from one that was taken out":    {"web: 10.0.0.1; mail: 10.0.0.3", []string{"assign web a", "assign mail b", "apply mail: 10.0.0.3", "apply mail: 10.0.0.3 10.0.0.1"}, clash, "mail b, web a"},
		"but when that has stopped":                                          {"web: 10.0.0.1; mail: 10.0.0.3", []string{"assign web a", "assign mail b", "apply mail: 10.0.0.3", "stopped web", "apply mail: 10.0.0.3 10.0.0.1"}, "", "mail b"},
		"a group that nobody runs gets it, and waits":                        {"web: 10.0.0.1 10.0.0.2; mail: 10.0.0.3", []string{"assign web a", "apply web: 10.0.0.2; mail: 10.0.0.3 10.0.0.1", "assign mail b"}, wait, "mail -, web a"},
		"an address within its group is nobody else's business":              {"web: 10.0.0.1 10.0.0.2; mail: 10.0.0.3", []string{"assign web a", "assign mail b", "apply web: 10.0.0.2 10.0.0.1; mail: 10.0.0.3"}, "", "mail b, web a"},
		"a group that was taken out is not assigned":                         {"web: 10.0.0.1", []string{"apply ", "assign web a"}, "no such group", ""},

		"a group of class fenced that was taken out stays where it is":     {"db: fs", []string{"assign db a", "apply ", "revoke a"}, "", "db a"},
		"put back, it still does":                                          {"db: fs", []string{"assign db a", "apply ", "revoke a", "apply db: fs", "assign db b"}, `has owner "a"`, "db a"},
		"under another name it waits":                                      {"db: fs", []string{"assign db a", "apply sql: fs", "revoke a", "assign sql b"}, "waits until fs fs does not run in group db on a any more", "db a, sql -"},
		"until its owner has been fenced":                                  {"db: fs", []string{"assign db a", "apply sql: fs", "revoke a", "fenced a", "assign sql b"}, "", "sql b"},
		"or has come back and stopped it":                                  {"db: fs", []string{"assign db a", "apply sql: fs", "revoke a", "starts a", "stopped db", "assign sql b"}, "", "sql b"},
		"a file system that was taken out of its group keeps it there":     {"db: 10.0.0.1 fs", []string{"assign db a", "apply db: 10.0.0.1", "revoke a"}, "", "db a"},
		"and when it is put back":                                          {"db: 10.0.0.1 fs", []string{"assign db a", "apply db: 10.0.0.1", "apply db: 10.0.0.1 fs", "revoke a"}, "", "db a"},
		"not after its owner's word":                                       {"db: 10.0.0.1 fs", []string{"assign db a", "apply db: 10.0.0.1", "started db", "revoke a"}, "", "db -"},
		"nor is it remembered of the next owner":                           {"db: 10.0.0.1 fs", []string{"assign db a", "apply db: 10.0.0.1", "stopped db", "assign db b", "revoke b"}, "", "db -"},
		"a class that was written down does not count before it has ended": {"db: fs", []string{"assign db a", "apply db: +fs", "revoke a"}, "", "db a"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			s := versions(t, c.spec)
			for i, step := range c.steps {
				var refused string
				s, refused = tell(s, step)
				want := ""
				if i == len(c.steps)-1 {
					want = c.refused
				}
				if (refused == "") != (want == "") || !strings.Contains(refused, want) {
					t.Errorf("%s: refused %q, want %q", step, refused, want)
				}
				if err := apart(s); err != nil {
					t.Errorf("%s: %v", step, err)
				}
			}
			if got := belongings(s); got != c.then {
				t.Errorf("%s, want %s", got, c.then)
			}
			again, err := Restore(bytes.NewReader(snapshotOf(t, s)))
			if err != nil || fmt.Sprint(again.Held()) != fmt.Sprint(s.Held()) {
				t.Errorf("a snapshot holds %v, want %v (%v)", again.Held(), s.Held(), err)
			}
		})
	}
}

// apart says whether what two groups take is the same, of those that somebody may run.
func apart(s *State) error {
	by := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		c := s.Runs(name)
		if s.Groups[name].Owner == "" || c == nil {
			continue
		}
		for _, r := range c.Resources {
			if has := by[r.Takes()]; r.Class != conf.Shared && has != "" && has != name {
				return fmt.Errorf("%s is in group %s on %s and in group %s on %s", r.Takes(), has, s.Groups[has].Owner, name, s.Groups[name].Owner)
			} else if r.Class != conf.Shared {
				by[r.Takes()] = name
			}
		}
	}
	for name := range s.Leaving {
		if s.Groups[name].Owner == "" {
			return fmt.Errorf("group %s, which nobody owns, leaves something behind", name)
		}
	}
	return nil
}
