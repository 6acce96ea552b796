package dirwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNotifyTellsOfFilesUntilTheDirectoryIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "watched")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	names, done := make(chan string, 64), make(chan error, 1)
	go func() { done <- Notify(t.Context(), dir, func(name string) { names <- name }) }()
	if first := <-names; first != "" {
		t.Errorf("the first word is %q", first)
	}
	if err := os.WriteFile(filepath.Join(dir, "10.0.0.5"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if name := <-names; name != "10.0.0.5" {
		t.Errorf("told of %q", name)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

func TestNotifySaysThatThereIsNoDirectory(t *testing.T) {
	err := Notify(t.Context(), filepath.Join(t.TempDir(), "none"), func(string) { t.Error("told of something") })
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "none") {
		t.Error(err)
	}
}

func TestNotifyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if err := Notify(ctx, t.TempDir(), func(string) { cancel() }); err == nil {
		t.Error("no error")
	}
}

func FuzzEvents(f *testing.F) {
	event := func(mask uint32, name string) []byte {
		b := make([]byte, unix.SizeofInotifyEvent)
		binary.NativeEndian.PutUint32(b[4:], mask)
		binary.NativeEndian.PutUint32(b[12:], uint32(len(name)))
		return append(b, name...)
	}
	f.Add(append(event(unix.IN_MOVED_TO, "haresources.yaml\x00\x00"), event(unix.IN_IGNORED, "")...))
	f.Add(event(unix.IN_MODIFY, "x")[:10])
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = events(b, func(_ uint32, name string) {
			if strings.ContainsRune(name, 0) {
				t.Errorf("name %q", name)
			}
		})
	})
}
