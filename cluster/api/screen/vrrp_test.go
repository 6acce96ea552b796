package screen

import (
	"net/netip"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/resources/ipvs"
	"github.com/keepbeat/keepbeat/resources/vrrp"
	"github.com/keepbeat/keepbeat/resources/vrrp/site"
)

func TestVirtualRoutersOnAScreen(t *testing.T) {
	now := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	addresses := func(all ...string) (p []netip.Prefix) {
		for _, a := range all {
			p = append(p, netip.MustParsePrefix(a))
		}
		return p
	}
	other := netip.MustParseAddr("172.16.100.12")
	instance := func(state vrrp.State, change func(*vrrp.InstanceStatus)) vrrp.InstanceStatus {
		i := vrrp.InstanceStatus{
			Name: "VI_1", Interface: "eth0", Version: 2, VRID: 51, State: state, Since: ago(30), Priority: 101, Base: 101,
			Addresses: addresses("172.16.100.1/16"),
		}
		change(&i)
		return i
	}
	for _, c := range []struct {
		name      string
		instance  vrrp.InstanceStatus
		trouble   []string
		strangers []vrrp.Stranger
		want      string
	}{
		{"a master with a script that fails", instance(vrrp.Master, func(i *vrrp.InstanceStatus) {
			i.Addresses = addresses("172.16.100.1/16", "172.16.100.2/32", "172.16.100.3/32", "172.16.100.4/32", "172.16.100.5/32")
			i.Priority = 99
			i.Tracks = []vrrp.TrackStatus{
				{Kind: "script", Name: "chk_haproxy", Weight: 2, Known: true, Well: true},
				{Kind: "script", Name: "chk_down", Weight: -2, Known: true},
				{Kind: "file", Name: "hold", Weight: 1, Reverse: true, Known: true, Value: 3},
			}
		}), nil, nil, `All is well.

VRRP instance  VRID        interface  state   for   priority  master
VI_1           51 v2 IPv4  eth0       MASTER  30 s  99 (101)  this router
  VI_1: 172.16.100.1/16, 172.16.100.2, 172.16.100.3, and 2 more
  VI_1: script chk_down fails (weight -2)
  VI_1: file hold has 3 (weight 1 reverse)
`},
		{"a backup that took over nothing", instance(vrrp.Backup, func(i *vrrp.InstanceStatus) {
			i.Master, i.Heard, i.HeardPriority, i.HeardAt = other, other, 103, now
			i.Notes = []vrrp.Note{{Why: vrrp.ReasonAddresses, Count: 1, From: other, At: ago(70)}}
		}), nil, nil, `All is well.

VRRP instance  VRID        interface  state   for   priority  master
VI_1           51 v2 IPv4  eth0       BACKUP  30 s  101       172.16.100.12
  VI_1: 172.16.100.1/16; the master has priority 103
  VI_1: 1 advertisement taken although its address list is not ours, 70 s ago
    the last, from 172.16.100.12
`},
		{"a master whose address is long", instance(vrrp.Backup, func(i *vrrp.InstanceStatus) {
			i.Version, i.IPv6, i.Addresses = 3, true, addresses("fd00::61/64")
			i.Master = netip.MustParseAddr("fe80::7087:31ff:fe8a:1e65")
		}), nil, nil, `All is well.

VRRP instance  VRID        interface  state   for   priority  master
VI_1           51 v3 IPv6  eth0       BACKUP  30 s  101
  fe80::7087:31ff:fe8a:1e65
  VI_1: fd00::61/64
`},
		{"a fault, in which a master is heard", instance(vrrp.Fault, func(i *vrrp.InstanceStatus) {
			i.Heard, i.HeardPriority, i.HeardAt = other, 103, ago(1)
			i.Tracks = []vrrp.TrackStatus{{Kind: "file", Name: "hold", Known: true, Value: 1}}
		}), []string{"vrrp_instance VI_1 is in state FAULT: file hold has 1"}, nil, `1 PROBLEM
  - vrrp_instance VI_1 is in state FAULT: file hold has 1

VRRP instance  VRID        interface  state  for   priority  master
VI_1           51 v2 IPv4  eth0       FAULT  30 s  101       172.16.100.12
  VI_1: 172.16.100.1/16; the master has priority 103
`},
		{"a fault, in which a master was heard long ago", instance(vrrp.Fault, func(i *vrrp.InstanceStatus) {
			i.Heard, i.HeardPriority, i.HeardAt = other, 103, ago(11)
			i.Notes = []vrrp.Note{{Why: vrrp.ReasonPassword, Refused: true, Count: 5, From: other, At: ago(2)}}
		}), nil, nil, `All is well.

VRRP instance  VRID        interface  state  for   priority  master
VI_1           51 v2 IPv4  eth0       FAULT  30 s  101       not heard
  VI_1: 172.16.100.1/16
  VI_1: 5 advertisements refused for their password, 2 s ago the last, from
    172.16.100.12
`},
		{"a master beside one with another VRID", instance(vrrp.Master, func(i *vrrp.InstanceStatus) {
			i.Notes = []vrrp.Note{{Why: vrrp.ReasonRival, Count: 2, From: other, At: ago(70)}}
		}), nil, []vrrp.Stranger{{Interface: "eth0", VRID: 15, From: other, At: ago(1), Count: 30}}, `All is well.

VRRP instance  VRID        interface  state   for   priority  master
VI_1           51 v2 IPv4  eth0       MASTER  30 s  101       this router
  VI_1: 172.16.100.1/16
  VI_1: 2 advertisements of another master, of lower priority, 70 s ago the
    last, from 172.16.100.12
  VRID 15, which nobody has here, is heard on eth0: 1 s ago the last, from
    172.16.100.12
`},
	} {
		s := site.Status{Status: vrrp.Status{Instances: []vrrp.InstanceStatus{c.instance}, Strangers: c.strangers}, Trouble: c.trouble}
		if got := VRRP(s, true, now, Options{Width: 80}); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestServicesOfAMachineWithoutACluster(t *testing.T) {
	p := newPage(Options{Width: 80})
	p.pool(time.Time{}, cluster.GroupStatus{}, ipvs.Detail{Pool: "ldirectord.yaml"})
	if got := p.b.String(); got != "\nServices of ldirectord.yaml (not in the kernel's table)\n" {
		t.Errorf("%q", got)
	}
}
