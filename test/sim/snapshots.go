package sim

import (
	"bytes"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// snapshot is one that is whole: it is on the disk from the moment at which it is.
type snapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

// snapshotsKept is how many stay, as in consensus.OpenBolt: an older one may still be read.
const snapshotsKept = 2

// snapshotStore is raft's store of them on a disk.
type snapshotStore struct{ d *disk }

func (s snapshotStore) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &snapshotSink{d: s.d, meta: raft.SnapshotMeta{
		Version: v, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term, Configuration: c, ConfigurationIndex: configurationIndex,
	}}, nil
}

func (s snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	var all []*raft.SnapshotMeta
	for _, x := range s.d.snapshots {
		all = append(all, &x.meta)
	}
	return all, nil
}

func (s snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	for _, x := range s.d.snapshots {
		if x.meta.ID == id {
			return &x.meta, io.NopCloser(bytes.NewReader(x.data)), nil
		}
	}
	return nil, nil, fmt.Errorf("no snapshot %s", id)
}

// snapshotSink is one that is being written.
type snapshotSink struct {
	d    *disk
	meta raft.SnapshotMeta
	data bytes.Buffer
	over bool // closed or given up; raft closes again what has closed itself
}

func (s *snapshotSink) Write(b []byte) (int, error) { return s.data.Write(b) }
func (s *snapshotSink) ID() string                  { return s.meta.ID }
func (s *snapshotSink) Cancel() error               { s.over = true; return nil }

func (s *snapshotSink) Close() error {
	if s.over {
		return nil
	}
	s.over = true
	s.meta.Size = int64(s.data.Len())
	s.d.write(ofSnapshot, func() {
		all := append([]snapshot{{s.meta, s.data.Bytes()}}, s.d.snapshots...)
		s.d.snapshots = all[:min(len(all), snapshotsKept)]
	})
	return nil
}
