package api

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp/announce"
)

func TestAForeignMasterIsATroubleOfTheGroup(t *testing.T) {
	resource := func(kind conf.Kind, d announce.Detail) resources.ResourceStatus {
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return resources.ResourceStatus{Kind: kind, Detail: b}
	}
	beside := announce.Detail{Router: "VRID 51 of IPv4 on eth0", Trouble: []string{"two masters"}}
	s := cluster.Status{Groups: []cluster.GroupStatus{
		{Name: "web", Resource: []resources.ResourceStatus{resource(conf.KindVRRP, beside), {Kind: conf.KindVRRP}, resource(conf.KindVIP, beside)}},
		{Name: "db", Resource: []resources.ResourceStatus{resource(conf.KindVRRP, announce.Detail{Router: "VRID 52 of IPv4 on eth0"})}},
	}}
	if d := cmp.Diff([]string{"group web: VRID 51 of IPv4 on eth0: two masters"}, AnnouncerTrouble(s)); d != "" {
		t.Error(d)
	}
}
