package ipvs

import (
	"context"
	"errors"
	"io"
	"mime/quotedprintable"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/notify"
)

// post is where mails end.
type post struct {
	mu    sync.Mutex // guards mails
	mails []string
}

func (p *post) send(_ context.Context, e conf.Email, m notify.Mail) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, coded, _ := strings.Cut(string(m.Data), "\r\n\r\n")
	text, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(coded)))
	if err != nil {
		return err
	}
	_, body, _ := strings.Cut(string(text), "\r\n\r\n") // node and date
	p.mails = append(p.mails, e.To+": "+strings.ReplaceAll(strings.TrimSpace(body), "\r\n", " | "))
	return nil
}

func (p *post) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.mails
	p.mails = nil
	return m
}

// update hands the pool another version of its services.
func (r *rig) update(p *pool, content conf.Pool) {
	r.t.Helper()
	_, res := specOf()
	if err := p.Update(r.t.Context(), conf.Spec{Pools: map[string]conf.Pool{"web.yaml": content}}, res); err != nil {
		r.t.Fatal(err)
	}
}

func TestTheFallbackAnswersInsteadOfServersWithoutQuorum(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := web()
		v.Quorum = 2
		v.Fallbacks[0].Forward, v.Fallbacks[0].Weight = conf.Masq, 3
		p := r.pool(v)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, true)
		r.start(p)
		r.kernel.take()
		r.checks.set(v.Reals[1].Check, false)
		synctest.Wait()
		r.did("quorum is lost", "-a -t 10.0.0.1:80 -r 127.0.0.1:80 -m -w 3",
			"-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0", "-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 0")
		d := p.Detail().(Detail).Services[0]
		if d.Quorum != QuorumLost || d.Up != 1 || d.Sum != 1 || d.Needed != 2 || d.Active() == nil {
			t.Errorf("%+v", d)
		}
		r.checks.set(v.Reals[1].Check, true)
		synctest.Wait()
		r.did("it is back", "-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1", "-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2",
			"-e -t 10.0.0.1:80 -r 127.0.0.1:80 -m -w 0")
		time.Sleep(partingTime - time.Second)
		synctest.Wait()
		r.did("it ends what it has begun to answer")
		time.Sleep(time.Second)
		synctest.Wait()
		r.did("then it goes", "-d -t 10.0.0.1:80 -r 127.0.0.1:80")
	})
}

func TestAServerComesBackSlowlyAndOthersKeepTheirPaceDuringAnUpdate(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := virtual("10.0.0.1:80", real("10.0.0.5:80", conf.Gate, 100)), virtual("10.0.0.2:80", real("10.0.0.6:80", conf.Gate, 7))
		a.SlowStart = 10 * time.Second
		p := r.pool(a, b)
		r.checks.set(a.Reals[0].Check, true)
		r.checks.set(b.Reals[0].Check, true)
		r.start(p)
		r.holds("up at the start: at once", "-A -t 10.0.0.1:80 -s wlc", "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 100",
			"-A -t 10.0.0.2:80 -s wlc", "-a -t 10.0.0.2:80 -r 10.0.0.6:80 -g -w 7")
		r.checks.set(a.Reals[0].Check, false)
		time.Sleep(time.Second)
		r.kernel.take()
		r.checks.set(a.Reals[0].Check, true)
		synctest.Wait()
		r.did("it begins", "-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1")
		time.Sleep(4900 * time.Millisecond)
		synctest.Wait()
		if n := len(r.kernel.take()); n != 9 {
			t.Errorf("%d writes in 4.9 s", n)
		}
		b.Reals[0].Weight = 8
		r.update(p, conf.Pool{Virtuals: []conf.Virtual{a, b}})
		r.did("the update touches the other service only", "-e -t 10.0.0.2:80 -r 10.0.0.6:80 -g -w 8")
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		r.did("half way", "-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 50")
		if d := p.Detail().(Detail).Services[0].Reals[0]; !d.Rising || d.Wanted != 50 || d.Weight != 100 {
			t.Errorf("%+v", d)
		}
		time.Sleep(6 * time.Second)
		r.kernel.take()
		time.Sleep(time.Minute)
		r.did("at rest")
		r.holds("arrived", "-A -t 10.0.0.1:80 -s wlc", "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 100",
			"-A -t 10.0.0.2:80 -s wlc", "-a -t 10.0.0.2:80 -r 10.0.0.6:80 -g -w 8")
		if d := p.Detail().(Detail); d.Repairs != 0 {
			t.Errorf("%d repairs: our own change was taken for damage", d.Repairs)
		}
	})
}

