package watchdog

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handoverVariable tells the program after a re-exec about the device: "PID FD UNTIL".
const handoverVariable = "KEEPBEAT_WATCHDOG"

// MaxGrace bounds Exec's grace.
const MaxGrace = 2 * time.Minute

// handover is a device that passes through an exec.
type handover struct {
	pid   int // an exec keeps it; a child that inherits the variable has another
	fd    int
	until time.Duration // CLOCK_MONOTONIC
}

func (h handover) String() string { return fmt.Sprintf("%d %d %d", h.pid, h.fd, int64(h.until)) }

func parseHandover(s string) (handover, error) {
	bad := fmt.Errorf("%s=%q: want a process, a descriptor and an instant", handoverVariable, s)
	words := strings.Split(s, " ")
	if len(words) != 3 {
		return handover{}, bad
	}
	pid, err1 := strconv.ParseInt(words[0], 10, 32)
	fd, err2 := strconv.ParseInt(words[1], 10, 32)
	until, err3 := strconv.ParseInt(words[2], 10, 64)
	if errors.Join(err1, err2, err3) != nil || pid < 1 || fd < 3 || until < 0 {
		return handover{}, bad
	}
	return handover{int(pid), int(fd), time.Duration(until)}, nil
}

// Exec replaces the process by another program, or another version of this one,
// and leaves it the device: open, fed up to the last instant, and fed again from New on. For grace (0 to
// MaxGrace; the length of the lease that was taken for the restart is the right one) from now on it is fed although
// it is not armed yet. So no restart that works resets the machine, and one
// that does not (the program is broken, hangs, or does not get as far as Arm) ends in a reset.
// It returns only with an error; then everything is as before.
func (w *Watchdog) Exec(path string, argv, env []string, grace time.Duration) error {
	w.op.Lock()
	defer w.op.Unlock()
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, handoverVariable+"=") })
	w.mu.Lock()
	dev := w.dev
	w.mu.Unlock()
	if dev == nil {
		return w.sys.exec(path, argv, env)
	}
	if why := w.starved.Load(); why != nil {
		return fmt.Errorf("watchdog %s: %w: %s", w.cfg.Device, ErrStarved, *why)
	}
	h := handover{os.Getpid(), dev.number(), w.sys.monotonic() + min(max(grace, 0), MaxGrace)}
	env = append(env, handoverVariable+"="+h.String())
	// Nothing is forked meanwhile: a child with the descriptor would keep the device open.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := closeOnExec(h.fd, false); err != nil {
		return fmt.Errorf("watchdog %s: passing it on: %w", w.cfg.Device, err)
	}
	err := w.sys.exec(path, argv, env)
	return errors.Join(err, closeOnExec(h.fd, true))
}

func closeOnExec(fd int, on bool) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		return err
	}
	if flags &^= unix.FD_CLOEXEC; on {
		flags |= unix.FD_CLOEXEC
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
	return err
}

// takeOver takes the device over that this process had before Exec. One that the
// configuration does not name any more is kept as well, until Arm: what the daemon before has
// left running is still there, and others count on it that this machine resets itself.
func (w *Watchdog) takeOver() {
	value := os.Getenv(handoverVariable)
	if value == "" {
		return
	}
	if err := os.Unsetenv(handoverVariable); err != nil {
		w.log.Warn("the environment cannot be changed", "err", err)
	}
	h, err := parseHandover(value)
	if err != nil {
		w.log.Error("no watchdog taken over", "err", err)
		return
	}
	if h.pid != os.Getpid() {
		return // it was meant for another process
	}
	dev, same, err := w.sys.inherit(h.fd, w.cfg.Device)
	if err != nil {
		w.log.Error("no watchdog taken over", "err", err)
		return
	}
	now := w.beats.now()
	if err := dev.feed(); err != nil {
		w.log.Error("the watchdog could not be fed", "err", err)
	}
	sup, supErr := dev.support()
	timeout, err := dev.timeout()
	if err = errors.Join(supErr, err); err != nil {
		w.log.Warn("the watchdog does not tell about itself", "err", err)
	}
	if timeout <= 0 {
		timeout = w.cfg.Timeout
	}
	var driver Driver
	if same {
		if driver, err = w.sys.look(w.cfg.Device); err != nil {
			w.log.Warn("the watchdog does not tell about itself", "err", err)
		}
	}
	w.dev, w.support, w.noWayOut, w.armedAt, w.former = dev, sup, driver.NoWayOut, now, !same
	w.state = state{timeout: timeout, fed: now, grace: now + min(h.until-w.sys.monotonic(), MaxGrace)}
	w.start()
}
