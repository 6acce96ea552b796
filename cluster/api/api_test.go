package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("KEEPBEAT_TEST_STRANGER"); path != "" {
		os.Exit(stranger(path))
	}
	goleak.VerifyTestMain(m)
}

// fake is a node that does what it is told and remembers it.
type fake struct {
	Fencer // not asked here
	NodeChanger
	RealOrderer
	mu       sync.Mutex // guards what follows
	witness  bool
	err      error // of every command
	settle   error
	moved    []cluster.Moved
	calls    []string
	restarts int
	waited   time.Duration
	status   cluster.Status
	orders   []cluster.Order
	patience time.Duration
}

func (f *fake) say(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, s)
}

func (f *fake) said() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, "; ")
}

func (f *fake) Name() string                          { return "director1" }
func (f *fake) Director() bool                        { return !f.witness }
func (f *fake) Status(context.Context) cluster.Status { return f.status }
func (f *fake) LocalStatus() cluster.LocalStatus {
	return cluster.LocalStatus{Node: "director1", Boot: "01"}
}
func (f *fake) Why(_ context.Context, group string) (cluster.Why, error) {
	f.say("why " + group)
	return cluster.Why{Because: "it is " + group}, f.err
}
func (f *fake) History(group string) ([]state.Decision, error) {
	return []state.Decision{{Group: group, Text: "moved"}}, f.err
}
func (f *fake) Standby(ctx context.Context, which cluster.Which, to string) ([]cluster.Moved, error) {
	f.orders = append(f.orders, cluster.OrderOf(ctx))
	f.say("standby " + which.String() + " to " + to)
	return f.moved, f.err
}
func (f *fake) Takeover(_ context.Context, which cluster.Which) ([]cluster.Moved, error) {
	f.say("takeover " + which.String())
	return f.moved, f.err
}
func (f *fake) Settled(ctx context.Context, _ []cluster.Moved) error {
	end, _ := ctx.Deadline()
	f.waited = time.Until(end)
	return f.settle
}
func (f *fake) Apply(ctx context.Context, base uint64, dry bool) (cluster.Changes, error) {
	f.orders = append(f.orders, cluster.OrderOf(ctx))
	if dry {
		f.say("dry")
	} else {
		f.say("apply")
	}
	return cluster.Changes{Base: base, Version: base + 1, Lines: []string{"group web added"}}, f.err
}
func (f *fake) PrepareRestart(context.Context) error { f.say("prepare"); return f.err }
func (f *fake) StopCost() string                     { return "the quorum would be lost" }
func (f *fake) Keys(context.Context) []cluster.NodeKeys {
	return []cluster.NodeKeys{{Node: "director1", Active: 1, Keys: []cluster.KeyInfo{{Index: 1, Fingerprint: "0123"}}}}
}
func (f *fake) AddKey(_ context.Context, index int, key conf.Secret) (cluster.KeyChange, error) {
	f.say(fmt.Sprintf("add key %d of %d characters", index, len(key.Bytes())))
	return cluster.KeyChange{Key: cluster.KeyInfo{Index: 2}, Done: []string{"director1"}}, f.err
}
func (f *fake) UseKey(_ context.Context, index int) (cluster.KeyChange, error) {
	f.say(fmt.Sprintf("use key %d", index))
	return cluster.KeyChange{}, f.err
}
func (f *fake) RemoveKey(ctx context.Context, index int) (cluster.KeyChange, error) {
	f.say(fmt.Sprintf("remove key %d", index))
	return cluster.KeyChange{}, f.err
}

// serve puts a fake behind a real socket.
func serve(t *testing.T, f *fake, groups Groups) (*Client, string) {
	t.Helper()
	// t.TempDir is closed to others, and one test is about others.
	dir, err := os.MkdirTemp("", "keepbeat-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir, groups)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, Config{Node: f, Logger: slog.New(slog.DiscardHandler), Patience: f.patience, Restart: func() {
			f.mu.Lock()
			f.restarts++
			f.mu.Unlock()
		}})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return NewClient(dir), filepath.Join(dir, SocketName)
}

