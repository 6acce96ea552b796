package ipvs

import (
	"sync"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/checks"
	"github.com/keepbeat/keepbeat/conf"
)

// fakeChecks is a scheduler whose results the test decides.
type fakeChecks struct {
	mu     sync.Mutex // guards all below
	subs   map[conf.Check]map[int]func(checks.Status)
	status map[conf.Check]checks.Status
	next   int
	begun  map[conf.Check]int // how often a check was begun from nothing
}

func newFakeChecks() *fakeChecks {
	return &fakeChecks{subs: map[conf.Check]map[int]func(checks.Status){}, status: map[conf.Check]checks.Status{}, begun: map[conf.Check]int{}}
}

func (f *fakeChecks) Subscribe(c conf.Check, notify func(checks.Status)) func() {
	f.mu.Lock()
	id := f.next
	f.next++
	if len(f.subs[c]) == 0 {
		f.subs[c] = map[int]func(checks.Status){}
		f.begun[c]++
	}
	f.subs[c][id] = notify
	st := f.status[c]
	f.mu.Unlock()
	if st.Known {
		notify(st)
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subs[c], id)
	}
}

func (f *fakeChecks) Status(c conf.Check) (checks.Status, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status[c], len(f.subs[c]) > 0
}

func (f *fakeChecks) set(c conf.Check, up bool) {
	f.mu.Lock()
	st := checks.Status{Known: true, Up: up, OK: up, Detail: "HTTP/1.1 200 OK", Last: time.Now(), Duration: 1500 * time.Microsecond, Since: time.Now()}
	if !up {
		st.Detail = "connection refused"
	}
	f.status[c] = st
	var tell []func(checks.Status)
	for _, n := range f.subs[c] {
		tell = append(tell, n)
	}
	f.mu.Unlock()
	for _, n := range tell {
		n(st)
	}
}

func (f *fakeChecks) subscribed(c conf.Check) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs[c]) > 0
}

// waitFor waits until the checks are subscribed to.
func (f *fakeChecks) waitFor(t *testing.T, all ...conf.Check) {
	t.Helper()
	for _, c := range all {
		for end := time.Now().Add(20 * time.Second); !f.subscribed(c); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("nobody checks %s", c.Target)
			}
		}
	}
}

func specOf(virtuals ...conf.Virtual) (conf.Spec, conf.Resource) {
	return conf.Spec{Pools: map[string]conf.Pool{"web.yaml": {Virtuals: virtuals}}},
		conf.Resource{Kind: conf.KindLdirectord, Name: "ldirectord web.yaml", Class: conf.Guarded, Pool: "web.yaml"}
}
