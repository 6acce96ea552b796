package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/keepbeat/keepbeat/conf"
	notifier "github.com/keepbeat/keepbeat/resources/notify" // notify is systemd's here
)

// callbacks has the program that a pool names with `callback` run after a new
// version of the pool's file has been written on this director.
type callbacks struct {
	node, dir, kept string // this node, its files, and the versions that it keeps
	hooks           *notifier.Hooks
	spec            func() *conf.Spec // in force; nil on a witness, which runs none

	fresh uint64 // a version that was not here before; 0: none. Only the one that writes uses it
}

func newCallbacks(node, dir, kept string, logger *slog.Logger) *callbacks {
	return &callbacks{node: node, dir: dir, kept: kept, hooks: notifier.NewHooks(logger)}
}

func (c *callbacks) run(ctx context.Context) error {
	c.hooks.Run(ctx)
	return nil
}

// before is called before a version is written. A daemon that starts again
// writes the version that is there already, which is none of the pool's changes.
func (c *callbacks) before(version uint64) {
	if _, err := os.Stat(c.keptIn(version)); errors.Is(err, fs.ErrNotExist) {
		c.fresh = version // until it is written whole: what failed is tried again
	}
}

// after is called after it has been written.
func (c *callbacks) after(version uint64, files conf.Files) {
	if c.fresh != version || c.spec == nil {
		return
	}
	spec := c.spec()
	if spec == nil {
		return
	}
	c.fresh = 0
	earlier := c.earlier(version)
	for name, data := range files.Pools {
		path := spec.Pools[name].Callback
		if path == "" {
			continue
		}
		if old, err := os.ReadFile(filepath.Join(c.keptIn(earlier), name)); err == nil && bytes.Equal(old, data) {
			continue
		}
		c.hooks.Add(notifier.Hook{Subject: name, Path: path, Args: []string{filepath.Join(c.dir, name)},
			Env: []string{"KEEPBEAT_NODE=" + c.node, "KEEPBEAT_POOL=" + name, "KEEPBEAT_VERSION=" + strconv.FormatUint(version, 10)}})
	}
}

// earlier is the newest version that is kept of those before; 0: none is.
func (c *callbacks) earlier(version uint64) (newest uint64) {
	entries, _ := os.ReadDir(c.kept) // none: then everything is new
	for _, e := range entries {
		if v, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && v < version {
			newest = max(newest, v)
		}
	}
	return newest
}

func (c *callbacks) keptIn(version uint64) string {
	return filepath.Join(c.kept, strconv.FormatUint(version, 10))
}
