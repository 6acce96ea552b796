package probe

import (
	"encoding/binary"
	"errors"
)

// Port is where responders listen and probes ask, on every address of a host.
const Port = 7007

// A request is magic, sequence, time of sending; the answer repeats those and
// appends the responder's stamp and name.
const (
	magic        = 0x6b656570_70726f62 // "keepprob"
	requestSize  = 24
	answerHeader = requestSize + 8
	// MaxName bounds the name of a host in an answer.
	MaxName = 64
)

// Request is what a probe asks.
type Request struct {
	Sequence uint64
	Sent     Instant
}

// Answer is what a responder says.
type Answer struct {
	Request
	At  Instant
	Who string
}

var errDatagram = errors.New("not a datagram of the lab")

// AppendTo appends the request's bytes to b.
func (r Request) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magic)
	b = binary.BigEndian.AppendUint64(b, r.Sequence)
	return binary.BigEndian.AppendUint64(b, uint64(r.Sent))
}

// ParseRequest reads a request.
func ParseRequest(b []byte) (Request, error) {
	if len(b) != requestSize || binary.BigEndian.Uint64(b) != magic {
		return Request{}, errDatagram
	}
	return Request{binary.BigEndian.Uint64(b[8:]), Instant(binary.BigEndian.Uint64(b[16:]))}, nil
}

// AppendTo appends the answer's bytes to b.
func (a Answer) AppendTo(b []byte) []byte {
	b = a.Request.AppendTo(b)
	b = binary.BigEndian.AppendUint64(b, uint64(a.At))
	return append(b, a.Who...)
}

// ParseAnswer reads an answer.
func ParseAnswer(b []byte) (Answer, error) {
	if len(b) <= answerHeader || len(b) > answerHeader+MaxName {
		return Answer{}, errDatagram
	}
	r, err := ParseRequest(b[:requestSize])
	if err != nil {
		return Answer{}, err
	}
	return Answer{r, Instant(binary.BigEndian.Uint64(b[requestSize:])), string(b[answerHeader:])}, nil
}
