package consensus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"

	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// digests tells whether two nodes hold the same state. Nothing is computed
// before somebody asks.
type digests struct {
	mu     sync.Mutex // guards what follows
	recent [recentStates]*state.State
	next   int
	// Of the specification, by far the largest part, which changes least.
	spec *conf.Spec
	sum  string
}

// recentStates is how many states are kept, so that nodes which are asked at
// different moments can be compared at one index. They share what did not change.
const recentStates = 16

func (d *digests) note(s *state.State) {
	d.mu.Lock()
	d.recent[d.next%recentStates] = s
	d.next++
	d.mu.Unlock()
}

func (d *digests) at(index uint64) *state.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.recent {
		if s != nil && s.Index == index {
			return s
		}
	}
	return nil
}

// of returns the digest of a state, without the voters: raft has its own copy of those.
func (d *digests) of(s *state.State) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sum == "" || d.spec != s.Spec {
		d.spec, d.sum = s.Spec, sumOf(struct {
			Spec  *conf.Spec
			Files map[string][]byte
		}{s.Spec, s.SpecFiles})
	}
	rest := *s
	rest.Spec, rest.SpecFiles, rest.Voters = nil, nil, state.Voters{}
	return sumOf(struct {
		Spec string
		Rest state.State
	}{d.sum, rest})
}

// sumOf is a digest of what a value is as JSON, in which it is replicated too.
func sumOf(v any) string {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(v); err != nil {
		return "" // of a state there is none; and nothing is compared with that
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Digest returns a digest of the state and the index that it stands at: nodes
// that run the same program and hold the same state have the same.
func (c *Consensus) Digest() (index uint64, digest string) {
	s := c.State()
	return s.Index, c.digests.of(s)
}

// DigestAt returns the digest that the state had at an index, which it waits
// for until ctx ends. ok is false of one
// at which it did not change, or long ago.
func (c *Consensus) DigestAt(ctx context.Context, index uint64) (digest string, ok bool) {
	if c.Wait(ctx, func(s *state.State) bool { return s.Index >= index }) != nil {
		return "", false
	}
	s := c.digests.at(index)
	if s == nil {
		return "", false
	}
	return c.digests.of(s), true
}
