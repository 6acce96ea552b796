package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whoever starts the program may have left descriptors open: what it runs is not to have them.
func TestWhatTheProgramInheritsIsNotHandedOn(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "control")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_ = l.SetDeadline(time.Now().Add(time.Minute))
	cmd := exec.Command(filepath.Join(binDir, "keepbeat"), "--socket", socket, "status")
	cmd.ExtraFiles = []*os.File{os.Stderr} // 3
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	conn, err := l.Accept() // it waits for an answer from here on
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/3", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(info), "flags:")
	var flags int
	if _, err := fmt.Sscanf(strings.TrimSpace(rest), "%o", &flags); err != nil || flags&unix.O_CLOEXEC == 0 {
		t.Errorf("it is open in every program: flags %#o, %v\n%s", flags, err, info)
	}
}
