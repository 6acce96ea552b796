package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSecretFile is what is read of a file for a password.
const maxSecretFile = 4096

// ReadSecret returns the first line of a file that nobody but its owner and
// its group may read. No error has anything of its content in it.
func ReadSecret(path string) (string, error) {
	// A FIFO under that name would hang the start.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", errors.New("cannot be read")
	case !st.Mode().IsRegular():
		return "", errors.New("cannot be read: it is not a file")
	case st.Mode().Perm()&0o007 != 0:
		return "", errors.New("can be read by everybody; run: chmod 600 " + path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return "", errors.New("cannot be read")
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}