func TestOrdersOfOperators(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a, b := web(), virtual("10.0.0.2:8080", real("10.0.0.5:80", conf.Masq, 4))
		p := r.pool(a, b)
		for _, real := range a.Reals {
			r.checks.set(real.Check, true)
		}
		r.start(p)
		r.kernel.take()
		r.maker.SetOrders(map[netip.AddrPort]Order{ap("10.0.0.5:80"): {Action: Drain, By: "alice", Reason: "new kernel"}})
		synctest.Wait()
		r.did("in every service that has it", "-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0", "-e -t 10.0.0.2:8080 -r 10.0.0.5:80 -m -w 0")
		d := p.Detail().(Detail)
		if got := d.Services[0].Reals[0]; got.State != StateUp || got.Order == nil || got.Reason != "drained by alice: new kernel" {
			t.Errorf("%+v", got)
		}
		r.update(p, conf.Pool{Virtuals: []conf.Virtual{a, b}})
		r.did("an update changes nothing of it")
		// For port 0: every port of the address.
		r.maker.SetOrders(map[netip.AddrPort]Order{ap("10.0.0.6:0"): {Action: SetWeight, Weight: 9}})
		synctest.Wait()
		r.did("another", "-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1", "-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 9", "-e -t 10.0.0.2:8080 -r 10.0.0.5:80 -m -w 4")
		r.maker.SetOrders(nil)
		synctest.Wait()
		r.did("it is taken back", "-e -t 10.0.0.1:80 -r 10.0.0.6:80 -g -w 2")
		if p.Detail().(Detail).Repairs != 0 {
			t.Error("an order was taken for damage")
		}
		r.stop(p)
		r.maker.SetOrders(map[netip.AddrPort]Order{ap("10.0.0.5:80"): {Action: Disable}})
		other := r.pool(virtual("10.0.0.9:80", real("10.0.0.5:80", conf.Gate, 1)))
		r.start(other)
		r.holds("a pool that is made later", "-A -t 10.0.0.9:80 -s wlc", "-a -t 10.0.0.9:80 -r 10.0.0.5:80 -g -w 0")
		if got := other.Detail().(Detail).Services[0].Reals[0]; got.State != StateDown || !got.Held() || !strings.Contains(got.Reason, "disabled") {
			t.Errorf("%+v", got)
		}
	})
}

func TestAServerRemovedByHandComesBackWithWeightZeroUntilItsNextCheck(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := web()
		v.ReaddQuiescent = true
		p := r.pool(v)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, true)
		r.start(p)
		r.kernel.take()
		time.Sleep(300 * time.Millisecond)
		r.kernel.mu.Lock()
		e := r.kernel.services[KeyOf(v)]
		e.Dests = e.Dests[1:]
		r.kernel.mu.Unlock()
		time.Sleep(time.Second)
		r.did("found", "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 0")
		time.Sleep(2 * time.Second)
		r.did("it waits")
		if d := p.Detail().(Detail); !d.Services[0].Reals[0].Removed {
			t.Errorf("%+v", d.Services[0].Reals[0])
		}
		r.checks.set(v.Reals[0].Check, true)
		time.Sleep(2 * time.Second)
		r.did("checked", "-e -t 10.0.0.1:80 -r 10.0.0.5:80 -g -w 1")
	})
}

func TestMails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		box := &post{}
		r.maker.cfg.Mail = box.send
		v := web()
		v.Name = "shop"
		v.Email = conf.Email{To: "web@example.org", Every: time.Minute, Status: "running"}
		quiet := virtual("10.0.0.2:80", v.Reals[0])
		quiet.Email = conf.Email{To: "nobody@example.org", Status: "none"}
		content := conf.Pool{Virtuals: []conf.Virtual{v, quiet}, Email: conf.Email{To: "ops@example.org", Status: "starting,stopping"}}
		p := r.pool()
		r.update(p, content)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, false)
		time.Sleep(time.Hour)
		expect := func(what string, want ...string) {
			t.Helper()
			time.Sleep(2 * time.Second)
			if d := cmp.Diff(want, box.take()); d != "" {
				t.Errorf("%s: (-want +got)\n%s", what, d)
			}
		}
		expect("a standby tells nothing")
		r.start(p)
		expect("started", "ops@example.org: pool web.yaml has been started: 2 virtual services | real server 10.0.0.6:80 is down (service shop, 10.0.0.1:80 tcp)")
		r.update(p, content)
		expect("nobody wants to hear of reloading")
		r.checks.set(v.Reals[0].Check, false)
		expect("one fails", "web@example.org: real server 10.0.0.5:80 is down (service shop, 10.0.0.1:80 tcp): connection refused | "+
			"service shop, 10.0.0.1:80 tcp has no quorum: its servers weigh 0, it needs 1 | service shop, 10.0.0.1:80 tcp: the fallback 127.0.0.1:80 answers")
		time.Sleep(56 * time.Second)
		if got := box.take(); len(got) != 1 || !strings.Contains(got[0], "10.0.0.6:80 is still down") {
			t.Errorf("%q", got)
		}
		r.checks.set(v.Reals[0].Check, true)
		expect("it is back", "web@example.org: real server 10.0.0.5:80 is up again (service shop, 10.0.0.1:80 tcp) | service shop, 10.0.0.1:80 tcp has quorum again")
		r.stop(p)
		expect("stopped", "ops@example.org: pool web.yaml is stopping: 2 virtual services")
		r.checks.set(v.Reals[0].Check, false)
		expect("a standby tells nothing")
	})
}

