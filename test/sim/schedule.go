package sim

import (
	"fmt"
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
	common // how many there are that every cluster knows, and one

	// With a fencing device.
	deviceSlow
	deviceFails // and does nothing
	deviceMute  // it does it, and the answer is lost
	diesAsking  // whoever asks the device next, at that moment

	// In pairs.
	noTieBreaker
	serviceCut // between the machines
	confirm

	// At a write to the disk.
	diesWriting

	// The links are cut when the log admits a machine that leads, before the other one knows it.
	cutAtAdmission

	nodes // a machine is added to the cluster, or taken out

	served // every group has to answer at this moment

	upgrade // daemons are restarted with the newest program, one by one

	orderFence // an operator's `keepbeat fence`

	foreignMaster // a foreign router, or a forgery, is heard as master of a group

	diskFull // no entry of the log can be stored, and promises can
)

var actionNames = [...]string{
	power: "power off", diskLoss: "power off and an empty disk", crash: "SIGKILL", pause: "SIGSTOP",
	partition: "cut off", split: "split", oneWay: "one-way cut", pairCut: "pair cut", pairOneWay: "one-way pair cut",
	noise: "noise", delayed: "noise in one direction", linkCut: "link cut", linkFlap: "link flapping", linkNoise: "noise on one link",
	slow: "slow resources", failStarts: "starts fail", failStops: "stops fail", lostAddress: "an address is deleted",
	standby: "standby", takeover: "takeover", apply: "apply", restart: "planned restart", cleanStop: "clean stop",
	deviceSlow: "slow fencing device", deviceFails: "the fencing device fails", deviceMute: "the fencing device's answer is lost",
	diesAsking: "whoever fences next dies", noTieBreaker: "no tie-breaker", serviceCut: "the service network is cut", confirm: "confirm",
	diesWriting: "dies at a write", upgrade: "upgrade, one by one",
	nodes:          "nodes change",
	served:         "every group is served",
	cutAtAdmission: "cut off when it is admitted",
	orderFence:     "fencing is ordered",
	foreignMaster:  "a foreign master is heard",
	diskFull:       "the disk is full",
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
	Count int  // failures; for foreignMaster: which group; for apply: which change; milliseconds; writes
	Write kind // diesWriting
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
	if e.Write != 0 {
		fmt.Fprintf(&b, " (%v)", e.Write)
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
		case confirm:
			b.WriteString(", forced")
		case slow:
			b.WriteString(", to start")
		case diesAsking:
			b.WriteString(", the machine")
		case foreignMaster:
			b.WriteString(", forged")
		case diesWriting:
			b.WriteString(", the machine, after it")
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
	// ByItself schedules need no operator at the end.
	ByItself bool
	Starts   []time.Duration // when each daemon is started, after the first
	Events   []event
	Calm     time.Duration // when all faults have ended, after the cluster has settled
}

func (s schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d directors, %d witnesses, %d groups, profile %s, auto_failback %v",
		s.Seed, s.Directors, s.Witnesses, s.Groups, s.Profile.Name, s.Failback)
	if s.Rule != 0 {
		fmt.Fprintf(&b, ", quorum: %v", s.Rule)
	}
	if s.OneStarts {
		b.WriteString(", wait_for_all: no")
	}
	for i, role := range s.Spares {
		fmt.Fprintf(&b, ", spare%d: a %v", i+1, role)
	}
	if s.Stores > 0 {
		fmt.Fprintf(&b, ", %d groups with a store", s.Stores)
	}
	if s.Announced > 0 {
		fmt.Fprintf(&b, ", %d groups announced, on_conflict: %v", s.Announced, s.OnConflict)
	}
	if s.Upgrade {
		fmt.Fprintf(&b, ", begun with programs of format %d", max(1, s.From))
	}
	if s.Snapshots > 0 {
		fmt.Fprintf(&b, ", a snapshot every %d entries", s.Snapshots)
	}
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

// yields says whether groups may have failed since a foreign master was heard: a
// second owner, where the rule allows that, is one as well.
func (s schedule) yields() bool {
	return s.OnConflict == conf.ConflictYield && s.has(foreignMaster, serviceCut)
}

// bound is how long after the last fault every group has to answer: 15 s, and
// what must be waited for by design.
func (s schedule) bound() time.Duration {
	d := 15 * time.Second
	if s.has(failStarts, failStops, lostAddress) || s.yields() {
		d += 80 * time.Second // state.RetryAfter of three failures in a row, 10+20+40 s, on every director
	}
	if s.has(restart) {
		d += 65 * time.Second // a long lease, promised at the last moment; and a voter that restarts while it runs
	}
	if s.has(nodes) {
		d += 30 * time.Second // a change of voters each, and a promise between two
	}
	if s.has(slow) {
		d += 10 * time.Second
	}
	if s.has(deviceSlow, deviceFails, deviceMute) {
		d += 20 * time.Second // fenceAgain, some times, and what is under way
	}
	if s.Rule != 0 {
		d += 15 * time.Second // both may have to start again, one after the other
	}
	return d
}
