package checks

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

func TestExternalProgramsDoNotInheritTheDaemonsPrivileges(t *testing.T) {
	before, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setpriority(unix.PRIO_PGRP, 0, -10); err != nil {
		t.Fatalf("this test needs root: %v", err)
	}
	defer func() { _ = unix.Setpriority(unix.PRIO_PGRP, 0, 20-before) }()
	path := filepath.Join(t.TempDir(), "nice.sh")
	// The program may run before its parent has changed it.
	script := "#!/bin/sh\nuntil [ $(nice) = 0 ]; do sleep 0.01; done\necho nice 0\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := NewChecker(conf.Check{Type: conf.External, Command: path})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := c.Check(ctx); err != nil || out != "nice 0" {
		t.Errorf("the program says %q, %v; want nice 0", out, err)
	}
}
