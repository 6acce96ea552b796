package lease

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// talk is a director that renews with one voter, over a network that a test makes.
type talk struct {
	round       time.Duration            // 0: 125 ms, that of the default profile
	lease       time.Duration            // asked for; 0: four rounds
	there, back time.Duration            // how long a renewal and its answer travel
	lost        func(k uint64) bool      // renewals; nil: none
	unheard     func(k uint64) bool      // answers; nil: none
	late        map[uint64]time.Duration // rounds before which the director stands still
	restarts    uint64                   // the round with which a new boot begins; 0: none
}

// silence is what the voter makes of it, looked at every millisecond: during which
// rounds the director counted as silent, by the limit that the pair and the leader
// have, 0.6 normal leases, and the longest silence.
func (c talk) silence(rounds int) (silent []uint64, longest time.Duration) {
	if c.round == 0 {
		c.round = 125 * ms
	}
	if c.lease == 0 {
		c.lease = 4 * c.round
	}
	type packet struct {
		at   time.Duration
		boot uint64
		m    Message
	}
	h, v := holder(Voters{Index: 1, IDs: []string{"b/1"}}), NewVoter("b/1", Record{}, 0)
	var to, from []packet
	boot, next, k := uint64(1), time.Second, uint64(0)
	is := func(f func(uint64) bool, k uint64) bool { return f != nil && f(k) }
	for now := next; k < uint64(rounds); now += ms {
		for len(from) > 0 && from[0].at <= now {
			if a, ok := from[0].m.(Ack); ok && from[0].boot == boot {
				h.Ack(a)
			}
			from = from[1:]
		}
		if now >= next {
			k++
			if stands := c.late[k]; stands > 0 {
				delete(c.late, k)
				k--
				next = now + stands
				goto voter
			}
			if k == c.restarts {
				h, boot = holder(Voters{Index: 1, IDs: []string{"b/1"}}), boot+1
			}
			h.Round(now, c.lease)
			if !is(c.lost, k) {
				to = append(to, packet{now + c.there, boot, h.RenewFor("b/1", false)})
			}
			next = now + c.round
		}
	voter:
		for len(to) > 0 && to[0].at <= now {
			r := to[0].m.(Renew)
			if a, _ := v.Renew(now, "a", to[0].boot, r); a != nil {
				v.Saved()
				if !is(c.unheard, k) {
					from = append(from, packet{now + c.back, to[0].boot, a})
				}
			}
			to = to[1:]
		}
		heard, _ := v.Heard("a")
		if heard == 0 {
			heard = time.Second
		}
		longest = max(longest, now-heard)
		if now-heard > 4*c.round*6/10 && !slices.Contains(silent, k) {
			silent = append(silent, k)
		}
	}
	return silent, longest
}

func from(first uint64) func(uint64) bool { return func(k uint64) bool { return k >= first } }
func these(all ...uint64) func(uint64) bool {
	return func(k uint64) bool { return slices.Contains(all, k) }
}
func sequence(first, last uint64) (all []uint64) {
	for k := first; k <= last; k++ {
		all = append(all, k)
	}
	return all
}
func every(n uint64) func(uint64) bool { return func(k uint64) bool { return k%n == 0 } }

