package lease

import (
	"maps"
	"slices"
	"time"
)

// Record is what a voter keeps on disk. It outlives a discarded log; a node
// that lost it is another voter.
type Record struct {
	// Revoked says, by node, up to which incarnation no promise is given.
	Revoked map[string]uint64 `json:"revoked"`
	// Longest is, by node, the longest lease that may be promised: stored
	// before a promise of that length leaves this voter.
	Longest map[string]time.Duration `json:"longest"`
	// Since is, by node, the Renew for which Longest was stored: one that was
	// sent before it and arrives after it, or after a restart, shortens nothing.
	Since map[string]Mark `json:"since,omitempty"`
}

// Mark is a place in the order in which a node sends its renewals.
type Mark struct {
	Incarnation uint64 `json:"incarnation"`
	K           uint64 `json:"k"`
}

func (m Mark) before(o Mark) bool {
	return m.Incarnation < o.Incarnation || m.Incarnation == o.Incarnation && m.K < o.K
}

func (r Record) clone() Record {
	return Record{Revoked: maps.Clone(r.Revoked), Longest: maps.Clone(r.Longest), Since: maps.Clone(r.Since)}
}

// Voter is a voter's side: what it has promised and what it has revoked. It is
// pure. When a method returns a Record, that has to be on disk before the
// answer is sent; when storing fails, the answer is not sent.
type Voter struct {
	self     string
	config   Voters
	stored   Record
	promises map[string]promise
	pending  map[string]pending
	dirty    bool // stored is ahead of the disk: nothing may be said before it is saved
}

type promise struct {
	until time.Duration
	boot  uint64
	k     uint64
	mark  Mark          // newest renewal promised
	named uint64        // newest answer of this voter's that its sender has named
	news  time.Duration // when it was named first
	heard time.Duration // as of when its sender hears this voter
	seen  time.Duration // when any Renew arrived
}

type pending struct {
	incarnation uint64
	asked       time.Duration
	by          map[string]bool // who waits for the answer
}

// pendingFor is how long a Revoke that is not repeated keeps waiting.
const pendingFor = 2 * time.Second

// How many rounds a sender may go on without naming a newer answer, at four rounds a lease.
const (
	// silentAfter: then that it speaks proves nothing any more, and it has been silent
	// since it named one last. Three answers in a row are missing; fewer may be lost
	// where many datagrams are (TestLossIsSeldomSilence).
	silentAfter = 3
	// deafAfter: then it is promised nothing more when its groups are asked for. That
	// cannot be undone, since without answers it has none to name: two leases.
	deafAfter = 8
)

// NewVoter returns a voter that has just started: every promise that it may
// have given before counts as running for its whole length from now (rule 3).
func NewVoter(self string, stored Record, now time.Duration) *Voter {
	v := &Voter{self: self, stored: stored.clone(), promises: map[string]promise{}, pending: map[string]pending{}}
	if v.stored.Revoked == nil {
		v.stored.Revoked = map[string]uint64{}
	}
	if v.stored.Longest == nil {
		v.stored.Longest = map[string]time.Duration{}
	}
	if v.stored.Since == nil {
		v.stored.Since = map[string]Mark{}
	}
	for node, length := range v.stored.Longest {
		v.promises[node] = promise{until: now + Stretch(length), mark: v.stored.Since[node]}
	}
	return v
}

// Configure tells the newest configuration in this node's log, committed or
// not: one that this voter has helped to commit must not be news to the
// directors that it gives promises to.
func (v *Voter) Configure(c Voters) { v.config = c }

// Rename tells this voter's server id.
func (v *Voter) Rename(id string) { v.self = id }

// Is says whether this is what Rename and Configure told last. An index alone
// tells nothing: another leader may have put another configuration in that place.
func (v *Voter) Is(id string, c Voters) bool {
	return v.self == id && v.config.Index == c.Index && slices.Equal(v.config.IDs, c.IDs)
}

// Renew answers a director (rule 3). answer is Ack, Refuse or nil.
func (v *Voter) Renew(now time.Duration, node string, boot uint64, r Renew) (answer Message, store *Record) {
	p := v.promises[node]
	if p.boot == boot && r.K <= p.k {
		return nil, nil // doubled or overtaken
	}
	if up := v.stored.Revoked[node]; r.Incarnation <= up {
		return Refuse{Voter: v.self, Incarnation: r.Incarnation, K: r.K, Revoked: up}, v.unsaved()
	}
	p.hear(now, boot, r)
	hears := r.K-r.Heard <= deafAfter || p.boot != boot || r.K == 1 // at first it cannot have heard yet
	if q, asked := v.pending[node]; asked && !hears && now-q.asked < pendingFor {
		// It speaks and does not hear: its lease is over, and a promise for it
		// would only keep the others from taking its groups.
		v.promises[node] = p
		return nil, nil
	}
	// Late ones of an earlier boot, or from before this voter's restart, extend and never shorten.
	mark := Mark{r.Incarnation, r.K}
	r.Reset = r.Reset && p.mark.before(mark)
	if p.mark.before(mark) {
		p.mark = mark
	}
	until := now + Stretch(r.Length)
	if !r.Reset {
		until = max(until, p.until)
	}
	next := v.longest(node, r, p, now)
	p.until, p.boot, p.k = until, boot, r.K
	v.promises[node] = p
	a := Ack{Voter: v.self, Incarnation: r.Incarnation, K: r.K, Config: Voters{Index: v.config.Index}}
	if v.config.Index > r.Config {
		a.Config = v.config
	}
	return a, next
}

