package watchdog

import (
	"strings"
	"testing"
	"time"
)

const (
	ms = time.Millisecond
	s  = time.Second
)

func TestStep(t *testing.T) {
	// A device of 10 s, fed at 100 s; looked at at 101 s, unless it says otherwise.
	armed := state{timeout: 10 * s, fed: 100 * s, armed: true}
	held := armed
	held.held, held.since, held.said = []string{"actor"}, 100*s, 9*s
	left := state{timeout: 10 * s, fed: 100 * s, grace: 130 * s}
	starved := armed
	starved.starved = "group db: stop failed"

	young := reading{name: "actor", age: 1 * s, maxAge: 2 * s}
	old := reading{name: "actor", age: 2001 * ms, maxAge: 2 * s}
	idle := reading{name: "leader", age: 0, maxAge: 2 * s, idle: true}

	for name, tc := range map[string]struct {
		state state
		now   time.Duration
		beats []reading
		feed  bool
		holds string // the text of what holds it back; empty with feed
		says  bool   // a line is logged
		left  time.Duration
	}{
		"every loop turns: it is fed":                  {state: armed, beats: []reading{young}, feed: true},
		"a loop just at its age: it is fed":            {state: armed, beats: []reading{{name: "actor", age: 2 * s, maxAge: 2 * s}}, feed: true},
		"an idle loop need not turn":                   {state: armed, beats: []reading{young, idle}, feed: true},
		"one old loop of two holds it back, by name":   {state: armed, beats: []reading{old, {name: "lease", maxAge: s}}, holds: "actor has not turned for 2.001s (2s allowed)", says: true, left: 9 * s},
		"two old loops are both named":                 {state: armed, beats: []reading{old, {name: "lease", age: 3 * s, maxAge: s}}, holds: "actor has not turned for 2.001s (2s allowed); lease has not turned for 3s (1s allowed)", says: true, left: 9 * s},
		"no loop at all: it is not fed":                {state: armed, holds: "no loop is registered", says: true, left: 9 * s},
		"what was said is not said again at once":      {state: held, beats: []reading{old}, holds: "actor has not turned for 2.001s (2s allowed)"},
		"and is said again when half the time is over": {state: held, now: 105500 * ms, beats: []reading{old}, holds: "actor has not turned for 2.001s (2s allowed)", says: true, left: 4500 * ms},
		"another loop that holds it back is said":      {state: held, beats: []reading{{name: "lease", age: 3 * s, maxAge: s}}, holds: "lease has not turned for 3s (1s allowed)", says: true, left: 9 * s},
		"a loop that turns again: fed, and said":       {state: held, beats: []reading{young}, feed: true, says: true, left: 9 * s},
		"past its time there is nothing left":          {state: armed, now: 111 * s, beats: []reading{old}, holds: "actor has not turned for 2.001s (2s allowed)", says: true, left: 0},
		"past its time, the loop turns: it is tried":   {state: armed, now: 111 * s, beats: []reading{young}, feed: true},
		"starved: never fed, whatever turns":           {state: starved, beats: []reading{young}, holds: "starved: group db: stop failed", says: true, left: 9 * s},
		"after a re-exec it is fed before it is armed": {state: left, feed: true},
		"and by loops that have not begun, too":        {state: left, beats: []reading{old}, feed: true},
		"but not for longer than was said":             {state: left, now: 130 * s, beats: []reading{young}, holds: "the restarted daemon has not armed it within the time that it had", says: true},
		"the time after a re-exec ends with arming":    {state: state{timeout: 10 * s, fed: 100 * s, grace: 130 * s, armed: true}, beats: []reading{old}, holds: "actor has not turned for 2.001s (2s allowed)", says: true, left: 9 * s},
		"starved in the time after a re-exec":          {state: state{timeout: 10 * s, fed: 100 * s, grace: 130 * s, starved: "lease"}, holds: "starved: lease", says: true, left: 9 * s},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.now == 0 {
				tc.now = 101 * s
			}
			next, feed, notes := tc.state.step(tc.now, tc.beats)
			if feed != tc.feed {
				t.Errorf("feed: %v", feed)
			}
			var texts []string
			for _, h := range tc.state.holds(tc.now, tc.beats) {
				texts = append(texts, h.text)
			}
			if got := strings.Join(texts, "; "); got != tc.holds {
				t.Errorf("held back by %q, want %q", got, tc.holds)
			}
			if (len(next.held) > 0) == feed {
				t.Errorf("fed: %v, and held back by %v", feed, next.held)
			}
			if (len(notes) > 0) != tc.says {
				t.Fatalf("says %+v", notes)
			}
			if tc.says && notes[0].left != tc.left {
				t.Errorf("%v left, want %v", notes[0].left, tc.left)
			}
		})
	}
}

func TestALoopThatHangsForTenMinutesIsAFewLines(t *testing.T) {
	st := state{timeout: 10 * time.Minute, armed: true}
	lines := 0
	for now := time.Duration(0); now < 10*time.Minute; now += recheck {
		var notes []note
		st, _, notes = st.step(now, []reading{{name: "actor", age: now + s, maxAge: s}, {name: "lease"}})
		lines += len(notes)
	}
	if lines < 5 || lines > 15 {
		t.Errorf("%d lines", lines)
	}
}

func TestTheNextLookComesInTime(t *testing.T) {
	for _, tc := range []struct{ timeout, fed, held time.Duration }{
		{1 * s, 125 * ms, 50 * ms},
		{5 * s, 625 * ms, 50 * ms},
		{10 * time.Minute, 1 * s, 50 * ms},
	} {
		st := state{timeout: tc.timeout}
		if got := st.next(); got != tc.fed {
			t.Errorf("timeout %v: next feeding after %v, want %v", tc.timeout, got, tc.fed)
		}
		st.held = []string{"actor"}
		if got := st.next(); got != tc.held {
			t.Errorf("timeout %v, not fed: next look after %v, want %v", tc.timeout, got, tc.held)
		}
	}
}
