package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// LoadLocal reads ha.yaml and asks the kernel for the name of this node.
func LoadLocal(path string) (*Local, []Warning, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return nil, nil, fmt.Errorf("name of this node: %w", err)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	l, warns, err := ParseLocal(path, data, hostname)
	if err == nil {
		l.ConfDir, err = filepath.Abs(l.ConfDir)
	}
	if err != nil {
		return nil, warns, err
	}
	return l, warns, nil
}

// LoadSpec reads haresources.yaml and its pools from a directory.
func LoadSpec(dir string, local *Local) (*Spec, []Warning, error) {
	files, err := ReadFiles(dir)
	if err != nil {
		return nil, nil, err
	}
	return ParseSpec(files, local)
}

// ReadFiles reads haresources.yaml, the pools that it names and the files that
// these execute, unchecked. A pool that does not exist is left out; ParseSpec
// says where it is named.
func ReadFiles(dir string) (Files, error) {
	files := Files{Name: filepath.Join(dir, HaresourcesName)}
	var err error
	if files.Haresources, err = readFile(files.Name); err != nil {
		return Files{}, err
	}
	if err := files.ReadPools(dir); err != nil {
		return Files{}, err
	}
	return files, nil
}

// ReadPools reads from a directory what Haresources names, and what is executed.
func (f *Files) ReadPools(dir string) error {
	var err error
	f.Pools, err = readPools(dir, namedPools(f.Haresources))
	return err
}

// readPools reads pools and what they execute. One that does not exist is left out.
func readPools(dir string, names []string) (map[string][]byte, error) {
	pools := map[string][]byte{}
	_, err := follow(names, func(name string) ([]byte, error) {
		data, err := readFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err == nil {
			pools[name] = data
		}
		return data, err
	})
	return pools, err
}

// namedPools returns the plain names of the pools that a haresources.yaml
// names, as far as it can be understood, in no particular order.
func namedPools(haresources []byte) []string {
	s := &specReader{reader: &reader{}, spec: &Spec{}}
	s.init()
	if root := s.document(haresources); root != nil {
		s.haresources(root)
	}
	names := make([]string, 0, len(s.poolAt))
	for name := range s.poolAt {
		names = append(names, name)
	}
	return names
}

// readFile reads a file of limited size. Errors are of type Errors and wrap the cause.
func readFile(path string) ([]byte, error) {
	// A FIFO under that name would hang the daemon.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer f.Close()
	return readOpen(f, path, MaxFile)
}

func readOpen(f *os.File, path string, limit int64) ([]byte, error) {
	if st, err := f.Stat(); err != nil {
		return nil, fileError(path, err)
	} else if !st.Mode().IsRegular() {
		return nil, Errors{{File: path, Msg: "is not a file; name a plain file"}}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fileError(path, err)
	}
	if int64(len(data)) > limit {
		return nil, Errors{{File: path, Msg: fmt.Sprintf("the file has more than %d bytes, the limit", limit)}}
	}
	return data, nil
}

// pathError is an Errors of one line that keeps its cause for errors.Is.
type pathError struct {
	Errors
	cause error
}

func (e *pathError) Unwrap() []error { return append(e.Errors.Unwrap(), e.cause) }

func fileError(path string, err error) error {
	cause := err
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	msg := err.Error()
	if errors.Is(cause, fs.ErrNotExist) {
		msg = "no such file; " + missing(path)
	}
	return &pathError{Errors{{File: path, Msg: msg}}, cause}
}

func missing(path string) string {
	if strings.HasSuffix(path, ".yaml") {
		return "see the examples that come with keepbeat for how it looks"
	}
	return "write it first"
}
