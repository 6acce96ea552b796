package link

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// The format of a datagram is described in docs/protocol.md, "Datagrams".
const (
	wireVersion = 1
	headerLen   = 32
	tagLen      = 16 // AES-GCM
	// MaxPayload is the largest payload of Send, in bytes: header, channel, tag
	// and IPv6 and UDP headers (48) then fit an Ethernet frame of 1500 bytes, so
	// that nothing is ever fragmented.
	MaxPayload  = 1400
	maxPlain    = 1 + MaxPayload // the channel, then the payload
	maxDatagram = headerLen + maxPlain + tagLen
	// MaxMeta is the largest meta of SetMeta, in bytes.
	MaxMeta = 512
)

// header is the part of a datagram that is authenticated but not encrypted.
type header struct {
	cluster  uint32
	key      uint8
	src, dst uint32 // of nodeID; dst 0: everybody
	boot     Boot
	seq      uint64
}

func (h header) put(b []byte) {
	b[0], b[1], b[2], b[3] = 'K', 'B', wireVersion, h.key
	binary.BigEndian.PutUint32(b[4:], h.cluster)
	binary.BigEndian.PutUint32(b[8:], h.src)
	binary.BigEndian.PutUint32(b[12:], h.dst)
	binary.BigEndian.PutUint64(b[16:], uint64(h.boot))
	binary.BigEndian.PutUint64(b[24:], h.seq)
}

// parseHeader looks at nothing but the form; false means malformed.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerLen+1+tagLen || len(b) > maxDatagram || b[0] != 'K' || b[1] != 'B' || b[2] != wireVersion {
		return header{}, false
	}
	h = header{
		key:     b[3],
		cluster: binary.BigEndian.Uint32(b[4:]),
		src:     binary.BigEndian.Uint32(b[8:]),
		dst:     binary.BigEndian.Uint32(b[12:]),
		boot:    Boot(binary.BigEndian.Uint64(b[16:])),
		seq:     binary.BigEndian.Uint64(b[24:]),
	}
	return h, h.src != 0 && h.boot != 0 && h.seq != 0
}

// hashID makes the 32-bit identifiers of the header. 0 is never returned, it
// means everybody. Nodes whose names collide are refused by New; clusters whose
// names collide still have different keys.
func hashID(kind, name string) uint32 {
	sum := sha256.Sum256([]byte(kind + "\x00" + name))
	return max(binary.BigEndian.Uint32(sum[:]), 1)
}

func nodeID(name string) uint32    { return hashID("node", name) }
func clusterID(name string) uint32 { return hashID("cluster", name) }

// hello is what a node says on one link every keepalive.
type hello struct {
	// prompt: sent between the beats to one node, not counted for loss.
	prompt bool
	// tick counts the beats on which the sender's boot said hello; all links share
	// it, but for serial ones, which have one each.
	tick uint64
	// meta is what SetMeta set; hasMeta is false in the second and later parts
	// of a hello that did not fit one datagram.
	hasMeta bool
	meta    []byte
	// period is the sender's keepalive, in whole milliseconds; with the meta only. 0: not said.
	period time.Duration
	// bare: all boots have proved themselves; no entry has a challenge or an answer.
	bare    bool
	entries []entry
	part    metaPart // on serial lines, which carry no whole meta
}

// entry is what a hello tells one boot of one node.
type entry struct {
	node uint32
	boot Boot
	// challenge is the nonce that this boot must answer before the sender believes it; 0: it is believed.
	challenge uint64
	// answer is the challenge that this boot has last sent to us; 0: none open.
	answer uint64
	// heard is the sequence of the last hello of this boot that arrived on this link; 0: none.
	heard uint64
	// delay is how long ago that was when this hello was sent.
	delay time.Duration
}

const (
	helloFixed = 1 + 1 + 8 + 1 // channel, flags, tick, number of entries
	entryLen   = 4 + 8 + 8 + 8 + 8 + 4

	bareEntryLen = entryLen - 8 - 8
	metaFixed    = 2 + 2 // period in ms, length
	partFixed    = 4 + 2 + 2 + 1

	flagPrompt = 1 << 0
	flagMeta   = 1 << 1
	flagBare   = 1 << 2
	flagPart   = 1 << 3
	flagsKnown = flagPrompt | flagMeta | flagBare | flagPart
)

// entriesThatFit is how many entries a hello holds beside a meta of n bytes; n < 0: without one.
func entriesThatFit(n int) int {
	room := maxPlain - helloFixed
	if n >= 0 {
		room -= metaFixed + n
	}
	return min(room/entryLen, math.MaxUint8)
}

