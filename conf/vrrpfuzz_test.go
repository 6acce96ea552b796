package conf

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checkInstance holds what every virtual router promises to the machine.
func checkInstance(t *testing.T, i VRRPInstance) {
	t.Helper()
	if i.VRID == 0 || i.Priority == 0 || checkInterface(i.Interface) != nil || i.DownAdverts < 1 || len(i.Addresses) == 0 || len(i.Addresses) > MaxVRRPAddresses(i.IPv6) ||
		i.Version != 2 && i.Version != 3 || i.IPv6 && i.Version == 2 || !i.Group.IsMulticast() || i.Group.Is6() != i.IPv6 || i.UnicastTTL == 0 ||
		len(i.Password) > 8 || i.Password != "" && i.Version != 2 || i.Source.IsValid() && i.Source.Is6() != i.IPv6 || i.VMAC != "" && checkInterface(i.VMAC) != nil {
		t.Errorf("%+v", i)
	}
	least, most, step := time.Second, 255*time.Second, time.Second
	if i.Version == 3 {
		least, most, step = 10*time.Millisecond, 40950*time.Millisecond, 10*time.Millisecond
	}
	if i.Interval < least || i.Interval > most || i.Interval%step != 0 || i.PreemptDelay < 0 || i.PreemptDelay > 1000*time.Second {
		t.Errorf("%+v", i)
	}
	for _, a := range i.Addresses {
		if a.Address.Addr().Is6() != i.IPv6 {
			t.Errorf("%s in a packet of the other family", a)
		}
	}
	for _, p := range i.Peers {
		if !p.Address.IsValid() || p.Address.Is6() != i.IPv6 || p.MinTTL > p.MaxTTL {
			t.Errorf("%+v", p)
		}
	}
	for _, x := range i.Routes {
		unicast := x.Type == 1
		if !x.To.IsValid() || x.To != x.To.Masked() || x.Type == 0 || unicast && !x.Via.IsValid() && x.Interface == "" || x.Via.IsValid() && x.Via.Is6() != x.To.Addr().Is6() {
			t.Errorf("%+v", x)
		}
	}
	for _, x := range i.Rules {
		if x.Prohibits == (x.Table != 0) {
			t.Errorf("%+v", x)
		}
	}
	checkNotify(t, i.Notify)
}

func checkNotify(t *testing.T, n VRRPNotify) {
	t.Helper()
	for _, command := range [][]string{n.Master, n.Backup, n.Fault, n.Stop, n.Notify} {
		checkCommand(t, command, len(command) == 0)
	}
}

func checkCommand(t *testing.T, command []string, none bool) {
	t.Helper()
	if !none && (len(command) == 0 || !filepath.IsAbs(command[0]) || strings.Contains(strings.Join(command, ""), "\x00")) {
		t.Errorf("command %q", command)
	}
}

func checkTracks(t *testing.T, v *VRRP, scripts, processes, files []VRRPTrack) {
	t.Helper()
	known := map[string]bool{}
	for _, s := range v.Scripts {
		known["script "+s.Name] = true
	}
	for _, s := range v.Processes {
		known["process "+s.Name] = true
	}
	for _, s := range v.Files {
		known["file "+s.Name] = true
	}
	for kind, tracks := range map[string][]VRRPTrack{"script": scripts, "process": processes, "file": files} {
		for _, x := range tracks {
			if !known[kind+" "+x.Name] || x.Weight < -maxWeightFiles || x.Weight > maxWeightFiles {
				t.Errorf("%s %+v", kind, x)
			}
		}
	}
}

func FuzzParseVRRP(f *testing.F) {
	seed(f, "testdata/vrrp/*", "examples/*/vrrp.yaml")
	pool := []byte("virtual: [{address: 10.0.0.1:80, real: [10.0.0.11 gate]}]\n")
	f.Fuzz(func(t *testing.T, data []byte) {
		v, warns, err := ParseVRRP(VRRPFiles{Data: data, Pools: map[string][]byte{"ldirectord.yaml": pool}, Secret: testSecrets, Resolver: testHosts()})
		checkMessages(t, VRRPName, warns, err)
		if (v == nil) != (err != nil) {
			t.Fatal(v, err)
		}
		for _, name := range namedVRRPPools((&reader{}).document(data)) {
			if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
				t.Errorf("pool %q", name)
			}
		}
		if v == nil {
			return
		}
		if len(v.Instances) == 0 {
			t.Error("no instance")
		}
		names, groups, addresses := map[string]bool{}, map[string]string{}, map[netip.Addr]bool{}
		for _, i := range v.Instances {
			checkInstance(t, i)
			checkTracks(t, v, i.TrackScripts, i.TrackProcesses, i.TrackFiles)
			names[i.Name] = true
			for _, a := range i.Addresses {
				if ip := a.Address.Addr(); addresses[ip] && !ip.IsLinkLocalUnicast() {
					t.Errorf("%s twice", ip)
				}
				addresses[a.Address.Addr()] = true
			}
		}
		for _, g := range v.SyncGroups {
			checkTracks(t, v, g.TrackScripts, g.TrackProcesses, g.TrackFiles)
			checkNotify(t, g.Notify)
			if len(g.Instances) < 2 {
				t.Errorf("%+v", g)
			}
			for _, name := range g.Instances {
				if !names[name] || groups[name] != "" {
					t.Errorf("%+v", g)
				}
				groups[name] = g.Name
			}
		}
		for _, s := range v.Scripts {
			checkCommand(t, s.Command, false)
			if s.Interval <= 0 || s.Timeout <= 0 || s.Rise < 1 || s.Fall < 1 {
				t.Errorf("%+v", s)
			}
		}
		for _, p := range v.Processes {
			if len(p.Process) == 0 || p.Quorum < 1 || p.Most != 0 && p.Most < p.Quorum {
				t.Errorf("%+v", p)
			}
		}
		for _, x := range v.Files {
			if !filepath.IsAbs(x.Path) {
				t.Errorf("%+v", x)
			}
		}
		for _, p := range v.Pools {
			checkPool(t, p.Pool)
			if p.Instance != "" && !names[p.Instance] {
				t.Errorf("pool %s of %q", p.File, p.Instance)
			}
		}
		checkEmail(t, v.Email)
		_ = CheckWorlds(v, &Spec{})
	})
}

// FuzzVRRPLines reads what stands on one line: an address, a route, a rule, a command.
func FuzzVRRPLines(f *testing.F) {
	for _, s := range []string{"172.16.100.1/16 dev eth0 label eth0:0", "default via fd00::1", "blackhole 10.0.0.0/8", "from 10.0.0.0/8 fwmark 0xf table 5", "fe80::1/64 brd +", "/bin/sh -c 'a b' \\\"", "10.0.0.0/0 dev x", "::/0 dev x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		oneLiner := func(err error) bool {
			if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("%q: %q", s, err)
			}
			return err == nil
		}
		var a, b VRRPAddress
		if oneLiner(a.parse(s)) && (b.parse(a.String()) != nil || a != b) {
			t.Errorf("%q is %+v and read again %+v", s, a, b)
		}
		var x, y VRRPRoute
		if oneLiner(x.parse(s, false)) && (y.parse(x.String(), false) != nil || x != y) {
			t.Errorf("%q is %+v and read again %+v", s, x, y)
		}
		var r, q VRRPRule
		if oneLiner(r.parse(s)) && (q.parse(r.String()) != nil || r != q) {
			t.Errorf("%q is %+v and read again %+v", s, r, q)
		}
		_, err := splitCommand(s)
		oneLiner(err)
	})
}
