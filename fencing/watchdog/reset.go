package watchdog

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// late is how long after its time a device is believed not to bite at all.
	late = 5 * time.Second
	// atOnce is how long the kernel may take for a reset by SysRq.
	atOnce = 2 * time.Second
)

// ResetNow is Config.Reset of a daemon: it resets the machine at once, by SysRq.
//
// SysRq's b resets without another word: no driver is shut down, nothing is waited for. reboot(2) is not like that:
// it stops softdog and other watchdogs first and then shuts down each driver, and hangs with the
// disk that made the stop hang, with the daemons of this machine still alive and the watchdog gone. So it comes only
// where no device runs, or when the device is late.
// Before, for at most tellLimit, the reason goes to the kernel's log, where pstore and a serial console find it, and file systems are synchronised.
func ResetNow(why string, left time.Duration) error {
	return reset{
		tell: func() {
			// Without them the reason is lost, and the reset comes all the same.
			_ = os.WriteFile("/dev/kmsg", []byte("<0>keepbeat: self-fencing: "+why+"\n"), 0)
			unix.Sync()
		},
		sysrq:  func() error { return os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0) },
		reboot: func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) },
	}.now(left)
}

type reset struct {
	tell          func()
	sysrq, reboot func() error
}

func (r reset) now(left time.Duration) error {
	told := make(chan struct{})
	go func() {
		defer close(told)
		r.tell()
	}()
	limit := time.NewTimer(tellLimit)
	defer limit.Stop()
	select {
	case <-told:
	case <-limit.C:
	}
	sysrq := r.sysrq()
	if sysrq == nil {
		time.Sleep(atOnce)
		sysrq = errors.New("the kernel did nothing")
	}
	if left > 0 {
		time.Sleep(left + late)
	}
	err := r.reboot()
	if err == nil {
		err = errors.New("the kernel did nothing")
	}
	return fmt.Errorf("SysRq b: %w; the watchdog did not bite; reboot: %w", sysrq, err)
}
