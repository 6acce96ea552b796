package program

import (
	"context"
	"os"
	"syscall"
	"testing"
)

func TestAProgramIsAwaitedWithoutPidfd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cmd, err := os.StartProcess("/bin/sleep", []string{"sleep", "300"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		t.Fatal(err)
	}
	if !awaitBlocking(ctx, cmd.Pid) {
		t.Error("it said that a killed program ended by itself")
	}
	if _, err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
