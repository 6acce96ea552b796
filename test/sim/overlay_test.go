package sim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// cutSwitch names the rule that is cut out, by its place in cuts.
const cutSwitch = "KEEPBEAT_SIM_CUT_ON"

// switches is a package that is in the overlay only.
const switches = `// Package simcut says which rule the simulation leaves out.
package simcut

import "os"

var on = os.Getenv("` + cutSwitch + `")

func Is(cuts ...string) bool {
	for _, c := range cuts {
		if c == on {
			return true
		}
	}
	return false
}
`

var packageClause = regexp.MustCompile(`(?m)^package \w+$`)

// overlay writes what `go test -overlay` reads: every edit of every cut.
func overlay(t *testing.T, root string) string {
	t.Helper()
	of := map[edit][]string{} // which cuts an edit belongs to
	var edits []edit
	for i, c := range cuts {
		for _, e := range c.edits {
			if of[e] == nil {
				edits = append(edits, e)
			}
			of[e] = append(of[e], strconv.Quote(strconv.Itoa(i)))
		}
	}
	texts := map[string]string{"cluster/simcut/simcut.go": switches}
	for _, e := range edits {
		if _, known := texts[e.file]; !known {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			at := packageClause.FindStringIndex(string(b))
			if at == nil {
				t.Fatalf("%s: no package clause", e.file)
			}
			texts[e.file] = string(b[:at[1]]) + "\n\nimport \"github.com/keepbeat/keepbeat/cluster/simcut\"\n" + string(b[at[1]:])
		}
		if n := strings.Count(texts[e.file], e.old); n != 1 {
			t.Fatalf("%s has %q %d times, not once: bring this test up to date", e.file, e.old, n)
		}
		is := "simcut.Is(" + strings.Join(of[e], ", ") + ")"
		texts[e.file] = strings.Replace(texts[e.file], e.old, strings.ReplaceAll(e.new, "CUT", is), 1)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	for file, text := range texts {
		path := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		replace[filepath.Join(root, file)] = path
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
