package fault

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
)

// A good session is one in which nothing was seen. So everybody who looks shows that
// he would have seen it: at the beginning of a cluster with each director as the
// owner, and after each injection with whoever owns then.

// doubled is an address that two machines have, which the ARP watcher has to report.
const doubled = "192.168.56.249"

// prove ends the test when somebody who looks is blind.
func (a *arena) prove() {
	a.t.Helper()
	a.proveWatcher()
	// The second first: everything begins where the specification prefers it.
	for _, h := range []*lab.Host{a.Director2, a.Director1} {
		from := probe.Now()
		applies, stop := a.administrate("begins-" + h.Name)
		var asked time.Time
		blind := a.waitSight(func() (*lab.Host, []string) {
			if a.owner() != h && time.Since(asked) > time.Second {
				asked = time.Now()
				a.command(h, "takeover")
			}
			// Each administrator has to be heard, not only the quicker one.
			return h, unheard(applies(), from, a.Director1.Name, a.Director2.Name)
		}, from)
		stop()
		if len(blind) > 0 {
			a.t.Fatalf("with the group on %s, %s\n%s", h.Name, strings.Join(blind, "\n"), a.statuses())
		}
	}
	if !a.settled(allWell()) {
		a.t.Fatalf("not all is well %v after the groups were moved:\n%s", allWell(), a.statuses())
	}
}

// proveWatcher lets the ARP watcher's program ask for an address that two machines have.
func (a *arena) proveWatcher() {
	a.t.Helper()
	for _, o := range a.observers {
		o.Host.Run("ip", "address", "add", doubled+"/32", "dev", "eth0")
	}
	watcher := a.watchARP(doubled)
	for end := time.Now().Add(allWell()); len(arpConflicts(watcher.Log())) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			a.t.Fatalf("the ARP watcher is blind: two machines have %s, and it reports no conflict in %v", doubled, allWell())
		}
	}
	watcher.Kill()
	for _, o := range a.observers {
		o.Host.Run("ip", "address", "del", doubled+"/32", "dev", "eth0")
	}
}

// sighted waits until everybody who looks has seen something of the owner that came
// after an instant, and an apply of this round was acknowledged; it names who has not.
func (a *arena) sighted(after, round probe.Instant, applies func() []apply) []string {
	return a.waitSight(func() (*lab.Host, []string) { return a.owner(), unheard(applies(), round) }, after)
}

// waitSight asks again and again who owns and what is wrong otherwise.
func (a *arena) waitSight(owner func() (*lab.Host, []string), after probe.Instant) (blind []string) {
	for end := time.Now().Add(allWell()); ; a.pass(50 * time.Millisecond) {
		h, wrong := owner()
		if blind = append(a.blind(h, after), wrong...); len(blind) == 0 || time.Now().After(end) {
			return blind
		}
	}
}

// blind names everybody who looks and has seen nothing of the owner since an instant.
func (a *arena) blind(owner *lab.Host, after probe.Instant) (blind []string) {
	add := func(format string, args ...any) { blind = append(blind, fmt.Sprintf(format, args...)) }
	saw := func(who string, c *lab.Client) {
		if !answeredBy(c.Samples(), owner.Name, after) {
			add("%s is blind: no answer of %s in %v, who owns the group", who, owner.Name, since(after))
		}
	}
	saw("the client", a.client)
	saw("the client that fetches pages", a.pages)
	for i, h := range a.Both() {
		if h == owner {
			saw("the observer of "+h.Name, a.observers[i])
		}
	}
	mac := owner.PortOn(a.Service).MAC.String()
	if !slices.ContainsFunc(arpAnswers(a.arp.Log()), func(w arpAnswer) bool { return w.at >= after && w.who == mac }) {
		add("the ARP watcher is blind: no answer of %s (%s) in %v, who owns the group", owner.Name, mac, since(after))
	}
	// Also who has nothing to see now.
	for _, p := range []*lab.Process{a.client.Process, a.pages.Process, a.observers[0].Process, a.observers[1].Process, a.arp} {
		if p.Ended() {
			add("%s on %s sees nothing more: it has ended (%v)", p.Name, p.Host.Name, p.Err())
		}
	}
	for _, h := range a.nodes {
		if d := a.Daemons[h.Name]; strings.TrimSpace(d.Log()) == "" {
			add("the log of the daemon on %s is empty: a crash would not be seen", h.Name)
		}
		if len(keptBy(h)) == 0 {
			add("%s keeps no version of the specification where it is looked for", h.Name)
		}
	}
	journal, err := a.journal(owner)
	if err != nil || len(journal) == 0 {
		add("%s owns the group, and has no journal where it would be damaged: %v", owner.Name, err)
	}
	return blind
}

func since(at probe.Instant) time.Duration { return probe.Now().Sub(at).Round(time.Millisecond) }

// answeredBy says whether a question that was asked after an instant was answered by who.
func answeredBy(samples []probe.Sample, who string, after probe.Instant) bool {
	return slices.ContainsFunc(samples, func(s probe.Sample) bool { return s.OK() && s.Who == who && s.Sent >= after })
}

// unheard says of which administrators no apply was acknowledged since an instant; with none named, of all.
func unheard(applies []apply, from probe.Instant, of ...string) (wrong []string) {
	heard := map[string]bool{}
	for _, w := range applies {
		if w.version > 0 && w.call >= from {
			heard[w.node] = true
		}
	}
	last := "it asked for none"
	if n := len(applies); n > 0 {
		last = fmt.Sprintf("of %d, the last: %q", n, applies[n-1].why)
	}
	if len(of) == 0 && len(heard) == 0 {
		return []string{fmt.Sprintf("the administrators are blind: no apply was acknowledged in %v (%s)", since(from), last)}
	}
	for _, name := range of {
		if !heard[name] {
			wrong = append(wrong, fmt.Sprintf("the administrator on %s is blind: none of his applies was acknowledged in %v (%s)", name, since(from), last))
		}
	}
	return wrong
}

// journal are the files of a node's journal, as it sees them: its /run is the host's own.
func (a *arena) journal(h *lab.Host) (files []string, err error) {
	if h.Dead() {
		return nil, nil
	}
	err = h.Do(func() (err error) {
		files, err = filepath.Glob("/run/keepbeat/journal/*.json")
		return err
	})
	return files, err
}
