package notify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRootRunsNoProgramThatOthersCouldChange(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t.Context(), path, nil, nil, nil); err != nil || out != "ran" {
		t.Errorf("%q, %v", out, err)
	}
	if err := os.Chmod(path, 0o757); err != nil {
		t.Fatal(err)
	}
	out, err := run(t.Context(), path, nil, nil, nil)
	if out != "" || err == nil || !strings.Contains(err.Error(), path+" may be written by everybody") || !strings.Contains(err.Error(), "chmod o-w "+path) {
		t.Errorf("%q, %v", out, err)
	}
}
