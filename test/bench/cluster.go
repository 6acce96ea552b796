package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/test/lab"
	"github.com/keepbeat/keepbeat/test/lab/scenario"
)

// patience bounds every wait; it is not a measurement.
const patience = 60 * time.Second

var leases = map[string]time.Duration{"fast": 200 * time.Millisecond, "default": 500 * time.Millisecond}

// bench is one cluster that lives through many deaths.
type bench struct {
	*scenario.Trio
	profile string
	random  *rand.Rand
}

func newBench(t lab.TB, profile, groups string) *bench {
	return &bench{scenario.NewTrio(t, scenario.Options{Profile: profile, Groups: groups}), profile, rand.New(rand.NewPCG(1, 2))}
}

func (b *bench) lease() time.Duration { return leases[b.profile] }

func (b *bench) host(name string) *lab.Host {
	for _, h := range b.Nodes() {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// settle brings back whoever is dead or without a daemon, waits until nothing
// moves any more and returns how the cluster stands.
func (b *bench) settle() (owner *lab.Host, leader *lab.Host, s cluster.Status) {
	for _, h := range b.Nodes() {
		if h.Dead() {
			h.Revive()
		}
		if p := b.Daemons[h.Name]; p == nil || p.Ended() {
			b.Start(h)
		}
	}
	why := ""
	deadline := time.Now().Add(patience)
	for {
		var ok bool
		if s, ok = b.Status(b.Arbiter); !ok {
			why = "the witness does not answer"
		} else if why = unsettled(s); why == "" {
			break
		}
		if time.Now().After(deadline) {
			b.Lab.Eventually(0, "the cluster to settle: "+why, func() bool { return false })
		}
		time.Sleep(20 * time.Millisecond)
	}
	return b.host(s.Groups[0].Owner), b.host(s.Leader), s
}

// unsettled says what is not at rest; empty: all is.
func unsettled(s cluster.Status) string {
	if !s.Quorum || len(s.Groups) == 0 {
		return "no quorum or no groups"
	}
	for _, g := range s.Groups {
		if g.State != "active" || g.Owner != s.Groups[0].Owner {
			return fmt.Sprintf("group %s is %s on %q", g.Name, g.State, g.Owner)
		}
		if len(g.Refused) > 0 {
			return fmt.Sprintf("group %s: %v", g.Name, g.Refused)
		}
	}
	for _, n := range s.Nodes {
		if n.State != "up" || n.Here == nil {
			return "node " + n.Name + " is " + n.State + ": " + n.Why
		}
		if !n.Votes {
			return "node " + n.Name + " has no vote yet"
		}
		if n.Role == "director" && n.Here.Lease == 0 {
			return "node " + n.Name + " has no lease"
		}
		for _, l := range n.Links {
			if l.State != "up" {
				return "link " + l.Link + " to " + n.Name + " is " + l.State
			}
		}
	}
	return ""
}

// arrange settles the cluster with a leader that is, or is not, the owner.
func (b *bench) arrange(ownerLeads bool) (owner *lab.Host) {
	for range 20 {
		owner, leader, _ := b.settle()
		switch {
		case ownerLeads == (owner == leader):
			return owner
		case ownerLeads && leader == b.Arbiter:
			// A witness that hangs for a moment leads no more; nothing else changes.
			b.Daemons[b.Arbiter.Name].Freeze()
			time.Sleep(3 * b.lease())
			b.Daemons[b.Arbiter.Name].Thaw()
			time.Sleep(b.lease())
		default:
			owner.Run(b.Lab.Keepbeat(), "standby", "--wait")
		}
	}
	b.Lab.Eventually(0, fmt.Sprintf("a leader of its own will (owner leads: %v)", ownerLeads), func() bool { return false })
	return nil
}

// anyMoment waits for a random part of a lease, so that no event is in step with the renewals.
func (b *bench) anyMoment() { anyMoment(b.random, b.lease()) }

// moves counts how often groups have been given to a node, ever.
func moves(s cluster.Status) (n uint64) {
	for _, g := range s.Groups {
		n += g.Epoch
	}
	return n
}

// elections counts elections that were tried, ever: raft's term.
func elections(s cluster.Status) (term uint64) {
	for _, n := range s.Nodes {
		if n.Here != nil {
			if t, err := strconv.ParseUint(n.Here.Term, 10, 64); err == nil {
				term = max(term, t)
			}
		}
	}
	return term
}
