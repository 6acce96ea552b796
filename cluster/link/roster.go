package link

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// roster is the other nodes. One that is in use is never changed: receivers and
// Send read it without a lock, SetNodes puts another in its place.
type roster struct {
	peers  []*peer // by name
	byID   map[uint32]*peer
	byName map[string]*peer
}

// SetNodes tells which nodes there are; Self may be among them. What is known of
// a node that stays is kept; one that is new has to prove itself as every node
// does; of one that is gone nothing is kept, and its datagrams are dropped as
// those of a stranger. Names that cannot be told apart in a datagram are an
// error, and nothing is changed then.
func (m *Mesh) SetNodes(names []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.roster.Load()
	if old == nil {
		old = &roster{}
	}
	r := &roster{byID: map[uint32]*peer{}, byName: map[string]*peer{}}
	for _, name := range names {
		if name == m.self {
			continue
		}
		p := old.byName[name]
		if p == nil {
			p = m.newPeer(name)
		}
		switch other := r.byID[p.id]; {
		case name == "":
			return errors.New("links: a node has no name")
		case r.byName[name] != nil:
			return fmt.Errorf("links: node %s is there twice", name)
		case other != nil:
			return fmt.Errorf("links: the names %s and %s have the same hash; rename one", name, other.name)
		case p.id == m.id:
			return fmt.Errorf("links: the names %s and %s have the same hash; rename one", name, m.self)
		}
		r.byID[p.id], r.byName[name] = p, p
		r.peers = append(r.peers, p)
	}
	slices.SortFunc(r.peers, func(a, b *peer) int { return cmp.Compare(a.name, b.name) })
	if old.byName != nil && maps.Equal(old.byName, r.byName) {
		return nil
	}
	for _, p := range old.peers {
		for _, l := range m.links {
			if !r.has(p) {
				l.other.CompareAndSwap(p.id, 0)
			}
		}
	}
	m.roster.Store(r)
	m.notify()
	if m.running.Load() {
		m.hurry.Store(true) // a node that is new need not wait for the next beat
		m.wake()
	}
	return nil
}

// newPeer is called with m.mu held.
func (m *Mesh) newPeer(name string) *peer {
	p := &peer{name: name, id: nodeID(name), nonceKey: newNonceKey(), links: make([]peerLink, len(m.links))}
	now := time.Now()
	for i, l := range m.links {
		p.links[i].state, p.links[i].since, p.links[i].why = Down, now, l.problem
	}
	m.retarget(p)
	return p
}

// has says whether the peer is still one: what was received before SetNodes may be looked at after it.
func (r *roster) has(p *peer) bool { return r.byID[p.id] == p }
