package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/keepbeat/keepbeat/cluster/consensus"
)

// logOf makes a log with some entries and returns its directory.
func logOf(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := consensus.OpenBolt(dir, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 200; i++ {
		if err := s.Log.StoreLog(&raft.Log{Index: i, Term: 1, Data: bytes.Repeat([]byte("entry"), 100)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Stable.SetUint64([]byte("CurrentTerm"), 1), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := consensus.CheckLog(dir); err != nil {
		t.Fatalf("a log that is whole: %v", err)
	}
	return dir
}

func TestADamagedLogIsNamedWithTheWayOutAndDoesNotCrashTheDaemon(t *testing.T) {
	noise := rand.NewChaCha8([32]byte{})
	for name, damage := range map[string]func(b []byte) []byte{
		"cut to a part of a page":      func(b []byte) []byte { return b[:1000] },
		"cut in half":                  func(b []byte) []byte { return b[:len(b)/2/4096*4096] },
		"random throughout":            func(b []byte) []byte { _, _ = noise.Read(b); return b },
		"random behind the header":     func(b []byte) []byte { _, _ = noise.Read(b[4*4096:]); return b },
		"a bit of the entries flipped": func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("entry"), []byte("entrx")) },
		"zeros behind the header":      func(b []byte) []byte { clear(b[4*4096:]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := logOf(t)
			path := filepath.Join(dir, "raft.db")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			err = consensus.CheckLog(dir)
			if err == nil {
				t.Fatal("taken for whole")
			}
			if got := err.Error(); !strings.HasPrefix(got, path+" is damaged: ") || !strings.HasSuffix(got, "move the data directory away and start again: the node then rejoins as a new one") || strings.Contains(got, "\n") {
				t.Errorf("the error is %q", got)
			}
		})
	}
}
