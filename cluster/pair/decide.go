package pair

import (
	"fmt"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// Phase is where a node of a pair stands.
type Phase uint8

// Phases. The zero value is invalid.
const (
	_         Phase = iota
	Waiting         // may not act: it has not seen the other since its start
	Joining         // takes part without a vote, or is being taken in
	Whole           // both are there
	Alone           // the other is silent; what runs here goes on
	Surviving       // has revoked the other and is making certain of it
	Sole            // the only voter of its generation
	Rejoining       // the other's generation is newer: this node's log is put aside
	Rivals          // both have survived the other: an operator chooses
)

func (p Phase) String() string {
	switch p {
	case Waiting:
		return "waiting"
	case Joining:
		return "joining"
	case Whole:
		return "whole"
	case Alone:
		return "alone"
	case Surviving:
		return "surviving"
	case Sole:
		return "sole"
	case Rejoining:
		return "rejoining"
	case Rivals:
		return "rivals"
	}
	return fmt.Sprintf("invalid(%d)", uint8(p))
}

// MayFence says whether a node may be told to fence the other one: both vote, and
// it has not just begun. It is not asked of one that is the only voter.
func (p Phase) MayFence() bool { return p == Whole || p == Alone || p == Surviving }

// FenceState is what has become of fencing the peer in this survival.
type FenceState uint8

// States of fencing.
const (
	NotAsked FenceState = iota
	Asked               // a device is at work
	Failed              // it answered, or ran out of time, without certainty
	Done                // the peer does nothing any more
)

// Facts is all that Decide looks at. Durations end now.
type Facts struct {
	Rule       conf.Quorum // QuorumFencing, QuorumPing or QuorumUnsafe
	WaitForAll bool
	InitDead   time.Duration
	Lease      time.Duration
	Longest    time.Duration // lease that the peer may still go by; at least Lease
	Self, Peer string
	Record     Record

	// Of this process.
	Uptime    time.Duration
	Started   bool          // its lease has run since the process began, under whatever generation
	MayGoOn   bool          // Started, and nothing has happened since that ends going on alone (Decision.Lapse)
	Left      time.Duration // of its lease; 0 or less: none runs
	Lapsed    time.Duration // since its lease ended; 0: it runs, or never did
	Idle      bool          // nothing runs here
	Halted    bool          // it takes no part in the log
	Intended  time.Duration // since the intent was recorded; 0: there is none
	Fresh     bool          // it opened its generation less than a lease ago: its first lease is on its way
	Confirmed bool          // an operator has said that it is to go on without the peer
	Forced    bool          // and that this holds although it does not vote
	Ordered   bool          // the peer is to be fenced, silent or not
	Leaving   bool          // it is being stopped and runs nothing any more

	// Of the newest configuration in its log.
	Votes      bool // this node
	PeerVotes  bool
	HasLeft    bool          // this node was stopped cleanly, and nothing after that in its log admits it again
	PeerListed bool          // with or without a vote
	Leaderless time.Duration // for how long no leader has been known
	Empty      bool          // neither log nor state

	// Of the peer.
	PeerUp     bool          // hellos pass both ways
	Heard      time.Duration // for how long they have; 0: they do not
	OnlySerial bool          // and nothing but a serial line is left
	PeerSaid   *Said
	PeerRule   string        // the rule that it said it has, when that is another than Rule; empty: they agree
	Silence    time.Duration // since it last proved that it hears this voter, or since this process went on after it had stood still
	Unheard    bool          // it has proved nothing since this process stood still
	Revoked    bool          // this voter has revoked its newest incarnation, durably

	// Of the rule.
	Fence      FenceState
	Delay      time.Duration // for which the peer may fence first: priority_fencing_delay when this node has less at stake, twice that when nothing of it runs here; 0 otherwise
	TieBreaker time.Duration // since the newest question was sent that the tie-breaker has answered; negative: never
	Clear      time.Duration // for how long no address of the groups that are not here has answered
}

// Said is what the peer's hellos say of it. nil in Facts: it is not heard.
type Said struct {
	Generation Generation
	Empty      bool // neither log nor state
	Stranger   bool // its disk is not the one that votes: that is lost
	Cold       bool // it may not act, and does nothing to change that: it waits
	Acts       bool // it has a lease, or may have one; neither: it does not, and is about to
	// Echo is the id of this node's intent that it has heard of: what it says
	// beside it was said after the intent was recorded.
	Echo string
}

// Decision is what is to be done now. Nothing in it takes effect by itself.
type Decision struct {
	Phase Phase
	Why   string // for people; empty: nothing to explain

	GoOn     bool // the peer's acknowledgement is not needed: extend the lease
	Lapse    bool // going on alone has ended: MayGoOn becomes false
	Stop     bool // nothing may run here
	Revoke   bool // this voter is to revoke the peer
	Intend   bool // record the intent, take no part in the old generation any more
	Fence    bool // ask the devices
	Probe    bool // look whether addresses answer
	Open     bool // the intended generation becomes the current one, this node its only voter
	Withdraw bool // forget the intent and take part again
	Discard  bool // put the log aside and come back empty, in the peer's generation
	Yield    bool // what an operator has told this node is void: the other was told so, too, or is heard and acts
	Settle   bool // the peer is back in this generation: it is contested no longer
}

const (
	// uselessAfter is how long a peer that is heard, and neither renews its lease
	// nor takes part in the log, is borne with.
	uselessAfter = 10 * time.Second
	// askFor is how long a peer that is heard and says that it waits is given to
	// say so in answer to the intent: then it need not be fenced.
	askFor = time.Second
	// lookFor is how long the only voter looks for the other at its start: an
	// operator may have forced that to go on (`quorum confirm --force`).
	lookFor = 3 * time.Second
	// silentShare of a lease without proof is silence: two renewals in a row.
	silentNum, silentDen = 6, 10
)

// SilentAfter is how long a peer proves nothing until it counts as silent.
func SilentAfter(lease time.Duration) time.Duration { return lease * silentNum / silentDen }

// Decide says what a node of a pair does.
func Decide(f Facts) Decision {
	if f.Record.Discard {
		// What the log says is of the history that this node has left; it is about to start again.
		return Decision{Phase: Rejoining, Why: "its log is put aside", Stop: true}
	}
	if s := f.PeerSaid; s != nil {
		mine, theirs := f.Record.Current, s.Generation
		switch {
		case theirs.Counter > mine.Counter && f.MayGoOn && s.Stranger && !s.Acts:
			// The disk of another cluster, or one from long ago, put into a machine beside one that serves.
		case theirs.Counter > mine.Counter:
			return f.rejoin(fmt.Sprintf("%s has opened generation %v, this node knows %v", f.Peer, theirs, mine))
		case mine.Rival(theirs):
			if d, decided := f.rivals(); decided {
				return d
			}
		}
	}
	if f.PeerRule != "" && !f.Empty {
		// Each would count on the other keeping a promise that it has not made.
		d := Decision{Phase: Whole, Why: fmt.Sprintf("it goes by quorum: %v, %s by quorum: %s: make ha.yaml the same on both and run `keepbeat restart` where it was changed; until then neither goes on without the other", f.Rule, f.Peer, f.PeerRule)}
		if f.Left <= 0 {
			d.Phase = Waiting
		}
		d.Withdraw = f.Record.Intent != nil && f.Fence != Asked
		d.Settle = f.settles() // the rule of the survival may be what differs
		return d
	}
	if f.Empty {
		return Decision{Phase: Joining, Why: "its log is empty: " + f.Peer + " has to take it in"}
	}
	d := f.going()
	d.Settle = f.settles()
	return d
}

// settles says whether the peer that was survived has come back into this generation.
func (f Facts) settles() bool { return f.Record.Contested != "" && f.PeerListed }

// rejoin is what a node does whose history has been superseded.
func (f Facts) rejoin(why string) Decision {
	return Decision{Phase: Rejoining, Why: why, Stop: true, Discard: f.Idle && f.Fence != Asked}
}

// rivals: both have survived the other and opened the same number. Whoever
// waits goes on waiting until an operator chooses; when both act, which only a
// rule can bring about that does not keep that from happening, or both were
// chosen, the greater id stays.
func (f Facts) rivals() (Decision, bool) {
	mine, theirs := f.Record.Current, f.PeerSaid.Generation
	first := mine.ID > theirs.ID
	why := fmt.Sprintf("%s and this node have each gone on without the other (generations %v and %v): `keepbeat quorum confirm` on the one whose state is to be kept", f.Peer, theirs, mine)
	wait := Decision{Phase: Rivals, Why: why, Stop: true, Withdraw: f.Record.Intent != nil && f.Fence != Asked}
	switch {
	case f.MayGoOn && f.PeerSaid.Acts && first:
		return Decision{}, false
	case f.MayGoOn && f.PeerSaid.Acts:
		return f.rejoin(why), true
	case f.PeerSaid.Acts:
		return wait, true
	case f.lapses():
		return Decision{}, false
	case f.Confirmed && !f.PeerSaid.Cold && !first:
		wait.Yield = true
		return wait, true
	case f.Confirmed:
		return f.survive(Decision{Phase: Surviving, Why: "an operator has chosen this node's state", GoOn: f.goOn()}), true
	case f.MayGoOn:
		return Decision{}, false
	}
	return wait, true
}

// going is the decision among nodes of one generation, or beside a peer that
// is not heard or behind.
func (f Facts) going() Decision {
	contested := f.Record.Contested != "" && !f.PeerListed
	surviving := f.Record.Intent != nil
	switch {
	case !f.Votes, f.HasLeft && f.PeerVotes:
		// Who has left may have lost its vote by an entry that it never got: the peer
		// needs nobody's word for that.
		d := Decision{Phase: Joining, Why: "it does not vote yet", Withdraw: surviving && f.Fence != Asked}
		if f.HasLeft {
			d.Why = fmt.Sprintf("it was stopped, and %s may have decided things since: it waits for %[1]s; if that is surely off for good: `keepbeat quorum confirm --force`", f.Peer)
		}
		switch {
		case f.Confirmed && f.PeerUp && f.PeerSaid != nil && f.PeerSaid.Acts:
			// The word was that it is off.
			d.Why = f.Peer + " is heard, and acts: it takes this node in"
			d.Yield = true
			return d
		case f.Confirmed && f.Forced:
			d.Withdraw = false
			return f.survive(d)
		}
		if f.Confirmed {
			d.Why = "it does not vote: " + f.Peer + " may know more than this node; `keepbeat quorum confirm --force` goes on with what this node knows"
		}
		return d
	case !f.PeerVotes && !contested && !f.Started && f.PeerSaid == nil && f.Uptime < lookFor:
		return Decision{Phase: Waiting, Why: fmt.Sprintf("it votes alone, and looks for %v whether %s has gone on without it", lookFor, f.Peer)}
	case !f.PeerVotes && !contested:
		return Decision{Phase: Sole, Why: f.Peer + " does not vote", GoOn: true}
	case !f.PeerVotes:
		return f.sole()
	case f.silent(), f.Ordered:
		return f.alone()
	case surviving && f.Fence == Done:
		// It is heard, since it starts again.
		return f.survive(Decision{})
	case surviving && f.Listens():
		return Decision{Phase: Surviving, Why: "it stood still, and listens whether " + f.Peer + " is back", GoOn: f.goOn()}
	case surviving && f.Fence != Asked:
		return Decision{Phase: Whole, Why: f.Peer + " is heard again", Withdraw: true, GoOn: f.goOn()}
	case surviving:
		return Decision{Phase: Surviving, Why: f.Peer + " is heard again; a fencing device is still at work", GoOn: f.goOn()}
	}
	d := Decision{Phase: Whole, GoOn: f.overdue() && f.goOn()}
	switch {
	case f.OnlySerial:
		d.Why = "only the serial line is left: leases are kept alive, nothing can be decided, and nobody is fenced or taken over"
	case f.Left <= 0 && !f.Started:
		d.Phase, d.Why = Waiting, "waiting for "+f.Peer+" to take part"
	}
	d.Lapse = f.lapses()
	d.Stop = d.Lapse
	return d
}

// silent says whether the peer counts as gone. A peer that is heard on a
// serial line alone lives: it is neither fenced nor taken over.
func (f Facts) silent() bool {
	if f.PeerUp && f.OnlySerial {
		return false
	}
	if f.PeerUp {
		return f.lost() || min(f.Heard, f.Leaderless, f.Silence) > uselessAfter
	}
	return f.Silence > SilentAfter(f.Lease)
}

// Listens says whether nothing follows from the peer's silence, nor from its end:
// this process stood still, and has not had the time since to hear of it.
func (f Facts) Listens() bool { return f.Unheard && !f.PeerUp && f.Silence <= SilentAfter(f.Lease) }

// lost says whether the peer has lost its disk, and with it the identity that
// votes, and nothing of what ran there can be left.
func (f Facts) lost() bool {
	return f.PeerUp && f.PeerSaid != nil && f.PeerSaid.Empty && f.PeerSaid.Stranger && f.PeerSaid.Cold
}

// overdue says whether the lease would soon end for want of the peer's word.
func (f Facts) overdue() bool { return f.Left < SilentAfter(f.Lease) }

// goOn says whether the rule keeps the peer from acting first, so that what
// runs here may run on.
func (f Facts) goOn() bool {
	if !f.MayGoOn {
		return false
	}
	switch f.Rule {
	case conf.QuorumFencing:
		return true // this node runs, so it has not been fenced
	case conf.QuorumPing:
		return (f.Left > 0 || f.Fresh) && f.reaches()
	case conf.QuorumUnsafe:
		// After a hang the peer may have taken over: a lease's time to hear of it.
		return f.Left > 0 || f.Fresh || f.Lapsed > f.Lease
	}
	return false
}

func (f Facts) reaches() bool { return f.TieBreaker >= 0 && f.TieBreaker < f.Lease }

// lapses says whether going on alone has just ended: by the rule ping, a lease
// that ran out cannot be had back without looking who has the addresses now.
func (f Facts) lapses() bool {
	return f.Rule == conf.QuorumPing && f.MayGoOn && f.Left <= 0 && !f.Fresh && f.silentOrSole()
}

func (f Facts) silentOrSole() bool { return !f.PeerVotes || f.silent() }

// harmless says whether the peer itself says that it does not act. That it
// waits counts when it was said in answer to this node's intent: from then on it
// cannot begin to act without hearing of this node, or fencing it. What it said
// before says nothing of now. An empty disk is no excuse: what ran on that
// machine may run on for a lease.
func (f Facts) harmless() bool {
	if !f.PeerUp || f.PeerSaid == nil {
		return false
	}
	answered := f.Record.Intent != nil && f.PeerSaid.Echo == f.Record.Intent.Generation.ID
	return f.PeerSaid.Cold && answered
}

// waits says whether the peer has just started and is behind, or empty: it waits for this node.
func (f Facts) waits() bool {
	return f.PeerUp && f.PeerSaid != nil && f.PeerSaid.Cold && (f.PeerSaid.Generation.Counter < f.Record.Current.Counter || f.PeerSaid.Empty)
}

// may says whether a node that is not alone by a running lease may become the survivor.
func (f Facts) may() (bool, string) {
	switch {
	case f.Started, f.Confirmed:
		return true, ""
	case !f.WaitForAll && f.Uptime >= f.InitDead:
		return true, ""
	case !f.WaitForAll:
		return false, fmt.Sprintf("it waits %v for %s after its start (initdead)", f.InitDead, f.Peer)
	}
	return false, fmt.Sprintf("it has not seen %s since its start (wait_for_all); if %s is surely off: `keepbeat quorum confirm`", f.Peer, f.Peer)
}

// alone: the peer votes and is silent.
func (f Facts) alone() Decision {
	if f.lapses() {
		return Decision{Phase: Waiting, Why: "its lease ran out while it did not reach the tie-breaker", Lapse: true, Stop: true}
	}
	d := Decision{Phase: Alone, Why: f.Peer + " is silent", GoOn: f.goOn()}
	if f.Ordered {
		d.Why = f.Peer + " is to be fenced"
	}
	if f.lost() {
		d.Why = f.Peer + " has lost its log"
	}
	if f.lost() || f.harmless() {
		return f.survive(d)
	}
	if ok, why := f.may(); !ok {
		d.Phase, d.Why = Waiting, why
		return d
	}
	return f.survive(d)
}

// sole: this node is the only voter of a generation that the peer may not know.
func (f Facts) sole() Decision {
	// What it began before it knew that it may go on: in it, it takes no part in its own log.
	withdraw := f.Record.Intent != nil && f.Fence != Asked
	switch {
	case f.lapses():
		return Decision{Phase: Waiting, Why: "its lease ran out while it did not reach the tie-breaker", Lapse: true, Stop: true}
	case f.MayGoOn:
		why := f.Peer + " has not come back"
		if f.Rule == conf.QuorumPing && !f.reaches() {
			why += ", and the tie-breaker does not answer"
		}
		return Decision{Phase: Sole, Why: why, GoOn: f.goOn(), Withdraw: withdraw}
	case f.harmless(), f.waits():
		return Decision{Phase: Sole, Why: f.Peer + " is back and does not act", GoOn: true, Withdraw: withdraw}
	}
	d := Decision{Phase: Waiting}
	ok, why := f.may()
	if !ok {
		d.Why = why
		return d
	}
	return f.survive(d)
}

// survive goes through the steps that make this node the survivor.
func (f Facts) survive(d Decision) Decision {
	if f.Leaving {
		// The peer may have taken its vote away, and have decided what is not known here.
		d.Why = "it is being stopped"
		return d
	}
	harmless := f.harmless()
	if f.Rule == conf.QuorumFencing && !harmless && !f.lost() && !f.Confirmed && !f.Ordered && f.Record.Intent == nil {
		// The other one may only when its promise to this node is over.
		if wait := f.Lease*clockNum/clockDen + f.Delay - f.Silence; f.Delay > 0 && wait > 0 {
			d.Why += fmt.Sprintf("; it may fence first, and is given %v for that (priority_fencing_delay)", f.Delay)
			return d
		}
	}
	if f.Rule == conf.QuorumPing && !f.MayGoOn && !f.Idle {
		d.Stop = true
		return d
	}
	if !f.Revoked {
		d.Revoke = true
		return d
	}
	if f.Record.Intent == nil || !f.Halted {
		d.Intend = true
		return d
	}
	d.Phase = Surviving
	switch {
	case f.Fence == Asked: // its deed would hit a peer that has come back meanwhile
		d.Why = "a device is fencing " + f.Peer
	case harmless, f.Rule == conf.QuorumUnsafe:
		d.Open = true
	case f.Rule == conf.QuorumFencing:
		f.fence(&d)
	case f.Rule == conf.QuorumPing:
		f.tieBreak(&d)
	}
	return d
}

func (f Facts) fence(d *Decision) {
	if s := f.PeerSaid; f.Fence == NotAsked && f.PeerUp && s != nil && s.Cold {
		// One that has just been heard again may not have heard of the intent either.
		ok, _ := f.may()
		switch {
		case min(f.Intended, f.Heard) < askFor:
			d.Why = "asking " + f.Peer + " whether it waits"
			return
		case !ok:
			d.Why = fmt.Sprintf("%s has lost its log, and is heard, but does not answer: look at the links between the two; if %[1]s is to be given up: `keepbeat quorum confirm`", f.Peer)
			return
		}
	}
	switch f.Fence {
	case NotAsked:
		d.Fence = true
		d.Why = "fencing " + f.Peer
	case Failed:
		d.Why = f.Peer + " could not be fenced; it is tried again"
	case Done:
		d.Open = true
	}
}

// ClearFor is how long addresses have to be silent before they are taken under
// the rule ping: the owner's lease, from the moment it stopped to reach the
// tie-breaker, and as long again for the answer.
//
// Each is a lease by the owner's clock, so there is a margin for the clocks, as in a promise.
func ClearFor(lease time.Duration) time.Duration { return 2 * lease * clockNum / clockDen }

// Two clocks that are each wrong by 1 % differ by less than 3 %.
const clockNum, clockDen = 103, 100

func (f Facts) tieBreak(d *Decision) {
	// What it said before says nothing of who is cut off now.
	if !f.reaches() || f.TieBreaker > f.Intended {
		d.Why = "the tie-breaker does not answer"
		return
	}
	d.Probe = true
	if f.Clear < ClearFor(max(f.Lease, f.Longest)) {
		d.Why = "looking whether the addresses answer elsewhere"
		return
	}
	d.Open = true
}
