package conf

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checkPool holds what a pool promises beside its checks, whatever its file says.
func checkPool(t *testing.T, p Pool) {
	t.Helper()
	path := func(s string) bool { return s == "" || filepath.IsAbs(s) && !strings.ContainsAny(s, "\n\x00") }
	program := func(s string) bool { return path(s) && !strings.ContainsAny(s, " \t") }
	if !path(p.MaintenanceDir) || !program(p.Callback) {
		t.Errorf("%q %q", p.MaintenanceDir, p.Callback)
	}
	checkEmail(t, p.Email)
	for _, v := range p.Virtuals {
		checkEmail(t, v.Email)
		needed := max(v.Quorum, 1)
		if v.Hysteresis < 0 || v.Hysteresis >= needed || needed > maxQuorum || len(v.Fallbacks) > maxFallbacks || v.SlowStart < 0 ||
			v.OPS && (v.Persistent > 0 || v.Protocol != UDP && v.Protocol != FWM) || v.Engine != "" && (v.Persistent == 0 || v.Protocol != UDP && v.Protocol != FWM) ||
			v.Persistent%time.Second != 0 || v.Protocol != FWM && (v.Address.Port() == 0 || v.IPv6 != v.Address.Addr().Is6()) {
			t.Errorf("%+v", v)
		}
		for _, s := range []string{v.QuorumUp, v.QuorumDown, v.FallbackCommand} {
			if !program(s) {
				t.Errorf("program %q", s)
			}
		}
		if !path(v.MonitorFile) {
			t.Errorf("path %q", v.MonitorFile)
		}
		for i, servers := range [][]Real{v.Reals, v.Fallbacks} {
			for _, r := range servers {
				if !r.Address.IsValid() || checkServer(r.Address.Addr()) != nil || r.Forward == 0 || r.Weight < 0 || r.Weight > 65535 || r.Lower > r.Upper ||
					r.valid("") != nil || r.Forward != IPIP && (r.Tunnel != TunnelIPIP || r.TunnelPort != 0 || r.Address.Addr().Is6() != v.IPv6) ||
					r.Host != "" && !isHostName(r.Host) || !program(r.NotifyUp) || !program(r.NotifyDown) || i == 1 && r.Check.Type == 0 ||
					v.Protocol != FWM && r.Forward != Masq && r.Address.Port() != v.Address.Port() {
					t.Errorf("%s: %+v", v, r)
				}
			}
		}
	}
}

// checkEmail: its words become arguments of sendmail and lines of SMTP.
func checkEmail(t *testing.T, e Email) {
	t.Helper()
	if e.To == "" && e != (Email{}) || e.Every < 0 || strings.ContainsAny(e.To+e.From+e.Server+e.Status, " \t\r\n\x00<>\"\\") ||
		strings.HasPrefix(e.From, "-") || strings.HasPrefix(e.To, "-") || strings.Contains(e.To, ",-") || strings.HasPrefix(e.Server, "-") {
		t.Errorf("%+v", e)
	}
}

func checkKernelSettings(t *testing.T, v *IPVS) {
	t.Helper()
	for _, d := range []time.Duration{v.Timeouts.TCP, v.Timeouts.TCPFin, v.Timeouts.UDP} {
		if d < 0 || d > maxPersistent || d%time.Second != 0 {
			t.Errorf("time-out %s", d)
		}
	}
	if s := v.Sync; s != nil && (checkInterface(s.Interface) != nil || s.ID < 0 || s.ID > 255 || s.Port == 0 || !s.Group.IsMulticast() || s.TTL == 0 || s.MaxLen < 0 || s.MaxLen > 65507) {
		t.Errorf("%+v", s)
	}
	if m := v.ConnReuseMode; m != nil && (*m < 0 || *m > 3) || *v == (IPVS{}) {
		t.Errorf("%+v", v)
	}
}

// FuzzEndpoints reads what stands for one address or many; names are answered by testHosts.
func FuzzEndpoints(f *testing.F) {
	for _, s := range []string{"10.0.0.1:80", "[2001:db8::1]:80", "2001:db8::1", "www.example.org:http", "10.0.0.1-3:80", "10.0.0.1-10.0.0.3", "10.0.0.1->one.example.org:80", "-", "->", "[", "[]:1", "a-b:-", "::ffff:10.0.0.1", "10.0.0.0->10.0.255.255"} {
		f.Add(s, "ip4")
		f.Add(s, "ip")
	}
	f.Fuzz(func(t *testing.T, s, network string) {
		if network != "ip4" && network != "ip6" {
			network = "ip"
		}
		p := newPoolReader("p.yaml")
		ends, err := p.endpoints(nil, "server", s, network, TCP)
		for range 2 {
			if len(p.names.wanted) == 0 {
				break
			}
			p.names.ask(t.Context(), testHosts())
			ends, err = p.endpoints(nil, "server", s, network, TCP)
		}
		switch {
		case err != nil && (strings.ContainsAny(err.Error(), "\n\r") || err == errNotYet):
			t.Errorf("%q: %q", s, err)
		case err == nil && (len(ends) == 0 || len(ends) > maxRange):
			t.Errorf("%q: %d addresses", s, len(ends))
		}
		if err != nil {
			return
		}
		for i, e := range ends {
			if !e.IsValid() || e.Addr().Zone() != "" || e.Addr().Is4In6() || e.Port() != ends[0].Port() || i > 0 && ends[i-1].Compare(e) >= 0 {
				t.Errorf("%q: %v", s, ends)
			}
		}
	})
}
