package lease

import (
	"slices"
	"time"
)

// Holder is a director's side of its lease: what it asked for, what was
// acknowledged, and until when it may act. It is pure: times are handed in,
// all of one clock (Clock).
type Holder struct {
	self        string
	incarnation uint64
	k           uint64
	rounds      []round                  // not yet outlived, oldest first
	ends        map[string]time.Duration // by voter: until when its promises surely stand, on this node's clock
	heard       map[string]uint64        // by voter: highest K acknowledged
	refused     map[string]uint64        // by voter: revoked up to
	config      Voters                   // newest committed configuration applied here
	logged      []Voters                 // those put into this node's log since, committed or not, oldest first
	named       map[string][]Voters      // by voter: those that its acknowledgements have named, and that still stand in its log
	peer        string                   // node: the other of a pair; empty: no pair
	contested   bool                     // the peer is no voter any more, and may not know
	alone       time.Duration            // until when the peer's promise is not needed
}

type round struct {
	k      uint64
	sent   time.Duration
	length time.Duration
}

// NewHolder returns a holder without a lease.
func NewHolder(self string) *Holder {
	return &Holder{self: self, ends: map[string]time.Duration{}, heard: map[string]uint64{}, refused: map[string]uint64{}, named: map[string][]Voters{}}
}

// Admit tells the incarnation that the log gave to this very start (rule 1).
// What is already acknowledged stays: promises are per node.
func (h *Holder) Admit(incarnation uint64) {
	h.incarnation = incarnation
	for id, up := range h.refused {
		if up < incarnation {
			delete(h.refused, id)
		}
	}
}

// Incarnation returns what Admit told last; 0: not admitted.
func (h *Holder) Incarnation() uint64 { return h.incarnation }

// Configure tells the newest committed configuration that this node has applied.
func (h *Holder) Configure(v Voters) {
	if v.Index < h.config.Index {
		return
	}
	h.config = v
}

// Latest tells the newest configuration in this node's log, committed or not. The
// ones before it count until they are applied: who applies them may be late, and
// a revocation goes by the one that was in force.
func (h *Holder) Latest(v Voters) {
	h.logged = h.follow(h.logged, v)
}

// follow adds the newest configuration of a log to those of it that are not
// applied here. What stood at its place, or behind it, raft has taken back.
func (h *Holder) follow(log []Voters, v Voters) []Voters {
	log = slices.DeleteFunc(log, func(o Voters) bool { return o.Index >= v.Index || o.Index <= h.config.Index })
	return append(log, v)
}

// Newest returns the newest configuration in this node's log, committed or not.
// One that is applied stands in the log, whoever has told of it first.
func (h *Holder) Newest() Voters {
	if n := len(h.logged); n > 0 && h.logged[n-1].Index >= h.config.Index {
		return h.logged[n-1]
	}
	return h.config
}

// Pair names the other node of a pair, whose promise GoAlone may stand in for.
// While contested, its word is not asked for any more, and the lease needs
// GoAlone as well: what was decided without it has to go on holding.
func (h *Holder) Pair(peer string, contested bool) {
	if peer != h.peer {
		h.alone = 0
	}
	h.peer, h.contested = peer, contested
}

// GoAlone says until when the rule of the pair keeps the peer from acting first.
func (h *Holder) GoAlone(until time.Duration) { h.alone = max(h.alone, until) }

// newer returns the configurations that count beside the committed one.
func (h *Holder) newer() []Voters {
	var all []Voters
	add := func(v Voters) {
		if v.Index > h.config.Index && len(v.IDs) > 0 && !slices.ContainsFunc(all, func(o Voters) bool { return o.Index == v.Index && slices.Equal(o.IDs, v.IDs) }) {
			all = append(all, v)
		}
	}
	for _, v := range h.logged {
		add(v)
	}
	for _, log := range h.named {
		for _, v := range log {
			add(v)
		}
	}
	return all
}

// Voters returns the voters that a Renew has to reach, the named newer configurations included.
func (h *Holder) Voters() []string {
	ids := slices.Clone(h.config.IDs)
	for _, v := range h.newer() {
		for _, id := range v.IDs {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// Round begins a renewal. now is read before anything is sent (rule 2). The
// caller sends RenewFor(id) to every voter.
func (h *Holder) Round(now, length time.Duration) {
	h.k++
	for len(h.rounds) > 0 && h.rounds[0].sent+h.rounds[0].length < now {
		h.rounds = h.rounds[1:]
	}
	h.rounds = append(h.rounds, round{h.k, now, length})
}

// RenewFor returns the present round's message to a voter.
func (h *Holder) RenewFor(voter string, reset bool) Renew {
	r := h.rounds[len(h.rounds)-1]
	return Renew{Incarnation: h.incarnation, K: r.k, Length: r.length, Heard: h.heard[voter], Config: h.config.Index, Reset: reset}
}

// Ack takes a promise into account.
func (h *Holder) Ack(a Ack) {
	if a.Incarnation != h.incarnation || a.K > h.k || a.K <= h.heard[a.Voter] {
		return // of another life, never sent, or nothing new
	}
	i := slices.IndexFunc(h.rounds, func(r round) bool { return r.k == a.K })
	if i < 0 {
		return // so late that the lease it gives is over
	}
	h.heard[a.Voter] = a.K
	h.ends[a.Voter] = max(h.ends[a.Voter], h.rounds[i].sent+h.rounds[i].length)
	h.named[a.Voter] = h.follow(h.named[a.Voter], a.Config)
}

// Refuse takes a refusal into account.
func (h *Holder) Refuse(r Refuse) {
	if r.Incarnation == h.incarnation && r.Revoked >= h.incarnation {
		h.refused[r.Voter] = r.Revoked
	}
}

// Refused says how many voters of the newest committed configuration have
// revoked the present incarnation. One is reason to ask for a new incarnation;
// a majority means that the groups may be gone.
func (h *Holder) Refused() int {
	n := 0
	for _, id := range h.config.IDs {
		if h.refused[id] >= h.incarnation && h.incarnation > 0 {
			n++
		}
	}
	return n
}

// End returns when the lease ends (rule 4): the latest time for which a
// majority of the newest committed configuration, and of every newer one that
// stands in this node's log or that an acknowledgement named, has promised. 0: no lease.
func (h *Holder) End() time.Duration {
	if h.incarnation == 0 {
		return 0
	}
	end := h.endIn(h.config)
	for _, v := range h.newer() {
		end = min(end, h.endIn(v))
	}
	if h.contested {
		end = min(end, h.alone)
	}
	return end
}

func (h *Holder) endIn(v Voters) time.Duration {
	if len(v.IDs) == 0 {
		return 0
	}
	ends := make([]time.Duration, len(v.IDs))
	for i, id := range v.IDs {
		ends[i] = h.ends[id]
		// Of two voters each is needed; with more, nobody stands in for one.
		if len(v.IDs) == 2 && h.peer != "" && nodeOf(id) == h.peer {
			ends[i] = max(ends[i], h.alone)
		}
	}
	slices.Sort(ends)
	return ends[len(ends)-v.Majority()]
}

// Shorten gives up whatever is or will be acknowledged beyond end: after it,
// renewals may carry Reset. Acknowledgements that are still on their way count
// only up to end, since a voter may have replaced that promise meanwhile.
func (h *Holder) Shorten(end time.Duration) {
	for id, e := range h.ends {
		h.ends[id] = min(e, end)
	}
	h.alone = min(h.alone, end)
	for i, r := range h.rounds {
		h.rounds[i].length = min(r.length, end-r.sent)
	}
}
