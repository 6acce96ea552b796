package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/link"
	"github.com/keepbeat/keepbeat/cluster/transport/memlink"
)

// record is an FSM that keeps what was applied, and when.
type record struct {
	mu   sync.Mutex // guards the rest
	got  []string
	when []time.Time
}

func (r *record) Apply(l *raft.Log) any {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got, r.when = append(r.got, string(l.Data)), append(r.when, time.Now())
	return nil
}

func (r *record) Snapshot() (raft.FSMSnapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return snapshot(bytes.Join(toBytes(r.got), []byte("\n"))), nil
}

func (r *record) Restore(rc io.ReadCloser) error {
	b, err := io.ReadAll(rc)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got, r.when = nil, nil
	for _, s := range bytes.Split(b, []byte("\n")) {
		r.got, r.when = append(r.got, string(s)), append(r.when, time.Now())
	}
	return nil
}

// applied returns when an entry was applied.
func (r *record) applied(s string) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, g := range r.got {
		if g == s {
			return r.when[i], true
		}
	}
	return time.Time{}, false
}

type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return err
	}
	return sink.Close()
}
func (s snapshot) Release() {}

func toBytes(s []string) (out [][]byte) {
	for _, x := range s {
		out = append(out, []byte(x))
	}
	return out
}

// member is one raft node of a test.
type member struct {
	name    string
	raft    *raft.Raft
	trans   raft.Transport
	fsm     *record
	streams Streams
	links   *memlink.Node
}

func (m *member) stop(t testing.TB) {
	if c, ok := m.trans.(raft.WithClose); ok {
		_ = c.Close() // first: raft's Shutdown waits for its replication
	}
	if err := m.raft.Shutdown().Error(); err != nil {
		t.Errorf("shutdown of %s: %v", m.name, err)
	}
	_ = m.streams.Close()
	m.links.Close()
}

var three = []string{"a", "b", "c"}

// newMember starts a raft node over streams. plain uses raft's own transport.
func newMember(t testing.TB, name string, links *memlink.Node, s Streams, how func(*RaftConfig), plain bool) *member {
	m := &member{name: name, fsm: &record{}, streams: s, links: links}
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(name)
	c.HeartbeatTimeout, c.ElectionTimeout = 200*time.Millisecond, 200*time.Millisecond
	c.LeaderLeaseTimeout, c.CommitTimeout = 100*time.Millisecond, 20*time.Millisecond
	c.Logger = hclog.NewNullLogger()
	if testing.Verbose() && testLogs {
		c.Logger = HCLog(slog.Default(), name)
	}
	if plain {
		m.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: RaftLayer(s, name+"/1"), MaxPool: 3, Timeout: 2 * time.Second, Logger: hclog.NewNullLogger(),
		})
	} else {
		cfg := RaftConfig{Streams: s, Datagrams: links, Self: name + "/1", HeartbeatTimeout: c.HeartbeatTimeout}
		if how != nil {
			how(&cfg)
		}
		m.trans = NewRaftTransport(cfg)
	}
	store := raft.NewInmemStore()
	snaps := raft.NewInmemSnapshotStore()
	var servers []raft.Server
	for _, n := range three {
		servers = append(servers, raft.Server{ID: raft.ServerID(n), Address: raft.ServerAddress(n + "/1")})
	}
	if err := raft.BootstrapCluster(c, store, store, snaps, m.trans, raft.Configuration{Servers: servers}); err != nil {
		t.Fatal(err)
	}
	r, err := raft.NewRaft(c, m.fsm, store, store, snaps, m.trans)
	if err != nil {
		t.Fatal(err)
	}
	m.raft = r
	return m
}

const testLogs = false

