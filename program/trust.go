package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Trusted refuses a program that somebody other than root, or the user it runs
// as, could change: one that others own or may write, or that lies in a
// directory of which that is true, symbolic links on the way included. The error names
// the part of the path. Who may change what root runs is root.
//
// In a directory with the sticky bit, such as /tmp, others cannot replace what
// is not theirs, so that it may be written by all. It is keepalived's
// enable_script_security, always on.
func Trusted(path string, user uint32) error {
	dir, todo, links := "/", split(path), 0
	if err := trusted(dir, user); err != nil {
		return err
	}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		at := filepath.Join(dir, name)
		if err := trusted(at, user); err != nil {
			return err
		}
		target, err := os.Readlink(at)
		if err != nil { // no symbolic link
			dir = at
			continue
		}
		if links++; links > 40 { // the kernel's own limit
			return fmt.Errorf("%s: too many symbolic links", path)
		}
		if filepath.IsAbs(target) {
			dir = "/"
		}
		todo = append(split(target), todo...)
	}
	return nil
}

// split returns the names of a path without the empty ones and ".".
func split(path string) []string {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}

// trusted looks at one part of a path.
func trusted(at string, user uint32) error {
	fi, err := os.Lstat(at)
	if err != nil {
		return Bare(at, err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner is not known", at)
	}
	mode := fi.Mode()
	switch {
	case st.Uid != 0 && st.Uid != user:
		return fmt.Errorf("%s belongs to user %d, who could put another program there that then runs as %s; chown root %s",
			at, st.Uid, userName(user), at)
	case mode&fs.ModeSymlink != 0, mode.IsDir() && mode&fs.ModeSticky != 0:
		return nil
	case mode&0o002 != 0:
		return fmt.Errorf("%s may be written by everybody, who could put another program there that then runs as %s; chmod o-w %s",
			at, userName(user), at)
	case mode&0o020 != 0 && st.Gid != 0:
		return fmt.Errorf("%s may be written by group %d, which could put another program there that then runs as %s; chmod g-w %s",
			at, st.Gid, userName(user), at)
	}
	return nil
}

func userName(id uint32) string {
	if id == 0 {
		return "root"
	}
	return fmt.Sprintf("user %d", id)
}

// Bare says an error of a path once.
func Bare(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", path, err)
}
