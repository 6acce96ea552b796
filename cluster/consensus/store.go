package consensus

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Stores is where raft keeps its log, its vote and its snapshots.
type Stores struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	close     func() error
	failed    *failure // nil: not known
}

// Close closes the files.
func (s Stores) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// OpenBolt opens or makes the stores in dir: raft.db and snapshots/. Over a
// damaged raft.db it may crash: CheckLog goes first.
func OpenBolt(dir string, logger hclog.Logger) (Stores, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Stores{}, err
	}
	path := filepath.Join(dir, "raft.db")
	// A second daemon on the same directory must be told so, not wait for ever.
	options := bbolt.Options{Timeout: 3 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}
	db, err := bbolt.Open(path, 0o600, &options)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return Stores{}, fmt.Errorf("%s is in use: is another keepbeat running on this data directory?", path)
	}
	if err != nil {
		return Stores{}, damaged(path, err)
	}
	c, err := contentsOf(db)
	if err = errors.Join(err, db.Close()); err != nil {
		return Stores{}, damaged(path, err)
	}
	b, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &options})
	if err != nil {
		return Stores{}, damaged(path, err)
	}
	s := sealed{b, path}
	if err := s.adopt(c); err != nil {
		return Stores{}, errors.Join(damaged(path, err), b.Close())
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, logger)
	if err != nil {
		return Stores{}, errors.Join(err, b.Close())
	}
	w := watched{s, &failure{}}
	return Stores{Log: w, Stable: w, Snapshots: snapshots{snaps, filepath.Join(dir, "snapshots")}, close: b.Close, failed: w.failed}, nil
}

// damaged says of an error over the file at path that the file is to blame, unless the disk is.
func damaged(path string, err error) error {
	var known *DamagedError
	if errors.As(err, &known) || errors.Is(err, errNewer) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		return err // it says itself what it is about
	}
	return &DamagedError{path, err.Error()}
}

// MemoryStores returns stores for simulations; they outlive the node that uses them.
func MemoryStores() Stores {
	m := raft.NewInmemStore()
	return Stores{Log: m, Stable: m, Snapshots: raft.NewInmemSnapshotStore()}
}

var _ io.Closer = Stores{}
