package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/pair"
	"github.com/keepbeat/keepbeat/cluster/state"
	"github.com/keepbeat/keepbeat/cluster/transport"
	"github.com/keepbeat/keepbeat/conf"
)

var nodes = []conf.Node{{Name: "a", Role: conf.Director}, {Name: "b", Role: conf.Director}, {Name: "w", Role: conf.Witness}}

// world is three nodes on a network in memory that hear of each other at once.
type world struct {
	t     *testing.T
	net   *transport.MemoryNetwork
	nodes []conf.Node

	// wrap, if it is set, stands between a member's raft and its transport.
	wrap func(node string, t *transport.RaftTransport) Transport

	mu    sync.Mutex // guards what follows
	alive map[string]*member
	loose map[string]bool // nodes that are not heard on every link
}

type member struct {
	w      *world
	name   string
	uuid   string
	boot   uint64
	stores Stores
	c      *Consensus
	s      *transport.Memory
	end    context.CancelFunc
	done   chan struct{}
	failed chan error
	slow   atomic.Int64 // nanoseconds that it takes to apply a command
}

func bubble(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { inWorld(t, f) })
}

func inWorld(t *testing.T, f func(w *world)) {
	w := &world{
		t: t, nodes: nodes, net: transport.NewMemoryNetwork(transport.MemoryConfig{Latency: time.Millisecond, FailAfter: time.Second}),
		alive: map[string]*member{}, loose: map[string]bool{},
	}
	defer func() {
		for _, m := range w.members() {
			m.stop()
		}
	}()
	f(w)
}

func (w *world) members() []*member {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*member
	for _, m := range w.alive {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int { return strings.Compare(a.name, b.name) })
	return all
}

func (w *world) start(name, uuid string, stores Stores) *member {
	w.t.Helper()
	return w.startIn(name, uuid, stores, pair.Generation{})
}

func (w *world) startIn(name, uuid string, stores Stores, g pair.Generation) *member {
	w.t.Helper()
	m := &member{w: w, name: name, uuid: uuid, boot: uint64(time.Now().UnixNano()), stores: stores, done: make(chan struct{}), failed: make(chan error, 1)}
	m.s = w.net.Node(name)
	var err error
	m.c, err = New(Config{
		Node: name, UUID: uuid, Boot: m.boot, Nodes: w.nodes, Profile: conf.ProfileDefault, Stores: stores, Generation: g,
		Transport: func(self string) Transport {
			t := transport.NewRaftTransport(transport.RaftConfig{
				Streams: m.s, Self: self, HeartbeatTimeout: conf.ProfileDefault.RaftHeartbeat, Timeout: time.Second,
				Reachable: func(node string) bool {
					w.mu.Lock()
					defer w.mu.Unlock()
					return w.alive[node] != nil
				},
			})
			if w.wrap != nil {
				return w.wrap(name, t)
			}
			return t
		},
		Forward: func(ctx context.Context, node string, cmd []byte) (state.Result, error) {
			w.mu.Lock()
			to := w.alive[node]
			w.mu.Unlock()
			if to == nil {
				return state.Result{}, errors.New(node + " is not there")
			}
			return to.c.Apply(ctx, cmd)
		},
		Members: func() map[string]Member { return w.heard(name) },
		Changed: func() { time.Sleep(time.Duration(m.slow.Load())) }, Failed: func(err error) { m.failed <- err }, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.end = cancel
	w.mu.Lock()
	w.alive[name] = m
	w.mu.Unlock()
	go func() {
		defer close(m.done)
		if err := m.c.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	return m
}

func (w *world) heard(by string) map[string]Member {
	all := map[string]Member{}
	for _, m := range w.members() {
		if m.name != by {
			all[m.name] = Member{UUID: m.uuid, Empty: m.c.Empty(), Nodes: NodesDigest(w.nodes), Index: m.c.State().Index, Generation: m.c.Generation(), Steady: !w.isLoose(m.name)}
		}
	}
	return all
}

func (w *world) isLoose(node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.loose[node]
}

func (w *world) loosen(node string, loose bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loose[node] = loose
}

func (m *member) stop() {
	m.w.t.Helper()
	m.w.mu.Lock()
	delete(m.w.alive, m.name)
	m.w.mu.Unlock()
	m.end()
	if err := m.c.Halt(); err != nil {
		m.w.t.Error(err)
	}
	<-m.done
	if err := m.c.Shutdown(); err != nil {
		m.w.t.Error(err)
	}
	if err := m.s.Close(); err != nil {
		m.w.t.Error(err)
	}
}

// propose admits a node, which any node may ask for.
func (m *member) propose(cmd state.Command) state.Result {
	m.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := m.c.Propose(ctx, cmd)
	if err != nil {
		m.w.t.Fatalf("proposed on %s: %v", m.name, err)
	}
	return r
}

func (m *member) admit(boot uint64) state.Result {
	m.w.t.Helper()
	return m.propose(state.Command{Admit: &state.Admit{Node: m.name, ID: ID(m.name, m.uuid), Boot: boot, Director: true}})
}

func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, m := range w.members() {
		st := m.c.State()
		w.t.Logf("%s: %v, index %d, voters %+v", m.name, m.c.Stats(), st.Index, st.Voters)
	}
	w.t.Fatalf("after 30 s still not: %s", what)
}

func (w *world) leader() *member {
	w.t.Helper()
	var l *member
	w.wait("a leader", func() bool {
		for _, m := range w.members() {
			if m.c.Leading() {
				l = m
				return true
			}
		}
		return false
	})
	return l
}

func (w *world) follower() *member {
	w.t.Helper()
	l := w.leader()
	for _, m := range w.members() {
		if m != l {
			return m
		}
	}
	w.t.Fatal("no follower")
	return nil
}

func (w *world) startAll(order string) {
	w.t.Helper()
	for i, n := range order {
		if i > 0 {
			time.Sleep(2 * time.Second)
			for _, m := range w.members() {
				if !m.c.Empty() {
					w.t.Fatalf("%s has begun a cluster without the others", m.name)
				}
			}
		}
		w.start(string(n), "1", MemoryStores())
	}
	w.wait("all have the same voters", func() bool {
		return !slices.ContainsFunc(w.members(), func(m *member) bool {
			return !slices.Equal(m.c.State().Voters.IDs, []string{"a/1", "b/1", "w/1"})
		})
	})
}

func TestAClusterBeginsWhateverNodeIsStartedFirst(t *testing.T) {
	for _, order := range []string{"abw", "wba", "bwa"} {
		t.Run(order, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.startAll(order)
				index, ids := w.leader().c.Latest()
				if got := w.leader().c.State().Voters; got.Index != index || !slices.Equal(ids, got.IDs) {
					w.t.Errorf("latest %d %v, committed %+v", index, ids, got)
				}
			})
		})
	}
}

