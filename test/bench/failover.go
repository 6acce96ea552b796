package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/probe"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// event is one thing that happens to a cluster again and again.
type event struct {
	name, what string
	budget     func(profile string) Budget
	once       func(*bench, *Result) time.Duration
	groups     string // haresources of its cluster; empty: one group
}

// Result is what became of all repetitions of an event under a profile.
type Result struct {
	Profile string `json:"profile"`
	Event   string `json:"event"`
	What    string `json:"what"`
	Distribution
	Moves     uint64        `json:"moves"`     // of groups, beyond those that the event is about
	Elections uint64        `json:"elections"` // tried, while the event was measured
	Budget    Budget        `json:"budget"`
	Met       bool          `json:"met"`
	After     *Distribution `json:"until_the_other_answers,omitempty"`

	all, after []time.Duration
}

func dead(profile string) Budget {
	if profile == "fast" {
		return Budget{Median: limit(250.0)}
	}
	return Budget{Median: limit(600.0), Max: limit(1000.0)}
}

func unmoved(string) Budget { return Budget{Moves: limit(0)} }

func withinLease(profile string) Budget { return Budget{Max: limit(ms(leases[profile]))} }

// events are all that is measured.
func events() []event {
	const crash = "links cut and processes killed in the same instant; longest time without an answer at the client"
	return []event{
		{name: "owner", what: "death of the owner, which does not lead: " + crash, budget: dead, once: func(b *bench, _ *Result) time.Duration { return b.death(false) }},
		{name: "owner+leader", what: "death of the owner, which leads: " + crash, budget: dead, once: func(b *bench, _ *Result) time.Duration { return b.death(true) }},
		{name: "standby", what: "keepbeat standby --wait on the owner; longest time without an answer at the client", once: (*bench).standby,
			budget: func(string) Budget { return Budget{Median: limit(20.0)} }},
		{name: "link", what: "one of the owner's two heartbeat links lost for three leases, cable out or frames dropped in turn; longest time without an answer", budget: unmoved, once: (*bench).linkLost},
		{name: "leader", what: "death of the leader while the owner lives; longest time without an answer until three leases later", budget: unmoved, once: (*bench).leaderLost},
		{name: "nothing", what: "nothing happens for three leases: the noise of this measurement", budget: unmoved, once: (*bench).nothing},
		{name: "stop", what: "SIGSTOP of the owner's daemon: last answer from that node", budget: withinLease, once: (*bench).hang},
		{name: "kill", what: "SIGKILL of the owner's daemon: last answer from that node", budget: withinLease, once: (*bench).kill},
		{name: "groups", what: "death of the owner of 100 groups: last of their addresses answering elsewhere, counted from one lease after the death; each asked every 10 ms",
			budget: func(string) Budget { return Budget{Max: limit(500.0)} }, once: (*bench).manyGroups, groups: manyGroups()},
	}
}

// report is what `bench failover` prints.
type report struct {
	Failover   []*Result `json:"failover,omitempty"`
	Rest       []*Rest   `json:"rest,omitempty"`
	Method     string    `json:"method"`
	Comparison []*Row    `json:"comparison,omitempty"`
	Compared   string    `json:"comparison_method,omitempty"`
}

func failover(ctx context.Context, args []string) (any, error) {
	flags := flag.NewFlagSet("failover", flag.ContinueOnError)
	profileList := flags.String("profile", "default,fast", "profiles, with commas between")
	eventList := flags.String("event", "all", "events measured against budgets, with commas between; rest is the daemon at rest; none; router: nothing but death and planned stop of VRRP routers, -short-n times")
	n := flags.Int("n", 5, "how often each event happens")
	atRest := flags.Duration("rest", 30*time.Second, "how long the daemons at rest are watched")
	c := comparisonFlags(flags)
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	if *eventList == "router" {
		*eventList = "none"
		c.routers()
	}
	if *n < 1 || *atRest < time.Second {
		return nil, fmt.Errorf("-n %d -rest %v: want at least 1 and 1s", *n, *atRest)
	}
	profiles, err := choose("profile", *profileList, []string{"default", "fast"})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range events() {
		names = append(names, e.name)
	}
	chosen, err := choose("event", *eventList, append(names, "rest"))
	if err != nil {
		return nil, err
	}
	comparison, err := c.parse()
	if err != nil {
		return nil, err
	}
	r := &report{Method: "two directors and a witness as namespaces of this kernel, two bcast links; the client asks the address every 1 ms by UDP; the client's neighbour table is its own affair (GARP)"}
	if len(chosen) > 0 {
		if err := r.budgets(ctx, profiles, chosen, *n, *atRest); err != nil {
			return r, err
		}
	}
	r.Comparison = comparison.run(ctx)
	r.Compared = comparison.method()
	if len(r.Comparison) > 0 {
		say("\n%s\n%s", comparison.method(), table(r.Comparison))
	}
	return r, failures(r.Comparison)
}

