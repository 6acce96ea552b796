package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/api"
	"github.com/keepbeat/keepbeat/cluster/consensus"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// fakeDaemon is a node that answers as it is told.
type fakeDaemon struct {
	api.Fencer // not asked here
	api.NodeChanger
	mu      sync.Mutex // guards what follows
	boot    string
	state   string
	witness bool
	err     error
	moved   []cluster.Moved
	changes cluster.Changes
	groups  []cluster.GroupStatus
	reals   []cluster.RealOrdered
	was     *conf.RealOrder // what the server was ordered before
	asked   []string
	restart func()
	keys    []cluster.NodeKeys
	change  cluster.KeyChange
	cost    string // of a stop
}

func (d *fakeDaemon) ask(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf(format, args...))
}

func (d *fakeDaemon) Name() string   { return "director1" }
func (d *fakeDaemon) Director() bool { return !d.witness }
func (d *fakeDaemon) LocalStatus() cluster.LocalStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	return cluster.LocalStatus{Node: "director1", Boot: d.boot, Version: "v2"}
}
func (d *fakeDaemon) Status(context.Context) cluster.Status {
	local := d.LocalStatus()
	d.mu.Lock()
	defer d.mu.Unlock()
	return cluster.Status{
		Cluster: "test", Node: "director1", Time: time.Now(), Trouble: []string{}, Leader: "director1", Quorum: true, Groups: d.groups,
		Nodes: []cluster.NodeStatus{
			{Name: "director1", Role: "director", State: d.state, Here: &local},
			{Name: "director2", Role: "director", State: "down", Links: []cluster.LinkStatus{{Link: "bcast eth1", State: "up"}, {Link: "bcast eth2", State: "down"}}},
		},
	}
}
func (d *fakeDaemon) Why(_ context.Context, group string) (cluster.Why, error) {
	return cluster.Why{Group: cluster.GroupStatus{Name: group, Owner: "director1", State: "active"}, Wanted: "director1", Because: "it is the first of prefer"}, d.err
}
func (d *fakeDaemon) History(group string) ([]state.Decision, error) {
	return []state.Decision{{At: time.Now(), Group: group, Text: "director1 -> director2"}}, d.err
}
func (d *fakeDaemon) Standby(ctx context.Context, which cluster.Which, to string) ([]cluster.Moved, error) {
	d.ask("standby %v %s%s", which, to, marks(ctx))
	return d.moved, d.err
}
func (d *fakeDaemon) Takeover(_ context.Context, which cluster.Which) ([]cluster.Moved, error) {
	d.ask("takeover %v", which)
	return d.moved, d.err
}
func (d *fakeDaemon) Settled(context.Context, []cluster.Moved) error { d.ask("settled"); return nil }
func (d *fakeDaemon) Apply(ctx context.Context, base uint64, dry bool) (cluster.Changes, error) {
	d.ask("apply %d %t%s", base, dry, strings.ReplaceAll(marks(ctx), ", dry", ""))
	return d.changes, d.err
}
func (d *fakeDaemon) PrepareRestart(context.Context) error    { return d.err }
func (d *fakeDaemon) StopCost() string                        { return d.cost }
func (d *fakeDaemon) Keys(context.Context) []cluster.NodeKeys { return d.keys }
func (d *fakeDaemon) AddKey(_ context.Context, index int, key conf.Secret) (cluster.KeyChange, error) {
	d.ask("add %d %s", index, key.Bytes())
	return d.change, d.err
}
func (d *fakeDaemon) UseKey(_ context.Context, index int) (cluster.KeyChange, error) {
	d.ask("use %d", index)
	return d.change, d.err
}
func (d *fakeDaemon) RemoveKey(ctx context.Context, index int) (cluster.KeyChange, error) {
	d.ask("remove %d%s", index, marks(ctx))
	return d.change, d.err
}

// marks are those of an order; who gave it is the same in every test.
func marks(ctx context.Context) (text string) {
	o := cluster.OrderOf(ctx)
	if o.Force {
		text += ", by force"
	}
	if o.Dry {
		text += ", dry"
	}
	return text
}

