package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// confirm is an operator who answers `keepbeat quorum confirm` so.
func (d *duo) confirm(h *lab.Host, answers ...string) (string, error) {
	d.t.Helper()
	return h.Try("sh", "-c", fmt.Sprintf("printf '%%s\\n' %s | %s quorum confirm", strings.Join(answers, " "), d.Lab.Keepbeat()))
}

// mustConfirm says that a node is to go on without the other.
func (d *duo) mustConfirm(h *lab.Host) {
	d.t.Helper()
	if out, err := d.confirm(h, d.Other(h).Name, "yes"); err != nil {
		d.t.Fatalf("quorum confirm on %s: %v\n%s", h.Name, err, out)
	}
}

// bothDie switches both off at once.
func (d *duo) bothDie() {
	for _, h := range d.Both() {
		if !h.Dead() {
			h.Die()
		}
	}
}

// quiet checks that nobody serves and nobody is fenced for a while.
func (d *duo) quiet(uses int) {
	d.t.Helper()
	since := probe.Now()
	time.Sleep(aWhile)
	if n := d.answeredFrom(since.Add(lease)); n > 0 || len(d.Power.Uses()) > uses {
		d.t.Errorf("%d answers, %d uses of the device by nodes that wait", n, len(d.Power.Uses())-uses)
	}
}

func TestPairReturns(t *testing.T) {
	t.Parallel()
	for _, rule := range rules {
		t.Run(string(rule), func(t *testing.T) {
			t.Parallel()
			d := beginDuo(t, rule, options(rule))
			one, two := d.Director1, d.Director2
			uses := func() int { return len(d.Power.Uses()) }
			logs := func() [2]int { return [2]int{d.discarded(one), d.discarded(two)} }
			// sameHistory waits until both serve, and checks which logs were put aside since.
			sameHistory := func(before, aside [2]int) {
				t.Helper()
				d.client.WaitAnswer("", probe.Now(), limit)
				d.settle()
				after := logs()
				for i, h := range d.Both() {
					if n := after[i] - before[i]; n != aside[i] {
						t.Errorf("%s has put aside %d logs, want %d", h.Name, n, aside[i])
					}
				}
			}

			d.part("both die and return into a partition: they wait, and then have one history", func() {
				before, fenced, was := logs(), uses(), d.generation(one)
				d.bothDie()
				d.cut()
				d.Revive(one)
				d.Revive(two)
				d.phase(one, "waiting", "wait_for_all")
				d.phase(two, "waiting", "wait_for_all")
				d.quiet(fenced)
				d.Lab.Heal()
				sameHistory(before, [2]int{})
				if g := d.generation(one); g != was {
					t.Errorf("generation %d became %d", was, g)
				}
			})

			for _, first := range []*lab.Host{one, two} {
				d.part("both die one after the other; the first to return is "+first.Name, func() {
					owner := d.owner()
					before, epoch := logs(), d.epoch()
					since := owner.Die()
					last := d.Other(owner)
					d.takenOver(last, since, epoch)
					decided := d.generation(last)
					last.Die()
					fenced := uses()
					d.Revive(first)
					d.phase(first, "waiting", "")
					d.quiet(fenced)
					d.Revive(d.Other(first))
					var aside [2]int
					if owner == one {
						aside[0] = 1
					} else {
						aside[1] = 1
					}
					sameHistory(before, aside)
					if g := d.generation(last); g != decided {
						t.Errorf("%s decided alone in generation %d; both are in %d", last.Name, decided, g)
					}
				})
			}

			d.part("both die, and an operator lets one go on", func() {
				d.bothDie()
				before, fenced := logs(), uses()
				d.Revive(one)
				d.phase(one, "waiting", "wait_for_all")
				for _, answers := range [][]string{{"director1", "yes"}, {"director2", "no"}, {"director2"}} {
					if out, err := d.confirm(one, answers...); lab.ExitCode(err) != 1 || !strings.Contains(out, "nothing was changed") {
						t.Errorf("quorum confirm with the answers %v: %v\n%s", answers, err, out)
					}
				}
				d.quiet(fenced)
				since := probe.Now()
				d.mustConfirm(one)
				d.client.WaitAnswer("director1", since, limit)
				if n := uses() - fenced; rule == scenario.Fencing && n != 1 || rule != scenario.Fencing && n != 0 {
					t.Errorf("%d uses of the device", n)
				}
				d.Lab.Eventually(limit, "the history to say who confirmed", func() bool {
					return strings.Contains(strings.Join(strings.Fields(d.must(one, "history")), " "), "confirmed by root")
				})
				d.Revive(two)
				sameHistory(before, [2]int{0, 1})
				if out, err := d.confirm(one, "director2", "yes"); err == nil || !strings.Contains(out, "nothing to confirm") {
					t.Errorf("quorum confirm in a whole pair: %v\n%s", err, out)
				}
			})

			d.part("two histories: an operator chooses", func() {
				owner := d.owner()
				before, epoch := logs(), d.epoch()
				since := owner.Die()
				last := d.Other(owner)
				d.takenOver(last, since, epoch)
				last.Die()
				d.Revive(owner)
				d.phase(owner, "waiting", "")
				d.mustConfirm(owner)
				d.client.WaitAnswer(owner.Name, probe.Now(), limit)
				d.Revive(last)
				serving := probe.Now()
				d.phase(last, "rivals", "quorum confirm")
				time.Sleep(aWhile)
				if logs() != before {
					t.Error("a log was put aside before an operator has chosen")
				}
				// What acts is not stopped by a word at the other one.
				if out, err := d.confirm(last, owner.Name, "yes"); err == nil || !strings.Contains(out, owner.Name+" acts") {
					t.Errorf("quorum confirm on the one that waits: %v\n%s", err, out)
				}
				chosen, given := owner, last
				if rule == scenario.Unsafe {
					chosen, given = last, owner
					d.neverSilent(serving, "rivals")
					if err := d.Daemons[owner.Name].Terminate(limit); err != nil {
						t.Errorf("stopping %s: %v", owner.Name, err)
					}
					d.phase(last, "waiting", "")
				}
				d.mustConfirm(chosen)
				if chosen == last {
					d.client.WaitAnswer(last.Name, probe.Now(), limit)
					d.Start(owner)
				} else if rule == scenario.Fencing {
					d.Lab.Eventually(limit, given.Name+" to be fenced or to come back", func() bool {
						return given.Dead() || d.discarded(given) > before[0]+before[1]-d.discarded(chosen)
					})
					if given.Dead() {
						d.Revive(given)
					}
				}
				aside := [2]int{1, 0}
				if given == two {
					aside = [2]int{0, 1}
				}
				sameHistory(before, aside)
				if chosen == owner {
					d.neverSilent(serving, "two histories of which the one that acts was chosen")
				}
			})
		})
	}
}

