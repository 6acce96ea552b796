package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepbeat/keepbeat/conf"
)

func TestCallbackIsRunOnceForEachNewVersionOfItsPool(t *testing.T) {
	dir, kept := t.TempDir(), t.TempDir()
	out, program := filepath.Join(dir, "out"), filepath.Join(dir, "callback")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$KEEPBEAT_VERSION $*\" >>"+out+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := &conf.Spec{Pools: map[string]conf.Pool{"web.yaml": {Callback: program}, "mail.yaml": {}}}
	write := func(version uint64, web, mail string, fails bool) {
		t.Helper()
		c := newCallbacks("director1", dir, kept, slog.New(slog.DiscardHandler))
		c.spec = func() *conf.Spec { return spec }
		files := conf.Files{Haresources: []byte("x"), Pools: map[string][]byte{"web.yaml": []byte(web), "mail.yaml": []byte(mail)}}
		tries := 1
		if fails {
			tries = 2
		}
		for range tries {
			c.before(version)
			if _, err := conf.WriteBack(dir, kept, version, files, time.Now()); err != nil {
				t.Fatal(err)
			}
			if fails { // before it was all written
				fails = false
				continue
			}
			c.after(version, files)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what waits is run all the same
		if err := c.run(ctx); err != nil {
			t.Error(err)
		}
	}
	write(1, "a", "a", false)
	write(1, "a", "a", false) // a daemon that starts again
	write(2, "a", "b", false) // another pool's
	write(3, "b", "b", true)
	write(9, "b", "b", false)
	write(10, "c", "b", false)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "web.yaml")
	if want := "1 " + path + "\n3 " + path + "\n10 " + path + "\n"; string(b) != want {
		t.Errorf("%s", b)
	}
}
