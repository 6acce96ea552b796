package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// A flipped bit in an entry would make this node follow a history of its own,
// and bolt looks at the structure of its pages only. So each entry and each
// value carries a CRC-32C, and one mark says that all of them do: a mark of
// each entry's own could be damaged, or cut off, and the entry then pass for one
// of the time before.
const (
	sumSize = 4
	// markKey stands beside raft's own values.
	markKey = "keepbeat: entries carry checksums"
	// markVersion says what the checksums are over.
	markVersion = "1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// raft's values, as its source names them.
const (
	keyTerm     = "CurrentTerm"
	keyVoteTerm = "LastVoteTerm"
	keyVoteCand = "LastVoteCand"
)

var errNewer = errors.New("a newer keepbeat wrote it")

// DamagedError says that what stands on this node's disk is not what was written.
type DamagedError struct {
	Path string // of the file
	What string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged: %s; move the data directory away and start again: the node then rejoins as a new one", e.Path, e.What)
}

// sealed is a bolt store whose entries and values carry checksums.
type sealed struct {
	*raftboltdb.BoltStore
	path string
}

func (s sealed) damaged(format string, args ...any) error {
	return &DamagedError{s.path, fmt.Sprintf(format, args...)}
}

// logSum is over all of an entry but the time when it was appended, which nobody decides by.
func logSum(l *raft.Log, data []byte) uint32 {
	h := crc32.New(castagnoli)
	var head [25]byte
	binary.BigEndian.PutUint64(head[0:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	binary.BigEndian.PutUint64(head[17:], uint64(len(data))) // where data ends and extensions begin
	_, _ = h.Write(head[:])                                  // a hash takes everything
	_, _ = h.Write(data)
	_, _ = h.Write(l.Extensions)
	return h.Sum32()
}

// seal returns the entry with its checksum behind its data.
func seal(l *raft.Log) *raft.Log {
	c := *l // raft goes on using its own
	c.Data = binary.BigEndian.AppendUint32(slices.Clip(l.Data), logSum(l, l.Data))
	return &c
}

// open checks and strips what seal appended.
func open(l *raft.Log) bool {
	n := len(l.Data) - sumSize
	if n < 0 || binary.BigEndian.Uint32(l.Data[n:]) != logSum(l, l.Data[:n]) {
		return false
	}
	l.Data = l.Data[:n:n]
	return true
}

func (s sealed) StoreLog(l *raft.Log) error { return s.BoltStore.StoreLog(seal(l)) }

func (s sealed) StoreLogs(logs []*raft.Log) error {
	all := make([]*raft.Log, len(logs))
	for i, l := range logs {
		all[i] = seal(l)
	}
	return s.BoltStore.StoreLogs(all)
}

// GetLog implements raft.LogStore. An entry that is not what was written is a *DamagedError.
func (s sealed) GetLog(index uint64, l *raft.Log) error {
	return s.checked(index, l, s.BoltStore.GetLog(index, l))
}

// checked opens what was read as the entry of an index.
func (s sealed) checked(index uint64, l *raft.Log, err error) error {
	switch {
	case errors.Is(err, raft.ErrLogNotFound), errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return err
	case err != nil:
		return s.damaged("entry %d: %v", index, err)
	case l.Index != index:
		return s.damaged("entry %d stands in the place of %d", l.Index, index)
	case !open(l):
		return s.damaged("entry %d: its checksum is wrong", index)
	}
	return nil
}

func valueSum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(append(slices.Clip(key), 0), castagnoli), castagnoli, value)
}

func (s sealed) Set(key, value []byte) error {
	return s.BoltStore.Set(key, binary.BigEndian.AppendUint32(slices.Clip(value), valueSum(key, value)))
}

func (s sealed) SetUint64(key []byte, v uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, v))
}

// Get implements raft.StableStore. raft knows the error of a missing value by its text.
func (s sealed) Get(key []byte) ([]byte, error) {
	b, err := s.BoltStore.Get(key)
	if err != nil {
		return nil, err
	}
	value, ok := openValue(key, b)
	if !ok {
		return nil, s.damaged("%s: its checksum is wrong", key)
	}
	return value, nil
}

