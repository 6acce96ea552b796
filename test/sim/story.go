package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link/linktest"
	"github.com/keepbeat/keepbeat/conf"
)

// story is faults that belong together: what a rule of the design is there
// for, and what random faults put together too seldom.
type story struct {
	// pair: of two directors, under one of the rules (none: any).
	pair  bool
	rules []conf.Quorum
	// alone: no random faults are added.
	alone bool
	// events begin at a time in the schedule.
	events func(s *schedule, d dice, at time.Duration) []event
}

// stories has them by name.
var stories = map[string]story{}

func init() {
	for name, events := range majorityStories {
		stories[name] = story{events: events}
	}
	for name, p := range pairStories {
		stories[name] = p
	}
	for name, p := range foreignStories {
		stories[name] = p
	}
}

var majorityStories = map[string]func(s *schedule, d dice, at time.Duration) []event{
	// The owner's daemon dies, its addresses are slow to go, and it returns
	// when another node has them.
	"leftovers": func(s *schedule, d dice, at time.Duration) []event {
		o := s.director(d)
		down := 2*s.Profile.Lease + d.between(time.Second, 3*time.Second)
		return []event{
			{At: at, For: down, Do: crash, On: []string{o}},
			{At: at + time.Millisecond, For: down + 4*time.Second, Do: slow, On: []string{o}, Count: 500 + d.IntN(2000)},
		}
	},
	// Answers reach the owner late; then it is cut off.
	"late answers": func(s *schedule, d dice, at time.Duration) []event {
		o := s.director(d)
		return []event{
			{At: at, For: 6 * time.Second, Do: delayed, On: []string{o}, Noise: linktest.Condition{Delay: s.Profile.Lease/2 + d.between(0, s.Profile.Lease/2)}},
			{At: at + d.between(2*time.Second, 4*time.Second), For: 3 * s.Profile.Lease, Do: oneWay, On: []string{o}, From: true},
		}
	},
	// A group is taken out of the files and put back.
	"removed and back": func(s *schedule, d dice, at time.Duration) []event {
		n := 4 * d.IntN(s.Groups)
		return []event{
			{At: at, Do: apply, On: []string{s.director(d)}, Count: n},
			{At: at + d.between(500*time.Millisecond, 4*time.Second), Do: apply, On: []string{s.director(d)}, Count: n},
		}
	},
	// A group gets another name, and takes its time to stop.
	"renamed": func(s *schedule, d dice, at time.Duration) []event {
		o := s.director(d)
		return []event{
			{At: at, For: 20 * time.Second, Do: slow, On: []string{o}, Count: 500 + d.IntN(4000)},
			{At: at + d.between(0, time.Second), Do: apply, On: []string{s.director(d)}, Count: 18 + 4*d.IntN(4)},
		}
	},
	// A group is taken out of the files, its owner dies before it has stopped it, and it is put back.
	"removed, dead and back": func(s *schedule, d dice, at time.Duration) []event {
		if s.Rule == 0 || s.Rule == conf.QuorumFencing {
			s.Stores, s.Upgrade = s.Groups, false
		}
		i := d.IntN(s.Groups)
		n, o := 4*i, s.machines()[i%s.Directors]
		return []event{
			{At: at, For: 20 * time.Second, Do: slow, On: []string{o}, Count: 2000 + d.IntN(4000)},
			{At: at + 100*time.Millisecond, Do: apply, On: []string{s.director(d)}, Count: n},
			{At: at + d.between(200*time.Millisecond, 2*time.Second), For: d.between(8*time.Second, 12*time.Second), Do: crash, On: []string{o}},
			{At: at + d.between(2*time.Second, 4*time.Second), Do: apply, On: []string{s.director(d)}, Count: n},
		}
	},
	// The owner hears nobody, so that it does not learn of its revocation, and
	// its addresses would not go at once when it does.
	"deaf owner": func(s *schedule, d dice, at time.Duration) []event {
		o := s.director(d)
		return []event{
			{At: at, Do: failStops, On: []string{o}, Count: 2 * s.Groups},
			{At: at, For: 2*s.Profile.Lease + d.between(time.Second, 3*time.Second), Do: oneWay, On: []string{o}},
		}
	},
	// The owner of what only fencing ends is cut off, and the device does nothing.
	"many, and the device fails": func(s *schedule, d dice, at time.Duration) []event {
		s.Stores, s.Upgrade = s.Groups, false
		return []event{
			{At: at, For: d.between(6*time.Second, 12*time.Second), Do: partition, On: []string{"owner"}},
			{At: at, For: 12 * time.Second, Do: deviceFails, Count: 9},
		}
	},
	// The owner's daemon is away under a long lease, and every voter that
	// promised it restarts.
	"restarted voters": func(s *schedule, d dice, at time.Duration) []event {
		o := s.director(d)
		var others []string
		for _, m := range s.machines() {
			if m != o {
				others = append(others, m)
			}
		}
		do := crash
		if d.IntN(2) == 0 {
			do = power
		}
		return []event{
			{At: at, For: d.between(6*time.Second, 10*time.Second), Do: restart, On: []string{o}},
			{At: at + d.between(time.Second, 2*time.Second), For: d.between(20*time.Millisecond, time.Second), Do: do, On: others},
		}
	},
}

// foreignStories are of routers that are no nodes.
var foreignStories = map[string]story{
	"a foreign master": {alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.announce(conf.ConflictFence)
		return []event{
			{At: at, For: d.between(10*sec, 20*sec), Do: foreignMaster, Count: 1},
			{At: at + d.between(0, 5*sec), For: d.between(sec, 5*sec), Do: []action{partition, power, pause, crash}[d.IntN(4)], On: []string{s.someone(d)}},
		}
	}},
	// Its name is used by somebody whom fencing does not end.
	"a forged master": {alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.announce(conf.ConflictFence)
		return []event{{At: at, For: 40 * sec, Do: foreignMaster, Count: 1, Flag: true}}
	}},
	// Who is to fence it is being restarted under a long lease, and it leaves meanwhile.
	"the operator is away": {alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.announce(conf.ConflictFence)
		return []event{
			{At: at, For: d.between(14*sec, 18*sec), Do: restart, On: []string{"director1"}},
			{At: at + sec, For: 6 * sec, Do: foreignMaster, On: []string{"director2", "director3"}, Count: 2},
		}
	}},
	// The owner hears nobody of the cluster, and is heard; its announcer goes on.
	"a deaf announcer": {alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.announce(conf.ConflictKeep)
		return []event{
			{At: at, Do: failStops, On: []string{"director1"}, Count: 3},
			{At: at, For: 2*s.Profile.Lease + d.between(2*sec, 5*sec), Do: oneWay, On: []string{"director1"}},
		}
	}},
}

// announce makes it three directors that announce all of three groups.
func (s *schedule) announce(c conf.Conflict) {
	s.Directors, s.Witnesses, s.Groups, s.Announced, s.OnConflict = 3, 0, 3, 3, c
	s.Failback, s.Together, s.Stores, s.Upgrade, s.Spares = true, false, 0, false, nil
	s.Starts = []time.Duration{0, 0, 0}
}

// storyNames returns the stories of a cluster of this kind, sorted.
func storyNames(ofPair bool, rule conf.Quorum) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(stories)) {
		p := stories[name]
		if p.pair == ofPair && !p.alone && (len(p.rules) == 0 || slices.Contains(p.rules, rule)) {
			names = append(names, name)
		}
	}
	return names
}
