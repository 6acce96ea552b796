package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// MinKey is the least length of a key in characters: 16 of base64 are 96 bits.
const MinKey = 16

// MaxKeyIndex is the highest number of a key, and 1 the lowest; heartbeat takes 0, too.
const MaxKeyIndex = 15

const (
	maxKeyIndex     = MaxKeyIndex
	maxKey          = 1024
	maxAuthKeysFile = 64 << 10
)

// Key is one line of authkeys. Every listed key is accepted; the active one signs.
type Key struct {
	Index  int    // 1 to 15
	Method string // heartbeat's word, sha1 or md5; noted and not needed
	Secret Secret
}

// Secret is the text of a key. However it is printed, it shows as stars.
type Secret struct {
	// A pointer: fmt follows none below the top level, not even inside of
	// unexported fields, where it cannot call the methods below.
	text *string
}

// NewSecret makes a secret of a text.
func NewSecret(text string) Secret { return Secret{&text} }

// Bytes returns the key itself.
func (s Secret) Bytes() []byte {
	if s.text == nil {
		return nil
	}
	return []byte(*s.text)
}

const stars = "****"

// String returns stars.
func (Secret) String() string { return stars }

// GoString returns stars.
func (Secret) GoString() string { return stars }

// Format writes stars, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(stars)) }

// MarshalText returns stars.
func (Secret) MarshalText() ([]byte, error) { return []byte(stars), nil }

// LogValue returns stars.
func (Secret) LogValue() slog.Value { return slog.StringValue(stars) }

// ParseAuthKeys reads heartbeat's authkeys:
//
//	auth 1
//	1 sha1 KEY
//
// with # comments. It returns the keys, the active one first and the others by
// index, and the index of the active one. The error is of type Errors and never holds a
// word of the file, since any could be a key.
func ParseAuthKeys(data []byte) (keys []Key, active int, err error) {
	return parseAuthKeys("authkeys", data)
}

func parseAuthKeys(name string, data []byte) ([]Key, int, error) {
	r := &reader{file: name}
	if len(data) > maxAuthKeysFile {
		r.errorf(nil, "the file has more than %d bytes, the limit", maxAuthKeysFile)
		return nil, 0, asError(r.errs, oneFile)
	}
	if e, ok := r.cleanText(data); !ok {
		e.Msg = "a byte that is no ASCII text; comments begin with #" // and the byte could be of a key
		r.errs = append(r.errs, e)
		return nil, 0, asError(r.errs, oneFile)
	}
	a := keyReader{reader: r, active: -1}
	for i, line := range bytes.Split(data, []byte("\n")) {
		a.line(i+1, string(line))
	}
	switch {
	case len(a.keys) == 0 && len(r.errs) == 0:
		r.errorf(nil, "there is no key; write \"auth 1\" and \"1 sha1 KEY\" with a key from: openssl rand -base64 32")
	case a.active < 0 && len(r.errs) == 0:
		r.errorf(nil, "the line \"auth N\" is missing; it says which key signs, \"auth %d\"", a.keys[0].Index)
	case a.active >= 0 && a.at[a.active] == 0 && len(r.errs) == 0:
		a.fail(a.authLine, 1, "auth %d names no key of this file; add the line \"%d sha1 KEY\"", a.active, a.active)
	}
	if err := asError(r.errs, oneFile); err != nil {
		return nil, 0, err
	}
	slices.SortFunc(a.keys, func(x, y Key) int {
		if (x.Index == a.active) != (y.Index == a.active) {
			if x.Index == a.active {
				return -1
			}
			return 1
		}
		return x.Index - y.Index
	})
	return a.keys, a.active, nil
}

type keyReader struct {
	*reader
	keys     []Key
	at       [maxKeyIndex + 1]int // line of each key
	active   int
	authLine int
}

func (a *keyReader) fail(line, column int, format string, args ...any) {
	a.errs = append(a.errs, &Error{File: a.file, Line: line, Column: column, Msg: fmt.Sprintf(format, args...)})
}

func keyIndex(s string) (int, bool) {
	v, err := strconv.Atoi(s)
	return v, err == nil && v >= 1 && v <= maxKeyIndex && strings.Trim(s, "0123456789") == ""
}

