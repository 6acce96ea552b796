package cluster

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

// KeyRing is this node's authkeys: the file, and what of it is in force. They
// differ when somebody has edited the file since the daemon read it.
type KeyRing struct {
	path    string
	cluster string // part of the fingerprints
	set     func(keys []conf.Key, active int) error

	mu     sync.Mutex // guards what follows, and the file against a second writer
	keys   []conf.Key
	active int
	prints map[string]string // fingerprint by key: it takes a while to compute
	holder string            // token of the command that may change keys now
	by     string            // who gave it
	until  time.Time
}

// NewKeyRing returns the ring of a file whose keys are in force. set puts
// others in force while everything runs; when it fails it is called again with those of before.
func NewKeyRing(path, cluster string, keys []conf.Key, active int, set func(keys []conf.Key, active int) error) *KeyRing {
	return &KeyRing{path: path, cluster: cluster, set: set, keys: keys, active: active, prints: map[string]string{}}
}

// fingerprintRounds makes each guess at a key by its fingerprint cost some
// 50 ms of a processor: a key that a person has chosen may be a weak one.
const fingerprintRounds = 200_000

// fingerprint is what keys are compared by: 64 bits that depend on the cluster too.
func (r *KeyRing) fingerprint(secret conf.Secret) (string, error) {
	text := string(secret.Bytes())
	if p := r.prints[text]; p != "" {
		return p, nil
	}
	b, err := pbkdf2.Key(sha256.New, text, []byte("keepbeat fingerprint 1\x00"+r.cluster), fingerprintRounds, 8)
	if err != nil {
		return "", fmt.Errorf("fingerprint of a key: %w", err)
	}
	p := fmt.Sprintf("%x-%x-%x-%x", b[:2], b[2:4], b[4:6], b[6:])
	r.prints[text] = p
	return p, nil
}

// Fingerprint returns what the key would be called in a list.
func (r *KeyRing) Fingerprint(secret conf.Secret) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fingerprint(secret)
}

// key returns the key of that number that is in force.
func (r *KeyRing) key(index int) (conf.Secret, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held(index)
}

// list describes what is in force, and whether the file says something else.
func (r *KeyRing) list() (NodeKeys, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := NodeKeys{Active: r.active}
	for _, key := range r.keys {
		p, err := r.fingerprint(key.Secret)
		if err != nil {
			return k, err
		}
		k.Keys = append(k.Keys, KeyInfo{key.Index, p})
	}
	slices.SortFunc(k.Keys, func(a, b KeyInfo) int { return a.Index - b.Index })
	if _, err := r.read(); err != nil {
		k.Fault = err.Error()
	}
	return k, nil
}

// read returns the file; an error when it is not what is in force.
func (r *KeyRing) read() ([]byte, error) {
	data, keys, active, err := conf.ReadAuthKeys(r.path)
	if err != nil {
		return nil, err
	}
	var differs []string
	for i := range 16 {
		in := func(keys []conf.Key) []byte {
			for _, k := range keys {
				if k.Index == i {
					return k.Secret.Bytes()
				}
			}
			return nil
		}
		switch file, force := in(keys), in(r.keys); {
		case bytes.Equal(file, force):
		case force == nil:
			differs = append(differs, "key "+strconv.Itoa(i)+" is new")
		case file == nil:
			differs = append(differs, "key "+strconv.Itoa(i)+" is gone")
		default:
			differs = append(differs, "key "+strconv.Itoa(i)+" is another one")
		}
	}
	if active != r.active {
		differs = append(differs, fmt.Sprintf("auth %d instead of %d", active, r.active))
	}
	if len(differs) > 0 {
		return nil, fmt.Errorf("%s has been edited by hand and is not what is in force (%s): put it back, or take it in with `keepbeat restart` there", r.path, strings.Join(differs, ", "))
	}
	return data, nil
}

// claimTime is how long a command may change keys; nothing it does takes so long.
const claimTime = 30 * time.Second

// claim lets one command at a time change keys: of two at once, one could take
// away the key that the other tells nodes to seal with.
func (r *KeyRing) claim(token, by string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holder != "" && r.holder != token && time.Now().Before(r.until) {
		return fmt.Errorf("another command%s is changing keys; try again when it is done", Order{By: r.by}.by())
	}
	r.holder, r.by, r.until = token, by, time.Now().Add(claimTime)
	return nil
}

func (r *KeyRing) release(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holder == token {
		r.holder = ""
	}
}

// change edits the file and puts it in force. When that fails both are as before.
func (r *KeyRing) change(token string, edit func(authkeys []byte) ([]byte, error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holder != token || time.Now().After(r.until) {
		return errors.New("another command is changing keys, or this one took too long; try again")
	}
	old, err := r.read()
	if err != nil {
		return err
	}
	next, err := edit(old)
	if err != nil {
		return err
	}
	if bytes.Equal(old, next) {
		return nil
	}
	keys, active, err := conf.ParseAuthKeys(next)
	if err != nil {
		return err
	}
	// The file first: after a crash in between the next start reads it.
	if err := conf.WriteAuthKeys(r.path, next); err != nil {
		return err
	}
	if err := r.set(keys, active); err != nil {
		return errors.Join(err, r.set(r.keys, r.active), conf.WriteAuthKeys(r.path, old))
	}
	r.keys, r.active = keys, active
	return nil
}

// held is key for an edit that change runs.
func (r *KeyRing) held(index int) (conf.Secret, bool) {
	i := slices.IndexFunc(r.keys, func(k conf.Key) bool { return k.Index == index })
	if i < 0 {
		return conf.Secret{}, false
	}
	return r.keys[i].Secret, true
}