// memoryCluster is three raft nodes over memory streams, inside a bubble.
func memoryCluster(t testing.TB, mem *MemoryNetwork, links *memlink.Network, plain bool) map[string]*member {
	out := map[string]*member{}
	nodes := map[string]*memlink.Node{}
	for i, n := range three {
		nodes[n] = links.Start(n, link.Boot(i+1))
	}
	for _, n := range three {
		out[n] = newMember(t, n, nodes[n], mem.NodeOver(n, nodes[n]), nil, plain)
	}
	return out
}

// leader waits for a leader that a majority of the given members knows.
func leader(t testing.TB, ms map[string]*member, among ...string) *member {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for time.Now().Before(end) {
		for _, n := range among {
			if ms[n].raft.State() != raft.Leader {
				continue
			}
			agree := 0
			for _, o := range among {
				if a, _ := ms[o].raft.LeaderWithID(); nodeOf(string(a)) == n {
					agree++
				}
			}
			if agree == len(among) {
				return ms[n]
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("no leader among %v", among)
	return nil
}

func apply(t testing.TB, m *member, s string) {
	t.Helper()
	if err := m.raft.Apply([]byte(s), 10*time.Second).Error(); err != nil {
		t.Fatalf("apply of %s at %s: %v", s, m.name, err)
	}
}

// commit applies an entry at whoever leads, which on a busy machine changes by
// itself, and returns that one.
func commit(t testing.TB, ms map[string]*member, s string, among ...string) *member {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		l := leader(t, ms, among...)
		err := l.raft.Apply([]byte(s), 10*time.Second).Error()
		lost := errors.Is(err, raft.ErrLeadershipLost) || errors.Is(err, raft.ErrNotLeader)
		switch {
		case err == nil:
			return l
		case !lost || time.Now().After(end):
			t.Fatalf("apply of %s at %s: %v", s, l.name, err)
		}
	}
}

// waitApplied returns when the entry was applied at the member.
func waitApplied(t testing.TB, m *member, s string, limit time.Duration) time.Time {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		if at, ok := m.fsm.applied(s); ok {
			return at
		}
		if time.Now().After(end) {
			t.Fatalf("%s did not apply %q within %v", m.name, s, limit)
		}
		time.Sleep(time.Millisecond)
	}
}

func others(l *member) (out []string) {
	for _, n := range three {
		if n != l.name {
			out = append(out, n)
		}
	}
	return out
}

func TestRaftOverQUICElectsCommitsAndSurvivesTheLeader(t *testing.T) {
	n := memlink.New(memlink.Config{Loss: 0.01, Seed: 3, DeadTime: 300 * time.Millisecond}, three...)
	links := map[string]*memlink.Node{}
	for i, name := range three {
		links[name] = n.Start(name, link.Boot(i+1))
	}
	ms := map[string]*member{}
	for _, name := range three {
		q, err := NewQUIC(QUICConfig{Self: name, Nodes: three, Datagrams: links[name], Keys: testKeys, Cluster: "test"})
		if err != nil {
			t.Fatal(err)
		}
		ms[name] = newMember(t, name, links[name], q, nil, false)
	}
	defer func() {
		for _, m := range ms {
			m.stop(t)
		}
	}()
	var l *member
	for i := range 20 {
		l = commit(t, ms, fmt.Sprint("entry ", i), three...)
	}
	for _, m := range ms {
		waitApplied(t, m, "entry 19", 30*time.Second)
	}
	rest := others(l)
	n.Isolate(l.name)
	commit(t, ms, "without it", rest...)
	n.Rejoin(l.name)
	waitApplied(t, ms[l.name], "without it", 30*time.Second)
}

func TestRaftOverMemoryElectsAndCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := NewMemoryNetwork(MemoryConfig{Latency: time.Millisecond})
		n := memlink.New(memlink.Config{Latency: time.Millisecond}, three...)
		ms := memoryCluster(t, mem, n, false)
		l := leader(t, ms, three...)
		apply(t, l, "one")
		committed := time.Now()
		for _, m := range ms {
			if late := waitApplied(t, m, "one", time.Second).Sub(committed); late > 60*time.Millisecond {
				t.Errorf("%s applied %v after the commit; it learns of it within two CommitTimeouts", m.name, late)
			}
		}
		for _, m := range ms {
			m.stop(t)
		}
	})
}

