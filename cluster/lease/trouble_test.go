package lease

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type fullDisk struct {
	full bool
	Memory
}

func (d *fullDisk) Save(r Record) error {
	if d.full {
		return errors.New("no space left on device")
	}
	return d.Memory.Save(r)
}

func TestADiskThatIsFullIsToldAndDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, v, _ := alone(t)
		var log bytes.Buffer
		disk := &fullDisk{full: true}
		k.cfg.Store, k.cfg.Logger = disk, slog.New(slog.NewTextHandler(&log, nil))
		for range 100 { // 12.5 s
			playRound(k, v)
			time.Sleep(length / 4)
		}
		if k.Left() > 0 {
			t.Error("a promise that was not stored was given")
		}
		if err := k.Unstored(); err == nil || err.Error() != "no space left on device" {
			t.Errorf("Unstored says %v", err)
		}
		if n := strings.Count(log.String(), "cannot store its promises"); n < 1 || n > 2 {
			t.Errorf("%d lines of log in 12.5 s:\n%s", n, log.String())
		}
		disk.full = false
		playRound(k, v)
		if err := k.Unstored(); err != nil || k.Left() <= 0 {
			t.Errorf("with room again: Unstored says %v, the lease has %v left", err, k.Left())
		}
	})
}

func TestGarbageFromAnotherNodeDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _, _ := alone(t)
		var log bytes.Buffer
		k.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		for range 10_000 {
			k.Receive("b", 2, []byte("garbage"))
			time.Sleep(time.Millisecond)
		}
		if n := strings.Count(log.String(), "\n"); n < 1 || n > 2 {
			t.Errorf("%d lines of log in 10 s", n)
		}
	})
}