func TestAMonitorfileHasALineForEachChange(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := web()
		v.MonitorFile = filepath.Join(t.TempDir(), "monitor")
		v.Reals[0].Check.Type, v.Reals[0].Check.Service, v.Reals[0].Check.Request = conf.Negotiate, "http", "/.test.html"
		p := r.pool(v)
		r.checks.set(v.Reals[0].Check, true)
		r.checks.set(v.Reals[1].Check, true)
		r.start(p)
		time.Sleep(time.Minute)
		r.checks.set(v.Reals[0].Check, false)
		time.Sleep(time.Minute)
		r.checks.set(v.Reals[0].Check, true)
		time.Sleep(time.Minute)
		r.stop(p)
		time.Sleep(time.Minute)
		b, err := os.ReadFile(v.MonitorFile)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSpace(string(b)), "\n")
		head := time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC).Local().Format("[" + time.ANSIC + "]")
		if len(got) != 4 || !strings.HasPrefix(got[2], head+" [") || !strings.HasSuffix(got[2], "] negotiate http tcp 10.0.0.5 80 1 gate /.test.html [down] connection refused") ||
			!strings.HasSuffix(got[3], "[up] -") {
			t.Errorf("%q", got)
		}
	})
}

// What programs and directories do, the kernel's own clock measures: no bubble.
func runs(t *testing.T, r *rig, content conf.Pool) *pool {
	t.Helper()
	_, res := specOf()
	made, err := r.maker.New(r.env(), conf.Spec{Pools: map[string]conf.Pool{"web.yaml": content}}, res)
	if err != nil {
		t.Fatal(err)
	}
	p := made.(*pool)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	var all []conf.Check
	for c := range p.watched {
		all = append(all, c)
	}
	r.checks.waitFor(t, all...)
	return p
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestProgramsAreToldInOrder(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	path := filepath.Join(dir, "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho \"$KEEPBEAT_POOL $KEEPBEAT_SERVICE $KEEPBEAT_EPOCH: $*\" >>"+out+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	v := web()
	v.Name = "shop"
	v.QuorumUp, v.QuorumDown, v.FallbackCommand, v.Omega = path, path, path, true
	v.Reals[0].NotifyUp, v.Reals[0].NotifyDown = path, path
	p := runs(t, r, conf.Pool{Virtuals: []conf.Virtual{v}})
	p.env.Epoch = func() uint64 { return 7 }
	written := ""
	expect := func(what string, want ...string) {
		t.Helper()
		for _, w := range want {
			written += "web.yaml shop 7: " + w + "\n"
		}
		eventually(t, what, func() bool {
			b, err := os.ReadFile(out)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			return string(b) == written
		})
	}
	r.checks.set(v.Reals[0].Check, true)
	r.start(p)
	expect("started", "10.0.0.1:80 10.0.0.5:80 up 1", "stop 10.0.0.1:80 tcp shop", "10.0.0.1:80 up 1 1")
	r.checks.set(v.Reals[1].Check, false)
	r.checks.set(v.Reals[0].Check, false)
	expect("all fail", "10.0.0.1:80 10.0.0.5:80 down 1", "start 10.0.0.1:80 tcp shop", "10.0.0.1:80 down 0 1")
	r.checks.set(v.Reals[1].Check, true)
	expect("one is back", "stop 10.0.0.1:80 tcp shop", "10.0.0.1:80 up 2 1")
	r.stop(p)
	expect("omega", "10.0.0.1:80 down 0 1")
}

func TestFilesInMaintenancedir(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(t.TempDir(), "maintenance")
	v := web()
	v.Reals[1].Host = "Web2.example.org"
	content := conf.Pool{Virtuals: []conf.Virtual{v}, MaintenanceDir: dir}
	p := runs(t, r, content)
	r.checks.set(v.Reals[0].Check, true)
	r.checks.set(v.Reals[1].Check, true)
	r.start(p)
	detail := func() Detail { return p.Detail().(Detail) }
	eventually(t, "it is not said that the directory is missing", func() bool { return strings.Contains(detail().Blind, dir+" is not there") })
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the directory is not seen", func() bool { return detail().Blind == "" })
	weights := func(want ...int) func() bool {
		return func() bool {
			var got []int
			for _, d := range r.kernel.dests(KeyOf(v)) {
				got = append(got, int(d.Weight))
			}
			return cmp.Equal(want, got)
		}
	}
	touch := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"somebody-elses", "10.0.0.55", "10.0.0.5:81", strings.Repeat("x", 255), "\xff\n"} {
		touch(name)
	}
	if p.isOurs("somebody-elses") || !p.isOurs("WEB2") {
		t.Error("files of others are heard, or ours are not")
	}
	for name, want := range map[string][]int{
		"10.0.0.5:80": {0, 2}, "10.0.0.5": {0, 2},
		"web2.example.org": {1, 0}, "web2.example.org:80": {1, 0}, "WEB2": {1, 0}, "web2:80": {1, 0},
	} {
		touch(name)
		eventually(t, name+" does not take its server out", weights(want...))
		for _, d := range detail().Services[0].Reals {
			if d.State == StateDown && (!strings.EqualFold(d.File, name) || !strings.Contains(d.Reason, "maintenance")) {
				t.Errorf("%+v", d)
			}
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" is gone, its server not back", weights(1, 2))
	}
	// Another directory, and one that is there when the pool begins.
	content.MaintenanceDir = t.TempDir()
	if err := os.WriteFile(filepath.Join(content.MaintenanceDir, "10.0.0.6"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.update(p, content)
	eventually(t, "the other directory is not seen", weights(1, 0))
	content.MaintenanceDir = ""
	r.update(p, content)
	eventually(t, "none", weights(1, 2))
	if n := r.log.count("is not there; it is waited for"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestFileNames(t *testing.T) {
	r := real("[2001:db8::5]:80", conf.Gate, 1)
	r.Host = "web1"
	if d := cmp.Diff([]string{"[2001:db8::5]:80", "2001:db8::5", "[2001:db8::5]", "web1:80", "web1"}, fileNames(r)); d != "" {
		t.Error(d)
	}
	r = real("10.0.0.5:80", conf.Gate, 1)
	r.Host = "a.b."
	if d := cmp.Diff([]string{"10.0.0.5:80", "10.0.0.5", "a.b.:80", "a.b.", "a:80", "a"}, fileNames(r)); d != "" {
		t.Error(d)
	}
}

func TestWants(t *testing.T) {
	for status, want := range map[string]string{
		"": "starting running stopping reloading", "all": "starting running stopping reloading", "none": "",
		"running": "running", "starting, stopping": "starting stopping",
	} {
		var got []string
		for _, s := range []string{starting, running, stopping, reloading} {
			if wants(conf.Email{To: "a@example.org", Status: status}, s) {
				got = append(got, s)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q", status, got)
		}
	}
	if wants(conf.Email{}, running) {
		t.Error("a mail to nobody")
	}
}

// A program that hangs and a mail that is not taken hold nothing up.
func TestTellingHoldsNothingUp(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	r.maker.cfg.Mail = func(ctx context.Context, _ conf.Email, _ notify.Mail) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "hangs")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nsleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	v := web()
	v.Email = conf.Email{To: "web@example.org"}
	v.Reals[0].NotifyUp, v.Reals[0].NotifyDown = path, path
	p := runs(t, r, conf.Pool{Virtuals: []conf.Virtual{v}})
	r.checks.set(v.Reals[0].Check, true)
	r.start(p)
	for n := range 50 {
		up := n%2 == 1
		r.checks.set(v.Reals[0].Check, up)
		eventually(t, "the table does not follow", func() bool {
			d := r.kernel.dests(KeyOf(v))
			return len(d) > 0 && (d[0].Weight > 0) == up
		})
	}
	r.stop(p)
	close(release)
}

func (k *fakeKernel) dests(key Key) []Dest {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.services[key]; e != nil {
		return append([]Dest(nil), e.Dests...)
	}
	return nil
}