// budgets measures a cluster with a witness against DESIGN, section 5.
func (r *report) budgets(ctx context.Context, profiles, chosen []string, n int, atRest time.Duration) error {
	for _, profile := range profiles {
		// Events that can share a cluster do; the daemons at rest come first, before anything has happened.
		for _, groups := range []string{"", manyGroups()} {
			var some []event
			rest := false
			for _, name := range chosen {
				rest = rest || name == "rest" && groups == ""
				for _, e := range events() {
					if e.name == name && e.groups == groups {
						some = append(some, e)
					}
				}
			}
			if len(some) == 0 && !rest {
				continue
			}
			if err := lab.Standalone(ctx, "bench-failover", say, func(t lab.TB) {
				b := newBench(t, profile, groups)
				b.settle()
				if rest {
					r.Rest = append(r.Rest, b.rest(t, atRest)...)
				}
				for _, e := range some {
					r.Failover = append(r.Failover, b.repeat(e, n))
				}
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) repeat(e event, n int) *Result {
	r := &Result{Profile: b.profile, Event: e.name, What: e.what, Budget: e.budget(b.profile)}
	for i := range n {
		d := e.once(b, r)
		r.all = append(r.all, d)
		say("%s %s %d/%d: %v", b.profile, e.name, i+1, n, d.Round(100*time.Microsecond))
	}
	r.Distribution = distribution(r.all)
	if len(r.after) > 0 {
		a := distribution(r.after)
		r.After = &a
	}
	r.Met = r.Budget.met(r.Distribution) && (r.Budget.Moves == nil || r.Moves == uint64(*r.Budget.Moves))
	return r
}

// client asks the address every millisecond, and is heard when this returns.
func (b *bench) client() *lab.Client {
	c := b.Client.Probe(scenario.VIP, time.Millisecond)
	c.WaitAnswer("", c.From, patience)
	b.anyMoment()
	return c
}

// outage waits until who answers and returns the longest silence since then.
func outage(c *lab.Client, who *lab.Host, since probe.Instant) time.Duration {
	c.WaitAnswer(who.Name, since, patience)
	d := c.Outage(since).Length()
	c.Stop()
	return d
}

func (b *bench) death(ownerLeads bool) time.Duration {
	owner := b.arrange(ownerLeads)
	c := b.client()
	return outage(c, b.Other(owner), owner.Die())
}

func (b *bench) standby(*Result) time.Duration {
	owner, _, _ := b.settle()
	c := b.client()
	since := probe.Now()
	owner.Run(b.Lab.Keepbeat(), "standby", "--wait")
	return outage(c, b.Other(owner), since)
}

// unharmed lets three leases pass in which nothing should happen to the group.
func (b *bench) unharmed(r *Result, begin, end func()) time.Duration {
	_, _, before := b.settle()
	c := b.client()
	since := probe.Now()
	begin()
	time.Sleep(3 * b.lease())
	d := c.Outage(since).Length()
	if end != nil {
		end()
	}
	c.Stop()
	_, _, after := b.settle()
	r.Moves += moves(after) - moves(before)
	r.Elections += elections(after) - elections(before)
	return d
}

func (b *bench) nothing(r *Result) time.Duration { return b.unharmed(r, func() {}, nil) }

func (b *bench) linkLost(r *Result) time.Duration {
	owner, _, _ := b.settle()
	n := len(r.all)
	port := owner.PortOn(b.Heartbeat[n%2])
	if n/2%2 == 0 {
		return b.unharmed(r, port.Down, port.Up)
	}
	return b.unharmed(r, port.Block, port.Heal)
}

func (b *bench) leaderLost(r *Result) time.Duration {
	b.arrange(false)
	_, leader, _ := b.settle()
	return b.unharmed(r, func() { leader.Die() }, nil)
}

// silence is how long after an instant the node still answered.
func (b *bench) silence(r *Result, c *lab.Client, owner *lab.Host, since probe.Instant) time.Duration {
	c.WaitAnswer(b.Other(owner).Name, since, patience)
	r.after = append(r.after, c.Outage(since).Length())
	var last time.Duration
	for _, s := range c.Stop() {
		if s.OK() && s.Who == owner.Name {
			last = max(last, s.At.Sub(since))
		}
	}
	return last
}

func (b *bench) hang(r *Result) time.Duration {
	owner, _, _ := b.settle()
	c := b.client()
	d := b.silence(r, c, owner, b.Daemons[owner.Name].Freeze())
	b.Daemons[owner.Name].Thaw()
	return d
}

func (b *bench) kill(r *Result) time.Duration {
	owner, _, _ := b.settle()
	c := b.client()
	return b.silence(r, c, owner, b.Daemons[owner.Name].Kill())
}