// serve runs a daemon; its configuration is returned, and what ends it.
func serve(t *testing.T, d *fakeDaemon, dir string) (end func()) {
	t.Helper()
	if d.state == "" {
		d.state = "up"
	}
	l, err := api.Listen(dir, api.Groups{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := api.Serve(ctx, l, api.Config{Node: d, Logger: slog.New(slog.DiscardHandler), Restart: func() { d.restart() }}); err != nil {
			t.Error(err)
		}
	}()
	end = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(end)
	return end
}

func call(t *testing.T, dir string, args ...string) result {
	t.Helper()
	var out, stderr bytes.Buffer
	code := execute(t.Context(), append(args, "--socket", filepath.Join(dir, api.SocketName), "--config", filepath.Join(dir, "ha.yaml")), &out, &stderr)
	return result{code, out.String(), stderr.String()}
}

func TestMovesSayWhatHappened(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	moved := []cluster.Moved{{Group: "web", From: "director1", To: "director2"}, {Group: "db", To: "director2"}}
	for _, c := range []struct {
		args  []string
		moved []cluster.Moved
		err   error
		want  result
		asked string
	}{
		{[]string{"keepbeat", "standby"}, nil, nil, result{0, "nothing to move: this node owns no such group\n", ""}, "standby all "},
		{[]string{"keepbeat", "takeover", "local"}, nil, nil, result{0, "nothing to move: no other node owns such a group\n", ""}, "takeover local"},
		{[]string{"keepbeat", "standby", "failback", "--to", "director2"}, moved, nil, result{0, "group web: director1 -> director2: decided, and under way\ngroup db: -> director2: decided, and under way\n", ""}, "standby foreign director2"},
		{[]string{"keepbeat", "takeover", "--wait"}, moved[:1], nil, result{0, "group web: director1 -> director2: it runs there\n", ""}, "takeover all; settled"},
		{[]string{"/usr/bin/hb_standby"}, moved[:1], nil, result{0, "group web: director1 -> director2: decided, and under way\n", ""}, "standby all "},
		{[]string{"hb_takeover", "failback"}, moved[:1], nil, result{0, "group web: director1 -> director2: decided, and under way\n", ""}, "takeover foreign"},
		{[]string{"hb_standby"}, nil, errors.New("group web: no director can have it"), result{1, "", "hb_standby: group web: no director can have it\n"}, "standby all "},
	} {
		d.moved, d.err, d.asked = c.moved, c.err, nil
		if got := call(t, dir, c.args...); got != c.want || strings.Join(d.asked, "; ") != c.asked {
			t.Errorf("%v: %+v; the node was asked %q", c.args, got, d.asked)
		}
	}
	d.witness = true
	if r := call(t, dir, "keepbeat", "standby"); r.code != 1 || !strings.HasPrefix(r.stderr, "keepbeat: node director1 is a witness") {
		t.Errorf("%+v", r)
	}
}

func TestApplyShowsTheDifferenceOrTheFaults(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	for _, c := range []struct {
		args    []string
		changes cluster.Changes
		err     error
		want    result
		asked   string
	}{
		{nil, cluster.Changes{Base: 3, Version: 4, Lines: []string{"group web added"}}, nil, result{0, "group web added\nversion 4 is in force\n", ""}, "apply 0 false"},
		{nil, cluster.Changes{Base: 3, Version: 4, Lines: []string{"real server added"}, Warnings: []string{"web.yaml:3:11: warning: real server web1: resolved once"}}, nil,
			result{0, "real server added\nversion 4 is in force\n", "web.yaml:3:11: warning: real server web1: resolved once\n"}, "apply 0 false"},
		{[]string{"--dry-run", "--base", "3"}, cluster.Changes{Base: 3, Lines: []string{"group web added"}}, nil, result{0, "group web added\nnot applied (--dry-run); the cluster runs version 3\n", ""}, "apply 3 true"},
		{nil, cluster.Changes{Base: 3}, nil, result{0, "nothing to apply: the files are version 3, which the cluster runs\n", ""}, "apply 0 false"},
		{nil, cluster.Changes{}, conf.Errors{{File: "/etc/keepbeat/haresources.yaml", Line: 4, Column: 7, Msg: "unknown key"}, {File: "web.yaml", Line: 1, Column: 1, Msg: "nor that"}},
			result{1, "", "/etc/keepbeat/haresources.yaml:4:7: unknown key\nweb.yaml:1:1: nor that\nnothing was changed\n"}, "apply 0 false"},
		{[]string{"--base", "2"}, cluster.Changes{}, errors.New("the specification is at version 3, not 2"), result{1, "", "keepbeat: the specification is at version 3, not 2\nnothing was changed\n"}, "apply 2 false"},
		{nil, cluster.Changes{}, &consensus.UnknownError{Err: errors.New("leadership lost while committing log")},
			result{1, "", "keepbeat: it is not known whether this was done (leadership lost while committing log): look at `keepbeat status` and `keepbeat history` before you repeat it\n"}, "apply 0 false"},
	} {
		d.changes, d.err, d.asked = c.changes, c.err, nil
		if got := call(t, dir, append([]string{"keepbeat", "apply"}, c.args...)...); got != c.want || strings.Join(d.asked, "; ") != c.asked {
			t.Errorf("%v: %+v; the node was asked %q", c.args, got, d.asked)
		}
	}
}

func TestStatusWhyAndHistoryPrintTextAndJSON(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	if r := call(t, dir, "keepbeat", "status"); r.code != 0 || !strings.Contains(r.out, "Cluster test as director1 sees it") {
		t.Errorf("%+v", r)
	}
	if r := call(t, dir, "keepbeat", "why", "web"); r.code != 0 || !strings.Contains(r.out, "it belongs on director1: it is the first of prefer") {
		t.Errorf("%+v", r)
	}
	if r := call(t, dir, "keepbeat", "history", "web"); r.code != 0 || !strings.Contains(r.out, "director1 -> director2") {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{"status"}, {"why", "web"}, {"history"}} {
		r := call(t, dir, append(append([]string{"keepbeat"}, args...), "--json")...)
		var v map[string]any
		if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.code != 0 {
			t.Errorf("%v: %v: %+v", args, err, r)
		}
	}
}

// locked is a buffer that a running command writes and a test reads.
type locked struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestWatchGoesOnOverARestartOfTheDaemonUntilItIsInterrupted(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	end := serve(t, d, dir)
	ctx, interrupt := context.WithCancel(t.Context())
	var out locked
	code := make(chan int, 1)
	go func() {
		code <- execute(ctx, []string{"keepbeat", "status", "--watch", "--socket", filepath.Join(dir, api.SocketName)}, &out, &out)
	}()
	eventually(t, "no status", func() bool { return strings.Contains(out.String(), "Cluster test") })
	end()
	eventually(t, "the end of the daemon is not shown", func() bool { return strings.Contains(out.String(), "no keepbeat daemon runs here") })
	before := strings.Count(out.String(), "Cluster test")
	serve(t, d, dir)
	eventually(t, "the new daemon is not seen", func() bool { return strings.Count(out.String(), "Cluster test") > before })
	interrupt()
	if c := <-code; c != 0 {
		t.Errorf("exit %d", c)
	}
}

func TestRestartReturnsWhenTheNewDaemonTakesPart(t *testing.T) {
	d, dir := &fakeDaemon{boot: "01"}, t.TempDir()
	d.restart = func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.boot, d.state = "02", "joining"
		time.AfterFunc(300*time.Millisecond, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.state = "up"
		})
	}
	serve(t, d, dir)
	if r := call(t, dir, "keepbeat", "restart"); r != (result{0, "keepbeat v2 runs on director1; nothing was moved\n", ""}) {
		t.Errorf("%+v", r)
	}
	d.restart = func() {} // it never comes
	if r := call(t, dir, "keepbeat", "restart", "--wait", "300ms"); r.code != 1 || !strings.Contains(r.stderr, "does not take part in the cluster after 300ms") {
		t.Errorf("%+v", r)
	}
	d.err = errors.New("group web is being moved")
	if r := call(t, dir, "keepbeat", "restart"); r != (result{1, "", "keepbeat: group web is being moved\n"}) {
		t.Errorf("%+v", r)
	}
}

