package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every file that is shown to people is read as the daemon reads it.
func TestEveryExampleLoads(t *testing.T) {
	dirs, err := filepath.Glob("examples/*")
	if err != nil || len(dirs) < 4 {
		t.Fatalf("%d examples (%v)", len(dirs), err)
	}
	for _, dir := range dirs {
		if strings.HasPrefix(filepath.Base(dir), "vrrp-") {
			continue // needs no cluster
		}
		t.Run(filepath.Base(dir), func(t *testing.T) {
			read := map[string]bool{"ha.yaml": true, HaresourcesName: true}
			data, err := os.ReadFile(filepath.Join(dir, "ha.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			names, _, err := ParseLocal(filepath.Join(dir, "ha.yaml"), data, "nobody")
			if err == nil {
				t.Fatalf("a host that is not among the nodes was accepted: %v", names)
			}
			first := map[string]string{"heartbeat-2": "director1", "ipv6": "lb1", "masq": "gw1", "fwmark-ipip": "LB1", "pair-fencing": "lb01", "pair-ping": "lb2", "pair-serial": "director2", "pools": "lb2", "checks": "lb1", "announcer": "lb3"}[filepath.Base(dir)]
			local, warns, err := ParseLocal(filepath.Join(dir, "ha.yaml"), data, first)
			if err != nil {
				t.Fatal(err)
			}
			spec, more, err := LoadSpec(dir, local)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range append(warns, more...) {
				if local.Quorum == QuorumPing && strings.Contains(w.Msg, "two nodes own the same") {
					continue // what it is is said each time
				}
				t.Errorf("an example should be without %s", w)
			}
			for name, pool := range spec.Pools {
				read[name] = true
				for _, part := range pool.Executes {
					read[part] = true
				}
			}
			if keys, err := os.ReadFile(filepath.Join(dir, "authkeys")); err == nil {
				read["authkeys"] = true
				if _, _, err := ParseAuthKeys(keys); err != nil {
					t.Error(err)
				}
			}
			everyFileIsRead(t, dir, read)
			roundTrip(t, spec)
		})
	}
}

func everyFileIsRead(t *testing.T, dir string, read map[string]bool) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !read[f.Name()] {
			t.Errorf("%s is read by nobody", f.Name())
		}
	}
}

// The four stories of keepalived's files and one of a sync group, without a cluster.
func TestEveryExampleOfARouterLoads(t *testing.T) {
	for name, is := range map[string]func(v *VRRP) bool{
		"vrrp-haproxy": func(v *VRRP) bool {
			i := v.Instances[0]
			return len(v.Scripts) == 2 && len(i.TrackScripts) == 2 && i.TrackScripts[1].Weight == -2 && len(i.Notify.Fault) == 2 && i.Notify.Mail && i.Addresses[0].Label == "eth0:0"
		},
		"vrrp-dual-master": func(v *VRRP) bool {
			return len(v.Instances) == 2 && v.Instances[0].Master && !v.Instances[1].Master && v.Instances[0].VRID != v.Instances[1].VRID
		},
		"vrrp-sync-group": func(v *VRRP) bool {
			four, six := v.Instances[0], v.Instances[1]
			return len(v.SyncGroups) == 1 && four.Version == 3 && len(four.Peers) == 1 && len(four.Routes) == 1 && six.IPv6 && len(six.Peers) == 0
		},
		"vrrp-lvs-http": func(v *VRRP) bool {
			return len(v.Pools) == 1 && v.Pools[0].Instance == "" && v.Pools[0].Pool.Virtuals[0].Reals[0].Check.Status == "200"
		},
		"vrrp-lvs-tcp-sorry": func(v *VRRP) bool {
			return len(v.Pools) == 1 && v.Pools[0].Instance == "VI_1" && len(v.Pools[0].Pool.Virtuals[0].Fallbacks) == 1 && v.Pools[0].Pool.Virtuals[0].Reals[0].Check.Type == Connect
		},
	} {
		t.Run(name, func(t *testing.T) {
			files, err := ReadVRRPFiles(filepath.Join("examples", name, VRRPName))
			if err != nil {
				t.Fatal(err)
			}
			v, warns, err := ParseVRRP(files)
			if err != nil || len(warns) > 0 || !is(v) {
				t.Fatalf("%v, %v: %+v", warns, err, v)
			}
			read := map[string]bool{VRRPName: true}
			for name := range files.Pools {
				read[name] = true
			}
			everyFileIsRead(t, filepath.Join("examples", name), read)
		})
	}
}

func roundTrip(t *testing.T, spec *Spec) {
	t.Helper()
	b, err := spec.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseCanonical(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(spec, back, sameAddresses()); d != "" {
		t.Errorf("round trip changes the specification (-before +after):\n%s", d)
	}
	if d := Diff(spec, back); len(d) > 0 {
		t.Errorf("Diff of the same specification: %q", d)
	}
	again, err := back.Canonical()
	if err != nil || string(again) != string(b) {
		t.Errorf("the canonical form is not stable (%v)", err)
	}
}
