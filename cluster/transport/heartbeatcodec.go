package transport

import (
	"encoding/binary"
	"errors"

	"github.com/hashicorp/raft"
)

// A heartbeat travels as one datagram and its answer as another:
//
//	version, type, id (8 bytes, big endian), then
//	request:  term, protocol, server id, address, address it is meant for
//	response: flags, term, last log, protocol, server id, address, error
//
// Numbers are uvarints, strings are a length byte and bytes.
const (
	beatVersion  = 1
	beatRequest  = 1
	beatResponse = 2
)

const (
	flagSuccess = 1 << iota
	flagNoRetryBackoff
	flagError
	flagsKnown = flagSuccess | flagNoRetryBackoff | flagError
)

var errBeat = errors.New("not a raft heartbeat")

// beat is a parsed datagram: a request or a response.
type beat struct {
	kind uint8
	id   uint64
	req  raft.AppendEntriesRequest
	to   string // of the request
	resp raft.AppendEntriesResponse
	err  string // of the response; "": none
}

func appendString(b, s []byte) []byte {
	if len(s) > 255 {
		s = s[:255]
	}
	return append(append(b, byte(len(s))), s...)
}

func appendBeatRequest(b []byte, id uint64, to string, r *raft.AppendEntriesRequest) []byte {
	b = append(b, beatVersion, beatRequest)
	b = binary.BigEndian.AppendUint64(b, id)
	b = binary.AppendUvarint(b, r.Term)
	b = binary.AppendUvarint(b, uint64(r.ProtocolVersion))
	b = appendString(b, r.ID)
	b = appendString(b, r.Addr)
	return appendString(b, []byte(to))
}

func appendBeatResponse(b []byte, id uint64, r *raft.AppendEntriesResponse, err error) []byte {
	b = append(b, beatVersion, beatResponse)
	b = binary.BigEndian.AppendUint64(b, id)
	var flags uint8
	text := ""
	if r.Success {
		flags |= flagSuccess
	}
	if r.NoRetryBackoff {
		flags |= flagNoRetryBackoff
	}
	if err != nil {
		flags |= flagError
		text = err.Error()
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, r.Term)
	b = binary.AppendUvarint(b, r.LastLog)
	b = binary.AppendUvarint(b, uint64(r.ProtocolVersion))
	b = appendString(b, r.ID)
	b = appendString(b, r.Addr)
	return appendString(b, []byte(text))
}

// parseBeat copies what it keeps.
func parseBeat(b []byte) (beat, error) {
	d := decoder{b: b}
	version := d.byte()
	m := beat{kind: d.byte()}
	m.id = d.uint64()
	if d.bad || version != beatVersion {
		return beat{}, errBeat
	}
	switch m.kind {
	case beatRequest:
		m.req.Term = d.uvarint()
		m.req.ProtocolVersion = raft.ProtocolVersion(d.uvarint())
		m.req.ID = d.string()
		m.req.Addr = d.string()
		m.to = string(d.string())
		if m.req.Term == 0 || len(m.req.Addr) == 0 {
			return beat{}, errBeat
		}
	case beatResponse:
		flags := d.byte()
		m.resp.Success = flags&flagSuccess != 0
		m.resp.NoRetryBackoff = flags&flagNoRetryBackoff != 0
		m.resp.Term = d.uvarint()
		m.resp.LastLog = d.uvarint()
		m.resp.ProtocolVersion = raft.ProtocolVersion(d.uvarint())
		m.resp.ID = d.string()
		m.resp.Addr = d.string()
		m.err = string(d.string())
		if flags&flagError != 0 && m.err == "" {
			m.err = "unnamed error"
		}
		if flags&^flagsKnown != 0 || flags&flagError == 0 && m.err != "" {
			return beat{}, errBeat
		}
	default:
		return beat{}, errBeat
	}
	// raft's protocol version is a small signed number.
	if d.bad || len(d.b) != 0 || m.req.ProtocolVersion < 0 || m.resp.ProtocolVersion < 0 {
		return beat{}, errBeat
	}
	return m, nil
}

// decoder reads fields off a slice; after the first one that is missing all are zero and bad is set.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad = true
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.take(n)
	return v
}

// string returns a copy, nil when empty.
func (d *decoder) string() []byte {
	n := int(d.byte())
	return append([]byte(nil), d.take(n)...)
}
