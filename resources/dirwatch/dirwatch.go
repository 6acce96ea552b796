// Package dirwatch tells which names in a directory have changed, by inotify(7).
package dirwatch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Everything by which the content behind a name in the directory may change:
// written in place, or renamed over it, as most editors do.
const mask = unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// ErrGone says that the directory is not at its path any more.
var ErrGone = errors.New("the directory was moved or removed")

// Notify tells of each changed name in dir, and with an empty name when it has
// begun and when the kernel has lost some: then anything may have changed. It
// returns when ctx ends or the directory is gone.
func Notify(ctx context.Context, dir string, tell func(name string)) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	tell("") // what changed before the watch stood
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return err
		}
		gone := false
		err = events(buf[:n], func(bits uint32, name string) {
			switch {
			case bits&(unix.IN_IGNORED|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT) != 0:
				gone = true
			case bits&unix.IN_Q_OVERFLOW != 0:
				tell("")
			case name != "":
				tell(name)
			}
		})
		if err != nil {
			return err
		}
		if gone {
			return ErrGone
		}
	}
}

// events reads inotify(7) events: descriptor, mask, cookie and length of the
// name, four bytes each, then the name, filled up with zeros.
func events(b []byte, each func(mask uint32, name string)) error {
	for len(b) > 0 {
		if len(b) < unix.SizeofInotifyEvent {
			return errors.New("inotify: an event is cut short")
		}
		bits, size := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
		b = b[unix.SizeofInotifyEvent:]
		if uint64(size) > uint64(len(b)) {
			return errors.New("inotify: a name is cut short")
		}
		name, _, _ := bytes.Cut(b[:size], []byte{0})
		each(bits, string(name))
		b = b[size:]
	}
	return nil
}
