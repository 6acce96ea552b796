package link

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/conf"
)

// rates are the speeds of termios that are of use here: below 9600 baud no lease
// fits.
var rates = map[int]uint32{
	9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600,
	115200: unix.B115200, 230400: unix.B230400, 460800: unix.B460800, 921600: unix.B921600,
}

// serialLine is an open serial device, raw: 8 data bits, no parity, one stop bit,
// no flow control of any kind, modem lines ignored.
type serialLine struct {
	*os.File
	raw    syscall.RawConn
	device string
}

// openSerial opens a device. Its errors are reasons for a link to be down.
func openSerial(l conf.Link) (_ *serialLine, err error) {
	// Non-blocking: without it opening waits for a carrier, which a null-modem
	// cable may not give, and Close would not end a Read.
	fd, err := unix.Open(l.Device, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("%s: no such device", l.Device)
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s: another program has it: a getty, or a second keepbeat", l.Device)
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EIO):
		return nil, fmt.Errorf("%s: there is no serial port behind this device", l.Device)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", l.Device, err)
	}
	if err := setRaw(fd, l); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), l.Device)
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", l.Device, err)
	}
	return &serialLine{f, raw, l.Device}, nil
}

func setRaw(fd int, l conf.Link) error {
	wrap := func(what string, err error) error { return fmt.Errorf("%s: %s: %w", l.Device, what, err) }
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	switch {
	case errors.Is(err, unix.ENOTTY):
		return fmt.Errorf("%s: not a serial device", l.Device)
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%s: there is no serial port behind this device", l.Device)
	case err != nil:
		return wrap("line settings", err)
	}
	// Root is let in despite TIOCEXCL, so the lock is what keeps a second keepbeat
	// out; minicom's kin look at it too.
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s: another program has it locked: a terminal program, or a second keepbeat", l.Device)
	}
	if err := unix.IoctlSetInt(fd, unix.TIOCEXCL, 0); err != nil {
		return wrap("exclusive use", err)
	}
	rate, ok := rates[l.Baud]
	if !ok {
		return fmt.Errorf("%s: no rate of %d baud", l.Device, l.Baud)
	}
	t.Iflag = unix.IGNBRK | unix.IGNPAR // a pulled or shorted cable is a break; no byte comes of it
	t.Oflag, t.Lflag = 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | rate // without HUPCL: a restart drops no modem line
	t.Ispeed, t.Ospeed = rate, rate
	t.Cc = [19]uint8{}
	t.Cc[unix.VMIN] = 1 // with 0 a read of nothing looks like the end of the file
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return wrap("line settings", err)
	}
	// The call succeeds when anything of it could be set.
	got, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return wrap("line settings", err)
	}
	const must = unix.CBAUD | unix.CSIZE | unix.PARENB | unix.CRTSCTS
	if got.Cflag&must != t.Cflag&must || got.Iflag&(unix.IXON|unix.IXOFF|unix.ICRNL|unix.ISTRIP) != 0 || got.Lflag&(unix.ICANON|unix.ECHO) != 0 || got.Oflag&unix.OPOST != 0 {
		return fmt.Errorf("%s: the device does not take %d baud with 8 data bits, no parity and no flow control", l.Device, l.Baud)
	}
	if err := unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIOFLUSH); err != nil {
		return wrap("discard what is old", err)
	}
	return nil
}

// Unsent implements unsent. A device that cannot tell has sent all.
func (s *serialLine) Unsent() (n int) {
	_ = s.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	return n
}

func (s *serialLine) Read(b []byte) (int, error) {
	n, err := s.File.Read(b)
	return n, s.why(err)
}

func (s *serialLine) Write(b []byte) (int, error) {
	_ = s.SetWriteDeadline(time.Now().Add(stuckAfter))
	n, err := s.File.Write(b)
	return n, s.why(err)
}

// why says what an error of the device means.
func (s *serialLine) why(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s: %w", s.device, errStuck)
	case errors.Is(err, io.EOF), errors.Is(err, unix.EIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s: the device has gone", s.device)
	}
	return fmt.Errorf("%s: %w", s.device, err)
}
