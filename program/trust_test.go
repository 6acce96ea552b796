package program

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const nobody = 65534 // on every Linux

func TestWhatRootRunsNobodyElseMayChange(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	for _, tc := range []struct {
		name  string
		spoil func(dir string) error // of dir/a/b/check
		path  string                 // below dir; empty: a/b/check
		user  uint32
		want  string // with DIR for the directory; empty: trusted
	}{
		{"root's own", nil, "", 0, ""},
		{"the program may be written by all", chmod("a/b/check", 0o757), "", 0,
			"DIR/a/b/check may be written by everybody, who could put another program there that then runs as root; chmod o-w DIR/a/b/check"},
		{"the program may be written by a group", both(chown("a/b/check", 0, 100), chmod("a/b/check", 0o775)), "", 0,
			"DIR/a/b/check may be written by group 100, which could put another program there that then runs as root; chmod g-w DIR/a/b/check"},
		{"root's group is root", chmod("a/b/check", 0o775), "", 0, ""},
		{"the program belongs to somebody", chown("a/b/check", nobody, 0), "", 0,
			"DIR/a/b/check belongs to user 65534, who could put another program there that then runs as root; chown root DIR/a/b/check"},
		{"it belongs to the user it runs as", chown("a/b/check", nobody, 0), "", nobody, ""},
		{"it belongs to another than the user it runs as", chown("a/b/check", 1, 0), "", nobody,
			"DIR/a/b/check belongs to user 1, who could put another program there that then runs as user 65534; chown root DIR/a/b/check"},
		{"a directory above may be written by all", chmod("a", 0o777), "", 0,
			"DIR/a may be written by everybody, who could put another program there that then runs as root; chmod o-w DIR/a"},
		{"a directory that all may write with the sticky bit", chmod("a", 0o777|os.ModeSticky), "", 0, ""},
		{"a directory above belongs to somebody", chown("a", nobody, 0), "", 0,
			"DIR/a belongs to user 65534, who could put another program there that then runs as root; chown root DIR/a"},
		{"a link to a good program", link("a/b/check", "link"), "link", 0, ""},
		{"a link that somebody owns", both(link("a/b/check", "link"), chown("link", nobody, 0)), "link", 0,
			"DIR/link belongs to user 65534, who could put another program there that then runs as root; chown root DIR/link"},
		{"a link into a directory that all may write", both(link("a/b/check", "link"), chmod("a/b", 0o777)), "link", 0,
			"DIR/a/b may be written by everybody, who could put another program there that then runs as root; chmod o-w DIR/a/b"},
		{"a link by way of such a directory", both(link("../a/b/check", "bad/link"), link("bad/link", "link")), "link", 0,
			"DIR/bad may be written by everybody, who could put another program there that then runs as root; chmod o-w DIR/bad"},
		{"dots", nil, "a/./b/../b/check", 0, ""},
		{"dots by way of such a directory", nil, "bad/../a/b/check", 0,
			"DIR/bad may be written by everybody, who could put another program there that then runs as root; chmod o-w DIR/bad"},
		{"a loop", link("loop", "loop"), "loop", 0, "DIR/loop: too many symbolic links"},
		{"nothing there", nil, "a/b/none", 0, "DIR/a/b/none: no such file or directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			err := errors.Join(
				os.MkdirAll(dir+"/a/b", 0o755), os.Mkdir(dir+"/bad", 0o755), os.Chmod(dir+"/bad", 0o777),
				os.WriteFile(dir+"/a/b/check", []byte("#!/bin/sh\n"), 0o755))
			if err == nil && tc.spoil != nil {
				err = tc.spoil(dir)
			}
			if err != nil {
				t.Fatal(err)
			}
			path := tc.path
			if path == "" {
				path = "a/b/check"
			}
			got := ""
			if err := Trusted(dir+"/"+path, tc.user); err != nil {
				got = strings.ReplaceAll(err.Error(), dir, "DIR")
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func chmod(name string, mode os.FileMode) func(string) error {
	return func(dir string) error { return os.Chmod(filepath.Join(dir, name), mode) }
}

func chown(name string, uid, gid int) func(string) error {
	return func(dir string) error { return os.Lchown(filepath.Join(dir, name), uid, gid) }
}

func link(target, name string) func(string) error {
	return func(dir string) error {
		return os.Symlink(target, filepath.Join(dir, name))
	}
}

func both(one, two func(string) error) func(string) error {
	return func(dir string) error { return errors.Join(one(dir), two(dir)) }
}
