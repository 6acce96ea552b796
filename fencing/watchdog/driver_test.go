package watchdog

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenErrorsSayTheWayOut(t *testing.T) {
	const device = "/dev/watchdog-of-nobody"
	for _, tc := range []struct {
		err  error
		want string
	}{
		{unix.ENOENT, "watchdog /dev/watchdog-of-nobody: no such file or directory; load a driver: the hardware's, or `modprobe softdog` (and a line softdog in /etc/modules-load.d/keepbeat.conf)"},
		{unix.ENODEV, "watchdog /dev/watchdog-of-nobody: no such device; load a driver: the hardware's, or `modprobe softdog` (and a line softdog in /etc/modules-load.d/keepbeat.conf)"},
		{unix.EBUSY, "watchdog /dev/watchdog-of-nobody: device or resource busy: somebody has it open whom /proc does not show (another PID namespace?); stop that, or give keepbeat another device"},
		{unix.EPERM, "watchdog /dev/watchdog-of-nobody: operation not permitted; the daemon has to be root, with no DeviceAllow= in its unit that leaves the device out"},
		{unix.EIO, "watchdog /dev/watchdog-of-nobody: input/output error"},
	} {
		if got := openError(device, tc.err).Error(); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

// processes makes a directory as /proc: each process by number and name, with what it has open.
func processes(t *testing.T, all map[int][]string) string {
	t.Helper()
	proc := t.TempDir()
	for pid, words := range all {
		dir := filepath.Join(proc, fmt.Sprint(pid))
		if err := os.MkdirAll(dir+"/fd", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/comm", []byte(words[0]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for fd, target := range words[1:] {
			if err := os.Symlink(target, fmt.Sprintf("%s/fd/%d", dir, fd)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return proc
}

func TestWhoHasTheDevice(t *testing.T) {
	for name, tc := range map[string]struct {
		processes map[int][]string
		device    string
		want      string
	}{
		"another cluster manager": {
			map[int][]string{812: {"sbd", "/dev/null", "/dev/watchdog"}, 900: {"bash", "/dev/pts/1", "/dev/watchdog1"}}, "/dev/watchdog",
			"sbd (process 812) has it open; stop that, or give keepbeat another device",
		},
		"systemd": {
			map[int][]string{1: {"systemd", "/dev/null", "/dev/watchdog0"}}, "/dev/watchdog",
			"systemd (process 1) has it open: RuntimeWatchdogSec= in /etc/systemd/system.conf; set it to 0 and reboot, or give keepbeat another device",
		},
		"several, by number": {
			map[int][]string{77: {"b", "/dev/watchdog1", "/dev/watchdog1"}, 12: {"a", "/dev/watchdog1"}}, "/dev/watchdog1",
			"a (process 12), b (process 77) has it open; stop that, or give keepbeat another device",
		},
		"sockets and pipes are no device": {
			map[int][]string{77: {"b", "socket:[123]", "pipe:[7]"}}, "/dev/watchdog",
			"somebody has it open whom /proc does not show (another PID namespace?); stop that, or give keepbeat another device",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := blame(holders(processes(t, tc.processes), tc.device)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestLookAtWhatIsNoDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Look(path); err == nil || err.Error() != "watchdog "+path+": not a character device; /dev/watchdog is the usual one" {
		t.Error(err)
	}
}
