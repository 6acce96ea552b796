package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
)

// history is what the replicated states were, a branch for each generation: a
// survivor opens one that goes on where its log ends, and what its peer decides
// in another one belongs to that.
type history struct {
	mu       sync.Mutex // guards what follows
	branches map[pair.Generation]*branch
	loss     string // why entries of an earlier generation may be missing in a later one; empty: none may
}

// branch is the history of one generation.
type branch struct {
	from   *branch // nil: the first
	fork   uint64  // the last index that it has in common with from
	name   pair.Generation
	owners map[naming]named  // who was named under each epoch
	states map[uint64][]byte // canonical, by index
	told   bool              // that entries of from are missing here
}

type naming struct {
	group string
	epoch uint64
}

type named struct {
	owner string
	index uint64
}

func newHistory() *history {
	return &history{branches: map[pair.Generation]*branch{{}: newBranch(pair.Generation{})}}
}

func newBranch(g pair.Generation) *branch {
	return &branch{name: g, owners: map[naming]named{}, states: map[uint64][]byte{}}
}

// open begins a generation whose log, up to last, is that of another.
func (h *history) open(g, from pair.Generation, last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.branches[g] != nil {
		return // an earlier try came as far as this
	}
	b := newBranch(g)
	b.from, b.fork = h.branches[from], last
	h.branches[g] = b
}

// excuse says why a generation may lack what an earlier one had decided.
func (h *history) excuse(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loss = why
}

// forget is what becomes of all generations when no disk has a log any more.
func (h *history) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for g := range h.branches {
		h.branches[g] = newBranch(g)
	}
}

// state returns what the state was at an index, nil when it has not been seen.
func (b *branch) state(index uint64) []byte {
	for {
		if s := b.states[index]; s != nil || b.from == nil || index > b.fork {
			return s
		}
		b = b.from
	}
}

func (b *branch) owner(n naming) (string, bool) {
	limit := ^uint64(0)
	for b != nil {
		if o, known := b.owners[n]; known && o.index <= limit {
			return o.owner, true
		}
		limit, b = min(limit, b.fork), b.from
	}
	return "", false
}

// see compares a node's state with what it and the others had in that
// generation: the same at the same index, epochs that grow, one owner an epoch.
// It returns what is wrong.
func (h *history) see(g pair.Generation, st, last *state.State) (wrong []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.branches[g]
	if b == nil {
		return []string{fmt.Sprintf("nobody has opened generation %v", g)}
	}
	for name, x := range st.Groups {
		n := naming{name, x.Epoch}
		if was, known := b.owner(n); !known {
			b.owners[n] = named{x.Owner, st.Index}
		} else if was != x.Owner && was != "" && x.Owner != "" { // a group taken out and put back has nobody under its last epoch
			wrong = append(wrong, fmt.Sprintf("epoch %d of %s is of %q here, it was of %q", x.Epoch, name, x.Owner, was))
		}
		if last != nil && last.Groups[name].Epoch > x.Epoch {
			wrong = append(wrong, fmt.Sprintf("the epoch of %s went from %d to %d", name, last.Groups[name].Epoch, x.Epoch))
		}
	}
	now := canonical(st)
	if other := b.state(st.Index); other == nil {
		b.states[st.Index] = now
	} else if !bytes.Equal(other, now) {
		wrong = append(wrong, fmt.Sprintf("the state at index %d of generation %v differs\n%s\n%s", st.Index, g, other, now))
	}
	for _, c := range h.branches {
		if c.from == b && st.Index > c.fork && h.loss == "" && !c.told && b.states[st.Index] != nil {
			c.told = true
			wrong = append(wrong, fmt.Sprintf("index %d of generation %v was decided, and is lost in generation %v, which ends its part at %d", st.Index, g, c.name, c.fork))
		}
	}
	return wrong
}

func canonical(st *state.State) []byte {
	b, err := json.Marshal(st)
	if err != nil {
		return []byte(err.Error())
	}
	return b
}
