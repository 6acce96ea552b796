package link

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// Key is one line of authkeys.
type Key struct {
	Index  int    // 1 to 255; it travels in every datagram
	Secret []byte // at least MinSecret bytes
}

// MinSecret is the shortest secret that is accepted, in bytes.
const MinSecret = 16

// cryptKey is a Key bound to the cluster.
type cryptKey struct {
	index uint8
	prk   []byte
}

func newCryptKey(cluster string, k Key) (cryptKey, error) {
	if k.Index < 1 || k.Index > 255 {
		return cryptKey{}, fmt.Errorf("authkeys: key %d: the number of a key is 1 to 255", k.Index)
	}
	if len(k.Secret) < MinSecret {
		return cryptKey{}, fmt.Errorf("authkeys: key %d has %d characters; at least %d are needed", k.Index, len(k.Secret), MinSecret)
	}
	// The cluster is part of the key: the same secret in two clusters opens nothing of the other's.
	prk, err := hkdf.Extract(sha256.New, k.Secret, []byte("keepbeat datagrams 1\x00"+cluster))
	if err != nil {
		return cryptKey{}, fmt.Errorf("authkeys: key %d: %w", k.Index, err)
	}
	return cryptKey{index: uint8(k.Index), prk: prk}, nil
}

// aead is the cipher of one boot of one sender. A boot is 64 random bits and
// has a key of its own, therefore the sequence alone is a nonce that never repeats.
func (k cryptKey) aead(src uint32, boot Boot) (cipher.AEAD, error) {
	info := binary.BigEndian.AppendUint32([]byte("sender "), src)
	info = binary.BigEndian.AppendUint64(info, uint64(boot))
	key, err := hkdf.Expand(sha256.New, k.prk, string(info), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func putNonce(n *[12]byte, seq uint64) { binary.BigEndian.PutUint64(n[4:], seq) }

// keyring is the keys in force. One that is in use is never changed; SetKeys
// puts another in its place.
type keyring struct {
	keys   []cryptKey
	active uint8       // index of the one that seals
	seal   cipher.AEAD // of that and our boot
}

func (r *keyring) has(index uint8) bool {
	return slices.ContainsFunc(r.keys, func(k cryptKey) bool { return k.index == index })
}

// newKeyring checks what authkeys says.
func newKeyring(cluster string, id uint32, boot Boot, keys []Key, active int) (*keyring, error) {
	r := &keyring{}
	for _, k := range keys {
		c, err := newCryptKey(cluster, k)
		if err != nil {
			return nil, err
		}
		if r.has(c.index) {
			return nil, fmt.Errorf("authkeys: key %d is there twice", k.Index)
		}
		r.keys = append(r.keys, c)
		if k.Index == active {
			r.active = c.index
			if r.seal, err = c.aead(id, boot); err != nil {
				return nil, err
			}
		}
	}
	if r.seal == nil {
		return nil, fmt.Errorf("authkeys: auth %d: there is no such key", active)
	}
	return r, nil
}

// opener opens the datagrams of one boot of a node, with any key of a keyring.
type opener struct {
	ring  *keyring
	aeads []cipher.AEAD // by place in ring.keys
}

func newOpener(r *keyring, src uint32, boot Boot) (*opener, error) {
	o := &opener{ring: r}
	for _, k := range r.keys {
		a, err := k.aead(src, boot)
		if err != nil {
			return nil, err
		}
		o.aeads = append(o.aeads, a)
	}
	return o, nil
}

// aead returns nil for a key that is not there.
func (o *opener) aead(index uint8) cipher.AEAD {
	for i := range o.ring.keys {
		if o.ring.keys[i].index == index {
			return o.aeads[i]
		}
	}
	return nil
}

// SetKeys replaces the keys while the mesh runs: from now on any of these is
// accepted and the one whose Index is active seals. Boots, sequence numbers and
// windows stay as they are, so nothing has to be proved anew and no nonce comes
// twice, also when a key is taken away and added again. When there is an error
// nothing has changed.
//
// Nothing is lost when every node has the new key before one of them seals with
// it, and when the old one is taken away after all of them have ceased to.
func (m *Mesh) SetKeys(keys []Key, active int) error {
	r, err := newKeyring(m.clusterName, m.id, m.boot, keys, active)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.ring.Swap(r)
	if old == nil {
		return nil
	}
	for _, p := range m.roster.Load().peers {
		for _, s := range append(slices.Clone(p.candidates), p.sess.Load()) {
			if s == nil {
				continue
			}
			if err := m.rekey(p, s); err != nil {
				return err // HKDF and AES do not fail on keys that newKeyring has accepted
			}
		}
	}
	return nil
}

// rekey gives a session the keys in force, with m.mu held.
func (m *Mesh) rekey(p *peer, s *session) error {
	r := m.ring.Load()
	if s.opens.Load().ring == r {
		return nil
	}
	o, err := newOpener(r, p.id, s.boot)
	if err != nil {
		return err
	}
	s.opens.Store(o)
	return nil
}