// hear notes what r proves of its sender's hearing. It is more than that r has
// come: of two nodes whose wires are cut one way both have to see that at about
// the same time, or the one that hears is taken for gone first.
func (p *promise) hear(now time.Duration, boot uint64, r Renew) {
	p.seen = now
	if p.boot != boot || r.Heard > p.named {
		p.named, p.news = r.Heard, now
	}
	p.heard = p.news
	if r.Heard > 0 && r.K-r.Heard <= silentAfter {
		p.heard = now
	}
}

// longest returns what to store before promising r, nil when what stands on disk covers it.
func (v *Voter) longest(node string, r Renew, p promise, now time.Duration) *Record {
	old := v.stored.Longest[node]
	// A shorter length is stored only when the longer promise is over: the
	// disk must never claim less than what may have been promised.
	shorter := r.Length < old && (r.Reset || p.until <= now+Stretch(r.Length))
	if r.Length <= old && !shorter {
		return v.unsaved()
	}
	v.stored.Longest[node], v.stored.Since[node] = r.Length, p.mark
	v.dirty = true
	return v.unsaved()
}

// unsaved returns the record when it is ahead of the disk, so that a save
// that failed is repeated before the next answer.
func (v *Voter) unsaved() *Record {
	if !v.dirty {
		return nil
	}
	c := v.stored.clone()
	return &c
}

// Saved tells that the record returned last is on disk.
func (v *Voter) Saved() { v.dirty = false }

// Revoke takes a request to revoke (rule 5). It returns Revoked when that is
// done; otherwise it is remembered, and Due answers later.
func (v *Voter) Revoke(now time.Duration, from string, r Revoke) (answer Message, store *Record) {
	if up := v.stored.Revoked[r.Node]; up >= r.Incarnation {
		return Revoked{Voter: v.self, Node: r.Node, Incarnation: r.Incarnation}, v.unsaved()
	}
	if v.promises[r.Node].until > now {
		q, ok := v.pending[r.Node]
		if !ok || q.incarnation != r.Incarnation {
			q = pending{incarnation: r.Incarnation, by: map[string]bool{}}
		}
		q.asked = now
		q.by[from] = true
		v.pending[r.Node] = q
		return nil, nil
	}
	return v.revoke(r.Node, r.Incarnation)
}

func (v *Voter) revoke(node string, incarnation uint64) (Message, *Record) {
	delete(v.pending, node)
	v.stored.Revoked[node] = incarnation
	v.dirty = true
	return Revoked{Voter: v.self, Node: node, Incarnation: incarnation}, v.unsaved()
}

// Due answers one request whose time has come; to lists who asked. It returns nil when there is none.
func (v *Voter) Due(now time.Duration) (answer Message, to []string, store *Record) {
	for _, node := range slices.Sorted(maps.Keys(v.pending)) {
		q := v.pending[node]
		if now-q.asked >= pendingFor {
			delete(v.pending, node)
			continue
		}
		if v.promises[node].until <= now {
			for n := range q.by {
				to = append(to, n)
			}
			answer, store = v.revoke(node, q.incarnation)
			return answer, to, store
		}
	}
	return nil, nil, nil
}

// Next returns when Due should be asked next; ok is false when nothing waits.
func (v *Voter) Next() (at time.Duration, ok bool) {
	for node, q := range v.pending {
		t := min(v.promises[node].until, q.asked+pendingFor)
		if !ok || t < at {
			at, ok = t, true
		}
	}
	return at, ok
}

// Heard returns as of when a node has proved that it hears this voter, and when
// any Renew of it arrived; both 0 when never. The first goes back when a node
// that was given the benefit of the doubt turns out not to hear.
func (v *Voter) Heard(node string) (twoWay, any time.Duration) {
	p := v.promises[node]
	return p.heard, p.seen
}

// Promised returns until when this voter's promise to a node runs; 0: none.
func (v *Voter) Promised(node string) time.Duration { return v.promises[node].until }
