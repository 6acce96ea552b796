package fencing

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
)

// played is a device that does what a test says.
type played struct {
	name string
	act_ func(context.Context, job) error
	sees func(context.Context) error
}

func (p played) act(ctx context.Context, j job) error { return p.act_(ctx, j) }
func (p played) look(ctx context.Context, _ []conf.FenceTarget) error {
	if p.sees == nil {
		return nil
	}
	return p.sees(ctx)
}
func (p played) problems(context.Context) []Problem { return nil }
func (p played) program() string                    { return "played " + p.name }

// believed says of every node that it resets itself.
func believed(string, time.Duration) error { return nil }

// story is a Fencer on node a whose agents are played; the transcript has the time of each act.
type story struct {
	*Fencer
	mu    sync.Mutex // guards lines
	began time.Time
	lines []string
}

func newStory(spec *conf.Fencing, act func(ctx context.Context, device string, j job) error) *story {
	s := &story{Fencer: New(Config{Node: "a", Rand: rand.NewPCG(1, 2), Resets: believed}), began: time.Now()}
	s.open = func(d conf.FenceDevice) (device, error) {
		if d.Type != conf.FenceAgent {
			return s.device(d)
		}
		return played{name: d.Name, act_: func(ctx context.Context, j job) error {
			s.say("%s %s %s%s", d.Name, j.action, j.node, strings.TrimRight(" "+j.port, " "))
			return act(ctx, d.Name, j)
		}}, nil
	}
	s.Configure(spec)
	return s
}

func (s *story) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf("%s: ", time.Since(s.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (s *story) told(t *testing.T, want string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(strings.TrimSpace(strings.ReplaceAll(want, "\t", "")), strings.Join(s.lines, "\n")); diff != "" {
		t.Errorf("what happened (-want +got):\n%s", diff)
	}
}

// dev is an agent for node b.
func dev(name string) conf.FenceDevice {
	return conf.FenceDevice{
		Name: name, Type: conf.FenceAgent, Program: "fence_played", Targets: []conf.FenceTarget{{Node: "b", Port: "7"}},
		Timeout: 10 * time.Second, Retries: 1,
	}
}

func works(context.Context, string, job) error { return nil }
func hangs(ctx context.Context, _ string, _ job) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestFenceWaitsAndTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := dev("slow")
		slow.Delay = 3 * time.Second
		good := dev("good")
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{slow, good}}, func(ctx context.Context, device string, j job) error {
			if device == "slow" {
				return hangs(ctx, device, j)
			}
			return nil
		})
		var notes []string
		out, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceReboot, func(a Attempt) {
			notes = append(notes, fmt.Sprintf("%d %s by %s took %s certain %t %q", a.Level, a.Device, a.By, a.Took, a.Certain, a.Error))
		})
		if err != nil || !out.Done {
			t.Errorf("outcome %+v, %v", out, err)
		}
		s.told(t, `3s: slow reboot b 7
			14s: slow reboot b 7
			24s: good reboot b 7`)
		want := []string{
			`1 slow by a took 10s certain false "not done within 10s"`,
			`1 slow by a took 10s certain false "not done within 10s"`,
			`2 good by a took 0s certain true ""`,
		}
		if diff := cmp.Diff(want, notes); diff != "" {
			t.Errorf("notes (-want +got):\n%s", diff)
		}
	})
}

func TestFenceThatFailsSaysWhyOfEachLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{dev("x"), dev("y")}}, func(_ context.Context, device string, _ job) error {
			return errors.New(device + " is unplugged")
		})
		out, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil)
		want := "b was not fenced (off): level 1, device x, off: x is unplugged; level 2, device y, off: y is unplugged"
		if out.Done || err == nil || err.Error() != want {
			t.Errorf("done %t, %v\nwant %s", out.Done, err, want)
		}
	})
}

func TestRandomDelayComesFromTheSeed(t *testing.T) {
	first := func(seed uint64) (d time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			s := newStory(&conf.Fencing{RandomDelay: time.Minute, Devices: []conf.FenceDevice{dev("x")}}, works)
			s.rand = rand.New(rand.NewPCG(seed, 0))
			began := time.Now()
			if _, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil); err != nil {
				t.Error(err)
			}
			d = time.Since(began)
		})
		return d
	}
	one, same, other := first(1), first(1), first(2)
	if one != same || one == other || one <= 0 || one >= time.Minute {
		t.Errorf("delays %s, %s, %s", one, same, other)
	}
}

