package checksum

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

type record struct {
	Revoked map[string]uint64 `json:"revoked"`
	Name    string            `json:"name,omitempty"`
}

// strict is how the files are read.
func strict(b []byte) (r record, sealed bool, err error) {
	if b, sealed, err = Open(b); err != nil {
		return r, sealed, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, sealed, err
	}
	if d.More() {
		return r, sealed, errors.New("more")
	}
	return r, sealed, nil
}

var object = []byte(`{"revoked":{"director1":13,"director2":4},"name":"x"}`)

func TestAnObjectComesBackAsItWas(t *testing.T) {
	b := Seal(object)
	if want := `{"revoked":{"director1":13,"director2":4},"name":"x","sum":"` + Of(object) + `"}`; string(b) != want {
		t.Errorf("sealed: %s", b)
	}
	for _, b := range [][]byte{b, append(b, '\n')} {
		if got, sealed, err := Open(b); err != nil || !sealed || !bytes.Equal(got, object) {
			t.Errorf("%s, %v, %v", got, sealed, err)
		}
	}
}

func TestAFileOfAnEarlierVersionIsReadAsItIs(t *testing.T) {
	for _, b := range []string{string(object), "{}", "", "not JSON", `"sum":"00000000"}`} {
		if got, sealed, err := Open([]byte(b)); err != nil || sealed || string(got) != b {
			t.Errorf("%q: %q, %v, %v", b, got, sealed, err)
		}
	}
}

func TestNoFlippedBitsPass(t *testing.T) {
	whole := Seal(object)
	bits := 8 * len(whole)
	for one := range bits {
		for two := one; two < bits; two++ { // the same: one bit alone
			b := bytes.Clone(whole)
			b[one/8] ^= 1 << (one % 8)
			if two != one {
				b[two/8] ^= 1 << (two % 8)
			}
			if r, _, err := strict(b); err == nil {
				t.Fatalf("bits %d and %d: %s passes for %+v", one, two, b, r)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(Seal(object))
	f.Add(object)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, sealed, err := Open(b); err == nil && sealed && !bytes.Equal(Seal(got), bytes.TrimSpace(b)) {
			t.Errorf("%q opens as %q", b, got)
		}
	})
}
