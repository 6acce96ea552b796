package consensus

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/conf"
)

// votersEntry is an entry of the log in which these vote.
func votersEntry(index uint64, ids ...string) *raft.Log {
	var c raft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return &raft.Log{Index: index, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
}

func otherEntry(index uint64) *raft.Log { return &raft.Log{Index: index, Term: 1, Type: raft.LogNoop} }

// listener is who is told of the newest configuration.
type listener struct {
	mu   sync.Mutex // guards told
	told []string
}

func (l *listener) configured(self string, index uint64, ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, fmt.Sprintf("%s: %d %v", self, index, ids))
}

// take returns what was told since it was called last.
func (l *listener) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.told
	l.told = nil
	return told
}

func (l *listener) want(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := l.take(); !slices.Equal(got, want) {
		t.Errorf("%s: told %q, want %q", when, got, want)
	}
}

func TestTheNewestVotersGoBackOnlyWhenTheirEntryIsTakenOut(t *testing.T) {
	applied := state.New()
	var l listener
	d := &disk{LogStore: raft.NewInmemStore(), newest: &newest{
		state: func() *state.State { return applied },
		tell:  func(v state.Voters) { l.configured("b/1", v.Index, v.IDs) },
	}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := uint64(1); i <= 8; i++ {
		must(d.StoreLog(otherEntry(i)))
	}
	l.want(t, "nothing of voters")
	must(d.StoreLogs([]*raft.Log{votersEntry(9, "c/1", "b/1", "a/1"), otherEntry(10), votersEntry(11, "a/1", "b/1"), otherEntry(12)}))
	l.want(t, "two in one write", "b/1: 9 [a/1 b/1 c/1]", "b/1: 11 [a/1 b/1]")
	must(d.DeleteRange(12, 12))
	l.want(t, "what comes after it is taken out")
	must(d.DeleteRange(10, 11))
	l.want(t, "it is taken out", "b/1: 9 [a/1 b/1 c/1]")
	must(d.StoreLogs([]*raft.Log{otherEntry(10), votersEntry(11, "a/1", "b/1", "d/1")}))
	l.want(t, "another one in that place", "b/1: 11 [a/1 b/1 d/1]")
	applied = applied.SetVoters(11, []string{"a/1", "b/1", "d/1"})
	must(d.StoreLogs([]*raft.Log{otherEntry(12), otherEntry(13)}))
	must(d.DeleteRange(1, 12)) // a snapshot has them
	l.want(t, "the log is compacted")
	must(d.StoreLog(votersEntry(14, "a/1")))
	must(d.DeleteRange(13, 14))
	l.want(t, "the only one that was left is taken out", "b/1: 14 [a/1]", "b/1: 11 [a/1 b/1 d/1]")
}

func TestTheVotersOfASnapshotAreNewestWhenItIsNewerThanTheLog(t *testing.T) {
	var l listener
	n := &newest{state: state.New, tell: func(v state.Voters) { l.configured("b/1", v.Index, v.IDs) }}
	n.stored([]*raft.Log{votersEntry(30, "a/1", "b/1", "c/1")})
	l.take()
	n.restored(state.New().SetVoters(20, []string{"a/1", "b/1"}))
	l.want(t, "an older snapshot")
	s := *state.New().SetVoters(20, []string{"a/1", "b/1"})
	s.Index = 100
	n.restored(&s)
	l.want(t, "one that knows nothing of that entry", "b/1: 20 [a/1 b/1]")
	n.restored(&s)
	l.want(t, "the same again")
}

// lonely makes a consensus that is in touch with nobody.
func lonely(t *testing.T, s Stores, g pair.Generation, l *listener) *Consensus {
	t.Helper()
	w := &world{t: t}
	c, err := New(Config{
		Node: "b", UUID: "1", Boot: 1, Nodes: nodes, Profile: conf.ProfileDefault, Stores: s, Generation: g, Transport: deafTransport,
		Members: func() map[string]Member { return w.heard("b") }, Changed: func() {}, Failed: func(err error) { t.Error(err) },
		Configured: l.configured, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type closing struct{ raft.Transport }

func (closing) Close() error { return nil }

func deafTransport(self string) Transport {
	_, t := raft.NewInmemTransport(raft.ServerAddress(self))
	return closing{t}
}

func TestWhatTheLogHoldsAtTheStartIsToldBeforeRaftBegins(t *testing.T) {
	s := MemoryStores()
	if err := s.Log.StoreLogs([]*raft.Log{votersEntry(1, "a/1", "b/1", "w/1"), otherEntry(2), votersEntry(3, "a/1", "b/1"), otherEntry(4)}); err != nil {
		t.Fatal(err)
	}
	var l listener
	first := []string(nil)
	c := lonely(t, heardFirst{s, &l, &first}.stores(), pair.Generation{}, &l)
	want := []string{"b/1: 3 [a/1 b/1]"} // committed or not
	if !slices.Equal(first, want) {
		t.Errorf("told when raft begins: %q, want %q", first, want)
	}
	if index, ids := c.Latest(); index != 3 || !slices.Equal(ids, []string{"a/1", "b/1"}) {
		t.Errorf("latest: %d %v", index, ids)
	}
	if err := c.Halt(); err != nil {
		t.Fatal(err)
	}
	l.take()
	g := pair.Generation{Counter: 1, ID: "0000abcd"}
	first = nil
	if err := c.Reform(g, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"b/1/1.0000abcd: 5 [b/1/1.0000abcd]"}; !slices.Equal(first, want) {
		t.Errorf("told when raft begins in the new generation: %q, want %q", first, want)
	}
	if err := c.Shutdown(); err != nil {
		t.Fatal(err)
	}
}

// heardFirst notes what has been told when raft asks for its term: that is the
// first thing it does.
type heardFirst struct {
	Stores
	l     *listener
	first *[]string
}

type stable struct {
	raft.StableStore
	h heardFirst
}

func (h heardFirst) stores() Stores {
	s := h.Stores
	s.Stable = stable{s.Stable, h}
	return s
}

func (s stable) GetUint64(key []byte) (uint64, error) {
	if *s.h.first == nil {
		*s.h.first = s.h.l.take()
	}
	return s.StableStore.GetUint64(key)
}
