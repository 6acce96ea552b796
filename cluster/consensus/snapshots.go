package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// snapshots is a store of snapshots in files that also knows a damaged meta.json:
// raft's own checksum is over the state alone, and by the index and the voters
// that stand beside it a node would leave out entries, or count other votes.
type snapshots struct {
	raft.SnapshotStore
	dir string
}

// snapshotHead begins the state of a snapshot, before the checksum of its meta
// data. A snapshot of the time before begins with gzip's own bytes.
var (
	snapshotHead = []byte("kbs1")
	gzipHead     = []byte{0x1f, 0x8b}
)

const snapshotHeadSize = 8

func metaSum(index, term uint64, c raft.Configuration, configurationIndex uint64) uint32 {
	b := binary.BigEndian.AppendUint64(nil, index)
	b = binary.BigEndian.AppendUint64(b, term)
	b = binary.BigEndian.AppendUint64(b, configurationIndex)
	return crc32.Checksum(append(b, raft.EncodeConfiguration(c)...), castagnoli)
}

// Create implements raft.SnapshotStore.
func (s snapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, configurationIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(v, index, term, c, configurationIndex, t)
	if err != nil {
		return nil, err
	}
	head := binary.BigEndian.AppendUint32(bytes.Clone(snapshotHead), metaSum(index, term, c, configurationIndex))
	if _, err := sink.Write(head); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return sink, nil
}

// Open implements raft.SnapshotStore. The size it tells is that of what is read.
func (s snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id) // checks the state
	if err != nil {
		return nil, nil, err
	}
	damaged := func() (*raft.SnapshotMeta, io.ReadCloser, error) {
		return nil, nil, errors.Join(&DamagedError{filepath.Join(s.dir, id), "its meta.json is not the one that was written"}, r.Close())
	}
	head := make([]byte, snapshotHeadSize)
	n, err := io.ReadFull(r, head)
	switch {
	case bytes.HasPrefix(head[:n], gzipHead):
		return meta, readCloser{io.MultiReader(bytes.NewReader(head[:n]), r), r}, nil
	case err != nil, !bytes.HasPrefix(head, snapshotHead):
		return damaged()
	case binary.BigEndian.Uint32(head[len(snapshotHead):]) != metaSum(meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex):
		return damaged()
	}
	m := *meta
	m.Size -= snapshotHeadSize
	return &m, r, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}
