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
var secretKey = regexp.MustCompile(`(?mi)(?:^|[\s{,\["'])(?:passwd|auth_pass|secret|(?:proxy-)?authorization|cookie|[\w-]*(?:token|api-?key))["']?\s*:`)

var authPass = regexp.MustCompile(`(?m)(?:^|[\s{,\["'])auth_pass["']?\s*:`)

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

// Exposed warns of files with a password or another secret that others than
// their owner may read: haresources.yaml and its pools.
func Exposed(files Files) []Warning {
	var out []Warning
	// "passwd" in it is a parameter of a fencing device, whose value is the name of a file.
	if w, is := exposed(files.Name, authPass.Find(files.Haresources)); is {
		out = append(out, w)
	}
	for name, data := range files.Pools {
		if w, is := exposed(filepath.Join(filepath.Dir(files.Name), name), data); is {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b Warning) int { return strings.Compare(a.File, b.File) })
	return out
}

// exposed says whether a file that has these bytes lets others read a secret.
func exposed(path string, data []byte) (Warning, bool) {
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm()&0o077 == 0 || !secretKey.Match(data) {
		return Warning{}, false
	}
	return Warning{File: path, Msg: fmt.Sprintf("it has a password or another secret, and its mode %04o lets others read it; run: chmod 600 %s", st.Mode().Perm(), path)}, true
}
