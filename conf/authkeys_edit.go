package conf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// CheckAuthKey says why a key cannot stand in authkeys under a number (0: any). The
// error never holds the key.
func CheckAuthKey(index int, key Secret) error {
	text := string(key.Bytes())
	switch {
	case index < 0 || index > MaxKeyIndex:
		return fmt.Errorf("key %d: the number of a key is 1 to %d", index, MaxKeyIndex)
	case strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }):
		return errors.New("a key is one word of ASCII letters, digits and signs")
	case strings.HasPrefix(text, "#"):
		return errors.New("a key does not begin with #, which begins a comment")
	case len(text) < MinKey:
		return fmt.Errorf("the key is too short: %d characters, at least %d are needed; `keepbeat keys generate` makes a good one", len(text), MinKey)
	case len(text) > maxKey:
		return fmt.Errorf("the key is longer than %d characters", maxKey)
	}
	return nil
}

// AddAuthKey returns authkeys with one more key, everything else as it was.
func AddAuthKey(data []byte, index int, key Secret) ([]byte, error) {
	if err := CheckAuthKey(index, key); err != nil {
		return nil, err
	}
	if index == 0 {
		return nil, errors.New("a key that is added needs a number, 1 to 15")
	}
	return editAuthKeys(data, func(keys []Key, active int, lines []string) ([]string, []Key, int, error) {
		if slices.ContainsFunc(keys, func(k Key) bool { return k.Index == index }) {
			return nil, nil, 0, fmt.Errorf("key %d is there already, and another one", index)
		}
		// After the last key: comments at the end of the file stay there.
		at := 0
		for i, l := range lines {
			if n, ok := lineKey(l); ok && n != authLine {
				at = i + 1
			}
		}
		lines = slices.Insert(slices.Clone(lines), at, fmt.Sprintf("%d sha1 %s", index, key.Bytes()))
		return lines, append(keys, Key{index, "sha1", key}), active, nil
	})
}

// UseAuthKey returns authkeys with another key sealing.
func UseAuthKey(data []byte, index int) ([]byte, error) {
	return editAuthKeys(data, func(keys []Key, _ int, lines []string) ([]string, []Key, int, error) {
		lines = slices.Clone(lines)
		for i, l := range lines {
			if n, ok := lineKey(l); ok && n == authLine {
				word := strings.Fields(l)[1]
				at := strings.Index(l, "auth") + len("auth")
				at += strings.Index(l[at:], word)
				lines[i] = l[:at] + strconv.Itoa(index) + l[at+len(word):]
			}
		}
		return lines, keys, index, nil
	})
}

// RemoveAuthKey returns authkeys without a key, which must not be the one that seals.
func RemoveAuthKey(data []byte, index int) ([]byte, error) {
	return editAuthKeys(data, func(keys []Key, active int, lines []string) ([]string, []Key, int, error) {
		if active == index {
			return nil, nil, 0, fmt.Errorf("key %d is the one that seals here", index)
		}
		lines = slices.DeleteFunc(slices.Clone(lines), func(l string) bool { n, ok := lineKey(l); return ok && n == index })
		return lines, slices.DeleteFunc(keys, func(k Key) bool { return k.Index == index }), active, nil
	})
}

const authLine = -1

// lineKey returns the number of the key that a line of a valid file holds; authLine for `auth N`.
func lineKey(line string) (index int, ok bool) {
	words := strings.Fields(line)
	if len(words) == 0 || strings.HasPrefix(words[0], "#") {
		return 0, false
	}
	if words[0] == "auth" {
		return authLine, true
	}
	return keyIndex(words[0])
}

// editAuthKeys changes the lines of a valid file, and sees that the result is
// read as what was meant.
func editAuthKeys(data []byte, edit func(keys []Key, active int, lines []string) ([]string, []Key, int, error)) ([]byte, error) {
	keys, active, err := ParseAuthKeys(data)
	if err != nil {
		return nil, err
	}
	lines, want, wantActive, err := edit(slices.Clone(keys), active, strings.Split(strings.TrimSuffix(string(data), "\n"), "\n"))
	if err != nil {
		return nil, err
	}
	next := []byte(strings.Join(lines, "\n") + "\n")
	got, gotActive, err := ParseAuthKeys(next)
	if err != nil {
		return nil, err
	}
	byIndex := func(a, b Key) int { return a.Index - b.Index }
	slices.SortFunc(got, byIndex)
	slices.SortFunc(want, byIndex)
	if gotActive != wantActive || !slices.EqualFunc(got, want, func(a, b Key) bool {
		return a.Index == b.Index && bytes.Equal(a.Secret.Bytes(), b.Secret.Bytes())
	}) {
		return nil, errors.New("authkeys cannot be edited without changing what it means; edit it by hand")
	}
	return next, nil
}

// WriteAuthKeys replaces the file at once, mode 0600. When it returns without
// error the new one survives a power failure: a node that came back without a
// key that the others use by then would not be heard.
func WriteAuthKeys(path string, data []byte) error {
	// A link stays one: configuration management likes them.
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fileError(path, err)
	}
	if err := replace(target, data, 0o600); err != nil {
		return fileError(path, err)
	}
	dir, err := os.Open(filepath.Dir(target))
	if err != nil {
		return fileError(path, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}
