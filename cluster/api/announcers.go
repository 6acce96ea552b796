package api

import (
	"encoding/json"
	"fmt"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp/announce"
)

// Announcer returns what the owner of a group says of an announcer; ok is false for other resources.
func Announcer(r resources.ResourceStatus) (d announce.Detail, ok bool) {
	ok = r.Kind == conf.KindVRRP && len(r.Detail) > 0 && json.Unmarshal(r.Detail, &d) == nil
	return d, ok
}

// AnnouncerTrouble lists the foreign masters beside which groups stay where they
// are, and routers whose advertisements are not understood.
func AnnouncerTrouble(s cluster.Status) []string {
	var all []string
	for _, g := range s.Groups {
		for _, r := range g.Resource {
			d, _ := Announcer(r)
			for _, text := range d.Trouble {
				all = append(all, fmt.Sprintf("group %s: %s: %s", g.Name, d.Router, text))
			}
		}
	}
	return all
}
