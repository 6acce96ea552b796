package conf

import (
	"errors"
	"io/fs"
)

// testSecrets stands for the files of passwords.
func testSecrets(path string) (string, error) {
	switch path {
	case "/secrets/good":
		return "hunter2", nil
	case "/secrets/long":
		return "hunter2hunter2", nil
	}
	return "", errors.Join(errors.New("cannot be read:"), fs.ErrNotExist)
}
