package conf

import (
	"net/netip"
	"testing"
)

func TestWhatIsTheClustersIsTakenOutOfVRRP(t *testing.T) {
	address := func(s string) []VRRPAddress { return []VRRPAddress{{Address: netip.MustParsePrefix(s)}} }
	v := &VRRP{
		Instances: []VRRPInstance{
			{Name: "A", VRID: 1, Interface: "eth0", Addresses: address("10.0.0.1/24")},
			{Name: "B", VRID: 2, Interface: "eth0", Addresses: address("10.0.0.2/24")},
			{Name: "C", VRID: 3, Interface: "eth0", Addresses: address("10.0.0.3/24")},
		},
		SyncGroups: []VRRPSyncGroup{{Name: "G", Instances: []string{"A", "B"}}, {Name: "H", Instances: []string{"C"}}},
		Pools:      []VRRPPool{{File: "a.yaml", Instance: "A"}, {File: "b.yaml", Instance: "B"}},
	}
	spec := &Spec{Groups: []Group{{Name: "web", Resources: []Resource{
		{VIP: &VIP{Address: netip.MustParseAddr("10.0.0.1")}},
		{VRRP: &Announcer{Instance: VRRPInstance{VRID: 3, Interface: "eth0"}}},
	}}}}
	got := Apart(v, spec)
	if len(got.Instances) != 1 || got.Instances[0].Name != "B" || len(got.Pools) != 1 || got.Pools[0].File != "b.yaml" ||
		len(got.SyncGroups) != 1 || len(got.SyncGroups[0].Instances) != 1 || got.SyncGroups[0].Instances[0] != "B" {
		t.Errorf("%+v", got)
	}
	if len(v.Instances) != 3 || len(v.SyncGroups[0].Instances) != 2 {
		t.Error("the original was changed")
	}
	if got := Apart(v, nil); len(got.Instances) != 3 {
		t.Errorf("%+v", got)
	}
}