// lateness cuts a follower off for a minute while entries are committed, and
// returns how long after the healing it had them.
func lateness(t *testing.T, plain bool) time.Duration {
	var late time.Duration
	synctest.Test(t, func(t *testing.T) {
		mem := NewMemoryNetwork(MemoryConfig{Latency: time.Millisecond})
		n := memlink.New(memlink.Config{Latency: time.Millisecond}, three...)
		ms := memoryCluster(t, mem, n, plain)
		l := leader(t, ms, three...)
		f := ms[others(l)[0]]
		apply(t, l, "before")
		waitApplied(t, f, "before", time.Second)

		mem.Isolate(f.name)
		n.Isolate(f.name)
		for i := range 60 {
			apply(t, l, fmt.Sprint("meanwhile ", i))
			time.Sleep(time.Second)
		}
		if _, ok := f.fsm.applied("meanwhile 0"); ok {
			t.Fatal("the cut follower got an entry")
		}
		healed := time.Now()
		mem.Rejoin(f.name)
		n.Rejoin(f.name)
		late = waitApplied(t, f, "meanwhile 59", time.Minute).Sub(healed)
		for _, m := range ms {
			m.stop(t)
		}
	})
	return late
}

func TestFollowerThatWasAwayForAMinuteGetsItsEntriesAtOnce(t *testing.T) {
	worst := time.Duration(0)
	for range 10 {
		worst = max(worst, lateness(t, false))
	}
	if worst >= time.Second {
		t.Errorf("entries came %v after the healing", worst)
	}
	// Raft's own transport, to show what the waiting is for.
	own := time.Duration(0)
	for range 10 {
		own = max(own, lateness(t, true))
	}
	t.Logf("worst of 10: %v; with raft's own transport %v", worst, own)
	if own < time.Second {
		t.Errorf("raft's own transport is as fast (%v): this wrapper is not needed any more", own)
	}
}

func TestReplicationWaitsForThePeerAndVotesDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := NewMemoryNetwork(MemoryConfig{})
		n := memlink.New(memlink.Config{DeadTime: time.Second}, "a", "b")
		da, db := n.Start("a", 1), n.Start("b", 2)
		sa, sb := mem.NodeOver("a", da), mem.NodeOver("b", db)
		ta := NewRaftTransport(RaftConfig{Streams: sa, Datagrams: da, Self: "a", Wait: 30 * time.Second})
		tb := NewRaftTransport(RaftConfig{Streams: sb, Datagrams: db, Self: "b"})
		var server sync.WaitGroup
		quit := make(chan struct{})
		server.Go(func() {
			for {
				select {
				case rpc := <-tb.Consumer():
					rpc.Respond(&raft.AppendEntriesResponse{Success: true, LastLog: 7}, nil)
				case <-quit:
					return
				}
			}
		})
		n.Isolate("b")
		mem.Isolate("b")
		time.Sleep(2 * time.Second)

		entries := &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 6, PrevLogTerm: 4, Entries: []*raft.Log{{Index: 7, Term: 5}}}
		ask := func(args *raft.AppendEntriesRequest) (time.Duration, error) {
			began := time.Now()
			err := ta.AppendEntries("b", "b", args, &raft.AppendEntriesResponse{})
			return time.Since(began), err
		}

		if took, err := ask(entries); err == nil || took != 30*time.Second {
			t.Errorf("to a peer that stays away: %v after %v, want an error after 30s", err, took)
		} else {
			t.Log(err)
		}
		if took, err := ask(&raft.AppendEntriesRequest{Term: 5, RPCHeader: raft.RPCHeader{Addr: []byte("a")}}); err == nil || took != 0 {
			t.Errorf("heartbeat: %v after %v, want an error at once", err, took)
		}
		began := time.Now()
		for name, err := range map[string]error{
			"vote":     ta.RequestVote("b", "b", &raft.RequestVoteRequest{Term: 5}, &raft.RequestVoteResponse{}),
			"pre-vote": ta.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{Term: 5}, &raft.RequestPreVoteResponse{}),
			"timeout":  ta.TimeoutNow("b", "b", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}),
		} {
			if err == nil {
				t.Errorf("%s to a peer that is down succeeded", name)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("votes to a peer that is down took %v", took)
		}

		go func() {
			time.Sleep(10 * time.Second)
			mem.Rejoin("b")
			n.Rejoin("b")
		}()
		if took, err := ask(entries); err != nil || took < 10*time.Second || took > 11*time.Second {
			t.Errorf("to a peer that returns after 10s: %v after %v", err, took)
		}

		n.Isolate("b")
		mem.Isolate("b")
		time.Sleep(2 * time.Second)
		go func() {
			time.Sleep(3 * time.Second)
			_ = ta.RequestVote("b", "b", &raft.RequestVoteRequest{Term: 6}, &raft.RequestVoteResponse{})
		}()
		if took, err := ask(entries); err == nil || took != 3*time.Second {
			t.Errorf("when a newer term begins: %v after %v, want an error after 3s", err, took)
		}
		go func() {
			time.Sleep(time.Second)
			_ = ta.Close()
		}()
		entries.Term = 6
		if took, err := ask(entries); err != raft.ErrTransportShutdown || took != time.Second {
			t.Errorf("on Close: %v after %v, want %v after 1s", err, took, raft.ErrTransportShutdown)
		}
		close(quit)
		server.Wait()
		_ = tb.Close()
		_ = sa.Close()
		_ = sb.Close()
		da.Close()
		db.Close()
	})
}

