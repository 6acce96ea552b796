package checks

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestASecretIsReadFromItsFileEachTime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	for _, tc := range []struct{ name, content, want, failure string }{
		{"as it is", "hunter2", "hunter2", ""},
		{"without its line end", "hunter2\n", "hunter2", ""},
		{"without a line end of Windows", "hunter2\r\n", "hunter2", ""},
		{"blanks and further lines belong to it", " a b \n\n", " a b \n", ""},
		{"empty", "\n", "", "it is empty"},
		{"as long as may be", strings.Repeat("x", maxSecret), strings.Repeat("x", maxSecret), ""},
		{"too long", strings.Repeat("x", maxSecret+1), "", "it holds more than 4096 bytes"},
	} {
		if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readSecret("not this", file)
		if tc.failure != "" {
			if want := "password from " + file + ": " + tc.failure; err == nil || err.Error() != want || !Local(err) {
				t.Errorf("%s: got %v, want %s", tc.name, err, want)
			}
		} else if string(got) != tc.want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", tc.name, got, err, tc.want)
		}
	}
	if got, err := readSecret("plain", ""); string(got) != "plain" || err != nil {
		t.Errorf("without a file: %q, %v", got, err)
	}
}

func TestASecretIsNotReadFromWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := readSecret("", filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, pipe} {
		if _, err := readSecret("", path); err == nil || err.Error() != "password from "+path+": it is not a regular file" {
			t.Errorf("%s: %v", path, err)
		}
	}
}
