package site

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/resources"
	"github.com/keepbeat/keepbeat/resources/vrrp"
)

func TestTroubleOfInstances(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)
	refused := func(ago time.Duration) []vrrp.Note {
		return []vrrp.Note{{Why: vrrp.ReasonPassword, Refused: true, Count: 1, From: netip.MustParseAddr("10.0.0.2"), At: now.Add(-ago)}}
	}
	const mistake = "vrrp_instance VI_1 refuses the advertisements of 10.0.0.2 for their password: neither will yield to the other; make the two files alike"
	for _, c := range []struct {
		name     string
		status   vrrp.InstanceStatus
		interval time.Duration
		want     []string
	}{
		{"none", vrrp.InstanceStatus{}, time.Second, nil},
		{"fault", vrrp.InstanceStatus{Lacks: "interface eth0 is down"}, time.Second, []string{"vrrp_instance VI_1 is in state FAULT: interface eth0 is down"}},
		{"the kernel refuses", vrrp.InstanceStatus{State: vrrp.Master, Failure: "no such device"}, time.Second, []string{"vrrp_instance VI_1: no such device"}},
		{"the kernel keeps what is out of the file", vrrp.InstanceStatus{State: vrrp.Initialize, Failure: "vrrp VI_1: 10.0.0.1: busy"}, time.Second,
			[]string{"vrrp_instance VI_1 has been stopped, and what it had is still in the kernel, while another machine may have it: 10.0.0.1: busy"}},
		{"the kernel keeps what a fault has to give up", vrrp.InstanceStatus{State: vrrp.Fault, Lacks: "script a fails", Failure: "busy"}, time.Second,
			[]string{"vrrp_instance VI_1 is in state FAULT: script a fails", "vrrp_instance VI_1: busy"}},
		{"the kernel refuses, and names the instance", vrrp.InstanceStatus{Failure: "vrrp VI_1: address 10.0.0.1: eth8: no such interface"}, time.Second, []string{"vrrp_instance VI_1: address 10.0.0.1: eth8: no such interface"}},
		{"another password on the wire", vrrp.InstanceStatus{Notes: refused(time.Second)}, time.Second, []string{mistake}},
		{"that was put right", vrrp.InstanceStatus{Notes: refused(11 * time.Second)}, time.Second, nil},
		{"that was put right just now", vrrp.InstanceStatus{Notes: refused(2 * time.Second), Heard: netip.MustParseAddr("10.0.0.2"), HeardAt: now.Add(-time.Second)}, time.Second, nil},
		{"while a third is heard", vrrp.InstanceStatus{Notes: refused(2 * time.Second), Heard: netip.MustParseAddr("10.0.0.3"), HeardAt: now.Add(-time.Second)}, time.Second, []string{mistake}},
		{"again after it was well", vrrp.InstanceStatus{Notes: refused(time.Second), Heard: netip.MustParseAddr("10.0.0.2"), HeardAt: now.Add(-2 * time.Second)}, time.Second, []string{mistake}},
		{"heard rarely", vrrp.InstanceStatus{Notes: refused(11 * time.Second)}, 5 * time.Second, []string{mistake}},
		{"taken with a remark", vrrp.InstanceStatus{Notes: []vrrp.Note{{Why: vrrp.ReasonAddresses, At: now}}}, time.Second, nil},
	} {
		c.status.Name = "VI_1"
		if got := troubles([]vrrp.InstanceStatus{c.status}, map[string]time.Duration{"VI_1": c.interval}, now); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestTroubleOfPools(t *testing.T) {
	pools := []resources.GroupStatus{
		{Name: "a.yaml", Phase: "stuck", Resources: []resources.ResourceStatus{{Name: "x"}, {Name: "y", Error: "busy"}}},
		{Name: "b.yaml", Phase: "stopping", Resources: []resources.ResourceStatus{{Name: "z", Error: "not yet"}}},
	}
	got := poolTroubles(pools, map[string]error{"c.yaml": errors.New("no IPVS")})
	want := []string{"pool c.yaml does not run: no IPVS", "pool a.yaml does not stop, and its services are still in the kernel: busy"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
