package api

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestADaemonThatHangsIsToldFromOneThatIsNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	l, err := net.Listen("unix", path) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = NewClientAt(path).Local(ctx)
	if want := "the daemon behind " + path + " does not answer in time: look at its log (a command may have been done all the same)"; err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err = NewClientAt(path).Local(ctx); err == nil || err.Error() != "interrupted (a command may have been done all the same)" {
		t.Errorf("after an interrupt the error is %v", err)
	}
}
