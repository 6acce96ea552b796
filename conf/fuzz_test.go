package conf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func seed(f *testing.F, patterns ...string) {
	for _, p := range patterns {
		files, err := filepath.Glob(p)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %d files (%v)", p, len(files), err)
		}
		for _, name := range files {
			if data, err := os.ReadFile(name); err != nil {
				f.Fatal(err)
			} else if filepath.Ext(name) != ".err" {
				f.Add(data)
			}
		}
	}
}

// checkMessages holds every message to what is promised: one line each that
// begins with the file, sorted, not too many.
func checkMessages(t *testing.T, file string, warns []Warning, err error) {
	t.Helper()
	for _, w := range warns {
		if strings.ContainsAny(w.String(), "\n\r") {
			t.Errorf("not one line: %q", w)
		}
	}
	if err == nil {
		return
	}
	list, ok := err.(Errors)
	if !ok || len(list) == 0 || len(list) > maxErrors+1 {
		t.Fatalf("%T with %d entries", err, len(list))
	}
	last := 0
	for _, e := range list {
		if s := e.Error(); strings.ContainsAny(s, "\n\r") || !strings.HasPrefix(s, file+":") {
			t.Errorf("not a line about the file: %q", s)
		}
		if e.Line > 0 && e.Line < last {
			t.Errorf("not sorted: %v", err)
		}
		last = e.Line
	}
}

func FuzzParseLocal(f *testing.F) {
	seed(f, "testdata/ha/*", "examples/*/ha.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		l, warns, err := ParseLocal("ha.yaml", data, "director1")
		checkMessages(t, "ha.yaml", warns, err)
		if (l == nil) != (err != nil) {
			t.Fatal(l, err)
		}
		if l == nil {
			return
		}
		found := false
		for _, n := range l.Nodes {
			found = found || n.Name == l.Name
		}
		if !found || len(l.Links) == 0 || l.Profile.Lease <= 2*l.Profile.Keepalive || (len(l.Nodes) == 2) == (l.Quorum == QuorumMajority) ||
			l.Quorum == 0 || (l.Quorum == QuorumPing) != (len(l.PingGroup) > 0) || len(l.Nodes) == 2 && !l.WaitForAll && l.InitDead < l.Profile.Lease {
			t.Errorf("%+v", l)
		}
		if w := l.Watchdog; w != (Watchdog{}) && (!filepath.IsAbs(w.Device) || w.Timeout < time.Second || w.Timeout%time.Second != 0) {
			t.Errorf("%+v", w)
		}
		for _, k := range l.Links {
			if k.Type == Serial {
				if len(l.Nodes) != 2 || len(l.Links) == 1 || !filepath.IsAbs(k.Device) || !slices.Contains(bauds, k.Baud) {
					t.Errorf("%+v", k)
				}
				continue
			}
			if k.Interface == "" || k.Port == 0 || k.Type == 0 || k.Type == Mcast && !k.Group.IsMulticast() || k.Type == Ucast && len(k.Addresses) == 0 {
				t.Errorf("%+v", k)
			}
		}
	})
}

// checkSpec holds what every specification promises to the rest of the program.
func checkSpec(t *testing.T, s *Spec) {
	t.Helper()
	for _, g := range s.Groups {
		if g.Name == "" || len(g.Resources) == 0 {
			t.Errorf("%+v", g)
		}
		for _, r := range g.Resources {
			if r.Name == "" || r.Class == 0 || r.StartTimeout <= 0 || r.StopTimeout <= 0 || r.MonitorTimeout <= 0 || r.MonitorInterval <= 0 {
				t.Errorf("%+v", r)
			}
			if _, ok := s.Pools[r.Pool]; (r.Kind == KindVIP) != (r.VIP != nil) || (r.Kind == KindLdirectord) != ok {
				t.Errorf("%+v", r)
			}
			if (r.Kind == KindVRRP) != (r.VRRP != nil) {
				t.Errorf("%+v", r)
			}
			if r.VRRP != nil {
				checkInstance(t, r.VRRP.Instance)
				if a := r.VRRP; a.OnConflict == 0 || (a.OnConflict == ConflictFence) != (a.Foreign != "") || len(s.Fencing.Levels(a.Foreign)) == 0 && a.Foreign != "" {
					t.Errorf("%+v", a)
				}
			}
		}
	}
	if s.Fencing != nil {
		checkFencing(t, s.Fencing)
	}
	if s.IPVS != nil {
		checkKernelSettings(t, s.IPVS)
	}
	for _, p := range s.Pools {
		checkPool(t, p)
		for _, v := range p.Virtuals {
			if v.Protocol == 0 || v.Scheduler == "" || v.Netmask == 0 || (v.Protocol == FWM) == v.Address.IsValid() || (v.Protocol == FWM) != (v.FWMark != 0) {
				t.Errorf("%+v", v)
			}
			for _, r := range v.Reals {
				if !r.Address.IsValid() || r.Forward == 0 || slices.Contains(r.Also, r.Check) {
					t.Errorf("%+v", r)
				}
				for _, c := range slices.Concat(r.Also, []Check{r.Check}) {
					checkCheck(t, v, r, c)
				}
			}
		}
	}
	roundTrip(t, s)
}

