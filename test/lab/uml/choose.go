package uml

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// HostHasIPVS says whether this machine's own kernel has IPVS, after asking for
// the module.
func HostHasIPVS() bool {
	if _, err := os.Stat("/proc/net/ip_vs"); err == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// A failure shows in the line after it.
	_ = exec.CommandContext(ctx, "modprobe", "ip_vs").Run()
	_, err := os.Stat("/proc/net/ip_vs")
	return err == nil
}

// FindKernel is the path of the lab kernel that belongs to the module at root,
// which has been built before: nothing compiles for minutes without being asked.
func FindKernel(ctx context.Context, root string) (string, error) {
	script := filepath.Join(root, "test", "lab", "kernel.sh")
	out, err := exec.CommandContext(ctx, script, "--path").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", errors.New("lab kernel: not built yet: run make lab-kernel (about three minutes)")
	}
	if err != nil {
		return "", fmt.Errorf("lab kernel: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
