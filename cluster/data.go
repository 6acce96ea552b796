package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepbeat/keepbeat/cluster/checksum"
	"github.com/keepbeat/keepbeat/cluster/lease"
	"github.com/keepbeat/keepbeat/cluster/pair"
)

// Data is a node's data directory: who it is, what it promised, its log.
type Data struct {
	UUID     string
	Promises lease.File
	Promised lease.Record
	// Generations and Generation are those of a pair; without one they stay the first.
	Generations pair.File
	Generation  pair.Record
	RaftDir     string
	SpecDir     string // versions of the specification
	Renewed     string // why the node has a new identity; empty: it has its old one
}

var (
	errEmpty      = errors.New("empty")
	errSuperseded = errors.New("superseded")
)

// OpenData opens a data directory or makes it. The identity counts only as
// long as the log and the promises that belong to it are there: when one of
// them is lost, the rest of the log is put aside and the node is a new one,
// since what its lost disk had promised or voted must not be guessed.
func OpenData(dir string) (Data, error) {
	d := Data{
		Promises:    lease.File{Path: filepath.Join(dir, "promises.json")},
		Generations: pair.File{Path: filepath.Join(dir, "generation.json")},
		RaftDir:     filepath.Join(dir, "raft"), SpecDir: filepath.Join(dir, "spec"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return d, fmt.Errorf("data directory: %w", err)
	}
	uuidPath := filepath.Join(dir, "uuid")
	id, err := os.ReadFile(uuidPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, fmt.Errorf("data directory: %w", err)
	}
	wrongID := false
	if d.UUID, wrongID, err = readID(uuidPath, id); err != nil {
		return d, fmt.Errorf("data directory: %w", err)
	}
	if d.Generation, err = d.Generations.Load(); err != nil {
		return d, err
	}
	promised, perr := d.Promises.Load()
	// An empty log is a lost one: what a power failure leaves of a file that was never synced.
	log, lerr := os.Stat(filepath.Join(d.RaftDir, "raft.db"))
	if lerr == nil && log.Size() == 0 {
		lerr = errEmpty
	}
	if lerr == nil && d.Generation.Discard {
		lerr = errSuperseded
	}
	if lerr != nil && !errors.Is(lerr, fs.ErrNotExist) && !errors.Is(lerr, errEmpty) && lerr != errSuperseded {
		return d, fmt.Errorf("data directory: %w", lerr)
	}
	switch {
	case perr != nil && !errors.Is(perr, fs.ErrNotExist):
		return d, perr
	case wrongID:
		return d, fmt.Errorf("%s: %q is no UUID with its checksum; move the data directory away and start again: the node then rejoins as a new one", uuidPath, id)
	case d.UUID != "" && perr == nil && lerr == nil:
		d.Promised = promised
		return d, nil
	case d.UUID != "" && perr != nil:
		d.Renewed = "its record of promises is gone"
	case lerr == errSuperseded:
		d.Renewed = "the other node of the pair went on without it, and its log is put aside"
	case d.UUID != "":
		d.Renewed = "its log is gone"
	default:
		d.Renewed = "its data directory is new"
	}
	if !errors.Is(lerr, fs.ErrNotExist) {
		aside := d.RaftDir + ".discarded-" + time.Now().UTC().Format("20060102T150405")
		if err := os.Rename(d.RaftDir, aside); err != nil {
			return d, fmt.Errorf("data directory: %w", err)
		}
	}
	// The generation is the one to come back into; nothing of a lost log is left to do.
	d.Generation = pair.Record{Current: d.Generation.Current, How: d.Generation.How}
	if err := d.Generations.Save(d.Generation); err != nil {
		return d, fmt.Errorf("data directory: %w", err)
	}
	// What was revoked stays revoked: that record outlives a discarded log.
	d.Promised = promised
	if d.UUID, err = newUUID(); err != nil {
		return d, err
	}
	if err := d.Promises.Save(d.Promised); err != nil {
		return d, fmt.Errorf("data directory: %w", err)
	}
	return d, writeID(uuidPath, d.UUID)
}

// readID reads what writeID wrote: a UUID and its checksum; that of an earlier
// version, the UUID alone, gets one at once. An empty file is none.
func readID(path string, b []byte) (id string, wrong bool, err error) {
	line, whole := strings.CutSuffix(string(b), "\n")
	id, sum, sealed := strings.Cut(line, " ")
	switch {
	case strings.TrimSpace(line) == "":
		return "", false, nil
	case !whole || !validUUID(id) || sealed && sum != checksum.Of([]byte(id)):
		return id, true, nil
	case !sealed:
		return id, false, writeID(path, id)
	}
	return id, false, nil
}

func writeID(path, id string) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(id + " " + checksum.Of([]byte(id)) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	// A new identity must not be forgotten after the log that belongs to it has been written.
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
}

func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range s {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && !strings.ContainsRune("0123456789abcdef", c) {
			return false
		}
	}
	return true
}
