package conf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const authkeysOfSomebody = `# our keys; ask alice before you touch them

  auth   1   # the old one
#2 sha1 a-key-that-is-commented-out
1 md5 first-key-of-this-file # since 2024
3 sha1   third-key-of-this-file

# the end
`

func TestEditsOfAuthkeysKeepEverythingElse(t *testing.T) {
	type edit func([]byte) ([]byte, error)
	add := func(index int, key string) edit {
		return func(b []byte) ([]byte, error) { return AddAuthKey(b, index, NewSecret(key)) }
	}
	use := func(index int) edit { return func(b []byte) ([]byte, error) { return UseAuthKey(b, index) } }
	remove := func(index int) edit { return func(b []byte) ([]byte, error) { return RemoveAuthKey(b, index) } }
	for _, c := range []struct {
		name     string
		edit     edit
		from, to string // a piece of the file that becomes another one; empty: refused
		says     string
	}{
		{"a key is added behind the last one", add(2, "second-key-of-this-file"), "third-key-of-this-file\n", "third-key-of-this-file\n2 sha1 second-key-of-this-file\n", ""},
		{"another key seals", use(3), "auth   1   #", "auth   3   #", ""},
		{"the one that seals already", use(1), "auth", "auth", ""},
		{"a key is taken away", remove(3), "3 sha1   third-key-of-this-file\n", "", ""},
		{"one that is only a comment", remove(2), "auth", "auth", ""},
		{"the number is taken", add(3, "second-key-of-this-file"), "", "", "key 3 is there already"},
		{"no such key to seal with", use(2), "", "", "auth 2 names no key"},
		{"the key that seals is not taken away", remove(1), "", "", "key 1 is the one that seals here"},
		{"a key that is a comment", add(2, "#23456789012345678"), "", "", "does not begin with #"},
		{"two words", add(2, "12345678 9012345678"), "", "", "one word"},
		{"two lines", add(2, "1234567890123456\nauth 2"), "", "", "one word"},
		{"a short key", add(2, "123456789012345"), "", "", "too short: 15 characters"},
		{"a long key", add(2, strings.Repeat("x", 1025)), "", "", "longer than 1024"},
		{"not ASCII", add(2, "schlüssel-von-irgendwem"), "", "", "ASCII"},
		{"number 16", add(16, "second-key-of-this-file"), "", "", "1 to 15"},
		{"number 0", add(0, "second-key-of-this-file"), "", "", "1 to 15"},
	} {
		got, err := c.edit([]byte(authkeysOfSomebody))
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "-of-this-file") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if want := strings.Replace(authkeysOfSomebody, c.from, c.to, 1); err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s\nnot\n%s", c.name, err, got, want)
		}
	}
	if got, err := AddAuthKey([]byte("auth 1\n1 sha1 first-key-of-this-file"), 2, NewSecret("second-key-of-this-file")); err != nil || !strings.HasSuffix(string(got), "file\n2 sha1 second-key-of-this-file\n") {
		t.Errorf("without a last newline: %v, %q", err, got)
	}
	if _, err := UseAuthKey([]byte("auth 1\n"), 1); err == nil {
		t.Error("a faulty file was edited")
	}
}

func TestAuthkeysAreWrittenAtOnceForNobodyElse(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "real"), filepath.Join(dir, "authkeys")
	if err := os.WriteFile(path, []byte(authkeysOfSomebody), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	next, err := UseAuthKey([]byte(authkeysOfSomebody), 3)
	if err == nil {
		err = WriteAuthKeys(link, next)
	}
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link has become %v, %v", st.Mode(), err)
	}
	if st, err := os.Lstat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if data, _, active, err := ReadAuthKeys(link); err != nil || active != 3 || string(data) != string(next) {
		t.Errorf("%v, auth %d, %q", err, active, data)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("%v, %v", left, err)
	}
	if err := WriteAuthKeys(filepath.Join(dir, "none"), next); err == nil {
		t.Error("a file was made where there was none")
	}
}

// FuzzEditAuthKeys: of any valid file every edit is refused or is read as what was meant.
func FuzzEditAuthKeys(f *testing.F) {
	f.Add(authkeysOfSomebody, 2, "second-key-of-this-file")
	f.Add("auth 1\n1 sha1 first-key-of-this-file", 1, "x")
	f.Add("auth 01\n01 sha1 first-key-of-this-file#\r\n", 1, "# 1 sha1 first-key-of-this-file")
	f.Fuzz(func(t *testing.T, text string, index int, key string) {
		before, active, err := ParseAuthKeys([]byte(text))
		if err != nil {
			return
		}
		if b, err := AddAuthKey([]byte(text), index, NewSecret(key)); err == nil {
			keys, now, err := ParseAuthKeys(b)
			if err != nil || now != active || len(keys) != len(before)+1 || !slices.ContainsFunc(keys, func(k Key) bool { return k.Index == index && string(k.Secret.Bytes()) == key }) {
				t.Errorf("add: %v, %q", err, b)
			}
		}
		if b, err := UseAuthKey([]byte(text), index); err == nil {
			if keys, now, err := ParseAuthKeys(b); err != nil || now != index || len(keys) != len(before) {
				t.Errorf("use: %v, %q", err, b)
			}
		}
		if b, err := RemoveAuthKey([]byte(text), index); err == nil {
			keys, now, err := ParseAuthKeys(b)
			if err != nil || now != active || len(keys) < len(before)-1 || slices.ContainsFunc(keys, func(k Key) bool { return k.Index == index }) {
				t.Errorf("remove: %v, %q", err, b)
			}
		}
	})
}
