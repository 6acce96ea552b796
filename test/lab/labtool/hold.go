package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// hold is the first process of a host. The lab starts it in new namespaces; it
// gives them a name and their own files, says ready, and stays. When its
// standard input ends, which happens also when the lab is killed, it exits, and
// the kernel ends every process of the host and takes its interfaces away.
//
// Each mount is DIRECTORY=PLACE: DIRECTORY of this machine appears at PLACE.
func hold(_ context.Context, args []string) error {
	if len(args) < 1 {
		return errors.New("which name?")
	}
	if os.Getpid() != 1 {
		return errors.New("this is started by the lab in new namespaces, and not by hand")
	}
	if err := furnish(args[0], args[1:]); err != nil {
		return err
	}

	// Orphans of the host's processes become ours, as with any first process.
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		for range died {
			for {
				pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
				if err != nil || pid <= 0 {
					break
				}
			}
		}
	}()

	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func furnish(name string, mounts []string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	for _, m := range mounts {
		from, to, ok := strings.Cut(m, "=")
		if !ok {
			return fmt.Errorf("mount %q: want DIRECTORY=PLACE", m)
		}
		if err := os.MkdirAll(to, 0o755); err != nil {
			return fmt.Errorf("mount %q: %w", m, err)
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %q: %w", m, err)
		}
	}
	// After the binds, whose sources may lie below /run. With an own /run no host meets
	// another's sockets, nor this machine's systemd.
	for _, m := range []struct{ fstype, at, options string }{
		{"tmpfs", "/run", "mode=755"},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
	} {
		if err := unix.Mount(m.fstype, m.at, m.fstype, 0, m.options); err != nil {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	for _, dir := range []string{"/run/keepbeat", "/run/netns", "/run/lock"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}
