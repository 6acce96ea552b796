package watchdog

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestResetNow(t *testing.T) {
	off := func() error { return errors.New("off") }
	for name, tc := range map[string]struct {
		tell  time.Duration // how long that takes
		sysrq error
		left  time.Duration
		// When what is called, since the beginning; 0: never.
		wantSysrq, wantReboot time.Duration
	}{
		"SysRq at once": {tell: ms, wantSysrq: ms, wantReboot: ms + atOnce},
		"a disk that does not synchronise is not waited for":   {tell: time.Hour, wantSysrq: tellLimit, wantReboot: tellLimit + atOnce},
		"without SysRq and without a device: reboot":           {tell: ms, sysrq: off(), wantSysrq: ms, wantReboot: ms},
		"without SysRq the device comes first":                 {tell: ms, sysrq: off(), left: 10 * s, wantSysrq: ms, wantReboot: ms + 10*s + late},
		"SysRq that does nothing, and a device that is broken": {tell: ms, left: 10 * s, wantSysrq: ms, wantReboot: ms + atOnce + 10*s + late},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var sysrq, reboot time.Duration
				err := reset{
					tell:   func() { time.Sleep(tc.tell) },
					sysrq:  func() error { sysrq = time.Since(began); return tc.sysrq },
					reboot: func() error { reboot = time.Since(began); return nil },
				}.now(tc.left)
				defer time.Sleep(tc.tell) // what was not waited for ends as well
				if err == nil {
					t.Error("no error, and the machine is still there")
				}
				if sysrq != tc.wantSysrq || reboot != tc.wantReboot {
					t.Errorf("SysRq after %v, want %v; reboot after %v, want %v", sysrq, tc.wantSysrq, reboot, tc.wantReboot)
				}
			})
		})
	}
}
