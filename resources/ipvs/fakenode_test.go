package ipvs

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// doNode answers what is not about the table: time-outs and sync daemons.
func (k *fakeKernel) doNode(cmd uint8, attrs map[uint16][]byte) unix.Errno {
	d := tree(attrs[3])
	switch cmd {
	case 12:
		for i := range k.timeouts {
			if v := attrs[uint16(4+i)]; v != nil {
				k.timeouts[i] = native.Uint32(v)
			}
		}
	case 9:
		n := Daemon{
			State: SyncState(native.Uint32(d[1])), Interface: text(d[2]), ID: int(native.Uint32(d[3])), MaxLen: 1472,
			Port: native.Uint16(d[7]), TTL: d[8][0],
		}
		if d[4] != nil {
			n.MaxLen = native.Uint16(d[4])
		}
		if d[5] != nil {
			n.Group, _ = netip.AddrFromSlice(d[5])
		} else {
			n.Group, _ = netip.AddrFromSlice(d[6])
		}
		if k.running(n.State) >= 0 {
			return unix.EEXIST
		}
		k.syncs = append(k.syncs, n)
		k.starts++
	case 10:
		i := k.running(SyncState(native.Uint32(d[1])))
		if i < 0 {
			return unix.ESRCH
		}
		k.syncs = slices.Delete(k.syncs, i, i+1)
	default:
		return unix.EOPNOTSUPP
	}
	return 0
}

func (k *fakeKernel) index(name string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if name == "nosuch" || k.device < 0 {
		return 0, unix.ENODEV
	}
	return 2 + k.device, nil
}

func (k *fakeKernel) replug(device int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.device = device
}

func (k *fakeKernel) running(s SyncState) int {
	return slices.IndexFunc(k.syncs, func(d Daemon) bool { return d.State == s })
}

// daemons are the sync daemons that run, a line for each.
func (k *fakeKernel) daemons() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []string
	for _, d := range k.syncs {
		all = append(all, d.String())
	}
	slices.Sort(all)
	return all
}

// withSysctls gives the kernel a directory of sysctls, as Linux has them at its start.
func (k *fakeKernel) withSysctls(t *testing.T) {
	t.Helper()
	k.sysctls = sysctls(t.TempDir())
	k.timeouts = [3]uint32{900, 120, 300}
	for name, value := range map[string]string{
		expireNodestConn: "0", expireQuiescentTemplate: "0", connReuseMode: "1", sloppyTCP: "0", syncRefreshPeriod: "0",
	} {
		k.sysctl(t, name, value)
	}
}

func (k *fakeKernel) sysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(k.sysctls), name), []byte(value+"\n"), 0o600); err != nil {
		t.Error(err)
	}
}

// settings are all sysctls and time-outs, in a line.
func (k *fakeKernel) settings(t *testing.T) string {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	files, err := os.ReadDir(string(k.sysctls))
	if err != nil {
		t.Error(err)
	}
	var all []string
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(string(k.sysctls), f.Name()))
		if err != nil {
			t.Error(err)
		}
		all = append(all, f.Name()+"="+strings.TrimSpace(string(b)))
	}
	return strings.Join(all, " ") + fmt.Sprintf(" timeouts=%d", k.timeouts)
}