func TestWhoCountsAsSilent(t *testing.T) {
	for _, c := range []struct {
		name    string
		talk    talk
		longest time.Duration // silence until the 40th round begins
		silent  []uint64      // rounds during which it counts as silent
	}{
		{"nobody is in peace", talk{there: ms, back: ms}, 125 * ms, nil},
		{"nobody is with the short rounds of the fast profile", talk{round: 50 * ms, there: ms, back: ms}, 50 * ms, nil},
		{"nobody is in a network slower than a round", talk{there: 70 * ms, back: 70 * ms}, 250 * ms, nil},
		{"nobody is under the long lease of a planned restart", talk{lease: 30 * time.Second, there: ms, back: ms}, 125 * ms, nil},
		{"nor is the daemon that comes after it", talk{lease: 30 * time.Second, restarts: 20, there: ms, back: ms}, 125 * ms, nil},
		{"nobody is who is made to renew at once again and again, far away", talk{round: 10 * ms, lease: length, there: 6 * ms, back: 6 * ms}, 20 * ms, nil},
		{"not who misses two answers in a row", talk{there: ms, back: ms, unheard: these(20, 21)}, 125 * ms, nil},
		{"not who misses two of three", talk{there: ms, back: ms, unheard: func(k uint64) bool { return k > 3 && k%3 != 0 }}, 125 * ms, nil},
		{"not who misses every second answer", talk{there: ms, back: ms, unheard: every(2)}, 125 * ms, nil},
		{"who misses three in a row, one since the renewal was lost", talk{there: ms, back: ms, unheard: these(20, 22), lost: these(21)}, 4 * 125 * ms, []uint64{23, 24}},
		{"not who stood still for less than two rounds", talk{there: ms, back: ms, late: map[uint64]time.Duration{20: 170 * ms}}, 295 * ms, nil},
		{"who stands still for longer, and no longer than that", talk{there: ms, back: ms, late: map[uint64]time.Duration{20: 300 * ms}}, 425 * ms, []uint64{19, 20}},
		{"who stood still before it had the answer, as well", talk{there: ms, back: 10 * ms, unheard: these(19), late: map[uint64]time.Duration{20: 300 * ms}}, 425 * ms, []uint64{19, 20}},
		{"who is cut off", talk{there: ms, back: ms, lost: from(38)}, 3 * 125 * ms, []uint64{39, 40}},
		{"who does not hear, since the answer that it has named first was news", talk{there: ms, back: ms, unheard: from(30)}, 10 * 125 * ms, sequence(33, 40)},
		{"and the same in the fast profile", talk{round: 50 * ms, there: ms, back: ms, unheard: from(30)}, 10 * 50 * ms, sequence(33, 40)},
		{"and under a long lease", talk{lease: 30 * time.Second, there: ms, back: ms, unheard: from(30)}, 10 * 125 * ms, sequence(33, 40)},
		{"who does not hear, until it does again", talk{there: ms, back: ms, unheard: these(20, 21, 22, 23, 24, 25)}, 7 * 125 * ms, sequence(23, 27)},
		{"who has never heard since it started", talk{there: ms, back: ms, unheard: from(1)}, 39 * 125 * ms, sequence(3, 40)},
	} {
		t.Run(c.name, func(t *testing.T) {
			silent, longest := c.talk.silence(40)
			if !slices.Equal(silent, c.silent) {
				t.Errorf("silent during rounds %v, want %v", silent, c.silent)
			}
			if (longest - c.longest).Abs() > 3*ms {
				t.Errorf("longest silence %v, want %v", longest, c.longest)
			}
		})
	}
}

// Every datagram is lost with the same chance on each of two links: that a director
// misses answers adds little to what lost renewals do by themselves.
func TestLossIsSeldomSilence(t *testing.T) {
	const rounds = 20000
	for _, percent := range []float64{5, 10, 20, 40} {
		d := rand.New(rand.NewPCG(1, 2))
		both := func(uint64) bool { return d.Float64() < percent/100*percent/100 }
		one, _ := talk{there: ms, back: ms, lost: both}.silence(rounds)
		two, _ := talk{there: ms, back: ms, lost: both, unheard: both}.silence(rounds)
		t.Logf("%v %%: silent in %d of %d rounds for lost renewals, in %d with answers lost too", percent, len(one), rounds, len(two))
		if len(two) > len(one)*2+rounds/1000 {
			t.Errorf("with %v %% lost it is silent in %d of %d rounds because it misses answers, in %d because its renewals are lost", percent, len(two), rounds, len(one))
		}
	}
}
