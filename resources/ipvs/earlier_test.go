package ipvs

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// daemon makes a pool that runs until end, as its daemon does.
func (r *rig) daemon(content conf.Pool) (p *pool, end func()) {
	r.t.Helper()
	spec, res := specOf()
	spec.Pools["web.yaml"] = content
	made, err := r.maker.New(r.env(), spec, res)
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

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestAPlannedRestartIsNoNews(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		box := &post{}
		file := filepath.Join(t.TempDir(), "monitor")
		v := web()
		v.MonitorFile = file
		v.Email = conf.Email{To: "web@example.org"}
		all := conf.Pool{Virtuals: []conf.Virtual{v}, Email: conf.Email{To: "ops@example.org"}}
		r.maker.cfg.Mail = box.send
		p, end := r.daemon(all)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, false)
		raw, err := p.Record()
		if err != nil {
			t.Fatal(err)
		}
		r.start(p)
		time.Sleep(2 * time.Second)
		if len(box.take()) != 1 {
			t.Error("no mail about the start")
		}
		end()
		told := content(t, file)

		r.after()
		r.maker.cfg.Mail = box.send
		p, end = r.daemon(all)
		defer end()
		if err := p.Adopt(raw); err != nil {
			t.Fatal(err)
		}
		r.kernel.take()
		r.start(p)
		time.Sleep(2 * time.Second)
		r.did("the next daemon changes nothing")
		if got := box.take(); got != nil {
			t.Errorf("mailed: %q", got)
		}
		if got := content(t, file); got != told {
			t.Errorf("monitorfile: %s, before %s", got, told)
		}
		r.checks.set(v.Reals[1].Check, true)
		time.Sleep(2 * time.Second)
		if got := box.take(); len(got) != 1 {
			t.Errorf("mailed of what has happened since: %q", got)
		}
		r.stop(p)
		r.start(p)
		time.Sleep(2 * time.Second)
		if got := box.take(); len(got) != 1 {
			t.Errorf("mailed of a stop and a start: %q", got)
		}
	})
}

// A version may be made while the daemon is away.
func TestAServiceThatWasDroppedWhileTheDaemonWasAwayGoes(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b, c := web(), virtual("10.0.0.2:80", real("10.0.0.7:80", conf.Gate, 1)), virtual("10.0.0.3:80", real("10.0.0.8:80", conf.Gate, 1))
		p, end := r.daemon(conf.Pool{Virtuals: []conf.Virtual{a, b, c}})
		raw, err := p.Record()
		if err != nil {
			t.Fatal(err)
		}
		r.start(p)
		end()

		r.after()
		// By now another pool serves c.
		r.kernel.take()
		other, res := specOf()
		other.Pools["other.yaml"] = conf.Pool{Virtuals: []conf.Virtual{c}}
		res.Pool = "other.yaml"
		q, err := r.maker.New(r.env(), other, res)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		if err := q.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		p, end = r.daemon(conf.Pool{Virtuals: []conf.Virtual{a}})
		defer end()
		if err := p.Adopt(raw); err != nil {
			t.Fatal(err)
		}
		again, err := p.Record()
		if err != nil {
			t.Fatal(err)
		}
		r.start(p)
		r.did("the next daemon", "-D -t 10.0.0.2:80")
		if rec, err := parseRecord(again); err != nil || len(rec.Services) != 3 {
			t.Errorf("%v; until it is gone the journal has to know it: %s", err, again)
		}
		if again, err = p.Record(); err != nil {
			t.Fatal(err)
		}
		if rec, err := parseRecord(again); err != nil || len(rec.Services) != 1 {
			t.Errorf("%v; afterwards: %s", err, again)
		}
	})
}

// What served when the daemon came is no sign years later.
func TestWhatWasFoundOnceSaysNothingOfALaterStart(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := web()
		r.kernel.put(Wanted([]conf.Virtual{v}, upIf("10.0.0.6:80"))...)
		p := r.pool(v)
		r.start(p)
		r.stop(p)
		r.kernel.take()
		r.start(p)
		r.did("nobody has checked it", "-A -t 10.0.0.1:80 -s wlc", "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0",
			"-a -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0", "-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 1")
	})
}
