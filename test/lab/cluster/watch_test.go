package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

const (
	askEvery     = 2 * time.Millisecond
	observeEvery = 5 * time.Millisecond
)

// watchers ask the address until the test ends: a client, and for each director
// an observer that hears this one alone. An observer that is blind would see
// neither two owners nor one that goes on answering: so it has to hear each owner.
type watchers struct {
	t         *testing.T
	directors [2]*lab.Host
	client    *lab.Client
	observers map[*lab.Host]*lab.Client
}

func newWatchers(t *testing.T, d *scenario.Directors, vip string) *watchers {
	t.Helper()
	w := &watchers{t: t, directors: d.Both(), client: d.Client.Probe(vip, askEvery), observers: map[*lab.Host]*lab.Client{}}
	sources := []string{"192.168.56.251/24", "192.168.56.252/24"}
	if strings.Contains(vip, ":") {
		sources = []string{"fd56::251/64", "fd56::252/64"}
	}
	for i, h := range w.directors {
		w.observers[h] = d.Lab.Observe(d.Service, vip, sources[i], h, observeEvery)
	}
	t.Cleanup(w.sighted)
	return w
}

// overlap is for how long both directors have answered so far.
func (w *watchers) overlap() time.Duration {
	w.t.Helper()
	return lab.Overlap(w.observers[w.directors[0]], w.observers[w.directors[1]])
}

// sighted checks at the end that no observer was blind, whatever the test has asked of them.
func (w *watchers) sighted() {
	if w.t.Failed() {
		return // perhaps before anybody answered
	}
	// Answers of two seconds: who had the address for a moment may have been missed.
	const enough = int(2 * time.Second / askEvery)
	heard, who := 0, w.client.Summary(w.client.From).Who
	for h, o := range w.observers {
		n := len(o.Samples())
		heard += n
		if n == 0 && who[h.Name] > enough {
			w.t.Errorf("%s answered the client %d times, and its observer never: nothing shows that there were not two owners", h.Name, who[h.Name])
		}
	}
	if heard == 0 {
		w.t.Error("no observer was ever answered: nothing shows that there were not two owners")
	}
}

// seen waits until the observer of a director hears it.
func (w *watchers) seen(h *lab.Host) {
	w.t.Helper()
	w.observers[h].WaitAnswer(h.Name, probe.Now(), limit)
}

// silentBy checks that a director, which was heard before an instant, gave no
// answer for the address later than this after it.
func (w *watchers) silentBy(h *lab.Host, since probe.Instant, bound time.Duration) {
	w.t.Helper()
	var last probe.Instant
	before := false
	for _, a := range w.observers[h].Samples() {
		last = max(last, a.At)
		before = before || a.At < since
	}
	after := last.Sub(since)
	switch {
	case !before:
		w.t.Errorf("the observer of %s did not hear it before: that it hears nothing shows nothing", h.Name)
	case after > bound:
		w.t.Errorf("%s still answered %v later, want silence after %v", h.Name, after, bound)
	default:
		w.t.Logf("%s was silent %v later", h.Name, max(after, 0).Round(time.Millisecond))
	}
}

// answeredFrom is how many answers to the client were given from an instant on, however late it read them.
func (w *watchers) answeredFrom(from probe.Instant) (n int) {
	w.t.Helper()
	for _, a := range w.client.Samples() {
		if a.OK() && a.At >= from {
			n++
		}
	}
	return n
}
