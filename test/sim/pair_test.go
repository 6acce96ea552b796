package sim

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// pairSchedule is a schedule of two directors under a rule.
func pairSchedule(rule conf.Quorum, events ...event) schedule {
	s := schedule{Config: Config{Seed: 1, Directors: 2, Groups: 2, Profile: conf.ProfileDefault, Rule: rule, Log: os.Getenv("KEEPBEAT_SIM_LOG") != ""}}
	if rule == conf.QuorumFencing {
		s.Stores = 1
	}
	s.Starts = []time.Duration{0, 300 * time.Millisecond}
	s.Events = events
	for _, e := range events {
		s.Calm = max(s.Calm, e.At+e.For)
	}
	return s
}

var pairRules = []conf.Quorum{conf.QuorumFencing, conf.QuorumPing, conf.QuorumUnsafe}

func TestPairs(t *testing.T) {
	for name, events := range map[string][]event{
		"one dies and returns":              {{At: sec, For: 5 * sec, Do: power, On: []string{"director1"}}},
		"one daemon dies and returns":       {{At: sec, For: 5 * sec, Do: crash, On: []string{"director1"}}},
		"one hangs for a second":            {{At: sec, For: sec, Do: pause, On: []string{"director1"}}},
		"one hangs for half a lease":        {{At: sec, For: sec / 4, Do: pause, On: []string{"director1"}}},
		"the links are cut":                 {{At: sec, For: 5 * sec, Do: partition, On: []string{"director1"}}},
		"one direction is cut":              {{At: sec, For: 5 * sec, Do: oneWay, On: []string{"director1"}}},
		"the other direction is cut":        {{At: sec, For: 5 * sec, Do: oneWay, On: []string{"director1"}, From: true}},
		"one is stopped and comes back":     {{At: sec, For: 5 * sec, Do: cleanStop, On: []string{"director1"}}},
		"one after the other":               {{At: sec, For: 5 * sec, Do: power, On: []string{"director1"}}, {At: 20 * sec, For: 5 * sec, Do: power, On: []string{"director2"}}},
		"both die at once":                  {{At: sec, For: 5 * sec, Do: power, On: both}},
		"the survivor dies before a return": {{At: sec, For: 9 * sec, Do: power, On: []string{"director1"}}, {At: 4 * sec, For: 9 * sec, Do: power, On: []string{"director2"}}},
		"a planned restart":                 {{At: sec, For: sec, Do: restart, On: []string{"director1"}}},
		"a start takes longer than the peer looks": {
			{At: sec, For: 20 * sec, Do: slow, On: []string{"director2"}, Count: 5000, Flag: true}, {At: sec, Do: lostAddress, Count: 2},
			{At: 2300 * time.Millisecond, For: 12 * sec, Do: partition, On: []string{"director2"}},
		},
		"one loses its disk": {{At: sec, For: 5 * sec, Do: diskLoss, On: []string{"director2"}}},
	} {
		for _, rule := range pairRules {
			t.Run(strings.ReplaceAll(name, " ", "_")+"/"+rule.String(), func(t *testing.T) {
				judge(t, pairSchedule(rule, events...))
			})
		}
	}
}

// TestStories plays each story by itself, under each of its rules.
func TestStories(t *testing.T) {
	for name, p := range pairStories {
		rules := p.rules
		if len(rules) == 0 {
			rules = pairRules
		}
		for _, rule := range rules {
			t.Run(strings.ReplaceAll(name, " ", "_")+"/"+rule.String(), func(t *testing.T) {
				for seed := range uint64(4) {
					s := pairSchedule(rule)
					s.Seed = seed
					s.Events = p.events(&s, newDice(seed), 2*sec)
					for _, e := range s.Events {
						s.Calm = max(s.Calm, e.At+e.For)
					}
					judge(t, s)
				}
			})
		}
	}
}

// judge plays a schedule and fails for what it violates.
func judge(t *testing.T, s schedule) *world {
	t.Helper()
	return judgeThen(t, s, func(*world) {})
}

// judgeThen calls then at the end, while everything still runs.
func judgeThen(t *testing.T, s schedule, then func(*world)) *world {
	t.Helper()
	w := play(t, s.Config, func(w *world) {
		r := newRun(w, s)
		r.play()
		r.drain()
		then(w)
	})
	for _, v := range w.violations {
		t.Errorf("seed %d: %s", s.Seed, v)
	}
	if len(w.violations) > 0 || os.Getenv("KEEPBEAT_SIM_SHOW") != "" {
		t.Logf("%s", w.transcript.Bytes())
	}
	return w
}
