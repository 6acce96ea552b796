package ipvs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

func TestAStandbyChecksAndProgramsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := web()
		p := r.pool(v)
		for _, real := range v.Reals {
			if !r.checks.subscribed(real.Check) {
				t.Errorf("%s is not checked", real.Address)
			}
			r.checks.set(real.Check, true)
		}
		time.Sleep(time.Minute)
		r.holds("standby")
		// and takes over with what it knows, in one go
		r.start(p)
		r.holds("owner", both...)
		r.stop(p)
		r.holds("stopped")
		r.checks.set(v.Reals[0].Check, false)
		time.Sleep(time.Minute)
		r.holds("standby again")
		r.start(p)
		r.holds("owner again", both[0], "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0", both[2])
	})
}

func TestUnknownHealthIsNotUp(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		p := r.pool(web())
		r.start(p)
		r.holds("nothing was checked yet", fallback...)
	})
}

func TestHealthIsFollowedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := web()
		p := r.pool(v)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, true)
		r.start(p)
		r.kernel.take()
		begin := time.Now()
		r.checks.set(v.Reals[0].Check, false)
		synctest.Wait()
		r.did("one fails", "-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0")
		r.checks.set(v.Reals[1].Check, false)
		synctest.Wait()
		r.did("both fail", "-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 1", "-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0")
		r.checks.set(v.Reals[1].Check, true)
		synctest.Wait()
		r.did("one is back", "-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2", "-e -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 0")
		if time.Since(begin) != 0 {
			t.Errorf("it took %v", time.Since(begin))
		}
	})
}

func TestOneCheckOfTwoServices(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := web(), virtual("10.0.0.2:8080", real("10.0.0.5:80", conf.Masq, 1))
		p := r.pool(a, b)
		r.checks.set(a.Reals[0].Check, true)
		r.start(p)
		r.kernel.take()
		if n := r.checks.begun[a.Reals[0].Check]; n != 1 {
			t.Errorf("checked %d times over", n)
		}
		r.checks.set(a.Reals[0].Check, false)
		synctest.Wait()
		r.did("it fails", "-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 1", "-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0", "-e -t 10.0.0.2:8080 -r 10.0.0.5:80 -m -w 0")
	})
}

func TestDamageIsRepairedWithinACheckInterval(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := web()
		p := r.pool(v)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, true)
		r.start(p)
		for i := range 5 { // somebody who does it again and again
			r.kernel.clear()
			time.Sleep(time.Second + time.Millisecond)
			r.holds("repaired", both...)
			if d := p.Detail().(Detail); d.Repairs != uint64(i+1) {
				t.Errorf("%d repairs counted after %d", d.Repairs, i+1)
			}
		}
		if n := r.log.count("somebody else has changed"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		time.Sleep(10 * time.Second)
		r.kernel.put(Entry{Service: Service{Key: KeyOf(v), Scheduler: "rr", Netmask: 32}, Dests: []Dest{{Address: ap("10.9.9.9:80"), Method: Masq, Weight: 1}}})
		if err := p.Monitor(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.holds("edited by somebody", both...)
		if n := r.log.count("somebody else has changed"); n != 2 {
			t.Errorf("logged %d times", n)
		}
		if n := len(r.kernel.take()); n == 0 {
			t.Error("nothing done?")
		}
		time.Sleep(time.Minute)
		r.did("at rest nothing is touched")
	})
}

func TestOtherServicesAreLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		other := Entry{Service: Service{Key: Key{Protocol: conf.TCP, Address: ap("10.0.0.1:81")}, Scheduler: "rr", Netmask: 32}, Dests: []Dest{{Address: ap("10.9.9.9:81"), Method: Masq, Weight: 1}}}
		r.kernel.put(other)
		v := web()
		p := r.pool(v)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, true)
		r.start(p)
		alone := strings.Split(strings.TrimSpace(Text([]Entry{other})), "\n")
		r.holds("started", append(append([]string{}, both...), alone...)...)
		r.stop(p)
		r.holds("stopped", alone...)
	})
}

func TestStopHeedsCleanstop(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		stays, goes := virtual("10.0.0.1:80"), virtual("10.0.0.2:80")
		stays.CleanStop = false
		p := r.pool(stays, goes)
		r.start(p)
		r.stop(p)
		r.holds("stopped", "-A -t 10.0.0.1:80 -s wlc")
		r.stop(p) // what is stopped
		r.holds("stopped twice", "-A -t 10.0.0.1:80 -s wlc")
	})
}

func TestAJournalRecordIsEnoughToStop(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		mark := conf.Virtual{Protocol: conf.FWM, FWMark: 5, IPv6: true, Scheduler: "rr", Netmask: 128, CleanStop: true}
		stays := virtual("10.0.0.2:80")
		stays.CleanStop = false
		p := r.pool(web(), mark, virtual("[2001:db8::1]:80"), stays)
		raw, err := p.Record()
		if err != nil {
			t.Fatal(err)
		}
		r.start(p)
		// Another process, which knows nothing but the record.
		m := NewMaker(Config{Checks: newFakeChecks(), Table: r.table})
		rec, err := m.Recover(r.env(), raw)
		if err != nil {
			t.Fatal(err)
		}
		again, err := rec.Record()
		if err != nil || !bytes.Equal(raw, again) {
			t.Errorf("%v %s", err, again)
		}
		if err := rec.Start(t.Context()); err == nil {
			t.Error("started from a record")
		}
		for range 2 {
			if err := rec.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.holds("recovered and stopped", "-A -t 10.0.0.2:80 -s wlc")
		}
	})
}

