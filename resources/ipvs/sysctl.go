package ipvs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctls is the directory of IPVS's sysctls: those of the network namespace
// of who reads them.
type sysctls string

const procSysctls sysctls = "/proc/sys/net/ipv4/vs"

// The sysctls that are set, Documentation/networking/ipvs-sysctl.rst.
const (
	expireNodestConn        = "expire_nodest_conn"
	expireQuiescentTemplate = "expire_quiescent_template"
	connReuseMode           = "conn_reuse_mode"
	sloppyTCP               = "sloppy_tcp"
	syncRefreshPeriod       = "sync_refresh_period"
)

var sysctlNames = []string{expireNodestConn, expireQuiescentTemplate, connReuseMode, sloppyTCP, syncRefreshPeriod}

// maxSysctl is more than any of them has bytes.
const maxSysctl = 256

func (dir sysctls) read(name string) (string, error) {
	f, err := os.Open(filepath.Join(string(dir), name))
	if err != nil {
		return "", absent(name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSysctl))
	if err != nil {
		return "", fmt.Errorf("sysctl net.ipv4.vs.%s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (dir sysctls) write(name, value string) error {
	// Never created: /proc has it or not.
	f, err := os.OpenFile(filepath.Join(string(dir), name), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return absent(name, err)
	}
	_, err = f.WriteString(value + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("sysctl net.ipv4.vs.%s=%s: %w", name, value, err)
	}
	return nil
}

func absent(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sysctl net.ipv4.vs.%s: this kernel does not have it (or module ip_vs is not loaded)", name)
	}
	return fmt.Errorf("sysctl net.ipv4.vs.%s: %w", name, err)
}
