package sim

import (
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

var (
	fencingOnly = []conf.Quorum{conf.QuorumFencing}
	pingOnly    = []conf.Quorum{conf.QuorumPing}
	both        = []string{"director1", "director2"}
)

const sec = time.Second

// pairStories are those of two directors.
var pairStories = map[string]story{
	// A witness is taken in, is of use, and leaves again.
	"a witness comes and goes": {pair: true, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.Spares = []conf.Role{conf.Witness}
		es := []event{
			{At: at, Do: nodes, On: []string{s.director(d)}, Peer: "spare1"},
			{At: at + 15*sec, For: 6 * sec, Do: []action{power, crash, partition}[d.IntN(3)], On: []string{s.director(d)}},
			{At: at + 15*sec + 6*s.Profile.Lease + 2*sec, Do: served},
			{At: at + 35*sec, Do: nodes, On: []string{s.director(d)}, Peer: "spare1"},
			{At: at + 55*sec, For: 10 * sec, Do: []action{power, partition}[d.IntN(2)], On: []string{s.director(d)}},
		}
		if d.IntN(2) == 0 { // something happens while the nodes change
			es = append(es, event{At: at + d.between(0, 5*sec), For: d.between(100*time.Millisecond, 5*sec), Do: []action{power, crash, partition, pause}[d.IntN(4)], On: []string{s.someone(d)}})
			es = append(es, event{At: at + 35*sec + d.between(0, 5*sec), For: d.between(100*time.Millisecond, 5*sec), Do: []action{power, crash, partition, pause}[d.IntN(4)], On: []string{s.someone(d)}})
		}
		return es
	}},
	// And nothing moves for it.
	"a witness comes and goes in peace": {pair: true, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.Spares, s.Peaceful = []conf.Role{conf.Witness}, true
		return []event{
			{At: at, Do: nodes, On: []string{s.director(d)}, Peer: "spare1"},
			{At: at + 25*sec, Do: nodes, On: []string{s.director(d)}, Peer: "spare1"},
			{At: at + 35*sec, Do: nodes, On: []string{s.director(d)}, Peer: "spare1"},
		}
	}},
	// One is gone, or cut off from everything: the other one serves.
	"one is gone": {pair: true, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.ByItself = !s.OneStarts // with wait_for_all: no they fence each other as long as the cut lasts
		o := s.director(d)
		return []event{
			{At: at, For: 40 * sec, Do: []action{power, crash, partition}[d.IntN(3)], On: []string{o}},
			{At: at, For: 40 * sec, Do: noTieBreaker, On: []string{o}},
			{At: at + 10*s.Profile.Lease + 4*sec, Do: served},
		}
	}},
	// Both are alive, and the device does not do what it is asked.
	"the device fails": {pair: true, rules: fencingOnly, events: func(s *schedule, d dice, at time.Duration) []event {
		return []event{
			{At: at, For: d.between(8*sec, 12*sec), Do: partition, On: []string{s.director(d)}},
			{At: at, For: 12 * sec, Do: deviceFails, Count: 4},
		}
	}},
	// Who was fenced comes back behind the cut.
	"fenced and back": {pair: true, rules: fencingOnly, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.ByItself = !s.OneStarts // with wait_for_all: no they fence each other as long as the cut lasts
		return []event{{At: at, For: d.between(10*sec, 20*sec), Do: partition, On: []string{s.director(d)}}}
	}},
	// Both fence each other at the same moment: the device is slow to begin.
	"both are fenced": {pair: true, rules: fencingOnly, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.ByItself = !s.OneStarts // with wait_for_all: no they fence each other as long as the cut lasts
		return []event{
			{At: at, For: d.between(8*sec, 20*sec), Do: partition, On: []string{s.director(d)}},
			{At: at, For: 5 * sec, Do: deviceSlow, Count: 2000 + d.IntN(4000)},
		}
	}},
	// Whoever dies last knows more; the other one comes back first, and is told to go on.
	"they die alternately": {pair: true, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		return []event{
			{At: at, For: 11 * sec, Do: power, On: []string{"director1"}},
			{At: at + 7*sec, For: 16 * sec, Do: power, On: []string{"director2"}},
			{At: at + 13*sec, Do: confirm, On: []string{"director1"}},
		}
	}},
	// As before, then both start anew, and two operators choose at once.
	"both are told to go on": {pair: true, rules: fencingOnly, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		cut := d.between(0, 250*time.Millisecond)
		return []event{
			{At: at, For: 11 * sec, Do: power, On: []string{"director1"}},
			{At: at + 7*sec, For: 16 * sec, Do: power, On: []string{"director2"}},
			{At: at + 13*sec, Do: confirm, On: []string{"director1"}},
			{At: at + 18*sec, For: 5 * sec, Do: power, On: []string{"director1"}},
			{At: at + 27*sec, Do: confirm, On: both},
			{At: at + 27*sec + cut, For: 8 * sec, Do: partition, On: []string{"director1"}},
			{At: at + 27*sec + cut, For: 8 * sec, Do: deviceFails, Count: 9},
		}
	}},
	// The heartbeat is cut and nothing else: who has the addresses keeps them.
	"only the heartbeat is cut": {pair: true, rules: pingOnly, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.ByItself = !s.OneStarts // with wait_for_all: no they fence each other as long as the cut lasts
		return []event{{At: at, For: d.between(4*sec, 12*sec), Do: partition, On: []string{s.director(d)}}}
	}},
	// An address is down on its owner for as long as the other one looks, and comes back there.
	"restarted while nobody answers": {pair: true, rules: pingOnly, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		o := s.director(d)
		g := 1
		if o == "director2" {
			g = 2
		}
		es := []event{
			{At: at - 200*time.Millisecond, For: 10 * sec, Do: slow, On: []string{o}, Count: 1000 + d.IntN(4000), Flag: d.IntN(2) == 0},
			{At: at + d.between(0, 400*time.Millisecond), Do: lostAddress, Count: min(g, s.Groups)},
			{At: at + d.between(0, sec), For: d.between(8*sec, 12*sec), Do: []action{partition, partition, oneWay}[d.IntN(3)], On: []string{o}, From: d.IntN(2) == 0},
		}
		if d.IntN(3) == 0 { // and it hangs while it starts
			es = append(es, event{At: at + d.between(0, 3*sec), For: d.between(100*time.Millisecond, 5*sec), Do: pause, On: []string{o}})
		}
		s.ByItself = !s.OneStarts && es[2].Do == partition && len(es) == 3 // otherwise both may find nobody who has it, and open
		return es
	}},
	// A group runs nowhere when the links are cut: both look, and nobody answers.
	"both look at once": {pair: true, rules: pingOnly, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		es := []event{
			{At: at, Do: failStarts, On: []string{"director1"}, Count: s.Groups},
			{At: at, Do: failStarts, On: []string{"director2"}, Count: s.Groups},
			{At: at + d.between(2*sec, 8*sec), For: d.between(20*sec, 30*sec), Do: partition, On: []string{"director1"}},
		}
		for _, n := range both {
			es = append(es, event{At: at + sec, For: 40 * sec, Do: slow, On: []string{n}, Count: 500 + d.IntN(8000)})
		}
		for g := range s.Groups {
			es = append(es, event{At: at + 10*time.Millisecond, Do: lostAddress, Count: g + 1})
		}
		return es
	}},
	// One side loses links and tie-breaker, and gets the tie-breaker back when the other has taken its groups.
	"cut off and half back": {pair: true, rules: pingOnly, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.ByItself = !s.OneStarts // with wait_for_all: no they fence each other as long as the cut lasts
		o := s.director(d)
		return []event{
			{At: at, For: d.between(16*sec, 20*sec), Do: partition, On: []string{o}},
			{At: at, For: d.between(2*s.Profile.Lease, 8*sec), Do: noTieBreaker, On: []string{o}},
		}
	}},
	// The survivor decides on while the log of the other, whose last entries nobody else has, is cut off.
	"decided twice": {pair: true, rules: pingOnly, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		es := []event{
			{At: at, For: 8 * sec, Do: partition, On: []string{"leader"}},
			{At: at, For: 8 * sec, Do: noTieBreaker, On: []string{"leader"}},
		}
		for i := range 4 {
			es = append(es, event{At: at + time.Duration(i*20)*time.Millisecond, Do: apply, On: []string{"leader"}, Count: 1 + 4*d.IntN(s.Groups)})
		}
		return es
	}},
	// A node that leads is admitted, and before the other one hears of it the links are cut, for less
	// time than the device takes.
	"admitted unheard": {pair: true, rules: fencingOnly, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		o := s.director(d)
		es := []event{
			{At: at, For: 30 * sec, Do: cutAtAdmission, On: []string{o}, Count: 1500 + d.IntN(1500)},
			{At: at, For: 30 * sec, Do: deviceSlow, Count: 10000},
		}
		for i := range 5 {
			es = append(es, event{At: at + time.Duration(i)*5*sec, For: d.between(20*time.Millisecond, s.Profile.Lease/2), Do: power, On: []string{o}})
		}
		return es
	}},
	// The standby dies and returns: the owner is not to be silent for an instant.
	"the standby dies": {pair: true, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		s.Together, s.Peaceful = true, true
		how := []action{power, crash, diskLoss, pause}
		if s.Rule == conf.QuorumUnsafe {
			how = how[:3] // one that wakes up takes over: it was chosen
		}
		return []event{{At: at, For: d.between(sec, 10*sec), Do: how[d.IntN(len(how))], On: []string{"director2"}}}
	}},
	// A survival is ended in each of its steps.
	"dies surviving": {pair: true, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		o, p := "director1", "director2"
		if d.IntN(2) == 0 {
			o, p = p, o
		}
		es := []event{
			{At: at, For: d.between(5*sec, 15*sec), Do: power, On: []string{o}},
			{At: at, For: d.between(100*time.Millisecond, 8*sec), Do: diesWriting, On: []string{p}, Write: ofGeneration, Count: 1 + d.IntN(4), Flag: d.IntN(2) == 0},
		}
		if d.IntN(3) == 0 {
			es[1].Write, es[1].Count = anyWrite, 1+d.IntN(10)
		}
		if d.IntN(3) == 0 {
			es = append(es, event{At: at + d.between(3*sec, 8*sec), Do: confirm, On: []string{p}})
		}
		if d.IntN(3) == 0 {
			es[0].Do = partition
		}
		return es
	}},
	// And so is a return.
	"dies returning": {pair: true, alone: true, events: func(s *schedule, d dice, at time.Duration) []event {
		o, p := "director1", "director2"
		if d.IntN(2) == 0 {
			o, p = p, o
		}
		down := d.between(2*sec, 6*sec)
		return []event{
			{At: at, For: down, Do: power, On: []string{o}},
			{At: at + down - time.Millisecond, For: d.between(100*time.Millisecond, 8*sec), Do: diesWriting, On: []string{o}, Write: []kind{ofGeneration, anyWrite}[d.IntN(2)], Count: 1 + d.IntN(20), Flag: d.IntN(2) == 0},
			{At: at + down + d.between(sec, 6*sec), For: d.between(100*time.Millisecond, 8*sec), Do: diesWriting, On: []string{p}, Write: ofLog, Count: 1 + d.IntN(10), Flag: d.IntN(2) == 0},
		}
	}},
}
