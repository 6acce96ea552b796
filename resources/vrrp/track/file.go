package track

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/resources/dirwatch"
)

const (
	// fileBytes is what is read of a file: a number, and what may stand behind it.
	fileBytes = 64
	// dirAgain is how often a directory that is not there is looked for.
	dirAgain = time.Second
	// settling is how long a file may be empty: whoever writes it in place empties it first.
	settling = 100 * time.Millisecond
)

var errEmpty = errors.New("it is empty; write a whole number into it")

// file watches the number in a file, also when an editor renames another one
// over it. A file that is missing, or has no number, counts as 0, as keepalived has it.
func (t *Tracker) file(ctx context.Context, f conf.VRRPFile, _ *verdict) {
	known, last, trouble := false, 0, ""
	look := func() {
		v, err := readNumber(f.Path)
		if errors.Is(err, errEmpty) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(settling):
			}
			v, err = readNumber(f.Path)
		}
		text := ""
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			text = err.Error()
		}
		if text != "" && text != trouble {
			t.cfg.Logger.Warn("track_file "+f.Name+" counts as 0: "+text, "file", f.Path)
		}
		trouble = text
		if known && v == last {
			return
		}
		known, last = true, v
		t.report(ctx, File, f.Name, Result{Value: v})
	}
	look()
	for ctx.Err() == nil {
		if t.watchFile(ctx, f.Path, look) {
			continue
		}
		select { // the directory is not there, or not any more: what is said of the file is enough
		case <-ctx.Done():
		case <-time.After(dirAgain):
		}
	}
}

// watchFile calls look when the file may have changed, until ctx ends, a directory
// is gone, or, true, the file stands elsewhere.
func (t *Tracker) watchFile(ctx context.Context, path string, look func()) (moved bool) {
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	where := places(path)
	changed, gone := make(chan struct{}, 1), make(chan struct{}, len(where))
	for _, p := range where {
		dir, base := filepath.Split(p)
		all.Go(func() {
			_ = dirwatch.Notify(ctx, filepath.Clean(dir), func(name string) {
				// The way of a link may lead over other names of the directory.
				if name == base || name == "" || len(where) > 1 {
					select {
					case changed <- struct{}{}:
					default:
					}
				}
			})
			gone <- struct{}{}
		})
	}
	for {
		select {
		case <-changed:
			look()
			if !slices.Equal(places(path), where) {
				return true
			}
		case <-gone:
			look()
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// places are a path and, of a symbolic link, where it leads.
func places(path string) []string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil { // it leads to where nothing stands as yet, or is not there itself
		if real, err = os.Readlink(path); err != nil {
			return []string{path}
		}
		if !filepath.IsAbs(real) {
			real = filepath.Join(filepath.Dir(path), real)
		}
		return []string{path, real}
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil && filepath.Join(dir, filepath.Base(path)) == real {
		return []string{path} // only the directory is reached by one
	}
	return []string{path, real}
}

// readNumber reads a file's number. 0 with every error.
func readNumber(path string) (int, error) {
	// To open a device may do something: /dev/watchdog begins to count.
	if info, err := os.Stat(path); err != nil {
		return 0, err
	} else if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file", path)
	}
	h, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	if info, err := h.Stat(); err != nil || !info.Mode().IsRegular() { // it may have been exchanged
		return 0, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(h, fileBytes))
	if err != nil {
		return 0, err
	}
	return parseNumber(string(b))
}

// most is far beyond what a priority can change by: with any weight but 0 it
// makes a FAULT, or the highest priority.
const most = 1 << 30

// parseNumber reads a whole number; what stands behind it and white space is
// left alone, as keepalived leaves it. One beyond most counts as that.
func parseNumber(s string) (int, error) {
	words := strings.Fields(s)
	if len(words) == 0 {
		return 0, errEmpty
	}
	v, err := strconv.ParseInt(words[0], 0, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%.20q is not a whole number", words[0])
	}
	return int(max(-most, min(most, v))), nil // out of range it is the nearest one
}
