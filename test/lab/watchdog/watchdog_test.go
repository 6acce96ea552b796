// Package watchdog holds the lab tests of self-fencing: a real softdog in the
// lab kernel, and whether that kernel is reset. Never in this machine's own kernel.
package watchdog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fate is what becomes of the lab kernel.
type fate int

const (
	_     fate = iota
	lives      // the story ends, nothing was reset
	reset      // it does not come to the end
)

// slack is what a busy machine may add.
const slack = 10 * time.Second

// story is what is played in the lab kernel, and what has to become of that.
type story struct {
	play func(*stage) error
	want fate
	// within is how long after the mark the reset comes at the latest, slack not counted.
	within time.Duration
	says   string // what is said among other things
}

var stories = map[string]story{
	"a device that is fed does not bite, and a clean stop ends it": {
		play: func(s *stage) error {
			if err := s.start("TIMEOUT=1s"); err != nil {
				return err
			}
			time.Sleep(5 * time.Second)
			if err := errors.Join(s.signal(stopCleanly), s.says("stopped"), s.ends()); err != nil {
				return err
			}
			time.Sleep(4 * time.Second)
			return nil
		},
		want: lives, says: `armed "Software Watchdog" timeout 1s nowayout false taken over false`,
	},
	"a daemon that is stopped by SIGSTOP": {
		play: func(s *stage) error {
			if err := s.start("TIMEOUT=2s"); err != nil {
				return err
			}
			time.Sleep(4 * time.Second)
			if err := errors.Join(s.mark(), s.signal(unix.SIGSTOP)); err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: 2 * time.Second,
	},
	"a daemon that is killed": {
		play: func(s *stage) error {
			if err := errors.Join(s.start("TIMEOUT=2s"), s.mark(), s.signal(unix.SIGKILL)); err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: 2 * time.Second,
	},
	"a loop that hangs in a daemon that lives": {
		play: func(s *stage) error {
			if err := errors.Join(s.start("TIMEOUT=2s"), s.mark(), s.signal(hangTheLoop)); err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: 2*time.Second + maxAge, says: "actor has not turned for 1.",
	},
	"a loop that turns again in time": {
		play: func(s *stage) error {
			if err := errors.Join(s.start("TIMEOUT=8s"), s.signal(hangTheLoop)); err != nil {
				return err
			}
			time.Sleep(3 * time.Second)
			if err := s.signal(resumeLoop); err != nil {
				return err
			}
			time.Sleep(8 * time.Second)
			return errors.Join(s.signal(stopCleanly), s.says("stopped"), s.ends())
		},
		want: lives, says: "the watchdog is fed again",
	},
	"a device that is starved, with loops that turn": {
		play: func(s *stage) error {
			if err := errors.Join(s.start("TIMEOUT=2s"), s.mark(), s.signal(starveDevice)); err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: 2 * time.Second, says: `SELF-FENCING: this machine resets itself" why="a stop has failed"`,
	},
	"a device that is starved cannot be stopped any more": {
		play: func(s *stage) error {
			if err := errors.Join(s.start("TIMEOUT=3s"), s.mark(), s.signal(starveDevice)); err != nil {
				return err
			}
			time.Sleep(time.Second)
			if err := errors.Join(s.signal(stopCleanly), s.says("watchdog /dev/watchdog: the watchdog is starved")); err != nil {
				return err
			}
			return s.doomed()
		},
		// The daemon's end closes the device, which feeds it a last time.
		want: reset, within: 2 * 3 * time.Second,
	},
	"with SysRq the reset comes at once": {
		play: func(s *stage) error {
			if err := errors.Join(s.start("TIMEOUT=60s", "RESET=now"), s.mark(), s.signal(starveDevice)); err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: time.Second,
	},
	"restarts of the daemon do not reset, and a clean stop after them ends it": {
		play: func(s *stage) error {
			if err := s.start("TIMEOUT=1s"); err != nil {
				return err
			}
			for range 5 {
				if err := errors.Join(s.signal(restartIt), s.says(`armed "Software Watchdog" timeout 1s nowayout false taken over true`)); err != nil {
					return err
				}
				time.Sleep(700 * time.Millisecond)
			}
			time.Sleep(3 * time.Second)
			if err := errors.Join(s.signal(stopCleanly), s.says("stopped"), s.ends()); err != nil {
				return err
			}
			time.Sleep(3 * time.Second)
			return nil
		},
		want: lives,
	},
	"a daemon that is stopped after a restart": {
		play: func(s *stage) error {
			if err := errors.Join(s.start("TIMEOUT=2s"), s.signal(restartIt), s.says("armed "), s.mark(), s.signal(unix.SIGSTOP)); err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: 2 * time.Second,
	},
	"a restarted daemon that hangs before it arms": {
		play: func(s *stage) error {
			if err := errors.Join(s.start("TIMEOUT=1s", "NEXT=hang"), s.mark(), s.signal(restartIt)); err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: grace + time.Second,
	},
	"a restart that executes something else": {
		play: func(s *stage) error {
			if err := errors.Join(s.start("TIMEOUT=2s", "NEXT=/bin/sleep 100"), s.mark(), s.signal(restartIt)); err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: 2 * time.Second,
	},
	"a driver with nowayout is not stopped by a clean stop, which says so": {
		play: func(s *stage) error {
			if err := os.WriteFile("/sys/class/watchdog/watchdog0/nowayout", []byte("1"), 0); err != nil {
				return err
			}
			err := errors.Join(s.start("TIMEOUT=2s"), s.mark(), s.signal(stopCleanly),
				s.says("watchdog /dev/watchdog: the watchdog does not stop (nowayout): it resets this machine in 2s unless keepbeat is started again before"), s.ends())
			if err != nil {
				return err
			}
			return s.doomed()
		},
		want: reset, within: 2 * time.Second, says: "timeout 2s nowayout true",
	},
	"with nowayout a daemon that is started again in time goes on": {
		play: func(s *stage) error {
			if err := os.WriteFile("/sys/class/watchdog/watchdog0/nowayout", []byte("1"), 0); err != nil {
				return err
			}
			for range 3 {
				if err := errors.Join(s.start("TIMEOUT=3s"), s.signal(stopCleanly), s.says("watchdog /dev/watchdog: the watchdog does not stop"), s.ends()); err != nil {
					return err
				}
				time.Sleep(time.Second)
			}
			if err := s.start("TIMEOUT=3s"); err != nil {
				return err
			}
			time.Sleep(5 * time.Second)
			return nil // the end of the lab kernel comes before the device's
		},
		want: lives,
	},
	"a device in use names who has it": {
		play: func(s *stage) error {
			if err := s.start("TIMEOUT=5s"); err != nil {
				return err
			}
			second := exec.Command("/proc/self/exe")
			second.Env = append(os.Environ(), roleVariable+"=daemon", "TIMEOUT=5s")
			out, err := second.CombinedOutput()
			want := fmt.Sprintf("watchdog /dev/watchdog: device or resource busy: exe (process %d) has it open", s.daemon.Process.Pid)
			if err == nil || !strings.Contains(string(out), want) {
				return fmt.Errorf("%v: %s; want %s", err, out, want)
			}
			return errors.Join(s.signal(stopCleanly), s.says("stopped"), s.ends())
		},
		want: lives,
	},
	"a busy machine is not reset": {
		play: func(s *stage) error {
			if err := errors.Join(unix.Setpriority(unix.PRIO_PROCESS, 0, -20), s.start("TIMEOUT=1s")); err != nil {
				return err
			}
			for range 32 {
				hog := exec.Command("nice", "-n", "20", "sh", "-c", "while :; do :; done") // the story's own is -20
				if err := hog.Start(); err != nil {
					return err
				}
				defer hog.Wait() // killed just before; how it ended says nothing
				defer hog.Process.Kill()
			}
			time.Sleep(5 * time.Second)
			return errors.Join(s.signal(stopCleanly), s.says("stopped"), s.ends())
		},
		want: lives,
	},
}

func TestSoftdog(t *testing.T) {
	for name, story := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			e := run(t, name)
			if story.want == reset && e.hung() {
				t.Logf("the lab kernel stood still in its reset, which tells nothing of when: once more; it had said:\n%s", e.said)
				e = run(t, name)
			}
			switch {
			case story.want == lives && (e.boots != 1 || e.err != nil || e.status != 0):
				t.Errorf("%d boots, exit status %d, %v", e.boots, e.status, e.err)
			case story.want == reset && !e.reset():
				t.Errorf("the lab kernel was not reset: %d boots, exit status %d, %v", e.boots, e.status, e.err)
			case story.want == reset:
				t.Logf("reset after %v; at the latest %v", e.after.Round(time.Millisecond), story.within)
				if e.after > story.within+slack {
					t.Error("too late")
				}
			}
			if !strings.Contains(e.said, story.says) {
				t.Errorf("nobody said %q", story.says)
			}
			if t.Failed() {
				t.Log(e.said)
			}
		})
	}
}
