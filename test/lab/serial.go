package lab

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// NullModem is a cable between two serial devices: pseudo-terminals, which every
// host sees under /dev/pts. It has no rate of its own.
type NullModem struct {
	Devices [2]string // for `serial:` of one host and of the other

	cut atomic.Bool
}

// NullModem lays a cable, which ends with the lab.
func (l *Lab) NullModem() *NullModem {
	l.t.Helper()
	n := &NullModem{}
	var ends [2]*os.File
	for i := range ends {
		var err error
		if ends[i], n.Devices[i], err = openPTY(); err != nil {
			l.t.Fatalf("lab: null modem: %v", err)
		}
	}
	var pumps sync.WaitGroup
	for i, from := range ends {
		pumps.Go(func() { n.pump(ends[1-i], from) })
	}
	l.t.Cleanup(func() {
		for _, f := range ends {
			f.Close()
		}
		pumps.Wait()
	})
	return n
}

// Cut takes the cable out, and Mend puts it back.
func (n *NullModem) Cut() { n.cut.Store(true) }

// Mend puts the cable back.
func (n *NullModem) Mend() { n.cut.Store(false) }

func (n *NullModem) pump(to, from *os.File) {
	var b [512]byte
	for {
		k, err := from.Read(b[:])
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil: // EIO: nobody has the device open
			time.Sleep(time.Millisecond)
		case !n.cut.Load():
			// Who does not read loses: a line has no memory.
			_ = to.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			_, _ = to.Write(b[:k])
		}
	}
}

// openPTY returns the side of a pseudo-terminal that stands for the cable, and the device.
func openPTY() (*os.File, string, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("/dev/ptmx: %w", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("pseudo-terminal: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "ptmx"), fmt.Sprintf("/dev/pts/%d", number), nil
}
