package conf

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A file that holds a password is written for root alone; the mode of another
// one is left as it is.
func TestAPoolWithAPasswordIsForNobodyElse(t *testing.T) {
	open := "virtual: [{address: 10.0.0.1:80, passwd_file: /x, real: []}]\n"
	for name, c := range map[string]struct {
		text     string
		has      fs.FileMode // 0: there is no such file yet
		want     fs.FileMode
		warnings int // of a file that others may read
	}{
		"new":                    {open, 0, 0o644, 0},
		"kept as it was":         {open, 0o640, 0o640, 0},
		"new, with a password":   {"virtual:\n  - address: 10.0.0.1:110\n    passwd: geheim\n", 0, 0o600, 1},
		"a password on one line": {"virtual: [{address: 10.0.0.1:110, \"passwd\": geheim}]\n", 0o644, 0o600, 1},
		"a secret":               {"secret : geheim\n", 0o664, 0o600, 1},
		"a header":               {"{headers: {Authorization: geheim}}\n", 0o600, 0o600, 1},
		"a header in a line":     {"headers: ['X-Auth-Token: geheim']\n", 0, 0o600, 1},
		"a header for everybody": {"headers: {X-Probe: keepbeat}\n", 0, 0o644, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir, keep := t.TempDir(), t.TempDir()
			path := filepath.Join(dir, "p.yaml")
			if c.has != 0 {
				if err := os.WriteFile(path, []byte("virtual: []\n"), c.has); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, c.has); err != nil { // whatever the umask
					t.Fatal(err)
				}
			}
			files := Files{Name: filepath.Join(dir, HaresourcesName), Haresources: []byte("groups: {}\n"), Pools: map[string][]byte{"p.yaml": []byte(c.text)}}
			if _, err := WriteBack(dir, keep, 1, files, time.Now()); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(path)
			if err != nil || st.Mode().Perm() != c.want {
				t.Errorf("mode %v (%v), want %v", st.Mode(), err, c.want)
			}
			if w := Exposed(files); len(w) != 0 {
				t.Errorf("after it was written: %v", w)
			}
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
			if w := Exposed(files); len(w) != c.warnings {
				t.Errorf("warnings %v, want %d", w, c.warnings)
			}
		})
	}
}
