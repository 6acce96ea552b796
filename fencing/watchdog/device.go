package watchdog

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is an open watchdog device, which is running therefore.
type device interface {
	support() (support, error)
	// setTimeout returns what the driver made of it.
	setTimeout(time.Duration) (time.Duration, error)
	timeout() (time.Duration, error)
	// left is how long until it bites, in whole seconds; errors.ErrUnsupported where the driver does not know.
	left() (time.Duration, error)
	feed() error
	// stop ends it; errNoWayOut when nothing does, errors.ErrUnsupported where only closing may.
	stop() error
	// release closes it, with the magic character if it is to stop.
	release(magic bool) error
	// number is its descriptor.
	number() int
}

var errNoWayOut = errors.New("the driver does not stop once started (nowayout)")

// system is what of Linux is replaced in tests.
type system struct {
	look func(path string) (Driver, error)
	open func(path string) (device, error)
	// inherit takes over a descriptor if it is one of a watchdog device, and says whether it is path's.
	inherit func(fd int, path string) (d device, same bool, err error)
	exec    func(path string, argv, env []string) error
	// monotonic is CLOCK_MONOTONIC: it means the same before and after a re-exec.
	monotonic func() time.Duration
}

var linux = system{look: Look, open: openDevice, inherit: inheritDevice, exec: unix.Exec, monotonic: monotonic}

func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// chardev is a device by its descriptor. Not an os.File: its descriptor has one
// owner, who passes it through an exec, and no poller may have a part in it.
type chardev int

func openDevice(path string) (device, error) {
	for {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, openError(path, err)
		}
		return chardev(fd), nil
	}
}

func inheritDevice(fd int, path string) (device, bool, error) {
	var st, want unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, false, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return nil, false, fmt.Errorf("descriptor %d is not a device", fd)
	}
	if _, err := unix.IoctlGetWatchdogInfo(fd); err != nil {
		return nil, false, fmt.Errorf("descriptor %d is not a watchdog: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	same := path != "" && unix.Stat(path, &want) == nil && want.Mode&unix.S_IFMT == unix.S_IFCHR && want.Rdev == st.Rdev
	return chardev(fd), same, nil
}

func (c chardev) number() int { return int(c) }

func (c chardev) support() (support, error) {
	info, err := unix.IoctlGetWatchdogInfo(int(c))
	if err != nil {
		return support{}, fmt.Errorf("WDIOC_GETSUPPORT: %w", err)
	}
	return support{unix.ByteSliceToString(info.Identity[:]), info.Options}, nil
}

func (c chardev) setTimeout(d time.Duration) (time.Duration, error) {
	seconds := int32(d / time.Second)
	if err := c.ioctl(unix.WDIOC_SETTIMEOUT, &seconds); err != nil {
		return 0, fmt.Errorf("WDIOC_SETTIMEOUT: %w", err)
	}
	return time.Duration(seconds) * time.Second, nil
}

func (c chardev) timeout() (time.Duration, error) {
	return c.seconds("WDIOC_GETTIMEOUT", unix.WDIOC_GETTIMEOUT)
}
func (c chardev) left() (time.Duration, error) {
	return c.seconds("WDIOC_GETTIMELEFT", unix.WDIOC_GETTIMELEFT)
}

func (c chardev) seconds(name string, request uintptr) (time.Duration, error) {
	var n int32
	err := c.ioctl(request, &n)
	if errors.Is(err, unix.ENOTTY) {
		err = errors.ErrUnsupported
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return time.Duration(n) * time.Second, nil
}

// feed writes, which every driver takes; WDIOC_KEEPALIVE only some.
func (c chardev) feed() error {
	for {
		_, err := unix.Write(int(c), []byte{0})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// stop asks the kernel to disable the device, which closing does as well but does not answer.
func (c chardev) stop() error {
	option := int32(unix.WDIOS_DISABLECARD)
	err := c.ioctl(unix.WDIOC_SETOPTIONS, &option)
	switch {
	case errors.Is(err, unix.EBUSY):
		return errNoWayOut
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
		return errors.ErrUnsupported
	}
	return err
}

func (c chardev) release(magic bool) error {
	var err error
	if magic {
		_, err = unix.Write(int(c), []byte{'V'})
	}
	return errors.Join(err, unix.Close(int(c)))
}

func (c chardev) ioctl(request uintptr, value *int32) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c), request, uintptr(unsafe.Pointer(value)))
	if errno != 0 {
		return errno
	}
	return nil
}
