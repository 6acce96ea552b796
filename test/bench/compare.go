package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

const (
	askEvery     = time.Millisecond
	observeEvery = 2 * time.Millisecond
	// quiet is the longest silence of a director that its observer takes for a busy
	// machine's; a longer one ends a time of being owner. No event moves the address there and back as fast.
	quiet  = 100 * time.Millisecond
	calm   = 200 * time.Millisecond // in which nothing happens: the noise
	linger = 300 * time.Millisecond // after a takeover: a second owner, or a second move, would be seen
)

// happening is what befalls the owner of each system in turn.
type happening struct {
	name, what string
	// begin brings it about, and returns the instant just before it and what ends
	// it again; nil: it is over with the takeover, which is waited for.
	begin func(stage, *lab.Host) (since probe.Instant, end func())
	// lasting: end has to be there, and the watching goes on for as long as the flag says.
	lasting bool
}

func happenings() []happening {
	return []happening{
		{name: "death", what: "links cut and processes killed in one instant", begin: func(_ stage, owner *lab.Host) (probe.Instant, func()) { return owner.Die(), nil }},
		{name: "stop", what: "clean stop of the program, as its service manager does it", begin: func(s stage, owner *lab.Host) (probe.Instant, func()) {
			since := probe.Now()
			s.stop(owner)
			return since, nil
		}},
		{name: "standby", what: "the program's own command that gives the address away", begin: func(s stage, owner *lab.Host) (probe.Instant, func()) {
			since := probe.Now()
			s.standby(owner)
			return since, nil
		}},
		{name: "cable", what: "the owner's cable to the service network is out", lasting: true, begin: func(s stage, owner *lab.Host) (probe.Instant, func()) {
			port := owner.PortOn(s.machines().Service)
			since := probe.Now()
			port.Down()
			return since, func() {
				if !owner.Dead() {
					port.Up()
				}
			}
		}},
		{name: "partition", what: "the two directors do not hear each other on any network; the client reaches both", lasting: true, begin: func(s stage, owner *lab.Host) (probe.Instant, func()) {
			d := s.machines()
			since := probe.Now()
			d.Lab.Partition([]*lab.Host{owner}, []*lab.Host{d.Other(owner)})
			return since, d.Lab.Heal
		}},
		{name: "cut", what: "the owner's heartbeat links are dead; the service network is whole", lasting: true, begin: func(s stage, owner *lab.Host) (probe.Instant, func()) {
			d := s.machines()
			since := probe.Now()
			for _, heartbeat := range d.Heartbeat {
				owner.PortOn(heartbeat).Block()
			}
			return since, d.Lab.Heal
		}},
		{name: "freeze", what: "SIGSTOP of the program's processes", lasting: true, begin: func(s stage, owner *lab.Host) (probe.Instant, func()) {
			pids := s.programs(owner)
			since := probe.Now()
			s.must(signalAll(pids, syscall.SIGSTOP))
			return since, func() {
				// Looked up again: numbers of processes come again.
				if now, err := programs(s.machines().Daemons[owner.Name]); !owner.Dead() { // it was fenced
					s.must(errors.Join(err, signalAll(now, syscall.SIGCONT)))
				}
			}
		}},
		{name: "kill", what: "SIGKILL of the program's processes; the machine lives, and nothing restarts them", lasting: true, begin: func(s stage, owner *lab.Host) (probe.Instant, func()) {
			pids := s.programs(owner)
			since := probe.Now()
			// Stopped first: keepalived's child would otherwise see its parent's end, and say goodbye.
			s.must(signalAll(pids, syscall.SIGSTOP))
			s.must(signalAll(pids, syscall.SIGKILL))
			return since, func() { s.machines().Daemons[owner.Name].Wait(patience) }
		}},
	}
}

// Row is what became of all repetitions of a happening under a system.
type Row struct {
	System        string `json:"system"`
	Configuration string `json:"configuration"`
	Event         string `json:"event"`
	// NotMeasured says why there are no figures, or fewer repetitions than asked for.
	NotMeasured string  `json:"not_measured,omitempty"`
	Count       int     `json:"n"`
	Lasted      float64 `json:"lasted_s,omitempty"` // what did not end by itself
	// Outage is the client's longest time without an answer: until the other one answers, or
	// while the event lasted. Where Untaken is not 0 it may be longer in truth.
	Outage *Distribution `json:"outage,omitempty"`
	// Untaken counts the repetitions in which nobody else answered as long as it was watched.
	Untaken int `json:"untaken"`
	// TwoOwners is the time for which both answered their observers, until all was well again.
	TwoOwners *Distribution `json:"two_owners,omitempty"`
	// After is the client's longest time without an answer from the end of what lasted until all was well again.
	After *Distribution `json:"outage_afterwards,omitempty"`
	// Noise is the longest time without an answer in the fifth of a second before each event.
	Noise float64 `json:"noise_ms"`
	Load  float64 `json:"load_average"` // of one minute, the highest that was seen
	Fsync float64 `json:"fsync_ms"`     // median, at the end

	failed bool // NotMeasured is no property of the system
}

// shot is one repetition.
type shot struct {
	outage, twoOwners, after time.Duration
	noise                    time.Duration
	untaken                  bool
}

// comparison is what is asked for.
type comparison struct {
	systems     []system
	happenings  []happening
	n, lastingN int
	lasting     time.Duration
	lanes       int // systems that live through lasting happenings at the same time
}

