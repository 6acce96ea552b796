package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/resources"
)

func TestTheShellCompletesWhatStandsInTheCluster(t *testing.T) {
	d, dir := &fakeDaemon{groups: []cluster.GroupStatus{{Name: "web"}, {Name: "mail"}}}, t.TempDir()
	serve(t, d, dir)
	for line, want := range map[string]string{
		"why ":              "mail web",
		"why w":             "web",
		"why web ":          "",
		"history ":          "mail web",
		"fence confirm d":   "director1 director2",
		"node remove ":      "director1 director2",
		"keys remove ":      "",
		"quorum confirm ":   "",
		"status ":           "",
		"realserver start ": "",
	} {
		words := strings.Split(line, " ")
		var out, stderr bytes.Buffer
		execute(t.Context(), append([]string{"keepbeat", "__complete", "--socket", filepath.Join(dir, api.SocketName)}, words...), &out, &stderr)
		got, rest, _ := strings.Cut(out.String(), ":")
		if strings.Join(strings.Fields(got), " ") != want || !strings.HasPrefix(rest, "4") {
			t.Errorf("%q: %q", line, &out)
		}
	}
}

func TestRealServersAreCompletedFromWhatTheOwnersTell(t *testing.T) {
	detail := json.RawMessage(`{"services": [{"reals": [{"address": "192.0.2.4:80"}, {"address": "192.0.2.5:0"}]}]}`)
	st := cluster.Status{Nodes: []cluster.NodeStatus{{Name: "arbiter"}, {Name: "director1", Here: &cluster.LocalStatus{
		Groups: []resources.GroupStatus{{Resources: []resources.ResourceStatus{{}, {Detail: detail}}}},
	}}}}
	if got := realNames(st); !slices.Equal(got, []string{"192.0.2.4:80", "192.0.2.5"}) {
		t.Errorf("%q", got)
	}
}
