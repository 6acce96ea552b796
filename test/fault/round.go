package fault

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

// result is one injection: its row, and what was wrong.
type result struct {
	Row
	faults []string // empty: nothing was
	usable bool     // the cluster is well again
	story  string
}

// round injects one fault and looks what came of it.
func (a *arena) round(name string, p plan, number int) result {
	res := result{Row: Row{Fault: name, Times: 1}, usable: true}
	wrong := func(format string, args ...any) { res.faults = append(res.faults, fmt.Sprintf(format, args...)) }

	from := probe.Now()
	a.note("%s: %s", name, p.what)
	before := map[*lab.Host]*lab.Process{}
	for _, h := range a.nodes {
		before[h] = a.Daemons[h.Name]
	}
	first := a.spec()
	a.two = name == twoAtOnce
	so, stop := a.administrate(strconv.Itoa(number))
	began := time.Now()
	for _, s := range p.steps {
		a.pass(time.Until(began.Add(s.after)))
		if s.what != "" {
			a.note("%s", s.what)
		}
		s.do()
	}
	over := probe.Now()
	a.note("all faults are over")

	if !a.answered(over, serviceBack) {
		wrong("the address has not answered for %v after the last fault:\n%s", serviceBack, a.statuses())
		res.usable = false
	}
	if res.usable && !a.settled(allWell()) {
		wrong("not all is well %v after the last fault:\n%s", allWell(), a.statuses())
		res.usable = false
	}
	a.note("all is well: %v", res.usable)
	var blind []string
	if res.usable {
		blind = a.sighted(over, from, so)
	}
	applies := stop()
	if res.usable && !a.settled(allWell()) {
		wrong("not all is well %v after the last apply:\n%s", allWell(), a.statuses())
		res.usable = false
	}
	to := probe.Now()

	for _, h := range a.nodes {
		for _, d := range a.daemonsSince(h, before[h]) {
			if m := crashed.FindString(d.Log()); m != "" {
				wrong("the daemon on %s crashed: %s", h.Name, m)
			}
		}
	}
	gone, contradicted := a.checkConfiguration(first, applies, to, res.usable)
	res.Lost = len(gone)
	for _, g := range append(gone, contradicted...) {
		wrong("configuration: %s", g)
	}
	found, history := a.checkOwnership(from, to)
	if acquired, read := operations(history); res.usable && (acquired == 0 || read == 0) {
		blind = append(blind, fmt.Sprintf("the history of ownership proves nothing: %d times of an owner, %d pages", acquired, read))
	}
	res.Conflicts = len(found)
	for _, f := range found {
		wrong("conflict: %s", f)
	}
	for _, b := range blind {
		wrong("%s", b)
		res.usable = false // another cluster may have eyes
	}
	gap := probe.LongestGap(a.client.Samples(), from, to)
	res.SilenceMS = float64(gap.Length().Microseconds()) / 1000
	a.log.add(gap.From, "the longest silence begins: %v", gap)
	if len(res.faults) > 0 {
		res.story = a.log.between(from, probe.Now())
	}
	return res
}

// daemonsSince are the daemons of a node from one on: one that has crashed has been started again.
func (a *arena) daemonsSince(h *lab.Host, from *lab.Process) []*lab.Process {
	all := a.daemonLogs[h]
	if i := slices.Index(all, from); i >= 0 {
		return all[i:]
	}
	return all
}

// answered waits for an answer to a question that was asked after an instant.
func (a *arena) answered(after probe.Instant, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); a.pass(20 * time.Millisecond) {
		if a.client.Summary(after.Add(10*lab.ProbeInterval())).Answers > 0 {
			return true
		}
	}
	return false
}

// spec is the newest version that any node runs: one that has just started may know none yet.
func (a *arena) spec() version {
	var newest version
	for _, h := range a.nodes {
		if st, ok := a.status(h); ok && st.Spec.Version > newest.number {
			newest = version{number: st.Spec.Version}
		}
	}
	for _, h := range a.nodes {
		if mark := keptBy(h)[newest.number]; mark != "" {
			newest.mark = mark
		}
	}
	return newest
}

// applyEvery is how long an administrator waits between two applies.
func applyEvery() time.Duration {
	if uml.Inside() {
		return time.Second
	}
	return 250 * time.Millisecond
}

// administrate lets an administrator on each director apply one text after the
// other; the functions returned say what they did so far, and end that.
func (a *arena) administrate(run string) (so, stop func() []apply) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var mu sync.Mutex // guards all
	var all []apply
	for _, h := range a.Both() {
		who := administrator{
			node: h.Name, file: h.Path(haresources), pause: applyEvery(), run: run, log: a.log,
			socket: func() string { return a.socket(h) },
		}
		wg.Go(func() {
			who.work(ctx, func(done apply) {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, done)
			})
		})
	}
	so = func() []apply {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
	return so, func() []apply {
		cancel()
		wg.Wait()
		return so()
	}
}

