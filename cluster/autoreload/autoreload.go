// Package autoreload applies files that an administrator has edited, where the
// specification says so. Only the node on which a file was edited does: what
// the daemon itself has written is known, and is no edit.
package autoreload

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/dirwatch"
)

// Quiet is how long the files must not change before they are looked at:
// an editor writes in several steps, and often more than one file is edited.
const Quiet = 300 * time.Millisecond

const (
	applyTimeout = 30 * time.Second
	retryEvery   = 2 * time.Second // while the cluster has no leader, or the directory cannot be watched
)

// Node is what is told of edits: a *cluster.Node.
type Node interface {
	Autoreloads(file string) bool
	Apply(ctx context.Context, base uint64, dry bool) (cluster.Changes, error)
	FilesFault(text string)
}

// Watcher compares the files of a configuration directory with what the daemon wrote there.
type Watcher struct {
	dir    string
	logger *slog.Logger

	// write is held while the daemon writes its files or they are compared
	// with what it has written, so that nobody sees half of a version.
	write   sync.Mutex
	version uint64 // guarded by write: that the daemon wrote last; 0: none yet
	written conf.Files
	named   []string // guarded by write: the pools that the files named when they were read last, there or not
	shown   string   // guarded by write: the fault of ours that stands in status
}

// New makes a watcher of a directory.
func New(dir string, logger *slog.Logger) *Watcher { return &Watcher{dir: dir, logger: logger} }

// Write runs the write-back of a version: the files are not looked at meanwhile.
func (w *Watcher) Write(version uint64, files conf.Files, write func() error) error {
	w.write.Lock()
	defer w.write.Unlock()
	err := write()
	if err == nil {
		w.version, w.written, w.shown = version, files, ""
	}
	return err
}

// edits returns the files that differ from what the daemon wrote last, and the version of that.
func (w *Watcher) edits() (names []string, version uint64, err error) {
	w.write.Lock()
	defer w.write.Unlock()
	if w.version == 0 {
		return nil, 0, nil
	}
	now, err := conf.ReadFiles(w.dir)
	if err != nil {
		return nil, w.version, err
	}
	w.named = now.PoolNames()
	if !bytes.Equal(now.Haresources, w.written.Haresources) {
		names = append(names, conf.HaresourcesName)
	}
	for name, data := range now.Pools {
		// One that was not there is named by a file that was edited, and that one decides.
		if was, ok := w.written.Pools[name]; ok && !bytes.Equal(was, data) {
			names = append(names, name)
		}
	}
	for name := range w.written.Pools {
		if _, ok := now.Pools[name]; !ok && len(names) == 0 {
			names = append(names, name) // gone, and nothing else tells
		}
	}
	slices.Sort(names)
	return names, w.version, nil
}

// look applies what was edited. It says whether to look again after a while
// although no file changes: the cluster could not take it.
func (w *Watcher) look(ctx context.Context, node Node) (again bool) {
	names, base, err := w.edits()
	if err != nil {
		// haresources.yaml is gone or unreadable. Whoever does that by hand sees it in status.
		if node.Autoreloads(conf.HaresourcesName) {
			w.fault(node, err.Error())
		}
		return false
	}
	if len(names) == 0 {
		w.clear(node)
		return false
	}
	var by, not []string
	for _, n := range names {
		if node.Autoreloads(n) {
			by = append(by, n)
		} else {
			not = append(not, n)
		}
	}
	switch {
	case len(by) == 0:
		return false
	case len(not) > 0:
		w.fault(node, strings.Join(by, ", ")+" would be applied by itself (autoreload), but "+strings.Join(not, ", ")+
			" is edited too and would not: run `keepbeat apply`")
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	c, err := node.Apply(ctx, base, false)
	var faulty *conf.Error
	var costly *cluster.ForceError
	switch {
	case err == nil && len(c.Lines) == 0:
		w.clear(node)
	case err == nil:
		w.logger.Info("applied what was edited here", "files", names, "version", c.Version, "changes", c.Lines)
		w.clear(node)
	case errors.As(err, &faulty), errors.As(err, &costly):
		w.fault(node, err.Error())
	case c.Base > base:
		// Somebody else's version is being written here; it puts this edit aside and says so.
		w.logger.Warn("the edit was made against an older version and is not applied", "files", names, "err", err)
	default:
		w.logger.Warn("the edit is not applied yet", "files", names, "err", err)
		return true
	}
	return false
}

func (w *Watcher) fault(node Node, text string) {
	w.write.Lock()
	before := w.shown
	w.shown = text
	w.write.Unlock()
	if text != before {
		w.logger.Error("an edited file is not applied; nothing was changed", "err", text)
	}
	node.FilesFault(text)
}

// clear takes our fault back, and no other.
func (w *Watcher) clear(node Node) {
	w.write.Lock()
	shown := w.shown
	w.shown = ""
	w.write.Unlock()
	if shown != "" {
		node.FilesFault("")
	}
}

// relevant says whether a change of a file is to be looked at: it is part of
// the specification. A log in the same directory would otherwise keep us busy,
// the more so when we write it ourselves.
func (w *Watcher) relevant(name string) bool {
	w.write.Lock()
	defer w.write.Unlock()
	_, written := w.written.Pools[name]
	return name == "" || name == conf.HaresourcesName || written || slices.Contains(w.named, name)
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context, node Node) error {
	changes := make(chan string)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.watch(ctx, changes) })
	settle(ctx, changes, w.relevant, func() bool { return w.look(ctx, node) })
	return nil
}

// settle calls look when nothing relevant has changed for Quiet, and again after a while if it asks for that.
func settle(ctx context.Context, changes <-chan string, relevant func(string) bool, look func() (again bool)) {
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-changes:
			if relevant(name) {
				quiet.Reset(Quiet)
			}
		case <-quiet.C:
			if look() {
				quiet.Reset(retryEvery)
			}
		}
	}
}

// watch tells of changes in the directory. When the directory cannot be
// watched, or has been replaced, it tries again and takes everything as changed.
func (w *Watcher) watch(ctx context.Context, changes chan<- string) {
	tell := func(name string) {
		select {
		case changes <- name:
		case <-ctx.Done():
		}
	}
	said := ""
	for ctx.Err() == nil {
		err := dirwatch.Notify(ctx, w.dir, tell)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			w.logger.Warn("edited files are not seen for the moment", "dir", w.dir, "err", err)
			said = text
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}
