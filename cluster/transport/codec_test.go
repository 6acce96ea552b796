package transport

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func TestHeartbeatsSurviveTheirEncoding(t *testing.T) {
	req := raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a/7"), Addr: []byte("a")},
		Term:      1 << 40,
	}
	m, err := parseBeat(appendBeatRequest(nil, 77, "b/2", &req))
	if err != nil || m.id != 77 || m.to != "b/2" || !reflect.DeepEqual(m.req, req) {
		t.Errorf("request: %v\ngot  %+v\nwant %+v", err, m.req, req)
	}
	resp := raft.AppendEntriesResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("b"), Addr: []byte("b")},
		Term:      9, LastLog: 1 << 33, Success: true, NoRetryBackoff: true,
	}
	m, err = parseBeat(appendBeatResponse(nil, 78, &resp, errors.New("disk full")))
	if err != nil || m.id != 78 || m.err != "disk full" || !reflect.DeepEqual(m.resp, resp) {
		t.Errorf("response: %v %q\ngot  %+v\nwant %+v", err, m.err, m.resp, resp)
	}
}

func FuzzHeartbeat(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendBeatRequest(nil, 1, "director2/1f", &raft.AppendEntriesRequest{Term: 3, RPCHeader: raft.RPCHeader{Addr: []byte("director1")}}))
	f.Add(appendBeatResponse(nil, 1, &raft.AppendEntriesResponse{Term: 3, Success: true}, nil))
	f.Add(appendBeatResponse(nil, 1, &raft.AppendEntriesResponse{}, errors.New("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseBeat(b)
		if err != nil {
			return
		}
		var again []byte
		if m.kind == beatRequest {
			if !isHeartbeat(&m.req) {
				t.Fatalf("%+v may not go past the main loop of raft", m.req)
			}
			again = appendBeatRequest(nil, m.id, m.to, &m.req)
		} else {
			var e error
			if m.err != "" {
				e = errors.New(m.err)
			}
			again = appendBeatResponse(nil, m.id, &m.resp, e)
		}
		m2, err := parseBeat(again)
		if err != nil || !reflect.DeepEqual(m, m2) {
			t.Fatalf("%+v became %+v, %v", m, m2, err)
		}
	})
}

func FuzzStreamHeader(f *testing.F) {
	f.Add(appendHeader(nil, header{streamVersion, KindRaft}))
	f.Add([]byte{1, 1, 3, 'a', 'b', 'c', 'd'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := readHeader(r)
		if err != nil {
			return
		}
		if want := 3 + int(b[2]); len(b)-r.Len() != want {
			t.Fatalf("%d bytes were read of a header of %d", len(b)-r.Len(), want)
		}
		if code, text := h.check(); (code == statusOK) != (text == "") {
			t.Fatalf("status %d with text %q", code, text)
		}
	})
}

func FuzzStreamReply(f *testing.F) {
	f.Add(appendReply(nil, statusOK, ""))
	f.Add(appendReply(nil, statusBusy, strings.Repeat("x", 300)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := readReply(bytes.NewReader(b)); err == nil && b[0] != byte(statusOK) {
			t.Fatalf("%q is taken for consent", b)
		}
	})
}

func TestGossipAddressesAreFixedAndDistinct(t *testing.T) {
	if got, want := GossipSeed("director1"), "director1/[fd"; !strings.HasPrefix(got, want) {
		t.Errorf("seed is %s, want %s...", got, want)
	}
	if a, again := GossipAddr("a"), GossipAddr("a"); a != again || a == GossipAddr("b") {
		t.Error("addresses do not follow the names")
	}
	if !GossipAddr("a").IsPrivate() {
		t.Errorf("%v is not a private address", GossipAddr("a"))
	}
}
