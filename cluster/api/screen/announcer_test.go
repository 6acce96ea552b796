package screen

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp"
	"github.com/keepbeat/keepbeat/resources/vrrp/announce"
)

func TestAnAnnouncerIsShown(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	group := func(d announce.Detail) cluster.GroupStatus {
		d.Router, d.Version, d.Priority, d.Interval = "VRID 51 of IPv4 on eth0", 2, 254, "1s"
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return cluster.GroupStatus{Name: "web", Owner: "director1", State: "active", Resource: []resources.ResourceStatus{
			{Name: "vrrp eth0 51", Kind: conf.KindVRRP, State: "started", Since: now.Add(-time.Minute), Detail: b},
		}}
	}
	well := announce.Detail{AnnouncerStatus: vrrp.AnnouncerStatus{Announces: true}}
	beside := announce.Detail{AnnouncerStatus: vrrp.AnnouncerStatus{Announces: true}, Trouble: []string{"there are two masters"}}
	unsent := announce.Detail{AnnouncerStatus: vrrp.AnnouncerStatus{SendErrors: 2, SendError: "network is down"}}
	for name, c := range map[string]struct{ got, want string }{
		"status of one that announces": {Status(cluster.Status{Time: now, Groups: []cluster.GroupStatus{group(well)}}, Options{Width: 200}), "version 2, priority 254, every 1s\n"},
		"status of one that cannot":    {Status(cluster.Status{Time: now, Groups: []cluster.GroupStatus{group(unsent)}}, Options{Width: 200}), "every 1s; silent; 2 advertisements not sent, the last: network is down\n"},
		"why, beside a foreign master": {Why(cluster.Why{Group: group(beside), Wanted: "director1"}, now, Options{Width: 200}), "  VRID 51 of IPv4 on eth0: there are two masters\n"},
	} {
		if !strings.Contains(c.got, c.want) {
			t.Errorf("%s does not say %q:\n%s", name, c.want, c.got)
		}
	}
}
