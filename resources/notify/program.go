package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/program"
)

const keptOutput = 2 << 10 // bytes of what a program prints that are kept, for the log

// run is program.Command.Run; the output is its beginning, in one line. Root
// runs nothing that others could change (program.Trusted): the error names the
// part of the path and the way out.
func run(ctx context.Context, path string, args, env []string, stdin []byte) (output string, err error) {
	if os.Geteuid() == 0 {
		err := program.Trusted(path, 0)
		if errors.Is(err, unix.ENOENT) { // the whole path tells more than the part that is missing
			err = fmt.Errorf("%s: %w", path, unix.ENOENT)
		}
		if err != nil {
			return "", err
		}
	}
	b, err := program.Command{Path: path, Args: args, Env: append([]string{"HOME=/"}, env...), Stdin: stdin, Keep: keptOutput}.Run(ctx)
	return oneLine(string(b)), err
}

// oneLine makes what a program printed fit for a line of the log.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
}