func TestHeartbeatsAreDatagramsAndSurviveALostOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := NewMemoryNetwork(MemoryConfig{Latency: time.Millisecond})
		// Far more loss than two links ever show together.
		n := memlink.New(memlink.Config{Latency: time.Millisecond, Loss: 0.1, Seed: 5}, three...)
		ms := memoryCluster(t, mem, n, false)
		l := leader(t, ms, three...)
		term := l.raft.CurrentTerm()
		sent := n.Sent(link.ChannelRaft)
		time.Sleep(time.Minute)
		if got := l.raft.CurrentTerm(); got != term || l.raft.State() != raft.Leader {
			t.Errorf("the leader of term %d lost it within a minute; the term is %d now", term, got)
		}
		perSecond := float64(n.Sent(link.ChannelRaft)-sent) / 60
		t.Logf("%.0f raft datagrams a second among three nodes", perSecond)
		if perSecond < 20 {
			t.Errorf("%.0f raft datagrams a second: heartbeats do not go as datagrams", perSecond)
		}
		for _, m := range ms {
			m.stop(t)
		}
	})
}

func TestSnapshotReachesAFollowerThatFellBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := NewMemoryNetwork(MemoryConfig{Latency: time.Millisecond})
		n := memlink.New(memlink.Config{Latency: time.Millisecond}, three...)
		ms := memoryCluster(t, mem, n, false)
		l := leader(t, ms, three...)
		f := ms[others(l)[0]]
		mem.Isolate(f.name)
		n.Isolate(f.name)
		for i := range 30 {
			apply(t, l, fmt.Sprint("entry ", i))
		}
		conf := l.raft.ReloadableConfig()
		conf.TrailingLogs = 1
		if err := l.raft.ReloadConfig(conf); err != nil {
			t.Fatal(err)
		}
		if err := l.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		healed := time.Now()
		mem.Rejoin(f.name)
		n.Rejoin(f.name)
		if late := waitApplied(t, f, "entry 29", time.Minute).Sub(healed); late > time.Second {
			t.Errorf("the snapshot came %v after the healing", late)
		}
		for _, m := range ms {
			m.stop(t)
		}
	})
}

