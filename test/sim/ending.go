package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
)

// recover lets everything work again and waits for the groups to answer.
func (r *run) recover() {
	w := r.w
	for _, m := range w.machines {
		if m.paused {
			m.cont()
		}
		m.diskNow().arm(fuse{})
		r.tell(m, func(m *machine) { m.failStarts, m.failStops = 0, 0 })
	}
	r.rest(500 * time.Millisecond) // what is being started or stopped may still be
	for r.wait > 0 {
		r.rest(100 * time.Millisecond)
	}
	for _, m := range w.machines {
		r.ok(m.powerOn())
	}
	r.enlist(true)
	if r.s.Upgrade {
		r.upgrade()
	}
	r.asked = time.Now()
	limit := time.Now().Add(r.s.bound())
	var whys []string // the last ones that differ
	if !r.until(time.Until(limit), func() bool {
		r.enlist(true)
		why := r.unfinished()
		if why != "" && !slices.Contains(whys, why) {
			whys = append(whys[max(0, len(whys)-3):], why)
		}
		return why == ""
	}) {
		r.fail("%v after the last fault: %s", r.s.bound(), strings.Join(whys, "; "))
		return
	}
	w.note("== settled again")
	if r.s.Failback && !r.s.has(standby, takeover, nodes, failStarts, failStops, lostAddress) && !r.s.yields() {
		if !r.until(time.Until(limit.Add(10*time.Second)), w.home) {
			r.fail("auto_failback is on, and not every group is where it should be")
			return
		}
	}
	r.rest(2 * time.Second)
	if why := w.unsettled(); why != "" && !r.s.has(failStarts, failStops, lostAddress) && !r.s.yields() && !r.s.Failback {
		r.fail("it had settled and did not stay so: %s", why)
	}
}

// unfinished says in words what is still to come; empty: nothing.
func (r *run) unfinished() string {
	switch {
	case !r.chosen():
		return "an operator has to choose"
	case !r.applied():
		return "the newest files are not applied"
	case r.w.power.atWork():
		return "the device is at work"
	}
	return cmp.Or(r.w.unsettled(), r.w.agree())
}

// chosen says whether no operator is waited for. When one is, as it may be in
// a pair whose nodes have both survived the other, one chooses.
func (r *run) chosen() bool {
	if r.s.has(diskLoss) && r.w.forgotten() {
		if time.Since(r.asked) > 5*time.Second {
			r.anew()
		}
		return false
	}
	rivals, force := r.w.rivals(), false
	if len(rivals) == 0 && r.s.has(diskLoss) {
		rivals, force = r.w.bereft(), true
	}
	if len(rivals) == 0 {
		r.asked = time.Now()
		return true
	}
	if r.s.ByItself {
		r.s.ByItself = false
		r.w.violate("an operator has to choose, and nothing has happened that asks for one")
	}
	if time.Since(r.asked) > 5*time.Second {
		r.asked = time.Now()
		// One that waits while the other acts refuses, and says so.
		for _, i := range r.dice.Perm(len(rivals)) {
			if r.say(rivals[i], force) == nil {
				break
			}
		}
	}
	return false
}

// bereft returns the machines that follow without a vote and have lost whom
// they followed: its disk is empty.
func (w *world) bereft() []*machine {
	var ms []*machine
	lost := false
	for _, m := range w.machines {
		switch {
		case m.node == nil:
		case m.diskNow().last() == 0:
			lost = true
		case m.record.phaseNow() == pair.Joining:
			ms = append(ms, m)
		}
	}
	if !lost {
		return nil
	}
	return ms
}

// rivals returns the machines of which an operator has to choose one: both, if one waits for that.
func (w *world) rivals() []*machine {
	var ms []*machine
	wait := false
	for _, m := range w.machines {
		if m.node != nil {
			ms = append(ms, m)
			wait = wait || m.record.phaseNow() == pair.Rivals
		}
	}
	if !wait {
		return nil
	}
	return ms
}

// lag is by how many entries one node may be behind another at rest: a probe
// of the disk is told to the followers with the next entry.
const lag = 2

// mostVoters is how many nodes vote: the others follow.
const mostVoters = 7

// agree says in what the nodes differ: their generation, what they have
// decided, who votes; empty: in nothing.
func (w *world) agree() string {
	var first *machine
	for _, m := range w.members() {
		if m.node == nil {
			return m.name + " runs no daemon"
		}
		if first == nil {
			first = m
			continue
		}
		if a, b := first.diskNow().generationNow().Current, m.diskNow().generationNow().Current; a != b {
			return fmt.Sprintf("%s is in generation %v, %s in %v", first.name, a, m.name, b)
		}
		a, b := first.node.State(), m.node.State()
		if a.Index == b.Index && !bytes.Equal(canonical(a), canonical(b)) {
			return fmt.Sprintf("at index %d %s and %s have come to different states", a.Index, first.name, m.name)
		}
		if max(a.Index, b.Index) > min(a.Index, b.Index)+lag {
			return fmt.Sprintf("%s has applied %d, %s %d", first.name, a.Index, m.name, b.Index)
		}
	}
	st := first.node.State()
	var votes []string
	for _, id := range st.Voters.IDs {
		name, _, _ := strings.Cut(id, "/")
		votes = append(votes, name)
	}
	if len(votes) != min(len(w.members()), mostVoters) {
		return fmt.Sprintf("of %d nodes %v vote", len(w.members()), votes)
	}
	for _, m := range w.members() {
		if want := cmp.Or(m.format, state.Format); st.Format != want {
			return fmt.Sprintf("the state has format %d, and %s knows %d", st.Format, m.name, want)
		}
	}
	return ""
}
