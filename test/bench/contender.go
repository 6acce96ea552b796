package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// A contender is a program that lives through the events of `compare`, on
// directors of its own. What fails in it ends the test.
type contender interface {
	machines() *scenario.Directors
	// settle brings back whoever is dead or without a program, waits until one
	// director has the address and nothing moves any more, and returns that director.
	settle() *lab.Host
	// stop ends the program on a host as its service manager does.
	stop(*lab.Host)
	// standby gives the address away by the program's own command.
	standby(*lab.Host)
	// step is the period of its heartbeats: events come at any moment of one.
	step() time.Duration
}

// stage is a contender in its lab.
type stage struct {
	contender
	t lab.TB
}

// must ends the run of this system.
func (s stage) must(err error) {
	if err != nil {
		s.t.Fatalf("%v", err)
	}
}

// programs are the processes of the contender on a director.
func (s stage) programs(h *lab.Host) []int {
	pids, err := programs(s.machines().Daemons[h.Name])
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("no process of the program runs on %s", h.Name)
	}
	s.must(err)
	return pids
}

// system is a program in one configuration.
type system struct {
	name, config string
	build        func(lab.TB) contender
	coarse       bool              // it takes tens of seconds for everything: others beside it change nothing
	needs        string            // a program that has to be installed; empty: it is ours
	lacks        map[string]string // by event: why it cannot be measured
}

func (s system) String() string { return s.name + " " + s.config }

// installed says what is missing; empty: nothing.
func (s system) installed() string {
	if s.needs == "" {
		return ""
	}
	if _, err := os.Stat(s.needs); err != nil {
		return fmt.Sprintf("%v; test/lab/deps.sh peers installs it", err)
	}
	return ""
}

// switchOn revives each director that is dead or whose program has ended, as a
// machine that was off, and starts its program.
func switchOn(d *scenario.Directors, start func(*lab.Host)) {
	for _, h := range d.Both() {
		p := d.Daemons[h.Name]
		if p != nil && !p.Ended() && !h.Dead() {
			continue
		}
		if p != nil && !h.Dead() {
			h.Die() // with what its program has left behind
		}
		if h.Dead() {
			h.Revive()
		}
		start(h)
	}
}

// waitOnlyOn waits until a director, and it alone, has had the address for a while.
func waitOnlyOn(d *scenario.Directors, owner *lab.Host, while time.Duration) {
	var since time.Time
	d.Lab.Eventually(2*patience, "the address to be on "+owner.Name+" only", func() bool {
		if !owner.HasAddress(scenario.VIP) || d.Other(owner).HasAddress(scenario.VIP) {
			since = time.Time{}
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) >= while
	})
}

// terminate ends a program with SIGTERM and waits for it.
func terminate(p *lab.Process) {
	// How it ends is its own affair: keepalived's exit status tells the signal.
	_ = p.Terminate(patience)
}

// systems are all that can be compared; peers only where they are asked for.
func systems(peers bool) []system {
	all := slices.Concat(trioSystems(), pairSystems(), routerSystems())
	if peers {
		all = slices.Concat(all, keepalivedSystems(), heartbeatSystems())
	}
	return all
}

// chooseSystems keeps those whose name and configuration contain one of the words between commas.
func chooseSystems(all []system, words string) ([]system, error) {
	if words == "" || words == "all" {
		return all, nil
	}
	var names []string
	for _, s := range all {
		names = append(names, s.String())
	}
	var chosen []system
	for _, word := range strings.Split(words, ",") {
		before := len(chosen)
		for i, name := range names {
			if strings.Contains(name, word) && !slices.ContainsFunc(chosen, func(s system) bool { return s.String() == name }) {
				chosen = append(chosen, all[i])
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("-system %s: there are %s; keepalived and heartbeat with -peers", word, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}
