// Package docs holds the documentation. Its tests keep what it says true.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keepbeat/keepbeat/conf"
)

// row is a line of the table of ldirectord.md.
type row struct{ what, old, ours, tests string }

func conformance(t *testing.T) []row {
	t.Helper()
	b, err := os.ReadFile("ldirectord.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00"), "|")
		if len(cells) != 4 {
			t.Errorf("%d columns, and it has to be four: %s", len(cells), line)
			continue
		}
		for i := range cells {
			cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", "|")
		}
		if strings.Trim(cells[0], "-: ") == "" || cells[0] == "directive or check" {
			continue
		}
		rows = append(rows, row{cells[0], cells[1], cells[2], cells[3]})
	}
	if len(rows) < 100 {
		t.Fatalf("only %d lines", len(rows))
	}
	return rows
}

// testNames are the tests, fuzz targets and benchmarks of the project.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[fn.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var (
	testName = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	// faults are files of conf/testdata with a fault and its text: "testdata ops-*, schedflags-word".
	faults = regexp.MustCompile(`testdata ((?:[a-z0-9*-]+(?:, )?)+)`)
)

func TestEveryLineOfTheConformanceTableIsTested(t *testing.T) {
	known := testNames(t)
	for _, r := range conformance(t) {
		if r.old == "" || r.ours == "" {
			t.Errorf("%s: a column is empty", r.what)
		}
		named := testName.FindAllString(r.tests, -1)
		files := 0
		for _, m := range faults.FindAllStringSubmatch(r.tests, -1) {
			for _, name := range strings.Split(strings.TrimSuffix(m[1], ", "), ", ") {
				found, err := filepath.Glob("../conf/testdata/*/" + name + ".err")
				if err != nil || len(found) == 0 {
					t.Errorf("%s: there is no testdata %s", r.what, name)
				}
				files += len(found)
			}
		}
		if len(named) == 0 && files == 0 {
			t.Errorf("%s: no test shows it", r.what)
		}
		for _, name := range named {
			if !known[name] {
				t.Errorf("%s: there is no %s", r.what, name)
			}
		}
	}
}

// inventory is what ldirectord.cf(5) and ldirectord's code know: directives,
// check types and services; and the words of keepalived's virtual_server and checkers.
const inventory = `
checktimeout negotiatetimeout checkinterval checkcount failurecount autoreload callback fallback fallback6 fallbackcommand logfile
emailalert emailalertfrom emailalertfreq emailalertstatus smtp execute supervised fork quiescent readdquiescent cleanstop maintenancedir
virtual virtual6 real real6 checktype service checkcommand checkport request receive httpmethod virtualhost login passwd database secret
load scheduler schedflags persistent netmask protocol ops monitorfile servicename comment
negotiate connect ping off on external external-perl
dns ftp http https http_proxy imap imaps ldap ldaps mysql nntp none oracle pgsql pop pops radius simpletcp sip submission
quorum hysteresis alpha omega SMTP_CHECK DNS_CHECK MISC_CHECK UDP_CHECK FILE_CHECK digest status grpc
`

func TestTheConformanceTableHasEveryWord(t *testing.T) {
	words := map[string]bool{}
	for _, r := range conformance(t) {
		for _, w := range regexp.MustCompile(`[\w-]+`).FindAllString(r.what, -1) {
			words[w] = true
		}
	}
	want := strings.Fields(inventory)
	for _, k := range conf.Keys() {
		if k.File == "ldirectord.yaml" && !slices.Contains(want, k.Key) {
			want = append(want, k.Key)
		}
	}
	for _, w := range want {
		if !words[w] {
			t.Errorf("no line of ldirectord.md is about %s", w)
		}
	}
}
