package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster/link/linktest"
	"github.com/keepbeat/keepbeat/conf"
)

// action is what an event does.
type action uint8

const (
	_ action = iota
	power
	diskLoss // while the power is off
	crash    // SIGKILL of the daemon
	pause    // SIGSTOP, then SIGCONT
	partition
	split
	oneWay
	pairCut
	pairOneWay
	noise
	delayed // noise in what one machine is sent
	linkCut
	linkFlap
	linkNoise // on one link only
	slow
	failStarts
	failStops
	lostAddress
	standby
	takeover
	apply
	restart
	cleanStop
	actions // how many there are, and one
)

var actionNames = [...]string{
	power: "power off", diskLoss: "power off and an empty disk", crash: "SIGKILL", pause: "SIGSTOP",
	partition: "cut off", split: "split", oneWay: "one-way cut", pairCut: "pair cut", pairOneWay: "one-way pair cut",
	noise: "noise", delayed: "noise in one direction", linkCut: "link cut", linkFlap: "link flapping", linkNoise: "noise on one link",
	slow: "slow resources", failStarts: "starts fail", failStops: "stops fail", lostAddress: "an address is deleted",
	standby: "standby", takeover: "takeover", apply: "apply", restart: "planned restart", cleanStop: "clean stop",
}

func (a action) String() string { return actionNames[a] }

// event is one entry of a schedule.
type event struct {
	At    time.Duration // after the cluster has settled
	For   time.Duration // until it is undone
	Do    action
	On    []string // machines, or owner, leader: who that is when it happens
	Peer  string   // the other machine of a pair
	From  bool     // one-way: what it sends is lost, not what it is sent
	Link  string   // one of simLinks; empty: all
	Noise linktest.Condition
	Count int // failures; for apply: which change
	Flag  bool
}

func (e event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%7.3f s", e.At.Seconds())
	if e.For > 0 {
		fmt.Fprintf(&b, " for %.3f s", e.For.Seconds())
	}
	fmt.Fprintf(&b, ": %v", e.Do)
	if len(e.On) > 0 {
		fmt.Fprintf(&b, " %s", strings.Join(e.On, "+"))
	}
	if e.Peer != "" {
		fmt.Fprintf(&b, " with %s", e.Peer)
	}
	switch {
	case (e.Do == oneWay || e.Do == pairOneWay) && e.From:
		b.WriteString(", what it sends")
	case e.Do == oneWay || e.Do == pairOneWay || e.Do == delayed:
		b.WriteString(", what it is sent")
	}
	if e.Link != "" {
		fmt.Fprintf(&b, " on %s", e.Link)
	}
	if e.Noise != (linktest.Condition{}) {
		fmt.Fprintf(&b, " %+v", e.Noise)
	}
	if e.Count > 0 {
		fmt.Fprintf(&b, " (%d)", e.Count)
	}
	if e.Flag {
		switch e.Do {
		case crash:
			b.WriteString(", released")
		case failStops:
			b.WriteString(", and slow")
		}
	}
	return b.String()
}

// schedule is a whole run: what the cluster is, and what happens to it. It is
// a pure function of its seed.
type schedule struct {
	Config
	// Peaceful schedules hold nothing that may move a group or silence an
	// address for an instant: the loss of one link, planned restarts.
	Peaceful bool
	Starts   []time.Duration // when each daemon is started, after the first
	Events   []event
	Calm     time.Duration // when all faults have ended, after the cluster has settled
}

func (s schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d directors, %d witnesses, %d groups, profile %s, auto_failback %v",
		s.Seed, s.Directors, s.Witnesses, s.Groups, s.Profile.Name, s.Failback)
	if s.Peaceful {
		b.WriteString(", peaceful: nothing may move")
	}
	for _, e := range s.Events {
		fmt.Fprintf(&b, "\n  %v", e)
	}
	return b.String()
}

// has says whether one of the actions is in the schedule.
func (s schedule) has(as ...action) bool {
	return slices.ContainsFunc(s.Events, func(e event) bool { return slices.Contains(as, e.Do) })
}

// bound is how long after the last fault every group has to answer: 15 s, and
// what must be waited for by design.
func (s schedule) bound() time.Duration {
	d := 15 * time.Second
	if s.has(failStarts, failStops, lostAddress) {
		d += 80 * time.Second // state.RetryAfter of three failures in a row, 10+20+40 s, on every director
	}
	if s.has(restart) {
		d += 65 * time.Second // a long lease, promised at the last moment; and a voter that restarts while it runs
	}
	if s.has(slow) {
		d += 10 * time.Second
	}
	return d
}

type dice struct{ *rand.Rand }

func (d dice) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(d.Int64N(int64(hi-lo)+1)).Round(time.Millisecond)
}

func (d dice) of(names []string) string { return names[d.IntN(len(names))] }

// newSchedule makes the schedule of a seed. story, if not empty, is one that
// it has to hold.
func newSchedule(seed uint64, story string) schedule {
	d := dice{rand.New(rand.NewPCG(seed, 0x7363686564))}
	s := schedule{Config: Config{Seed: seed, Directors: 2 + d.IntN(3), Groups: 1 + d.IntN(6), Failback: d.IntN(2) == 0}}
	s.Witnesses = d.IntN(3)
	if s.Directors+s.Witnesses < 3 {
		s.Witnesses = 3 - s.Directors
	}
	s.Profile = []conf.Profile{conf.ProfileFast, conf.ProfileDefault, conf.ProfileCalm}[d.IntN(3)]
	for range s.Directors + s.Witnesses {
		s.Starts = append(s.Starts, d.between(0, 2*time.Second))
	}
	s.Peaceful = d.IntN(8) == 0 && story == ""
	end := d.between(10*time.Second, 40*time.Second)
	if s.Peaceful {
		s.peace(d, end)
	} else {
		s.storm(d, end)
		if story == "" && d.IntN(3) == 0 {
			story = storyNames()[d.IntN(len(stories))]
		}
		if story != "" {
			s.Events = append(s.Events, stories[story](s, d, d.between(time.Second, end))...)
		}
	}
	slices.SortStableFunc(s.Events, func(a, b event) int { return cmp.Compare(a.At, b.At) })
	for _, e := range s.Events {
		s.Calm = max(s.Calm, e.At+e.For)
	}
	return s
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
		e := event{At: d.between(0, end), Do: action(1 + d.IntN(int(actions)-1))}
		// Lengths around the lease matter most, longer ones let a story end.
		if d.IntN(2) == 0 {
			e.For = s.Profile.Lease/4 + d.between(0, 2*s.Profile.Lease)
		} else {
			e.For = d.between(500*time.Millisecond, 8*time.Second)
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
		e.Count = 1 + d.IntN(2000)
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
