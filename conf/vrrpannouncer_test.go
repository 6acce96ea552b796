package conf

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func announcers(t *testing.T, text string) *Spec {
	t.Helper()
	spec, warns, err := ParseSpec(Files{Haresources: []byte(text)}, nil)
	if err != nil || len(warns) > 0 {
		t.Fatal(warns, err)
	}
	return spec
}

func TestAnAnnouncerHasTheVIPsBeforeIt(t *testing.T) {
	spec := announcers(t, `
groups:
  web:
    resources:
      - vip: 10.0.0.1
      - vip: 10.0.0.2/24/eth1:web
      - vip: fd00::1/64/eth2
      - vrrp: {virtual_router_id: 51}
      - vrrp: {virtual_router_id: 51, interface: eth2, virtual_ipaddress: "fd00::1/64 dev eth2", advert_int: 100ms, priority: 200, on_conflict: keep}
`)
	prefix := netip.MustParsePrefix
	four, six := spec.Groups[0].Resources[3], spec.Groups[0].Resources[4]
	if four.Kind != KindVRRP || four.Class != Guarded || four.Name != "vrrp eth1 51" || six.Name != "vrrp eth2 51 inet6" {
		t.Errorf("%+v\n%+v", four, six)
	}
	a := four.VRRP
	if i := a.Instance; a.OnConflict != ConflictYield || i.Priority != 254 || i.Version != 2 || i.VRID != 51 || i.Interface != "eth1" || i.Interval != time.Second || !i.Master ||
		i.Name != "web" || i.Group != DefaultVRRPGroup(false) || i.DownAdverts != 3 || !slices.Equal(i.Addresses, []VRRPAddress{{Address: prefix("10.0.0.1/32")}, {Address: prefix("10.0.0.2/32")}}) {
		t.Errorf("%+v", a)
	}
	a = six.VRRP
	if i := a.Instance; a.OnConflict != ConflictKeep || i.Priority != 200 || i.Version != 3 || !i.IPv6 || i.Interval != 100*time.Millisecond || !slices.Equal(i.Addresses, []VRRPAddress{{Address: prefix("fd00::1/128")}}) {
		t.Errorf("%+v", a)
	}
	roundTrip(t, spec)
}

func TestAnAnnouncerIsTheSameUnderAnyName(t *testing.T) {
	spec := announcers(t, "groups: {web: {resources: [{vip: 10.0.0.1/24/eth0}, {vrrp: {virtual_router_id: 51}, name: tell, start_timeout: 3s}]}}\n")
	if r := spec.Groups[0].Resources[1]; r.Name != "tell" || r.Takes() != "vrrp eth0 51" || r.StartTimeout != 3*time.Second {
		t.Errorf("%+v takes %q", r, r.Takes())
	}
}

func TestAForeignMasterMayBeFenced(t *testing.T) {
	local := pairOf(QuorumFencing)
	text := `
groups:
  web:
    resources:
      - vip: 10.0.0.1/24/eth0
      - vrrp: {virtual_router_id: 51, on_conflict: fence, foreign: Old-LB}
fencing:
  devices:
    pdu: {external: rackpdu, targets: {` + local.Nodes[0].Name + `: 1, ` + local.Nodes[1].Name + `: 2, old-lb: 3}, params: {pduip: 10.9.0.1}}
`
	spec, _, err := ParseSpec(Files{Haresources: []byte(text)}, local)
	if err != nil {
		t.Fatal(err)
	}
	if a := spec.Groups[0].Resources[1].VRRP; a.OnConflict != ConflictFence || a.Foreign != "old-lb" || len(spec.Fencing.Levels("old-lb")) != 1 {
		t.Errorf("%+v", a)
	}
	roundTrip(t, spec)
	local.Nodes = append(local.Nodes, Node{"old-lb", Director})
	if err := spec.ValidFor(local); err == nil || !strings.Contains(err.Error(), "foreign old-lb is a node of the cluster") {
		t.Errorf("%v", err)
	}
}