func TestARecordDoesNotStopWhatIsActiveAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		p := r.pool(web())
		raw, err := p.Record()
		if err != nil {
			t.Fatal(err)
		}
		r.start(p)
		rec, err := r.maker.Recover(r.env(), raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := rec.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.holds("still there", fallback...)
	})
}

func TestBadRecords(t *testing.T) {
	m := NewMaker(Config{})
	for _, raw := range []string{``, `{}x`[:1], `{"services":[{}]}`, `{"services":[{"protocol":"tcp","fwmark":5}]}`,
		`{"services":[{"protocol":"dccp","address":"10.0.0.1:80"}]}`, `{"services":[{"protocol":"fwm"}]}`, `{"unknown":1}`} {
		if _, err := m.Recover(resources.Env{}, json.RawMessage(raw)); err == nil {
			t.Errorf("accepted: %s", raw)
		}
	}
}

func TestARestartOfTheDaemonTakesNoServerOut(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := web()
		before := Wanted([]conf.Virtual{v}, upIf("10.0.0.6:80"))
		r.kernel.put(before...)
		p := r.pool(v)
		r.start(p) // nothing was checked yet
		r.did("adopted")
		r.checks.set(v.Reals[0].Check, true)
		synctest.Wait()
		r.did("the first result", "-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1")
		r.checks.set(v.Reals[1].Check, false)
		synctest.Wait()
		r.did("the second", "-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0")
	})
}

func TestUpdateTouchesOnlyWhatHasChanged(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b, c := web(), virtual("10.0.0.2:80", real("10.0.0.7:80", conf.Gate, 1)), virtual("10.0.0.3:80", real("10.0.0.8:80", conf.Gate, 1))
		p := r.pool(a, b)
		for _, v := range []conf.Virtual{a, b} {
			for _, real := range v.Reals {
				r.checks.set(real.Check, true)
			}
		}
		r.start(p)
		synctest.Wait() // Run reads what is changed here
		r.kernel.take()

		a.Reals[1].Weight = 9
		a.Reals = append(a.Reals, real("10.0.0.9:80", conf.Gate, 3))
		spec, res := specOf(a, c)
		if err := p.Update(t.Context(), spec, res); err != nil {
			t.Fatal(err)
		}
		r.did("updated",
			"-a -t 10.0.0.1:80 -r 10.0.0.9:80 -g -w 0",
			"-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 9",
			"-A -t 10.0.0.3:80 -s wlc",
			"-a -t 10.0.0.3:80 -r 10.0.0.8:80 -g -w 0",
			"-D -t 10.0.0.2:80")
		for _, real := range a.Reals {
			if n := r.checks.begun[real.Check]; n != 1 {
				t.Errorf("%s: check begun %d times", real.Address, n)
			}
		}
		if r.checks.subscribed(b.Reals[0].Check) {
			t.Error("a dropped server is still checked")
		}
		r.checks.set(c.Reals[0].Check, true)
		synctest.Wait()
		r.did("the new one is up", "-e -t 10.0.0.3:80 -r 10.0.0.8:80 -g -w 1")
		if p.Detail().(Detail).Repairs != 0 {
			t.Error("an update was taken for damage")
		}
		// The dropped service may now be another pool's.
		spec, res = specOf(b)
		other, err := r.maker.New(r.env(), spec, res)
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Start(t.Context()); err != nil {
			t.Error(err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestUpdateOfAStandbyProgramsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		p := r.pool(web())
		b := virtual("10.0.0.2:80", real("10.0.0.7:80", conf.Gate, 1))
		spec, res := specOf(b)
		if err := p.Update(t.Context(), spec, res); err != nil {
			t.Fatal(err)
		}
		r.holds("standby")
		if !r.checks.subscribed(b.Reals[0].Check) {
			t.Error("the new server is not checked")
		}
		if err := p.Update(t.Context(), conf.Spec{}, res); err == nil || !strings.Contains(err.Error(), `no pool "web.yaml"`) {
			t.Errorf("%v", err)
		}
	})
}

func TestTwoPoolsCannotServeOneAddress(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := r.pool(web()), r.pool(web())
		r.start(a)
		err := b.Start(t.Context())
		if err == nil || !strings.Contains(err.Error(), "10.0.0.1:80 tcp is already served on this node by pool web.yaml of group web") {
			t.Errorf("%v", err)
		}
		if err := b.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.holds("the first is not harmed by the stop of the second", fallback...)
		r.stop(a)
		r.start(b)
	})
}