func TestFenceEndsWithItsContextAndIsNotCertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{dev("x"), dev("y")}}, hangs)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		out, err := s.Fence(ctx, Target{Node: "b"}, conf.FenceOff, nil)
		if out.Done || !errors.Is(err, context.DeadlineExceeded) || len(out.Attempts) != 1 {
			t.Errorf("outcome %+v, %v", out, err)
		}
		s.told(t, `0s: x off b 7`)
	})
}

func TestAChangedSpecificationLeavesAFencingAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *story
		s = newStory(&conf.Fencing{Devices: []conf.FenceDevice{dev("x"), dev("y")}}, func(_ context.Context, device string, _ job) error {
			if device == "x" {
				s.Configure(nil)
				return final{errors.New("gone")}
			}
			return nil
		})
		if out, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil); err != nil || !out.Done {
			t.Errorf("outcome %+v, %v", out, err)
		}
		if _, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil); !errors.Is(err, ErrNoDevice) {
			t.Errorf("without devices: %v", err)
		}
	})
}

func TestADeviceDoesOneThingAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dev("pdu")
		d.Targets = append(d.Targets, conf.FenceTarget{Node: "c", Port: "8"})
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{d, dev("other")}}, func(ctx context.Context, _ string, _ job) error {
			return sleep(ctx, 2*time.Second)
		})
		var all sync.WaitGroup
		for i, node := range []string{"b", "c"} {
			all.Go(func() {
				_ = sleep(t.Context(), time.Duration(i)*time.Second)
				if out, err := s.Fence(t.Context(), Target{Node: node}, conf.FenceOff, nil); err != nil || !out.Done {
					t.Errorf("%s: %+v, %v", node, out, err)
				}
			})
		}
		all.Wait()
		s.told(t, `0s: pdu off b 7
			2s: pdu off c 8`)
	})
}

func TestAFencingEndsALookThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{dev("pdu")}}, works)
		acts := s.open
		s.open = func(d conf.FenceDevice) (device, error) {
			p, err := acts(d)
			x := p.(played)
			x.sees = func(ctx context.Context) error { return hangs(ctx, "", job{}) }
			return x, err
		}
		var test []DeviceStatus
		var all sync.WaitGroup
		all.Go(func() { test, _ = s.Test(t.Context(), "pdu") })
		_ = sleep(t.Context(), 2*time.Second)
		if _, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceOff, nil); err != nil {
			t.Error(err)
		}
		all.Wait()
		s.told(t, `2s: pdu off b 7`)
		if len(test) != 1 || test[0].Error != "not looked at: a fencing is under way" {
			t.Errorf("the look says %+v", test)
		}
		if st := s.Status(); st[0].Error != "" {
			t.Errorf("a look that was broken off counts as an answer: %+v", st)
		}
	})
}

func TestWatchdogCountsFromTheLastSignOfLife(t *testing.T) {
	for _, c := range []struct {
		silent, want time.Duration
	}{{0, 20 * time.Second}, {15 * time.Second, 5 * time.Second}, {time.Hour, 0}} {
		synctest.Test(t, func(t *testing.T) {
			s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{{
				Name: "dog", Type: conf.FenceWatchdog, Timeout: 20 * time.Second, Targets: []conf.FenceTarget{{Node: "b"}},
			}}}, works)
			out, err := s.Fence(t.Context(), Target{Node: "b", Silent: c.silent}, conf.FenceReboot, nil)
			if took := time.Since(s.began); err != nil || !out.Done || took != c.want {
				t.Errorf("silent for %s: took %s and not %s: %+v, %v", c.silent, took, c.want, out, err)
			}
			if _, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceOn, nil); err == nil {
				t.Error("a watchdog has switched on")
			}
		})
	}
}

func TestManualWaitsForAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{{
			Name: "hand", Type: conf.FenceManual, Timeout: time.Hour, Targets: []conf.FenceTarget{{Node: "b"}, {Node: "c"}},
		}}}, works)
		var all sync.WaitGroup
		all.Go(func() {
			out, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceReboot, nil)
			if took := time.Since(s.began); err != nil || !out.Done || took != 90*time.Second || out.Attempts[0].Device != "hand" {
				t.Errorf("took %s: %+v, %v", took, out, err)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		all.Go(func() {
			if out, err := s.Fence(ctx, Target{Node: "c"}, conf.FenceOff, nil); err == nil || out.Done {
				t.Errorf("c: %+v, %v", out, err)
			}
		})
		_ = sleep(t.Context(), 90*time.Second)
		if w := s.Waiting(); len(w) != 2 || w[0].Device != "hand" || !w[0].Since.Equal(s.began) {
			t.Errorf("waiting: %+v", w)
		}
		if err := s.Confirm("d"); err == nil || !strings.Contains(err.Error(), "but of b, c") {
			t.Errorf("of another: %v", err)
		}
		if err := s.Confirm("b"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if w := s.Waiting(); len(w) != 1 || w[0].Node != "c" {
			t.Errorf("still waiting: %+v", w)
		}
		cancel()
		all.Wait()
		if err := s.Confirm("c"); err == nil || len(s.Waiting()) != 0 {
			t.Errorf("nobody waits: %v, %+v", err, s.Waiting())
		}
	})
}

func TestManualGivesUpAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{
			{Name: "hand", Type: conf.FenceManual, Timeout: time.Minute, Targets: []conf.FenceTarget{{Node: "b"}}}, dev("ipmi"),
		}}, works)
		out, err := s.Fence(t.Context(), Target{Node: "b"}, conf.FenceReboot, nil)
		if err != nil || out.Attempts[0].Error != "nobody has confirmed: not done within 1m0s" {
			t.Errorf("%+v, %v", out, err)
		}
		s.told(t, "1m0s: ipmi reboot b 7")
	})
}

func TestRunLooksAtEachDeviceNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := dev("x"), dev("y")
		x.MonitorInterval, y.MonitorInterval = 10*time.Second, time.Minute
		var s *story
		answer := map[string]error{}
		looks := map[string][]time.Duration{}
		s = newStory(&conf.Fencing{Devices: []conf.FenceDevice{x, y}}, works)
		s.open = func(d conf.FenceDevice) (device, error) {
			return played{name: d.Name, sees: func(context.Context) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				looks[d.Name] = append(looks[d.Name], time.Since(s.began))
				return answer[d.Name]
			}}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		_ = sleep(ctx, 61*time.Second)
		synctest.Wait()
		s.mu.Lock()
		if n := len(looks["x"]); n < 5 || n > 7 || looks["x"][0] >= 10*time.Second {
			t.Errorf("looks at x: %v", looks["x"])
		}
		for i := 1; i < len(looks["x"]); i++ {
			if gap := looks["x"][i] - looks["x"][i-1]; gap < 9*time.Second || gap > 11*time.Second {
				t.Errorf("between two looks: %s", gap)
			}
		}
		first := looks["y"][0]
		answer["y"] = errors.New("no route to host")
		s.mu.Unlock()
		if st := s.Status(); st[1].Error != "" || !st[1].Checked.Equal(s.began.Add(first)) || st[0].Kind != "agent fence_played" {
			t.Errorf("status %+v", st)
		}
		// Another interval for x: y keeps its timer and its error.
		_ = sleep(ctx, time.Minute)
		x.MonitorInterval = 0
		s.Configure(&conf.Fencing{Devices: []conf.FenceDevice{y, x}})
		synctest.Wait()
		s.mu.Lock()
		clear(looks)
		s.mu.Unlock()
		st := s.Status()
		if st[0].Name != "y" || st[0].Error != "no route to host" || !st[1].Checked.IsZero() {
			t.Errorf("after the change: %+v", st)
		}
		_ = sleep(ctx, 67*time.Second)
		synctest.Wait()
		s.mu.Lock()
		if len(looks["x"]) != 0 || len(looks["y"]) != 1 {
			t.Errorf("looks after the change: %v", looks)
		}
		s.mu.Unlock()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestWhatADeviceDidLastIsItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer, done error
		s := newStory(&conf.Fencing{Devices: []conf.FenceDevice{dev("x")}}, works)
		s.open = func(d conf.FenceDevice) (device, error) {
			return played{
				name: d.Name, sees: func(context.Context) error { return answer },
				act_: func(context.Context, job) error { return done },
			}, nil
		}
		fence := func() { _, _ = s.Fence(t.Context(), Target{Node: "b"}, conf.FenceReboot, nil) }
		test := func() {
			if _, err := s.Test(t.Context(), "x"); err != nil {
				t.Error(err)
			}
		}
		busy, refused := errors.New("session in use"), errors.New("the outlet is locked")
		for _, c := range []struct {
			what string
			do   func()
			want string
		}{
			{"a test that fails", func() { answer = busy; test() }, busy.Error()},
			{"a fencing that fails says nothing of whether it answers", func() { done = refused; fence() }, busy.Error()},
			{"a fencing that succeeds", func() { done = nil; fence() }, ""},
			{"and one that fails after it", func() { done = refused; fence() }, ""},
			{"a test that fails again", test, busy.Error()},
			{"a test that succeeds", func() { answer = nil; test() }, ""},
		} {
			c.do()
			if got := s.Status()[0].Error; got != c.want {
				t.Errorf("%s: status says %q, want %q", c.what, got, c.want)
			}
			_ = sleep(t.Context(), time.Second)
		}
	})
}

