package rtnl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Sysctl reads a setting of the kernel in the namespace: "net/ipv4/conf/eth0/arp_ignore".
func (k *Kernel) Sysctl(name string) (value string, err error) {
	err = k.Inside(func() error {
		b, err := os.ReadFile(filepath.Join("/proc/sys", name))
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

// SetSysctl changes a setting and returns what it was; nothing is written when it is so already.
func (k *Kernel) SetSysctl(name, value string) (before string, err error) {
	path := filepath.Join("/proc/sys", name)
	err = k.Inside(func() error {
		b, err := os.ReadFile(path)
		before = strings.TrimSpace(string(b))
		if err != nil || before == value {
			return err
		}
		return os.WriteFile(path, []byte(value), 0)
	})
	return before, err
}

// RemovePrimary takes away an IPv4 address that others of its network hang on.
// The kernel would delete those with it unless promote_secondaries is set, so
// it is set for the moment. Where /proc/sys cannot be written they are added again.
func (k *Kernel) RemovePrimary(a Address, dev string, secondaries []Address) error {
	k.promote.Lock()
	defer k.promote.Unlock()
	promote := "net/ipv4/conf/" + dev + "/promote_secondaries"
	before, raised := k.SetSysctl(promote, "1")
	err := k.Remove(a)
	if raised == nil {
		// Best effort: the interface may have gone, and 1 harms nobody.
		_, _ = k.SetSysctl(promote, before)
	} else if err == nil {
		for _, s := range secondaries {
			s.Flags &= Settable
			if e := k.Ensure(s); e != nil {
				err = errors.Join(err, fmt.Errorf("%s, which the kernel removed with it: %w", s.Prefix, e))
			}
		}
	}
	return err
}

// Forwards tells whether the interface forwards IPv6.
func (k *Kernel) Forwards(dev string) bool {
	value, err := k.Sysctl("net/ipv6/conf/" + dev + "/forwarding")
	return err == nil && value != "0"
}
