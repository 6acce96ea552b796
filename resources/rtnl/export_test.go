package rtnl

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Shrink leaves the kernel room for a few events only. The caller holds Lock.
func (w *Watch) Shrink(t testing.TB) {
	if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4096); err != nil {
		t.Fatal(err)
	}
}

// Break ends the subscription behind its back. The caller holds Lock.
func (w *Watch) Break() { go w.file.Close() }
