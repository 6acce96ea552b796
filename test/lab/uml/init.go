package uml

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Init is the first process of the lab kernel: it arranges the file system, runs
// the program that the file specFile names, writes down how it ended, and powers off.
func Init(specFile string) error {
	if os.Getpid() != 1 {
		return errors.New("this is the first process of the lab kernel, and not for use by hand")
	}
	var s spec
	b, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s: %w", specFile, err)
	}
	var st status
	if err := arrange(s.Pass); err != nil {
		st.Error = "arranging the file system: " + err.Error()
	} else if st.Exit, err = runProgram(s); err != nil {
		st.Error = err.Error()
	}
	if b, err = json.Marshal(st); err != nil {
		return err
	}
	// Written whole or not at all, for whoever looks after a crash.
	if err := os.WriteFile(s.Status+".new", b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(s.Status+".new", s.Status); err != nil {
		return err
	}
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func arrange(pass []string) error {
	// /etc and /var may be written to, and nothing of it reaches the machine.
	const layers = "/run/layers"
	if err := mount("proc", "/proc", ""); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", ""); err != nil {
		return err
	}
	if err := mount("devtmpfs", "/dev", ""); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "mode=755"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/tmp", "mode=1777"); err != nil {
		return err
	}
	for _, dir := range []string{"/dev/pts", "/dev/shm", "/run/netns", "/run/lock"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount("devpts", "/dev/pts", "ptmxmode=666"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/dev/shm", "mode=1777"); err != nil {
		return err
	}
	for link, to := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"} {
		if err := os.Symlink(to, link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for _, dir := range []string{"/etc", "/var"} {
		upper, work := layers+dir+"/upper", layers+dir+"/work"
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		if err := mount("overlay", dir, "lowerdir="+dir+",upperdir="+upper+",workdir="+work); err != nil {
			return err
		}
	}
	for _, dir := range pass {
		// Below the file systems just mounted the place has to be made; elsewhere it is there.
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		// The option of hostfs is the directory on the machine.
		if err := mount("hostfs", dir, dir); err != nil {
			return err
		}
	}
	return nil
}

func mount(fstype, at, options string) error {
	if err := unix.Mount(fstype, at, fstype, 0, options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", fstype, at, err)
	}
	return nil
}

func runProgram(s spec) (int, error) {
	stdout, err := openConsole("/dev/tty1")
	if err != nil {
		return 0, err
	}
	defer stdout.Close()
	stderr, err := openConsole("/dev/tty2")
	if err != nil {
		return 0, err
	}
	defer stderr.Close()
	for _, e := range s.Env {
		// exec.Command looks a program up in this process's PATH.
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			if err := os.Setenv("PATH", path); err != nil {
				return 0, err
			}
		}
	}
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Env, cmd.Dir = s.Env, s.Dir
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Base(s.Args[0]), err)
	}
	// Not cmd.Wait: as the first process we get every orphan, and the program's own end among them.
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("waiting for %s: %w", filepath.Base(s.Args[0]), err)
		case pid != cmd.Process.Pid:
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		default:
			return ws.ExitStatus(), nil
		}
	}
}

// openConsole opens a console that passes bytes through as they are.
func openConsole(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	t.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETSW, t); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}