func TestDetail(t *testing.T) {
	tunedBubble(t, func(t *testing.T, r *rig) {
		v := web()
		v.Persistent, v.Comment = 600*time.Second, "shop"
		v.Reals = append(v.Reals, real("10.0.0.7:80", conf.Masq, 4), real("10.0.0.8:80", conf.Gate, 1), real("10.0.0.9:80", conf.Gate, 1))
		v.Reals[3].Check = conf.Check{Type: conf.Off}
		v.Reals[4].Check = conf.Check{Type: conf.On}
		v.Quiescent = false
		p := r.pool(v)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, false)
		r.start(p)
		b, err := json.MarshalIndent(p.Detail(), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		want := `{
 "pool": "web.yaml",
 "started": true,
 "repairs": 0,
 "kernel": {"settings": {"expire_quiescent_template": "1"}},
 "services": [
  {
   "name": "10.0.0.1:80 tcp",
   "protocol": "tcp",
   "comment": "shop",
   "scheduler": "wlc",
   "persistent": 600,
   "netmask": 32,
   "quiescent": false,
   "up": 2,
   "in_table": true,
   "reals": [
    {"address":"10.0.0.5:80","forward":"gate","weight":1,"wanted":1,"in_table":1,"state":"up","check":"connect","answer":"HTTP/1.1 200 OK","ok":true,"last_check":"2000-01-01T00:00:00Z","took_ms":1.5,"since":"2000-01-01T00:00:00Z","traffic":0},
    {"address":"10.0.0.6:80","forward":"gate","weight":2,"wanted":-1,"state":"down","check":"connect","answer":"connection refused","ok":false,"last_check":"2000-01-01T00:00:00Z","took_ms":1.5,"since":"2000-01-01T00:00:00Z"},
    {"address":"10.0.0.7:80","forward":"masq","weight":4,"wanted":-1,"state":"unknown","check":"connect","ok":false,"took_ms":0},
    {"address":"10.0.0.8:80","forward":"gate","weight":1,"wanted":-1,"state":"down","check":"off","answer":"not checked: checktype off","ok":false,"took_ms":0},
    {"address":"10.0.0.9:80","forward":"gate","weight":1,"wanted":1,"in_table":1,"state":"up","check":"on","answer":"not checked: checktype on","ok":true,"took_ms":0,"traffic":0}
   ],
   "quorum": "met",
   "needed": 1,
   "sum": 2,
   "fallbacks": [{"address":"127.0.0.1:80","forward":"gate","weight":1,"active":false,"state":"up"}]
  }
 ]
}`
		want = strings.ReplaceAll(want, `"traffic":0`, `"traffic":{"active":0,"inactive":0,"persistent":0,"total":0,"packets_in":0,"packets_out":0,"bytes_in":0,"bytes_out":0}`)
		var a, e any
		if err := errors.Join(json.Unmarshal(b, &a), json.Unmarshal([]byte(want), &e)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, a); d != "" {
			t.Error(d)
		}
	})
}

func TestAddressesAreThoseOfTheServices(t *testing.T) {
	r := newRig(t)
	spec, res := specOf(web(), virtual("10.0.0.1:443"), virtual("[2001:db8::1]:80"), conf.Virtual{Protocol: conf.FWM, FWMark: 5})
	made, err := r.maker.New(r.env(), spec, res)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range made.(resources.Guarded).Addresses() {
		got = append(got, a.String())
	}
	if d := cmp.Diff([]string{"10.0.0.1", "2001:db8::1"}, got); d != "" {
		t.Error(d)
	}
}

func TestAnUnknownPoolIsNamed(t *testing.T) {
	r := newRig(t)
	spec, res := specOf(web())
	res.Pool = "wep.yaml"
	if _, err := r.maker.New(r.env(), spec, res); err == nil || err.Error() != `ldirectord web.yaml: no pool "wep.yaml" in the specification; it has web.yaml` {
		t.Errorf("%v", err)
	}
}

// Health, damage, updates and status at the same time, for the race detector.
func TestEverythingAtOnce(t *testing.T) {
	r := newRig(t)
	v := web()
	spec, res := specOf(v)
	made, err := r.maker.New(r.env(), spec, res)
	if err != nil {
		t.Fatal(err)
	}
	p := made.(*pool)
	ctx, cancel := context.WithCancel(context.Background())
	var wg, setting sync.WaitGroup
	wg.Go(func() { p.Run(ctx) })
	r.checks.waitFor(t, v.Reals[0].Check, v.Reals[1].Check)
	for i := range 2 {
		setting.Go(func() {
			for n := range 300 {
				r.checks.set(v.Reals[i].Check, n%2 == 0)
			}
			r.checks.set(v.Reals[i].Check, true)
		})
	}
	wg.Go(func() {
		for range 100 {
			_ = p.Detail()
			_ = p.Ready()
			_ = p.Addresses()
		}
	})
	for n := range 30 {
		r.start(p)
		if n%3 == 0 {
			if err := p.Update(ctx, spec, res); err != nil {
				t.Error(err)
			}
		}
		if err := p.Monitor(ctx); err != nil {
			t.Error(err)
		}
		r.stop(p)
		r.holds("stopped")
	}
	setting.Wait() // what a check says after Run has ended is not heard
	cancel()
	wg.Wait()
	r.start(p)
	r.holds("in the end", both...)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