func TestADifferenceOfAnAnnouncerShowsNoPassword(t *testing.T) {
	group := func(lines string) *Spec {
		return announcers(t, "groups: {web: {resources: [{vip: 10.0.0.1/24/eth0}, {vip: 10.0.0.2/24/eth0}, {vrrp: {virtual_router_id: 51"+lines+"}}]}}\n")
	}
	was := group("")
	got := Diff(was, group(", authentication: {auth_pass: hunter2}, priority: 100, on_conflict: keep, virtual_ipaddress: 10.0.0.2, unicast_peer: [10.0.0.9 min_ttl 5]"))
	const at = `group web: resource "vrrp eth0 51": vrrp: `
	want := []string{
		at + "instance: priority 254 -> 100",
		at + "instance: password added",
		at + "instance: peers [] -> [10.0.0.9 min_ttl 5]",
		at + "instance: addresses [10.0.0.1/32 10.0.0.2/32] -> [10.0.0.2/32]",
		at + "on_conflict yield -> keep",
	}
	if !slices.Equal(got, want) {
		t.Errorf("it says\n%s\nand should say\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNothingStandsInBothWorlds(t *testing.T) {
	const pool = "virtual: [{address: 10.0.0.1:80, real: [10.0.0.11 gate]}]\n"
	spec, _, err := ParseSpec(Files{
		Haresources: []byte("groups: {web: {resources: [{vip: 10.0.0.1/24/eth0}, {vip: 10.0.0.2/24/eth0}, {vip: fd00::1/64/eth0}, {ldirectord: ldirectord.yaml}, {vrrp: {virtual_router_id: 51}}]}}\n"),
		Pools:       map[string][]byte{"ldirectord.yaml": []byte(pool)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"apart": {"vrrp_instance:\n  a: {interface: eth0, virtual_router_id: 52, virtual_ipaddress: 10.0.0.9}\n  b: {interface: eth1, virtual_router_id: 51, virtual_ipaddress: \"fd00::8\"}\n", ""},
		"an address": {"vrrp_instance:\n  a:\n    interface: eth0\n    virtual_router_id: 52\n    virtual_ipaddress: [10.0.0.9, 10.0.0.2/24]\n",
			`vrrp.yaml:5:35: address 10.0.0.2 of vrrp_instance "a" is the cluster's, too: group "web", resource "vip 10.0.0.2" of haresources.yaml; an address belongs to one of the two: take it out here or there`},
		"an address beside the packet": {"vrrp_instance:\n  a:\n    interface: eth0\n    virtual_router_id: 52\n    virtual_ipaddress: 10.0.0.9\n    virtual_ipaddress_excluded: \"fd00::1/64\"\n",
			`vrrp.yaml:6:33: address fd00::1 of vrrp_instance "a" is the cluster's, too: group "web", resource "vip fd00::1" of haresources.yaml; an address belongs to one of the two: take it out here or there`},
		"a VRID": {"vrrp_instance:\n  a: {interface: eth0, virtual_router_id: 51, virtual_ipaddress: 10.0.0.9}\n",
			`vrrp.yaml:2:43: VRID 51 of IPv4 on eth0 of vrrp_instance "a" is the cluster's, too: group "web", resource "vrrp eth0 51" of haresources.yaml; the guard silences it on every interface of a node without a lease: write another virtual_router_id here or there`},
		"a VRID on another interface": {"vrrp_instance:\n  a: {interface: eth1, virtual_router_id: 51, virtual_ipaddress: 10.0.0.9}\n",
			`vrrp.yaml:2:43: VRID 51 of IPv4 on eth1 of vrrp_instance "a" is the cluster's, too: group "web", resource "vrrp eth0 51" of haresources.yaml; the guard silences it on every interface of a node without a lease: write another virtual_router_id here or there`},
		"a virtual service": {"vrrp_instance:\n  a: {interface: eth0, virtual_router_id: 52, virtual_ipaddress: 10.0.0.9}\npools: [web.yaml]\n",
			`vrrp.yaml:3:9: virtual 10.0.0.1:80 tcp of pool web.yaml is the cluster's, too: pool ldirectord.yaml of haresources.yaml; a virtual service belongs to one of the two: take it out here or there`},
	} {
		t.Run(name, func(t *testing.T) {
			v, _, err := ParseVRRP(VRRPFiles{Data: []byte(c.text), Pools: map[string][]byte{"web.yaml": []byte(pool)}})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := CheckWorlds(v, spec); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("it says\n%s\nand should say\n%s", got, c.want)
			}
		})
	}
	if err := CheckWorlds(nil, spec); err != nil {
		t.Error(err)
	}
}
