package api

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/ipvs"
)

// What all pools of a node share is told once for the node, also where no pool
// is started: a node that cannot receive connections loses them when it takes over.
func TestTroubleOfASyncDaemonIsToldOnceForANode(t *testing.T) {
	here := func(trouble ...string) *cluster.LocalStatus {
		detail, err := json.Marshal(ipvs.Detail{Pool: "web.yaml", Kernel: &ipvs.SharedDetail{Trouble: trouble}})
		if err != nil {
			t.Fatal(err)
		}
		pool := resources.ResourceStatus{Kind: conf.KindLdirectord, Detail: detail}
		return &cluster.LocalStatus{Groups: []resources.GroupStatus{{Resources: []resources.ResourceStatus{pool}}, {Resources: []resources.ResourceStatus{pool}}}}
	}
	const alien = "somebody else's sync daemon runs here: backup on eth9, id 1, 224.0.0.81:8848; stop it (ipvsadm --stop-daemon backup), or give `sync:` its values"
	s := cluster.Status{Nodes: []cluster.NodeStatus{{Name: "director1", Here: here()}, {Name: "director2", Here: here(alien)}, {Name: "director3"}}}
	if d := cmp.Diff([]string{"node director2: " + alien}, PoolTrouble(s)); d != "" {
		t.Error(d)
	}
}
