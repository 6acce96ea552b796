package watchdog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test with a device and a loop called actor that turns.
func bubble(t *testing.T, cfg Config, test func(t *testing.T, d *dog, actor *Beat, hang func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if cfg.Device == "" {
			cfg.Device = "/dev/watchdog"
		}
		d := newDog(t, cfg, newFake())
		defer d.end()
		actor := d.Register("actor", 2*s)
		hang := d.turns(actor)
		defer hang()
		test(t, d, actor, hang)
	})
}

func TestItIsFedWhileTheLoopsTurn(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		time.Sleep(time.Minute)
		if d.Running() {
			t.Fatal("it runs before it is armed")
		}
		d.arm()
		time.Sleep(time.Hour)
		d.bitten(false)
		st := d.Status()
		if st.Identity != "Fake" || st.Timeout != 10*s || time.Since(st.Armed) != time.Hour || st.Left < 8*s || len(st.Held) > 0 || !st.Running {
			t.Errorf("%+v", st)
		}
		d.log.has(t, `msg="watchdog armed" device=/dev/watchdog driver=Fake timeout=10s`)
	})
}

func TestALoopThatStopsTurningEndsInAReset(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, hang func()) {
		lease := d.Register("lease", 500*ms)
		lease.Idle(true)
		d.arm()
		time.Sleep(time.Minute)
		hang()
		time.Sleep(4 * s)
		if st := d.Status(); len(st.Held) != 1 || !strings.HasPrefix(st.Held[0], "actor has not turned for ") {
			t.Errorf("held back by %q", st.Held)
		}
		d.log.has(t, `level=ERROR msg="the watchdog is not fed" device=/dev/watchdog why="actor has not turned for 3s (2s allowed)"`)
		d.bitten(false)
		// maxAge and one timeout after it turned last, at the latest.
		time.Sleep(8*s + ms)
		d.bitten(true)
	})
}

func TestALoopThatTurnsAgainInTimeIsForgiven(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, actor *Beat, hang func()) {
		d.arm()
		time.Sleep(time.Minute)
		hang()
		time.Sleep(10 * s)
		d.bitten(false)
		defer d.turns(actor)()
		time.Sleep(time.Hour)
		d.bitten(false)
		d.log.has(t, `level=WARN msg="the watchdog is fed again" device=/dev/watchdog`)
	})
}

func TestAnIdleLoopThatIsGivenWorkHasToTurn(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		runner := d.Register("group web", 2*s)
		runner.Idle(true)
		d.arm()
		time.Sleep(time.Hour)
		d.bitten(false)
		runner.Idle(false)
		time.Sleep(13 * s)
		d.bitten(true)
	})
}

func TestALoopThatIsDoneIsNotAskedForAnyMore(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		d.Register("group web", 2*s).Done()
		d.arm()
		time.Sleep(time.Hour)
		d.bitten(false)
	})
}

func TestStarve(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		d.arm()
		time.Sleep(time.Minute)
		d.Starve("group db: stop failed")
		d.Starve("another reason")
		time.Sleep(s)
		if st := d.Status(); st.Starved != "group db: stop failed" || len(st.Held) != 1 || st.Left > 10*s {
			t.Errorf("%+v", st)
		}
		d.log.has(t, `level=ERROR msg="SELF-FENCING: this machine resets itself" why="group db: stop failed"`)
		if err := d.Disarm(t.Context()); !errors.Is(err, ErrStarved) {
			t.Errorf("Disarm: %v", err)
		}
		if err := d.Exec("/bin/true", nil, nil, s); !errors.Is(err, ErrStarved) {
			t.Errorf("Exec: %v", err)
		}
		time.Sleep(9*s + s/10) // not at the very instant at which it bites
		d.bitten(true)
	})
}