func TestRaftTransportCanBeReplacedOnTheSameStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := NewMemoryNetwork(MemoryConfig{})
		n := memlink.New(memlink.Config{}, "a", "b")
		da, db := n.Start("a", 1), n.Start("b", 2)
		sa, sb := mem.NodeOver("a", da), mem.NodeOver("b", db)
		ta := NewRaftTransport(RaftConfig{Streams: sa, Datagrams: da, Self: "a"})
		for range 3 {
			tb := NewRaftTransport(RaftConfig{Streams: sb, Datagrams: db, Self: "b"})
			tb.SetHeartbeatHandler(func(r raft.RPC) { r.Respond(&raft.AppendEntriesResponse{Success: true, Term: 9}, nil) })
			done := make(chan struct{})
			go func() {
				defer close(done)
				rpc := <-tb.Consumer()
				rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
			}()
			var vote raft.RequestVoteResponse
			if err := ta.RequestVote("b", "b", &raft.RequestVoteRequest{Term: 1}, &vote); err != nil || !vote.Granted {
				t.Errorf("vote: %v, granted %v", err, vote.Granted)
			}
			<-done
			var beat raft.AppendEntriesResponse
			if err := ta.AppendEntries("b", "b", &raft.AppendEntriesRequest{Term: 1, RPCHeader: raft.RPCHeader{Addr: []byte("a")}}, &beat); err != nil || beat.Term != 9 {
				t.Errorf("heartbeat: %v, %+v", err, beat)
			}
			if err := ta.AppendEntries("b", "b", &raft.AppendEntriesRequest{Term: 1, RPCHeader: raft.RPCHeader{Addr: []byte("c")}}, &beat); err == nil {
				t.Error("a heartbeat in the name of another leader was answered")
			}
			if err := tb.Close(); err != nil {
				t.Error(err)
			}
		}
		_ = ta.Close()
		_ = sa.Close()
		_ = sb.Close()
		da.Close()
		db.Close()
	})
}

// A node whose data directory was lost must not answer for the lost one: its
// vote could be a second one of the same voter.
func TestRequestsForAnEarlierDataDirectoryAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := NewMemoryNetwork(MemoryConfig{})
		n := memlink.New(memlink.Config{}, "a", "b")
		da, db := n.Start("a", 1), n.Start("b", 2)
		sa, sb := mem.NodeOver("a", da), mem.NodeOver("b", db)
		ta := NewRaftTransport(RaftConfig{Streams: sa, Datagrams: da, Self: "a/1"})
		tb := NewRaftTransport(RaftConfig{Streams: sb, Datagrams: db, Self: "b/new"})
		tb.SetHeartbeatHandler(func(r raft.RPC) { r.Respond(&raft.AppendEntriesResponse{Success: true}, nil) })
		quit := make(chan struct{})
		go func() {
			for {
				select {
				case rpc := <-tb.Consumer():
					rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
				case <-quit:
					return
				}
			}
		}()
		beat := &raft.AppendEntriesRequest{Term: 1, RPCHeader: raft.RPCHeader{Addr: []byte("a/1")}}
		for address, served := range map[raft.ServerAddress]bool{"b/new": true, "b/old": false, "b": false} {
			var vote raft.RequestVoteResponse
			if err := ta.RequestVote("b", address, &raft.RequestVoteRequest{Term: 1}, &vote); (err == nil) != served || vote.Granted != served {
				t.Errorf("vote of %s: %v, granted %v", address, err, vote.Granted)
			}
			if err := ta.AppendEntries("b", address, beat, &raft.AppendEntriesResponse{}); (err == nil) != served {
				t.Errorf("heartbeat to %s: %v", address, err)
			}
		}
		close(quit)
		_ = ta.Close()
		_ = tb.Close()
		_ = sa.Close()
		_ = sb.Close()
		da.Close()
		db.Close()
	})
}
