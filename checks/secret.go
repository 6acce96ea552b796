package checks

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
)

// maxSecret bounds a file with a password or secret, in bytes.
const maxSecret = 4 << 10

// readSecret returns value, or with a file what that file holds now, without
// one line end: it is read for every check, so that a password can be changed
// without a new version of the configuration. Errors name the file and never
// what is in it; they are no verdict on the server (Local).
func readSecret(value, file string) ([]byte, error) {
	if file == "" {
		return []byte(value), nil
	}
	b, err := readRegular(file, maxSecret)
	if err != nil {
		return nil, secretError(file, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 { // LDAP takes an empty password for no password, and says yes
		return nil, secretError(file, errors.New("it is empty"))
	}
	return b, nil
}

func secretError(file string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return localError{fmt.Errorf("password from %s: %w", file, err)}
}

// quoteWithout shows what a server said, as quote does, unless it holds the
// secret in any case: a blank in its place would tell it as well.
func quoteWithout(secret, p []byte) string {
	if len(secret) > 0 && bytes.Contains(bytes.ToLower(p), bytes.ToLower(secret)) {
		return "(words that hold the password and are not shown)"
	}
	return quote(p)
}
