package checks

import (
	"context"
	"errors"
)

// constant is checktype on and off: nobody is asked.
type constant struct{ up bool }

func (c constant) Check(context.Context) (string, error) {
	if c.up {
		return "checktype on: always up", nil
	}
	return "", errors.New("checktype off: never up")
}
