package main

import (
	"math/rand/v2"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// trio is keepbeat with a witness.
type trio struct{ *bench }

func trioSystems() []system {
	var all []system
	for _, profile := range []string{"default", "fast"} {
		all = append(all, system{name: "keepbeat", config: "witness " + profile,
			build: func(t lab.TB) contender { return trio{newBench(t, profile, "")} }})
	}
	return all
}

func (c trio) machines() *scenario.Directors { return c.Directors }
func (c trio) settle() *lab.Host             { owner, _, _ := c.bench.settle(); return owner }
func (c trio) stop(h *lab.Host)              { terminate(c.Daemons[h.Name]) }
func (c trio) standby(h *lab.Host)           { h.Run(c.Lab.Keepbeat(), "standby", "--wait") }
func (c trio) step() time.Duration           { return c.lease() }

// pair is keepbeat without a witness, under a rule.
type pair struct {
	*scenario.Pair
	t       lab.TB
	profile string
}

func pairSystems() []system {
	var all []system
	for _, rule := range []scenario.Rule{scenario.Fencing, scenario.Ping, scenario.Unsafe} {
		all = append(all, system{name: "keepbeat", config: "pair " + string(rule),
			build: func(t lab.TB) contender {
				return pair{scenario.NewPair(t, rule, scenario.Options{Profile: "default"}), t, "default"}
			}})
	}
	return all
}

func (c pair) machines() *scenario.Directors { return c.Directors }
func (c pair) stop(h *lab.Host)              { terminate(c.Daemons[h.Name]) }
func (c pair) standby(h *lab.Host)           { h.Run(c.Lab.Keepbeat(), "standby", "--wait") }
func (c pair) step() time.Duration           { return leases[c.profile] }

func (c pair) settle() *lab.Host {
	// A daemon that has ended left nothing but what its guard silences: the machine goes on.
	for _, h := range c.Both() {
		if h.Dead() {
			h.Revive()
		}
		if p := c.Daemons[h.Name]; p == nil || p.Ended() {
			c.Start(h)
		}
	}
	c.WaitActive(patience)
	why := ""
	deadline := time.Now().Add(patience)
	for {
		s, ok := c.Look()
		switch {
		case !ok:
			why = "no director answers"
		case len(s.Trouble) > 0:
			why = s.Trouble[0]
		default:
			why = unsettled(s)
		}
		if why == "" {
			return map[string]*lab.Host{"director1": c.Director1, "director2": c.Director2}[s.Groups[0].Owner]
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the pair has not settled within %v: %s", patience, why)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// anyMoment waits for a random part of a step, so that no event is in step with the heartbeats.
func anyMoment(random *rand.Rand, step time.Duration) {
	time.Sleep(time.Duration(random.Int64N(int64(step))))
}
