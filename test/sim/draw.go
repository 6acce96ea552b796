package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link/linktest"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0x7363686564))} }

func (d dice) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(d.Int64N(int64(hi-lo)+1)).Round(time.Millisecond)
}

func (d dice) of(names []string) string { return names[d.IntN(len(names))] }

// newSchedule makes the schedule of a seed. story, if not empty, is one that
// it has to hold.
func newSchedule(seed uint64, story string) schedule {
	d := newDice(seed)
	s := schedule{Config: Config{Seed: seed, Groups: 1 + d.IntN(6), Failback: d.IntN(2) == 0}}
	s.Profile = []conf.Profile{conf.ProfileFast, conf.ProfileDefault, conf.ProfileCalm}[d.IntN(3)]
	ofPair := stories[story].pair
	if story == "" {
		ofPair = d.IntN(2) == 0
	}
	if ofPair {
		s.drawPair(d, stories[story].rules)
	} else {
		s.drawMajority(d)
	}
	for range s.Directors + s.Witnesses {
		s.Starts = append(s.Starts, d.between(0, 2*time.Second))
	}
	s.Peaceful = d.IntN(8) == 0 && story == ""
	end := d.between(10*time.Second, 40*time.Second)
	switch {
	case s.Peaceful:
		s.peace(d, end)
	case stories[story].alone:
	case ofPair:
		s.duel(d, end)
	default:
		s.storm(d, end)
	}
	if names := storyNames(ofPair, s.Rule); !s.Peaceful && story == "" && len(names) > 0 && d.IntN(3) == 0 {
		story = names[d.IntN(len(names))]
	}
	if story != "" {
		s.Events = append(s.Events, stories[story].events(&s, d, d.between(time.Second, end))...)
	}
	if story == "" || !stories[story].alone {
		s.drawAir(end)
	}
	if len(s.Spares) > 0 && !s.Peaceful && !stories[story].alone {
		for range 1 + d.IntN(4) {
			e := event{At: d.between(0, end), Do: nodes, On: []string{s.director(d)}, Peer: "spare1", Flag: d.IntN(2) == 0}
			if n := s.Directors + s.Witnesses; n > 3 && d.IntN(3) == 0 {
				e.Peer = s.machines()[n-1]
			}
			s.Events = append(s.Events, e)
		}
	}
	if s.Upgrade && !s.Peaceful {
		s.Events = append(s.Events, event{At: d.between(0, end), Do: upgrade})
	}
	s.drawSnapshots(end, stories[story].alone)
	if !s.Peaceful && !stories[story].alone {
		s.drawUpgrade(end)
		s.drawOrders(end)
	}
	slices.SortStableFunc(s.Events, func(a, b event) int { return cmp.Compare(a.At, b.At) })
	for _, e := range s.Events {
		s.Calm = max(s.Calm, e.At+e.For)
	}
	return s
}

// drawMajority draws a cluster of three to seven nodes, most often of three.
func (s *schedule) drawMajority(d dice) {
	nodes := []int{3, 3, 3, 3, 4, 4, 5, 5, 6, 7}[d.IntN(10)]
	s.Witnesses = d.IntN(min(3, nodes-1))
	s.Directors = nodes - s.Witnesses
	if d.IntN(3) == 0 {
		s.Stores = 1 + d.IntN(s.Groups)
	} else {
		s.Upgrade = d.IntN(6) == 0
	}
	if !s.Upgrade && d.IntN(6) == 0 {
		s.Spares = []conf.Role{[]conf.Role{conf.Witness, conf.Director}[d.IntN(2)]}
	}
}

// drawAir draws announcers and foreign masters, with dice of its own: the rest is as it is without.
func (s *schedule) drawAir(end time.Duration) {
	d := dice{rand.New(rand.NewPCG(s.Seed, 0x76727270))}
	if s.Rule == conf.QuorumUnsafe || s.Upgrade || d.IntN(3) > 0 {
		return // under unsafe each owner is a foreign master to the other
	}
	s.Announced = 1 + d.IntN(s.Groups)
	s.OnConflict = []conf.Conflict{conf.ConflictYield, conf.ConflictKeep, conf.ConflictFence, conf.ConflictFence}[d.IntN(4)]
	if s.Peaceful {
		return
	}
	for range d.IntN(4) {
		e := event{At: d.between(0, end), For: d.between(500*time.Millisecond, 15*time.Second), Do: foreignMaster, Count: 1 + d.IntN(s.Announced), Flag: d.IntN(3) == 0}
		for _, m := range s.machines()[:s.Directors] {
			if d.IntN(2) == 0 {
				e.On = append(e.On, m)
			}
		}
		s.Events = append(s.Events, e)
	}
}

