package conf

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// shelf is a node's /etc/keepbeat and its kept versions.
type shelf struct {
	t         *testing.T
	dir, keep string
}

func newShelf(t *testing.T) shelf {
	return shelf{t, t.TempDir(), filepath.Join(t.TempDir(), "spec")}
}

var aDay = time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)

// text is the content of the files in a version.
func text(v uint64) []byte { return []byte(fmt.Sprintf("%06d", v)) }

// write writes a version back, forgets old ones as the daemon does, and returns what was put aside.
func (s shelf) write(v uint64) []string {
	s.t.Helper()
	aside, err := WriteBack(s.dir, s.keep, v, Files{Haresources: text(v), Pools: map[string][]byte{"web.yaml": text(v)}}, aDay)
	if err == nil {
		err = Forget(s.keep, v)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if b := s.read(s.dir, "web.yaml"); !bytes.Equal(b, text(v)) {
		s.t.Errorf("web.yaml after version %d: %s", v, b)
	}
	return aside
}

func (s shelf) read(path ...string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s shelf) put(data []byte, path ...string) {
	s.t.Helper()
	p := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// kept lists the names in keep, numbers first and in their order.
func (s shelf) kept() []string {
	s.t.Helper()
	all, err := os.ReadDir(s.keep)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	slices.SortFunc(names, func(a, b string) int {
		x, errA := strconv.Atoi(a)
		y, errB := strconv.Atoi(b)
		if errA == nil && errB == nil {
			return x - y
		}
		return strings.Compare(a, b)
	})
	return names
}

func TestTheNewestVersionsAreKept(t *testing.T) {
	s := newShelf(t)
	s.put([]byte("a note"), s.keep, "notes.txt")
	s.put([]byte("a backup"), s.keep, "1.mine", "web.yaml")
	s.put([]byte("no number of ours"), s.keep, "007", "web.yaml")
	s.put([]byte("of a discarded log"), s.keep, "99", "web.yaml")
	for v := range uint64(40) {
		if aside := s.write(v + 1); aside != nil {
			t.Errorf("version %d: the one before was taken for an edit: %v", v+1, aside)
		}
	}
	var want []string
	for v := 40 - VersionsKept + 1; v <= 40; v++ {
		want = append(want, strconv.Itoa(v))
	}
	got := s.kept()
	for _, other := range []string{"007", "1.mine", "99", "notes.txt"} {
		i := slices.Index(got, other)
		if i < 0 {
			t.Errorf("%s is gone", other)
			continue
		}
		got = slices.Delete(got, i, i+1)
	}
	if !slices.Equal(got, want) {
		t.Errorf("kept: %v, want %v", got, want)
	}
}

func TestANodeThatWasAwayLongFindsItsOldFilesAmongTheKept(t *testing.T) {
	s := newShelf(t)
	s.write(3)
	if aside := s.write(300); aside != nil {
		t.Errorf("the files of version 3 were taken for an edit: %v", aside)
	}
	if got := s.kept(); !slices.Equal(got, []string{"3", "300"}) {
		t.Errorf("kept: %v", got)
	}
}

func TestAnEditThatNobodyAppliedIsPutAside(t *testing.T) {
	for name, spoil := range map[string]func(s shelf){
		"of the same length as a kept file":    func(s shelf) { s.put([]byte("######"), s.dir, "web.yaml") },
		"and a kept version that is not there": func(s shelf) { s.put([]byte("mine"), s.dir, "web.yaml"); _ = os.RemoveAll(filepath.Join(s.keep, "5")) },
		"and a kept file that cannot be read": func(s shelf) {
			s.put([]byte("mine"), s.dir, "web.yaml")
			_ = os.Remove(filepath.Join(s.keep, "5", "web.yaml"))
			if err := os.Mkdir(filepath.Join(s.keep, "5", "web.yaml"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			s.t = t
			s.write(5)
			spoil(s)
			edit := s.read(s.dir, "web.yaml")
			aside := s.write(6)
			i := slices.IndexFunc(aside, func(path string) bool { return strings.HasPrefix(filepath.Base(path), "web.yaml.unapplied-") })
			if i < 0 || !bytes.Equal(s.read(aside[i]), edit) {
				t.Errorf("put aside: %v", aside)
			}
		})
	}
}

func TestTheSameVersionOfAnotherHistoryIsNotWrittenOver(t *testing.T) {
	s := newShelf(t)
	lost := []byte("applied to a log that was discarded")
	s.write(6)
	if _, err := WriteBack(s.dir, s.keep, 7, Files{Haresources: lost, Pools: map[string][]byte{"old.yaml": lost}}, aDay); err != nil {
		t.Fatal(err)
	}
	s.write(6)
	if aside := s.write(7); aside != nil {
		t.Errorf("taken for an edit: %v", aside)
	}
	s.write(7) // again: the same changes nothing
	want := []string{"6", "7", "7.discarded-20260304T050607.000008"}
	if got := s.kept(); !slices.Equal(got, want) {
		t.Fatalf("kept: %v, want %v", got, want)
	}
	if b := s.read(s.keep, want[2], "old.yaml"); !bytes.Equal(b, lost) {
		t.Errorf("what was lost is %q", b)
	}
	if b := s.read(s.keep, "7", "web.yaml"); !bytes.Equal(b, text(7)) {
		t.Errorf("version 7 is %q", b)
	}
}

func TestAWriteBackThatWasCutShortIsCompleted(t *testing.T) {
	s := newShelf(t)
	s.put(text(7), s.keep, "7", "web.yaml")
	s.put([]byte("half of"), s.keep, "7", ".haresources.yaml.123")
	s.write(7)
	if got := s.kept(); !slices.Equal(got, []string{"7"}) {
		t.Errorf("kept: %v", got)
	}
	if b := s.read(s.keep, "7", HaresourcesName); !bytes.Equal(b, text(7)) {
		t.Errorf("version 7 is %q", b)
	}
}
