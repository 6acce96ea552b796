package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/keepbeat/keepbeat/cluster"
	"github.com/keepbeat/keepbeat/conf"
	"github.com/keepbeat/keepbeat/fencing/watchdog"
)

// reexecutor replaces the daemon by the program as it is on disk.
type reexecutor struct {
	config  string // path of ha.yaml
	node    *cluster.Node
	dog     *watchdog.Watchdog
	routers *routers // nil: there is no vrrp.yaml
	logger  *slog.Logger
}

// restartable is a node that restarts only into a daemon that could start.
type restartable struct {
	*cluster.Node
	again *reexecutor
}

// PrepareRestart is cluster.Node's, after a look at the files.
func (n restartable) PrepareRestart(ctx context.Context) error { return n.again.prepare(ctx) }

// prepare takes the long lease if the new daemon could start.
func (r *reexecutor) prepare(ctx context.Context) error {
	if err := r.sound(); err != nil {
		return fmt.Errorf("%w\nthe new daemon would not start, so this one goes on: correct that (`keepbeat check-config` looks at it), or begin a newer program that knows it by `systemctl restart keepbeat`", err)
	}
	return r.node.PrepareRestart(ctx)
}

// sound says whether a daemon that starts now could read its files.
func (r *reexecutor) sound() error {
	local, _, err := conf.LoadLocal(r.config)
	if err != nil {
		return err
	}
	if _, _, err := conf.LoadAuthKeys(local.AuthKeys); err != nil {
		return err
	}
	if err := groupsOf(local).Check(); err != nil {
		return fmt.Errorf("%s: %w", r.config, err)
	}
	if !hasRouters(r.config) {
		return nil
	}
	_, err = routersOfNode(r.config, local, slog.New(slog.DiscardHandler))
	return err
}

// restart is SIGHUP: the long lease, then re-exec.
func (r *reexecutor) restart() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.prepare(ctx); err != nil {
		r.logger.Error("not restarted", "err", err)
		return
	}
	r.exec()
}

// exec replaces the daemon by the program as it is on disk now. What the
// cluster started here stays up under the long lease, and the new one takes it
// over; virtual routers leave, since nobody would speak for them meanwhile.
func (r *reexecutor) exec() {
	time.Sleep(50 * time.Millisecond) // let the answer on the control socket get out
	path, err := executable()
	if err == nil {
		usec, _ := monotonicUsec()
		notify("RELOADING=1\nMONOTONIC_USEC="+usec, r.logger)
		if r.routers != nil {
			r.routers.leave()
		}
		r.node.Replacing()
		err = r.dog.Exec(path, os.Args, append(os.Environ(), carryVariable+"="+r.node.Carry()), min(r.node.RestartLease(), watchdog.MaxGrace))
	}
	r.logger.Error("re-exec failed; going on", "err", err)
	if r.routers != nil {
		r.routers.stay()
	}
	notify(daemon.SdNotifyReady, r.logger)
	r.node.CancelRestart()
}

// carryVariable carries cluster.Node.Carry over a re-exec.
const carryVariable = "KEEPBEAT_CARRY"

func takeCarry() string {
	s := os.Getenv(carryVariable)
	_ = os.Unsetenv(carryVariable) // fails only for a name that is none
	return s
}

// rejoin starts the daemon again from nothing. Nothing runs any more; the
// guard that stands is the next one's.
func rejoin(dog *watchdog.Watchdog) error {
	path, err := executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("start again: %w", dog.Exec(path, os.Args, os.Environ(), watchdog.MaxGrace))
}

// executable returns the program's path. After an upgrade the running file is
// gone and Linux names it "… (deleted)": the new one is at the old place.
func executable() (string, error) {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", err
	}
	const gone = " (deleted)"
	if len(path) > len(gone) && path[len(path)-len(gone):] == gone {
		path = path[:len(path)-len(gone)]
	}
	return path, nil
}

func monotonicUsec() (string, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return strconv.FormatInt(ts.Nano()/1000, 10), err
}
