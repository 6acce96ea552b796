package solo

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources"
)

// machine is where fake resources run; it outlives runners.
type machine struct {
	mu   sync.Mutex
	log  []string
	fail map[string]error
}

func (m *machine) do(what string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, what)
	return m.fail[what]
}

func (m *machine) said(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if got := strings.Join(m.log, ", "); got != want {
		t.Errorf("done: %q, want %q", got, want)
	}
	m.log = nil
}

type fake struct {
	m    *machine
	name string
}

func (f fake) Record() (json.RawMessage, error) { return json.Marshal(f.name) }
func (f fake) Start(context.Context) error      { return f.m.do("start " + f.name) }
func (f fake) Stop(context.Context) error       { return f.m.do("stop " + f.name) }
func (f fake) Monitor(context.Context) error    { return nil }
func (f fake) Close() error                     { return nil }

type maker struct{ m *machine }

func (k maker) New(_ resources.Env, _ conf.Spec, r conf.Resource) (resources.Resource, error) {
	return fake{k.m, r.Name}, nil
}

func (k maker) Recover(_ resources.Env, record json.RawMessage) (resources.Resource, error) {
	var name string
	err := json.Unmarshal(record, &name)
	return fake{k.m, name}, err
}

func story(t *testing.T, f func(t *testing.T, m *machine, boot func() *Runner)) {
	synctest.Test(t, func(t *testing.T) {
		m, journal := &machine{fail: map[string]error{}}, resources.Journal{Dir: t.TempDir()}
		f(t, m, func() *Runner {
			r, err := New(Config{Node: "n", Registry: resources.Registry{"fake": maker{m}}, Journal: journal, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			var spec conf.Spec
			for _, name := range []string{"a", "b"} {
				spec.Groups = append(spec.Groups, conf.Group{Name: name, Resources: []conf.Resource{{Kind: "fake", Name: name}}})
			}
			r.Configure(spec)
			return r
		})
	})
}

func want(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

func TestWhatIsWantedRunsAndNothingElse(t *testing.T) {
	story(t, func(t *testing.T, m *machine, boot func() *Runner) {
		r := boot()
		m.said(t, "")
		r.Want(want("a"))
		m.said(t, "start a")
		r.Want(want("a", "b"))
		m.said(t, "start b")
		r.Want(want("b"))
		m.said(t, "stop a")
		r.Want(want("a", "b"))
		m.said(t, "start a")
		r.Want(want("b"))
		m.said(t, "stop a")
		if err := r.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		m.said(t, "stop b")
		r.Want(want("a"))
		m.said(t, "")
	})
}

func TestWhatAnEarlierRunHasLeftGoesOnOrIsTakenBack(t *testing.T) {
	story(t, func(t *testing.T, m *machine, boot func() *Runner) {
		r := boot()
		r.Want(want("a", "b"))
		synctest.Wait()
		m.log = nil
		r.Close() // as a crash
		r = boot()
		m.said(t, "")
		r.Want(want("a"))
		synctest.Wait()
		r.Want(want("a", "b"))
		synctest.Wait()
		m.mu.Lock()
		done := strings.Join(m.log, ", ")
		m.log = nil
		m.mu.Unlock()
		if strings.Contains(done, "stop a") || strings.Count(done, "stop b") != 1 || !strings.HasSuffix(done, "start b") {
			t.Errorf("done: %s", done)
		}
		if err := r.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatCannotBeStartedIsTriedAgain(t *testing.T) {
	story(t, func(t *testing.T, m *machine, boot func() *Runner) {
		r := boot()
		m.fail["start a"] = errors.New("no")
		r.Want(want("a"))
		synctest.Wait()
		if err := r.Failed()["a"]; err == nil || err.Error() != "a: no" {
			t.Errorf("failed: %v", err)
		}
		m.mu.Lock()
		m.log = nil
		delete(m.fail, "start a")
		m.mu.Unlock()
		time.Sleep(again)
		m.said(t, "start a")
		if r.Failed()["a"] != nil {
			t.Error("it runs, and counts as failed")
		}
		if err := r.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
