package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

var entries = []*raft.Log{
	{Index: 7, Term: 2, Type: raft.LogNoop, AppendedAt: time.Unix(1700000000, 0)},
	{Index: 8, Term: 2, Type: raft.LogCommand, Data: []byte(`{"version":537}`), AppendedAt: time.Unix(1700000001, 0)},
	{Index: 9, Term: 3, Type: raft.LogConfiguration, Data: bytes.Repeat([]byte{0x81, 0xa3}, 200), Extensions: []byte("more")},
}

// edit changes a bolt file behind the store's back.
func edit(t *testing.T, dir string, f func(logs, conf *bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "raft.db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error { return f(tx.Bucket([]byte("logs")), tx.Bucket([]byte("conf"))) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func opened(t *testing.T, dir string) Stores {
	t.Helper()
	s, err := OpenBolt(dir, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// written makes a log with the entries, a term and a vote.
func written(t *testing.T, old bool) (dir string) {
	t.Helper()
	dir = t.TempDir()
	type store interface {
		raft.LogStore
		raft.StableStore
		Close() error
	}
	var s store
	var err error
	if old {
		s, err = raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db"))
	} else {
		var b Stores
		b, err = OpenBolt(dir, hclog.NewNullLogger())
		s = b.Log.(watched)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(s.StoreLogs(entries), s.SetUint64([]byte(keyTerm), 3), s.SetUint64([]byte(keyVoteTerm), 3), s.Set([]byte(keyVoteCand), []byte("a/1")), s.Close())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func same(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Extensions, b.Extensions)
}

// holds checks that a store holds what was written.
func holds(t *testing.T, s Stores) {
	t.Helper()
	for _, want := range entries {
		var got raft.Log
		if err := s.Log.GetLog(want.Index, &got); err != nil || !same(&got, want) {
			t.Errorf("entry %d: %v, %+v", want.Index, err, got)
		}
	}
	term, err := s.Stable.GetUint64([]byte(keyTerm))
	vote, verr := s.Stable.Get([]byte(keyVoteCand))
	if err != nil || term != 3 || verr != nil || string(vote) != "a/1" {
		t.Errorf("term %d (%v), vote %q (%v)", term, err, vote, verr)
	}
}

func TestAnyFlippedBitOfALogIsNoticed(t *testing.T) {
	dir := written(t, false)
	type flip struct {
		of  *raft.Log // nil: of a value
		key string
		raw []byte
	}
	var flips []flip
	edit(t, dir, func(logs, conf *bbolt.Bucket) error {
		for _, e := range entries {
			flips = append(flips, flip{of: e, raw: bytes.Clone(logs.Get(binary.BigEndian.AppendUint64(nil, e.Index)))})
		}
		return conf.ForEach(func(k, v []byte) error {
			flips = append(flips, flip{key: string(k), raw: bytes.Clone(v)})
			return nil
		})
	})
	const from = 1000
	var all []flip
	for _, f := range flips {
		for bit := range 8 * len(f.raw) {
			bad := f
			bad.raw = bytes.Clone(f.raw)
			bad.raw[bit/8] ^= 1 << (bit % 8)
			all = append(all, bad)
		}
	}
	edit(t, dir, func(logs, _ *bbolt.Bucket) error {
		var errs []error
		for i, f := range all {
			if f.of != nil {
				errs = append(errs, logs.Put(binary.BigEndian.AppendUint64(nil, uint64(from+i)), f.raw))
			}
		}
		return errors.Join(errs...)
	})
	s := opened(t, dir).Log.(watched).sealed
	harmless := 0
	for i, f := range all {
		if f.of == nil {
			if v, ok := openValue([]byte(f.key), f.raw); ok {
				t.Errorf("%s passes for %x", f.key, v)
			}
			continue
		}
		l := new(raft.Log)
		switch err := s.checked(f.of.Index, l, s.BoltStore.GetLog(uint64(from+i), l)); {
		case err != nil:
			if _, ok := err.(*DamagedError); !ok {
				t.Errorf("the error is %v", err)
			}
		case same(l, f.of):
			harmless++ // the time when it was appended
		default:
			t.Errorf("entry %d passes for %+v", f.of.Index, l)
		}
	}
	t.Logf("%d flips, %d of them in what nobody decides by", len(all), harmless)
	if len(all) < 5000 || harmless > len(all)/4 {
		t.Error("that proves little")
	}
}

func TestALogOfTheTimeBeforeChecksumsIsReadAndGetsThem(t *testing.T) {
	for name, interrupted := range map[string]func(dir string){
		"at once": func(string) {},
		"after a power failure in the middle of it": func(dir string) {
			s := opened(t, dir)
			s.Close()
			edit(t, dir, func(_, conf *bbolt.Bucket) error {
				return errors.Join(conf.Delete([]byte(markKey)), conf.Put([]byte(keyTerm), []byte{0, 0, 0, 0, 0, 0, 0, 3}))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := written(t, true)
			interrupted(dir)
			if err := check(filepath.Join(dir, "raft.db")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s := opened(t, dir)
				holds(t, s)
				if ok, err := s.Log.(watched).marked(); !ok || err != nil {
					t.Errorf("marked: %v, %v", ok, err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			edit(t, dir, func(logs, _ *bbolt.Bucket) error { return flipIn(logs, 8) })
			if err := check(filepath.Join(dir, "raft.db")); err == nil {
				t.Error("damage after it is not noticed")
			}
		})
	}
}

func flipIn(logs *bbolt.Bucket, index byte) error {
	key := []byte{0, 0, 0, 0, 0, 0, 0, index}
	v := bytes.Clone(logs.Get(key))
	v[bytes.Index(v, []byte("537"))] ^= 1
	return logs.Put(key, v)
}

func TestADamagedLogIsFoundByTheCheckBeforeItIsOpened(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(logs, conf *bbolt.Bucket) error
		says   string
	}{
		"an entry": {func(logs, _ *bbolt.Bucket) error { return flipIn(logs, 8) }, "entry 8: its checksum is wrong"},
		"an entry's number": {func(logs, _ *bbolt.Bucket) error {
			return rename(logs, "\x00\x00\x00\x00\x00\x00\x00\x08", "\x00\x00\x00\x00\x00\x00\x00\x0c")
		}, "entry 8 stands in the place of 12"},
		"the term": {func(_, conf *bbolt.Bucket) error {
			return conf.Put([]byte(keyTerm), []byte("\x00\x00\x00\x00\x00\x00\x00\x02abcd"))
		}, "CurrentTerm: its checksum is wrong"},
		"the name of a value": {func(_, conf *bbolt.Bucket) error { return rename(conf, keyVoteTerm, "MastVoteTerm") }, `it has a value named "MastVoteTerm"`},
		"no term":             {func(_, conf *bbolt.Bucket) error { return conf.Delete([]byte(keyTerm)) }, "CurrentTerm is missing"},
		"the mark":            {func(_, conf *bbolt.Bucket) error { return rename(conf, markKey, strings.Replace(markKey, "k", "j", 1)) }, "it has a value named"},
		"the mark's value":    {func(_, conf *bbolt.Bucket) error { return conf.Put([]byte(markKey), []byte("1....")) }, "its checksum is wrong"},
		"the mark, lost, and an entry": {func(logs, conf *bbolt.Bucket) error {
			return errors.Join(conf.Delete([]byte(markKey)), flipIn(logs, 8))
		}, "1 of its 3 entries carry no checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := written(t, false)
			edit(t, dir, c.damage)
			path := filepath.Join(dir, "raft.db")
			err := check(path)
			if err == nil || !strings.HasPrefix(err.Error(), path+" is damaged: ") || !strings.Contains(err.Error(), c.says) || !strings.HasSuffix(err.Error(), "; move the data directory away and start again: the node then rejoins as a new one") {
				t.Errorf("the check says %v", err)
			}
		})
	}
}

func rename(b *bbolt.Bucket, from, to string) error {
	v := bytes.Clone(b.Get([]byte(from)))
	if v == nil {
		return fmt.Errorf("%q is not there", from)
	}
	return errors.Join(b.Delete([]byte(from)), b.Put([]byte(to), v))
}

func TestALogOfANewerProgramIsNamed(t *testing.T) {
	dir := written(t, false)
	s := opened(t, dir)
	if err := s.Stable.Set([]byte(markKey), []byte("2")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := OpenBolt(dir, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), "install the version that the other nodes run") {
		t.Error(err)
	}
}

func TestADamagedSnapshotIsNotTaken(t *testing.T) {
	const state = "\x1f\x8bthe state"
	config := raft.Configuration{Servers: []raft.Server{{ID: "a/1", Address: "a/1"}, {ID: "b/1", Address: "b/1"}}}
	for name, c := range map[string]struct {
		file, from, to string
		says           string // empty: it is whole
	}{
		"whole":           {"meta.json", "a", "a", ""},
		"the index":       {"meta.json", `"Index":5000`, `"Index":5001`, "meta.json is not the one"},
		"the voters":      {"meta.json", `"ID":"b/1"`, `"ID":"c/1"`, "meta.json is not the one"},
		"the suffrage":    {"meta.json", `"Suffrage":0`, `"Suffrage":1`, "meta.json is not the one"},
		"the state":       {"state.bin", "the", "tHe", "CRC mismatch"},
		"the head itself": {"state.bin", "kbs1", "kbs0", "CRC mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := opened(t, dir)
			_, tr := raft.NewInmemTransport("a/1")
			sink, err := s.Snapshots.Create(1, 5000, 3, config, 4000, tr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sink.Write([]byte(state)); err != nil {
				t.Fatal(err)
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			swap(t, filepath.Join(dir, "snapshots", sink.ID(), c.file), c.from, c.to)
			meta, r, err := s.Snapshots.Open(sink.ID())
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got := readAll(t, r); got != state || meta.Size != int64(len(state)) {
				t.Errorf("%q of %d bytes", got, meta.Size)
			}
		})
	}
	t.Run("one of the time before is", func(t *testing.T) {
		dir := t.TempDir()
		s := opened(t, dir)
		_, tr := raft.NewInmemTransport("a/1")
		sink, err := s.Snapshots.(snapshots).SnapshotStore.Create(1, 5000, 3, config, 4000, tr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Write([]byte(state)); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		meta, r, err := s.Snapshots.Open(sink.ID())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got := readAll(t, r); got != state || meta.Size != int64(len(state)) {
			t.Errorf("%q of %d bytes", got, meta.Size)
		}
	})
}

func swap(t *testing.T, path, from, to string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(from)) {
		t.Fatalf("%s has no %q: %q", path, from, b)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte(from), []byte(to), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
