package man

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keepbeat/keepbeat/conf"
)

var update = flag.Bool("update", false, "write the pages anew")

func TestThePagesAreUpToDate(t *testing.T) {
	sources, err := filepath.Glob("*.in")
	if err != nil || len(sources) == 0 {
		t.Fatal("no sources", err)
	}
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Render(string(text), conf.Keys())
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		path := strings.TrimSuffix(source, ".in")
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, string(got)); d != "" {
			t.Errorf("%s is out of date; run: go generate ./docs/man\n%s", path, d)
		}
	}
}

func TestEveryKeyOfEveryFileHasItsPlace(t *testing.T) {
	for _, k := range conf.Keys() {
		page, err := os.ReadFile(k.File + ".5")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "\n.B "+escape(k.Key)+"\n") {
			t.Errorf("%s.5 has no %s", k.File, k.Key)
		}
	}
}

func TestTextSurvivesRoff(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                   "plain",
		"`- bcast: eth1` and `x`": `\fB\- bcast: eth1\fP and \fBx\fP`,
		".test \\d":               `\&.test \ed`,
		"an odd ` one":            "an odd  one",
	} {
		if got := roff(in); got != want {
			t.Errorf("%q became %q, not %q", in, got, want)
		}
	}
}
