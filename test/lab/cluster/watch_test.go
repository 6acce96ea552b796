package cluster

import (
	"os"
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

	// costly is the lateness of a machine from which on leases may be lost, so that
	// groups move and leaders are elected: a lease is renewed three times and more,
	// and each renewal is the work of several processes.
	costly = lease / 4
)

// clock measures how late processes of this machine get a processor, for as long as tests run.
var clock lab.Lateness

func TestMain(m *testing.M) {
	status, err := clock.Around(m.Run)
	if err != nil {
		panic(err)
	}
	os.Exit(status)
}

// watchers ask the address until the test ends: a client, and for each director
// an observer that hears this one alone. An observer that is blind would see
// neither two owners nor one that goes on answering: so it has to hear each owner.
type watchers struct {
	t         *testing.T
	lab       *lab.Lab
	directors [2]*lab.Host
	client    *lab.Client
	observers map[*lab.Host]*lab.Client
}

func newWatchers(t *testing.T, d *scenario.Directors, vip string) *watchers {
	t.Helper()
	w := &watchers{t: t, lab: d.Lab, directors: d.Both(), client: d.Client.Probe(vip, askEvery), observers: map[*lab.Host]*lab.Client{}}
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
		w.lab.Logf("%s was silent %v later", h.Name, max(after, 0).Round(time.Millisecond))
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

// lateSince is how late the machine was, not long before an instant or since.
func lateSince(since probe.Instant) time.Duration {
	const effect = 2 * lease // what a stall brings about may come after it
	return clock.Worst(time.Now().Add(-probe.Now().Sub(since) - effect))
}

// amiss is what a quiet machine does not bring about. A machine that was late by
// more than this, not long before the instant or since, is to blame itself, and
// that is logged. Only for bounds of time, and for moves and elections that were
// not wanted: never for two owners, or for answers of who may not answer.
func (w *watchers) amiss(most time.Duration, since probe.Instant, format string, args ...any) {
	w.t.Helper()
	if late := lateSince(since); late > most {
		w.lab.Logf(format+"; the machine was late by %v", append(args, late)...)
		return
	}
	w.t.Errorf(format, args...)
}

// noMoreThan checks the client's longest silence since an instant, and logs it.
func (w *watchers) noMoreThan(bound time.Duration, since probe.Instant, what string) {
	w.t.Helper()
	gap := w.client.Outage(since)
	w.lab.Logf("%s: longest silence %v", what, gap)
	// A stall costs elections, which begin anew at the next one; not any time.
	const most = 10
	switch late := lateSince(since); {
	case gap.Length() > bound+most*late:
		w.t.Errorf("%s: the client was without an answer for %v, want at most %v; the machine was late by %v, which does not explain that", what, gap, bound, late)
	case gap.Length() > bound:
		w.amiss(max(costly, bound/4), since, "%s: the client was without an answer for %v, want at most %v", what, gap, bound)
	}
}

// movedOnce checks that there was one move since an instant, from this epoch to that one.
func (w *watchers) movedOnce(since probe.Instant, from, to uint64) {
	w.t.Helper()
	switch {
	case to <= from:
		w.t.Errorf("epoch %d became %d; want one move", from, to)
	case to > from+1:
		w.amiss(costly, since, "epoch %d became %d; want one move", from, to)
	}
}

// place is where a group is, and since which epoch.
type place struct {
	owner *lab.Host
	epoch uint64
}

// stayed checks that a group is where it was at an instant.
func (w *watchers) stayed(since probe.Instant, was, is place, what string) {
	w.t.Helper()
	switch {
	case is.epoch < was.epoch:
		w.t.Errorf("%s: epoch %d became %d", what, was.epoch, is.epoch)
	case is != was:
		w.amiss(costly, since, "%s: the group is on %s in epoch %d, was on %s in %d", what, is.owner.Name, is.epoch, was.owner.Name, was.epoch)
	}
}
