package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// checkName is the name under which a program is called to check a log.
const checkName = "keepbeat: checking the log"

// checkTime bounds the check; a log that takes longer is opened unchecked.
const checkTime = 20 * time.Second

// CheckIfAsked returns at once unless this process was started by CheckLog;
// then it looks at the log and does not return. It has to be the first thing in
// main of a program that calls CheckLog.
func CheckIfAsked() {
	if len(os.Args) != 2 || os.Args[0] != checkName {
		return
	}
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func check(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second, PreLoadFreelist: true, NoFreelistSync: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil // in use: whoever opens it in earnest says so
	}
	if err != nil {
		return err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, db.Close())
	}
	c, err := contentsOf(db)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	b, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{ReadOnly: true, Timeout: time.Second}})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Close()
	return sealed{b, path}.verify(c)
}

// CheckLog says what is wrong with raft.db in dir, and the way out; nil when it
// is whole, is not there, or could not be checked.
//
// bbolt trusts what it reads: over a damaged page it panics, or the kernel
// sends SIGBUS, in goroutines of its own where nobody can recover. So another
// process of this program looks first.
func CheckLog(dir string) error {
	path := filepath.Join(dir, "raft.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", path)
	cmd.Args[0] = checkName
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || ctx.Err() != nil {
		return nil
	}
	// A crash is told by its first lines; the goroutines after them are of no use here.
	line, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
	if line == "" {
		line = exit.Error()
	}
	if strings.HasPrefix(line, path) {
		return errors.New(line) // it says all of it
	}
	return &DamagedError{path, line}
}
