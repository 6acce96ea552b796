package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// announced is a schedule of three directors that announce a group each.
func announced(c conf.Conflict, events ...event) schedule {
	s := schedule{Config: Config{Seed: 1, Profile: conf.ProfileDefault}, Events: events}
	s.announce(c)
	for _, e := range events {
		s.Calm = max(s.Calm, e.At+e.For)
	}
	return s
}

func TestForeignMasters(t *testing.T) {
	all := func(forged bool) event {
		return event{At: 2 * sec, For: 30 * sec, Do: foreignMaster, Count: 1, Flag: forged}
	}
	of := func(names ...string) event {
		e := all(false)
		e.On = names
		return e
	}
	briefly := event{At: 2 * sec, For: 24 * sec, Do: foreignMaster, Count: 1, On: []string{"director1"}} // not when it is back
	// In all of them group1 is director1's when the foreign master appears.
	for name, c := range map[string]struct {
		do     conf.Conflict
		events []event
		owner  string // of group1 at 20 s; empty: nobody
		fenced int
	}{
		"yield: it runs nowhere while everybody hears it":      {conf.ConflictYield, []event{all(false)}, "", 0},
		"yield: it runs where nobody hears it":                 {conf.ConflictYield, []event{of("director1")}, "director2", 0},
		"yield: who does not own it may hear it":               {conf.ConflictYield, []event{of("director2")}, "director1", 0},
		"keep: it stays":                                       {conf.ConflictKeep, []event{all(false)}, "director1", 0},
		"fence: it stays, and the router is fenced":            {conf.ConflictFence, []event{all(false)}, "director1", 1},
		"fence: heard by the owner only":                       {conf.ConflictFence, []event{of("director1")}, "director1", 1},
		"fence: who does not own the group accuses nobody":     {conf.ConflictFence, []event{of("director2", "director3")}, "director1", 0},
		"fence: a forgery has it fenced once":                  {conf.ConflictFence, []event{all(true)}, "director1", 1},
		"fence: an owner without a majority has nobody fenced": {conf.ConflictFence, []event{briefly, {At: 2500 * time.Millisecond, For: 25 * sec, Do: partition, On: []string{"director1"}}}, "director2", 0},
		"fence: nor does a deaf one":                           {conf.ConflictFence, []event{briefly, {At: 2500 * time.Millisecond, For: 25 * sec, Do: oneWay, On: []string{"director1"}}}, "director2", 0},
		"fence: the next owner does, which hears it, too":      {conf.ConflictFence, []event{all(false), {At: 4 * sec, For: 25 * sec, Do: power, On: []string{"director1"}}}, "director2", 1},
		"fence: one that has left before is not fenced":        {conf.ConflictFence, []event{{At: 2 * sec, For: 2500 * time.Millisecond, Do: foreignMaster, Count: 1}, {At: 3 * sec, For: sec, Do: pause, On: []string{"director1"}}}, "director1", 0},
		"fence: a device that fails is tried again by another node": {conf.ConflictFence, []event{
			{At: 2 * sec, For: 80 * sec, Do: foreignMaster, Count: 1}, {At: sec, For: 90 * sec, Do: deviceFails, Count: deviceTries},
		}, "director1", deviceTries + 1},
		"fence: an answer that is lost is no reason for a loop": {conf.ConflictFence, []event{all(true), {At: sec, For: 40 * sec, Do: deviceMute, Count: 9}}, "director1", deviceTries},
		"fence: who works the device dies":                      {conf.ConflictFence, []event{{At: 2 * sec, For: 80 * sec, Do: foreignMaster, Count: 1}, {At: sec, For: 40 * sec, Do: diesAsking}}, "", 2},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			owner, _, w := playForeign(t, announced(c.do, c.events...))
			if c.owner != "" && owner != c.owner || c.owner == "" && c.do == conf.ConflictYield && owner != "" {
				t.Errorf("group1 is of %q, want %q", owner, c.owner)
			}
			if w.air.fenced != c.fenced {
				t.Errorf("fenced %d times, want %d", w.air.fenced, c.fenced)
			}
			if t.Failed() {
				t.Logf("%s", w.transcript.Bytes())
			}
		})
	}
}

