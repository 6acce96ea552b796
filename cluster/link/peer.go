package link

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// peer is another configured node.
type peer struct {
	name string
	id   uint32

	sess    atomic.Pointer[session]  // of the boot that is believed; nil: none. Written with Mesh.mu held
	heard   atomic.Int64             // last datagram of that boot, nanoseconds since Mesh.started
	targets atomic.Pointer[[]target] // where Send sends to. Written with Mesh.mu held

	// Guarded by Mesh.mu.
	nonceKey   [32]byte   // challenges of boots not believed are made of it; drawn anew when a boot is believed
	candidates []*session // boots not believed that were heard within deadtime; at most maxCandidates
	refused    []Boot     // boots that were believed before; the newest last, at most maxRefused
	links      []peerLink // by meshLink.idx
	prompts    bucket
}

const (
	// maxCandidates bounds what replays of many old boots occupy. When it is
	// full a random one goes, so that the live boot, which keeps saying hello, gets in.
	maxCandidates = 8
	// maxRefused bounds the list of former boots. One that has fallen out still
	// has to answer a challenge before it is believed, which only a live daemon can.
	maxRefused = 1024
)

// peerLink is the public state of one link towards one peer.
type peerLink struct {
	state State
	since time.Time
	why   string         // when it was judged, without the age of now
	saw   time.Time      // last hello of any boot
	addr  netip.AddrPort // where the believed boot's hellos come from; invalid: not learned
	young bool           // came up less than settling ago
}

// settling is how long data goes by broadcast on a shared medium that has just
// come up. Hellos are broadcast and prove only that: the kernel may have lost its
// first question for the peer's hardware address on a wire that was not ready,
// and asks again after a second.
const settling = 3 * time.Second

// target is one way to a peer; an invalid address means broadcast.
type target struct {
	link *meshLink
	addr netip.AddrPort
}

// session is one boot of a peer, believed or asking to be.
type session struct {
	boot  Boot
	opens atomic.Pointer[opener] // written with Mesh.mu held
	win   *window                // set before the session is believed

	// Guarded by Mesh.mu.
	challenge      uint64 // ours to it, while it is not believed
	theirChallenge uint64 // its to us; 0: it believes us
	newest         uint64 // sequence of its newest hello on any link
	seen           time.Time
	meta           []byte
	period         time.Duration // its keepalive; 0: not heard yet
	links          []rxLink      // by meshLink.idx
}

// rxLink is what a session's hellos on one link told.
type rxLink struct {
	seq   uint64    // of the newest hello
	hello time.Time // when it arrived
	echo  time.Time // see evidence
	rtt   time.Duration
	loss  lossWindow
	parts partsIn
}

func newNonceKey() (k [32]byte) {
	rand.Read(k[:]) // never fails: crypto/rand
	return k
}