// keptAtLeast is more than what is on its way to a node at once. When that fails raft falls
// back to what was acknowledged; if the log begins later, it installs its snapshot over
// what the node has applied by then, and looks for entries between the two that the node
// has compacted. A daemon keeps 1024, and that many are never on their way.
const keptAtLeast = 64

// drawSnapshots lets the log be replaced by snapshots, with dice of its own as well: a
// node that comes back is given one then, or begins with its own.
func (s *schedule) drawSnapshots(end time.Duration, alone bool) {
	d := dice{rand.New(rand.NewPCG(s.Seed, 0x736e6170))}
	if d.IntN(3) > 0 {
		return
	}
	s.Snapshots, s.Kept = []uint64{4, 8, 16, 64}[d.IntN(4)], keptAtLeast
	if !s.Peaceful && !alone && d.IntN(2) == 0 {
		s.Events = append(s.Events, event{
			At: d.between(0, end), For: d.between(sec, 10*sec), Do: diesWriting, On: []string{s.someone(d)}, Write: ofSnapshot, Count: 1 + d.IntN(2), Flag: d.IntN(2) == 0,
		})
	}
}

// drawUpgrade lets some nodes begin with an earlier program, with dice of its own: in
// pairs and with fencing, which no program of format 1 knows.
func (s *schedule) drawUpgrade(end time.Duration) {
	d := dice{rand.New(rand.NewPCG(s.Seed, 0x75706772))}
	if s.Upgrade || len(s.Spares) > 0 || d.IntN(5) > 0 {
		return
	}
	first := 1
	if s.fences() {
		first = 2
	}
	s.Upgrade, s.From = true, first+d.IntN(state.Format-first)
	s.Events = append(s.Events, event{At: d.between(0, end), Do: upgrade})
}

// drawOrders lets operators have nodes fenced, with dice of its own.
func (s *schedule) drawOrders(end time.Duration) {
	d := dice{rand.New(rand.NewPCG(s.Seed, 0x66656e63))}
	if !s.fences() || d.IntN(3) > 0 {
		return
	}
	for range 1 + d.IntN(2) {
		s.Events = append(s.Events, event{At: d.between(0, end), Do: orderFence, On: []string{s.director(d)}, Peer: s.director(d)})
	}
}

// drawPair draws two directors and what decides between them.
func (s *schedule) drawPair(d dice, rules []conf.Quorum) {
	if len(rules) == 0 {
		rules = []conf.Quorum{conf.QuorumFencing, conf.QuorumFencing, conf.QuorumPing, conf.QuorumPing, conf.QuorumUnsafe}
	}
	s.Directors, s.Rule = 2, rules[d.IntN(len(rules))]
	if d.IntN(6) == 0 {
		s.Spares = []conf.Role{[]conf.Role{conf.Witness, conf.Witness, conf.Director}[d.IntN(3)]}
	}
	s.OneStarts = d.IntN(4) == 0
	s.Together = d.IntN(3) == 0
	if s.Rule == conf.QuorumFencing && d.IntN(2) == 0 {
		s.Stores = 1 + d.IntN(s.Groups)
	}
}

func (s *schedule) peace(d dice, end time.Duration) {
	l := simLinks[d.IntN(len(simLinks))].Name()
	for at := d.between(0, 3*time.Second); at < end; {
		e := event{At: at, For: d.between(100*time.Millisecond, 5*time.Second), Link: l}
		switch d.IntN(4) {
		case 0:
			e.Do = linkCut
		case 1:
			e.Do = linkFlap
			e.Count = 20 + d.IntN(400)
		case 2:
			e.Do, e.Noise = linkNoise, d.noise(true)
		case 3:
			e.Do, e.Link = restart, ""
			e.On = []string{s.director(d)}
			e.For = d.between(20*time.Millisecond, 3*time.Second)
		}
		s.Events = append(s.Events, e)
		at += e.For + d.between(2*time.Second, 6*time.Second)
	}
}

func (s *schedule) storm(d dice, end time.Duration) {
	n := 2 + d.IntN(10)
	lost := false
	for range n {
		e := event{At: d.between(0, end), Do: action(1 + d.IntN(int(common)-1))}
		// Lengths around the lease matter most, longer ones let a story end.
		if d.IntN(2) == 0 {
			e.For = s.Profile.Lease/4 + d.between(0, 2*s.Profile.Lease)
		} else {
			e.For = d.between(500*time.Millisecond, 8*time.Second)
		}
		if s.Stores > 0 && d.IntN(5) == 0 {
			e.Do = []action{deviceSlow, deviceFails, deviceMute}[d.IntN(3)]
		} else if d.IntN(20) == 0 {
			e.Do = diesWriting
		}
		s.fill(d, &e)
		if e.Do == diskLoss {
			if lost {
				continue // two lost disks of three are what no cluster survives
			}
			lost = true
		}
		s.Events = append(s.Events, e)
		if d.IntN(3) == 0 { // and something else in the middle of it
			f := event{At: e.At + d.between(0, e.For), For: d.between(50*time.Millisecond, 2*s.Profile.Lease), Do: []action{pause, partition, crash, oneWay, power}[d.IntN(5)]}
			s.fill(d, &f)
			s.Events = append(s.Events, f)
		}
	}
}

