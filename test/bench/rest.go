package main

import (
	"time"

	"github.com/keepbeat/keepbeat/test/lab"
)

// Rest is what a daemon costs while nothing happens.
type Rest struct {
	Profile string  `json:"profile"`
	Node    string  `json:"node"`
	Owns    bool    `json:"owns"`
	Leads   bool    `json:"leads"`
	Seconds float64 `json:"seconds"`
	RSS     float64 `json:"rss_mib"` // at the end
	CPU     float64 `json:"cpu_percent"`
	Budget  Budget  `json:"budget"`
	Met     bool    `json:"met"`
}

// rest watches every daemon with nobody asking anything.
func (b *bench) rest(t lab.TB, d time.Duration) []*Rest {
	owner, leader, _ := b.settle()
	time.Sleep(5 * time.Second) // what forming the cluster cost is over
	before := map[string]usage{}
	measure := func(name string) usage {
		u, err := usageOf(b.Daemons[name].PID())
		if err != nil {
			t.Fatalf("the daemon of %s: %v", name, err)
		}
		return u
	}
	began := time.Now()
	for _, h := range b.Nodes() {
		before[h.Name] = measure(h.Name)
	}
	say("%s: at rest for %v", b.profile, d)
	time.Sleep(d)
	took := time.Since(began)
	var all []*Rest
	for _, h := range b.Nodes() {
		u := measure(h.Name)
		r := &Rest{
			Profile: b.profile, Node: h.Name, Owns: h == owner, Leads: h == leader, Seconds: round(took.Seconds()),
			RSS: round(float64(u.rss) / (1 << 20)), CPU: round(100 * (u.cpu - before[h.Name].cpu).Seconds() / took.Seconds()),
		}
		if b.profile == "default" {
			r.Budget = Budget{RSS: limit(40.0), CPU: limit(1.0)}
		}
		r.Met = (r.Budget.RSS == nil || r.RSS <= *r.Budget.RSS) && (r.Budget.CPU == nil || r.CPU <= *r.Budget.CPU)
		say("%s %s: %.1f MiB, %.2f %% of a core", b.profile, h.Name, r.RSS, r.CPU)
		all = append(all, r)
	}
	return all
}
