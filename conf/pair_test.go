package conf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPairsInEveryForm(t *testing.T) {
	const nodes = "nodes: [director1, director2]\nlinks: [{bcast: eth1}, {bcast: eth2}]\n"
	router := []netip.Addr{netip.MustParseAddr("192.168.56.1"), netip.MustParseAddr("192.168.56.2")}
	type pair struct {
		Quorum     Quorum
		WaitForAll bool
		InitDead   time.Duration
		PingGroup  []netip.Addr
		Watchdog   Watchdog
		AdminGroup string
	}
	for name, c := range map[string]struct {
		text string
		want pair
	}{
		"fencing":           {"quorum: fencing", pair{QuorumFencing, true, 30 * time.Second, nil, Watchdog{}, ""}},
		"unsafe":            {"quorum: unsafe", pair{QuorumUnsafe, true, 30 * time.Second, nil, Watchdog{}, ""}},
		"ping":              {"quorum: ping\nping_group: [192.168.56.1, 192.168.56.2]", pair{QuorumPing, true, 30 * time.Second, router, Watchdog{}, ""}},
		"ping, one address": {"quorum: ping\nping_group: 192.168.56.1", pair{QuorumPing, true, 30 * time.Second, router[:1], Watchdog{}, ""}},
		"ping, heartbeat's": {"quorum: ping\nping_group: routers 192.168.56.1 192.168.56.2", pair{QuorumPing, true, 30 * time.Second, router, Watchdog{}, ""}},
		"wait_for_all: yes": {"quorum: fencing\nwait_for_all: yes", pair{QuorumFencing, true, 30 * time.Second, nil, Watchdog{}, ""}},
		"wait_for_all: no":  {"quorum: fencing\nwait_for_all: no", pair{QuorumFencing, false, 30 * time.Second, nil, Watchdog{}, ""}},
		"initdead":          {"quorum: fencing\nwait_for_all: no\ninitdead: 2m", pair{QuorumFencing, false, 2 * time.Minute, nil, Watchdog{}, ""}},
		"watchdog":          {"quorum: fencing\nwatchdog: /dev/watchdog", pair{QuorumFencing, true, 30 * time.Second, nil, Watchdog{"/dev/watchdog", 10 * time.Second}, ""}},
		"watchdog, long":    {"quorum: fencing\nwatchdog: {device: /dev/watchdog0, timeout: 1m}", pair{QuorumFencing, true, 30 * time.Second, nil, Watchdog{"/dev/watchdog0", time.Minute}, ""}},
		"admin_group":       {"quorum: fencing\nadmin_group: cluster", pair{QuorumFencing, true, 30 * time.Second, nil, Watchdog{}, "cluster"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, _, err := ParseLocal("ha.yaml", []byte(nodes+c.text+"\n"), "director1")
			if err != nil {
				t.Fatal(err)
			}
			got := pair{l.Quorum, l.WaitForAll, l.InitDead, l.PingGroup, l.Watchdog, l.AdminGroup}
			if d := cmp.Diff(c.want, got, sameAddresses()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestThreeVotersHaveNothingOfAPair(t *testing.T) {
	l, _, err := ParseLocal("ha.yaml", []byte("nodes: [a, b, c]\nlinks: [{bcast: eth1}, {bcast: eth2}]\nquorum: witness\nwait_for_all: yes\nping_group: [10.0.0.1]\n"), "a")
	if err != nil {
		t.Fatal(err)
	}
	if l.Quorum != QuorumMajority || l.WaitForAll || l.InitDead != 0 || l.PingGroup != nil {
		t.Errorf("%+v", l)
	}
}

func TestSerialLinks(t *testing.T) {
	for text, want := range map[string]Link{
		"- serial: /dev/ttyS0":                         {Type: Serial, Device: "/dev/ttyS0", Baud: 19200},
		"- serial: {device: /dev/ttyS0, baud: 115200}": {Type: Serial, Device: "/dev/ttyS0", Baud: 115200},
		"- serial: {device: /dev//ttyUSB0}":            {Type: Serial, Device: "/dev/ttyUSB0", Baud: 19200},
	} {
		l, _, err := ParseLocal("ha.yaml", []byte("nodes: [a, b]\nquorum: fencing\nudpport: 1694\nlinks:\n- bcast: eth1\n"+text+"\n"), "a")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, l.Links[1], sameAddresses()); d != "" {
			t.Error(d)
		}
		if name := "serial " + want.Device; l.Links[1].Name() != name {
			t.Errorf("it is called %s, not %s", l.Links[1].Name(), name)
		}
	}
}
