package link

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
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
