package resources

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestTheJournal(t *testing.T) {
	j := Journal{filepath.Join(t.TempDir(), "not", "there", "yet")}
	if e, err := j.Read(); len(e) != 0 || err != nil {
		t.Fatalf("before anything: %v %v", e, err)
	}
	want := Entry{
		Group: "../web/eth1:0", Epoch: 7, Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")},
		Resources: []Applied{{"vip", "vip 2001:db8::1", json.RawMessage(`{"a":1}`)}},
	}
	if err := j.Write(want); err != nil {
		t.Fatal(err)
	}
	t.Run("gives back what was written, whatever the group's name", func(t *testing.T) {
		got, err := j.Read()
		if d := cmp.Diff([]Entry{want}, got, cmpopts.EquateComparable(netip.Addr{})); d != "" || err != nil {
			t.Errorf("%s %v", d, err)
		}
	})
	t.Run("names a damaged file and the way out, and gives the others", func(t *testing.T) {
		for name, text := range map[string]string{"half": `{"group":"x","ep`, "empty": "", "other": `{}`, "noepoch": `{"group":"x"}`} {
			path := filepath.Join(j.Dir, name+".json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := j.Read()
			if len(got) != 1 || err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove the file") {
				t.Errorf("%s: %d entries, %v", name, len(got), err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("does not believe a file in which a bit has changed", func(t *testing.T) {
		path := j.path(want.Group)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for bit := range len(good) * 8 {
			bad := bytes.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			// The case of a key's letters does not count.
			if e, err := parseEntry(bad); err == nil && !cmp.Equal(e, want, cmpopts.EquateComparable(netip.Addr{})) {
				t.Errorf("bit %d: %s", bit, bad)
			}
		}
	})
	t.Run("reads what a daemon before sums has written", func(t *testing.T) {
		old, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseEntry(old)
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" || err != nil {
			t.Errorf("%s %v", d, err)
		}
	})
	t.Run("forgets what is removed, twice", func(t *testing.T) {
		for range 2 {
			if err := j.Remove(want.Group); err != nil {
				t.Error(err)
			}
		}
		if e, err := j.Read(); len(e) != 0 || err != nil {
			t.Errorf("%v %v", e, err)
		}
	})
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(`{"group":"web","epoch":7,"addresses":["192.0.2.1"],"resources":[{"kind":"vip","name":"vip","record":{}}]}`))
	f.Add([]byte(`{"group":"web","epoch":1,"addresses":null}`))
	f.Add([]byte(`{"sum":"00000000","entry":{"group":"web","epoch":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil {
			return
		}
		if e.Group == "" || e.Epoch == 0 {
			t.Fatalf("%+v", e)
		}
		again, err := encodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseEntry(again); err != nil {
			t.Fatal(err)
		}
	})
}