func TestStarveAsksTheKernelAtOnce(t *testing.T) {
	asked := make(chan time.Duration, 1)
	reset := func(why string, left time.Duration) error {
		asked <- left
		return errors.New("SysRq is off")
	}
	bubble(t, Config{Reset: reset}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		d.arm()
		d.Starve("stop failed")
		began := time.Now()
		if left := <-asked; left != 10*s || time.Since(began) > tellLimit {
			t.Errorf("asked after %v, with %v left", time.Since(began), left)
		}
		synctest.Wait()
		d.log.has(t, `msg="this machine could not be reset" err="SysRq is off"`)
	})
}

func TestStarveBeforeArmOpensTheDeviceAndDoesNotFeedIt(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		d.Starve("what the last daemon left does not stop")
		time.Sleep(9 * s)
		d.bitten(false)
		if err := d.Arm(t.Context()); !errors.Is(err, ErrStarved) {
			t.Errorf("Arm: %v", err)
		}
		time.Sleep(2 * s)
		d.bitten(true)
	})
}

func TestDisarm(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, hang func()) {
		d.arm()
		time.Sleep(time.Minute)
		hang()
		if err := d.Disarm(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := d.dev.state(); got != (fakeState{stopped: true, closed: true}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestDisarmWithNoWayOutSaysSo(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		d.dev.noWayOut = true
		d.arm()
		d.log.has(t, `level=WARN msg="the watchdog's driver has nowayout`)
		err := d.Disarm(t.Context())
		if !errors.Is(err, ErrNoWayOut) || !strings.Contains(err.Error(), "resets this machine in 10s unless keepbeat is started again") {
			t.Errorf("Disarm: %v", err)
		}
	})
}

func TestADriverThatOnlyStopsByClosing(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		d.dev.stopErr = errors.ErrUnsupported
		d.arm()
		if err := d.Disarm(t.Context()); err != nil || !d.dev.state().stopped {
			t.Errorf("%v, %+v", err, d.dev.state())
		}
	})
}

func TestDisarmDoesNotWaitForADriverThatHangs(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		d.arm()
		time.Sleep(s)
		stuck := make(chan struct{})
		d.dev.hang(stuck)
		time.Sleep(5 * s)
		ctx, cancel := context.WithTimeout(t.Context(), s)
		defer cancel()
		if err := d.Disarm(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Disarm: %v", err)
		}
		d.Starve("it hangs") // returns at once as well
		if st := d.Status(); st.Left > 5*s {
			t.Errorf("%v left", st.Left)
		}
		close(stuck)
	})
}

func TestALogThatNobodyReadsDoesNotStopTheFeeding(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, actor *Beat, hang func()) {
		d.arm()
		read := make(chan struct{})
		d.log.unread(read)
		hang()
		time.Sleep(4 * s) // something to say
		defer d.turns(actor)()
		time.Sleep(time.Hour)
		d.bitten(false)
		close(read)
	})
}

func TestAFeedingThatFailsIsSaidOnceAndTriedAgain(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		d.arm()
		d.dev.setFedErr(unix.EIO)
		time.Sleep(5 * s)
		if st := d.Status(); st.Error != "input/output error" || st.Left > 6*s {
			t.Errorf("%+v", st)
		}
		d.dev.setFedErr(nil)
		time.Sleep(time.Hour)
		d.bitten(false)
		d.log.mu.Lock()
		defer d.log.mu.Unlock()
		if n := strings.Count(d.log.b.String(), "could not be fed"); n != 1 {
			t.Errorf("%d lines of it:\n%s", n, d.log.b.String())
		}
	})
}

func TestArmRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg    Config
		change func(d *dog)
		want   string
	}{
		"a driver that makes too long a timeout of it": {
			change: func(d *dog) {
				d.dev.makes = func(time.Duration) (time.Duration, error) { return 16 * s, nil }
			},
			want: "watchdog /dev/watchdog (Fake): the driver makes a timeout of 16s out of 10s; write `timeout: 16s`, or use softdog",
		},
		"a driver that makes too short a timeout of it": {
			change: func(d *dog) {
				d.dev.makes = func(time.Duration) (time.Duration, error) { return 4 * s, nil }
			},
			want: "watchdog /dev/watchdog (Fake): the driver makes a timeout of 4s out of 10s; write `timeout: 4s`, or use softdog",
		},
		"a driver with a fixed timeout that is another": {
			change: func(d *dog) {
				d.dev.makes = func(time.Duration) (time.Duration, error) { return 0, errors.ErrUnsupported }
			},
			want: "watchdog /dev/watchdog (Fake): the driver makes a timeout of 1m0s out of 10s; write `timeout: 1m0s`, or use softdog",
		},
		"a driver that only raises an alarm": {
			change: func(d *dog) { d.dev.options |= unix.WDIOF_ALARMONLY },
			want:   "watchdog /dev/watchdog (Fake): the driver raises an alarm and resets nothing; use another device, or softdog",
		},
		"a driver that the daemon's death stops": {
			change: func(d *dog) { d.dev.options &^= unix.WDIOF_MAGICCLOSE },
			want:   "watchdog /dev/watchdog (Fake): the driver stops when the daemon dies (it has no magic close); load it with nowayout=1, or use softdog",
		},
		"a timeout above the driver's limit, before it opens anything": {
			change: func(d *dog) {
				d.Watchdog.sys.look = func(string) (Driver, error) {
					return Driver{Identity: "Fake", Min: s, Max: 8 * s}, nil
				}
				d.Watchdog.sys.open = func(string) (device, error) { panic("opened") }
			},
			want: "watchdog /dev/watchdog (Fake): a timeout of 10s is more than the driver's most, 8s",
		},
		"a timeout below the driver's limit": {
			change: func(d *dog) {
				d.Watchdog.sys.look = func(string) (Driver, error) { return Driver{Identity: "Fake", Min: 30 * s}, nil }
			},
			want: "watchdog /dev/watchdog (Fake): a timeout of 10s is less than the driver's least, 30s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, tc.cfg, func(t *testing.T, d *dog, _ *Beat, _ func()) {
				tc.change(d)
				if err := d.Arm(t.Context()); err == nil || err.Error() != tc.want {
					t.Errorf("got  %v\nwant %s", err, tc.want)
				}
				if st := d.Status(); st.Running || st.Error != tc.want {
					t.Errorf("status says %q, running %v", st.Error, st.Running)
				}
				time.Sleep(time.Hour)
				d.bitten(false) // what was opened is stopped
				if d.Running() {
					t.Error("it runs")
				}
			})
		})
	}
}

func TestWhatKeptItFromBeingArmedIsForgottenWhenItIs(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
		open := d.Watchdog.sys.open
		d.Watchdog.sys.open = func(string) (device, error) { return nil, unix.EBUSY }
		if err := d.Arm(t.Context()); !errors.Is(err, unix.EBUSY) || d.Status().Error != unix.EBUSY.Error() {
			t.Errorf("%v; status says %q", err, d.Status().Error)
		}
		d.Watchdog.sys.open = open
		d.arm()
		if st := d.Status(); st.Error != "" || st.Armed.IsZero() {
			t.Errorf("%+v", st)
		}
	})
}

func TestArmAcceptsWhatADriverRounds(t *testing.T) {
	for _, made := range []time.Duration{8 * s, 10 * s, 11 * s} {
		bubble(t, Config{}, func(t *testing.T, d *dog, _ *Beat, _ func()) {
			d.dev.makes = func(time.Duration) (time.Duration, error) { return made, nil }
			d.arm()
			if got := d.Status().Timeout; got != made {
				t.Errorf("timeout %v, want %v", got, made)
			}
		})
	}
}

func TestArmWithoutLoopsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDog(t, Config{Device: "/dev/watchdog"}, newFake())
		if err := d.Arm(t.Context()); err == nil || err.Error() != "watchdog /dev/watchdog: no loop is registered that would feed it" {
			t.Error(err)
		}
	})
}

