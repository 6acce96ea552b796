package watchdog

import (
	"fmt"
	"slices"
	"time"
)

// reading is a beat as it was found at one instant.
type reading struct {
	name        string
	age, maxAge time.Duration
	idle        bool
}

// state is what the decision whether to feed stands on. Instants are durations
// since one moment.
type state struct {
	timeout time.Duration
	fed     time.Duration // when the device was fed last
	armed   bool          // beats count
	// grace is until when a device that a daemon left to its successor is fed although it is not armed yet.
	grace   time.Duration
	starved string // why it is never fed again

	held  []string      // names of what holds it back; empty: it is fed
	since time.Duration // when it was held back first
	said  time.Duration // the time that was left when that was said last
}

// hold is one thing that holds the feeding back.
type hold struct {
	name string // of the loop, or of what else it is
	text string
}

func (h hold) String() string { return h.text }

// note is something to log.
type note struct {
	fedAgain bool // else: it is not fed
	holds    []hold
	left     time.Duration // until the device bites
	lasted   time.Duration // how long it was not fed
}

// left is the time until the device bites.
func (s state) left(now time.Duration) time.Duration { return max(0, s.fed+s.timeout-now) }

// holds lists what speaks against feeding.
func (s state) holds(now time.Duration, beats []reading) []hold {
	switch {
	case s.starved != "":
		return []hold{{"starved", "starved: " + s.starved}}
	case !s.armed && now < s.grace:
		return nil
	case !s.armed:
		return []hold{{"restart", "the restarted daemon has not armed it within the time that it had"}}
	case len(beats) == 0:
		return []hold{{"loops", "no loop is registered"}}
	}
	var holds []hold
	for _, b := range beats {
		if !b.idle && b.age > b.maxAge {
			holds = append(holds, hold{b.name, fmt.Sprintf("%s has not turned for %v (%v allowed)", b.name, b.age.Round(time.Millisecond), b.maxAge)})
		}
	}
	return holds
}

// step decides whether to feed now, and what to say about it. After feeding, the caller sets fed.
func (s state) step(now time.Duration, beats []reading) (next state, feed bool, notes []note) {
	holds := s.holds(now, beats)
	left := s.left(now)
	if len(holds) == 0 {
		if len(s.held) > 0 {
			notes = append(notes, note{fedAgain: true, left: left, lasted: now - s.since})
		}
		s.held = nil
		return s, true, notes
	}
	var names []string
	for _, h := range holds {
		names = append(names, h.name)
	}
	if len(s.held) == 0 {
		s.since = now
	}
	// Said at first, when something else holds it back, and each time half of what was left is over: few lines, also of ten minutes.
	if !slices.Equal(names, s.held) || left <= s.said/2 && s.said > 0 {
		notes = append(notes, note{holds: holds, left: left, lasted: now - s.since})
		s.said = left
	}
	s.held = names
	return s, false, notes
}

// Feeding is tried eight times in a timeout: a scheduler that is late a few
// times in a row does no harm. Once a second is enough for any.
const perTimeout = 8

// recheck is the time between two looks while it is not fed: a loop that turns
// again late is noticed before the device bites.
const recheck = 50 * time.Millisecond

// next is the time until the next step.
func (s state) next() time.Duration {
	every := min(s.timeout/perTimeout, time.Second)
	if len(s.held) > 0 {
		return min(every, recheck)
	}
	return every
}