// run measures all systems: first the short happenings, one system after the
// other, then what takes seconds, several systems at a time.
func (c comparison) run(ctx context.Context) []*Row {
	var rows []*Row
	row := map[string]*Row{}
	for _, s := range c.systems {
		for _, h := range c.happenings {
			r := &Row{System: s.name, Configuration: s.config, Event: h.name}
			rows, row[s.String()+h.name] = append(rows, r), r
			if h.lasting {
				r.Lasted = c.lasting.Seconds()
			}
		}
	}
	for _, alone := range []bool{true, false} {
		lanes := 1
		if !alone {
			lanes = c.lanes
		}
		var wait sync.WaitGroup
		free := make(chan struct{}, lanes)
		// The peers, which are slow, first: the lanes are empty sooner.
		for i, s := range slices.Backward(c.systems) {
			var work []task
			for _, h := range c.happenings {
				if (!s.coarse && !h.lasting) != alone {
					continue
				}
				n := c.n
				if h.lasting {
					n = c.lastingN
				}
				if s.coarse {
					n = (n + 1) / 2
				}
				work = append(work, task{h, row[s.String()+h.name], n})
			}
			free <- struct{}{}
			wait.Go(func() {
				defer func() { <-free }()
				c.measure(ctx, s, work, rand.New(rand.NewPCG(3, uint64(i))))
			})
		}
		wait.Wait()
	}
	return rows
}

type task struct {
	happening
	row *Row
	n   int
}

// measure lets a system live through all that it can. After a failure it begins
// anew, with the next happening.
func (c comparison) measure(ctx context.Context, s system, work []task, random *rand.Rand) {
	missing := s.installed()
	work = slices.DeleteFunc(slices.Clone(work), func(t task) bool {
		switch {
		case t.n == 0:
			t.row.NotMeasured = "not asked for"
		case s.lacks[t.name] != "":
			t.row.NotMeasured = s.lacks[t.name]
		case missing != "":
			t.row.NotMeasured, t.row.failed = missing, true
		}
		return t.row.NotMeasured != ""
	})
	for len(work) > 0 {
		begun := 0
		err := lab.Standalone(ctx, "bench-failover "+s.String(), say, func(t lab.TB) {
			opponent := stage{s.build(t), t}
			opponent.settle()
			for _, w := range work {
				begun++
				c.repeat(opponent, s, w, random)
			}
		})
		if err == nil {
			return
		}
		say("%s: %v", s, err)
		// What cannot even be brought up is not tried again.
		last := begun
		if begun == 0 || ctx.Err() != nil {
			last = len(work)
		}
		for _, w := range work[max(begun-1, 0):last] {
			w.row.NotMeasured, w.row.failed = err.Error(), true
		}
		work = work[last:]
	}
}

func (c comparison) repeat(opponent stage, s system, w task, random *rand.Rand) {
	var outages, twoOwners, afters []time.Duration
	for i := range w.n {
		a := c.once(opponent, w.happening, random)
		outages, twoOwners = append(outages, a.outage), append(twoOwners, a.twoOwners)
		after := ""
		if w.lasting {
			afters = append(afters, a.after)
			after = fmt.Sprintf(", %v afterwards", a.after.Round(time.Millisecond))
		}
		if a.untaken {
			w.row.Untaken++
		}
		say("%s, %s %d/%d: %v without an answer%s, two owners for %v", s, w.name, i+1, w.n, a.outage.Round(100*time.Microsecond), after, a.twoOwners.Round(time.Millisecond))
		w.row.Noise = max(w.row.Noise, ms(a.noise))
		w.row.fill(outages, twoOwners, afters)
	}
}

func (r *Row) fill(outages, twoOwners, afters []time.Duration) {
	some := func(all []time.Duration) *Distribution {
		if len(all) == 0 {
			return nil
		}
		d := distribution(all)
		return &d
	}
	r.Count, r.Outage, r.TwoOwners, r.After = len(outages), some(outages), some(twoOwners), some(afters)
	m := machine()
	r.Fsync = m.Fsync
	if len(m.Load) > 0 {
		r.Load = max(r.Load, m.Load[0])
	}
}

func (c comparison) once(opponent stage, h happening, random *rand.Rand) (a shot) {
	owner := opponent.settle()
	d := opponent.machines()
	client := d.Client.Probe(scenario.VIP, askEvery)
	one, two := d.Observe(scenario.VIP, observeEvery)
	client.WaitAnswer(owner.Name, client.From, patience)
	time.Sleep(calm)
	anyMoment(random, opponent.step())

	since, end := h.begin(opponent, owner)
	if h.lasting {
		time.Sleep(c.lasting)
	} else {
		a.untaken = !answered(client, d.Other(owner).Name, since, patience)
		time.Sleep(linger)
	}
	until := probe.Now()
	if h.lasting {
		a.untaken = !answered(client, d.Other(owner).Name, since, 0)
		end()
		opponent.settle()
	}
	settled := probe.Now()
	asked := client.Stop()
	a.noise = probe.LongestGap(asked, since.Add(-calm), since).Length()
	a.outage, a.after = probe.LongestGap(asked, since, until).Length(), probe.LongestGap(asked, until, settled).Length()
	begun := func(samples []probe.Sample) []probe.Sample {
		return slices.DeleteFunc(samples, func(s probe.Sample) bool { return s.At < since })
	}
	a.twoOwners = probe.Overlap(begun(one.Stop()), begun(two.Stop()), quiet)
	return a
}

// answered says whether who has answered a question that was asked after since, and waits for that.
func answered(c *lab.Client, who string, since probe.Instant, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for {
		if slices.ContainsFunc(c.Samples(), func(s probe.Sample) bool { return s.OK() && s.Sent >= since && s.Who == who }) {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
}