func (s *schedule) machines() []string {
	var names []string
	for i := range s.Directors {
		names = append(names, fmt.Sprintf("director%d", i+1))
	}
	for i := range s.Witnesses {
		names = append(names, fmt.Sprintf("witness%d", i+1))
	}
	return names
}

func (s *schedule) director(d dice) string { return fmt.Sprintf("director%d", 1+d.IntN(s.Directors)) }

// someone names a machine: often the one that matters.
func (s *schedule) someone(d dice) string {
	switch d.IntN(4) {
	case 0:
		return "owner"
	case 1:
		return "leader"
	}
	return d.of(s.machines())
}

func (s *schedule) fill(d dice, e *event) {
	switch e.Do {
	case power, crash, pause, partition:
		e.On = []string{s.someone(d)}
		switch d.IntN(6) {
		case 0:
			e.On = []string{"owner", "leader"}
		case 1:
			e.On = append(e.On, s.someone(d))
		}
		e.Flag = d.IntN(2) == 0
	case diskLoss, oneWay:
		e.On = []string{s.someone(d)}
		e.From = d.IntN(2) == 0
	case split:
		for _, m := range s.machines() {
			if d.IntN(2) == 0 {
				e.On = append(e.On, m)
			}
		}
	case pairCut, pairOneWay:
		e.On = []string{s.someone(d)}
		e.Peer = s.someone(d)
		e.From = true
	case noise:
		e.Noise = d.noise(false)
		if d.IntN(2) == 0 {
			e.On = []string{s.someone(d)}
		}
	case delayed:
		e.On, e.Noise = []string{s.someone(d)}, linktest.Condition{Delay: d.between(0, s.Profile.Lease)}
	case linkNoise:
		e.Link, e.Noise = simLinks[d.IntN(2)].Name(), d.noise(true)
	case linkCut:
		e.Link = simLinks[d.IntN(2)].Name()
	case linkFlap:
		e.Link = simLinks[d.IntN(2)].Name()
		e.Count = 20 + d.IntN(400)
	case slow:
		e.On = []string{s.director(d)}
		e.Count, e.Flag = 1+d.IntN(2000), d.IntN(2) == 0
	case failStarts, failStops:
		e.On, e.For = []string{s.director(d)}, 0
		e.Count = 1 + d.IntN(3)
		if e.Do == failStops {
			e.Count = 1 + d.IntN(5)
		}
	case lostAddress:
		e.For, e.Count = 0, 1+d.IntN(s.Groups)
	case standby, takeover:
		e.On, e.For = []string{s.director(d)}, 0
		e.Count = 1 + d.IntN(3)
	case apply:
		e.On, e.For = []string{s.director(d)}, 0
		e.Count = 1 + d.IntN(1000)
	case restart, cleanStop:
		e.On = []string{s.director(d)}
	case deviceSlow:
		e.Count = 1 + d.IntN(8000)
	case deviceFails, deviceMute:
		e.Count = 1 + d.IntN(3)
	case diesAsking:
		e.Flag = d.IntN(2) == 0
	case noTieBreaker:
		e.On = []string{s.director(d)}
		if d.IntN(3) == 0 {
			e.On = s.machines()
		}
	case confirm:
		e.On, e.For = []string{s.director(d)}, 0
		if d.IntN(3) == 0 {
			e.On = s.machines()
		}
		e.Flag = d.IntN(4) == 0
	case diesWriting:
		e.On, e.Flag = []string{s.someone(d)}, d.IntN(2) == 0
		e.Write, e.Count = []kind{anyWrite, ofLog, ofPromises}[d.IntN(3)], 1+d.IntN(12)
		if s.Rule != 0 && d.IntN(2) == 0 {
			e.Write, e.Count = ofGeneration, 1+d.IntN(5)
		}
	}
}

func (d dice) noise(one bool) linktest.Condition {
	var c linktest.Condition
	c.Jitter = d.between(0, 20*time.Millisecond)
	if d.IntN(2) == 0 {
		c.Loss = float64(d.IntN(50)) / 100
	}
	if d.IntN(2) == 0 {
		c.Duplicate = float64(d.IntN(50)) / 100
	}
	if d.IntN(3) == 0 {
		c.Corrupt = float64(d.IntN(20)) / 100
	}
	if d.IntN(2) == 0 {
		c.Delay = d.between(0, 100*time.Millisecond)
		if !one {
			c.Delay *= 3
		}
	}
	return c
}
