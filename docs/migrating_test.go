package docs

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// poolOf parses a pool as a director's only one.
func poolOf(pool string) (*conf.Spec, error) {
	spec, _, err := conf.ParseSpec(conf.Files{
		Name:        "haresources.yaml",
		Haresources: []byte("groups: {web: {resources: [{ldirectord: web.yaml}]}}\n"),
		Pools:       map[string][]byte{"web.yaml": []byte(pool)},
	}, nil)
	return spec, err
}

func migrating(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheTranslatedFilesAreValid(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(migrating(t), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d files", len(blocks))
	}
	for _, b := range blocks {
		spec, err := poolOf(b[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range spec.Pools["web.yaml"].Virtuals {
			if len(v.Reals) == 0 || v.Quiescent {
				t.Errorf("%v: %d real servers, quiescent %t", v.Address, len(v.Reals), v.Quiescent)
			}
		}
	}
}

// Whoever writes a word of keepalived is told what the table says.
func TestTheWordsOfKeepalivedAreAnsweredAsTheTableHasThem(t *testing.T) {
	_, table, found := strings.Cut(migrating(t), "| keepalived | here | |\n|---|---|---|\n")
	if !found {
		t.Fatal("there is no table")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	code := regexp.MustCompile("`([^`]+)`")
	words := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		there, here := code.FindAllStringSubmatch(cells[1], -1), code.FindAllStringSubmatch(cells[2], -1)
		for i, w := range there {
			_, err := poolOf(fmt.Sprintf("virtual:\n  - address: 192.0.2.1:80\n    %s: x\n    real: [192.0.2.2:80 gate]\n", w[1]))
			says := "take it out"
			if len(here) > 0 {
				says = here[min(i, len(here)-1)][1]
			}
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s is %s, and validation says: %v", w[1], says, err)
			}
			words++
		}
	}
	if words < 40 {
		t.Errorf("only %d words", words)
	}
}
