package pair

import (
	"strings"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

const lease = 500 * time.Millisecond

// whole is a node of a pair at rest.
func whole(rule conf.Quorum) Facts {
	return Facts{
		Rule: rule, WaitForAll: true, InitDead: 30 * time.Second, Lease: lease, Self: "a", Peer: "b",
		Uptime: time.Hour, Started: true, MayGoOn: true, Left: 450 * time.Millisecond,
		Votes: true, PeerVotes: true, PeerListed: true,
		PeerUp: true, PeerSaid: &Said{}, Silence: 60 * time.Millisecond, TieBreaker: 30 * time.Millisecond,
	}
}

// words is a decision in a line.
func (d Decision) words() string {
	w := []string{d.Phase.String()}
	for _, x := range []struct {
		is   bool
		name string
	}{
		{d.GoOn, "go on"}, {d.Lapse, "lapse"}, {d.Stop, "stop"}, {d.Revoke, "revoke"}, {d.Intend, "intend"}, {d.Fence, "fence"},
		{d.Probe, "probe"}, {d.Open, "open"}, {d.Withdraw, "withdraw"}, {d.Discard, "discard"}, {d.Settle, "settle"}, {d.Yield, "yield"},
	} {
		if x.is {
			w = append(w, x.name)
		}
	}
	return strings.Join(w, ", ")
}

func silent(f *Facts) {
	f.PeerUp, f.PeerSaid, f.Silence, f.Left = false, nil, 400*time.Millisecond, 100*time.Millisecond
}

func cold(f *Facts) {
	f.Started, f.MayGoOn, f.Left, f.Uptime = false, false, 0, time.Minute
}

func intends(f *Facts) {
	f.Revoked, f.Halted, f.Intended = true, true, 500*time.Millisecond
	f.Record.Intent = &Intent{Generation: Generation{f.Record.Current.Counter + 1, "00000001"}, Peer: "b"}
}

// stoodStill is a node that hung while the peer was silent.
func stoodStill(f *Facts) {
	f.PeerUp, f.PeerSaid, f.Silence, f.Unheard = false, nil, 20*time.Millisecond, true
}

// survived makes it the only voter of a generation that the peer may not know.
func survived(f *Facts) {
	f.Record.Current, f.Record.Contested = Generation{1, "0000aaaa"}, "b"
	f.PeerVotes, f.PeerListed = false, false
	f.Left = 450 * time.Millisecond
}

func lostLog(f *Facts) { f.PeerSaid = &Said{Empty: true, Stranger: true, Cold: true} }

func TestDecide(t *testing.T) {
	const (
		F = conf.QuorumFencing
		P = conf.QuorumPing
		U = conf.QuorumUnsafe
	)
	for _, c := range []struct {
		name string
		rule conf.Quorum
		do   []func(*Facts)
		want string
	}{
		{"both are there", F, nil, "whole"},
		{"the peer's word is overdue: what runs goes on", F, []func(*Facts){func(f *Facts) { f.Left = 200 * time.Millisecond }}, "whole, go on"},
		{"and by the tie-breaker only while it answers", P, []func(*Facts){func(f *Facts) { f.Left = 200 * time.Millisecond; f.TieBreaker = time.Second }}, "whole"},

		{"silent: first its incarnation is revoked", F, []func(*Facts){silent}, "alone, go on, revoke"},
		{"then the intent is recorded", F, []func(*Facts){silent, func(f *Facts) { f.Revoked = true }}, "alone, go on, intend"},
		{"then it is fenced", F, []func(*Facts){silent, intends}, "surviving, go on, fence"},
		{"and waited for", F, []func(*Facts){silent, intends, func(f *Facts) { f.Fence = Asked }}, "surviving, go on"},
		{"a device that fails opens nothing", F, []func(*Facts){silent, intends, func(f *Facts) { f.Fence = Failed }}, "surviving, go on"},
		{"fenced: a new generation", F, []func(*Facts){silent, intends, func(f *Facts) { f.Fence = Done }}, "surviving, go on, open"},
		{"less at stake: the other goes first", F, []func(*Facts){silent, func(f *Facts) { f.Delay = time.Second }}, "alone, go on"},
		{"and is given its time", F, []func(*Facts){silent, func(f *Facts) { f.Delay = time.Second; f.Silence = 1500 * time.Millisecond }}, "alone, go on"},
		{"that it has once it may fence, and no more", F, []func(*Facts){silent, func(f *Facts) { f.Delay = time.Second; f.Silence = 1520 * time.Millisecond }}, "alone, go on, revoke"},

		{"one that is being stopped goes on, and survives nobody", F, []func(*Facts){silent, func(f *Facts) { f.Leaving = true }}, "alone, go on"},
		{"not even what it has fenced", F, []func(*Facts){silent, intends, func(f *Facts) { f.Fence, f.Leaving = Done, true }}, "alone, go on"},

		{"it hung, and has not heard yet whether the peer is back", F, []func(*Facts){intends, stoodStill}, "surviving, go on"},
		{"it hung, and the device has done it", F, []func(*Facts){intends, stoodStill, func(f *Facts) { f.Fence = Done }}, "surviving, open"},
		{"it hung, and the peer stays silent", P, []func(*Facts){intends, stoodStill, func(f *Facts) { f.Silence = 400 * time.Millisecond }}, "surviving, go on, probe"},
		{"it hung, and hears the peer", F, []func(*Facts){intends, stoodStill, func(f *Facts) { f.PeerUp = true }}, "whole, go on, withdraw"},
		{"it hung, and the peer has proved that it hears", F, []func(*Facts){intends, stoodStill, func(f *Facts) { f.Unheard = false }}, "whole, go on, withdraw"},
		{"they go by two rules, and the peer has come back into this generation", F, []func(*Facts){survived, func(f *Facts) { f.PeerListed, f.PeerRule = true, "ping" }}, "whole, settle"},
		{"heard again before the device was asked", F, []func(*Facts){intends}, "whole, go on, withdraw"},
		{"heard again while the device is at work", F, []func(*Facts){intends, func(f *Facts) { f.Fence = Asked }}, "surviving, go on"},
		{"heard again after the device has failed", F, []func(*Facts){intends, func(f *Facts) { f.Fence = Failed }}, "whole, go on, withdraw"},
		{"heard again since it starts after it was fenced", F, []func(*Facts){intends, func(f *Facts) { f.Fence = Done }}, "surviving, open"},

		{"after a start it waits for the other", F, []func(*Facts){cold, silent, cold}, "waiting"},
		{"without wait_for_all for initdead", F, []func(*Facts){silent, cold, func(f *Facts) { f.WaitForAll = false; f.Uptime = 29 * time.Second }}, "waiting"},
		{"and then goes by its rule", F, []func(*Facts){silent, cold, func(f *Facts) { f.WaitForAll = false }}, "alone, revoke"},
		{"or an operator confirms: it fences all the same", F, []func(*Facts){silent, cold, intends, func(f *Facts) { f.Confirmed = true }}, "surviving, fence"},
		{"a confirmation by the rule ping asks the tie-breaker", P, []func(*Facts){silent, cold, intends, func(f *Facts) { f.Confirmed, f.Idle, f.TieBreaker = true, true, -1 }}, "surviving"},
		{"and looks at the addresses", P, []func(*Facts){silent, cold, intends, func(f *Facts) { f.Confirmed, f.Idle = true, true }}, "surviving, probe"},

		{"ping: the tie-breaker answers, the addresses are looked for", P, []func(*Facts){silent, intends}, "surviving, go on, probe"},
		{"ping: what the tie-breaker answered before says nothing, also when there is nothing to take", P, []func(*Facts){silent, intends, func(f *Facts) {
			f.TieBreaker, f.Intended, f.Clear = 200*time.Millisecond, 100*time.Millisecond, time.Hour
		}}, "surviving, go on"},
		{"ping: silent for long enough", P, []func(*Facts){silent, intends, func(f *Facts) { f.Clear = 2 * time.Second }}, "surviving, go on, probe, open"},
		{"ping: cut off, what runs here runs out", P, []func(*Facts){silent, intends, func(f *Facts) { f.TieBreaker = 600 * time.Millisecond }}, "surviving"},
		{"ping: a lease that ran out is not had back", P, []func(*Facts){silent, func(f *Facts) { f.Left = 0; f.Lapsed = 1 }}, "waiting, lapse, stop"},
		{"ping: before it tries anew, all has to stop", P, []func(*Facts){silent, cold, func(f *Facts) { f.Started = true }}, "alone, stop"},
		{"ping: and then it looks who has the addresses", P, []func(*Facts){silent, cold, intends, func(f *Facts) { f.Started, f.Idle = true, true }}, "surviving, probe"},

		{"unsafe: it takes over", U, []func(*Facts){silent, intends}, "surviving, go on, open"},
		{"unsafe: after a hang it listens for a lease", U, []func(*Facts){silent, func(f *Facts) { f.Left, f.Lapsed = 0, 100*time.Millisecond }}, "alone, revoke"},
		{"fencing: a node that runs has not been fenced, hang or not", F, []func(*Facts){silent, func(f *Facts) { f.Left, f.Lapsed = 0, time.Second }}, "alone, go on, revoke"},

		{"only the serial line is left", F, []func(*Facts){func(f *Facts) { f.OnlySerial = true; f.Silence = 20 * time.Second; f.Leaderless = 20 * time.Second }}, "whole"},
		{"heard, and useless", F, []func(*Facts){func(f *Facts) { f.Heard, f.Silence, f.Leaderless = time.Minute, 20*time.Second, 20*time.Second }}, "alone, go on, revoke"},
		{"both were about to go on alone when they hear each other again", F, []func(*Facts){intends, func(f *Facts) { f.Heard, f.Silence, f.Leaderless = time.Second, time.Minute, time.Minute }}, "whole, go on, withdraw"},
		{"the peer has lost its disk and says so: nobody is fenced", F, []func(*Facts){intends, func(f *Facts) { f.PeerSaid = &Said{Empty: true, Stranger: true, Cold: true, Echo: "00000001"} }}, "surviving, go on, open"},
		{"not before it has said so in answer", F, []func(*Facts){intends, func(f *Facts) { f.PeerSaid = &Said{Empty: true, Stranger: true, Cold: true} }}, "surviving, go on"},
		{"when it is heard again after a pause it is asked, too", F, []func(*Facts){intends, lostLog, func(f *Facts) { f.Intended, f.Heard = time.Minute, 100*time.Millisecond }}, "surviving, go on"},
		{"and fenced when it does not answer", F, []func(*Facts){intends, lostLog, func(f *Facts) { f.Intended, f.Heard = time.Minute, 2*time.Second }}, "surviving, go on, fence"},
		{"but by nobody who has not taken part since its start (wait_for_all)", F, []func(*Facts){cold, intends, lostLog, func(f *Facts) { f.Intended, f.Heard = time.Minute, 2*time.Second }}, "surviving"},
		{"an empty disk is no word of what runs there", F, []func(*Facts){func(f *Facts) { f.PeerSaid = &Said{Empty: true, Stranger: true} }}, "whole"},
		{"a device is at work: the peer is not taken in before it has answered", F, []func(*Facts){intends, func(f *Facts) {
			f.PeerSaid = &Said{Cold: true, Echo: "00000001"}
			f.Fence = Asked
			f.Silence = time.Minute
			f.PeerUp = false
		}}, "surviving, go on"},
		{"who was stopped waits for the peer, which may have gone on by itself", F, []func(*Facts){silent, cold, func(f *Facts) { f.HasLeft, f.WaitForAll = true, false }}, "joining"},
		{"and takes back what it began", F, []func(*Facts){silent, intends, func(f *Facts) { f.HasLeft = true }}, "joining, withdraw"},
		{"until an operator forces it", F, []func(*Facts){silent, cold, func(f *Facts) { f.HasLeft, f.Confirmed, f.Forced = true, true, true }}, "joining, revoke"},
		{"empty at the very beginning is not lost", F, []func(*Facts){func(f *Facts) { f.PeerSaid = &Said{Empty: true, Cold: true} }}, "whole"},

		{"the survivor goes on", F, []func(*Facts){survived}, "sole, go on"},
		{"the survivor by the rule ping needs the tie-breaker", P, []func(*Facts){survived, func(f *Facts) { f.TieBreaker = time.Second }}, "sole"},
		{"its first lease is on its way", P, []func(*Facts){survived, func(f *Facts) { f.Left = 0; f.Fresh = true }}, "sole, go on"},
		{"ping: the survivor's lease ran out", P, []func(*Facts){survived, func(f *Facts) { f.Left = 0; f.Lapsed = 1 }}, "waiting, lapse, stop"},
		{"a survivor that restarts alone waits: the other may have been told to go on", F, []func(*Facts){silent, survived, cold}, "waiting"},
		{"until it is heard that it did not", F, []func(*Facts){survived, cold, func(f *Facts) { f.PeerSaid = &Said{Cold: true} }}, "sole, go on"},
		{"and what it began meanwhile is over", F, []func(*Facts){survived, cold, intends, func(f *Facts) { f.PeerSaid = &Said{Cold: true} }}, "sole, go on, withdraw"},
		{"or it comes empty", F, []func(*Facts){survived, cold, func(f *Facts) { f.PeerSaid = &Said{Generation: f.Record.Current, Cold: true, Empty: true} }}, "sole, go on"},
		{"the other has been taken in", F, []func(*Facts){survived, func(f *Facts) { f.PeerListed = true }}, "sole, go on, settle"},
		{"a peer that was stopped cleanly does not vote", F, []func(*Facts){silent, cold, func(f *Facts) { f.PeerVotes = false }}, "sole, go on"},
		{"but at its start the only voter listens first", F, []func(*Facts){silent, cold, func(f *Facts) { f.PeerVotes = false; f.Uptime = time.Second }}, "waiting"},
		{"what a peer said before it fell silent says nothing", F, []func(*Facts){intends, silent, func(f *Facts) { f.PeerSaid = &Said{Cold: true} }}, "surviving, go on, fence"},
		{"a node that does not vote does not go on", F, []func(*Facts){silent, cold, func(f *Facts) { f.Votes = false }}, "joining"},
		{"not even when it is told", F, []func(*Facts){silent, cold, func(f *Facts) { f.Votes, f.Confirmed = false, true }}, "joining"},
		{"unless it is forced", F, []func(*Facts){silent, cold, func(f *Facts) { f.Votes, f.Confirmed, f.Forced = false, true, true }}, "joining, revoke"},
		{"not when the peer is heard and acts: the word was that it is off", F, []func(*Facts){cold, func(f *Facts) {
			f.Votes, f.Confirmed, f.Forced, f.PeerSaid = false, true, true, &Said{Acts: true}
		}}, "joining, yield"},
		{"and what was begun by that word is taken back", P, []func(*Facts){cold, intends, func(f *Facts) {
			f.Votes, f.Confirmed, f.Forced, f.PeerSaid = false, true, true, &Said{Acts: true}
		}}, "joining, withdraw, yield"},
		{"unless a device is at work", F, []func(*Facts){cold, intends, func(f *Facts) {
			f.Votes, f.Confirmed, f.Forced, f.PeerSaid, f.Fence = false, true, true, &Said{Acts: true}, Asked
		}}, "joining, yield"},

		{"a greater generation: stop", F, []func(*Facts){func(f *Facts) { f.PeerSaid.Generation = Generation{2, "0000bbbb"} }}, "rejoining, stop"},
		{"and put the log aside when nothing runs", F, []func(*Facts){func(f *Facts) { f.PeerSaid.Generation = Generation{2, "0000bbbb"}; f.Idle = true }}, "rejoining, stop, discard"},
		{"from then on nothing that its log says counts", F, []func(*Facts){cold, func(f *Facts) {
			f.Record = Record{Current: Generation{2, "0000bbbb"}, Discard: true}
			f.PeerSaid.Generation, f.PeerVotes = f.Record.Current, false
		}}, "rejoining, stop"},
		{"an older one is not listened to", F, []func(*Facts){survived, func(f *Facts) { f.PeerSaid.Generation = Generation{0, ""} }}, "sole, go on"},

		{"two rules: neither goes on without the other", U, []func(*Facts){silent, intends, func(f *Facts) { f.PeerRule = "fencing" }}, "whole, withdraw"},
		{"an operator's order to fence a peer that is heard", F, []func(*Facts){func(f *Facts) { f.Ordered = true }}, "alone, go on, revoke"},
		{"and then", F, []func(*Facts){intends, func(f *Facts) { f.Ordered = true }}, "surviving, go on, fence"},

		{"rivals: whoever waits waits on", F, []func(*Facts){survived, cold, func(f *Facts) { f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Acts: true} }}, "rivals, stop"},
		{"rivals: both wait for an operator", F, []func(*Facts){survived, cold, func(f *Facts) { f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Cold: true} }}, "rivals, stop"},
		{"rivals: whoever acts goes on while the other waits", F, []func(*Facts){survived, func(f *Facts) { f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Cold: true} }}, "sole, go on"},
		{"rivals: an operator has chosen", F, []func(*Facts){survived, cold, intends, func(f *Facts) {
			f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Cold: true, Echo: "00000001"}
			f.Confirmed = true
		}}, "surviving, open"},
		{"rivals: an operator has chosen, and the other has not heard of it yet", F, []func(*Facts){survived, cold, intends, func(f *Facts) {
			f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Cold: true}
			f.Confirmed = true
		}}, "surviving"},
		{"and it is not waited for for long", F, []func(*Facts){survived, cold, intends, func(f *Facts) {
			f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Cold: true}
			f.Confirmed, f.Intended, f.Heard = true, 2*time.Second, 2*time.Second
		}}, "surviving, fence"},
		{"rivals: an operator has chosen the one that acts: what runs goes on", F, []func(*Facts){survived, intends, func(f *Facts) {
			f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Cold: true, Echo: "00000001"}
			f.Confirmed = true
		}}, "surviving, go on, open"},
		{"rivals: an operator chooses the one that waits while the other acts", F, []func(*Facts){survived, cold, func(f *Facts) {
			f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Acts: true}
			f.Confirmed = true
		}}, "rivals, stop"},
		{"rivals: what one of them began before it met the other is void", F, []func(*Facts){survived, cold, intends, func(f *Facts) {
			f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Acts: true}
		}}, "rivals, stop, withdraw"},
		{"rivals: both were chosen, and the greater id stays", F, []func(*Facts){survived, cold, intends, func(f *Facts) {
			f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}}
			f.Confirmed = true
		}}, "rivals, stop, withdraw, yield"},
		{"rivals: both were chosen, and this is the one", F, []func(*Facts){survived, cold, intends, func(f *Facts) {
			f.PeerSaid = &Said{Generation: Generation{1, "00000bbb"}}
			f.Confirmed = true
		}}, "surviving, fence"},
		{"it takes no part any more before the device is asked", F, []func(*Facts){silent, intends, func(f *Facts) { f.Halted = false }}, "alone, go on, intend"},
		{"a disk of another history, cold, ends nothing that serves", F, []func(*Facts){func(f *Facts) {
			f.PeerSaid = &Said{Generation: Generation{4, "0000cccc"}, Stranger: true, Cold: true}
		}}, "whole"},
		{"one that this node knows does", F, []func(*Facts){func(f *Facts) { f.PeerSaid = &Said{Generation: Generation{4, "0000cccc"}, Acts: true} }}, "rejoining, stop"},
		{"rivals that both act: the greater id stays", U, []func(*Facts){survived, func(f *Facts) { f.PeerSaid = &Said{Generation: Generation{1, "0000bbbb"}, Acts: true} }}, "rejoining, stop"},
		{"rivals that both act: and this is it", U, []func(*Facts){survived, func(f *Facts) { f.PeerSaid = &Said{Generation: Generation{1, "00001111"}, Acts: true} }}, "sole, go on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := whole(c.rule)
			for _, do := range c.do {
				do(&f)
			}
			if got := Decide(f).words(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// Whatever is true, a node never opens a generation over a peer that votes and
// has not been revoked, fenced, or proved gone as the rule wants it; and what
// goes on alone has run before.
func FuzzDecide(f *testing.F) {
	f.Add(uint64(0), uint8(2))
	f.Add(^uint64(0), uint8(3))
	f.Fuzz(func(t *testing.T, bits uint64, rule uint8) {
		next := func() bool { b := bits & 1; bits >>= 1; return b == 1 }
		x := whole([]conf.Quorum{conf.QuorumFencing, conf.QuorumPing, conf.QuorumUnsafe}[rule%3])
		for _, b := range []*bool{
			&x.WaitForAll, &x.Started, &x.MayGoOn, &x.Idle, &x.Fresh, &x.Confirmed, &x.Forced, &x.Votes, &x.PeerVotes, &x.PeerListed,
			&x.Empty, &x.PeerUp, &x.OnlySerial, &x.Revoked, &x.Halted, &x.HasLeft,
		} {
			*b = next()
		}
		for _, d := range []*time.Duration{&x.Uptime, &x.Left, &x.Lapsed, &x.Leaderless, &x.Silence, &x.Clear, &x.Delay} {
			*d = []time.Duration{0, 200 * time.Millisecond, time.Second, time.Hour}[bits&3]
			bits >>= 2
		}
		x.Fence = FenceState(bits & 3)
		bits >>= 2
		x.TieBreaker = []time.Duration{-1, 100 * time.Millisecond, time.Second}[bits%3]
		bits /= 3
		if next() {
			x.PeerSaid = nil
		} else {
			x.PeerSaid = &Said{Empty: next(), Cold: next(), Stranger: next(), Echo: []string{"", "0000eeee"}[bits&1], Generation: []Generation{{}, {1, "0000aaaa"}, {1, "0000bbbb"}, {2, "0000cccc"}}[bits&3]}
			bits >>= 2
		}
		if next() {
			x.Record.Current = Generation{1, "0000aaaa"}
		}
		if next() {
			x.Record.Contested = "b"
		}
		if next() {
			x.Record.Intent = &Intent{Generation: Generation{2, "0000eeee"}}
		}
		d := Decide(x)
		harmless := x.PeerUp && x.PeerSaid != nil && x.PeerSaid.Cold && x.PeerSaid.Echo != ""
		waits := x.PeerUp && x.PeerSaid != nil && x.PeerSaid.Cold
		switch {
		case d.Phase == 0:
			t.Errorf("no phase: %+v", x)
		case (d.Open || d.Fence) && (!x.Revoked || x.Record.Intent == nil || !x.Halted):
			t.Errorf("opened or fenced without revocation, intent or taking part no more: %+v", x)
		case d.Open && x.Rule == conf.QuorumFencing && x.Fence != Done && !harmless:
			t.Errorf("opened without fencing: %+v", x)
		case d.Open && x.Rule == conf.QuorumPing && !harmless && (!x.reaches() || x.Clear < ClearFor(x.Lease)):
			t.Errorf("opened without the tie-breaker, or over an address that answers: %+v", x)
		case (d.Intend || d.Fence || d.Open) && x.HasLeft && x.PeerVotes && !x.Forced:
			t.Errorf("goes on after a clean stop, although the peer may have gone on by itself: %+v", x)
		case d.Open && x.Fence == Asked:
			t.Errorf("opened while a device is at work: %+v", x)
		case d.Fence && x.WaitForAll && !x.Started && !x.Confirmed:
			t.Errorf("fences without having seen the peer: %+v", x)
		case d.GoOn && !x.MayGoOn && !harmless && !waits && x.PeerVotes:
			t.Errorf("goes on alone without ever having run: %+v", x)
		case d.GoOn && d.Stop:
			t.Errorf("goes on and stops: %+v", x)
		case d.Open && d.Withdraw, d.Open && d.Discard, d.Open && d.Stop:
			t.Errorf("contradicts itself (%s): %+v", d.words(), x)
		}
	})
}