func TestWithoutADeviceEverythingIsThereAndDoesNothing(t *testing.T) {
	var log bytes.Buffer
	w, err := New(Config{Reset: func(string, time.Duration) error { panic("reset") }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w.Register("actor", s).Turn()
	for i := range 100 { // it is asked for at every turn of the actor
		w.Starve(fmt.Sprintf("no device, for %d s", i))
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "no device, for 0 s") {
		t.Errorf("%d lines in the log:\n%s", n, log.String())
	}
	if err := errors.Join(w.Arm(t.Context()), w.Disarm(t.Context()), w.Abandon(t.Context())); err != nil {
		t.Error(err)
	}
	if st := w.Status(); st.Device != "" || st.Running {
		t.Errorf("%+v", st)
	}
	var none *Beat
	none.Turn()
	none.Idle(true)
	none.Done()
}

func TestTimeouts(t *testing.T) {
	for _, tc := range []struct {
		in, want time.Duration
		err      string
	}{
		{0, 10 * s, ""},
		{1 * s, 1 * s, ""},
		{1001 * ms, 2 * s, ""},
		{10 * time.Minute, 10 * time.Minute, ""},
		{999 * ms, 0, "watchdog: timeout 999ms: want 1s to 10m0s"},
		{601 * s, 0, "watchdog: timeout 10m1s: want 1s to 10m0s"},
	} {
		w, err := New(Config{Device: "/dev/watchdog", Timeout: tc.in})
		if got := fmt.Sprint(err); tc.err != "" && got != tc.err || tc.err == "" && (err != nil || w.Status().Timeout != tc.want) {
			t.Errorf("%v: %v", tc.in, err)
		}
	}
}

func TestABeatIsCheapAndTakesNoLock(t *testing.T) {
	w, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := w.Register("actor", s)
	w.beats.mu.Lock()
	defer w.beats.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := testing.AllocsPerRun(100, b.Turn); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTurn(b *testing.B) {
	w, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	beat := w.Register("actor", s)
	for b.Loop() {
		beat.Turn()
	}
}

// ---- re-exec

// restarted runs a program's re-exec on a fake device: before execs, after is the new program's Watchdog.
func restarted(t *testing.T, cfg Config, grace time.Duration, after func(t *testing.T, d *dog)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r, w, err := os.Pipe() // a descriptor to pass
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		dev := newFake()
		dev.fd = int(w.Fd())
		before := newDog(t, Config{Device: "/dev/watchdog"}, dev)
		defer before.end()
		before.Register("actor", time.Hour)
		before.arm()
		time.Sleep(time.Minute)
		var handed string
		before.Watchdog.sys.exec = func(_ string, _, env []string) error {
			flags, err := unix.FcntlInt(w.Fd(), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC != 0 {
				t.Errorf("descriptor flags %#x, %v: it would not pass", flags, err)
			}
			for _, e := range env {
				if v, ok := strings.CutPrefix(e, handoverVariable+"="); ok {
					handed = v
				}
			}
			return unix.ENOENT
		}
		if err := before.Exec("/gone", nil, []string{"A=B", handoverVariable + "=old"}, grace); !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
		// A failed exec leaves all as it was.
		if flags, err := unix.FcntlInt(w.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor flags %#x, %v", flags, err)
		}
		time.Sleep(time.Minute)
		before.bitten(false)

		// Now as if it had worked: no thread of the old program is left.
		if err := before.Watchdog.end(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Setenv(handoverVariable, freshen(t, handed, grace))
		d := newDog(t, cfg, dev)
		defer d.end()
		if os.Getenv(handoverVariable) != "" {
			t.Error("the variable is still there, for every child")
		}
		after(t, d)
	})
}

// freshen sets the end of the grace by the clock of the test's second program, which starts at zero.
func freshen(t *testing.T, handed string, grace time.Duration) string {
	t.Helper()
	h, err := parseHandover(handed)
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Minute + grace; h.until != want {
		t.Errorf("fed until %v, want %v", h.until, want)
	}
	h.until = grace
	return h.String()
}

func TestAfterAReexecItIsFedUntilItIsArmedAgain(t *testing.T) {
	restarted(t, Config{Device: "/dev/watchdog", Timeout: 5 * s}, 30*s, func(t *testing.T, d *dog) {
		if !d.Running() {
			t.Fatal("not taken over")
		}
		time.Sleep(29 * s)
		d.bitten(false)
		actor := d.Register("actor", 2*s)
		stop := d.turns(actor)
		defer stop()
		d.arm()
		if got := d.Status().Timeout; got != 5*s {
			t.Errorf("timeout %v, want the new configuration's", got)
		}
		time.Sleep(time.Hour)
		d.bitten(false)
		stop()
		time.Sleep(8 * s)
		d.bitten(true)
	})
}

func TestAReexecThatDoesNotGetAsFarAsArmEndsInAReset(t *testing.T) {
	restarted(t, Config{Device: "/dev/watchdog"}, 30*s, func(t *testing.T, d *dog) {
		time.Sleep(35 * s)
		d.bitten(false)
		if st := d.Status(); len(st.Held) != 1 || !st.Armed.IsZero() {
			t.Errorf("%+v", st)
		}
		time.Sleep(6 * s)
		d.bitten(true)
	})
}

func TestATimeoutThatTheDriverRefusesAfterAReexecResetsNobody(t *testing.T) {
	restarted(t, Config{Device: "/dev/watchdog", Timeout: 7 * time.Minute}, 30*s, func(t *testing.T, d *dog) {
		d.dev.makes = func(time.Duration) (time.Duration, error) { return 0, unix.EINVAL }
		defer d.turns(d.Register("actor", 2*s))()
		d.arm()
		d.log.has(t, `level=ERROR msg="the watchdog goes on with the timeout that it had"`)
		time.Sleep(time.Hour)
		d.bitten(false)
		if got := d.Status().Timeout; got != 10*s {
			t.Errorf("timeout %v", got)
		}
	})
}

func TestAReexecWithoutAWatchdogInTheNewConfigurationStopsItWhenTheNodeHasJoined(t *testing.T) {
	restarted(t, Config{}, 30*s, func(t *testing.T, d *dog) {
		time.Sleep(29 * s) // what the daemon before has left runs, and others count on the reset
		if got := d.dev.state(); got != (fakeState{}) {
			t.Errorf("before it has joined: %+v", got)
		}
		d.arm()
		time.Sleep(time.Hour)
		if got := d.dev.state(); got != (fakeState{stopped: true, closed: true}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestAReexecWithoutAWatchdogThatDoesNotJoinEndsInAReset(t *testing.T) {
	restarted(t, Config{}, 30*s, func(t *testing.T, d *dog) {
		time.Sleep(29 * s)
		d.bitten(false)
		time.Sleep(12 * s)
		d.bitten(true)
	})
}

func TestADevicePassedToAnotherProcessIsLeftAlone(t *testing.T) {
	t.Setenv(handoverVariable, handover{pid: os.Getpid() + 1, fd: 3, until: time.Hour}.String())
	w, err := New(Config{Device: "/dev/watchdog"})
	if err != nil || w.Running() {
		t.Errorf("%v, taken over: %v", err, w.Running())
	}
}

func TestADescriptorThatIsNoWatchdogIsLeftAlone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	t.Setenv(handoverVariable, handover{pid: os.Getpid(), fd: int(w.Fd()), until: time.Hour}.String())
	dog, err := New(Config{Device: "/dev/watchdog"})
	if err != nil || dog.Running() {
		t.Errorf("%v, taken over: %v", err, dog.Running())
	}
	if _, err := w.Write([]byte("still open")); err != nil {
		t.Error(err)
	}
}
