package checks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

const (
	// switchSize is how much of a file is looked at: a word and a reason.
	switchSize = 512
	// switchPause is given to whoever is just writing: a shell empties the file
	// first, and empty means up.
	switchPause = 20 * time.Millisecond
)

// file is checktype file: a file on the director is the operator's switch for a
// server. It is read at each interval. Its first word counts, in any case; what
// follows on the line is the reason, which status shows.
//
//	no such file, empty    up: nobody has said anything
//	up, on, yes            up
//	down, off, no          down
//	a number               as keepalived's FILE_CHECK takes it, 0 is up and any other is down;
//	                       with Dynamic it is the weight, 0 to 65535, of a server that is up
//
// Anything else is down, and status says why: who wrote it wanted a change. A
// file that is there and cannot be read is no verdict.
type file struct {
	path    string
	dynamic bool

	weighed bool // what the last Check that succeeded found
	weight  int
}

func newFile(c conf.Check) (Checker, error) {
	switch {
	case c.Path == "":
		return nil, errors.New("checktype file needs the path of the file")
	case !filepath.IsAbs(c.Path):
		return nil, fmt.Errorf("file %s: write the whole path, from /", c.Path)
	}
	return &file{path: c.Path, dynamic: c.Dynamic}, nil
}

// Weight implements Weigher.
func (k *file) Weight() (int, bool) { return k.weight, k.weighed }

func (k *file) Check(ctx context.Context) (string, error) {
	b, err := k.read()
	if err == nil && len(bytes.TrimSpace(b)) == 0 {
		select {
		case <-time.After(switchPause):
		case <-ctx.Done():
		}
		b, err = k.read()
	}
	if errors.Is(err, fs.ErrNotExist) {
		k.weighed = false
		return "up: no file " + k.path, nil
	}
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return "", localError{fmt.Errorf("file %s: %w", k.path, err)}
	}
	s := parseSwitch(b, k.dynamic)
	if s.err != nil {
		return "", fmt.Errorf("file %s: %w", k.path, s.err)
	}
	k.weighed, k.weight = s.weighed, s.weight
	return s.says, nil
}

func (k *file) read() ([]byte, error) {
	// Without O_NONBLOCK the open of a pipe would wait for somebody to write.
	f, err := os.OpenFile(k.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil {
		return nil, err
	} else if !fi.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	b := make([]byte, switchSize)
	n, err := io.ReadFull(f, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return b[:n], err
}

// setting is what a file says. err: down, and why.
type setting struct {
	says    string
	weighed bool
	weight  int
	err     error
}

func parseSwitch(b []byte, dynamic bool) setting {
	line := firstLine(b)
	word, reason, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
	says := strings.TrimSpace(line)
	switch strings.ToLower(strings.TrimSuffix(word, ":")) {
	case "":
		return setting{says: "up: the file is empty"}
	case "up", "on", "yes":
		return setting{says: says}
	case "down", "off", "no":
		if reason = strings.TrimSpace(reason); reason == "" {
			return setting{err: errors.New("switched off")}
		}
		return setting{err: errors.New("switched off: " + reason)}
	}
	n, err := strconv.Atoi(word)
	switch {
	case err != nil && dynamic:
		return setting{err: fmt.Errorf("%s is no switch; write up, down, or a weight from 0 to 65535", quote([]byte(word)))}
	case err != nil:
		return setting{err: fmt.Errorf("%s is no switch; write up or down", quote([]byte(word)))}
	case dynamic && (n < 0 || n > 65535):
		return setting{err: fmt.Errorf("weight %d: want 0 to 65535, or up or down", n)}
	case dynamic:
		return setting{says: says, weighed: true, weight: n}
	case n != 0:
		return setting{err: fmt.Errorf("status %d; 0 is up", n)}
	}
	return setting{says: says}
}
