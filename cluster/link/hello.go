package link

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"time"
)

// ring remembers when our last hellos went out on a link.
type ring struct {
	at  [256]sentHello
	pos int
}

type sentHello struct {
	seq uint64
	at  time.Time
}

func (r *ring) add(seq uint64, at time.Time) {
	r.pos = (r.pos + 1) % len(r.at)
	r.at[r.pos] = sentHello{seq, at}
}

// find looks from the newest backwards: an echo is nearly always of one of the last two.
func (r *ring) find(seq uint64) (time.Time, bool) {
	if seq == 0 {
		return time.Time{}, false
	}
	for i := range r.at {
		if h := r.at[(r.pos-i+len(r.at))%len(r.at)]; h.seq == seq {
			return h.at, true
		}
	}
	return time.Time{}, false
}

// beat sends the hellos and notices silence, until ctx ends.
func (m *Mesh) beat(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-m.kick:
		}
		now := time.Now()
		k := m.Timing().Keepalive
		switch {
		case m.hurry.Swap(false):
			due = now // a link has just been opened
		case due.Sub(now) > k:
			due = now.Add(k) // the timing has become shorter
		}
		if !now.Before(due) {
			m.greet(now)
			m.report(now)
			if due = due.Add(k); !due.After(now) {
				due = now.Add(k) // we were stopped for a while: no burst to catch up
			}
		}
		m.mu.Lock()
		next := m.judgeAll(now)
		m.mu.Unlock()
		if next.IsZero() || due.Before(next) {
			next = due
		}
		timer.Reset(time.Until(next))
	}
}

// frame is a hello that is ready but for sealing.
type frame struct {
	link  *meshLink
	to    netip.AddrPort // invalid: broadcast
	dst   uint32
	class class // on a serial line
	seq   uint64
	tx    *txBuf
	n     int // bytes of plain text
}

// greet sends one hello to everybody on every link.
func (m *Mesh) greet(now time.Time) {
	var frames []frame
	m.mu.Lock()
	m.tick++
	for _, l := range m.links {
		if l.port.Load() != nil && l.helloDue(now, m.Timing()) {
			frames = m.compose(frames, l, nil, netip.AddrPort{}, now)
		}
	}
	m.mu.Unlock()
	m.dispatch(frames)
}

// compose makes the hello of one link, with m.mu held: to all, or promptly to
// one. It is several datagrams when there are many nodes.
func (m *Mesh) compose(frames []frame, l *meshLink, only *peer, to netip.AddrPort, now time.Time) []frame {
	if l.serial {
		return m.composeLine(frames, l, only, now)
	}
	h := hello{prompt: only != nil, tick: m.tick, hasMeta: true, meta: m.meta, period: m.Timing().Keepalive, entries: l.entries[:0]}
	f := frame{link: l, to: to}
	add := func() {
		f.seq, f.tx = m.seq.Add(1), m.tx.Get().(*txBuf)
		f.n = len(appendHello(f.tx.b[headerLen:headerLen], &h))
		l.ring.add(f.seq, now)
		frames = append(frames, f)
	}
	room := entriesThatFit(len(h.meta))
	put := func(p *peer, s *session) {
		if len(h.entries) == room {
			add()
			h.hasMeta, h.meta, h.entries = false, nil, h.entries[:0]
			room = entriesThatFit(-1)
		}
		rx := &s.links[l.idx]
		e := entry{node: p.id, boot: s.boot, challenge: s.challenge, answer: s.theirChallenge, heard: rx.seq}
		if rx.seq != 0 {
			e.delay = now.Sub(rx.hello)
		}
		h.entries = append(h.entries, e)
	}
	peers := m.roster.Load().peers
	if only != nil {
		peers, f.dst = []*peer{only}, only.id
	}
	for _, p := range peers {
		if s := p.sess.Load(); s != nil {
			put(p, s)
		}
		for _, s := range p.candidates {
			put(p, s)
		}
	}
	add()
	l.entries = h.entries[:0]
	return frames
}

func (m *Mesh) dispatch(frames []frame) {
	for _, f := range frames {
		f.link.send(m.sealTo(f.tx, f.dst, f.seq, f.n), f.to, f.class)
		m.tx.Put(f.tx)
	}
}

// heardHello takes an authenticated hello of session s, which is believed or a
// candidate. It returns the prompt hellos to be sent. Called with m.mu held.
func (m *Mesh) heardHello(l *meshLink, p *peer, s *session, h *hello, seq uint64, from netip.AddrPort) []frame {
	now, t := time.Now(), l.timing(m.Timing())
	believed := p.sess.Load() == s
	if h.period > 0 {
		s.period = h.period
	}
	s.seen = now
	p.links[l.idx].saw = now
	rx := &s.links[l.idx]
	if !h.prompt {
		rx.loss.add(h.tick)
	}
	newestHere, newest := seq > rx.seq, seq > s.newest
	if newestHere {
		rx.seq, rx.hello = seq, now
	}
	meta, hasMeta := h.meta, h.hasMeta
	if newestHere && !hasMeta {
		meta, hasMeta = rx.parts.add(h.part)
	}
	if newest {
		s.newest = seq
		if hasMeta && !bytes.Equal(meta, s.meta) {
			s.meta = slices.Clone(meta)
			if believed {
				m.notify()
			}
		}
	}
	proved, asked := false, false
	for i := range h.entries {
		e := &h.entries[i]
		if e.node != m.id || e.boot != m.boot {
			continue
		}
		if newest {
			s.theirChallenge = e.challenge
			asked = e.challenge != 0
		}
		if !believed && e.answer == s.challenge {
			proved = true
		}
		if sent, ok := l.ring.find(e.heard); ok && !sent.After(now) {
			if at := echoTime(now, sent, t); at.After(rx.echo) {
				rx.echo = at
			}
			if newestHere {
				rx.rtt = smooth(rx.rtt, now.Sub(sent)-e.delay)
			}
		}
	}
	if proved {
		m.believe(p, s, l, seq)
		believed = true
	}
	if believed && newestHere {
		m.goesTo(l, p, now)
		if p.links[l.idx].addr != from {
			p.links[l.idx].addr = from
			m.retarget(p)
		}
	}
	if proved {
		for _, other := range m.links {
			m.judgeLink(p, other, now)
		}
	} else {
		m.judgeLink(p, l, now)
	}
	// Between the beats only what makes believing quick is said, and a peer can
	// provoke only so much of it: authenticated hellos of old boots can be replayed.
	if (asked || proved || !believed) && p.prompts.take(now, t.Keepalive) {
		return m.compose(nil, l, p, from, now)
	}
	return nil
}

// smooth is the usual exponential average of round trip times, RFC 6298 (2.3): one eighth is new.
func smooth(old, sample time.Duration) time.Duration {
	sample = max(sample, time.Microsecond) // 0 means not known
	if old == 0 {
		return sample
	}
	return old + (sample-old)/8
}