func TestClStatusAnswersAsHeartbeatDid(t *testing.T) {
	d, dir := &fakeDaemon{}, t.TempDir()
	serve(t, d, dir)
	group := func(owner, prefer string) cluster.GroupStatus {
		return cluster.GroupStatus{Name: owner + prefer, Owner: owner, State: "active", Prefer: []string{prefer}}
	}
	for _, c := range []struct {
		args   string
		groups []cluster.GroupStatus
		want   result
	}{
		{"hbstatus", nil, result{0, "Heartbeat is running on this machine.\n", ""}},
		{"listnodes", nil, result{0, "director1\ndirector2\n", ""}},
		{"listnodes -n", nil, result{0, "director1\ndirector2\n", ""}},
		{"listnodes -p", nil, result{0, "", ""}},
		{"nodestatus director1", nil, result{0, "active\n", ""}},
		{"nodestatus director2", nil, result{1, "dead\n", ""}},
		{"nodestatus director2 -m", nil, result{1, "The cluster node director2 is dead\n", ""}},
		{"nodestatus director3", nil, result{1, "", "cl_status: no node \"director3\"; there are director1, director2\n"}},
		{"listhblinks director2", nil, result{0, "\teth1\n\teth2\n", ""}},
		{"hblinkstatus director2 eth1", nil, result{0, "up\n", ""}},
		{"hblinkstatus director2 eth2", nil, result{1, "dead\n", ""}},
		{"hblinkstatus director2 eth3", nil, result{1, "", "cl_status: no link \"eth3\" to director2; there are eth1, eth2\n"}},
		{"rscstatus", nil, result{0, "none\n", ""}},
		{"rscstatus", []cluster.GroupStatus{group("director1", "director1"), group("director1", "director2")}, result{0, "all\n", ""}},
		{"rscstatus -m", []cluster.GroupStatus{group("director1", "director1"), group("director2", "director2")}, result{0, "This node is holding local resources.\n", ""}},
		{"rscstatus", []cluster.GroupStatus{group("director2", "director1"), group("director1", "director2")}, result{0, "foreign\n", ""}},
		{"rscstatus", []cluster.GroupStatus{{Name: "web", Owner: "director2", Target: "director1", State: "moving"}}, result{0, "transition\n", ""}},
	} {
		d.mu.Lock()
		d.groups = c.groups
		d.mu.Unlock()
		if got := call(t, dir, append([]string{"cl_status"}, strings.Fields(c.args)...)...); got != c.want {
			t.Errorf("cl_status %s: %+v, not %+v", c.args, got, c.want)
		}
	}
}

