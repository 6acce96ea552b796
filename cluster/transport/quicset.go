package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
)

// errRekeyed ends a handshake that was under way with the keys of before; asking again helps.
var errRekeyed = errors.New("the keys have changed")

// server is the TLS configuration of the listener: it asks for the identity in
// force at each handshake.
func (q *QUIC) server() *tls.Config {
	c := q.id.Load().Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return q.id.Load(), nil }
	return c
}

// SetKeys replaces the secrets: from now on handshakes use them as
// QUICConfig.Keys says. Connections go on: their own keys came from an exchange
// that no later secret opens, and every packet of theirs is sealed by the links
// with the key in force, so a node that has none of the new keys is cut off with
// or without them. When there is an error nothing has changed.
func (q *QUIC) SetKeys(secrets [][]byte) error {
	id, err := identity(secrets, q.cfg.Cluster)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.id.Store(id)
	for _, p := range q.peers {
		if p.dialing != nil {
			p.dialing.cancel(errRekeyed) // those that wait for it dial again
		}
	}
	return nil
}

// SetNodes tells which nodes there are; Self may be among them. Connections of
// those that stay go on, those of nodes that are gone are closed. The links have
// to be told as well: they say who can be reached.
func (q *QUIC) SetNodes(names []string) error {
	if slices.Contains(names, "") {
		return errors.New("streams: a node has no name")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.pc.setNodes(names)
	for _, n := range names {
		if n != q.cfg.Self && q.peers[n] == nil {
			q.peers[n] = &quicPeer{name: n}
		}
	}
	for n, p := range q.peers {
		if slices.Contains(names, n) {
			continue
		}
		delete(q.peers, n)
		if p.dialing != nil {
			p.dialing.cancel(fmt.Errorf("%w: %s", errRemoved, n))
		}
		for _, s := range p.sessions {
			q.closeSession(s, codePeerLost, errRemoved.Error())
		}
		if len(p.sessions) > 0 {
			q.log.Info("streams closed", "node", n, "why", errRemoved)
		}
	}
	return nil
}
