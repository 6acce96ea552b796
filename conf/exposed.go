package conf

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// secretKey finds a key or a header whose value is a secret.
var secretKey = regexp.MustCompile(`(?mi)(?:^|[\s{,\["'])(?:passwd|secret|(?:proxy-)?authorization|cookie|[\w-]*(?:token|api-?key))["']?\s*:`)

// modeOf is the mode of a file that is written with data: for root alone when
// it holds a secret, otherwise the one that it has, 0644 if it is new.
func modeOf(path string, data []byte) fs.FileMode {
	mode := fs.FileMode(0o644)
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
		mode = st.Mode().Perm() | 0o600
	}
	if secretKey.Match(data) {
		mode &= 0o700
	}
	return mode
}

// Exposed warns of pools with a password or another secret that others than
// their owner may read.
func Exposed(files Files) []Warning {
	var out []Warning
	for name, data := range files.Pools {
		path := filepath.Join(filepath.Dir(files.Name), name)
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm()&0o077 == 0 || !secretKey.Match(data) {
			continue
		}
		out = append(out, Warning{File: path, Msg: fmt.Sprintf("it has a password or another secret, and its mode %04o lets others read it; run: chmod 600 %s", st.Mode().Perm(), path)})
	}
	slices.SortFunc(out, func(a, b Warning) int { return strings.Compare(a.File, b.File) })
	return out
}
