package fencing

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/keepbeat/keepbeat/conf"
)

// secret is a value that is shown to devices only: printed in whatever way, it is stars.
type secret string

const stars = "****"

func (secret) String() string               { return stars }
func (secret) Format(s fmt.State, _ rune)   { _, _ = io.WriteString(s, stars) }
func (secret) LogValue() slog.Value         { return slog.StringValue(stars) }
func (secret) MarshalText() ([]byte, error) { return []byte(stars), nil }

const maxSecretFile = 64 << 10

// params are the parameters of a device as they are at the moment of use.
type params struct {
	values  map[string]secret // any of them may be one
	secrets []secret          // those that must not appear in what a program prints
}

// Format: fmt does not ask what is inside of a struct.
func (params) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, stars) }

// resolve reads files and variables. Errors name the parameter and the place, never the value.
func resolve(of map[string]conf.Param, getenv func(string) (string, bool)) (params, error) {
	p := params{values: make(map[string]secret, len(of))}
	for name, x := range of {
		v, err := value(x, getenv)
		if err != nil {
			return params{}, fmt.Errorf("parameter %s: %w", name, err)
		}
		p.values[name] = v
		if v != "" && (x.File != "" || x.Env != "" || conf.IsSecret(name)) {
			p.secrets = append(p.secrets, v)
		}
	}
	return p, nil
}

func value(p conf.Param, getenv func(string) (string, bool)) (secret, error) {
	v := p.Value
	switch {
	case p.File != "":
		var err error
		if v, err = readSecret(p.File); err != nil {
			return "", err
		}
	case p.Env != "":
		var set bool
		if v, set = getenv(p.Env); !set || v == "" {
			return "", fmt.Errorf("the daemon's environment has no variable %s; set it in the unit (Environment= or EnvironmentFile=) and restart the daemon", p.Env)
		}
	}
	if strings.ContainsFunc(v, unicode.IsControl) {
		return "", errors.New("the value has a line break or another control character, which no device takes")
	}
	return secret(v), nil
}

// readSecret returns the first line of a file that nobody but its owner can read.
func readSecret(path string) (string, error) {
	// Not blocking: a FIFO in that place must not hang the fencing.
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	switch {
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("%s: not a file", path)
	case st.Mode()&0o077 != 0:
		return "", fmt.Errorf("%s: others than its owner have rights on it (mode %04o); chmod 600 %s", path, st.Mode().Perm(), path)
	case !ownedByUs(st):
		return "", fmt.Errorf("%s: belongs to somebody else; chown root %s", path, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", fmt.Errorf("%s: its first line is empty, and that is where the value has to be", path)
	}
	return line, nil
}

// ownedByUs says whether a file is root's or the daemon's own.
func ownedByUs(st os.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && (sys.Uid == 0 || int(sys.Uid) == os.Geteuid())
}

// disguises are the forms in which programs print a value: as it is, in a URL, in a header.
func disguises(secrets []secret) [][]byte {
	var all [][]byte
	for _, s := range secrets {
		for _, form := range []string{
			string(s), url.QueryEscape(string(s)), url.PathEscape(string(s)),
			base64.StdEncoding.EncodeToString([]byte(s)), base64.URLEncoding.EncodeToString([]byte(s)),
		} {
			if form != "" && !slices.ContainsFunc(all, func(x []byte) bool { return string(x) == form }) {
				all = append(all, []byte(form))
			}
		}
	}
	return all
}

// blank puts stars in the place of secrets, also of those that overlap, and
// leaves out the first skip bytes: a secret may have been cut there.
func blank(text []byte, forms [][]byte, skip int) []byte {
	hidden := make([]bool, len(text))
	for _, form := range forms {
		for at := 0; ; at++ {
			i := bytes.Index(text[at:], form)
			if i < 0 {
				break
			}
			at += i
			for k := range form {
				hidden[at+k] = true
			}
		}
	}
	var out []byte
	for i := min(skip, len(text)); i < len(text); i++ {
		switch {
		case !hidden[i]:
			out = append(out, text[i])
		case i == skip || !hidden[i-1]:
			out = append(out, stars...)
		}
	}
	return out
}
