// Package lease holds quorum leases: the bounded time for which a director may
// act as owner without hearing from a majority of voters again. Holder and
// Voter are pure; Keeper gives them a clock, the network, a disk and the guard.
//
// The numbers in comments ("rule 3") are those of the design's section on safety.
package lease

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Margin is by how much a voter's promise outlasts the lease that was asked
// for: 3 %, which covers two clocks whose rates are each wrong by 1 %.
const (
	marginNum = 103
	marginDen = 100
)

// Stretch returns how long a promise for a lease of the given length stands.
func Stretch(length time.Duration) time.Duration { return length / marginDen * marginNum }

// Voters is a configuration of voters: raft's, since a log index. IDs are
// server ids ("director1/UUID"): a node that lost its disk is another voter.
type Voters struct {
	Index uint64
	IDs   []string
}

// Majority is how many voters make one.
func (v Voters) Majority() int { return len(v.IDs)/2 + 1 }

// Message is one of Renew, Ack, Refuse, Revoke, Revoked.
type Message interface{ kind() byte }

// Renew asks a voter to promise (rule 2). The sender's boot is the datagram's.
type Renew struct {
	Incarnation uint64
	K           uint64        // number of this round, growing within a boot
	Length      time.Duration // of the lease
	Heard       uint64        // the highest K acknowledged by this voter that has arrived here: proof that the sender hears
	Config      uint64        // index of the newest committed configuration that the sender knows
	// Reset says that the sender no longer uses, and its guard no longer
	// allows, anything acknowledged to an earlier boot or with a greater
	// length: this promise replaces the one before instead of extending it.
	Reset bool
}

// Ack is a promise (rule 3).
type Ack struct {
	Voter       string
	Incarnation uint64
	K           uint64
	Config      Voters // the newest configuration in the voter's log, committed or not; IDs only when newer than Renew.Config
}

// Refuse answers a Renew of an incarnation that this voter has revoked.
type Refuse struct {
	Voter       string
	Incarnation uint64
	K           uint64
	Revoked     uint64 // every incarnation up to this one
}

// Revoke asks a voter to give no more promises to an incarnation, once its promise has run out (rule 5).
type Revoke struct {
	Node        string
	Incarnation uint64
}

// Revoked is a voter's word that it has done so, durably.
type Revoked struct {
	Voter       string
	Node        string
	Incarnation uint64
}

func (Renew) kind() byte   { return 1 }
func (Ack) kind() byte     { return 2 }
func (Refuse) kind() byte  { return 3 }
func (Revoke) kind() byte  { return 4 }
func (Revoked) kind() byte { return 5 }

const (
	codecVersion = 1
	maxName      = 255
	maxVoters    = 64
)

// Encode returns a message as it travels: version, kind, then the fields in
// order, numbers as unsigned varints, strings with their length before them.
func Encode(m Message) []byte {
	b := append(make([]byte, 0, 64), codecVersion, m.kind())
	u := func(n uint64) { b = binary.AppendUvarint(b, n) }
	s := func(v string) { u(uint64(len(v))); b = append(b, v...) }
	switch m := m.(type) {
	case Renew:
		u(m.Incarnation)
		u(m.K)
		u(uint64(m.Length))
		u(m.Heard)
		u(m.Config)
		b = append(b, 0)
		if m.Reset {
			b[len(b)-1] = 1
		}
	case Ack:
		s(m.Voter)
		u(m.Incarnation)
		u(m.K)
		u(m.Config.Index)
		u(uint64(len(m.Config.IDs)))
		for _, id := range m.Config.IDs {
			s(id)
		}
	case Refuse:
		s(m.Voter)
		u(m.Incarnation)
		u(m.K)
		u(m.Revoked)
	case Revoke:
		s(m.Node)
		u(m.Incarnation)
	case Revoked:
		s(m.Voter)
		s(m.Node)
		u(m.Incarnation)
	}
	return b
}

var errShort = errors.New("lease message is cut short")

type reader struct {
	b   []byte
	err error
}

func (r *reader) u() uint64 {
	n, k := binary.Uvarint(r.b)
	if k <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[k:]
	return n
}

func (r *reader) s() string {
	n := r.u()
	if n > maxName || n > uint64(len(r.b)) {
		r.fail(errShort)
		return ""
	}
	v := string(r.b[:n])
	r.b = r.b[n:]
	return v
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

// Decode reads what Encode wrote. Whatever the bytes, it returns a message or an error.
func Decode(b []byte) (Message, error) {
	if len(b) < 2 {
		return nil, errShort
	}
	if b[0] != codecVersion {
		return nil, fmt.Errorf("lease message of version %d, this keepbeat speaks version %d: run the same version on every node", b[0], codecVersion)
	}
	r := &reader{b: b[2:]}
	var m Message
	switch b[1] {
	case 1:
		v := Renew{Incarnation: r.u(), K: r.u(), Length: time.Duration(r.u()), Heard: r.u(), Config: r.u()}
		if len(r.b) != 1 || r.b[0] > 1 {
			r.fail(errShort)
		} else {
			v.Reset, r.b = r.b[0] == 1, nil
		}
		if v.Length <= 0 || v.Length > MaxLength {
			r.fail(fmt.Errorf("lease of %v: out of range", v.Length))
		}
		m = v
	case 2:
		v := Ack{Voter: r.s(), Incarnation: r.u(), K: r.u()}
		v.Config.Index = r.u()
		n := r.u()
		if n > maxVoters {
			r.fail(fmt.Errorf("%d voters: too many", n))
		}
		for i := uint64(0); i < n && r.err == nil; i++ {
			v.Config.IDs = append(v.Config.IDs, r.s())
		}
		m = v
	case 3:
		m = Refuse{Voter: r.s(), Incarnation: r.u(), K: r.u(), Revoked: r.u()}
	case 4:
		m = Revoke{Node: r.s(), Incarnation: r.u()}
	case 5:
		m = Revoked{Voter: r.s(), Node: r.s(), Incarnation: r.u()}
	default:
		return nil, fmt.Errorf("lease message of unknown kind %d", b[1])
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(r.b) != 0 {
		return nil, errors.New("lease message has bytes left over")
	}
	return m, nil
}

// MaxLength bounds a lease that may be asked for: the longest planned restart.
const MaxLength = 10 * time.Minute
