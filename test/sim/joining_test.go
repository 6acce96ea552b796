package sim

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// A survivor takes a third director in while the peer, which it has fenced,
// cannot hear it. The peer goes on by the rule in its turn; the third one must
// not act on the word of the one that was overtaken.
func TestADirectorThatJoinsASurvivorWaitsForThePeer(t *testing.T) {
	s := pairSchedule(conf.QuorumFencing,
		event{At: 3 * sec, For: 5 * sec, Do: crash, On: []string{"director2"}},
		event{At: 3200 * time.Millisecond, For: 9 * sec, Do: oneWay, On: []string{"director2"}},
		event{At: 7 * sec, Do: nodes, On: []string{"director1"}, Peer: "spare1"},
	)
	s.OneStarts, s.Together, s.Spares = true, true, []conf.Role{conf.Director}
	judge(t, s)
}

// What is left by a clean stop decides by itself, by no rule: not by the tie-breaker either.
func TestWhoIsLeftByACleanStopNeedsNoTieBreaker(t *testing.T) {
	judge(t, pairSchedule(conf.QuorumPing,
		event{At: 2 * sec, For: 20 * sec, Do: cleanStop, On: []string{"director1"}},
		event{At: 8 * sec, For: 10 * sec, Do: noTieBreaker, On: []string{"director2"}},
		event{At: 12 * sec, Do: served},
	))
}

// The specification says how long leases are, also where ha.yaml says otherwise:
// the other side waits for that long and no longer.
func TestAnotherProfileInHaYamlMakesNoLongerLease(t *testing.T) {
	s := pairSchedule(conf.QuorumPing,
		event{At: 4 * sec, For: 10 * sec, Do: partition, On: []string{"director1"}},
		event{At: 4 * sec, For: 10 * sec, Do: noTieBreaker, On: []string{"director1"}},
		event{At: 4 * sec, For: 900 * time.Millisecond, Do: serviceCut},
	)
	s.Profile, s.Mixed = conf.ProfileFast, conf.ProfileCalm
	w := judge(t, s)
	// The network was cut, which excuses much, but not one that has not reached the tie-breaker since.
	if bytes.Contains(w.transcript.Bytes(), []byte("director1+director2")) {
		t.Errorf("two owners\n%s", w.transcript.Bytes())
	}
}

// A node that is stopped cleanly gives up its vote, and the other one decides
// alone from then on. The one that stops may not have heard that it is so when
// it hears nothing any more: it fences nobody, and does not go on without what
// the other has decided.
func TestWhoIsBeingStoppedSurvivesNobody(t *testing.T) {
	for seed := range uint64(4) {
		for _, d := range []time.Duration{20, 100, 200} {
			s := pairSchedule(conf.QuorumFencing,
				event{At: 5 * sec, For: 12 * sec, Do: cleanStop, On: []string{"director1"}},
				event{At: 5*sec + d*time.Millisecond, For: 3 * sec, Do: oneWay, On: []string{"director1"}},
			)
			s.Seed = seed
			w := judge(t, s)
			if bytes.Contains(w.transcript.Bytes(), []byte("director1 fences")) {
				t.Errorf("seed %d: what is being stopped fences the other\n%s", seed, w.transcript.Bytes())
			}
		}
	}
}

// A machine that was in another pair is added with its old data directory. What
// it knows puts an end to nobody's history; nor does it take part before that
// directory has been moved away.
func TestADiskOfAnotherClusterEndsNobodysHistory(t *testing.T) {
	for _, rule := range []conf.Quorum{0, conf.QuorumFencing, conf.QuorumPing} {
		s := schedule{Config: Config{Seed: 1, Directors: 3, Groups: 2, Profile: conf.ProfileDefault, Spares: []conf.Role{conf.Director}, Foreign: true}}
		if rule != 0 {
			s = pairSchedule(rule)
			s.Spares, s.Foreign = []conf.Role{conf.Director}, true
		}
		s.Starts = make([]time.Duration, s.Directors)
		s.Events = []event{{At: 2 * sec, Do: nodes, On: []string{"director1"}, Peer: "spare1"}, {At: 6 * sec, Do: served}}
		s.Calm = 8 * sec
		w := play(t, s.Config, func(w *world) {
			r := newRun(w, s)
			r.play()
			r.drain()
		})
		// That spare1 itself belongs nowhere is what is wanted.
		bad := slices.DeleteFunc(w.violations, func(v string) bool { return strings.Contains(v, "spare1") })
		if text := w.transcript.String(); len(bad) > 0 || strings.Contains(text, "puts its log aside") {
			t.Errorf("%v: %v\n%s", rule, bad, text)
		}
	}
}

// Who leads may not hear a node that waits to be taken in: the ha.yaml of one that
// was away does not name a node that came meanwhile. A voter that hears it leads then.
func TestWhoIsHeardByOneThatDoesNotLeadIsTakenIn(t *testing.T) {
	for seed := range uint64(6) {
		// The witness came while director1 was stopped, and leads when it is back.
		s := pairSchedule(conf.QuorumPing,
			event{At: sec, For: 14 * sec, Do: cleanStop, On: []string{"director1"}},
			event{At: 2 * sec, Do: nodes, On: []string{"director2"}, Peer: "spare1"},
			event{At: 14500 * time.Millisecond, For: 4 * sec, Do: partition, On: []string{"director2"}},
		)
		s.Seed, s.Spares = seed, []conf.Role{conf.Witness}
		judge(t, s)
		// The third one has been removed, and leads until director2, whose disk was lost, votes in its place.
		s = pairSchedule(conf.QuorumFencing,
			event{At: sec, Do: nodes, On: []string{"director1"}, Peer: "spare1"},
			event{At: 12 * sec, For: 5 * sec, Do: diskLoss, On: []string{"director2"}},
			event{At: 14 * sec, Do: nodes, On: []string{"director1"}, Peer: "spare1", Flag: true},
			event{At: 16 * sec, For: 4 * sec, Do: partition, On: []string{"director1"}},
		)
		s.Seed, s.Spares = seed, []conf.Role{conf.Director}
		judge(t, s)
	}
}
