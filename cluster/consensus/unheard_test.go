package consensus

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/conf"
)

var (
	unheardNodes = []conf.Node{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "w"}}
	other        = pair.Generation{Counter: 1, ID: "0123456789abcdef"}
)

func TestWhoIsHeardAndDoesNotHaveTheLog(t *testing.T) {
	at := func(index uint64) Member { return Member{UUID: "u", Index: index} }
	for name, c := range map[string]struct {
		members map[string]Member
		index   uint64
		want    string
	}{
		"nobody where all follow":          {map[string]Member{"b": at(100), "c": at(100 - behind)}, 100, ""},
		"one that lacks much of it":        {map[string]Member{"b": at(100), "c": at(99 - behind)}, 100, "c"},
		"one that has nothing, of a short": {map[string]Member{"b": at(0)}, 3, "b"},
		"two, by name":                     {map[string]Member{"w": at(0), "b": at(0)}, 100, "b w"},
		"not one that is no node":          {map[string]Member{"x": at(0)}, 100, ""},
		"not one of another history":       {map[string]Member{"b": {UUID: "u", Generation: other}}, 100, ""},
		"not what this node itself says":   {map[string]Member{"a": at(0)}, 100, ""},
		"nobody before there is a log":     {map[string]Member{"b": at(0)}, 0, ""},
	} {
		if got := strings.Join(behindOf(unheardNodes, "a", c.members, pair.Generation{}, c.index), " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestWhoShouldLeadSinceItHearsMore(t *testing.T) {
	says := func(index uint64, behind ...string) Member { return Member{UUID: "u", Index: index, Behind: behind} }
	voters := []string{"a/u", "b/u", "w/u"}
	for name, c := range map[string]struct {
		leader  string
		voters  []string
		members map[string]Member
		want    string
	}{
		"nobody while nobody is behind":            {"w", voters, map[string]Member{"a": says(100), "b": says(100)}, ""},
		"who hears one that the leader does not":   {"w", voters, map[string]Member{"a": says(100), "b": says(100, "c")}, "b"},
		"the first by name of two":                 {"w", voters, map[string]Member{"a": says(100, "c"), "b": says(100, "c")}, "a"},
		"nobody when the leader hears it too":      {"w", voters, map[string]Member{"b": says(100, "c"), "c": says(0)}, ""},
		"nobody for the leader itself":             {"w", voters, map[string]Member{"b": says(100, "w")}, ""},
		"nobody for one that is no node":           {"w", voters, map[string]Member{"b": says(100, "x")}, ""},
		"nobody for an empty name":                 {"w", voters, map[string]Member{"b": says(100, "")}, ""},
		"not one without a vote":                   {"w", []string{"a/u", "w/u"}, map[string]Member{"b": says(100, "c")}, ""},
		"not one that has lost its disk":           {"w", []string{"a/u", "b/old", "w/u"}, map[string]Member{"b": says(100, "c")}, ""},
		"not one of another history":               {"w", voters, map[string]Member{"b": {UUID: "u", Index: 100, Behind: []string{"c"}, Generation: other}}, ""},
		"not one that lacks much of the log":       {"w", voters, map[string]Member{"b": says(99-behind, "c")}, ""},
		"not a voter that was removed":             {"a", []string{"a/u", "x/u"}, map[string]Member{"x": says(100, "b")}, ""},
		"from a leader that was removed to a node": {"x", []string{"a/u", "x/u"}, map[string]Member{"a": says(100, "b")}, "a"},
		"the second when the first hears no more":  {"w", voters, map[string]Member{"a": says(100, "b"), "b": says(100, "c")}, "b"},
	} {
		var f raft.Configuration
		for _, id := range c.voters {
			f.Servers = append(f.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
		}
		if slices.Contains(c.voters, "a/u") && !slices.Contains(c.voters, "b/u") {
			f.Servers = append(f.Servers, raft.Server{ID: "b/u", Suffrage: raft.Nonvoter})
		}
		got := ""
		if s := hearsMore(unheardNodes, c.leader, f, c.members, pair.Generation{}, 100); s != nil {
			got = NodeOf(string(s.ID))
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