func checkFencing(t *testing.T, f *Fencing) {
	t.Helper()
	if f.Action != FenceOff && f.Action != FenceReboot || f.PriorityDelay < 0 || f.RandomDelay < 0 || len(f.Devices) == 0 {
		t.Errorf("%+v", f)
	}
	for _, d := range f.Devices {
		program := d.Type == FenceAgent || d.Type == FenceExternal || d.Type == FenceScript
		if d.Name == "" || d.Type == 0 || program != (d.Program != "") || len(d.Targets) == 0 || d.Timeout < time.Second || d.Retries < 0 || d.Delay < 0 || d.MonitorInterval < 0 ||
			d.Type == FenceScript && !filepath.IsAbs(d.Program) || !filepath.IsAbs(d.Program) && strings.Contains(d.Program, "/") {
			t.Errorf("%+v", d)
		}
		for name, p := range d.Params {
			given := 0
			for _, v := range []string{p.Value, p.File, p.Env} {
				if v != "" {
					given++
				}
			}
			if given > 1 || strings.ContainsAny(p.Value+name, "\n\r") || strings.Contains(name, "=") || strings.Contains(strings.ToLower(name), "password") && !secretPlace.MatchString(name) && p.Value != "" {
				t.Errorf("%s: %s: %+v", d.Name, name, p)
			}
		}
	}
	for node := range f.Topology {
		for _, level := range f.Levels(node) {
			if len(level) == 0 {
				t.Errorf("%s: an empty level", node)
			}
			for _, name := range level {
				if d := f.Device(name); d == nil || d.Target(node) == nil {
					t.Errorf("%s: %s cannot fence it", node, name)
				}
			}
		}
	}
}

func FuzzParseHaresources(f *testing.F) {
	seed(f, "testdata/haresources/*", "examples/*/haresources.yaml")
	three := pairOf(QuorumMajority)
	three.Nodes = append(three.Nodes, Node{"arbiter", Witness})
	pair := pairOf(QuorumFencing)
	pool := []byte("virtual: [{address: 10.0.0.1:80, real: [10.0.0.11 gate]}]\n")
	f.Fuzz(func(t *testing.T, data []byte) {
		local := three
		if len(data)%2 == 1 {
			local = pair
		}
		s, warns, err := ParseSpec(Files{Haresources: data, Pools: map[string][]byte{"ldirectord.yaml": pool}, Resolver: testHosts()}, local)
		checkMessages(t, HaresourcesName, warns, err)
		if (s == nil) != (err != nil) {
			t.Fatal(s, err)
		}
		if s != nil {
			checkSpec(t, s)
			if err := s.ValidFor(local); err != nil {
				t.Errorf("accepted, and then: %v", err)
			}
		}
		for _, name := range namedPools(data) {
			if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
				t.Errorf("pool %q", name)
			}
		}
	})
}

func FuzzParsePool(f *testing.F) {
	seed(f, "testdata/ldirectord/*", "examples/*/[lwmst]*.yaml")
	groups := []byte("groups: {web: {resources: [{vip: 10.0.0.1}, {ldirectord: p.yaml}]}}")
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "->") && len(data) > 10_000 {
			return // many ranges are tried elsewhere
		}
		s, warns, err := ParseSpec(Files{Haresources: groups, Pools: map[string][]byte{"p.yaml": data}, Resolver: testHosts()}, nil)
		checkMessages(t, "p.yaml", warns, err)
		if s != nil {
			checkSpec(t, s)
		}
	})
}

func FuzzParseAuthKeys(f *testing.F) {
	seed(f, "testdata/authkeys/*", "examples/*/authkeys")
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, active, err := ParseAuthKeys(data)
		checkMessages(t, "authkeys", nil, err)
		if err != nil {
			return
		}
		if len(keys) == 0 || keys[0].Index != active {
			t.Fatal(keys, active)
		}
		for _, k := range keys {
			if len(k.Secret.Bytes()) < MinKey || k.Method == "crc" {
				t.Error(k)
			}
		}
	})
}

func FuzzParseCanonical(f *testing.F) {
	f.Add([]byte(`{"settings":{},"groups":[],"pools":{},"fencing":{"action":"off","priority_fencing_delay":1,"random_delay":0,"devices":[{"name":"a","type":"agent","params":{"x":{"file":"/y"}},"targets":[{"node":"n"}],"timeout":1,"retries":0,"delay":0,"monitor_interval":0}],"topology":{"n":[["a"],[]]}}}`))
	f.Add([]byte(`{"settings":{},"groups":[{"name":"a","resources":[{"kind":"vip","class":"guarded","vip":{"address":"10.0.0.1","broadcast":""}}]}],"pools":{"p":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseCanonical(data)
		if err != nil {
			return
		}
		b, err := s.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseCanonical(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		again, err := back.Canonical()
		if err != nil || string(again) != string(b) {
			t.Errorf("%s then %s (%v)", b, again, err)
		}
		_ = s.ValidFor(pairOf(QuorumFencing))
		Diff(s, &Spec{})
		Diff(&Spec{}, s)
	})
}
