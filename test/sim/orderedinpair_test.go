package sim

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
)

// TestAnOrderToFenceInAPairIsDoneNowOrNever: `keepbeat fence` on a node that has gone on
// alone, has been stopped, or waits. Kept in mind, it would be done when the other one is back and well.
func TestAnOrderToFenceInAPairIsDoneNowOrNever(t *testing.T) {
	orderAt := func(at time.Duration) event {
		return event{At: at, Do: orderFence, On: []string{"director1"}, Peer: "director2"}
	}
	const refused = "fence director2 on director1: this node is "
	for name, c := range map[string]struct {
		events  []event
		device  int    // how often it is used for director2
		history string // the generation at the end, "1." or "2."
		says    string
	}{
		"both are there": {[]event{orderAt(5 * sec)}, 1, "1.", "fence director2 on director1: <nil>"},
		"the other has been fenced and does not come back by itself": {[]event{
			{At: 2 * sec, For: 25 * sec, Do: power, On: []string{"director2"}}, orderAt(12 * sec),
		}, 2, "1.", "fence director2 on director1: <nil>"},
		"the device fails, and the other is well": {[]event{
			{At: 2 * sec, For: 25 * sec, Do: deviceFails, Count: 100}, orderAt(12 * sec),
		}, 0, "0", "fence director2 on director1: <nil>"},
		"the other was stopped": {[]event{
			{At: 2 * sec, For: 25 * sec, Do: cleanStop, On: []string{"director2"}}, orderAt(12 * sec),
		}, 1, "0", "fence director2 on director1: <nil>"},
		"it waits for the other": {[]event{
			{At: 6 * sec, For: 4 * sec, Do: power, On: []string{"director1"}},
			{At: 6 * sec, For: 40 * sec, Do: power, On: []string{"director2"}}, orderAt(18 * sec),
		}, 0, "0", refused + "waiting, and fences nobody: "},
		"it was stopped before the other died": {[]event{
			{At: 6 * sec, For: 8 * sec, Do: cleanStop, On: []string{"director1"}},
			{At: 10 * sec, For: 40 * sec, Do: power, On: []string{"director2"}}, orderAt(20 * sec),
		}, 0, "0", refused + "joining, and fences nobody: "},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			s := pairSchedule(conf.QuorumFencing, c.events...)
			s.Calm = max(s.Calm, 40*sec) // long enough for what was kept in mind
			w := judge(t, s)
			text := w.transcript.String()
			if n := strings.Count(text, "director1 fences director2"); n != c.device {
				t.Errorf("the device was used %d times, want %d", n, c.device)
			}
			if !strings.Contains(text, c.says) {
				t.Errorf("not said: %s", c.says)
			}
			last := ""
			for line := range strings.Lines(text) {
				if _, g, ok := strings.Cut(line, ": generation "); ok {
					last = g
				}
			}
			if !strings.HasPrefix(last+"0", c.history) {
				t.Errorf("the last generation is %q, want %s", last, c.history)
			}
			if t.Failed() {
				t.Logf("%s", text)
			}
		})
	}
}

// TestWhoOrdersAFencingThatFailsIsToldSo: the other one is well, so that nothing is tried again.
func TestWhoOrdersAFencingThatFailsIsToldSo(t *testing.T) {
	s := pairSchedule(conf.QuorumFencing, event{At: sec, For: 90 * sec, Do: deviceFails, Count: 100})
	play(t, s.Config, func(w *world) {
		r := newRun(w, s)
		go func() { // while the device fails
			time.Sleep(20 * sec)
			n := w.machine("director1").node
			ctx, cancel := context.WithTimeout(cluster.WithOrder(context.Background(), cluster.Order{By: "alice"}), 30*time.Second)
			defer cancel()
			o, err := n.Fence(ctx, "director2")
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := n.FenceWait(ctx, o); err == nil || !strings.HasPrefix(err.Error(), "director2: not fenced: ") {
				t.Errorf("it was told: %v", err)
			}
		}()
		r.play()
		r.drain()
	})
}

// TestANodeThatWaitsShowsWhatItsLogHolds: history and fence history, for whoever has to decide.
func TestANodeThatWaitsShowsWhatItsLogHolds(t *testing.T) {
	s := pairSchedule(conf.QuorumFencing,
		event{At: sec, For: 5 * sec, Do: power, On: []string{"director1"}}, // fenced, and back
		event{At: 30 * sec, For: 5 * sec, Do: power, On: []string{"director2"}},
		event{At: 30 * sec, For: 90 * sec, Do: power, On: []string{"director1"}},
	)
	play(t, s.Config, func(w *world) {
		r := newRun(w, s)
		go func() { // while director2 waits for director1
			time.Sleep(60 * sec)
			n := w.machine("director2").node
			d, err := n.History("")
			if err != nil || len(d) == 0 {
				t.Errorf("%d decisions, %v", len(d), err)
			}
			if f := n.FenceHistory("director1"); len(f) == 0 || !f[0].Done {
				t.Errorf("it shows %+v", f)
			}
		}()
		r.play()
		r.drain()
	})
}

// TestAnOnlyVoterThatWasSwitchedOffIsNotSwitchedOn: director1 was stopped first and is forced to
// go on; director2, which votes alone by all that it knows, is off. An order to fence it, or a word
// that director1 goes on after a start, may not start it behind a cut.
func TestAnOnlyVoterThatWasSwitchedOffIsNotSwitchedOn(t *testing.T) {
	forced := []event{
		{At: 4 * sec, For: 12 * sec, Do: cleanStop, On: []string{"director1"}},
		{At: 12 * sec, For: sec, Do: power, On: []string{"director2"}},
		{At: 12*sec + 500*time.Millisecond, For: 60 * sec, Do: partition, On: []string{"director2"}},
		{At: 20 * sec, Do: confirm, On: []string{"director1"}, Flag: true},
	}
	for name, more := range map[string][]event{
		"by an order": {{At: 32 * sec, Do: orderFence, On: []string{"director1"}, Peer: "director2"}},
		"by a word after a start": {
			{At: 32 * sec, For: 2 * sec, Do: crash, On: []string{"director1"}},
			{At: 42 * sec, Do: confirm, On: []string{"director1"}},
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			w := judge(t, pairSchedule(conf.QuorumFencing, append(forced, more...)...))
			if n := strings.Count(w.transcript.String(), "director1 fences director2"); n != 2 {
				t.Errorf("the device was used %d times\n%s", n, w.transcript.Bytes())
			}
		})
	}
}