func TestCommandsReachTheNode(t *testing.T) {
	f := &fake{moved: []cluster.Moved{{Group: "web", From: "director1", To: "director2"}}}
	c, _ := serve(t, f, Groups{})
	ctx := t.Context()
	r, err := c.Standby(ctx, Move{Which: "failback", To: "director2", Wait: 60_000})
	if err != nil || len(r.Moved) != 1 || !r.Settled {
		t.Errorf("standby: %+v, %v", r, err)
	}
	if f.waited > time.Minute || f.waited < 30*time.Second {
		t.Errorf("it would have waited %v", f.waited)
	}
	if r, err := c.Takeover(ctx, Move{Which: "all"}); err != nil || r.Settled {
		t.Errorf("takeover: %+v, %v", r, err)
	}
	if a, err := c.Apply(ctx, Apply{Base: 3, Dry: true}); err != nil || a.Version != 4 {
		t.Errorf("apply: %+v, %v", a, err)
	}
	if w, err := c.Why(ctx, "a group/with ?odd"); err != nil || w.Because != "it is a group/with ?odd" {
		t.Errorf("why: %+v, %v", w, err)
	}
	if h, err := c.History(ctx, "a&b"); err != nil || len(h.Decisions) != 1 || h.Decisions[0].Group != "a&b" {
		t.Errorf("history: %+v, %v", h, err)
	}
	if l, err := c.Local(ctx); err != nil || l.Boot != "01" {
		t.Errorf("local: %+v, %v", l, err)
	}
	if k, err := c.Keys(ctx); err != nil || len(k.Nodes) != 1 || k.Nodes[0].Keys[0].Fingerprint != "0123" {
		t.Errorf("keys: %+v, %v", k, err)
	}
	if k, err := c.AddKey(ctx, Key{Index: 2, Key: "a-key-of-24-characters--"}); err != nil || k.Key.Index != 2 {
		t.Errorf("add: %+v, %v", k, err)
	}
	if _, err := c.UseKey(ctx, Key{Index: 2}); err != nil {
		t.Error(err)
	}
	if _, err := c.RemoveKey(ctx, Key{Index: 1}); err != nil {
		t.Error(err)
	}
	want := "standby foreign to director2; takeover all; dry; why a group/with ?odd; add key 2 of 24 characters; use key 2; remove key 1"
	if f.said() != want {
		t.Errorf("the node heard %q, not %q", f.said(), want)
	}
}

func TestARefusalKeepsItsWords(t *testing.T) {
	f := &fake{err: errors.New("group web is blocked: it does not stop")}
	c, _ := serve(t, f, Groups{})
	var refused *RefusedError
	if _, err := c.Standby(t.Context(), Move{}); !errors.As(err, &refused) || err.Error() != f.err.Error() || refused.Files {
		t.Errorf("%v", err)
	}
	f.err = conf.Errors{{File: "haresources.yaml", Line: 2, Column: 3, Msg: "no"}, {File: "haresources.yaml", Line: 4, Column: 1, Msg: "nor this"}}
	if _, err := c.Apply(t.Context(), Apply{}); !errors.As(err, &refused) || !refused.Files || err.Error() != "haresources.yaml:2:3: no\nharesources.yaml:4:1: nor this" {
		t.Errorf("%v", err)
	}
	f.err, f.settle, f.moved = nil, errors.New("group web: not settled in time"), []cluster.Moved{{Group: "web"}}
	if _, err := c.Standby(t.Context(), Move{Wait: 10}); err == nil || err.Error() != "group web: not settled in time" {
		t.Errorf("%v", err)
	}
}

func TestAWitnessRefusesStandby(t *testing.T) {
	f := &fake{witness: true}
	c, _ := serve(t, f, Groups{})
	for name, do := range map[string]func(context.Context, Move) (Moves, error){"standby": c.Standby, "takeover": c.Takeover} {
		if _, err := do(t.Context(), Move{Which: "all"}); err == nil || !strings.Contains(err.Error(), "director1 is a witness") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f.said() != "" {
		t.Errorf("the node heard %s", f.said())
	}
}

func TestARestartIsBegunAfterTheAnswer(t *testing.T) {
	f := &fake{}
	c, _ := serve(t, f, Groups{})
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		n := f.restarts
		f.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("not restarted")
		}
	}
	f.err = errors.New("group web is being moved")
	if err := c.Restart(t.Context()); err == nil {
		t.Error("not refused")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.restarts != 1 {
		t.Error("a refused restart was begun")
	}
}

func TestWithoutADaemonTheErrorSaysWhatToDo(t *testing.T) {
	_, err := NewClient(t.TempDir()).Status(t.Context())
	if !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "systemctl start keepbeat") {
		t.Errorf("%v", err)
	}
}

func TestAStaleSocketIsReplacedAndALivingOneIsNot(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir, Groups{})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, SocketName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if _, err := Listen(dir, Groups{}); err == nil || !strings.Contains(err.Error(), "another keepbeat runs here") {
		t.Errorf("%v", err)
	}
	l.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(dir, Groups{})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, err := Listen(dir, Groups{Read: "no-such-group-here"}); err == nil || !strings.Contains(err.Error(), `socket_group: this machine has no group "no-such-group-here"`) {
		t.Errorf("%v", err)
	}
}

func request(f *fake, method, path, body string) *httptest.ResponseRecorder {
	return requestBy(f, peer{uid: os.Geteuid()}, method, path, body)
}

func requestBy(f *fake, p peer, method, path, body string) *httptest.ResponseRecorder {
	return requestTo(f, access{self: os.Geteuid(), read: -1, admin: -1}, p, method, path, body)
}