func TestACommandOfAFollowerIsAppliedOnceEverywhere(t *testing.T) {
	bubble(t, func(w *world) {
		w.startAll("abw")
		f := w.follower()
		if r := f.admit(5); r.Number != 1 {
			t.Errorf("incarnation %d, want 1", r.Number)
		}
		w.wait("everybody has it", func() bool {
			return !slices.ContainsFunc(w.members(), func(m *member) bool { return m.c.State().Nodes[f.name].Incarnation != 1 })
		})
		b, err := state.Command{ID: state.ID{Node: f.name, Boot: 9, N: 1}, Admit: &state.Admit{Node: f.name, Boot: 6}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // an answer that was lost
			if r, err := w.leader().c.Apply(context.Background(), b); err != nil || r.Number != 2 {
				t.Errorf("%+v %v", r, err)
			}
		}
	})
}

func TestARefusedCommandIsNotRepeated(t *testing.T) {
	bubble(t, func(w *world) {
		w.startAll("abw")
		_, err := w.follower().c.Propose(context.Background(), state.Command{Leave: &state.Leave{Node: "zz", Incarnation: 1}})
		var refused *state.RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("%v", err)
		}
	})
}

func TestWithoutAMajorityAProposalSaysSo(t *testing.T) {
	bubble(t, func(w *world) {
		w.startAll("abw")
		w.leader().stop()
		w.leader().stop()
		last := w.members()[0]
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if _, err := last.c.Propose(ctx, state.Command{Probe: &struct{}{}}); !errors.Is(err, ErrNoLeader) || unknown(err) {
			t.Errorf("committed alone, or not known: %v", err)
		}
	})
}

func unknown(err error) bool {
	var u *UnknownError
	return errors.As(err, &u)
}

func TestWhatALeaderHasTakenAndNobodyAnsweredForIsNotCalledUndone(t *testing.T) {
	for name, wait := range map[string]time.Duration{"it leads until the time is up": 50 * time.Millisecond, "it leads no longer": 5 * time.Second} {
		for _, follower := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, asked by a follower: %v", name, follower), func(t *testing.T) {
				bubble(t, func(w *world) {
					w.startAll("abw")
					l := w.leader()
					by := l
					for _, m := range w.members() {
						switch {
						case m == l:
						case follower && by == l:
							by = m
							if err := m.c.Halt(); err != nil { // it votes and stores no more, and knows the leader
								t.Fatal(err)
							}
						default:
							m.stop()
						}
					}
					ctx, cancel := context.WithTimeout(context.Background(), wait)
					defer cancel()
					var err error
					if by == l {
						_, err = l.c.Propose(ctx, state.Command{Note: &state.Note{Node: "a", Text: "x"}})
					} else {
						_, err = by.c.cfg.Forward(ctx, l.name, []byte(`{"note":{"node":"a","text":"x"}}`))
					}
					if !unknown(err) || !strings.Contains(err.Error(), "it is not known whether this was done") {
						t.Errorf("the error is %v", err)
					}
				})
			})
		}
	}
}

