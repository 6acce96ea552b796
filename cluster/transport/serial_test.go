package transport

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/transport/memlink"
)

const onlySerial = "only its serial line is left, which carries no streams"

// A peer of which only the serial line is left is up, and out of reach for streams.
func TestStreamsEndWhenOnlyTheSerialLineIsLeft(t *testing.T) {
	n := memlink.New(memlink.Config{}, "a", "b")
	a, _ := start(t, n, "a", 1, "a", "b")
	b, _ := start(t, n, "b", 2, "a", "b")
	echo(t, b, KindCall)
	c := mustDial(t, a, "b")
	n.OnlySerial("a", "b", true)
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v, want EOF", err)
	}
	_ = c.Close()
	if _, err := dialTimeout(a, "b", KindCall, time.Hour); err == nil || !strings.HasPrefix(err.Error(), "dial b (call): "+onlySerial) {
		t.Errorf("dial: %v", err)
	}
	n.OnlySerial("a", "b", false)
	c = mustDial(t, a, "b")
	defer c.Close()
	if err := roundTrip(c, "the network is back"); err != nil {
		t.Error(err)
	}
}

func TestRaftWaitsForTheNetworkNotForTheSerialLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		links := memlink.New(memlink.Config{}, "a", "b")
		net := NewMemoryNetwork(MemoryConfig{})
		da, db := links.Start("a", 1), links.Start("b", 2)
		sa, sb := net.NodeOver("a", da), net.NodeOver("b", db)
		ta := NewRaftTransport(RaftConfig{Streams: sa, Datagrams: da, Self: "a"})
		tb := NewRaftTransport(RaftConfig{Streams: sb, Datagrams: db, Self: "b"})
		served := make(chan struct{})
		go func() {
			defer close(served)
			rpc := <-tb.Consumer()
			rpc.Respond(&raft.AppendEntriesResponse{Term: 1, Success: true}, nil)
		}()
		links.OnlySerial("a", "b", true)
		synctest.Wait()
		beat := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("a")}, Term: 1}
		if err := ta.AppendEntries("b", "b", beat, &raft.AppendEntriesResponse{}); err == nil || !strings.Contains(err.Error(), onlySerial) {
			t.Errorf("heartbeat: %v", err)
		}
		if err := ta.RequestVote("b", "b", &raft.RequestVoteRequest{Term: 1}, &raft.RequestVoteResponse{}); err == nil || !strings.Contains(err.Error(), onlySerial) {
			t.Errorf("vote: %v", err)
		}
		began := time.Now()
		time.AfterFunc(7*time.Second, func() { links.OnlySerial("a", "b", false) })
		entries := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("a")}, Term: 1, PrevLogEntry: 1}
		if err := ta.AppendEntries("b", "b", entries, &raft.AppendEntriesResponse{}); err != nil {
			t.Errorf("replication: %v", err)
		}
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("replication took %v, want the 7s until the network was back", took)
		}
		<-served
		if err := errors.Join(ta.Close(), tb.Close(), sa.Close(), sb.Close()); err != nil {
			t.Error(err)
		}
		da.Close()
		db.Close()
	})
}
