package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/cluster/lease"
)

// used makes a data directory as a node leaves it that has promised and logged something.
func used(t *testing.T) (dir string, was Data) {
	t.Helper()
	dir = t.TempDir()
	was, err := OpenData(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := was.Promises.Save(lease.Record{Revoked: map[string]uint64{"director1": 3}}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(was.RaftDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(was.RaftDir, "raft.db"), []byte("log"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, was
}

func TestADataDirectoryKeepsItsIdentityOnlyWhole(t *testing.T) {
	for name, c := range map[string]struct {
		damage  func(t *testing.T, dir string)
		renewed string // part of why it is a new node; empty: it is the old one
		revoked uint64 // of director1, afterwards
	}{
		"whole":             {func(*testing.T, string) {}, "", 3},
		"log gone":          {remove("raft/raft.db"), "log is gone", 3},
		"log empty":         {put("raft/raft.db", ""), "log is gone", 3},
		"promises gone":     {remove("promises.json"), "promises is gone", 0},
		"identity gone":     {remove("uuid"), "new", 3},
		"identity cut away": {put("uuid", ""), "new", 3},
	} {
		t.Run(name, func(t *testing.T) {
			dir, was := used(t)
			c.damage(t, dir)
			d, err := OpenData(dir)
			if err != nil {
				t.Fatal(err)
			}
			if same := d.UUID == was.UUID; same != (c.renewed == "") || !strings.Contains(d.Renewed, c.renewed) {
				t.Errorf("the identity is the old one: %v, since %q", same, d.Renewed)
			}
			if d.Promised.Revoked["director1"] != c.revoked {
				t.Errorf("director1 is revoked up to %d, want %d", d.Promised.Revoked["director1"], c.revoked)
			}
			if _, err := os.Stat(filepath.Join(d.RaftDir, "raft.db")); c.renewed != "" && err == nil {
				t.Error("the old log is still in place under a new identity")
			}
		})
	}
}

func TestADamagedDataDirectoryIsRefusedWithTheWayOut(t *testing.T) {
	for name, damage := range map[string]func(*testing.T, string){
		"promises cut":             put("promises.json", `{"revoked":{"dire`),
		"promises of other shape":  put("promises.json", `{"foo":1}`),
		"promises without a part":  put("promises.json", `{"longest":{}}`),
		"promises empty":           put("promises.json", ""),
		"promises out of range":    put("promises.json", `{"revoked":{},"longest":{"director1":-5}}`),
		"identity that is no UUID": put("uuid", "garbage\n"),
		"a bit of the identity":    flip("uuid", "4"),
		"a bit of its checksum":    put("uuid", "11111111-2222-4333-8444-555555555555 00000000\n"),
		"an identity cut short":    put("uuid", "11111111-2222-4333-8444-555555555555"),
		"a digit of the promises":  flip("promises.json", "3"),
		"a name in the promises":   flip("promises.json", "director1"),
		"a bit of the generation":  flip("generation.json", "0"),
		"the checksum's own name":  flip("promises.json", "sum"),
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := used(t)
			damage(t, dir)
			_, err := OpenData(dir)
			if err == nil || !strings.Contains(err.Error(), "move the data directory away and start again") || !strings.HasPrefix(err.Error(), dir) {
				t.Errorf("the error is %v, want one that names the file and the way out", err)
			}
		})
	}
}

func TestTheFilesOfAnEarlierVersionAreReadAndGetChecksums(t *testing.T) {
	dir, was := used(t)
	for name, content := range map[string]string{
		"uuid": was.UUID + "\n", "promises.json": `{"revoked":{"director1":3},"longest":{}}`, "generation.json": `{"current":{"counter":2,"id":"0000abcd"}}`,
	} {
		put(name, content)(t, dir)
	}
	for range 2 {
		d, err := OpenData(dir)
		if err != nil || d.UUID != was.UUID || d.Promised.Revoked["director1"] != 3 || d.Generation.Current.Counter != 2 || d.Renewed != "" {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	flip("promises.json", "3")(t, dir)
	if _, err := OpenData(dir); err == nil {
		t.Error("damage after it is not noticed")
	}
}

// flip flips a bit of the first place where a file has a text.
func flip(name, text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := strings.Index(string(b), text)
		if at < 0 {
			t.Fatalf("%s has no %q: %s", path, text, b)
		}
		b[at] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func put(name, content string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