// TestAPairsNodeThatLostItsDiskComesBack: it is not mistaken for one that votes.
func TestAPairsNodeThatLostItsDiskComesBack(t *testing.T) {
	t.Parallel()
	d := beginDuo(t, scenario.Ping, scenario.Options{})
	since := probe.Now()
	standby := d.Other(d.owner())
	standby.Die()
	emptyDisk(t, standby)
	d.Revive(standby)
	d.settle()
	d.neverSilent(since, "the standby's new disk")
}

// TestAPairWithoutTieBreakerStopsWhenItBreaks: the last one of the three that is left serves nobody.
func TestAPairWithoutTieBreakerStopsWhenItBreaks(t *testing.T) {
	t.Parallel()
	d := beginDuo(t, scenario.Ping, scenario.Options{})
	since := probe.Now()
	d.Gateway.Die()
	time.Sleep(aWhile)
	d.neverSilent(since, "the tie-breaker's death in a whole pair")
	owner := d.owner()
	since = d.Other(owner).Die()
	d.phase(owner, "surviving", "the tie-breaker does not answer")
	d.silentBy(owner, since, lease+hushed)
	since = probe.Now()
	d.Gateway.Revive()
	d.client.WaitAnswer(owner.Name, since, limit)
	d.comesBack(d.Other(owner))
	d.see(owner, "no trouble", func(st cluster.Status) bool { return len(st.Trouble) == 0 })
}