// challengeFor is the nonce that a boot has to answer. It depends on a secret
// that changes with every boot that is believed, so that an answer which was
// held back on the way is worth nothing after its successor has been believed.
func (p *peer) challengeFor(boot Boot) uint64 {
	b := binary.BigEndian.AppendUint64(p.nonceKey[:len(p.nonceKey):len(p.nonceKey)], uint64(boot))
	sum := sha256.Sum256(b)
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

func (m *Mesh) newSession(p *peer, boot Boot) (*session, error) {
	s := &session{boot: boot, links: make([]rxLink, len(m.links))}
	o, err := newOpener(m.ring.Load(), p.id, boot)
	if err != nil {
		return nil, err
	}
	s.opens.Store(o)
	return s, nil
}

// candidate finds the session of a boot that is not believed; nil: not known.
func (p *peer) candidate(boot Boot) *session {
	for _, s := range p.candidates {
		if s.boot == boot {
			return s
		}
	}
	return nil
}

// admit makes an authenticated boot a candidate.
func (p *peer) admit(s *session) {
	s.challenge = p.challengeFor(s.boot)
	if len(p.candidates) < maxCandidates {
		p.candidates = append(p.candidates, s)
		return
	}
	p.candidates[random64()%maxCandidates] = s
}

// expire forgets candidates that have fallen silent.
func (p *peer) expire(now time.Time, dead time.Duration) {
	p.candidates = slices.DeleteFunc(p.candidates, func(s *session) bool { return now.Sub(s.seen) > max(dead, 2*s.period) })
}

// believe is called with m.mu held when a boot has answered our challenge in
// the hello with this sequence on link l.
func (m *Mesh) believe(p *peer, s *session, l *meshLink, seq uint64) {
	old := p.sess.Load()
	if old != nil {
		p.refused = append(p.refused, old.boot)
		if len(p.refused) > maxRefused {
			p.refused = p.refused[1:]
		}
	}
	for i := range p.links {
		p.links[i].addr = netip.AddrPort{} // only hellos that have passed the window teach addresses
	}
	s.win = newWindow(seq)
	s.challenge = 0
	p.heard.Store(int64(time.Since(m.started)))
	p.sess.Store(s)
	p.candidates = nil
	p.nonceKey = newNonceKey()
	m.retarget(p)
	for _, o := range m.links {
		o.parts.again()
	}
	if old == nil {
		m.say(slog.LevelInfo, "node "+p.name+" is there", "boot", s.boot.String(), "link", l.name)
	} else {
		m.say(slog.LevelInfo, "node "+p.name+" has started anew", "boot", s.boot.String(), "before", old.boot.String(), "link", l.name)
	}
	m.notify()
}

// evidence is called with m.mu held.
func (m *Mesh) evidence(p *peer, l *meshLink) evidence {
	e := evidence{problem: cmp.Or(l.problem, m.elsewhere(p, l)), saw: p.links[l.idx].saw}
	if s := p.sess.Load(); s != nil {
		e.hello, e.echo = s.links[l.idx].hello, s.links[l.idx].echo
	}
	return e
}

// timingOf is what a link to a peer is judged by: hellos are missed when the
// slower of the two ends should have sent some (as RFC 5880, 6.8.4, has it), or a
// pair of files that do not say the same profile would be a link that goes down
// with each hello. Called with m.mu held.
func (m *Mesh) timingOf(p *peer, l *meshLink) Timing {
	t := m.Timing()
	if s := p.sess.Load(); s != nil {
		t = t.slowed(s.period)
	}
	return l.timing(t)
}

// judgeLink brings the state of one link up to date, with m.mu held; next is as judge's.
func (m *Mesh) judgeLink(p *peer, l *meshLink, now time.Time) (next time.Time) {
	e := m.evidence(p, l)
	s, why, next := judge(e, now, m.timingOf(p, l))
	pl := &p.links[l.idx]
	if pl.young && s == pl.state {
		if until := pl.since.Add(settling); now.Before(until) {
			if next.IsZero() || until.Before(next) {
				next = until
			}
		} else {
			pl.young = false
			m.retarget(p)
		}
	}
	// A problem of the interface that turns into another one is a change too; the growing age is none.
	if s == pl.state && (e.problem == "" || why == pl.why) {
		return next
	}
	if s != pl.state {
		text := "link " + l.name + " to " + p.name + ": " + pl.state.String() + " -> " + s.String()
		level := slog.LevelInfo
		if s != Up {
			text += ": " + why
			level = slog.LevelWarn
		}
		m.say(level, text)
		pl.young = s == Up && (pl.young || pl.state == Down)
		pl.state, pl.since = s, now
		m.retarget(p)
	}
	pl.why = why
	m.notify()
	return next
}

// judgeAll brings all states up to date, with m.mu held, and says when to look again.
func (m *Mesh) judgeAll(now time.Time) (next time.Time) {
	var dead time.Duration
	for _, l := range m.links {
		dead = max(dead, l.timing(m.Timing()).DeadTime)
	}
	for _, p := range m.roster.Load().peers {
		p.expire(now, dead)
		for _, l := range m.links {
			if n := m.judgeLink(p, l, now); !n.IsZero() && (next.IsZero() || n.Before(next)) {
				next = n
			}
		}
	}
	return next
}

// retarget computes where Send sends to, with m.mu held: every link that is up
// or late, by the address learned (by broadcast at first, see settling); when there is none, all links.
func (m *Mesh) retarget(p *peer) {
	var good, all []target
	for i, l := range m.links {
		t := target{link: l, addr: p.links[i].addr}
		all = append(all, t)
		if s := p.links[i].state; (s == Up || s == Late) && (t.addr.IsValid() || l.serial) {
			if p.links[i].young && l.conf.Type != conf.Ucast {
				t.addr = netip.AddrPort{}
			}
			good = append(good, t)
		}
	}
	if len(good) == 0 {
		good = all
	}
	p.targets.Store(&good)
}
