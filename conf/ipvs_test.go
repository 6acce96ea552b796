package conf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func kernelSettings(t *testing.T, cluster, text string) *Spec {
	t.Helper()
	local := pairOf(QuorumUnsafe)
	local.Cluster = cluster
	s, _, err := ParseSpec(Files{Haresources: []byte("groups: {}\n" + text)}, local)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, s)
	return s
}

func TestKernelSettingsThatAreNotGivenAreLeftAlone(t *testing.T) {
	for _, text := range []string{"", "ipvs: {}", "ipvs: {timeouts: {}}"} {
		if s := kernelSettings(t, "x", text); s.IPVS != nil {
			t.Errorf("%s: %+v", text, s.IPVS)
		}
	}
	no, mode := false, 0
	want := &IPVS{SloppyTCP: &no, ConnReuseMode: &mode, Timeouts: IPVSTimeouts{UDP: 2 * time.Minute}}
	got := kernelSettings(t, "x", "ipvs: {sloppy_tcp: no, conn_reuse_mode: 0, timeouts: {udp: 2m}}").IPVS
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSynchronisationNeedsItsInterfaceOnly(t *testing.T) {
	want := IPVSSync{Interface: "eth1", ID: syncID("a"), Port: 8848, Group: netip.MustParseAddr("224.0.0.81"), TTL: 1}
	for _, text := range []string{"eth1", "{interface: eth1}"} {
		if got := *kernelSettings(t, "a", "ipvs: {sync: "+text+"}").IPVS.Sync; got != want {
			t.Errorf("%+v", got)
		}
	}
	got := *kernelSettings(t, "a", "ipvs: {sync: {interface: bond0, id: 0, port: 1, group: ff02::81, ttl: 255, maxlen: 1400}}").IPVS.Sync
	if want := (IPVSSync{"bond0", 0, 1, netip.MustParseAddr("ff02::81"), 255, 1400}); got != want {
		t.Errorf("%+v", got)
	}
}

func TestIDsOfClustersAreNeverZeroAndSeldomEqual(t *testing.T) {
	ids := map[int]bool{}
	for i := range 100 {
		id := syncID(fmt.Sprintf("cluster%d", i))
		if ids[id] = true; id < 1 || id > 255 {
			t.Errorf("%d", id)
		}
	}
	if len(ids) < 70 {
		t.Errorf("%d ids of 100 clusters", len(ids))
	}
}

func TestADifferenceInKernelSettingsIsSaid(t *testing.T) {
	a := kernelSettings(t, "a", "ipvs: {expire_nodest_conn: yes, timeouts: {tcp: 1h}}")
	b := kernelSettings(t, "a", "ipvs: {expire_nodest_conn: no, sync: {interface: eth1, id: 7}}")
	want := `ipvs: timeouts: tcp 1h -> 0s
ipvs: expire_nodest_conn yes -> no
ipvs: sync none -> eth1, id 7, group 224.0.0.81 port 8848 ttl 1`
	if got := strings.Join(Diff(a, b), "\n"); got != want {
		t.Errorf("it says\n%s\nand should say\n%s", got, want)
	}
	if got := strings.Join(Diff(b, kernelSettings(t, "a", "")), "\n"); got != "ipvs: expire_nodest_conn no -> none\nipvs: sync eth1, id 7, group 224.0.0.81 port 8848 ttl 1 -> none" {
		t.Error(got)
	}
}

// ip_vs_genl_set_cmd of the kernel refuses one while the other is there.
func TestSynchronisationExcludesTunnelsToTheOtherFamily(t *testing.T) {
	for name, real := range map[string]string{"real server": "real: ['2001:db8::9 ipip']", "fallback": "real: [10.0.0.9 ipip], fallback: '2001:db8::9 ipip'"} {
		for _, sync := range []string{"", "\nipvs: {sync: eth1}"} {
			_, _, err := ParseSpec(Files{
				Haresources: []byte("groups: {web: {resources: [{vip: 10.0.0.1}, {ldirectord: p.yaml}]}}" + sync),
				Pools:       map[string][]byte{"p.yaml": []byte("virtual: [{address: 10.0.0.1:80, checktype: ping, " + real + "}]")},
			}, nil)
			const want = `p.yaml:1:11: real server 2001:db8::9 is of the other family than virtual 10.0.0.1:80 tcp, and the kernel synchronises no connections while there is such a server; take it out, or "sync" out of "ipvs" in haresources.yaml`
			if (err != nil) != (sync != "") || err != nil && err.Error() != want {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestPersistenceThatExpiresNeedsNoWarning(t *testing.T) {
	for ipvs, want := range map[string]int{"": 0, "\nipvs: {expire_quiescent_template: no}": 1, "\nipvs: {expire_quiescent_template: yes}": 0} {
		_, warns, err := ParseSpec(Files{
			Haresources: []byte("groups: {web: {resources: [{vip: 10.0.0.1}, {ldirectord: p.yaml}]}}" + ipvs),
			Pools:       map[string][]byte{"p.yaml": []byte("virtual: [{address: 10.0.0.1:80, persistent: 5m, real: [10.0.0.9 gate]}]")},
		}, nil)
		if err != nil || len(warns) != want {
			t.Errorf("%q: %v %v", ipvs, warns, err)
		}
	}
}
