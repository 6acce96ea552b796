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
	b, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		// A second daemon on the same directory must be told so, not wait for ever.
		BoltOptions: &bbolt.Options{Timeout: 3 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return Stores{}, fmt.Errorf("%s is in use: is another keepbeat running on this data directory?", path)
	}
	if err != nil {
		return Stores{}, damaged(path, err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, logger)
	if err != nil {
		return Stores{}, errors.Join(err, b.Close())
	}
	w := watched{b, &failure{}}
	return Stores{Log: w, Stable: w, Snapshots: snaps, close: b.Close, failed: w.failed}, nil
}

func damaged(path string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		return err // it names the path, and the file is not to blame
	}
	return fmt.Errorf("%s is damaged: %w; move the data directory away and start again: the node then rejoins as a new one", path, err)
}

// MemoryStores returns stores for simulations; they outlive the node that uses them.
func MemoryStores() Stores {
	m := raft.NewInmemStore()
	return Stores{Log: m, Stable: m, Snapshots: raft.NewInmemSnapshotStore()}
}

var _ io.Closer = Stores{}