// appendHello appends the plain text of a hello, its channel first.
func appendHello(b []byte, h *hello) []byte {
	var flags byte
	if h.prompt {
		flags |= flagPrompt
	}
	if h.hasMeta {
		flags |= flagMeta
	}
	if h.bare {
		flags |= flagBare
	}
	if h.part.total > 0 {
		flags |= flagPart
	}
	b = append(b, byte(ChannelHello), flags)
	b = binary.BigEndian.AppendUint64(b, h.tick)
	if h.hasMeta {
		ms := (h.period + time.Millisecond - 1) / time.Millisecond
		b = binary.BigEndian.AppendUint16(b, uint16(min(ms, math.MaxUint16)))
		b = binary.BigEndian.AppendUint16(b, uint16(len(h.meta)))
		b = append(b, h.meta...)
	}
	if p := h.part; p.total > 0 {
		b = binary.BigEndian.AppendUint32(b, p.digest)
		b = binary.BigEndian.AppendUint16(b, uint16(p.total))
		b = binary.BigEndian.AppendUint16(b, uint16(p.offset))
		b = append(append(b, byte(len(p.data))), p.data...)
	}
	b = append(b, byte(len(h.entries)))
	for _, e := range h.entries {
		b = binary.BigEndian.AppendUint32(b, e.node)
		b = binary.BigEndian.AppendUint64(b, uint64(e.boot))
		if !h.bare {
			b = binary.BigEndian.AppendUint64(b, e.challenge)
			b = binary.BigEndian.AppendUint64(b, e.answer)
		}
		b = binary.BigEndian.AppendUint64(b, e.heard)
		us := min(max(e.delay.Microseconds(), 0), math.MaxUint32)
		b = binary.BigEndian.AppendUint32(b, uint32(us))
	}
	return b
}

var errHello = errors.New("malformed hello")

// parseHello parses what appendHello wrote. meta and entries of h are
// overwritten and reused; meta points into b.
func parseHello(b []byte, h *hello) error {
	if len(b) < helloFixed || Channel(b[0]) != ChannelHello {
		return fmt.Errorf("%w: %d bytes", errHello, len(b))
	}
	flags := b[1]
	if flags&^flagsKnown != 0 {
		return fmt.Errorf("%w: flags %#x", errHello, flags)
	}
	h.prompt, h.hasMeta, h.bare = flags&flagPrompt != 0, flags&flagMeta != 0, flags&flagBare != 0
	h.tick = binary.BigEndian.Uint64(b[2:])
	h.meta, h.period, h.part, h.entries = nil, 0, metaPart{}, h.entries[:0]
	b = b[10:]
	if h.hasMeta {
		if len(b) < metaFixed {
			return fmt.Errorf("%w: cut in the meta", errHello)
		}
		h.period = time.Duration(binary.BigEndian.Uint16(b)) * time.Millisecond
		n := int(binary.BigEndian.Uint16(b[2:]))
		if b = b[metaFixed:]; n > MaxMeta || len(b) < n {
			return fmt.Errorf("%w: meta of %d bytes", errHello, n)
		}
		h.meta, b = b[:n:n], b[n:]
	}
	if flags&flagPart != 0 {
		var ok bool
		if h.part, b, ok = parsePart(b); !ok {
			return fmt.Errorf("%w: part of a meta", errHello)
		}
	}
	size := entryLen
	if h.bare {
		size = bareEntryLen
	}
	if len(b) < 1 || len(b) != 1+int(b[0])*size {
		return fmt.Errorf("%w: %d bytes of entries", errHello, len(b))
	}
	for b = b[1:]; len(b) > 0; b = b[size:] {
		e := entry{node: binary.BigEndian.Uint32(b), boot: Boot(binary.BigEndian.Uint64(b[4:]))}
		if !h.bare {
			e.challenge, e.answer = binary.BigEndian.Uint64(b[12:]), binary.BigEndian.Uint64(b[20:])
		}
		e.heard = binary.BigEndian.Uint64(b[size-12:])
		e.delay = time.Duration(binary.BigEndian.Uint32(b[size-4:])) * time.Microsecond
		h.entries = append(h.entries, e)
	}
	return nil
}

// parsePart parses a part of a meta, which points into b.
func parsePart(b []byte) (p metaPart, rest []byte, ok bool) {
	if len(b) < partFixed {
		return p, b, false
	}
	p = metaPart{
		digest: binary.BigEndian.Uint32(b),
		total:  int(binary.BigEndian.Uint16(b[4:])),
		offset: int(binary.BigEndian.Uint16(b[6:])),
	}
	n := int(b[8])
	if b = b[partFixed:]; n == 0 || n > len(b) || p.total > MaxMeta || p.offset+n > p.total {
		return p, b, false
	}
	p.data = b[:n:n]
	return p, b[n:], true
}
