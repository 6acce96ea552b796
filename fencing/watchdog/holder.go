package watchdog

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// holder is a process that has a device open.
type holder struct {
	pid  int
	name string
}

// holders looks for who has the device open, in order of their numbers. proc is
// /proc. Processes of another PID namespace are not seen.
func holders(proc, device string) []holder {
	fds, err := filepath.Glob(proc + "/[0-9]*/fd/*")
	if err != nil {
		return nil
	}
	var found []holder
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !sameDevice(target, device) {
			continue // most likely the process has ended
		}
		dir := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || slices.ContainsFunc(found, func(h holder) bool { return h.pid == pid }) {
			continue
		}
		name, err := os.ReadFile(dir + "/comm")
		if err != nil {
			continue
		}
		found = append(found, holder{pid, strings.TrimSpace(string(name))})
	}
	slices.SortFunc(found, func(a, b holder) int { return a.pid - b.pid })
	return found
}

// sameDevice compares two paths. /dev/watchdog is another name of /dev/watchdog0.
func sameDevice(a, b string) bool {
	name := func(path string) string {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		if path == "/dev/watchdog" {
			return "/dev/watchdog0"
		}
		return path
	}
	return a == b || strings.HasPrefix(a, "/dev/") && name(a) == name(b)
}

// blame says who has the device and what to do.
func blame(found []holder) string {
	if len(found) == 0 {
		return "somebody has it open whom /proc does not show (another PID namespace?); stop that, or give keepbeat another device"
	}
	if h := found[0]; h.pid == 1 {
		return fmt.Sprintf("%s (process 1) has it open: RuntimeWatchdogSec= in /etc/systemd/system.conf; set it to 0 and reboot, or give keepbeat another device", h.name)
	}
	var names []string
	for _, h := range found {
		names = append(names, fmt.Sprintf("%s (process %d)", h.name, h.pid))
	}
	return strings.Join(names, ", ") + " has it open; stop that, or give keepbeat another device"
}