func withPeer(ctx context.Context, p peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

func requestTo(f *fake, a access, p peer, method, path, body string) *httptest.ResponseRecorder {
	h := handler(Config{Node: f, Logger: slog.New(slog.DiscardHandler), Restart: func() {}}, a)
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(withPeer(r.Context(), p)))
	return w
}

func TestBadRequestsAreRefusedInWords(t *testing.T) {
	for name, c := range map[string]struct {
		method, path, body string
		code               int
		says               string
	}{
		"a word that is none":      {"POST", "/v1/standby", `{"which":"everything"}`, 400, "it is one of all, local, foreign, failback"},
		"an unknown key":           {"POST", "/v1/standby", `{"witch":"all"}`, 400, `unknown field`},
		"no JSON":                  {"POST", "/v1/apply", `apply!`, 400, "request:"},
		"nothing":                  {"POST", "/v1/apply", ``, 400, "request:"},
		"two values":               {"POST", "/v1/apply", `{} {}`, 400, "something after"},
		"a wrong type":             {"POST", "/v1/apply", `{"base":-1}`, 400, "base"},
		"a body without end":       {"POST", "/v1/apply", `{"base":` + strings.Repeat(" ", maxBody) + `1}`, 400, "too large"},
		"an unknown path":          {"GET", "/v2/status", "", 404, "this daemon knows no GET /v2/status"},
		"reading what is written":  {"GET", "/v1/standby", "", 404, "this daemon knows no GET /v1/standby"},
		"nobody's credentials set": {"POST", "/v1/restart", "", 200, ""},
	} {
		f := &fake{}
		w := request(f, c.method, c.path, c.body)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if c.code != 200 && f.said() != "" {
			t.Errorf("%s: the node heard %s", name, f.said())
		}
	}
	f := &fake{}
	if w := requestBy(f, peer{uid: -1}, "POST", "/v1/restart", ""); w.Code != http.StatusForbidden || f.said() != "" {
		t.Errorf("without credentials: %d, the node heard %q", w.Code, f.said())
	}
}

func TestStatusTellsTheTroubleOfPools(t *testing.T) {
	detail := json.RawMessage(`{"pool":"web.yaml","started":true,"services":[
		{"name":"10.0.0.1:80 tcp","in_table":true,"up":0,"reals":[{"address":"10.0.0.5:80","state":"down","check":"connect","answer":"connection refused"}],"fallbacks":[{"address":"127.0.0.1:80","active":true}]},
		{"name":"10.0.0.2:80 tcp","in_table":false,"up":1,"reals":[{"address":"10.0.0.6:80","state":"up","check":"connect"},
			{"address":"10.0.0.7:80","state":"up","check":"connect","answer":"too many open files","overdue":true}]}]}`)
	f := &fake{status: cluster.Status{Trouble: []string{"node director2 is down"}, Groups: []cluster.GroupStatus{{
		Name: "web", Resource: []resources.ResourceStatus{{Kind: conf.KindLdirectord, Detail: detail}},
	}}}}
	c, _ := serve(t, f, Groups{})
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"node director2 is down",
		"service 10.0.0.1:80 tcp: no real server is up; the fallback 127.0.0.1:80 answers",
		"service 10.0.0.2:80 tcp is not in the kernel's table",
		"service 10.0.0.1:80 tcp: real server 10.0.0.5:80 is down: connection refused",
		"service 10.0.0.2:80 tcp: real server 10.0.0.7:80 has had no result of its check for longer than the schedule allows and is kept as it was: too many open files",
	}
	if strings.Join(s.Trouble, "\n") != strings.Join(want, "\n") {
		t.Errorf("trouble:\n%s", strings.Join(s.Trouble, "\n"))
	}
}

// FuzzBody: whatever is sent, the answer is JSON with a reason, and only a
// request that was understood reaches the node.
func FuzzBody(f *testing.F) {
	for _, b := range []string{`{"which":"all","to":"director2","wait":60000}`, `{"base":3,"dry":true}`, `{}`, `[]`, `null`, `{"which":1e999}`, "\x00", `{"which":"all","which":"x"}`} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/v1/standby", "/v1/takeover", "/v1/apply", "/v1/keys/add", "/v1/keys/use", "/v1/keys/remove"} {
			n := &fake{moved: []cluster.Moved{{Group: "web"}}}
			w := request(n, "POST", path, body)
			b, err := io.ReadAll(w.Body)
			if err != nil || !json.Valid(bytes.TrimSpace(b)) {
				t.Fatalf("%s: not JSON: %q", path, b)
			}
			switch {
			case w.Code == 200 && n.said() == "":
				t.Errorf("%s: done without the node", path)
			case w.Code != 200:
				var e Error
				if json.Unmarshal(b, &e) != nil || e.Error == "" || n.said() != "" {
					t.Errorf("%s: %d %q, the node heard %q", path, w.Code, b, n.said())
				}
			}
			if n.waited > maxWait {
				t.Errorf("it would wait %v", n.waited)
			}
		}
	})
}