func (a *keyReader) line(number int, text string) {
	words := strings.Fields(text)
	column := 1 + len(text) - len(strings.TrimLeft(text, " \t"))
	for i, w := range words {
		if strings.HasPrefix(w, "#") {
			words = words[:i]
			break
		}
	}
	if len(words) == 0 {
		return
	}
	fail := func(format string, args ...any) { a.fail(number, column, format, args...) }
	if words[0] == "auth" {
		if a.authLine != 0 {
			fail("a second \"auth\" line; the first is line %d", a.authLine)
			return
		}
		a.authLine = number
		index, ok := 0, false
		if len(words) == 2 {
			index, ok = keyIndex(words[1])
		}
		if !ok {
			fail("\"auth\" takes the number of a key, 1 to %d: \"auth 1\"", maxKeyIndex)
			return
		}
		a.active = index
		return
	}
	index, ok := keyIndex(words[0])
	switch {
	case !ok && strings.Trim(words[0], "0") == "":
		fail("keys are numbered from 1 to %d here; give key 0 another number, on every node", maxKeyIndex)
	case !ok:
		fail("a line is \"auth N\" or \"N METHOD KEY\" with N from 1 to %d; comments begin with #", maxKeyIndex)
	case a.at[index] != 0:
		fail("duplicate key %d; it is already in line %d", index, a.at[index])
	case len(words) > 1 && words[1] == "crc":
		a.at[index] = number
		fail("key %d: crc protects nothing and is refused; write \"%d sha1 KEY\" with a key from: openssl rand -base64 32", index, index)
	case len(words) > 1 && !slices.Contains([]string{"md5", "sha1", "sha256", "sha512"}, words[1]):
		fail("key %d: the method is not md5, sha1, sha256 or sha512; write \"%d sha1 KEY\"", index, index)
	case len(words) < 3:
		fail("key %d has no key; write \"%d sha1 KEY\" with a key from: openssl rand -base64 32", index, index)
	case len(words) > 3:
		fail("key %d: there is more after the key, which is one word; comments begin with #", index)
	case len(words[2]) < MinKey:
		a.at[index] = number
		fail("key %d is too short: %d characters, at least %d are needed; make one with: openssl rand -base64 32", index, len(words[2]), MinKey)
	case len(words[2]) > maxKey:
		fail("key %d is longer than %d characters", index, maxKey)
	default:
		a.at[index] = number
		a.keys = append(a.keys, Key{Index: index, Method: words[1], Secret: NewSecret(words[2])})
	}
}

// LoadAuthKeys reads authkeys. It refuses a file that others than its owner
// may read or write, or that belongs neither to root nor to the user of the daemon.
func LoadAuthKeys(path string) (keys []Key, active int, err error) {
	_, keys, active, err = ReadAuthKeys(path)
	return keys, active, err
}

// ReadAuthKeys is LoadAuthKeys for who wants to edit the file: it returns that, too.
func ReadAuthKeys(path string) (data []byte, keys []Key, active int, err error) {
	fail := func(format string, args ...any) ([]byte, []Key, int, error) {
		return nil, nil, 0, Errors{{File: path, Msg: fmt.Sprintf(format, args...)}}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, 0, &pathError{Errors{{File: path, Msg: "no such file; make it on one node and copy it to the others: " +
			"(umask 077; printf 'auth 1\\n1 sha1 %s\\n' $(openssl rand -hex 32) > " + path + ")"}}, err}
	}
	if err != nil {
		return nil, nil, 0, fileError(path, err)
	}
	defer f.Close()
	// Of the open file, so that it cannot be exchanged between the look and the reading.
	st, err := f.Stat()
	if err != nil {
		return nil, nil, 0, fileError(path, err)
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return fail("mode %04o lets others at the keys; run: chmod 600 %s", mode, path)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return fail("it belongs to user %d, who could change the keys; run: chown root %s", sys.Uid, path)
	}
	if data, err = readOpen(f, path, maxAuthKeysFile); err != nil {
		return nil, nil, 0, err
	}
	keys, active, err = parseAuthKeys(path, data)
	return data, keys, active, err
}
