package resources

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// Journal keeps what this node has applied to the system, one file a group, so
// that a stop never needs the configuration of the start and a daemon that
// died can be cleaned up after. It lives on a file system that a reboot
// empties (/run), as a reboot empties the kernel's tables.
type Journal struct{ Dir string }

// Entry is what stands in a group's file.
type Entry struct {
	Group     string       `json:"group"`
	Epoch     uint64       `json:"epoch"`
	Addresses []netip.Addr `json:"addresses"` // under the guard
	Resources []Applied    `json:"resources"` // in the order of start
	// Routers are under the guard too.
	Routers []VirtualRouter `json:"routers,omitempty"`
}

// Applied is a resource that was started, or was being started.
type Applied struct {
	Kind   conf.Kind       `json:"kind"`
	Name   string          `json:"name"`
	Record json.RawMessage `json:"record"`
}

func (j Journal) path(group string) string {
	return filepath.Join(j.Dir, url.PathEscape(group)+".json")
}

// Write replaces a group's entry. It is not fsynced: a machine that loses
// power loses the kernel's tables too.
func (j Journal) Write(e Entry) error {
	b, err := encodeEntry(e)
	if err != nil {
		return err
	}
	tmp := j.path(e.Group) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("journal: %w", err)
		}
		if err := os.MkdirAll(j.Dir, 0o700); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		if err := os.WriteFile(tmp, b, 0o600); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	if err := os.Rename(tmp, j.path(e.Group)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Remove deletes a group's entry. A missing one is no error.
func (j Journal) Remove(group string) error {
	if err := os.Remove(j.path(group)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Read returns every entry. A file that cannot be read is named in the error,
// beside the entries that could.
func (j Journal) Read() ([]Entry, error) {
	files, err := os.ReadDir(j.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var entries []Entry
	var errs []error
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		path := filepath.Join(j.Dir, f.Name())
		b, err := os.ReadFile(path)
		var e Entry
		if err == nil {
			e, err = parseEntry(b)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("journal %s: %w; look what it started (ip addr, ipvsadm -Ln), take that back by hand and remove the file", path, err))
			continue
		}
		entries = append(entries, e)
	}
	return entries, errors.Join(errs...)
}

// sealed is what a file holds. A record that has changed by itself must not be
// believed: its epoch could be one that this node does not hold, and its address one
// that nobody takes back.
type sealed struct {
	Sum   string          `json:"sum"` // of Entry's bytes
	Entry json.RawMessage `json:"entry"`
}

func sumOf(b []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func encodeEntry(e Entry) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return json.Marshal(sealed{sumOf(b), b})
}

func parseEntry(b []byte) (Entry, error) {
	var e Entry
	var s sealed
	if err := json.Unmarshal(b, &s); err != nil {
		return e, err
	}
	switch {
	case s.Sum == "" && s.Entry == nil:
		// Of a daemon before sums, which this one replaces by a planned restart: nothing but the entry.
		s.Entry = b
	case s.Sum != sumOf(s.Entry):
		return e, errors.New("damaged: it is not what was written")
	}
	d := json.NewDecoder(bytes.NewReader(s.Entry))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return e, err
	}
	if e.Group == "" {
		return e, errors.New("it names no group")
	}
	if e.Epoch == 0 {
		return e, errors.New("it names no epoch")
	}
	return e, nil
}