func TestWhoMayOperate(t *testing.T) {
	d := dev("x")
	d.Targets = append(d.Targets, conf.FenceTarget{Node: "a"})
	only := dev("x")
	only.RunOn = []string{"c", "d"}
	mine := dev("x")
	mine.RunOn = []string{"a"}
	for _, c := range []struct {
		name string
		spec *conf.Fencing
		node string
		role conf.Role
		want string // of the error
	}{
		{"a director by default", &conf.Fencing{Devices: []conf.FenceDevice{d}}, "b", conf.Director, ""},
		{"no node itself", &conf.Fencing{Devices: []conf.FenceDevice{d}}, "a", conf.Director, "a node does not fence itself"},
		{"no witness by default", &conf.Fencing{Devices: []conf.FenceDevice{d}}, "b", conf.Witness, "it is operated by directors, and this is a witness"},
		{"no witness that is named", &conf.Fencing{Devices: []conf.FenceDevice{mine}}, "b", conf.Witness, "it is operated by directors, and this is a witness"},
		{"a director that is named", &conf.Fencing{Devices: []conf.FenceDevice{mine}}, "b", conf.Director, ""},
		{"nobody but run_on", &conf.Fencing{Devices: []conf.FenceDevice{only}}, "b", conf.Director, "it is operated by c, d only (run_on)"},
		{"no device", &conf.Fencing{}, "b", conf.Director, "no fencing device fences b"},
		{"no specification", nil, "b", conf.Director, "no fencing device fences b"},
		{"a device that is not there", &conf.Fencing{Topology: map[string][][]string{"b": {{"y"}}}}, "b", conf.Director, "device y: there is none of that name"},
		{"a second level is enough", &conf.Fencing{Devices: []conf.FenceDevice{only, {Name: "hand", Type: conf.FenceManual, Targets: only.Targets}}}, "b", conf.Director, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := New(Config{Node: "a", Nodes: []conf.Node{{Name: "a", Role: c.role}}, AgentDir: t.TempDir()})
			writeProgram(t, f.cfg.AgentDir+"/fence_played", "#!/bin/sh\nexit 0\n")
			f.Configure(c.spec)
			err := f.Can(c.node)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Can says %v, and not %q", err, c.want)
			}
			if _, err := f.Fence(t.Context(), Target{Node: c.node}, conf.FenceOff, nil); !errors.Is(err, ErrNoDevice) {
				t.Errorf("Fence says %v", err)
			}
		})
	}
}

func TestPlanIsInWords(t *testing.T) {
	f := New(Config{Node: "a", AgentDir: t.TempDir(), Resets: believed})
	writeProgram(t, f.cfg.AgentDir+"/fence_played", "#!/bin/sh\nexit 0\n")
	left, right, away := dev("left"), dev("right"), dev("away")
	left.Delay, right.Retries, away.RunOn = 5*time.Second, 0, []string{"c"}
	f.Configure(&conf.Fencing{
		RandomDelay: 2 * time.Second,
		Devices: []conf.FenceDevice{
			left, right, away,
			{Name: "dog", Type: conf.FenceWatchdog, Timeout: 20 * time.Second, Targets: left.Targets},
			{Name: "hand", Type: conf.FenceManual, Timeout: time.Hour, Targets: left.Targets},
		},
		Topology: map[string][][]string{"b": {{"away"}, {"left", "right"}, {"left"}, {"dog"}, {"hand"}}},
	})
	want := `wait at random, up to 2s
level 1: cannot be done from here: device away: it is operated by c only (run_on)
level 2: device left (agent fence_played, as 7): off after 5s, at most 2 tries of 10s, 1s apart; and device right (agent fence_played, as 7): off, one try of at most 10s; then on with all of them
level 3: device left (agent fence_played, as 7): reboot (or off, where it has no reboot) after 5s, at most 2 tries of 10s, 1s apart
level 4: device dog: wait until b has been silent for 20s, when its watchdog has reset it
level 5: device hand: wait up to 1h0m0s until a person says: keepbeat fence confirm b`
	if diff := cmp.Diff(want, strings.Join(f.Plan("b", conf.FenceReboot), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := strings.Join(f.Plan("z", conf.FenceOff), "\n"); got != "nothing: no fencing device fences z" {
		t.Error(got)
	}
}
