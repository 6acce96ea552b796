package lease

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keepbeat/keepbeat/cluster/checksum"
)

// Store keeps a voter's Record. Save returns only when it is on disk.
type Store interface{ Save(Record) error }

// File is a Store in one file, replaced atomically.
type File struct{ Path string }

// What a node promised and no longer knows must not be guessed.
const wayOut = "move the data directory away and start again: the node then rejoins as a new one"

// decodeRecord is strict: a record that lacks what it has to say must not be
// taken for one that promised and revoked nothing. sealed is false of a file of
// an earlier version, without a checksum.
func decodeRecord(b []byte) (r Record, sealed bool, err error) {
	if b, sealed, err = checksum.Open(b); err != nil {
		return r, sealed, err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return r, sealed, err
	}
	for _, k := range []string{"revoked", "longest"} {
		if _, ok := keys[k]; !ok {
			return r, sealed, fmt.Errorf("%q is missing", k)
		}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return r, sealed, d.Decode(&r)
}

// Load reads the record; one of an earlier version gets its checksum at once. A missing file is an error that satisfies os.IsNotExist: the caller decides whether
// this is a new node or one that lost its promises.
func (f File) Load() (Record, error) {
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return Record{}, err
	}
	r, sealed, err := decodeRecord(b)
	if err != nil {
		return Record{}, fmt.Errorf("%s: damaged: %w; %s", f.Path, err, wayOut)
	}
	for node, d := range r.Longest {
		if d < 0 || d > MaxLength {
			return Record{}, fmt.Errorf("%s: lease of %v promised to %s is out of range; %s", f.Path, d, node, wayOut)
		}
	}
	if !sealed {
		return r, f.Save(r)
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
	if err := writeSync(tmp, checksum.Seal(b)); err != nil {
		_ = os.Remove(tmp) // it may not be there; what counts is why
		return err
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
