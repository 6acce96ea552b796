package link

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// String is how logs and status write a boot id.
func (b Boot) String() string { return fmt.Sprintf("%016x", uint64(b)) }

// receiver is the scratch space of one receiving goroutine.
type receiver struct {
	m     *Mesh
	l     *meshLink
	nonce [12]byte
	hello hello
	buf   [maxDatagram + 1]byte // one more, so that what is too long is seen
}

// take handles one datagram. Cheap looks at the header come first; nothing
// changes that matters before the datagram is authenticated.
func (r *receiver) take(b []byte, from netip.AddrPort) {
	m, l := r.m, r.l
	h, ok := parseHeader(b)
	switch {
	case !ok:
		l.count(cMalformed, from)
		return
	case h.cluster != m.cluster:
		l.count(cForeign, from)
		return
	case h.src == m.id:
		if h.boot != m.boot { // our own come back on a broadcast medium
			l.count(cOwnName, from)
		}
		return
	case h.dst != 0 && h.dst != m.id:
		l.counters[cNotOurs].Add(1)
		return
	}
	p := m.roster.Load().byID[h.src]
	if p == nil {
		l.count(cUnknownNode, from)
		return
	}
	if s := p.sess.Load(); s != nil && s.boot == h.boot {
		r.known(p, s, h, b, from)
		return
	}
	r.stranger(p, h, b, from)
}

// unseal decrypts in place; nil means that authentication failed.
func (r *receiver) unseal(s *session, h header, b []byte) []byte {
	a := s.opens.Load().aead(h.key)
	if a == nil {
		return nil // a key that is not listed
	}
	putNonce(&r.nonce, h.seq)
	plain, err := a.Open(b[headerLen:headerLen], r.nonce[:], b[headerLen:], b[:headerLen])
	if err != nil {
		return nil
	}
	return plain
}

// known handles a datagram of the boot that is believed.
func (r *receiver) known(p *peer, s *session, h header, b []byte, from netip.AddrPort) {
	m, l := r.m, r.l
	if v := s.win.check(h.seq, l.idx); v != fresh {
		l.countVerdict(v, from)
		return
	}
	plain := r.unseal(s, h, b)
	if plain == nil {
		l.count(cAuth, from)
		return
	}
	if v := s.win.mark(h.seq, l.idx); v != fresh { // another link was quicker
		l.countVerdict(v, from)
		return
	}
	if p.sess.Load() != s {
		l.count(cOldBoot, from)
		return
	}
	p.heard.Store(int64(time.Since(m.started)))
	l.counters[cReceived].Add(1)
	if ch := Channel(plain[0]); ch != ChannelHello {
		if f := m.handlers[ch].Load(); f != nil {
			(*f)(p.name, s.boot, plain[1:])
		}
		return
	}
	if parseHello(plain, &r.hello) != nil {
		l.count(cMalformed, from)
		return
	}
	m.mu.Lock()
	var frames []frame
	if p.sess.Load() == s && m.roster.Load().has(p) {
		frames = m.heardHello(l, p, s, &r.hello, h.seq, from)
	}
	m.mu.Unlock()
	m.dispatch(frames)
}

// stranger handles a datagram of a boot that is not believed: only a hello
// counts, and only as a step towards being believed.
func (r *receiver) stranger(p *peer, h header, b []byte, from netip.AddrPort) {
	m, l := r.m, r.l
	m.mu.Lock()
	refused := slices.Contains(p.refused, h.boot)
	s := p.candidate(h.boot)
	m.mu.Unlock()
	if refused {
		l.count(cOldBoot, from)
		return
	}
	if s == nil {
		if !m.ring.Load().has(h.key) {
			l.count(cAuth, from)
			return
		}
		var err error
		if s, err = m.newSession(p, h.boot); err != nil {
			l.count(cAuth, from)
			return
		}
	}
	plain := r.unseal(s, h, b)
	switch {
	case plain == nil:
		l.count(cAuth, from)
		return
	case Channel(plain[0]) != ChannelHello:
		l.counters[cUnbelieved].Add(1)
		return
	case parseHello(plain, &r.hello) != nil:
		l.count(cMalformed, from)
		return
	}
	m.mu.Lock()
	frames, ok := r.introduce(p, s, h, from)
	m.mu.Unlock()
	if !ok {
		l.count(cOldBoot, from)
		return
	}
	l.counters[cReceived].Add(1)
	m.dispatch(frames)
}

// introduce is called with m.mu held. What stranger looked at may have changed
// since: another link may have admitted, believed or replaced the boot.
func (r *receiver) introduce(p *peer, s *session, h header, from netip.AddrPort) (frames []frame, ok bool) {
	if b := p.sess.Load(); b != nil && b.boot == h.boot {
		return nil, true // the next hello counts; this one has not passed the window
	}
	if slices.Contains(p.refused, h.boot) {
		return nil, false
	}
	if !r.m.roster.Load().has(p) {
		return nil, true
	}
	if c := p.candidate(h.boot); c != nil {
		s = c
	} else {
		if err := r.m.rekey(p, s); err != nil {
			return nil, false
		}
		p.admit(s)
	}
	return r.m.heardHello(r.l, p, s, &r.hello, h.seq, from), true
}