func TestALeaderThatTakesNothingIsKnownNotToHaveDoneIt(t *testing.T) {
	bubble(t, func(w *world) {
		w.startAll("abw")
		if _, err := w.follower().c.Apply(context.Background(), []byte(`{"probe":{}}`)); err == nil || unknown(err) {
			t.Errorf("a follower: %v", err)
		}
	})
}

func TestANodeRestartsWithItsLog(t *testing.T) {
	bubble(t, func(w *world) {
		w.startAll("abw")
		f := w.follower()
		f.admit(5)
		f.stop()
		w.leader().admit(7)
		again := w.start(f.name, "1", f.stores)
		w.wait("it has caught up", func() bool { return len(again.c.State().Nodes) == 2 })
	})
}

func TestANodeThatStartsReadsItsLogUntilALeaderHasToldWhatCounts(t *testing.T) {
	bubble(t, func(w *world) {
		w.startAll("abw")
		f := w.follower()
		if f.c.Reading(f.c.State()) {
			t.Error("there was nothing to read")
		}
		f.admit(7)
		w.wait("it has that", func() bool { return f.c.State().Nodes[f.name].Incarnation == 1 })
		others := slices.DeleteFunc(w.members(), func(m *member) bool { return m == f })
		for _, m := range w.members() {
			m.stop()
		}
		again := w.start(f.name, "1", f.stores)
		time.Sleep(5 * time.Second)
		if !again.c.Reading(again.c.State()) || again.c.State().Index != 0 {
			t.Errorf("alone it cannot know what counts, and has read up to %d", again.c.State().Index)
		}
		w.start(others[0].name, "1", others[0].stores)
		w.wait("it has read its log", func() bool { return !again.c.Reading(again.c.State()) })
		if n := again.c.State().Nodes[f.name]; n.Incarnation != 1 {
			t.Errorf("it says that it has read its log, and knows of itself %+v", n)
		}
	})
}

func TestANodeThatLostItsDiskComesBackWithoutAVoteAndThenWithOne(t *testing.T) {
	bubble(t, func(w *world) {
		w.startAll("abw")
		f := w.follower()
		f.admit(5)
		f.stop()
		again := w.start(f.name, "2", MemoryStores())
		voted := func(id string) bool { return slices.Contains(w.leader().c.State().Voters.IDs, id) }
		w.wait("the old identity is out", func() bool { return !voted(ID(f.name, "1")) })
		if voted(ID(f.name, "2")) {
			t.Error("the new one votes before it has the log")
		}
		w.wait("it has the log", func() bool { return again.c.State().Nodes[f.name].Incarnation == 1 })
		w.wait("it votes", func() bool { return voted(ID(f.name, "2")) })
		f2 := w.follower()
		f2.admit(8)
	})
}

// hanging is a log whose disk hangs.
type hanging struct {
	raft.LogStore
	mu   sync.Mutex // guards hold
	hold chan struct{}
}

func (h *hanging) wait() {
	h.mu.Lock()
	c := h.hold
	h.mu.Unlock()
	if c != nil {
		<-c
	}
}

func (h *hanging) StoreLog(l *raft.Log) error     { h.wait(); return h.LogStore.StoreLog(l) }
func (h *hanging) StoreLogs(ls []*raft.Log) error { h.wait(); return h.LogStore.StoreLogs(ls) }

func (h *hanging) hang() (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := make(chan struct{})
	h.hold = c
	return func() {
		h.mu.Lock()
		h.hold = nil
		h.mu.Unlock()
		close(c)
	}
}

func TestALeaderWhoseDiskHangsSaysSo(t *testing.T) {
	bubble(t, func(w *world) {
		disks := map[string]*hanging{}
		for _, n := range []string{"a", "b", "w"} {
			s := MemoryStores()
			disks[n] = &hanging{LogStore: s.Log}
			s.Log = disks[n]
			w.start(n, "1", s)
		}
		l := w.leader()
		release := disks[l.name].hang()
		defer release()
		select {
		case err := <-l.failed:
			if !strings.Contains(err.Error(), "disk hangs") {
				t.Error(err)
			}
		case <-time.After(30 * time.Second):
			t.Error("nothing was said in 30 s")
		}
	})
}

// A node that is taken in stores the term before the first entry reaches it. If
// all the others lose their disks then, raft does not let the cluster begin.
func TestAClusterBeginsOverATermThatAnEmptyNodeHasSeen(t *testing.T) {
	bubble(t, func(w *world) {
		for _, n := range nodes {
			s := MemoryStores()
			if err := s.Stable.SetUint64([]byte(keyTerm), 7); err != nil {
				t.Fatal(err)
			}
			w.start(n.Name, "1", s)
		}
		w.leader()
		a := w.member("a")
		a.admit(5)
		if term := a.c.raft().CurrentTerm(); term <= 7 {
			t.Errorf("term %d", term)
		}
	})
}