func TestTheRunDirectoryIsFoundInAFaultyFile(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"run_dir: /run/other\nnods: {}\n": "/run/other",
		"run_dir: relative\n":             conf.DefaultRunDir,
		"{[":                              conf.DefaultRunDir,
		"":                                conf.DefaultRunDir,
		"run_dir: [a]\n":                  conf.DefaultRunDir,
	} {
		path := filepath.Join(dir, "ha.yaml")
		write(t, path, text)
		if got := runDir(path); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	if got := runDir(filepath.Join(dir, "none")); got != conf.DefaultRunDir {
		t.Error(got)
	}
}

func TestTheJournalGetsPrioritiesAndNoTime(t *testing.T) {
	var b bytes.Buffer
	l := journalLogger(&b, slog.LevelInfo)
	l.Debug("not this")
	l.Info("one", "a", 1)
	l.With("b", 2).Warn("two")
	l.WithGroup("g").Error("three\nlines", "time", "kept")
	if want := "<6>msg=one a=1\n<4>msg=two b=2\n<3>msg=\"three\\nlines\" g.time=kept\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if isJournal(f, "") || isJournal(f, "8:12345678901") {
		t.Error("a file was taken for the journal")
	}
	logger, _ := newLogger(f, false)
	logger.Info("hello")
	got, err := os.ReadFile(f.Name())
	if err != nil || !regexp.MustCompile(`^time=\S+ level=INFO msg=hello\n$`).Match(got) {
		t.Errorf("%q, %v", got, err)
	}
}