func (s sealed) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, s.damaged("%s has %d bytes", key, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

func openValue(key, b []byte) ([]byte, bool) {
	n := len(b) - sumSize
	if n < 0 || binary.BigEndian.Uint32(b[n:]) != valueSum(key, b[:n]) {
		return nil, false
	}
	return b[:n:n], true
}

// marked says whether the store's entries and values carry checksums.
func (s sealed) marked() (bool, error) {
	v, err := s.Get([]byte(markKey))
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		return false, nil
	case err != nil:
		return false, err
	case string(v) != markVersion:
		return false, fmt.Errorf("%s: %w (its checksums are of version %q, this one knows %s): install the version that the other nodes run", s.path, errNewer, v, markVersion)
	}
	return true, nil
}

// contents are the keys of a bolt file: which entries it has, and which values.
type contents struct {
	entries []uint64
	values  []string
}

func contentsOf(db *bbolt.DB) (c contents, err error) {
	return c, db.View(func(tx *bbolt.Tx) error {
		logs, conf := tx.Bucket([]byte("logs")), tx.Bucket([]byte("conf")) // as raft-boltdb names them
		if logs == nil || conf == nil {
			return nil // just made
		}
		if err := logs.ForEach(func(k, _ []byte) error {
			if len(k) != 8 {
				return fmt.Errorf("an entry is numbered %x", k)
			}
			c.entries = append(c.entries, binary.BigEndian.Uint64(k))
			return nil
		}); err != nil {
			return err
		}
		return conf.ForEach(func(k, _ []byte) error {
			c.values = append(c.values, string(k))
			return nil
		})
	})
}

// verify reads everything. A store of the time before checksums is only read.
func (s sealed) verify(c contents) error {
	ok, err := s.marked()
	if err != nil {
		return err
	}
	if !ok {
		_, err := s.unsealed(c)
		return err
	}
	for _, i := range c.entries {
		if err := s.GetLog(i, new(raft.Log)); err != nil {
			return err
		}
	}
	for _, k := range c.values {
		if !slices.Contains([]string{keyTerm, keyVoteTerm, keyVoteCand, markKey}, k) {
			return s.damaged("it has a value named %q", k)
		}
		if _, err := s.Get([]byte(k)); err != nil {
			return err
		}
	}
	if len(c.entries) > 0 && !slices.Contains(c.values, keyTerm) {
		return s.damaged("%s is missing", keyTerm)
	}
	return nil
}

// adopt gives a store of the time before checksums those, and marks it. A power
// failure in the middle of it does no harm.
func (s sealed) adopt(c contents) error {
	if ok, err := s.marked(); ok || err != nil {
		return err
	}
	old, err := s.unsealed(c)
	if err != nil {
		return err
	}
	if len(old) > 0 {
		if err := s.StoreLogs(old); err != nil { // all in one transaction
			return err
		}
	}
	for _, key := range c.values {
		b, err := s.BoltStore.Get([]byte(key))
		if err != nil {
			return err
		}
		if _, done := openValue([]byte(key), b); done {
			continue
		}
		if err := s.Set([]byte(key), b); err != nil {
			return err
		}
	}
	return s.Set([]byte(markKey), []byte(markVersion))
}

// unsealed returns the entries of a store without the mark: all of them without
// checksums, or all with one, when adopt was interrupted. A mixture has lost its mark.
func (s sealed) unsealed(c contents) (old []*raft.Log, err error) {
	for _, i := range c.entries {
		l := new(raft.Log)
		if err := s.BoltStore.GetLog(i, l); err != nil {
			return nil, s.damaged("entry %d: %v", i, err)
		}
		if l.Index != i {
			return nil, s.damaged("entry %d stands in the place of %d", l.Index, i)
		}
		if !open(l) {
			old = append(old, l)
		}
	}
	if len(old) > 0 && len(old) < len(c.entries) {
		return nil, s.damaged("%d of its %d entries carry no checksum", len(old), len(c.entries))
	}
	for _, k := range c.values {
		if !slices.Contains([]string{keyTerm, keyVoteTerm, keyVoteCand}, k) {
			return nil, s.damaged("it has a value named %q", k)
		}
	}
	return old, nil
}