// checkConfiguration looks for what was acknowledged and is gone.
func (a *arena) checkConfiguration(first version, applies []apply, at probe.Instant, well bool) (gone, contradicted []string) {
	acknowledged := 0
	for _, w := range applies {
		asked := w.ret.Sub(w.call).Round(time.Millisecond)
		if w.version > 0 {
			acknowledged++
			a.log.add(w.ret, "%s: %s, asked for %v ago against version %d, is version %d", w.node, w.mark, asked, w.base, w.version)
		} else {
			a.log.add(w.ret, "%s: %s, asked for %v ago against version %d: %s", w.node, w.mark, asked, w.base, w.why)
		}
	}
	a.note("%d of %d applies were acknowledged", acknowledged, len(applies))
	if !well {
		return nil, nil // a node that is down says nothing about what is kept
	}
	final := a.spec()
	kept := map[string]map[uint64]string{}
	has := func() bool {
		for _, h := range a.nodes {
			kept[h.Name] = keptBy(h)
			if kept[h.Name][final.number] == "" && (final.mark != "" || acknowledged > 0) { // what an administrator applies has a mark
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(15 * time.Second); !has(); a.pass(50 * time.Millisecond) {
		if time.Now().After(end) {
			gone = append(gone, fmt.Sprintf("a node has not written version %d in 15 s; final versions kept: %v", final.number, lastKept(kept)))
			break
		}
	}
	final.mark = kept[a.nodes[0].Name][final.number]
	for node, versions := range kept {
		if mark := versions[final.number]; mark != final.mark {
			gone = append(gone, fmt.Sprintf("%s has %q as version %d, %s has %q", node, mark, final.number, a.nodes[0].Name, final.mark))
		}
	}
	missing, contradicted := lost(applies, final.number, kept)
	gone = append(gone, missing...)
	if err := checkHistory("the specification", specModel(first), specHistory(applies, final, at)); err != nil && len(gone) == 0 {
		gone = append(gone, fmt.Sprintf("%v: it began with version %d (%s) and ended with version %d (%s)", err, first.number, first.mark, final.number, final.mark))
	}
	return gone, contradicted
}

func lastKept(kept map[string]map[uint64]string) string {
	var b strings.Builder
	for node, versions := range kept {
		var last uint64
		for v := range versions {
			last = max(last, v)
		}
		fmt.Fprintf(&b, "%s: %d %q; ", node, last, versions[last])
	}
	return b.String()
}

// checkOwnership looks for two owners at once, also in the history that it returns.
func (a *arena) checkOwnership(from, to probe.Instant) (found []string, history []porcupine.Operation) {
	var samples []probe.Sample
	for i, h := range a.Both() {
		for _, s := range a.observers[i].Samples() {
			if s.Who == h.Name && s.At >= from && s.At <= to {
				samples = append(samples, s)
			}
		}
	}
	var pages []probe.Sample
	for _, s := range a.client.Samples() {
		if s.At >= from && s.At <= to {
			samples = append(samples, s)
		}
	}
	for _, s := range a.pages.Samples() {
		if s.Received <= to {
			pages = append(pages, s)
		}
	}
	seen := holds(samples, 10*lab.ProbeInterval())
	for _, h := range joined(seen) {
		a.log.add(h.from, "%s answers, until %v later", h.owner, h.to.Sub(h.from).Round(100*time.Microsecond))
	}
	for _, c := range conflicts(seen) {
		found = append(found, fmt.Sprintf("%s and %s both answered, %.1f ms after the beginning, for %v", c.a, c.b, float64(c.from.Sub(from).Microseconds())/1000, max(c.to.Sub(c.from), 1)))
		a.log.add(c.from, "CONFLICT: %s and %s both answer", c.a, c.b)
	}
	var twice []arpConflict
	for _, c := range arpConflicts(a.arp.Log()) {
		if c.at >= from && c.at <= to {
			twice = append(twice, c)
		}
	}
	if len(twice) > 0 {
		c := twice[0]
		found = append(found, fmt.Sprintf("%d ARP requests were answered by two, the first by %s and %s, %.1f ms after the beginning", len(twice), c.a, c.b, float64(c.at.Sub(from).Microseconds())/1000))
		a.log.add(c.at, "CONFLICT: one ARP request, answered by %s and %s", c.a, c.b)
	}
	history = lockHistory(from, seen, pages)
	if err := checkHistory("ownership", lockModel, history); err != nil && len(found) == 0 {
		found = append(found, err.Error())
	}
	return found, history
}

// joined are holds for the reader: those of one owner between which nobody else held are one.
func joined(all []hold) []hold {
	var some []hold
	for _, h := range all {
		if n := len(some); n > 0 && some[n-1].owner == h.owner && h.from.Sub(some[n-1].to) < 100*time.Millisecond {
			some[n-1].to = max(some[n-1].to, h.to)
			continue
		}
		some = append(some, h)
	}
	return some
}
