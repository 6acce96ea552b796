package site

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/keepbeat/keepbeat/program"
)

// keptOutput is how much of what a program prints is kept, for the log.
const keptOutput = 512

// run runs a script or a notify program. It runs nothing that others than its
// user could change.
func run(ctx context.Context, user string, command []string) error {
	u, err := program.FindUser(user)
	if err != nil {
		return err
	}
	if err := program.Trusted(command[0], u.UID()); err != nil {
		return err
	}
	out, err := program.Command{Path: command[0], Args: command[1:], Env: u.Env, Credential: u.Credential, Keep: keptOutput}.Run(ctx)
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = errors.New("killed at its time-out")
	case errors.Is(err, context.Canceled):
		err = errors.New("killed, since keepbeat stops or has no use for it any more")
	}
	if text := oneLine(out); text != "" {
		return fmt.Errorf("%w; it printed: %s", err, text)
	}
	return err
}

func oneLine(b []byte) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(b), "?"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
}
