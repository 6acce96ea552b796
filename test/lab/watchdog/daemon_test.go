package watchdog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/fencing/watchdog"
	"github.com/keepbeat/keepbeat/test/lab/uml"
)

// What the daemon does at a signal.
const (
	stopCleanly  = unix.SIGTERM
	restartIt    = unix.SIGHUP
	hangTheLoop  = unix.SIGUSR1
	resumeLoop   = unix.SIGUSR2
	starveDevice = unix.SIGINT
)

const (
	maxAge = time.Second
	grace  = 3 * time.Second
)

// daemon is a stand-in for keepbeat in the lab kernel: a loop, and a watchdog
// that it feeds. It says on standard output how far it is.
//
//	TIMEOUT    of the device
//	RESET=now  it asks the kernel when it starves
//	NEXT       what a restart executes; empty: itself
//	HANG       it hangs before it arms
func daemon() error {
	if err := insideLabKernel(); err != nil {
		return err
	}
	// As the unit has it.
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, stopCleanly, restartIt, hangTheLoop, resumeLoop, starveDevice)
	timeout, err := time.ParseDuration(os.Getenv("TIMEOUT"))
	if err != nil {
		return err
	}
	cfg := watchdog.Config{Device: "/dev/watchdog", Timeout: timeout, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if os.Getenv("RESET") == "now" {
		cfg.Reset = watchdog.ResetNow
	}
	w, err := watchdog.New(cfg)
	if err != nil {
		return err
	}
	if os.Getenv("HANG") != "" {
		select {}
	}
	actor := w.Register("actor", maxAge)
	var hangs atomic.Bool
	go func() {
		for range time.Tick(50 * time.Millisecond) {
			if !hangs.Load() {
				actor.Turn()
			}
		}
	}()
	taken := w.Running()
	if err := w.Arm(context.Background()); err != nil {
		return err
	}
	st := w.Status()
	fmt.Printf("armed %q timeout %v nowayout %v taken over %v\n", st.Identity, st.Timeout, st.NoWayOut, taken)
	for s := range signals {
		switch s {
		case hangTheLoop, resumeLoop:
			hangs.Store(s == hangTheLoop)
		case starveDevice:
			w.Starve("a stop has failed")
		case restartIt:
			if err := restart(w); err != nil {
				return err
			}
		case stopCleanly:
			if err := w.Disarm(context.Background()); err != nil {
				fmt.Println(err)
				return nil
			}
			fmt.Println("stopped")
			return nil
		}
	}
	return nil
}

func restart(w *watchdog.Watchdog) error {
	argv := os.Args
	if next := os.Getenv("NEXT"); next != "" {
		argv = strings.Fields(next)
	}
	path := argv[0]
	env := os.Environ()
	if path == "hang" {
		argv, env = os.Args, append(env, "HANG=1")
	}
	if path = argv[0]; path == os.Args[0] {
		path = "/proc/self/exe"
	}
	return w.Exec(path, argv, env, grace)
}

// insideLabKernel keeps all of this away from the machine that the tests run on.
func insideLabKernel() error {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	if !uml.Inside() || !strings.Contains(string(cpu), "User Mode Linux") {
		return errors.New("this is for the lab kernel only: it resets the machine")
	}
	return nil
}
