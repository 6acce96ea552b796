package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// WriteBack puts a committed version of the files into dir, each atomically,
// and a copy into keep/VERSION. A file in dir that differs both from the new
// version and from every kept one holds an edit that nobody applied: it is
// moved beside, to NAME.unapplied-TIME, and named in the result.
func WriteBack(dir, keep string, version uint64, files Files, now time.Time) (unapplied []string, err error) {
	all := map[string][]byte{HaresourcesName: files.Haresources}
	for name, data := range files.Pools {
		if filepath.Base(name) != name || name == "." || name == ".." || name == HaresourcesName {
			return nil, fmt.Errorf("pool %q: not a plain file name", name)
		}
		all[name] = data
	}
	own := filepath.Join(keep, strconv.FormatUint(version, 10))
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
			aside := path + ".unapplied-" + now.UTC().Format("20060102T150405.000000")
			if err := os.Link(path, aside); err != nil {
				return unapplied, err
			}
			unapplied = append(unapplied, aside)
			fallthrough
		default:
			if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
				return unapplied, rerr
			}
			if err := replace(path, data, 0o644); err != nil {
				return unapplied, err
			}
		}
		if err := replace(filepath.Join(own, name), data, 0o600); err != nil {
			return unapplied, err
		}
	}
	return unapplied, nil
}

// kept says whether a kept version has exactly this file.
func kept(keep, name string, data []byte) bool {
	versions, err := os.ReadDir(keep)
	if err != nil {
		return false
	}
	for _, v := range versions {
		b, err := os.ReadFile(filepath.Join(keep, v.Name(), name))
		if err == nil && bytes.Equal(b, data) {
			return true
		}
	}
	return false
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
