// Package man makes the manual pages: what is written by hand, in *.in, with
// the keys of the files as package conf documents them.
//
//go:generate go test . -run TestThePagesAreUpToDate -update
package man

import (
	"fmt"
	"strings"

	"github.com/keepbeat/keepbeat/conf"
)

// mark is the line of a source that stands for the keys of a file: `.\" KEYS ha.yaml`.
const mark = `.\" KEYS `

// Render makes a page of its source.
func Render(source string, keys []conf.KeyDoc) (string, error) {
	var b strings.Builder
	b.WriteString(".\\\" Made by `go generate ./docs/man` from the .in file and conf.Keys(): change those.\n")
	for line := range strings.Lines(source) {
		file, ok := strings.CutPrefix(strings.TrimSpace(line), mark)
		if !ok {
			b.WriteString(line)
			continue
		}
		n := table(&b, file, keys)
		if n == 0 {
			return "", fmt.Errorf("no keys of a file %q", file)
		}
	}
	return b.String(), nil
}

// table writes the keys of a file, those of each mapping under a heading.
func table(b *strings.Builder, file string, keys []conf.KeyDoc) int {
	n, path := 0, "none yet"
	for _, k := range keys {
		if k.File != file {
			continue
		}
		if k.Path != path {
			path = k.Path
			title := "At the top"
			if path != "" {
				title = "In " + path
			}
			fmt.Fprintf(b, ".SS \"%s\"\n", strings.ReplaceAll(escape(title), `"`, `\(dq`))
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", escape(k.Key), roff(k.Doc))
		n++
	}
	return n
}

// roff makes running text: `words` in bold.
func roff(text string) string {
	parts := strings.Split(text, "`")
	var b strings.Builder
	for i, p := range parts {
		p = escape(p)
		if i%2 == 1 && i < len(parts)-1 {
			p = `\fB` + p + `\fP`
		}
		b.WriteString(p)
	}
	s := b.String()
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(s)
}
