package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Store keeps a voter's Record. Save returns only when it is on disk.
type Store interface{ Save(Record) error }

// File is a Store in one file, replaced atomically.
type File struct{ Path string }

// Load reads the record. A missing file is an error that satisfies os.IsNotExist: the caller decides whether
// this is a new node or one that lost its promises.
func (f File) Load() (Record, error) {
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("%s: %w; this node must rejoin as a new one: remove its data directory", f.Path, err)
	}
	for node, d := range r.Longest {
		if d < 0 || d > MaxLength {
			return Record{}, fmt.Errorf("%s: lease of %v promised to %s is out of range; this node must rejoin as a new one: remove its data directory", f.Path, d, node)
		}
	}
	return r, nil
}

// Save implements Store: write beside, fsync, rename, fsync the directory.
func (f File) Save(r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := f.Path + ".new"
	if err := writeSync(tmp, b); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, f.Path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func writeSync(path string, b []byte) error {
	w, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = w.Write(b); err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

// Memory is a Store for simulations: it outlives the node that writes it.
type Memory struct{ Record Record }

// Save implements Store.
func (m *Memory) Save(r Record) error {
	m.Record = r.clone()
	return nil
}
