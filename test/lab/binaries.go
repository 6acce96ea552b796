package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Keepbeat is the path of the program under test: $KEEPBEAT_BIN, or built from
// this module.
func (l *Lab) Keepbeat() string {
	l.t.Helper()
	return l.binary("KEEPBEAT_BIN", "./cmd/keepbeat")
}

// binary is the path in the environment variable, or else pkg built into the
// user's cache, where it is built again only when it has changed.
func (l *Lab) binary(variable, pkg string) string {
	l.t.Helper()
	if path := os.Getenv(variable); path != "" {
		if _, err := os.Stat(path); err != nil {
			l.t.Fatalf("lab: %s: %v", variable, err)
		}
		return path
	}
	path, err := buildBinary(pkg)
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	return path
}

func buildBinary(pkg string) (string, error) {
	root, err := rootDir()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "keepbeat", fmt.Sprintf("bin-%.8x", sha256.Sum256([]byte(root))))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	path := filepath.Join(dir, filepath.Base(pkg))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}
