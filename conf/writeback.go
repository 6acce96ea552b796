package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WriteBack puts a committed version of the files into dir, each atomically,
// and a copy into keep/VERSION. A file in dir that differs both from the new
// version and from every kept one holds an edit that nobody applied: it is
// moved beside, to NAME.unapplied-TIME, and named in the result. Another
// version of that number, of a log that was discarded, goes to keep/VERSION.discarded-TIME.
func WriteBack(dir, keep string, version uint64, files Files, now time.Time) (unapplied []string, err error) {
	all := map[string][]byte{HaresourcesName: files.Haresources}
	for name, data := range files.Pools {
		if filepath.Base(name) != name || name == "." || name == ".." || name == HaresourcesName {
			return nil, fmt.Errorf("pool %q: not a plain file name", name)
		}
		all[name] = data
	}
	own := filepath.Join(keep, strconv.FormatUint(version, 10))
	stamp := now.UTC().Format("20060102T150405.000000")
	if differs(own, all) {
		if err := os.Rename(own, own+".discarded-"+stamp); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(own, 0o700); err != nil {
		return nil, err
	}
	for name, data := range all {
		path := filepath.Join(dir, name)
		old, rerr := os.ReadFile(path)
		switch {
		case rerr == nil && bytes.Equal(old, data):
		case rerr == nil && !kept(keep, name, old):
			// A second name for it: the file itself is there at every moment.
			aside := path + ".unapplied-" + stamp
			if err := os.Link(path, aside); err != nil {
				return unapplied, err
			}
			unapplied = append(unapplied, aside)
			fallthrough
		default:
			if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
				return unapplied, rerr
			}
			if err := replace(path, data, modeOf(path, data)); err != nil {
				return unapplied, err
			}
		}
		if err := replace(filepath.Join(own, name), data, 0o600); err != nil {
			return unapplied, err
		}
	}
	return unapplied, nil
}

// differs says whether a kept version has something else than these files. One
// of which a part is missing does not: its write-back was cut short.
func differs(version string, files map[string][]byte) bool {
	there, err := os.ReadDir(version)
	if err != nil {
		return false // there is none
	}
	for _, e := range there {
		if strings.HasPrefix(e.Name(), ".") {
			continue // what replace was about to write
		}
		if data, ours := files[e.Name()]; !ours || !same(filepath.Join(version, e.Name()), data) {
			return true
		}
	}
	return false
}

// kept says whether a kept version has exactly this file.
func kept(keep, name string, data []byte) bool {
	versions, err := os.ReadDir(keep)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(versions, func(v fs.DirEntry) bool { return same(filepath.Join(keep, v.Name(), name), data) })
}

// same says whether a file has this content. Most are told apart by their length.
func same(path string, data []byte) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(data)) {
		return false
	}
	b, err := os.ReadFile(path)
	return err == nil && bytes.Equal(b, data)
}

// VersionsKept is how many versions of the files a node keeps: to go back to one,
// and to tell an older one from an edit.
const VersionsKept = 20

// Forget removes the oldest versions that WriteBack has put into keep, after
// this one was written. The newest VersionsKept stay, and newer ones, which a
// discarded log has left, and whatever else lies there. What cannot be removed
// is named in the error, and the rest is removed all the same.
func Forget(keep string, version uint64) error {
	there, err := os.ReadDir(keep)
	if err != nil {
		return err
	}
	var versions []uint64
	for _, e := range there {
		v, err := strconv.ParseUint(e.Name(), 10, 64)
		if err == nil && e.IsDir() && strconv.FormatUint(v, 10) == e.Name() && v <= version {
			versions = append(versions, v)
		}
	}
	slices.Sort(versions)
	var errs []error
	for _, v := range versions[:max(0, len(versions)-VersionsKept)] {
		errs = append(errs, os.RemoveAll(filepath.Join(keep, strconv.FormatUint(v, 10))))
	}
	return errors.Join(errs...)
}

// replace writes a file so that a reader, or a power failure, sees the old one or the new one.
func replace(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
