package ipvs

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

func ptr[T any](v T) *T { return &v }

// tuned has every setting.
func tuned() *conf.IPVS {
	return &conf.IPVS{
		Timeouts:         conf.IPVSTimeouts{TCP: 10 * time.Minute, UDP: time.Minute},
		ExpireNodestConn: ptr(true), ConnReuseMode: ptr(0), SloppyTCP: ptr(true),
		Sync: &conf.IPVSSync{Interface: "eth1", ID: 7, Port: 8848, Group: netip.MustParseAddr("224.0.0.81"), TTL: 1},
	}
}

const (
	untouched = "conn_reuse_mode=1 expire_nodest_conn=0 expire_quiescent_template=0 sloppy_tcp=0 sync_refresh_period=0 timeouts=[900 120 300]"
	asTuned   = "conn_reuse_mode=0 expire_nodest_conn=1 expire_quiescent_template=0 sloppy_tcp=1 sync_refresh_period=10 timeouts=[600 120 60]"
	master7   = "master on eth1, id 7, 224.0.0.81:8848"
	backup7   = "backup on eth1, id 7, 224.0.0.81:8848"
)

func TestWantedSettings(t *testing.T) {
	all := tuned()
	all.ExpireQuiescentTemplate, all.Timeouts.TCPFin = ptr(false), 2*time.Second
	for _, tc := range []struct {
		name      string
		conf      *conf.IPVS
		templates bool
		want      map[string]string
	}{
		{"nothing is configured: nothing is touched", nil, false, map[string]string{}},
		{"persistent: templates of servers with weight 0 do not count", nil, true, map[string]string{"expire_quiescent_template": "1"}},
		{"what is configured counts", all, true, map[string]string{
			"expire_quiescent_template": "0", "expire_nodest_conn": "1", "conn_reuse_mode": "0", "sloppy_tcp": "1",
			"sync_refresh_period": "10", "timeout_tcp": "600", "timeout_tcpfin": "2", "timeout_udp": "60"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, wantedSettings(tc.conf, tc.templates)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPlanOfTheSyncDaemons(t *testing.T) {
	c := tuned()
	other := *c.Sync
	other.ID = 8
	m, b := daemonOf(Master, *c.Sync), daemonOf(Backup, *c.Sync)
	m8 := daemonOf(Master, other)
	told, long := m, m
	long.MaxLen = 9000
	told.MaxLen = 1472 // as the kernel tells it
	for _, tc := range []struct {
		name                 string
		wanted, actual, ours []Daemon
		want                 daemonPlan
		deaf                 bool
	}{
		{"none runs", []Daemon{m, b}, nil, nil, daemonPlan{Start: []Daemon{m, b}}, false},
		{"one runs as it is wanted, whoever has started it", []Daemon{m}, []Daemon{told}, nil, daemonPlan{}, false},
		{"ours runs with other values", []Daemon{m8}, []Daemon{told}, []Daemon{m}, daemonPlan{Stop: []SyncState{Master}, Start: []Daemon{m8}}, false},
		{"ours runs with what the kernel has made of the length", []Daemon{long}, []Daemon{told}, []Daemon{long}, daemonPlan{}, false},
		{"ours is to have another length", []Daemon{long}, []Daemon{told}, []Daemon{m}, daemonPlan{Stop: []SyncState{Master}, Start: []Daemon{long}}, false},
		{"somebody else's is in the way", []Daemon{m}, []Daemon{m8}, nil, daemonPlan{Alien: []Daemon{m8}}, false},
		{"ours is not wanted any more", nil, []Daemon{told}, []Daemon{m}, daemonPlan{Stop: []SyncState{Master}}, false},
		{"somebody else's is not wanted, and is not ours to stop", nil, []Daemon{m8}, []Daemon{m}, daemonPlan{}, false},
		{"from backup to master", []Daemon{m}, []Daemon{b}, []Daemon{b}, daemonPlan{Stop: []SyncState{Backup}, Start: []Daemon{m}}, false},
		{"its interface was taken out and put back", []Daemon{m}, []Daemon{told}, []Daemon{m}, daemonPlan{Stop: []SyncState{Master}, Start: []Daemon{m}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, planDaemons(tc.wanted, tc.actual, tc.ours, tc.deaf), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
				t.Error(d)
			}
		})
	}
}

// wide makes a pool with settings of the kernel. end is the end of the daemon.
func (r *rig) wide(name string, c *conf.IPVS, v conf.Virtual) (p *pool, end func()) {
	r.t.Helper()
	spec := conf.Spec{Pools: map[string]conf.Pool{name: {Virtuals: []conf.Virtual{v}}}, IPVS: c}
	made, err := r.maker.New(r.env(), spec, conf.Resource{Kind: conf.KindLdirectord, Name: "ldirectord " + name, Pool: name})
	if err != nil {
		r.t.Fatal(err)
	}
	p = made.(*pool)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	synctest.Wait()
	return p, func() {
		cancel()
		<-ended
		if err := p.Close(); err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) has(what, settings string, daemons ...string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.kernel.settings(r.t); got != settings {
		r.t.Errorf("%s: settings\n %s, want\n %s", what, got, settings)
	}
	if d := cmp.Diff(daemons, r.kernel.daemons()); d != "" {
		r.t.Errorf("%s: sync daemons: (-want +got)\n%s", what, d)
	}
}

func tunedBubble(t *testing.T, story func(t *testing.T, r *rig)) {
	bubble(t, func(t *testing.T, r *rig) {
		r.kernel.withSysctls(t)
		r.table.cfg.sysctls = r.kernel.sysctls
		story(t, r)
	})
}

func TestSettingsAndSyncDaemonsFollowTheFirstAndTheLastPool(t *testing.T) {
	tunedBubble(t, func(t *testing.T, r *rig) {
		one, endOne := r.wide("one", tuned(), web())
		r.has("one waits", untouched, backup7)
		two, endTwo := r.wide("two", tuned(), virtual("10.0.0.2:80", real("10.0.0.5:80", conf.Gate, 1)))
		r.start(one)
		r.has("one is started, two waits", asTuned, backup7, master7)
		r.start(two)
		r.has("both are started", asTuned, master7)
		r.stop(one)
		r.has("one has stopped", asTuned, backup7, master7)
		r.stop(two)
		r.has("both have stopped", untouched, backup7)
		endOne()
		r.has("one is gone", untouched, backup7)
		endTwo()
		r.has("both are gone", untouched)
	})
}

func TestWhatSomebodyElseHasSetMeanwhileIsLeft(t *testing.T) {
	tunedBubble(t, func(t *testing.T, r *rig) {
		p, end := r.wide("one", tuned(), web())
		r.start(p)
		r.has("started", asTuned, master7)
		r.kernel.sysctl(t, connReuseMode, "3")
		r.stop(p)
		r.has("stopped", strings.Replace(untouched, "conn_reuse_mode=1", "conn_reuse_mode=3", 1), backup7)
		end()
	})
}

func TestAnUpdateChangesSettingsAndPutsBackWhatIsNotConfiguredAnyMore(t *testing.T) {
	tunedBubble(t, func(t *testing.T, r *rig) {
		p, end := r.wide("one", tuned(), web())
		r.start(p)
		next := &conf.IPVS{SloppyTCP: ptr(true), Sync: tuned().Sync}
		next.Sync.ID = 9
		v := web()
		v.Persistent = time.Minute
		spec := conf.Spec{Pools: map[string]conf.Pool{"one": {Virtuals: []conf.Virtual{v}}}, IPVS: next}
		res := conf.Resource{Kind: conf.KindLdirectord, Name: "ldirectord one", Pool: "one"}
		if err := p.Update(t.Context(), spec, res); err != nil {
			t.Fatal(err)
		}
		r.has("updated", "conn_reuse_mode=1 expire_nodest_conn=0 expire_quiescent_template=1 sloppy_tcp=1 sync_refresh_period=10 timeouts=[900 120 300]",
			"master on eth1, id 9, 224.0.0.81:8848")
		r.stop(p)
		r.has("stopped", untouched, "backup on eth1, id 9, 224.0.0.81:8848")
		spec.IPVS = nil
		if err := p.Update(t.Context(), spec, res); err != nil {
			t.Fatal(err)
		}
		r.has("not configured any more", untouched)
		end()
	})
}

// after is the next daemon on the same kernel: it knows what the journal says.
func (r *rig) after() {
	r.maker = NewMaker(Config{Checks: r.checks, Table: r.table})
}

func TestAfterACrashTheOriginalSettingsAreStillPutBack(t *testing.T) {
	for _, again := range []bool{true, false} {
		tunedBubble(t, func(t *testing.T, r *rig) {
			p, end := r.wide("one", tuned(), web())
			raw, err := p.Record()
			if err != nil {
				t.Fatal(err)
			}
			r.start(p)
			r.has("started", asTuned, master7)
			end() // what the crash leaves is what a planned restart leaves
			r.has("after the end of the daemon", asTuned, master7)

			r.after()
			if !again { // somebody else owns the group by now
				rec, err := r.maker.Recover(r.env(), raw)
				if err != nil {
					t.Fatal(err)
				}
				if err := rec.Stop(t.Context()); err != nil {
					t.Fatal(err)
				}
				r.has("taken back", untouched)
				return
			}
			c := tuned()
			c.Sync.ID, c.SloppyTCP = 8, nil // changed while the daemon was dead
			p, end = r.wide("one", c, web())
			if err := p.Adopt(raw); err != nil {
				t.Fatal(err)
			}
			if raw, err = p.Record(); err != nil {
				t.Fatal(err)
			}
			r.start(p)
			r.has("started again", strings.Replace(asTuned, "sloppy_tcp=1", "sloppy_tcp=0", 1), "master on eth1, id 8, 224.0.0.81:8848")
			var rec record
			if err := json.Unmarshal(raw, &rec); err != nil || rec.Kernel.Settings[connReuseMode] != (change{"1", "0"}) {
				t.Errorf("%v; the second journal does not know what was there before the first start: %s", err, raw)
			}
			r.stop(p)
			end()
			r.has("stopped", untouched)
		})
	}
}

func TestASyncDaemonThatCannotBeHadIsTroubleAndNoFailure(t *testing.T) {
	tunedBubble(t, func(t *testing.T, r *rig) {
		alien := daemonOf(Master, *tuned().Sync)
		alien.Interface = "eth9"
		r.kernel.syncs = []Daemon{alien}
		c := tuned()
		p, end := r.wide("one", c, web())
		r.start(p)
		r.has("started", asTuned, "master on eth9, id 7, 224.0.0.81:8848")
		d := p.Detail().(Detail)
		if d.Kernel == nil || len(d.Kernel.Trouble) != 1 || !strings.Contains(d.Kernel.Trouble[0], "somebody else's sync daemon runs here: master on eth9, id 7, 224.0.0.81:8848; stop it (ipvsadm --stop-daemon master)") {
			t.Errorf("status: %+v", d.Kernel)
		}
		r.kernel.mu.Lock()
		r.kernel.syncs = nil
		r.kernel.mu.Unlock()
		time.Sleep(2 * maxPeriod)
		r.has("it is gone", asTuned, master7)
		if d = p.Detail().(Detail); d.Kernel == nil || d.Kernel.Trouble != nil || cmp.Diff([]string{master7}, d.Kernel.Sync) != "" {
			t.Errorf("status: %+v", d.Kernel)
		}
		r.stop(p)
		end()
		r.has("stopped", untouched)

		c.Sync.Interface = "nosuch"
		p, end = r.wide("one", c, web())
		defer end()
		if d := p.Detail().(Detail); d.Kernel == nil || len(d.Kernel.Trouble) != 1 || !strings.Contains(d.Kernel.Trouble[0], "this node has no such interface") {
			t.Errorf("status: %+v", d.Kernel)
		}
		if err := p.Settled(); err != nil {
			t.Errorf("connections that never come are waited for: %v", err)
		}
	})
}

// A daemon stays with the interface that it was started on, there or not.
func TestSyncDaemonsAreStartedAnewOnAnInterfaceThatComesBack(t *testing.T) {
	tunedBubble(t, func(t *testing.T, r *rig) {
		p, end := r.wide("one", tuned(), web())
		defer end()
		r.start(p)
		r.has("started", asTuned, master7)
		starts := r.kernel.starts
		r.kernel.replug(-1)
		time.Sleep(2 * maxPeriod)
		r.has("the interface is out", asTuned, master7)
		if d := p.Detail().(Detail); d.Kernel == nil || len(d.Kernel.Trouble) != 1 || d.Kernel.Trouble[0] != "connections are not synchronised: interface eth1: this node has no such interface" {
			t.Errorf("status: %+v", d.Kernel)
		}
		r.kernel.replug(0)
		time.Sleep(2 * maxPeriod)
		if d := p.Detail().(Detail); d.Kernel == nil || d.Kernel.Trouble != nil || r.kernel.starts != starts {
			t.Errorf("it is the same one: %+v, %d starts", d.Kernel, r.kernel.starts)
		}
		r.kernel.replug(1)
		time.Sleep(2 * maxPeriod)
		r.has("another one is in its place", asTuned, master7)
		if d := p.Detail().(Detail); r.kernel.starts != starts+1 || len(d.Kernel.Sync) != 1 {
			t.Errorf("started %d times more: %v", r.kernel.starts-starts, d.Kernel.Sync)
		}
		r.stop(p)
		r.has("stopped", untouched, backup7)
		time.Sleep(2 * settleTime)
		if err := p.Settled(); err != nil {
			t.Error(err)
		}
		r.kernel.replug(2)
		time.Sleep(maxPeriod + time.Second)
		if p.Settled() == nil {
			t.Error("settled at once after the receiver was started anew")
		}
	})
}

func TestAPoolIsSettledWhenItsDaemonHasReceivedForAWhile(t *testing.T) {
	tunedBubble(t, func(t *testing.T, r *rig) {
		p, end := r.wide("one", tuned(), web())
		defer end()
		if p.Settled() == nil {
			t.Error("settled at once")
		}
		time.Sleep(settleTime)
		if err := p.Settled(); err != nil {
			t.Error(err)
		}
		r.start(p)
		if err := p.Settled(); err != nil {
			t.Errorf("started: %v", err)
		}
		r.has("started", asTuned, master7)
		r.stop(p)
		synctest.Wait()
		if p.Settled() == nil {
			t.Error("settled at once after a stop")
		}
	})
}

func TestRecordsWithSettingsThatAreNotOursAreRefused(t *testing.T) {
	m := NewMaker(Config{})
	for _, raw := range []string{
		`{"pool":"p","services":null,"kernel":{"settings":{"../../ip_forward":{"found":"0","set":"1"}}}}`,
		`{"pool":"p","services":null,"kernel":{"daemons":[{"state":3}]}}`,
	} {
		if _, err := m.Recover(resources.Env{}, json.RawMessage(raw)); err == nil {
			t.Errorf("accepted: %s", raw)
		}
	}
}
