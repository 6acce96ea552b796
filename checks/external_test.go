package checks

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func script(t *testing.T, body string) conf.Check {
	t.Helper()
	path := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return conf.Check{
		Type: conf.External, Command: path, Args: "10.0.0.1 80 10.0.0.5 8080",
		Target: netip.MustParseAddrPort("10.0.0.5:8080"), Timeout: 10 * time.Second,
	}
}

func TestExternal(t *testing.T) {
	t.Setenv("KEEPBEAT_SECRET", "leak")
	for _, tc := range []struct{ name, body, want string }{
		{"exit 0 is up", "exit 0", "exit status 0"},
		{"the first line is the detail", "echo; echo all well; echo more", "all well"},
		{"the four arguments", `echo "$# $1 $2 $3 $4"`, "4 10.0.0.1 80 10.0.0.5 8080"},
		{"a clean environment", `echo "$KEEPBEAT_SECRET:$LANG:$PWD"`, ":C:/"},
		{"no input", "read x || echo none", "none"},
		{"any other exit is down", "exit 3", "!exit status 3"},
		{"and says why", "echo no route >&2; exit 1", "!exit status 1: no route"},
		{"a signal", "kill -9 $$", "!signal: killed"},
		{"output that moves the cursor", `printf '\033[2J\377'; exit 0`, "?[2J?"},
		{"more output than anybody reads", "yes | head -c 10000000; exit 0", "y"},
		{"a child that holds the output open", "sleep 300 & echo done", "done"},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, script(t, tc.body), tc.want) })
	}
}

func TestExternalThatHangsSaysSo(t *testing.T) {
	c := script(t, "sleep 300")
	c.Timeout = 100 * time.Millisecond
	expect(t, c, "!checkcommand: no answer within 100ms")
}
