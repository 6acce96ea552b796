package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Driver is what the kernel tells of a device while nobody opens it, by sysfs
// (CONFIG_WATCHDOG_SYSFS, which distributions have). What it does not tell is zero.
type Driver struct {
	Identity string        // "Software Watchdog", "iTCO_wdt"
	Min, Max time.Duration // of the timeout
	NoWayOut bool          // once opened, nothing stops it
	Running  bool          // somebody has it open, or died without closing it: it bites unless it is fed
}

// Look tells what is behind path without opening it: opening arms it. The error
// says when there is no such device, and what to do.
func Look(path string) (Driver, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Driver{}, openError(path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return Driver{}, fmt.Errorf("watchdog %s: not a character device; /dev/watchdog is the usual one", path)
	}
	dir := sysfsDir(st.Rdev)
	d := Driver{
		Identity: sysfs(dir, "identity"),
		Min:      sysfsSeconds(dir, "min_timeout"), Max: sysfsSeconds(dir, "max_timeout"),
		NoWayOut: sysfs(dir, "nowayout") == "1",
		Running:  sysfs(dir, "state") == "active",
	}
	return d, nil
}

// sysfsDir is where sysfs describes a device. /dev/watchdog, miscellaneous device 130, is another name of watchdog0.
func sysfsDir(rdev uint64) string {
	major, minor := unix.Major(rdev), unix.Minor(rdev)
	if major == 10 && minor == 130 {
		return "/sys/class/watchdog/watchdog0"
	}
	return fmt.Sprintf("/sys/dev/char/%d:%d", major, minor)
}

func sysfs(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "" // an older kernel, or one without CONFIG_WATCHDOG_SYSFS: not known
	}
	return strings.TrimSpace(string(b))
}

func sysfsSeconds(dir, name string) time.Duration {
	n, err := strconv.ParseUint(sysfs(dir, name), 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// holds says whether the driver's limits hold a timeout.
func (d Driver) holds(path string, timeout time.Duration) error {
	switch {
	case timeout < d.Min:
		return fmt.Errorf("watchdog %s (%s): a timeout of %v is less than the driver's least, %v", path, d.Identity, timeout, d.Min)
	case d.Max > 0 && timeout > d.Max:
		return fmt.Errorf("watchdog %s (%s): a timeout of %v is more than the driver's most, %v", path, d.Identity, timeout, d.Max)
	}
	return nil
}

// fits says whether what a driver made of a timeout will do. Others count on the
// reset, so it may be later by no more than what the driver rounds; sooner is safe for them, and by half for us.
func fits(path, identity string, wanted, got time.Duration) error {
	if got >= wanted/2 && got <= wanted+time.Second {
		return nil
	}
	return fmt.Errorf("watchdog %s (%s): the driver makes a timeout of %v out of %v; write `timeout: %v`, or use softdog", path, identity, got, wanted, got)
}

// support is WDIOC_GETSUPPORT.
type support struct {
	identity string
	options  uint32 // WDIOF_*
}

// usable says whether a driver can do self-fencing at all.
func (s support) usable(path string, noWayOut bool) error {
	switch {
	case s.options&unix.WDIOF_ALARMONLY != 0:
		return fmt.Errorf("watchdog %s (%s): the driver raises an alarm and resets nothing; use another device, or softdog", path, s.identity)
	case s.options&unix.WDIOF_MAGICCLOSE == 0 && !noWayOut:
		return fmt.Errorf("watchdog %s (%s): the driver stops when the daemon dies (it has no magic close); load it with nowayout=1, or use softdog", path, s.identity)
	}
	return nil
}

// openError says what to do about a device that cannot be opened.
func openError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("watchdog %s: %w; load a driver: the hardware's, or `modprobe softdog` (and a line softdog in /etc/modules-load.d/keepbeat.conf)", path, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("watchdog %s: %w: %s", path, err, blame(holders("/proc", path)))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("watchdog %s: %w; the daemon has to be root, with no DeviceAllow= in its unit that leaves the device out", path, err)
	}
	return fmt.Errorf("watchdog %s: %w", path, err)
}
