package link

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"
)

// A serial line carries hellos and leases only, and is so slow that hellos have a
// budget: they go out every so many keepalives that they take at most one
// helloShare-th of the line. The rest is for leases, at `default` 1416 bytes a
// second in each direction (docs/protocol.md, "Serial lines").

const (
	// lineHello is the usual hello on a line with its frame: to all, one entry, nothing left to prove.
	lineHello  = 2 + 1 + lineHeader + helloFixed + bareEntryLen + tagLen + crcLen
	helloShare = 6
	// lineEntries bounds the entries of a hello on a line. There is one other end;
	// the second is for its new boot while the old one is still believed.
	lineEntries = 2
	// partLen is how much of the meta a hello on a line carries.
	partLen = 24
	// partCycles is how often the whole meta goes out in a row when it or the peer
	// is new; afterwards one hello in partSeldom carries a part.
	partCycles = 2
	partSeldom = 8
)

// beatsPerHello is every how many keepalives a hello goes out on a line.
func beatsPerHello(keepalive time.Duration, baud int) int {
	period := lineHello * helloShare * byteTime(baud)
	return int(max(1, (period+keepalive-1)/keepalive))
}

// timing is the timing of a link: on a line all times grow with the period of its hellos.
func (l *meshLink) timing(t Timing) Timing {
	if !l.serial {
		return t
	}
	n := time.Duration(beatsPerHello(t.Keepalive, l.conf.Baud))
	return Timing{n * t.Keepalive, n * t.WarnTime, n * t.DeadTime}
}

// helloDue says whether a beat is one of those on which the link says hello, with Mesh.mu held.
func (l *meshLink) helloDue(now time.Time, t Timing) bool {
	if !l.serial {
		return true
	}
	if now.Before(l.nextHello) {
		return false
	}
	l.nextHello = now.Add(l.timing(t).Keepalive - t.Keepalive/2) // beats do not come to the microsecond
	l.beats++
	return true
}

// composeLine is compose for a line: what is said is only of the boots that were
// heard there, and the meta goes in parts, since a datagram that takes a third of
// a second would cost a lease.
func (m *Mesh) composeLine(frames []frame, l *meshLink, only *peer, now time.Time) []frame {
	h := hello{prompt: only != nil, tick: l.beats, bare: true, entries: l.entries[:0]}
	f := frame{link: l, class: classBeat}
	peers := m.roster.Load().peers
	if only != nil {
		peers, f.dst, f.class = []*peer{only}, only.id, classPrompt
	}
	put := func(s *session, p *peer) {
		rx := &s.links[l.idx]
		if rx.seq == 0 || len(h.entries) == lineEntries {
			return
		}
		e := entry{node: p.id, boot: s.boot, challenge: s.challenge, answer: s.theirChallenge, heard: rx.seq, delay: now.Sub(rx.hello)}
		h.bare = h.bare && e.challenge == 0 && e.answer == 0
		h.entries = append(h.entries, e)
	}
	for _, p := range peers {
		for i := len(p.candidates) - 1; i >= 0 && len(h.entries) < lineEntries-1; i-- {
			put(p.candidates[i], p)
		}
		if s := p.sess.Load(); s != nil {
			put(s, p)
		}
	}
	if only == nil {
		h.part = l.parts.next(m.meta, l.beats)
	}
	f.seq, f.tx = m.seq.Add(1), m.tx.Get().(*txBuf)
	f.n = len(appendHello(f.tx.b[headerLen:headerLen], &h))
	l.ring.add(f.seq, now)
	l.entries = h.entries[:0]
	return append(frames, f)
}

// goesTo notes whose hellos come on a line, with Mesh.mu held: it has one other
// end, and what is for others is not sent there.
func (m *Mesh) goesTo(l *meshLink, p *peer, now time.Time) {
	if !l.serial || l.other.Swap(p.id) == p.id {
		return
	}
	for _, o := range m.roster.Load().peers {
		if o != p {
			m.judgeLink(o, l, now)
		}
	}
}

// elsewhere is why a line says nothing of a peer: it goes to another; empty: it may be its.
func (m *Mesh) elsewhere(p *peer, l *meshLink) string {
	id := l.other.Load()
	if !l.serial || id == 0 || id == p.id {
		return ""
	}
	if o := m.roster.Load().byID[id]; o != nil {
		return "the line goes to " + o.name
	}
	return ""
}

// lineTo is where hellos on a line come from and go to: it has no addresses.
var lineTo netip.AddrPort

// leadsTo says whether a serial link may reach the peer.
func (l *meshLink) leadsTo(p *peer) bool {
	id := l.other.Load()
	return id == 0 || id == p.id
}

// metaPart is a part of a meta.
type metaPart struct {
	digest uint32 // of the whole
	total  int    // bytes of the whole, 1 to MaxMeta; 0: there is no part
	offset int
	data   []byte
}

func metaDigest(meta []byte) uint32 {
	sum := sha256.Sum256(meta)
	return binary.BigEndian.Uint32(sum[:])
}

// partsOut is what a line still has to say of the meta.
type partsOut struct {
	digest uint32
	offset int
	cycles int // that go out in a row
}

// next is the part for the hello of a beat.
func (o *partsOut) next(meta []byte, beat uint64) metaPart {
	if len(meta) == 0 {
		return metaPart{}
	}
	if d := metaDigest(meta); d != o.digest {
		*o = partsOut{digest: d, cycles: partCycles}
	}
	if o.cycles == 0 && beat%partSeldom != 0 {
		return metaPart{}
	}
	end := min(o.offset+partLen, len(meta))
	p := metaPart{o.digest, len(meta), o.offset, meta[o.offset:end]}
	if o.offset = end; end == len(meta) {
		o.offset, o.cycles = 0, max(o.cycles-1, 0)
	}
	return p
}

// again has the whole meta sent anew: there is somebody who has not heard it.
func (o *partsOut) again() { o.offset, o.cycles = 0, partCycles }

// partsIn puts a meta together. Parts come in order; a gap waits for the next round.
type partsIn struct {
	digest uint32
	b      []byte
}

// add returns the meta when it is complete.
func (i *partsIn) add(p metaPart) (meta []byte, ok bool) {
	if p.total == 0 {
		return nil, false
	}
	if p.offset == 0 || p.digest != i.digest {
		i.digest, i.b = p.digest, i.b[:0]
	}
	if p.offset != len(i.b) {
		return nil, false
	}
	i.b = append(i.b, p.data...)
	if len(i.b) != p.total {
		return nil, false
	}
	return i.b, metaDigest(i.b) == i.digest
}
