// Command keepbeat is the cluster resource manager: the daemon and its commands.
package main

import (
	"fmt"
	"log/slog"
	"os"
)

// version is set by the linker.
var version = "dev"

func main() {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var err error
	config := "/etc/keepbeat/ha.yaml"
	if len(os.Args) > 2 {
		config = os.Args[2]
	}
	switch {
	case len(os.Args) > 1 && os.Args[1] == "run":
		err = run(config, logger)
	case len(os.Args) > 1 && os.Args[1] == "release":
		err = release(config, logger)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "keepbeat:", err)
		os.Exit(1)
	}
}
