package api

import (
	"encoding/json"
	"testing"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/ipvs"
)

func TestAnOrderForTheLastServerThatAnswersIsCostly(t *testing.T) {
	up := func(a string) ipvs.RealDetail {
		return ipvs.RealDetail{Address: a, Wanted: 1, State: ipvs.StateUp}
	}
	down := ipvs.RealDetail{Address: "10.0.0.2:80", Wanted: 0, State: ipvs.StateDown}
	taken := ipvs.RealDetail{Address: "10.0.0.3:80", Host: "web3", Wanted: 0, State: ipvs.StateDown, File: "web3"}
	drained := ipvs.RealDetail{Address: "10.0.0.4:80", Wanted: 0, State: ipvs.StateUp, Order: &ipvs.Order{Action: conf.RealDrain}}
	const empty = "virtual service 192.0.2.1:80 tcp would have no real server that takes new connections"
	for _, c := range []struct {
		name    string
		reals   []ipvs.RealDetail
		meant   string
		order   conf.RealOrder
		want    string
		stopped bool
	}{
		{"another one answers", []ipvs.RealDetail{up("10.0.0.1:80"), up("10.0.0.5:80")}, "10.0.0.1:80", conf.RealOrder{Action: conf.RealDrain}, "", false},
		{"it is the only one", []ipvs.RealDetail{up("10.0.0.1:80")}, "10.0.0.1:80", conf.RealOrder{Action: conf.RealDrain}, empty + " (pool web.yaml)", false},
		{"the others are down or taken out", []ipvs.RealDetail{up("10.0.0.1:80"), down, taken, drained}, "10.0.0.1:80", conf.RealOrder{Action: conf.RealDisable},
			empty + "; of the others, 10.0.0.2:80: down, web3: in maintenancedir, 10.0.0.4:80: drained by an operator (pool web.yaml)", false},
		{"it keeps a weight", []ipvs.RealDetail{up("10.0.0.1:80"), down}, "10.0.0.1:80", conf.RealOrder{Action: conf.RealWeight, Weight: 1}, "", false},
		{"its weight becomes 0", []ipvs.RealDetail{up("10.0.0.1:80")}, "10.0.0.1:80", conf.RealOrder{Action: conf.RealWeight}, empty + " (pool web.yaml)", false},
		{"there is none already", []ipvs.RealDetail{down, taken}, "10.0.0.2:80", conf.RealOrder{Action: conf.RealDisable}, "", false},
		{"a server of a mark", []ipvs.RealDetail{up("10.0.0.1:0")}, "10.0.0.1", conf.RealOrder{Action: conf.RealDrain}, empty + " (pool web.yaml)", false},
		{"a pool that does not run", []ipvs.RealDetail{up("10.0.0.1:80")}, "10.0.0.1:80", conf.RealOrder{Action: conf.RealDrain}, "", true},
	} {
		d, err := json.Marshal(ipvs.Detail{Pool: "web.yaml", Started: !c.stopped, Services: []ipvs.ServiceDetail{{Name: "192.0.2.1:80 tcp", Reals: c.reals}}})
		if err != nil {
			t.Fatal(err)
		}
		s := cluster.Status{Groups: []cluster.GroupStatus{{Resource: []resources.ResourceStatus{{Kind: conf.KindLdirectord, Detail: d}}}}}
		if got := EmptiedNow(s, []cluster.RealOrdered{{Address: c.meant}}, c.order); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
