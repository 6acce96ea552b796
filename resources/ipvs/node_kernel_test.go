//go:build labkernel

package ipvs

import (
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
)

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func TestKernelSettingsAreSetAndPutBack(t *testing.T) {
	k := newLabKernel(t)
	for _, tc := range []struct{ name, value string }{
		{expireNodestConn, "1"}, {expireQuiescentTemplate, "1"}, {connReuseMode, "0"}, {sloppyTCP, "1"}, {syncRefreshPeriod, "10"},
		{"timeout_tcp", "77"}, {"timeout_tcpfin", "7"}, {"timeout_udp", "17"},
	} {
		found, err := k.Setting(t.Context(), tc.name)
		if err != nil || found == tc.value {
			t.Fatalf("%s is %q at first: %v", tc.name, found, err)
		}
		for _, value := range []string{tc.value, found} {
			if err := k.Set(t.Context(), tc.name, value); err != nil {
				t.Error(err)
			}
			if got, err := k.Setting(t.Context(), tc.name); err != nil || got != value {
				t.Errorf("%s was set to %s and is %q: %v", tc.name, value, got, err)
			}
			if tc.value == "7" && value == "7" {
				if out := ipvsadm(t, "-L", "--timeout"); !strings.Contains(out, "900 7 300") {
					t.Errorf("ipvsadm sees other time-outs: %s", out)
				}
			}
		}
	}
	if _, err := k.Setting(t.Context(), "no_such"); err == nil || !strings.Contains(err.Error(), "this kernel does not have it") {
		t.Errorf("a sysctl that is not there: %v", err)
	}
}

func TestKernelSyncDaemons(t *testing.T) {
	k := newLabKernel(t)
	ip(t, "link", "add", "sync0", "type", "dummy")
	t.Cleanup(func() { ip(t, "link", "del", "sync0") })
	ip(t, "addr", "add", "10.77.0.1/24", "dev", "sync0")
	ip(t, "link", "set", "sync0", "up")
	c := conf.IPVSSync{Interface: "sync0", ID: 7, Port: 8849, Group: netip.MustParseAddr("224.0.0.82"), TTL: 3, MaxLen: 1000}
	both := []Daemon{daemonOf(Master, c), daemonOf(Backup, c)}
	for _, d := range both {
		if err := k.StartDaemon(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if err := k.StartDaemon(t.Context(), d); err == nil || !strings.Contains(err.Error(), "another one runs here") {
			t.Errorf("a second %s: %v", d.State, err)
		}
	}
	got, err := k.Daemons(t.Context())
	both[1].MaxLen = 1024 // the kernel's least to receive
	if d := cmp.Diff(both, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || d != "" {
		t.Errorf("%v: (-started +read back)\n%s", err, d)
	}
	want := "master sync daemon (mcast=sync0, syncid=7, maxlen=1000, group=224.0.0.82, port=8849, ttl=3)\nbackup sync daemon (mcast=sync0, syncid=7, maxlen=1024, group=224.0.0.82, port=8849, ttl=3)\n"
	if out := ipvsadm(t, "-L", "--daemon"); out != want {
		t.Errorf("ipvsadm sees\n%s", out)
	}

	// The kernel's daemon cannot tell of a server of the other family.
	v := virtual("10.0.0.5:80", real("[2001:db8::5]:80", conf.IPIP, 1))
	wanted := Wanted([]conf.Virtual{v}, allUp)
	refused, err := k.Apply(t.Context(), Diff(wanted, nil))
	if err != nil || len(refused) != 1 || !strings.Contains(refused[0].Err.Error(), "not while connections are synchronised") {
		t.Errorf("%v, %v", refused, err)
	}

	for _, s := range []SyncState{Master, Backup, Backup} {
		if err := k.StopDaemon(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
	if got, err := k.Daemons(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	nosuch := both[0]
	nosuch.Interface = "nosuch0"
	if err := k.StartDaemon(t.Context(), nosuch); err == nil || !strings.Contains(err.Error(), "no such interface") {
		t.Errorf("without the interface: %v", err)
	}
	refused, err = k.Apply(t.Context(), []Op{{Verb: AddDest, Service: wanted[0].Service, Dest: wanted[0].Dests[0]}})
	if err != nil || len(refused) != 0 {
		t.Errorf("%v, %v", refused, err)
	}
	if err := k.StartDaemon(t.Context(), both[0]); err == nil || !strings.Contains(err.Error(), "does not go with real servers of the other family") {
		t.Errorf("with a server of the other family: %v", err)
	}
}

// The whole resource: settings and daemons come and go with its start and its
// stop, and somebody else's sync daemon is named and keeps nothing from starting.
func TestKernelPoolSetsAndPutsBack(t *testing.T) {
	k := newLabKernel(t)
	ip(t, "link", "add", "sync0", "type", "dummy")
	t.Cleanup(func() { ip(t, "link", "del", "sync0") })
	ip(t, "addr", "add", "10.77.0.1/24", "dev", "sync0")
	ip(t, "link", "set", "sync0", "up")
	c := tuned()
	c.Sync.Interface = "sync0"
	m := newShared(k)
	m.specify(c)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	state := func() string {
		var all []string
		for _, name := range sysctlNames {
			value, err := k.Setting(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, name+"="+value)
		}
		return strings.Join(all, " ") + "\n" + ipvsadm(t, "-L", "--timeout") + ipvsadm(t, "-L", "--daemon")
	}
	before := state()
	p := &pool{}
	m.put(p, func(s *sharer) { s.runs = true })
	m.tend(t.Context(), log)
	if now := state(); !strings.HasPrefix(strings.TrimPrefix(now, before), "backup sync daemon (mcast=sync0, syncid=7") {
		t.Errorf("waiting:\n%s", now)
	}
	m.put(p, func(s *sharer) { s.started = true })
	m.tend(t.Context(), log)
	now := state()
	for _, want := range []string{"expire_nodest_conn=1", "conn_reuse_mode=0", "sloppy_tcp=1", "sync_refresh_period=10", "Timeout (tcp tcpfin udp): 600 120 60", "master sync daemon (mcast=sync0, syncid=7"} {
		if !strings.Contains(now, want) {
			t.Errorf("started: no %s in\n%s", want, now)
		}
	}
	if strings.Contains(now, "backup") || len(m.detail().Trouble) > 0 {
		t.Errorf("started:\n%s%v", now, m.detail())
	}
	m.put(p, func(s *sharer) { *s = sharer{} })
	m.tend(t.Context(), log)
	if d := cmp.Diff(before, state()); d != "" {
		t.Errorf("gone: (-before +after)\n%s", d)
	}

	ipvsadm(t, "--start-daemon", "master", "--mcast-interface", "sync0", "--syncid", "9")
	t.Cleanup(func() { ipvsadm(t, "--stop-daemon", "master") })
	m.put(p, func(s *sharer) { s.runs, s.started = true, true })
	m.tend(t.Context(), log)
	if d := m.detail(); len(d.Trouble) != 1 || !strings.Contains(d.Trouble[0], "somebody else's sync daemon runs here: master on sync0, id 9, 224.0.0.81:8848") {
		t.Errorf("with somebody else's: %+v", d)
	}
	m.put(p, func(s *sharer) { *s = sharer{} })
	m.tend(t.Context(), log)
	if now := state(); !strings.Contains(now, "syncid=9") {
		t.Errorf("somebody else's sync daemon was stopped:\n%s", now)
	}
}