// playForeign returns whose group1 is 22 s after the start, and what the log says by then
// of the last fencing.
func playForeign(t *testing.T, s schedule) (owner, last string, w *world) {
	w = play(t, s.Config, func(w *world) {
		r := newRun(w, s)
		r.async(func() func() {
			time.Sleep(22 * sec)
			return func() {
				owner = w.owner(0)
				if f := w.machine("director3").node.State().Fences; len(f) > 0 {
					last = f[len(f)-1].Why
				}
			}
		})
		r.play()
		r.drain()
	})
	for _, v := range w.violations {
		t.Error(v)
	}
	return owner, last, w
}

// The device takes 8 s to fail, and is asked once: when it has failed there is no reason any more to try again.
func TestAForeignMasterIsNotTriedAgainForNothing(t *testing.T) {
	heard := func(until time.Duration, by ...string) event {
		return event{At: 2 * sec, For: until - 2*sec, Do: foreignMaster, Count: 1, On: by}
	}
	for name, c := range map[string]struct {
		foreign, fault event
		why            string // in the log; empty: who was to do it cannot write there
	}{
		"the operator's lease has ended": {heard(26*sec, "director1"), event{At: 8 * sec, For: 25 * sec, Do: partition, On: []string{"director1"}}, ""},
		"the operator was stopped":       {heard(26*sec, "director1"), event{At: 8 * sec, For: 14 * sec, Do: pause, On: []string{"director1"}}, ""},
		"it has left":                    {heard(9 * sec), event{}, "under epoch 1 it hears no foreign master of group group1"},
		"the group has moved":            {heard(32 * sec), event{At: 8 * sec, Do: standby, On: []string{"director1"}, Count: 1}, "director2: under epoch 1 it hears no foreign master of group group1"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			events := []event{c.foreign, {At: sec, For: 20 * sec, Do: deviceSlow, Count: 8000}, {At: sec, For: 40 * sec, Do: deviceFails, Count: 1}}
			if c.fault.Do != 0 {
				events = append(events, c.fault)
			}
			_, why, w := playForeign(t, announced(conf.ConflictFence, events...))
			if w.air.fenced != 1 || c.why != "" && !strings.Contains(why, c.why) {
				t.Errorf("fenced %d times, %q\n%s", w.air.fenced, why, w.transcript.Bytes())
			}
		})
	}
}

// The programs of the nodes are replaced one by one while a foreign master is heard:
// before the last of them nobody would know what the request means.
func TestAForeignMasterIsFencedWhenEveryNodeKnowsHow(t *testing.T) {
	s := announced(conf.ConflictFence,
		event{At: 2 * sec, For: 60 * sec, Do: foreignMaster, Count: 1},
		event{At: 20 * sec, Do: upgrade},
	)
	s.Upgrade, s.From = true, 3
	w := judge(t, s)
	before, _, fenced := strings.Cut(w.transcript.String(), " has "+router9+" fenced")
	if n := strings.Count(before, "has the newest program"); !fenced || n == 0 || n < strings.Count(w.transcript.String(), "has the newest program") || w.air.fenced != 1 {
		t.Errorf("fenced %d times, when %d nodes had the newest program\n%s", w.air.fenced, n, w.transcript.Bytes())
	}
}

// A survivor has a quorum by its rule.
func TestTheSurvivorOfAPairHasAForeignMasterFenced(t *testing.T) {
	for _, rule := range []conf.Quorum{conf.QuorumFencing, conf.QuorumPing} {
		for _, dies := range both {
			t.Run(rule.String()+", without "+dies, func(t *testing.T) {
				s := pairSchedule(rule,
					event{At: sec, For: 40 * sec, Do: power, On: []string{dies}},
					event{At: sec, For: 40 * sec, Do: noTieBreaker, On: []string{dies}},
					event{At: 15 * sec, For: 15 * sec, Do: foreignMaster, Count: 2},
				)
				s.Announced, s.OnConflict = 2, conf.ConflictFence
				if w := judge(t, s); w.air.fenced != 1 {
					t.Errorf("fenced %d times\n%s", w.air.fenced, w.transcript.Bytes())
				}
			})
		}
	}
}

func TestForeignStories(t *testing.T) {
	for name := range foreignStories {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) {
				judge(t, newSchedule(seed, name))
			}
		})
	}
}
