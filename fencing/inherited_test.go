package fencing

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// The daemon has just unmarked its watchdog, to take it along into the next one, when
// somebody applies a specification.
func TestWhatADaemonTakesAlongIsLeftAlone(t *testing.T) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], 0); err != nil {
		t.Fatal(err)
	}
	for _, fd := range ends {
		defer unix.Close(fd)
	}
	New(Config{Node: "a"})
	Validate(t.Context(), Config{Node: "a"}, &conf.Fencing{})
	for _, fd := range ends {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			t.Errorf("descriptor %d would be closed: flags %#x, %v", fd, flags, err)
		}
	}
}
